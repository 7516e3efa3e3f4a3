"""A set in an S3 bucket, served on this machine, trains as the folder does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clips_helpers import write_small_set
from pretrain_processes import (
    PretrainProcesses,
    assert_same,
    no_process_left,  # noqa: F401
    results,
    write_recipe,
)

from train.stored_rows import StoredRowsError, data_hash, split_names
from train.triples import list_clips, read_rows

s3fs = pytest.importorskip("s3fs", reason="needs the dependency group s3")
server = pytest.importorskip("moto.server", reason="needs the dependency group s3")

URL = "s3://scans/clips"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("clips") / "clips")


@pytest.fixture(scope="module")
def environment(clips: Path) -> Iterator[dict[str, str]]:
    """What says where the bucket with these clips is, to this process and to others."""
    serving = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    variables = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    variables |= {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "anything"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        files = s3fs.S3FileSystem(skip_instance_cache=True)
        files.mkdir("scans")
        files.put(str(clips), URL, recursive=True)
        yield variables
        s3fs.S3FileSystem.clear_instance_cache()
    serving.stop()


@pytest.mark.usefixtures("environment")
def test_a_bucket_gives_what_the_folder_gives(clips: Path) -> None:
    assert split_names(URL, "medium") == ["train", "validation"]
    assert data_hash(URL, "medium") == data_hash(str(clips), "medium")
    for split in ("train", "validation"):
        assert list_clips(URL, "medium", split) == list_clips(str(clips), "medium", split)
    named = [key.clip_id for key in list_clips(URL, "medium", "validation")][:3]
    assert read_rows(URL, "medium", "validation", named) == read_rows(
        str(clips), "medium", "validation", named
    )


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("url", ["s3://scans/nothing", "s3://nowhere/clips"])
def test_what_is_not_there_is_said_in_a_sentence(url: str) -> None:
    with pytest.raises(StoredRowsError, match=f"There is no set '{url}' with .*'medium'"):
        split_names(url, "medium")


@pytest.mark.slow
def test_two_processes_train_from_a_bucket_as_from_the_folder(
    clips: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """Each with a loader's worker, which opens the bucket once more."""
    found = []
    for name, dataset in (("bucket", URL), ("folder", str(clips))):
        fields = {"dataset": dataset, "max_steps": 2, "dataloader_num_workers": 1}
        recipe = write_recipe(clips, tmp_path / name, **fields)
        PretrainProcesses(recipe, ranks=2, environment=environment).succeed()
        found.append(results(tmp_path / name))
    assert_same(*found)
