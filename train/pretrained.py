"""A model that pretraining left, loaded with its processor."""

from transformers import PretrainedConfig

from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.processing_dualrep import DualRepProcessor

MODEL_CLASS = "DualRepModel"


class PretrainedError(ValueError):
    """A model that is not there or is of another kind; the text says which and what to do."""


def load_pretrained(source: str) -> tuple[DualRepModel, DualRepProcessor]:
    """The whole model in a folder or on the Hub, in evaluation mode on the CPU, and its processor.

    Raises:
        PretrainedError: there is none, it is of another kind, or it cannot be loaded.
    """
    try:
        architecture = PretrainedConfig.get_config_dict(source)[0]["architectures"][0]
    except (OSError, ValueError, LookupError) as error:
        raise PretrainedError(
            f"{source} is no folder with a model, and no model of that name could be fetched from the Hub. "
            "Give the folder that pretraining wrote."
        ) from error
    if architecture != MODEL_CLASS:
        raise PretrainedError(
            f"{source} holds a {architecture}, which has not all towers with their projections. Give the "
            f"folder of a {MODEL_CLASS}, which train/pretrain.py writes."
        )
    try:
        return DualRepModel.from_pretrained(source).eval(), DualRepProcessor.from_pretrained(source)
    except (OSError, RuntimeError, ValueError) as error:
        raise PretrainedError(f"The model in {source} cannot be loaded: {error}") from error
