"""DualRep: representations of fetal ultrasound video, the sonographer's speech and single frames."""

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForVideoClassification,
    AutoProcessor,
    AutoVideoProcessor,
)

from .audio_cnn14 import DualRepAudioModel
from .configuration_dualrep import DualRepAudioConfig, DualRepConfig, DualRepImageConfig, DualRepVideoConfig
from .feature_extraction_dualrep import DualRepFeatureExtractor
from .image_processing_dualrep import DualRepImageProcessor
from .image_resnet import DualRepImageModel
from .modeling_dualrep import (
    AUTO_MODELS,
    DualRepForImageClassification,
    DualRepForSaliencyPrediction,
    DualRepForVideoClassification,
    DualRepModel,
    DualRepPreTrainedModel,
)
from .outputs import DualRepOutput, DualRepSaliencyOutput
from .processing_dualrep import DualRepProcessor
from .video_processing_dualrep import DualRepVideoProcessor
from .video_r2plus1d import DualRepVideoModel

for _config, _model in (
    (DualRepConfig, AUTO_MODELS),
    (DualRepVideoConfig, DualRepVideoModel),
    (DualRepAudioConfig, DualRepAudioModel),
    (DualRepImageConfig, DualRepImageModel),
):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
AutoModelForImageClassification.register(DualRepConfig, DualRepForImageClassification)
AutoModelForVideoClassification.register(DualRepConfig, DualRepForVideoClassification)
AutoFeatureExtractor.register(DualRepConfig, DualRepFeatureExtractor)
AutoImageProcessor.register(DualRepConfig, image_processor_classes={"torchvision": DualRepImageProcessor})
AutoVideoProcessor.register(DualRepConfig, DualRepVideoProcessor)
AutoProcessor.register(DualRepConfig, DualRepProcessor)

__all__ = [
    "DualRepAudioConfig",
    "DualRepAudioModel",
    "DualRepConfig",
    "DualRepFeatureExtractor",
    "DualRepForImageClassification",
    "DualRepForSaliencyPrediction",
    "DualRepForVideoClassification",
    "DualRepImageConfig",
    "DualRepImageModel",
    "DualRepImageProcessor",
    "DualRepModel",
    "DualRepOutput",
    "DualRepPreTrainedModel",
    "DualRepProcessor",
    "DualRepSaliencyOutput",
    "DualRepVideoConfig",
    "DualRepVideoModel",
    "DualRepVideoProcessor",
]
