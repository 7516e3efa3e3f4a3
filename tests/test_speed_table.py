"""The table of measured ratios."""

from hub_cards.speed_table import projection_table, speed_table

MACHINE = {"cpu": "some processor", "cores": 4, "gpu": None}
AT_LEAST = {"name": "loader / bare loop", "value": 0.85, "bar": 0.8, "is_at_most": False, "holds": True}
AT_MOST = {"name": "step / bare step", "value": 1.0625, "bar": 1.05, "is_at_most": True, "holds": False}


UNMEASURED = {"name": "N / one", "value": None, "bar": 0.85, "is_at_most": False, "holds": None}


def of(name: str, ratios: list[dict], skipped: str | None = None, **fields: object) -> dict:
    result = {"benchmark": name, "ratios": ratios, "skipped": skipped, "details": {}}
    return result | {"machine": MACHINE, "code_version": "0.1.0 (abc)"} | fields


def test_every_ratio_stands_with_its_bar() -> None:
    lines = speed_table([of("loader", [AT_LEAST]), of("step", [AT_MOST])]).splitlines()
    assert lines[0] == "On some processor, 4 cores, by the code 0.1.0 (abc):"
    assert lines[-2:] == [
        "| loader | loader / bare loop | 0.850 | at least 0.8 | yes |",
        "| step | step / bare step | 1.062 | at most 1.05 | no |",
    ]


def test_rows_of_different_code_say_of_which() -> None:
    results = [of("step", [AT_MOST]), of("loader", [AT_LEAST], code_version="0.1.0 (def+changed)")]
    text = speed_table([*results, of("cpu", [AT_LEAST])])
    assert text.startswith(
        "On some processor, 4 cores, by the code 0.1.0 (abc) (step, cpu); 0.1.0 (def+changed) (loader):"
    )


def test_each_machine_has_a_table() -> None:
    on_two = of("step", [AT_MOST], machine=MACHINE | {"cores": 2})
    tables = speed_table([of("step", [AT_MOST]), on_two, of("loader", [AT_LEAST])]).split("\n\nOn ")
    assert tables == [
        speed_table([of("step", [AT_MOST]), of("loader", [AT_LEAST])]),
        speed_table([on_two]).removeprefix("On "),
    ]


def test_notes_stand_below() -> None:
    noted = of("prepare", [AT_MOST], details={"notes": "prepare: a recording of 600 s."})
    assert speed_table([noted, of("step", [AT_MOST])]).splitlines()[-2:] == [
        "",
        "prepare: a recording of 600 s.",
    ]


def test_a_ratio_that_was_skipped_stands_with_its_bar() -> None:
    text = speed_table([of("loader", [AT_LEAST, UNMEASURED | {"skipped": "needs 3 cores"}])])
    assert text.endswith("| loader | N / one | skipped: needs 3 cores | at least 0.85 | |")
    gpu = of("gpu", [UNMEASURED | {"skipped": "needs a CUDA device"}], skipped="needs a CUDA device")
    assert speed_table([gpu]).count("skipped") == 1


def test_what_was_skipped_is_named() -> None:
    text = speed_table([of("gpu", [], skipped="needs a CUDA device")])
    assert text.endswith("| gpu | skipped: needs a CUDA device | | | |")


def test_a_gpu_is_the_machine() -> None:
    machine = {"cpu": "some processor", "cores": 16, "gpu": "some accelerator"}
    text = speed_table([of("step", [AT_MOST], machine=machine)])
    assert text.startswith("On some accelerator, 16 cores,")


def test_a_projection_says_what_it_hangs_on_and_what_breaks_first() -> None:
    steps = [
        {"gpus": 1, "clips_per_second": 950.4, "limit": "workers"},
        {"gpus": 64, "clips_per_second": 60_826.0, "limit": "storage"},
    ]
    projection = {
        "title": "On paper",
        "steps": steps,
        "workload": {"clips_per_gpu": 32, "training_clips": 10_457},
        "cluster": {"storage_bandwidth": 2.5e9},
        "breaking_points": {"storage": 12, "workers": 1, "gradients": None},
    }
    assert projection_table(projection).splitlines() == [
        "On paper:",
        "",
        "| GPUs | 1 | 64 |",
        "|---|---|---|",
        "| clips a second | 950 | 60,826 |",
        "| hangs on | workers | storage |",
        "| clips a batch | 32 | 2,048 |",
        "",
        "What breaks first: workers, at 1 GPUs.",
        "",
        "The 2.5 GB/s with which a node reads clips are an assumption. A set of 10,457 clips makes at least "
        "5 batches an epoch on up to 64 GPUs.",
    ]
    projection["workload"]["training_clips"] = 100
    assert projection_table(projection).endswith("on up to 0 GPUs.")
