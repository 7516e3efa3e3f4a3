"""One processor for clip, speech and frame: the raw triple to the model's inputs."""

from typing import Any

from transformers import BatchFeature, ProcessorMixin
from transformers.audio_utils import AudioInput
from transformers.image_utils import ImageInput
from transformers.processing_utils import ProcessingKwargs, Unpack
from transformers.video_utils import VideoInput


class DualRepProcessor(ProcessorMixin):
    """Prepares triples of a clip, its speech and one frame for `DualRepModel`.

    Args:
        feature_extractor: a DualRepFeatureExtractor, for the speech.
        image_processor: a DualRepImageProcessor, for the frame.
        video_processor: a DualRepVideoProcessor, for the clip.
    """

    _auto_class = "AutoProcessor"

    def __init__(self, feature_extractor: Any, image_processor: Any, video_processor: Any) -> None:
        super().__init__(feature_extractor, image_processor, video_processor)
        # transformers writes this when it saves and drops it when it loads: kept, both sides are equal.
        self.auto_map = {self._auto_class: "processing_dualrep.DualRepProcessor"}

    def __call__(
        self,
        videos: VideoInput | None = None,
        audio: AudioInput | list[AudioInput | None] | None = None,
        images: ImageInput | None = None,
        **kwargs: Unpack[ProcessingKwargs],
    ) -> BatchFeature:
        """Prepares what is given of a batch of triples: at least one of the three.

        Args:
            videos: clips, as DualRepVideoProcessor takes them.
            audio: waveforms, as DualRepFeatureExtractor takes them; in a list, None is a clip without sound.
            images: frames, as DualRepImageProcessor takes them.
            kwargs: `sampling_rate` of the audio in Hz; `return_tensors`, "pt" or "np"; and options of the
                three parts that are to hold for this call alone.

        Returns:
            `pixel_values_videos` (batch, 14, 3, 128, 128), `input_features` (batch, time, 64) and
            `audio_mask` (batch,), `pixel_values` (batch, 3, 128, 128): those whose inputs were given.

        Raises:
            ValueError: nothing was given, an option is unknown, the numbers of clips, waveforms and frames
                differ, or a part refuses its input.
        """
        if videos is None and audio is None and images is None:
            raise ValueError("DualRepProcessor was given nothing: pass videos, audio or images.")
        self._refuse_unknown_options(kwargs)
        options = self._merge_kwargs(**kwargs)
        features: dict[str, Any] = {}
        if videos is not None:
            features.update(self.video_processor(videos, **options["videos_kwargs"]))
        if audio is not None:
            features.update(self.feature_extractor(audio, **options["audio_kwargs"]))
        if images is not None:
            features.update(self.image_processor(images, **options["images_kwargs"]))
        self._require_one_batch_size(features)
        return BatchFeature(features)

    def _refuse_unknown_options(self, kwargs: dict[str, Any]) -> None:
        """Raises ValueError, where transformers would warn and go on without the option."""
        groups = ProcessingKwargs.__annotations__
        modalities = ("videos_kwargs", "audio_kwargs", "images_kwargs")
        known = {"common_kwargs", *groups}.union(
            *(groups[modality].__annotations__ for modality in modalities)
        )
        unknown = sorted(set(kwargs) - known)
        if unknown:
            raise ValueError(f"DualRepProcessor has no option {', '.join(map(repr, unknown))}.")

    def _require_one_batch_size(self, features: dict[str, Any]) -> None:
        sizes = {name: len(values) for name, values in features.items() if name in self.model_input_names}
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{size} of {name}" for name, size in sizes.items())
            raise ValueError(f"videos, audio and images must be equally many, but there are {counts}.")


__all__ = ["DualRepProcessor"]
