"""The model that makes an index and embeds queries, and how it wants recordings cut."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature
from transformers.utils import cached_file

from datasets_scripts.clips import ClipParameters
from datasets_scripts.preparation_command import COMMAND_DEFAULTS
from datasets_scripts.schema import CLIP_CONFIG_SECONDS
from modeling_dualrep.modeling_dualrep import DualRepModel
from modeling_dualrep.processing_dualrep import DualRepProcessor
from train.arguments import COMMAND_LINE, build, merge, read_recipe
from train.evaluation import GalleryEmbeddings, embed_gallery
from train.model_folder import RECIPE_FILE
from train.pretrained import PretrainedError, load_pretrained
from train.search_index import SearchError
from train.stored_sound import tower_sha256
from train.triples import Triples, evaluation_triples

MINIMUM_SPEECH_FRACTION = 0.1


@dataclass(frozen=True)
class SearchModel:
    """A pretrained model in evaluation mode.

    Args:
        source: its folder (absolute) or its id on the Hub.
        sha256: of its weights.
        model, processor: as loaded; the model lies on the GPU where there is one.
    """

    source: str
    sha256: str
    model: DualRepModel
    processor: DualRepProcessor

    def embed(self, batches: Iterable[tuple[list[str], BatchFeature]]) -> GalleryEmbeddings:
        """Embeddings by the very function that measures retrieval in training, so that figures agree."""
        return embed_gallery(self.model, batches, self.model.device)

    def triples(self, minimum_speech_fraction: float) -> Triples:
        """How clips become inputs, as in evaluation, without single frames."""
        return evaluation_triples(self.model.config, self.processor, minimum_speech_fraction, use_image=False)


def load_search_model(source: str) -> SearchModel:
    """The model that pretraining left in a folder or on the Hub.

    Raises:
        SearchError: there is none, it is of another kind, or it cannot be loaded.
    """
    try:
        model, processor = load_pretrained(source)
    except PretrainedError as error:
        raise SearchError(str(error)) from error
    if not model.config.use_audio:
        raise SearchError(f"The model in {source} has no speech tower (use_audio is false): give another.")
    sha256 = tower_sha256(model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return SearchModel(
        str(Path(source).resolve()) if Path(source).is_dir() else source, sha256, model, processor
    )


def clip_parameters(searcher: SearchModel, given: dict[str, Any]) -> ClipParameters:
    """How recordings are cut for a model: as those that it learnt from, as far as its recipe tells.

    Where the recipe cut recordings itself, as it cut them; else by the defaults of prepare_clips. A clip
    begins at every half of a clip's length, and less speech than a tenth of a clip counts as none.

    Args:
        given: fields of ClipParameters that go before all that.

    Raises:
        SearchError: neither the model nor `given` tells how long a clip is.
        ArgumentsError: a field that there is not, or a value out of its range.
    """
    config = searcher.model.config
    fields = {
        "frame_size": max(ClipParameters.frame_size, config.video_config.image_size),
        "frames_per_clip": 2 * config.num_frames,
        "minimum_speech_fraction": MINIMUM_SPEECH_FRACTION,
    }
    path = cached_file(
        searcher.source,
        RECIPE_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    recipe = {} if path is None else read_recipe(path)
    if "dataset_config" in recipe:
        fields["clip_seconds"] = _clip_seconds(recipe["dataset_config"])
    fields |= COMMAND_DEFAULTS if recipe.get("clips") is None else recipe["clips"]
    fields = merge(fields, given)
    if "clip_seconds" not in fields:
        raise SearchError(
            f"The model in {searcher.source} has no {RECIPE_FILE} that tells how long the clips were that it "
            "learnt from: pass --clips.clip_seconds, 6 or 2 by the names medium and large."
        )
    if "stride_seconds" not in given:
        fields["stride_seconds"] = fields["clip_seconds"] / 2
    return build(ClipParameters, fields, COMMAND_LINE, "clips")


def _clip_seconds(config: str) -> float:
    """Length of the clips of a configuration: `medium`, `large_log_mel`, `clips_4s`, ..."""
    for name, seconds in CLIP_CONFIG_SECONDS.items():
        if config.split("_")[0] == name:
            return seconds
    other = re.match(r"clips_([\d.]+)s", config)
    if other is None:
        raise SearchError(
            f"The recipe's dataset_config {config!r} tells no length: pass --clips.clip_seconds."
        )
    return float(other.group(1))
