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
LOG_MEL = "log_mel"
AUDIO_EMBEDDING = "audio_embedding"
SOUND_COLUMNS: tuple[str, ...] = (AUDIO, LOG_MEL, AUDIO_EMBEDDING)

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


def encoded_clips_config_name(clip_seconds: float, column: str) -> str:
    """The configuration for clips whose sound is LOG_MEL or AUDIO_EMBEDDING alone: `medium_log_mel`, ..."""
    return f"{clips_config_name(clip_seconds)}_{column}"


def sound_column(config: str) -> str:
    """The column that holds the sound in a configuration of clips, by its name."""
    return next((column for column in SOUND_COLUMNS if config.endswith(f"_{column}")), AUDIO)


def log_mel_clips_features() -> Features:
    """Features of a clip row with `log_mel` in the place of `audio`: a float16 array (time, mel) in dB as the
    bytes of a NumPy file, so that streamed rows stay small until they are decoded.
    """
    return _encoded_clips_features(LOG_MEL, Value("binary"))


def audio_embedding_clips_features(hidden_size: int) -> Features:
    """Features of a clip row with `audio_embedding`, the speech tower's pooled output, in the place of
    `audio`.
    """
    return _encoded_clips_features(AUDIO_EMBEDDING, List(Value("float32"), length=hidden_size))


def _encoded_clips_features(column: str, feature: Value | List) -> Features:
    """Features of a clip row with this column in the place of `audio`."""
    return Features(
        {
            column if name == AUDIO else name: feature if name == AUDIO else each
            for name, each in clips_features().items()
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
