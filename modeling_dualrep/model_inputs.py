"""What `DualRepModel` refuses among its inputs."""

from torch import Tensor

from .configuration_dualrep import DualRepConfig
from .distributed import process_count
from .tower import check_shape

# Two ways to give the speech: as a spectrogram, or as what a speech tower gave of it before.
SPEECH_INPUTS = ("input_features", "audio_pooler_output")
SWITCHES = dict.fromkeys(SPEECH_INPUTS, "use_audio") | {"pixel_values": "use_image"}


def check_inputs(config: DualRepConfig, inputs: dict[str, Tensor | None], return_loss: bool) -> None:
    """Refuses what a forward pass cannot take.

    Args:
        config: of the model.
        inputs: by name; None is what was not given.
        return_loss: whether the objective is asked for, which needs every modality and two clips.

    Raises:
        ValueError: nothing was given, an input has the wrong shape or no tower, or the objective lacks an
            input or has fewer than two clips.
    """
    sizes = {name: len(values) for name, values in inputs.items() if values is not None}
    if not sizes:
        raise ValueError(f"DualRepModel was given nothing: pass {', '.join(inputs)}, or some of them.")
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{size} of {name}" for name, size in sizes.items())
        raise ValueError(f"The rows of all inputs belong together, but there are {counts}.")
    for name in sizes:
        require_tower(config, name)
    if sizes.keys() >= set(SPEECH_INPUTS):
        raise ValueError(f"{' and '.join(SPEECH_INPUTS)} are both of the speech: pass one of them.")
    if inputs["audio_pooler_output"] is not None:
        size = {"hidden_size": config.audio_config.hidden_size}
        check_shape("audio_pooler_output", inputs["audio_pooler_output"], ("batch", "hidden_size"), size, {})
    if return_loss:
        _check_objective(config, sizes)


def _check_objective(config: DualRepConfig, sizes: dict[str, int]) -> None:
    needed = ["pixel_values_videos"]
    if config.use_audio:
        needed.append(next((name for name in SPEECH_INPUTS if name in sizes), SPEECH_INPUTS[0]))
    if config.use_image:
        needed.append("pixel_values")
    missing = [name for name in needed if name not in sizes]
    if missing:
        raise ValueError(
            f"return_loss=True needs {' and '.join(missing)} too. "
            "To train without a modality, switch it off with DualRepConfig.use_audio or use_image."
        )
    clips = process_count() * max(sizes.values())
    if clips < 2:
        raise ValueError(f"The objective needs at least two clips, but got {clips}: make the batch larger.")


def require_tower(config: DualRepConfig, argument: str) -> None:
    """Raises ValueError where the configuration has switched off the tower of an argument."""
    field = SWITCHES.get(argument)
    if field is not None and not getattr(config, field):
        raise ValueError(
            f"{argument} was given, but the model has no such tower: DualRepConfig.{field} is False."
        )


__all__ = ["check_inputs", "require_tower"]
