"""The card of a data set: its `configs` make `load_dataset(folder, configuration)` find the shards."""

from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from datasets_scripts.schema import (
    AUDIO,
    AUDIO_EMBEDDING,
    CLIP_ID,
    FIXATIONS,
    FRAMES,
    GAZE_CONFIG,
    IMAGE,
    LABEL,
    LOG_MEL,
    PLANE_CLIPS_CONFIG,
    PLANES_CONFIG,
    SCAN_ID,
    SPEECH_FRACTION,
    START_S,
    TIME_S,
    clips_features,
    gaze_features,
    plane_clips_features,
    planes_features,
    sound_column,
)

CARD_FILE = "README.md"
CARD_TEXT = """\
# Ultrasound pictures and clips

`data/<configuration>/info.json` says how each configuration was made, how many rows it has, and gives its
data hash. `splits.json`, where there is one, holds the splits: they are by patient, were drawn once, and are
the same for all configurations. Patients and scans are named by keyed hashes; the key is not part of the set.
"""
COLUMN_TEXTS = {
    CLIP_ID: "keyed hash of the scan, and the start of the clip in milliseconds",
    SCAN_ID: "keyed hash of the scan",
    START_S: "start of the clip in the recording, in seconds",
    FRAMES: "JPEG images, evenly spaced over the clip by the time stamps of the recording",
    AUDIO: "32 kHz mono FLAC of the clip, or null where the recording has no sound",
    LOG_MEL: "log-mel spectrogram of the clip's sound, a NumPy file of float16 (time, mel) in dB, or null; "
    "no waveform is kept, but speech can be rebuilt from log-mels, so this is no anonymisation",
    AUDIO_EMBEDDING: "what a model's speech tower gives of the clip's sound, or null; no waveform is kept, "
    "but a probe on embeddings tells words, such as the plane that is named, so this is no anonymisation",
    SPEECH_FRACTION: "estimated share of the clip in which somebody speaks, 0 to 1",
    IMAGE: "the frame, scaled and padded with black to a square",
    LABEL: "the standard plane, or background",
    TIME_S: "time of the frame in the recording, in seconds; null where it is from no recording",
    FIXATIONS: "places looked at: x, y in 0..1 of the stored image, from its top left",
}

CLIPS_TITLES = {
    AUDIO: "Clips with the sonographer's speech",
    LOG_MEL: "Clips with log-mels of the sonographer's speech",
    AUDIO_EMBEDDING: "Clips with embeddings of the sonographer's speech",
}


def describe_kind(config: str) -> tuple[str, str]:
    """Title and text, in Markdown, of the card's section on the kind of rows of a configuration."""
    if config == PLANES_CONFIG:
        title, row, features = "Labelled frames: `planes`", "A row is a frame.", planes_features()
    elif config == PLANE_CLIPS_CONFIG:
        title, row, features = (
            "Labelled clips: `plane_clips`",
            "A row is a clip without sound, all of it of one plane.",
            plane_clips_features(),
        )
    elif config == GAZE_CONFIG:
        title, row, features = (
            "Frames with gaze: `gaze`",
            "A row is a frame with the fixations around its time.",
            gaze_features(),
        )
    else:
        sound = sound_column(config)
        title, row, features = (
            CLIPS_TITLES[sound],
            "Each configuration of them is one clip length. A row is a clip.",
            [sound if column == AUDIO else column for column in clips_features()],
        )
    table = [f"| `{column}` | {COLUMN_TEXTS[column]} |" for column in features]
    return f"## {title}", "\n".join([row, "", "| column | what it is |", "|---|---|", *table])


def add_to_card(
    output_dir: Path, config: str, data_files: dict[str, str], data_hash: str, key_fingerprint: str
) -> None:
    """Name a configuration's files in the card, and describe its kind if the card does not yet; the rest
    stays, and without a card one is written.

    Args:
        config: name of the configuration.
        data_files: for each split the pattern of its files, relative to `output_dir`.
        data_hash, key_fingerprint: of the rows and of the key of their identifiers. `load_dataset` keeps what
            it has read by the folder's name and by this entry of the card: without them, another set in a
            folder of the same name would come back as the first one.
    """
    path = Path(output_dir) / CARD_FILE
    if path.exists():
        card = DatasetCard.load(path)
    else:
        data = DatasetCardData(pretty_name="Ultrasound pictures and clips", tags=["ultrasound"])
        card = DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{CARD_TEXT}")
    entry = {
        "config_name": config,
        "description": f"data hash {data_hash}, key {key_fingerprint}",
        "data_files": [{"split": split, "path": pattern} for split, pattern in data_files.items()],
    }
    others = [each for each in getattr(card.data, "configs", None) or [] if each["config_name"] != config]
    card.data.configs = sorted([*others, entry], key=lambda each: each["config_name"])
    title, text = describe_kind(config)
    if title not in card.text.splitlines():
        card.text = f"{card.text.rstrip()}\n\n{title}\n\n{text}\n"
    card.save(path)
