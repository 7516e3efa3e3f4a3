"""What is published names no host, user or address of the machine that a run was on."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from hub_cards import machine_names
from hub_cards.machine_names import check_measured, check_names
from hub_cards.push_errors import PushError

MACHINE = {"cpu": "AMD EPYC 7763", "cores": 4, "gpu": "NVIDIA H100", "torch": "2.14.1+cu130"}
MEASURED = {
    "metrics": {"test/accuracy": 0.5},
    "recipe": "demo",
    "seed": 0,
    "code_version": "0.1.0 (8912bf7f3797+changed)",
    "data_hash": "849d26f6cae4d605751f9804307341a4e31fa21bfffcad8a2daf15ea0647453d",
    "machine": MACHINE,
}

Called = Callable[..., None]


@pytest.fixture
def machine_called(monkeypatch: pytest.MonkeyPatch) -> Called:
    def call(host: str, user: str = "root") -> None:
        monkeypatch.setattr("socket.gethostname", lambda: host)
        monkeypatch.setattr("getpass.getuser", lambda: user)
        monkeypatch.setattr(Path, "home", lambda: Path("/home") / user)

    return call


@pytest.mark.parametrize(
    "text",
    [
        "trained on dgx-07",
        "trained on DGX-07.",
        "dgx-07.lab.example.org",
        "by moreau",
        "runs/moreau/best",
        "at 10.0.0.12",
        "http://10.0.0.12:8080/set",
        "file:///data/scans",
        "https://me:secret@hub.example.org/set",
        "gpu3.internal",
        "store.ward.local",
    ],
)
def test_a_host_a_user_and_an_address_are_found(text: str, machine_called: Called) -> None:
    machine_called("dgx-07.lab.example.org", "moreau")
    for content in (text, {"a": [{"b": text}]}, {text: 1}):
        with pytest.raises(PushError, match=r"x\.json names .*: leave it out"):
            check_names(Path("x.json"), content, MACHINE)


@pytest.mark.parametrize(
    "text",
    [
        "2.14.1+cu130",
        "hf://datasets/org/clips@v1.0/data",
        "https://huggingface.co/org/base",
        "dgx-070 and x-dgx-07 and moreaux",
        "see github.com and threading.local()",
        "",
    ],
)
def test_what_names_nobody_passes(text: str, machine_called: Called) -> None:
    machine_called("dgx-07", "moreau")
    check_names(Path("x.json"), [text, MEASURED], MACHINE)


@pytest.mark.parametrize("host", ["ultrasound", "localhost", "x", "h100", "epyc"])
def test_a_host_called_like_an_ordinary_word_or_its_gpu_stops_nobody(
    host: str, machine_called: Called
) -> None:
    machine_called(host)
    check_names(Path("x.md"), ["fetal ultrasound on NVIDIA H100 (4 cores), localhost, x", MEASURED], MACHINE)


def test_an_account_without_a_name_stops_nobody(
    machine_called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_called("dgx-07")

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(PushError, match="dgx-07"):
        check_names(Path("x.json"), "dgx-07", MACHINE)


def test_metrics_hold_their_fields_and_no_others() -> None:
    path = Path("metrics.json")
    check_measured(path, MEASURED)
    without = {name: value for name, value in MEASURED.items() if name != "seed"}
    for wrong, told in (
        (MEASURED | {"host": "a"}, "host"),
        (without, "seed"),
        (MEASURED | {"machine": MACHINE | {"node": "a"}}, "node"),
        (MEASURED | {"machine": "dgx"}, "machine"),
    ):
        with pytest.raises(PushError, match=re.escape(f"metrics.json: {told} is missing or more")):
            check_measured(path, wrong)


def test_the_fields_are_those_that_training_writes(tmp_path: Path) -> None:
    from train.metrics_file import KEYS, describe_machine

    assert set(machine_names.MEASURED_KEYS) == set(KEYS)
    assert set(machine_names.MACHINE_KEYS) == set(describe_machine())
