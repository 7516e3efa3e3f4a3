"""Class maps: YAML files that say which of our planes a foreign label is, or that it is left out.

labels:
  ABDOMINAL: abdomen
  Maternal cervix: background
  Other: leave_out
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from datasets_scripts.schema import BACKGROUND, PLANES

CLASS_MAPS_DIR = Path(__file__).resolve().parent / "class_maps"
FETAL_PLANES_DB_MAP = CLASS_MAPS_DIR / "fetal_planes_db.yaml"
SONONET_MAP = CLASS_MAPS_DIR / "sononet.yaml"
LEAVE_OUT = "leave_out"
# What may follow the label in a file's name: a separator, and numbers. `FEMUR-2`, `FEMUR_001`, `FEMUR (1)`.
NUMBERING = re.compile(r"[\s_.()-]+[\d\s_.()-]*")


class ClassMapError(ValueError):
    """A class map that says nothing of a label, or something that cannot be meant."""


@dataclass(frozen=True)
class ClassMap:
    """Foreign labels and what they are to us: one of `PLANES`, or `leave_out`. Case makes no difference.

    Our own names need no line: they mean themselves. A line may leave one out or make it background.

    Args:
        labels: our name, or `leave_out`, for each foreign label.
        source: where the map stands; errors name it.

    Raises:
        ClassMapError: a target that is neither, a label twice, or one of our names for another plane.
    """

    labels: dict[str, str]
    source: str

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for label, target in self.labels.items():
            if target not in (*PLANES, LEAVE_OUT):
                raise ClassMapError(
                    f"{self.source}: {label!r} is mapped to {target!r}; it must be {LEAVE_OUT} or one of our "
                    f"planes: {', '.join(PLANES)}."
                )
            if label.casefold() in seen:
                raise ClassMapError(
                    f"{self.source}: {label!r} and {seen[label.casefold()]!r} are one label, as case makes "
                    "no difference; keep one."
                )
            if label.casefold() in PLANES and target not in (label.casefold(), BACKGROUND, LEAVE_OUT):
                raise ClassMapError(
                    f"{self.source}: {label!r} is one of our own planes, so it cannot be {target}; map it to "
                    f"itself, {BACKGROUND} or {LEAVE_OUT}."
                )
            seen[label.casefold()] = label

    @cached_property
    def targets(self) -> dict[str, str]:
        """Our name, or `leave_out`, for every known label in lower case, our own names among them."""
        return {plane: plane for plane in PLANES} | {
            label.casefold(): target for label, target in self.labels.items()
        }

    def target_of(self, label: str, where: str) -> str:
        """One of `PLANES`, or `leave_out`.

        Args:
            where: file, line or row of the label; the error names it.

        Raises:
            ClassMapError: the map says nothing of the label.
        """
        try:
            return self.targets[label.casefold()]
        except KeyError:
            raise ClassMapError(
                f"{where}: {self.source} says nothing of the label {label!r}. It knows "
                f"{', '.join(self.labels)}, and our planes: {', '.join(PLANES)}. Add a line for the label: "
                f"one of our planes, or {LEAVE_OUT}."
            ) from None

    def label_in_name(self, stem: str) -> str:
        """The label that a file's name is or begins with; the name itself where it begins with none.

        Only numbers may follow the label: `BRAIN-TV_07` is BRAIN-TV, `BRAIN-TV-oblique` no known label. Of
        several labels the longest counts.
        """
        name = stem.casefold()
        fitting = [
            label
            for label in self.targets
            if name == label or (name.startswith(label) and NUMBERING.fullmatch(name[len(label) :]))
        ]
        return max(fitting, key=len, default=stem)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets the last of two equal keys win; here it is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key_node, deep=True) for key_node, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise ClassMapError(f"line {line}: {key!r} is there twice; keep one.")
        return super().construct_mapping(node, deep)


def read_class_map(path: str | Path) -> ClassMap:
    """The class map in a YAML file `labels: {foreign label: our plane or leave_out}`.

    Raises:
        ClassMapError: no such file, not of that form, a label twice, or a target that is none of ours.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except OSError as error:
        raise ClassMapError(f"The class map {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ClassMapError(f"{path} is not valid YAML: {error}") from error
    except ClassMapError as error:
        raise ClassMapError(f"{path}, {error}") from None
    if not isinstance(content, dict) or set(content) != {"labels"} or not isinstance(content["labels"], dict):
        raise ClassMapError(
            f"{path} is no class map; write `labels:` and under it lines such as `ABDOMINAL: abdomen`."
        )
    for label in content["labels"]:
        if not isinstance(label, str):
            raise ClassMapError(f"{path}: the label {label!r} is no text; write it in quotes.")
    return ClassMap(content["labels"], str(path))
