"""The README's numbers are those of the kept results."""

import ast
import json
import re

import pytest

from hub_cards.readme import (
    BEGIN,
    END,
    FURTHER,
    GRADIENT_COLUMNS,
    OBJECTIVE_COLUMNS,
    OBJECTIVES,
    PAPER,
    README,
    STARTS,
    benchmark_tables,
    ceiling_line,
    contents_table,
    current_readme,
    demo_results,
    demo_table,
    gaze_table,
    gradient_table,
    int8_table,
    objective_table,
    planes_table,
    probe_table,
    tables,
    with_results,
)
from train.experiment_recipe import read_experiment_recipe


def test_nothing_is_kept_that_no_table_or_claim_of_the_recipe_names():
    kept = README.parent / "hub_cards" / "results" / "benchmark"
    tables_by_name = json.loads((kept / "tables.json").read_text(encoding="utf-8"))
    assert {path.stem for path in (kept / "csv").iterdir()} == set(tables_by_name)
    claims = read_experiment_recipe(README.parent / "train" / "recipes" / "reproduce.yaml").claims
    claimed = {(claim.task, row) for claim in claims for row in (claim.better, claim.worse)}
    folders = (kept / "predictions").glob("draw_*/*/*")
    assert {(folder.parent.name, folder.name) for folder in folders} <= claimed


def test_the_readme_says_what_the_kept_results_say():
    assert demo_results(), "hub_cards/results holds no demo_seed*.json"
    assert current_readme() == README.read_text(encoding="utf-8")


def test_a_changed_number_changes_the_table():
    results = demo_results()
    results[0]["metrics"]["validation/speech_to_video_recall_at_5"] = 0.123
    assert "12.3%" in demo_table(results)


def test_means_stand_with_their_deviations():
    metrics = {f"test/{name}{end}": 0.5 for name in ("precision", "recall", "f1") for end in ("", "_std")}
    start = {"metrics": metrics | {"test/f1": 0.613, "test/f1_std": 0.024}}
    lines = planes_table(dict.fromkeys(STARTS, start)).splitlines()
    assert lines[3] == "| random weights | 50.0% (50.0%) | 50.0% (50.0%) | 61.3% (2.4%) |"


def test_a_score_of_one_split_has_no_deviation():
    names = ("kld", "sim", "nss", "cc", "shuffled_auc", "information_gain")
    groups = ("test", "center_prior", "split_1", "random")
    metrics = {f"{group}/{name}": 0.25 for group in groups for name in names} | {"test/kld_std": 0.125}
    lines = gaze_table(metrics).splitlines()
    assert lines[2].startswith("| the demo's model | 0.25 (0.12) | 0.25 |")
    assert lines[-1].startswith("| random weights, first split | 0.25 | 0.25 |")


@pytest.mark.parametrize("names", [PAPER, FURTHER])
def test_the_benchmark_s_tables_stand_below_each_other_as_parts_of_a_section(names):
    texts = {name: f"## {name}\n\n| a |\n| --- |\n| ## 1 |\n" for name in (*PAPER, *FURTHER, "provenance")}
    text = benchmark_tables(texts, names)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [f"#### {name}" for name in names]
    assert text.count("| ## 1 |") == len(names) and "provenance" not in text


def test_the_probe_and_the_ceiling_say_their_numbers():
    metrics = {"drawn/accuracy_whole": 0.195, "drawn/accuracy_part": 0.091}
    metrics |= {"taught_0/accuracy_whole": 0.66, "taught_0/accuracy_part": 0.323}
    metrics |= {"taught_1/accuracy_whole": 0.68, "taught_1/accuracy_part": 0.374}
    metrics |= {"clips/most_frequent_share_whole": 0.101, "clips/most_frequent_share_part": 0.094}
    probed = {"drawn weights": ["drawn"], "taught": ["taught_0", "taught_1"]}
    lines = probe_table(metrics | {"clips/number": 406.0}, probed).splitlines()
    assert lines[2] == "| drawn weights | 19.5% | 9.1% |" and lines[-1].startswith("406 clips")
    assert lines[3] == "| taught | 66.0%, 68.0% | 32.3%, 37.4% |"
    assert "| the most frequent plane, always | 10.1% | 9.4% |" in lines
    assert "98.1%" in ceiling_line({"test/f1": 0.981})


