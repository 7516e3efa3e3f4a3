"""The models that the app runs, each from the folder of a run or from the Hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from modeling_dualrep.image_processing_dualrep import DualRepImageProcessor
from modeling_dualrep.modeling_dualrep import DualRepForSaliencyPrediction
from train.search_model import SearchModel, load_search_model
from train.timeline import load_classifier

ROOT = Path(__file__).resolve().parents[2]
SALIENCY_CLASS = "DualRepForSaliencyPrediction"
# Where the commands of the README leave a model of each kind, below the root of the checkout.
DEFAULT_FOLDERS = {"model": "runs/demo/model", "planes": "runs/planes", "saliency": "runs/saliency"}
PURPOSE = {"model": "search by speech", "planes": "the planes over time", "saliency": "saliency"}


class ModelError(ValueError):
    """A model that is not there, or of another kind; the text says which and what to do."""


@dataclass(frozen=True)
class Models:
    """What was found; None where there is no model of a kind.

    Args:
        searcher: a pretrained model with all its towers.
        classifier: a plane classifier and its processor.
        saliency: a saliency model and its processor.
        missing: of each kind that is not there, a sentence that says how to make one.
    """

    searcher: SearchModel | None
    classifier: tuple[Any, Any] | None
    saliency: tuple[DualRepForSaliencyPrediction, DualRepImageProcessor] | None
    missing: dict[str, str]


def load_models(given: dict[str, str | None]) -> Models:
    """Loads the models that are named, and of the others those that lie in their default folder.

    Args:
        given: folder or Hub id for each of the names of DEFAULT_FOLDERS; None takes the default.

    Raises:
        SearchError, TimelineError, ModelError: a model cannot be used, each in a sentence.
    """
    sources = {name: _source(name, source) for name, source in given.items()}
    loaders = {"model": load_search_model, "planes": load_classifier, "saliency": load_saliency_model}
    loaded = {name: None if source is None else loaders[name](source) for name, source in sources.items()}
    missing = {name: _how_to_make(name) for name, source in sources.items() if source is None}
    return Models(loaded["model"], loaded["planes"], loaded["saliency"], missing)


def _source(name: str, given: str | None) -> str | None:
    if given is not None and not given.strip():
        raise ModelError(f"--{name} is empty: name the folder of a model or its id on the Hub.")
    default = ROOT / DEFAULT_FOLDERS[name]
    return str(default) if given is None and (default / "config.json").is_file() else given


def _how_to_make(name: str) -> str:
    return (
        f"There is no model for {PURPOSE[name]} in {DEFAULT_FOLDERS[name]}. Start the app with "
        f"--make_models, which makes all that it shows, or with --{name} FOLDER."
    )


def load_saliency_model(source: str) -> tuple[DualRepForSaliencyPrediction, DualRepImageProcessor]:
    """The saliency model in a folder or on the Hub, in evaluation mode, and its processor.

    Raises:
        ModelError: there is none, it is of another kind, or it cannot be loaded.
    """
    try:
        architecture = PretrainedConfig.get_config_dict(source)[0]["architectures"][0]
    except (OSError, ValueError, LookupError) as error:
        raise ModelError(
            f"{source} is no folder with a model, and no model of that name could be fetched from the Hub. "
            "Give the folder that train/finetune_saliency.py wrote."
        ) from error
    if architecture != SALIENCY_CLASS:
        raise ModelError(
            f"{source} holds a {architecture}, which predicts no saliency. Give the folder of a "
            f"{SALIENCY_CLASS}: train/finetune_saliency.py makes one of a pretraining folder."
        )
    try:
        model = DualRepForSaliencyPrediction.from_pretrained(source).eval()
        return model, DualRepImageProcessor.from_pretrained(source)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"The model in {source} cannot be loaded: {error}") from error
