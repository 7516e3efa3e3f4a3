"""A prepared set reaches the Hub after the privacy check, and nothing beside it does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clips_helpers import flat_frame, make_row
from hub_helpers import READER, TOKEN, hub_in_this_process, run_child
from hub_stand_in import HubStandIn

from datasets_scripts.dataset_card import add_to_card
from datasets_scripts.privacy import HASH_CHARACTERS
from datasets_scripts.privacy_check import Finding
from datasets_scripts.schema import clips_features, gaze_features, planes_features
from hub_cards.push_dataset import main, push_set
from hub_cards.push_errors import PushError

NAME, LICENCE = "me/scans", "cc-by-nc-4.0"
SCAN = HASH_CHARACTERS * "a"
FEATURES = {
    "gaze": gaze_features,
    "large": clips_features,
    "medium": clips_features,
    "planes": planes_features,
}

LOAD = """
import json
import sys

from datasets import Image, load_dataset

told = {}
for config in sys.argv[1:]:
    rows = load_dataset("me/scans", config, split="train")
    if "image" in rows.features:
        rows = rows.cast_column("image", Image(decode=False))
    told[config] = list(rows["scan_id"])
    if "image" in rows.features:
        told[config].append(rows[0]["image"]["bytes"].hex())
print(json.dumps(told))
"""


def rows_of(config: str) -> list[dict]:
    if FEATURES[config] is clips_features:
        return [make_row(f"{SCAN}_{1000 * start}", SCAN, float(start)) for start in range(2)]
    image = {"bytes": flat_frame(90), "path": None}
    more = {"label": 1} if config == "planes" else {"fixations": [[0.5, 0.25]]}
    return [{"image": image, "scan_id": SCAN, "time_s": 0.5, **more}]


def write_prepared(folder: Path, configs: tuple[str, ...] = tuple(FEATURES)) -> Path:
    """A set as the prepare scripts leave it, with what they leave beside and in it."""
    for config in configs:
        data = folder / "data" / config
        data.mkdir(parents=True)
        table = pa.Table.from_pylist(rows_of(config), schema=FEATURES[config]().arrow_schema)
        pq.write_table(table, data / "train-00000-of-00001.parquet")
        (data / "info.json").write_text(json.dumps({"config": config, "rows": table.num_rows}))
        add_to_card(folder, config, {"train": f"data/{config}/train-*.parquet"}, "abc", SCAN)
    (folder / "splits.json").write_text(
        json.dumps({"key_fingerprint": SCAN, "seed": 0, "train": {SCAN: [SCAN]}, "validation": {}})
    )
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_prepared(tmp_path / "set")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with hub_in_this_process(monkeypatch) as hub:
        yield hub


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What the privacy check finds, without its reading of frames."""
    found: list[Finding] = []
    monkeypatch.setattr("hub_cards.push_dataset.check_privacy", lambda folder, recordings: found)
    return found


