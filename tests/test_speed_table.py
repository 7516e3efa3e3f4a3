"""The table of measured ratios."""

from hub_cards.speed_table import projection_table, speed_table

MACHINE = {"cpu": "some processor", "cores": 4, "gpu": None}
AT_LEAST = {"name": "loader / bare loop", "value": 0.85, "bar": 0.8, "is_at_most": False, "holds": True}
AT_MOST = {"name": "step / bare step", "value": 1.0625, "bar": 1.05, "is_at_most": True, "holds": False}


def of(name: str, ratios: list[dict], skipped: str | None = None, machine: dict = MACHINE) -> dict:
    return {"benchmark": name, "ratios": ratios, "skipped": skipped, "machine": machine}


def test_every_ratio_stands_with_its_bar() -> None:
    lines = speed_table([of("loader", [AT_LEAST]), of("step", [AT_MOST])]).splitlines()
    assert lines[0] == "On some processor, 4 cores:"
    assert lines[-2:] == [
        "| loader | loader / bare loop | 0.850 | at least 0.8 | yes |",
        "| step | step / bare step | 1.062 | at most 1.05 | no |",
    ]


def test_what_was_skipped_is_named() -> None:
    text = speed_table([of("gpu", [], skipped="needs a CUDA device")])
    assert text.endswith("| gpu | skipped: needs a CUDA device | | | |")


def test_a_gpu_is_the_machine() -> None:
    machine = {"cpu": "some processor", "cores": 16, "gpu": "some accelerator"}
    assert speed_table([of("step", [AT_MOST], machine=machine)]).startswith("On some accelerator, 16 cores:")


def test_a_projection_says_what_it_hangs_on_and_what_breaks_first() -> None:
    steps = [
        {"gpus": 1, "clips_per_second": 950.4, "limit": "workers"},
        {"gpus": 64, "clips_per_second": 60_826.0, "limit": "storage"},
    ]
    points = {"storage": 12, "workers": 1, "gradients": None}
    text = projection_table(
        {"title": "On paper", "steps": steps, "workload": {"clips_per_gpu": 32}, "breaking_points": points}
    )
    assert text.splitlines() == [
        "On paper:",
        "",
        "| GPUs | 1 | 64 |",
        "|---|---|---|",
        "| clips a second | 950 | 60,826 |",
        "| hangs on | workers | storage |",
        "| clips a batch | 32 | 2,048 |",
        "",
        "What breaks first: workers, at 1 GPUs.",
    ]
