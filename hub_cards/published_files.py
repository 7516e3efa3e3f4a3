"""Which files of a run's folder are published, and whether they may be.

What is not named here is never sent: checkpoints, logs, predictions and splits stay where they are.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.dynamic_module_utils import get_relative_import_files

from hub_cards.card_facts import CONFIG_FILE, DATA_FILE, METRICS_FILE, PICTURES, RECIPE_FILE, CardError
from hub_cards.machine_names import check_measured, check_names, texts_in
from hub_cards.push_errors import PushError, one_line
from hub_cards.render import CARD_FILE, NO_ID, present_base_model, render_card
from hub_cards.weights_check import check_weights, weight_files

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
PICTURE_KINDS = (".png", ".jpg")
# They show frames of scans, and so are sent only where that is asked for.
FRAME_PICTURES = ("saliency.png",)
# What a repository of ours may hold, so that another's is not written over.
OURS = re.compile(
    rf"{CARD_FILE}|{CONFIG_FILE}|{METRICS_FILE}|{RECIPE_FILE}|{DATA_FILE}|{'|'.join(PROCESSOR_FILES)}|\w+\.py"
    rf"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|{PICTURES}/[^/]+({'|'.join(PICTURE_KINDS)})"
)
# What a recipe's `model` may be besides a model of ours.
OTHER_STARTS = ("random", "imagenet")
WHOLE_PATH = re.compile(r"/.|~/|\\\\|[A-Za-z]:[\\/]")
URL = re.compile(r"(?!hf:)[a-z][a-z0-9+.-]*://")
PATH_IN_TEXT = re.compile(r"(?<![\w/.:<>)\]}~-])(?:~?(?:/[\w.@+-]+){2,}|[A-Za-z]:\\\w+)")


def model_files(
    folder: Path, repo_id: str, base_model: str | None = None, with_frames: bool = False
) -> dict[str, Path | bytes]:
    """What is published of a run's folder: files, or their bytes where these differ from the file's.

    Args:
        folder: as training left it, with its card.
        repo_id: where it goes, for the snippets of the card.
        base_model: the repository of the model that a task model was fine-tuned from; None where the card
            names it.
        with_frames: pictures that show frames of scans too.

    Raises:
        PushError: a file is missing, or holds what must not or cannot be published.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PushError(f"{folder} is no folder: give the folder that a run left.")
    config = read_config(folder)
    weights = weight_files(folder)
    stored = stored_json(folder)
    check_measured(folder / METRICS_FILE, stored[METRICS_FILE])
    texts = {CARD_FILE: card_text(folder, config, repo_id, base_model)}
    if (folder / RECIPE_FILE).is_file():
        texts[RECIPE_FILE] = portable_recipe(folder / RECIPE_FILE)
    for name, content in (stored | texts).items():
        check_paths(folder / name, content)
        check_names(folder / name, content, stored[METRICS_FILE]["machine"])
    for name in weights:
        if name.endswith(".safetensors"):
            check_weights(folder / name)
    names = [*stored, *weights, *code_files(folder, stored)]
    files: dict[str, Path | bytes] = {name: folder / name for name in names}
    files |= {f"{PICTURES}/{path.name}": path for path in pictures(folder)}
    if not with_frames:
        for name in (f"{PICTURES}/{picture}" for picture in FRAME_PICTURES):
            files.pop(name, None)
            texts[CARD_FILE] = re.sub(rf"!\[[^\]]*\]\({re.escape(name)}\)\n*", "", texts[CARD_FILE])
    return files | {name: text.encode("utf-8") for name, text in texts.items()}


