"""Names that the data sets and the training share: planes, columns, features, configurations.

This module is the whole contract between `datasets_scripts` and `train`; it imports nothing of ours.
"""

from datasets import Audio, ClassLabel, Features, Image, List, Value

PLANES: tuple[str, ...] = (
    "heart_three_vessel_trachea",
    "heart_four_chamber",
    "abdomen",
    "femur",
    "brain_transventricular",
    "kidneys",
    "heart_left_outflow",
    "lips",
    "profile",
    "heart_right_outflow",
    "brain_transcerebellar",
    "spine_coronal",
    "spine_sagittal",
    "background",
)
BACKGROUND = "background"

SAMPLING_RATE_HZ = 32_000
CLIP_CONFIG_SECONDS: dict[str, float] = {"medium": 6.0, "large": 2.0}

CLIP_ID = "clip_id"
SCAN_ID = "scan_id"
START_S = "start_s"
FRAMES = "frames"
AUDIO = "audio"
SPEECH_FRACTION = "speech_fraction"

IMAGE = "image"
LABEL = "label"
TIME_S = "time_s"
FIXATIONS = "fixations"

PLANES_CONFIG = "planes"
PLANE_CLIPS_CONFIG = "plane_clips"
GAZE_CONFIG = "gaze"

SPLITS: tuple[str, ...] = ("train", "validation")
UNLABELLED = -1  # what datasets' ClassLabel takes for "no label"


def clips_config_name(clip_seconds: float) -> str:
    """The configuration for clips of this length: `medium` (6 s), `large` (2 s) or `clips_<seconds>s`."""
    for name, seconds in CLIP_CONFIG_SECONDS.items():
        if seconds == clip_seconds:
            return name
    return f"clips_{clip_seconds:g}s"


def clips_features() -> Features:
    """Features of a clip row; `audio` is read undecoded, since the feature's own decoder needs FFmpeg."""
    return Features(
        {
            CLIP_ID: Value("string"),
            SCAN_ID: Value("string"),
            START_S: Value("float64"),
            FRAMES: List(Image()),
            AUDIO: Audio(sampling_rate=SAMPLING_RATE_HZ, decode=False),
            SPEECH_FRACTION: Value("float32"),
        }
    )


def planes_features() -> Features:
    """Features of a labelled frame; `time_s` is null where the frame comes from no recording."""
    return Features(
        {
            IMAGE: Image(),
            LABEL: ClassLabel(names=list(PLANES)),
            SCAN_ID: Value("string"),
            TIME_S: Value("float64"),
        }
    )


def plane_clips_features() -> Features:
    """Features of a labelled clip without sound."""
    return Features(
        {
            FRAMES: List(Image()),
            LABEL: ClassLabel(names=list(PLANES)),
            SCAN_ID: Value("string"),
            START_S: Value("float64"),
        }
    )


def gaze_features() -> Features:
    """Features of a frame with its fixations: [x, y] in 0..1 of the stored image, origin top left."""
    return Features(
        {
            IMAGE: Image(),
            FIXATIONS: List(List(Value("float64"), length=2)),
            SCAN_ID: Value("string"),
            TIME_S: Value("float64"),
        }
    )
