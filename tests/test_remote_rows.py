"""Sets behind a URL or on the Hub give what the folder gives, and each process reads shards of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from clips_helpers import make_row, write_clips
from frame_set_helpers import frame_rows, write_set
from fsspec.implementations.local import LocalFileSystem
from hub_stand_in import commit_of, serve

from datasets_scripts.schema import clips_features, gaze_features, plane_clips_features, planes_features
from train.clip_order import SeededBatches
from train.frame_sets import read_frames
from train.remote_sets import id_and_revision, load_arguments, open_folder, splits_at
from train.stored_rows import StoredRowsError, data_hash, open_rows, read_text, split_names
from train.triples import list_clips, open_clips

ROOT = Path(__file__).resolve().parents[1]
SHARDS, CLIPS = 8, 48


class WatchedFileSystem(LocalFileSystem):
    """Local files behind a protocol of their own, as s3:// is; notes which are opened."""

    protocol = "watched"
    opened: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol("/" + path.removeprefix("watched://").lstrip("/"))

    def _open(self, path: str, *arguments: object, **named: object) -> object:
        self.opened.append(Path(path).name)
        return super()._open(path, *arguments, **named)


class LockedFileSystem(LocalFileSystem):
    """A store that asks for credentials, in an error of its own kind, as botocore does."""

    protocol = "locked"

    def glob(self, path: str, **named: object) -> list[str]:
        raise RuntimeError("unable to locate credentials")


for kind in (WatchedFileSystem, LockedFileSystem):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)


def write_many(folder: Path, name: str = "clip") -> Path:
    """48 clips in 8 shards, and 5 held-out ones."""
    rows = [make_row(f"{name}{i}", f"scan{i // 6}", float(i), sound=i % 5 == 0) for i in range(CLIPS)]
    held_out = [make_row(f"held_out{i}", "other", float(i), sound=False) for i in range(5)]
    return write_clips(folder, [rows[i::SHARDS] for i in range(SHARDS)], [held_out])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_many(tmp_path_factory.mktemp("clips") / "clips")


def put_in_memory(folder: Path, name: str) -> str:
    fsspec.filesystem("memory").put(str(folder), f"/{name}", recursive=True)
    return f"memory://{name}"


@pytest.fixture(scope="module")
def in_memory(clips: Path) -> Iterator[str]:
    """The URL of the clips in fsspec's memory."""
    yield put_in_memory(clips, "clips")
    fsspec.filesystem("memory").rm("/clips", recursive=True)


@pytest.fixture(params=["file", "memory", "watched", "trailing slash"])
def url(request: pytest.FixtureRequest, clips: Path, in_memory: str) -> str:
    """The clips' URL, of each kind."""
    kinds = {"memory": in_memory, "watched": f"watched://{clips}", "trailing slash": f"file://{clips}/"}
    return kinds.get(request.param, f"file://{clips}")


def test_the_rows_behind_a_url_are_those_of_the_folder(clips: Path, url: str) -> None:
    assert split_names(url, "medium") == split_names(str(clips), "medium") == ["train", "validation"]
    for split in ("train", "validation"):
        here, there = (open_clips(dataset, "medium", split) for dataset in (str(clips), url))
        assert there.features == here.features
        assert there.num_shards == here.num_shards
        assert list(there) == list(here)
        assert list_clips(url, "medium", split) == list_clips(str(clips), "medium", split)
    selected = open_rows(url, "medium", "train", ("scan_id",), select=True)
    assert list(selected.features) == ["scan_id"]
    assert set(next(iter(selected))) == {"scan_id"}


def test_files_beside_the_shards_are_read_through_the_url(clips: Path, url: str) -> None:
    assert read_text(url, "README.md") == (clips / "README.md").read_text()
    assert read_text(url, "splits.json") is None
    assert data_hash(url, "medium") == data_hash(str(clips), "medium")


def test_the_data_hash_behind_a_url_is_the_one_written_with_the_clips(tmp_path: Path) -> None:
    row = make_row("a", "s", 0.0)
    folder = write_clips(tmp_path / "clips", [[row]], [[row]])
    (folder / "data" / "medium" / "info.json").write_text('{"data_hash": "abc"}')
    assert data_hash(f"file://{folder}", "medium") == "abc"