def stored_json(folder: Path) -> dict[str, dict[str, Any]]:
    """What the JSON files that are published of a run hold."""
    names = [CONFIG_FILE, METRICS_FILE, *processor_files(folder)]
    names += [DATA_FILE] if (folder / DATA_FILE).is_file() else []
    return {name: read_json(folder / name) for name in names}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; PushError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PushError(f"There is no {path}: give the folder that a finished run left.") from error
    except ValueError as error:
        raise PushError(f"{path} is no JSON ({error}): let the run write it anew.") from error
    if not isinstance(content, dict):
        raise PushError(f"{path} holds no fields: let the run write it anew.")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, which must say what model it is and name the code that it needs.

    Raises:
        PushError: there is no such file, or it lacks a field.
    """
    config = read_json(folder / CONFIG_FILE)
    missing = [name for name in ("model_type", "architectures", "auto_map") if not config.get(name)]
    if missing:
        raise PushError(
            f"{folder / CONFIG_FILE} lacks {', '.join(missing)}, without which nobody can load the model: "
            "save it with save_pretrained after `import modeling_dualrep`."
        )
    return config


def processor_files(folder: Path) -> list[str]:
    """The files of the processor; PushError where there are none."""
    found = [name for name in PROCESSOR_FILES if (folder / name).is_file()]
    if not found:
        raise PushError(f"{folder} holds no processor: save it there with processor.save_pretrained.")
    return found


def pictures(folder: Path) -> list[Path]:
    """The pictures of the run, by name."""
    return sorted(path for path in (folder / PICTURES).glob("*") if path.suffix in PICTURE_KINDS)


def code_files(folder: Path, contents: dict[str, dict[str, Any]]) -> list[str]:
    """The code that the configs name in `auto_map`, and what that imports, as from_pretrained follows it.

    Raises:
        PushError: one of the files is missing.
    """
    modules = {module for content in contents.values() for module in _mapped_modules(content)}
    files = {f"{module}.py" for module in modules}
    try:
        for name in sorted(files):
            files |= {Path(found).name for found in get_relative_import_files(folder / name)}
    except FileNotFoundError as error:
        raise PushError(
            f"{folder} lacks {Path(error.filename).name}, code that the model needs: save it with "
            "save_pretrained."
        ) from error
    return sorted(files)


def _mapped_modules(content: Any) -> Iterator[str]:
    """Modules named in `auto_map`, at any depth."""
    if isinstance(content, dict):
        for classes in content.get("auto_map", {}).values():
            for name in classes if isinstance(classes, list) else [classes]:
                yield name.split(".")[0]
        for each in content.values():
            yield from _mapped_modules(each)


def card_text(folder: Path, config: dict[str, Any], repo_id: str, base_model: str | None) -> str:
    """The card as it is published: with a licence, the name of this repository, and a task model's base.

    Raises:
        PushError: no card can be made, it names no licence, or a task model's base is no repository of the
            Hub.
    """
    path = folder / CARD_FILE
    if path.is_file() and not is_as_rendered(folder):
        card = read_card(path, repo_id)
    else:
        card = new_card(folder, repo_id, base_model or present_base_model(folder))
    if not card.data.license:
        raise PushError(f"{path} names no licence: add a line like `license: apache-2.0` to its metadata.")
    if base_model is not None and card.data.base_model != base_model:
        card.data.base_model = base_model
    if is_fine_tuned(folder, config):
        check_base_model(path, card.data.base_model)
    return card.content


def read_card(path: Path, repo_id: str) -> ModelCard:
    """A card, with the repository in its snippets; PushError where its metadata cannot be read."""
    try:
        return ModelCard(path.read_text(encoding="utf-8").replace(NO_ID, repo_id))
    except (ValueError, yaml.YAMLError) as error:
        raise PushError(
            f"{path} has no readable metadata ({one_line(error)}): render the card anew."
        ) from error


def is_as_rendered(folder: Path) -> bool:
    """Whether nobody edited the card since it was made: it is then made anew, for its name on the Hub."""
    try:
        made = render_card(folder, base_model=present_base_model(folder))
    except (ValueError, KeyError, yaml.YAMLError):  # no card can be made of these files, so it was not
        return False
    return (folder / CARD_FILE).read_text(encoding="utf-8") == str(made)


def new_card(folder: Path, repo_id: str, base_model: str | None) -> ModelCard:
    """The card, made for its name on the Hub; PushError where none can be made of the run's files."""
    try:
        return render_card(folder, repo_id, base_model)
    except CardError as error:
        raise PushError(f"{folder} has no {CARD_FILE}, and none can be made: {error}") from error


def is_fine_tuned(folder: Path, config: dict[str, Any]) -> bool:
    """Whether it is a model with a head, as DualRepForImageClassification, on a pretrained tower of ours."""
    recipe = read_recipe(folder / RECIPE_FILE) if (folder / RECIPE_FILE).is_file() else {}
    return "For" in config["architectures"][0] and recipe.get("model") not in OTHER_STARTS


def check_base_model(path: Path, base_model: str | list[str] | None) -> None:
    """Raises PushError unless a card names the models of the Hub that its model was fine-tuned from."""
    how = "Push that model first, then name it with --base_model ORG/NAME."
    if not base_model:
        raise PushError(f"{path} does not say which model this one was fine-tuned from. {how}")
    for name in [base_model] if isinstance(base_model, str) else base_model:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise PushError(f"{path}: the base model {name!r} is no name on the Hub. {how}") from error
        if "/" not in name or Path(name).exists():
            raise PushError(f"{path}: the base model {name!r} is a folder, not a name on the Hub. {how}")


def check_paths(path: Path, content: Any) -> None:
    """Raises PushError where a text names a folder of this machine."""
    found = next(_absolute_paths(content), None)
    if found is not None:
        raise PushError(
            f"{path} names {found}, a place on this machine: write its last name alone, or leave it out."
        )


def _absolute_paths(content: Any) -> Iterator[str]:
    for text in texts_in(content):
        whole = WHOLE_PATH.match(text) and "\n" not in text
        yield from [text] if whole else (match.group() for match in PATH_IN_TEXT.finditer(text))


def portable_recipe(path: Path) -> str:
    """The recipe with the last name alone of every place on this machine, and of addresses not on the Hub."""
    portable = _last_names(read_recipe(path))
    return yaml.safe_dump(portable, sort_keys=False, allow_unicode=True)


def read_recipe(path: Path) -> dict[str, Any]:
    """The fields of a recipe; PushError where there are none."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise PushError(f"{path} is no YAML ({one_line(error)}): let the run write it anew.") from error
    if not isinstance(recipe, dict):
        raise PushError(f"{path} holds no fields: let the run write it anew.")
    return recipe


def _last_names(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _last_names(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_last_names(each) for each in content]
    if isinstance(content, str) and (WHOLE_PATH.match(content) or URL.match(content)):
        return PureWindowsPath(content).name  # takes both kinds of slash
    return content
