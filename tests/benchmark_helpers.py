"""A model of all towers that the benchmarks of training run in no time."""

TINY_MODEL = {
    "projection_dim": 6,
    "video_config": {
        "hidden_sizes": [4, 6],
        "depths": [1, 1],
        "stem_hidden_size": 3,
        "image_size": 16,
        "num_frames": 4,
    },
    "audio_config": {"hidden_sizes": [4, 6], "num_mel_bins": 8},
    "image_config": {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "image_size": 16},
}