def test_what_clips_hold_and_what_the_losses_see_are_shares():
    contents = {"a whole remark": 0.316, "no remark": 0.117}
    clips = {"medium": {"train": {"clips": 1053, "share_of_clips": contents}}}
    lines = contents_table(clips).splitlines()
    assert lines[0] == "| clips | number | a whole remark | no remark |"
    assert lines[2] == "| medium | 1,053 | 31.6% | 11.7% |"
    metrics = {
        f"{name}/{column}": place / 100
        for name in OBJECTIVES
        for place, column in enumerate((*OBJECTIVE_COLUMNS, "same_plane_of_negatives"))
    }
    lines = objective_table(metrics | {"clips/chance": 1 / 64}).splitlines()
    assert lines[2] == "| as printed, medium | 0.0% | 1.0% | 2.0% | 3.0% | 4.0% |"
    assert lines[-1] == "| chance | 1.6% | 1.6% | 1.6% | 5.0% | 5.0% |"


def test_what_the_similarity_losses_pull_is_a_share_and_whereto_a_cosine():
    metrics = {f"{name}/{column}": 0.031 for name in OBJECTIVES for column in GRADIENT_COLUMNS}
    lines = gradient_table(metrics | {"best_medium/direction_of_image": -0.614}).splitlines()
    assert lines[0].split(" | ")[-1] == "cosine with MMCL's, image tower |"
    assert lines[2:] == [
        "| as printed, medium | 3.1% | 0.03 | 3.1% | 0.03 |",
        "| best setting, medium | 3.1% | 0.03 | 3.1% | -0.61 |",
    ]


def test_what_int8_costs_stands_beside_what_it_saves():
    scores = {"frames": 1234, "scans": 45, "macro_f1_before": 0.812, "macro_f1_after": 0.8}
    lines = int8_table(scores | {"bytes_before": 2_000_400, "bytes_after": 500_600}).splitlines()
    assert lines[2:4] == ["| single precision | 81.2% | 2,000 kB |", "| int8 | 80.0% | 501 kB |"]
    assert lines[-1].startswith("1,234 frames of 45 scans")


def test_every_picture_of_the_readme_is_there():
    readme = README.read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in readme.split("](")[1:] if part.split(")")[0].endswith(".png")]
    assert pictures
    for picture in pictures:
        assert (README.parent / picture).is_file(), picture


def strings_of_code() -> list[str]:
    """Every string of the four packages, values within it as `...`."""
    found = []
    for package in ("modeling_dualrep", "datasets_scripts", "train", "hub_cards"):
        for path in sorted((README.parent / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_failures_of_the_readme_are_those_of_the_code():
    """Each is quoted as the code says it, with `...` for what it fills in."""
    section = README.read_text(encoding="utf-8").split("## When something fails")[1].split("\n## ")[0]
    cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    quoted = [quote for cell in cells for quote in re.findall("`([^`]+)`", cell)]
    assert len(quoted) >= len(cells) > 15
    code = strings_of_code()
    for quote in quoted:
        said = quote.removeprefix("...").removesuffix("...").strip()
        if said.startswith("The checkpoint"):  # what it is of another kind of is filled in
            said = said.replace("another architecture", "...")
        assert any(said in text for text in code), quote


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks the lines"):
        with_results("# Text", "demo", "table")


@pytest.mark.parametrize("name", tables())
def test_only_what_stands_between_the_markers_is_replaced(name):
    begin, end = BEGIN.format(name=name), END.format(name=name)
    assert with_results(f"a\n{begin}\nold\n{end}\nb", name, "new") == f"a\n{begin}\nnew\n{end}\nb"
