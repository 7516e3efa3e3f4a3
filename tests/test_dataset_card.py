"""The card names the files of each configuration and describes each kind of rows once."""

from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard

from datasets_scripts.dataset_card import add_to_card
from datasets_scripts.schema import clips_features, gaze_features, plane_clips_features, planes_features

KINDS = {
    "medium": clips_features(),
    "planes": planes_features(),
    "plane_clips": plane_clips_features(),
    "gaze": gaze_features(),
}


def test_each_kind_is_described_once_with_its_columns(tmp_path):
    for config in [*KINDS, "large", "gaze"]:
        add_to_card(tmp_path, config, {"train": f"data/{config}/train-*.parquet"}, "hash", "key")
    card = DatasetCard.load(tmp_path / "README.md")
    assert [each["config_name"] for each in card.data.configs] == sorted([*KINDS, "large"])
    sections = card.text.split("\n## ")[1:]
    assert len(sections) == 4
    for section, features in zip(sections, KINDS.values(), strict=True):
        columns = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert columns == list(features)


def test_what_people_wrote_into_the_card_stays(tmp_path):
    add_to_card(tmp_path, "planes", {"train": "old"}, "hash", "key")
    path = tmp_path / "README.md"
    path.write_text(path.read_text().replace("tags:", "license: mit\ntags:") + "\nOur hospital's notes.\n")
    add_to_card(tmp_path, "gaze", {"train": "a", "validation": "b"}, "hash", "key")
    add_to_card(tmp_path, "planes", {"test": "new"}, "hash", "key")
    card = DatasetCard.load(path)
    assert card.data.license == "mit"
    assert "Our hospital's notes." in card.text
    assert {each["config_name"]: each["data_files"] for each in card.data.configs} == {
        "gaze": [{"split": "train", "path": "a"}, {"split": "validation", "path": "b"}],
        "planes": [{"split": "test", "path": "new"}],
    }


def test_a_set_is_not_taken_for_an_older_one_in_a_folder_of_the_same_name(tmp_path):
    for number, (data_hash, key) in enumerate([("a", "k"), ("b", "k"), ("b", "other")]):
        folder = tmp_path / str(number) / "set"
        folder.mkdir(parents=True)
        Dataset.from_dict({"number": [number]}).to_parquet(folder / "train.parquet")
        add_to_card(folder, "planes", {"train": "train.parquet"}, data_hash, key)
        assert load_dataset(str(folder), "planes", split="train")["number"][:] == [number]