@pytest.mark.parametrize("features", [clips_features, planes_features, plane_clips_features, gaze_features])
def test_the_columns_behind_a_url_are_those_of_the_folder(features: Callable, tmp_path: Path) -> None:
    folder = str(write_set(tmp_path / "set", {"train": []}, "some", features()))
    here, there = (open_rows(dataset, "some", "train", ()) for dataset in (folder, f"file://{folder}"))
    assert list(there.features) == list(features())
    assert there.features == here.features


def test_labelled_frames_behind_a_url_are_those_of_the_folder(tmp_path: Path) -> None:
    rows = frame_rows(scans=6)
    patients = {"train": {"patient": [f"scan{number:02d}" for number in range(6)]}}
    folder = write_set(tmp_path / "frames", {"train": rows[:30], "test": rows[30:]}, patients=patients)
    here, there = (read_frames(dataset, "planes", 16) for dataset in (str(folder), f"file://{folder}"))
    assert there.class_names == here.class_names
    assert (there.scan_ids, there.splits) == (here.scan_ids, here.splits)
    assert set(there.patients) == {"patient"}
    np.testing.assert_array_equal(there.frames, here.frames)
    np.testing.assert_array_equal(there.labels, here.labels)


def test_splits_come_in_the_order_of_the_preparations(tmp_path: Path) -> None:
    shards = tmp_path / "data" / "medium"
    shards.mkdir(parents=True)
    for split in ("zoo", "test", "more", "validation", "train"):
        (shards / f"{split}-00000-of-00001.parquet").touch()
    for other in ("info.json", "made-by.txt"):
        (shards / other).touch()
    assert splits_at(f"file://{tmp_path}", "medium") == ["train", "validation", "test", "more", "zoo"]


def test_a_slash_at_the_end_of_a_url_is_not_doubled(clips: Path) -> None:
    arguments = load_arguments(f"file://{clips}/", "medium", "train")
    assert arguments["data_files"] == {"train": f"file://{clips}/data/medium/train-*.parquet"}
    assert open_folder("http://somewhere/clips/")[1] == "http://somewhere/clips"


