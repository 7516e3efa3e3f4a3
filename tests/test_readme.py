"""The README's numbers are those of the kept results."""

import pytest

from hub_cards.readme import BEGIN, END, README, demo_results, demo_table, with_results


def test_the_readme_says_what_the_kept_results_say():
    readme = README.read_text(encoding="utf-8")
    assert demo_results(), "hub_cards/results holds no demo_seed*.json"
    assert with_results(readme, demo_table(demo_results())) == readme


def test_a_changed_number_changes_the_table():
    results = demo_results()
    results[0]["metrics"]["validation/speech_to_video_recall_at_5"] = 0.123
    assert "12.3%" in demo_table(results)


def test_every_picture_of_the_readme_is_there():
    readme = README.read_text(encoding="utf-8")
    pictures = [part.split(")")[0] for part in readme.split("](")[1:] if part.split(")")[0].endswith(".png")]
    assert pictures
    for picture in pictures:
        assert (README.parent / picture).is_file(), picture


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks the lines"):
        with_results("# Text", "table")


def test_only_what_stands_between_the_markers_is_replaced():
    assert with_results(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