def test_a_set_goes_round_between_processes(prepared: Path, hub: HubStandIn, tmp_path: Path) -> None:
    """With the whole privacy check, in a child; the reader never saw this package."""
    address = f"http://127.0.0.1:{hub.port}"
    command = ("-m", "hub_cards.push_dataset", str(prepared), NAME, "--license", LICENCE)
    pushed = run_child(address, tmp_path / "home", *command, HF_DEBUG="1")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"Published {address}/datasets/{NAME} (private) at commit ")
    assert TOKEN not in pushed.stdout + pushed.stderr
    repository = hub.repositories["dataset", NAME]
    assert repository.private and len(repository.commits) == 2
    shard = "data/planes/train-00000-of-00001.parquet"
    assert repository.files[shard].lfs and not repository.files["splits.json"].lfs
    loaded = run_child(address, tmp_path / "elsewhere", "-I", "-c", LOAD, *FEATURES, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    told = json.loads(loaded.stdout)
    image = flat_frame(90).hex()
    assert told == {
        "gaze": [SCAN, image],
        "large": [SCAN, SCAN],
        "medium": [SCAN, SCAN],
        "planes": [SCAN, image],
    }


def test_nothing_but_the_set_is_sent(prepared: Path, hub: HubStandIn, findings: list[Finding]) -> None:
    others = (
        "secret.key",
        "set.medium.report.json",
        "sheet.png",
        "data/medium/notes.txt",
        "data/medium/train-00000-of-00001.parquet.partial",
        "data/medium/train.parquet",
        "data/unnamed/train-00000-of-00001.parquet",
        ".git/config",
        "README.md.orig",
    )
    for name in others:
        (prepared / name).parent.mkdir(exist_ok=True)
        (prepared / name).write_text("private")
    push_set(prepared, NAME, license=LICENCE)
    shards = {f"data/{config}/train-00000-of-00001.parquet" for config in FEATURES}
    infos = {f"data/{config}/info.json" for config in FEATURES}
    assert set(hub.repositories["dataset", NAME].files) == {
        *shards,
        *infos,
        "README.md",
        "splits.json",
        ".gitattributes",
    }
    assert b"private" not in b"".join(hub.objects.values())


def test_a_second_push_changes_nothing(
    prepared: Path, hub: HubStandIn, findings: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    push_set(prepared, NAME, license=LICENCE)
    hub.heard.clear()
    assert main([str(prepared), NAME, "--license", LICENCE]) == 0
    assert capsys.readouterr().out.startswith("Nothing changed: ") and not hub.count("^(PUT|POST)")
    assert push_set(prepared, NAME, license=LICENCE, tag="v1", public=True).tag == "v1"
    assert not hub.repositories["dataset", NAME].private


def test_a_set_with_findings_is_not_sent(
    prepared: Path, hub: HubStandIn, findings: list[Finding], capsys: pytest.CaptureFixture[str]
) -> None:
    findings.append(Finding("README.md", None, 1, "absolute path", read="MOREAU"))
    assert main([str(prepared), NAME, "--license", LICENCE]) == 2
    told = capsys.readouterr().err
    assert "1 findings, so nothing is published" in told and "datasets_scripts.privacy_check" in told
    assert "MOREAU" not in told  # what was read on a frame is as private as the recordings
    assert not hub.heard


def test_the_privacy_check_is_the_real_one(prepared: Path, hub: HubStandIn) -> None:
    info = prepared / "data" / "medium" / "info.json"
    info.write_text(json.dumps({"from": "/home/moreau/scans"}))
    with pytest.raises(PushError, match="The privacy check has 1 findings"):
        push_set(prepared, NAME, license=LICENCE)
    assert not hub.heard


def test_the_recordings_are_handed_to_the_check(
    prepared: Path, hub: HubStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(prepared), NAME, "--license", LICENCE, "--recordings", str(tmp_path / "none")]) == 2
    assert "privacy check cannot read" in capsys.readouterr().err
    assert not hub.heard


def test_a_licence_in_the_card_is_kept(prepared: Path, hub: HubStandIn, findings: list[Finding]) -> None:
    card = prepared / "README.md"
    card.write_text(card.read_text().replace("---\n", "---\nlicense: mit\n", 1))
    push_set(prepared, NAME, license="other")
    content = hub.repositories["dataset", NAME].files["README.md"].content.decode()
    assert "license: mit" in content and "other" not in content


def without_shards(folder: Path) -> None:
    (folder / "data" / "large" / "train-00000-of-00001.parquet").unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda folder: (folder / "README.md").unlink(), r"There is no .*README\.md"),
    "no folder": (lambda folder: folder.rename(folder.parent / "away"), r"There is no .*README\.md"),
    "no configuration": (
        lambda folder: (folder / "README.md").write_text("---\nlicense: mit\n---\n"),
        "names no configuration",
    ),
    "configuration elsewhere": (
        lambda folder: (folder / "README.md").write_text("---\nconfigs:\n- config_name: ../x\n---\n"),
        "which no prepare script writes",
    ),
    "broken card": (
        lambda folder: (folder / "README.md").write_text("---\na: [\n---\n"),
        "no readable metadata",
    ),
    "no shard": (without_shards, "names large, but .* holds no shard"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_is_no_set_is_refused_before_anything(
    case: str, prepared: Path, hub: HubStandIn, findings: list[Finding]
) -> None:
    damage, told = REFUSED[case]
    damage(prepared)
    with pytest.raises(PushError, match=told):
        push_set(prepared, NAME, license=LICENCE)
    assert not hub.heard


def test_a_set_without_licence_or_with_a_refused_name_is_not_sent(
    prepared: Path, hub: HubStandIn, findings: list[Finding]
) -> None:
    with pytest.raises(PushError, match="names no licence: give one, such as --license"):
        push_set(prepared, NAME)
    with pytest.raises(PushError, match="has no owner"):
        push_set(prepared, "scans", license=LICENCE)
    assert not hub.heard


def test_a_repository_of_another_set_is_left_alone(
    prepared: Path, hub: HubStandIn, findings: list[Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_set(prepared, NAME, license=LICENCE)
    smaller = write_prepared(tmp_path / "smaller", ("medium",))
    with pytest.raises(PushError, match="is another set: it has gaze, large, planes"):
        push_set(smaller, NAME, license=LICENCE)
    repository = hub.repositories["dataset", NAME]
    repository.add(repository.files | {"script.py": repository.files["README.md"]}, "by hand")
    with pytest.raises(PushError, match=r"no push of ours wrote: script\.py"):
        push_set(prepared, NAME, license=LICENCE)
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(PushError, match="no permission"):
        push_set(smaller, "me/smaller", license=LICENCE)
    assert len(repository.commits) == 3