@pytest.mark.parametrize("world_size", [2, 4])
def test_each_rank_opens_its_own_shards_through_the_url(clips: Path, world_size: int) -> None:
    url, batch_size = f"watched://{clips}", 4
    shown, opened = [], []
    for rank in range(world_size):
        orders = [
            SeededBatches(
                open_clips(dataset, "medium", "train"), CLIPS, batch_size, 0, rank=rank, world_size=world_size
            )
            for dataset in (url, str(clips))
        ]
        WatchedFileSystem.opened.clear()
        there, here = (list(chain(*islice(order, order.batches_per_epoch))) for order in orders)
        assert there == here
        shown += [row["clip_id"] for _, row in there]
        opened.append(set(WatchedFileSystem.opened))
    assert sorted(shown) == sorted(f"clip{i}" for i in range(CLIPS))
    assert [len(of_rank) for of_rank in opened] == world_size * [SHARDS // world_size]
    assert set.union(*opened) == {f"train-{shard:05d}-of-{SHARDS:05d}.parquet" for shard in range(SHARDS)}


ON_THE_HUB = """
import json
import sys
from itertools import islice

from huggingface_hub import HfFileSystem

from datasets_scripts.schema import clips_features, gaze_features, plane_clips_features, planes_features
from train.clip_order import SeededBatches
from train.stored_rows import StoredRowsError, data_hash, open_rows, read_text, split_names
from train.triples import list_clips, open_clips

told = {}
for dataset in sys.argv[1:]:
    try:
        told[dataset] = {
            "splits": split_names(dataset, "medium"),
            "clips": [key.clip_id for key in list_clips(dataset, "medium", "train")],
            "hash": data_hash(dataset, "medium"),
            "card": read_text(dataset, "README.md"),
            "patients": read_text(dataset, "splits.json"),
        }
    except StoredRowsError as error:
        told[dataset] = str(error)

opened, open_file = set(), HfFileSystem._open


def watch(self, path, *arguments, **named):
    opened.add(path.rsplit("/", 1)[-1])
    return open_file(self, path, *arguments, **named)


HfFileSystem._open = watch
told["ranks"] = []
for rank in range(4):
    order = SeededBatches(open_clips(sys.argv[1], "medium", "train"), 48, 4, 0, rank=rank, world_size=4)
    opened.clear()
    batches = islice(order, order.batches_per_epoch)
    told["ranks"].append([[row["clip_id"] for batch in batches for _, row in batch], sorted(opened)])
print(json.dumps(told))
"""


def test_sets_on_the_hub_are_read_at_their_revision(clips: Path, tmp_path: Path) -> None:
    older = write_many(tmp_path / "older", "older")
    (older / "data" / "medium" / "validation-00000-of-00001.parquet").unlink()
    card = (older / "README.md").read_text()
    (older / "README.md").write_text(card[: card.index("  - split: validation")] + "---\n")
    newest, pinned = "hf://datasets/somebody/clips", "hf://datasets/somebody/clips@v1"
    asked = [newest, "somebody/clips", pinned, f"{newest}@v9", "hf://datasets/somebody/others"]
    with serve("somebody/clips", {"main": clips, "v1": older}) as endpoint:
        settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        call = subprocess.run(
            [sys.executable, "-c", ON_THE_HUB, *asked],
            env=os.environ | settings | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert call.returncode == 0, call.stderr
    told = json.loads(call.stdout)
    assert told[newest] == told["somebody/clips"]
    for dataset, folder, revision in ((newest, clips, "main"), (pinned, older, "v1")):
        assert told[dataset] == {
            "splits": split_names(str(folder), "medium"),
            "clips": [key.clip_id for key in list_clips(str(folder), "medium", "train")],
            "hash": commit_of(revision),
            "card": (folder / "README.md").read_text(),
            "patients": None,
        }
    assert f"There is no set '{newest}@v9'" in told[f"{newest}@v9"] and "'v9'" in told[f"{newest}@v9"]
    missing = told["hf://datasets/somebody/others"]
    assert "There is no set 'hf://datasets/somebody/others'" in missing and "accessed. Give" in missing
    shown, opened = zip(*told["ranks"], strict=True)
    assert sorted(chain(*shown)) == sorted(f"clip{i}" for i in range(CLIPS))
    assert sorted(chain(*opened)) == [f"train-{shard:05d}-of-{SHARDS:05d}.parquet" for shard in range(SHARDS)]


def test_an_address_on_the_hub_is_an_id_and_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert id_and_revision("owner/name") == ("owner/name", None)
    assert id_and_revision("hf://datasets/owner/name") == ("owner/name", None)
    assert id_and_revision("hf://datasets/owner/name@refs/pr/2") == ("owner/name", "refs/pr/2")
    for address in ("hf://owner/name", "hf://datasets/owner/name/folder"):
        with pytest.raises(StoredRowsError, match="hf://datasets/OWNER/NAME@REVISION"):
            open_rows(address, "medium", "train", ())
    (tmp_path / "owner" / "name").mkdir(parents=True)
    with pytest.raises(StoredRowsError, match="the folder owner/name here would be read in its place"):
        split_names("hf://datasets/owner/name", "medium")


@pytest.mark.parametrize("call", [split_names, data_hash])
@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(
    call: Callable, protocol: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        StoredRowsError, match=rf"{protocol}://bucket/clips.*not installed.*[Ii]nstall {package}"
    ):
        call(f"{protocol}://bucket/clips", "medium")


def test_what_is_not_behind_a_url_is_said(clips: Path, in_memory: str) -> None:
    with pytest.raises(StoredRowsError, match=r"no set 'nosuch://clips'.*Protocol not known: nosuch\. Give"):
        open_rows("nosuch://clips", "medium", "train", ())
    with pytest.raises(
        StoredRowsError, match=r"no set 'memory://nowhere'.*data/medium/<split>-\*\.parquet lies"
    ):
        split_names("memory://nowhere", "medium")
    with pytest.raises(StoredRowsError, match=r"'large' and split 'train'.*data/large/"):
        open_rows(in_memory, "large", "train", ())
    with pytest.raises(StoredRowsError, match=r"split 'test': its splits are train, validation\. Give"):
        open_rows(in_memory, "medium", "test", ())
    with pytest.raises(StoredRowsError, match="no column 'label'"):
        open_rows(in_memory, "medium", "train", ("label",))
    with pytest.raises(StoredRowsError, match="no Parquet file lies there"):
        data_hash("memory://nowhere", "medium")
    with pytest.raises(StoredRowsError, match="RuntimeError: unable to locate credentials"):
        open_rows(f"locked://{clips}", "medium", "train", ())


def test_a_file_that_cannot_be_reached_is_not_taken_for_missing(
    in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, path: str, **named: object) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", refuse)
    with pytest.raises(StoredRowsError, match=r"'splits\.json': no access"):
        read_text(in_memory, "splits.json")
