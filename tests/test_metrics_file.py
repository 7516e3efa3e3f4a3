"""metrics.json: a round trip, and everything that is refused."""

import json
import math
import socket
from pathlib import Path

import pytest

from train.metrics_file import MetricsError, current_code_version, read_metrics, write_metrics


def write(path: Path, metrics: dict) -> None:
    write_metrics(path, metrics, recipe="demo", seed=3, data_hash="abc")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    metrics = {"validation/recall_at_5": 0.25, "test/clips": 7}
    write(path, metrics)
    contents = read_metrics(path)
    assert contents["metrics"] == metrics
    assert (contents["recipe"], contents["seed"], contents["data_hash"]) == ("demo", 3, "abc")
    assert contents["code_version"] == current_code_version()
    assert contents["machine"]["cores"] >= 1 and contents["machine"]["cpu"]
    assert set(contents) == {"metrics", "recipe", "seed", "code_version", "data_hash", "machine"}


def test_the_machine_s_name_is_not_told(tmp_path: Path) -> None:
    write(tmp_path / "metrics.json", {})
    assert socket.gethostname() not in (tmp_path / "metrics.json").read_text()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, None, "0.5", [1]])
def test_values_that_are_no_finite_numbers_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(MetricsError, match=r"validation/recall .*finite number"):
        write(path, {"validation/recall": value})
    assert not path.exists()


@pytest.mark.parametrize(
    "name", ["recall", "Validation/recall", "validation/", "a/b/c", "validation/recall at 5"]
)
def test_names_that_are_not_split_slash_name_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MetricsError, match="must be named like"):
        write(tmp_path / "metrics.json", {name: 1.0})


def test_missing_and_unknown_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write(path, {})
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "host": "x"}))
    with pytest.raises(MetricsError, match="host is unknown"):
        read_metrics(path)
    del contents["seed"]
    path.write_text(json.dumps(contents))
    with pytest.raises(MetricsError, match="seed is missing"):
        read_metrics(path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    with pytest.raises(MetricsError, match="no file"):
        read_metrics(path)
    path.write_text("{")
    with pytest.raises(MetricsError, match="not JSON"):
        read_metrics(path)
