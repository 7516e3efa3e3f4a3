"""Rows to triples: choice of frames, decoding, batches, and what goes wrong."""

import random
import shutil
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from clips_helpers import FRAME_SIZE, flac, make_row, tiny_processor, write_small_set
from hypothesis import given
from hypothesis import strategies as st

from train.arguments import AugmentationArguments, SpeechAugmentationArguments
from train.clip_order import ClipsError, SeededBatches
from train.stored_rows import StoredRowsError
from train.stored_sound import LogMels, StoredSound, TowerEmbeddings, encode_array
from train.triples import (
    ClipKey,
    Triples,
    check_splits,
    choose_gallery,
    clip_group,
    decode_audio,
    draw_clips,
    gallery_batches,
    list_clips,
    normalised_batches,
    only_clips,
    open_clips,
    pick_frames,
    read_rows,
    stack_views,
    training_batches,
)

UNCHANGED = AugmentationArguments(crop_scale=1.0, brightness=0.0, gamma=0.0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_set(tmp_path_factory.mktemp("clips"))


def triples(**options: object) -> Triples:
    return Triples(tiny_processor(), 14, FRAME_SIZE, FRAME_SIZE, seed=0, **options)


def order(clips: Path, **options: object) -> SeededBatches:
    return SeededBatches(open_clips(str(clips), "medium", "train"), 24, 5, **{"seed": 0, **options})


def test_near_duplicates_are_one_group() -> None:
    rows = [make_row(name, scan, start) for name, scan, start in (("a", "s", 0.5), ("b", "s", 3.9))]
    rows += [make_row("c", "s", 4.0), make_row("d", "t", 0.5)]
    ((_, batch),) = gallery_batches(triples(near_duplicate_seconds=4.0), rows, 4)
    first, near, far, other_scan = batch["clip_groups"].tolist()
    assert first == near and len({first, far, other_scan}) == 3
    assert clip_group("s", 0.5, 4.0) == first
    assert clip_group("s", 0.5, 4.0) == 1141346728292430197, "the same in every process"
    ((_, batch),) = gallery_batches(triples(), rows, 4)
    assert "clip_groups" not in batch


@pytest.mark.parametrize("stored_channels", [1, 3])
def test_views_are_normalised_as_the_processor_does_it_to_the_last_bit(stored_channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (14, stored_channels, FRAME_SIZE, FRAME_SIZE)
    views = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(3)]
    given = [
        {"clip_id": str(number), "video": view, "image": view[0], "input_features": None}
        for number, view in enumerate(views)
    ]
    of_views = triples(augmentation=AugmentationArguments())
    batches = normalised_batches([of_views.collate(given)], of_views.statistics, torch.device("cpu"))
    ((_, batch),) = batches
    expected = tiny_processor()(videos=views, images=[view[0] for view in views], return_tensors="pt")
    assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"])
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])


def test_pixels_are_bytes_until_they_are_on_the_device(clips: Path) -> None:
    of_views = triples(augmentation=AugmentationArguments())
    _, batch = next(iter(training_batches(of_views, order(clips), 0)))
    assert {batch["pixel_values_videos"].dtype, batch["pixel_values"].dtype} == {torch.uint8}
    ((_, normalised),) = normalised_batches([([], batch)], of_views.statistics, torch.device("cpu"))
    assert {normalised["pixel_values_videos"].dtype, normalised["pixel_values"].dtype} == {torch.float32}


def test_speech_is_varied_in_training_alone_and_anew_in_each_epoch(clips: Path) -> None:
    row = next(iter(open_clips(str(clips), "medium", "train")))
    louder = {"speech_augmentation": SpeechAugmentationArguments(gain_db=6.0)}
    plain = triples(augmentation=AugmentationArguments())[0, row]["input_features"]
    varied = triples(augmentation=AugmentationArguments(), **louder)
    gains = [(varied[epoch, row]["input_features"] - plain).mean().item() for epoch in (0, 1, 0)]
    assert gains[0] == gains[2] != gains[1] and 0 < abs(gains[0]) <= 6
    assert torch.equal(triples(**louder)[0, row]["input_features"], plain)


def test_grey_views_become_colour_beside_colour() -> None:
    grey, colour = torch.full((2, 1, 3, 3), 7, dtype=torch.uint8), torch.zeros(2, 3, 3, 3, dtype=torch.uint8)
    assert stack_views([grey, grey]).shape == (2, 2, 1, 3, 3)
    mixed = stack_views([grey, colour])
    assert mixed.shape == (2, 2, 3, 3, 3) and (mixed[0] == 7).all() and (mixed[1] == 0).all()


def test_the_number_of_workers_changes_nothing(clips: Path) -> None:
    runs = []
    for workers in (0, 2):
        loader = training_batches(triples(augmentation=AugmentationArguments()), order(clips), workers)
        runs.append(list(islice(loader, 6)))
    for (first_ids, first), (second_ids, second) in zip(*runs, strict=True):
        assert first_ids == second_ids
        for name in first:
            assert torch.equal(first[name], second[name]), name


def test_the_loader_leaves_the_model_s_random_state_alone(clips: Path) -> None:
    state = torch.get_rng_state()
    next(iter(training_batches(triples(augmentation=AugmentationArguments()), order(clips), 0)))
    assert torch.equal(torch.get_rng_state(), state)


def test_kept_clips_give_the_same_batches(clips: Path) -> None:
    batches = [
        islice(
            training_batches(
                triples(augmentation=AugmentationArguments(), keep_in_memory=keep), order(clips), 0
            ),
            9,
        )
        for keep in (False, True)
    ]
    for (_, plain), (_, kept) in zip(*batches, strict=True):
        for name in plain:
            assert torch.equal(plain[name], kept[name]), name


def grey_values(pixel_values: torch.Tensor) -> torch.Tensor:
    """The stored grey values of flat frames (..., channels, height, width), from the processor's output."""
    processor = tiny_processor().image_processor
    red = pixel_values[..., 0, 0, 0]
    return ((red * processor.image_std[0] + processor.image_mean[0]) * 255).round()


def test_the_model_sees_the_stored_frames_in_their_order() -> None:
    example = triples()[0, make_row("a", "s", 0.0)]
    _, batch = triples().collate([example])
    assert grey_values(batch["pixel_values_videos"][0]).tolist() == [20 + 10 * i for i in range(14)]
    assert grey_values(batch["pixel_values"][0]).item() == 20 + 5 * 15
    assert batch["pixel_values_videos"].shape == (1, 14, 3, FRAME_SIZE, FRAME_SIZE)


def test_training_takes_other_frames_each_epoch_but_the_same_in_the_same() -> None:
    training = triples(augmentation=UNCHANGED)
    row = make_row("a", "s", 0.0)
    taken = set()
    for epoch in range(12):
        first, again = training[epoch, row], training[epoch, row]
        assert torch.equal(first["video"], again["video"]) and torch.equal(first["image"], again["image"])
        taken.add((first["video"][0, 0, 0, 0].item(), first["image"][0, 0, 0].item()))
    assert {phase for phase, _ in taken} == {20, 25}
    assert len(taken) > 6


@given(st.integers(1, 20), st.integers(0, 60), st.integers())
def test_picked_frames_are_evenly_spaced_and_never_hold_the_single_one(
    num: int, more: int, seed: int
) -> None:
    stored = num + more
    for draw in (None, random.Random(seed)):
        video, image = pick_frames(stored, num, draw)
        gaps = {after - before for before, after in pairwise(video)}
        assert len(video) == len(set(video)) == num
        assert video[0] >= 0 and video[-1] < stored and 0 <= image < stored
        assert gaps <= {stored // num, stored // num + 1}
        assert (image in video) == (more == 0)


def test_too_few_stored_frames_name_the_clip() -> None:
    with pytest.raises(ClipsError, match=r"Clip short .*13 frames .*14"):
        triples()[0, make_row("short", "s", 0.0, stored=13)]


def test_a_damaged_picture_names_the_clip() -> None:
    row = make_row("torn", "s", 0.0)
    row["frames"][0]["bytes"] = row["frames"][0]["bytes"][:20]
    with pytest.raises(ClipsError, match="Clip torn"):
        triples()[0, row]


def test_a_damaged_sound_names_the_clip() -> None:
    row = make_row("torn", "s", 0.0)
    row["audio"]["bytes"] = b"nothing like FLAC"
    with pytest.raises(ClipsError, match="Clip torn"):
        triples()[0, row]


def test_sound_of_another_rate_is_refused() -> None:
    row = make_row("slow", "s", 0.0)
    row["audio"]["bytes"] = flac(np.zeros(6400), sampling_rate_hz=16_000)
    with pytest.raises(ClipsError, match=r"Clip slow .*16000 Hz"):
        triples()[0, row]


def test_stereo_is_averaged() -> None:
    left, right = np.full(640, 0.5), np.full(640, -0.25)
    waveform = decode_audio({"bytes": flac(np.stack([left, right], axis=1)), "path": None})
    assert waveform.shape == (640,) and np.allclose(waveform, 0.125, atol=1e-4)


def test_clips_without_usable_sound_are_masked_and_their_features_are_zero() -> None:
    rows = [make_row("a", "s", 0.0), make_row("b", "s", 1.0, sound=False), make_row("c", "s", 2.0)]
    rows[2]["audio"]["bytes"] = flac(np.zeros(6400))
    ((_, batch),) = gallery_batches(triples(), rows, 3)
    assert batch["audio_mask"].tolist() == [True, False, False]
    assert batch["input_features"].shape == (3, 21, 64)
    assert (batch["input_features"][1:] == 0).all() and (batch["input_features"][0] != 0).any()
    ((_, batch),) = gallery_batches(triples(minimum_speech_fraction=0.6), rows, 3)
    assert not batch["audio_mask"].any()


@pytest.mark.parametrize(
    ("sound", "stored", "shape"),
    [
        (LogMels(64), encode_array(np.ones((21, 64), dtype=np.float16)), (21, 64)),
        (TowerEmbeddings(8, ""), [1.0] * 8, (8,)),
    ],
)
def test_clips_without_waveforms_give_what_is_stored_of_their_sound(
    sound: StoredSound, stored: object, shape: tuple[int, ...]
) -> None:
    rows = [make_row(name, "s", 0.0) for name in "abc"]
    for row, kept in zip(rows, (stored, None, stored), strict=True):
        del row["audio"]
        row[sound.column] = kept
    rows[2]["speech_fraction"] = 0.1
    of_set = triples(sound=sound, minimum_speech_fraction=0.4, augmentation=UNCHANGED)
    ((_, batch),) = gallery_batches(of_set, rows, 3)
    assert batch["audio_mask"].tolist() == [True, False, False]
    assert batch[sound.model_input].shape == (3, *shape)
    assert (batch[sound.model_input][0] == 1).all() and (batch[sound.model_input][1:] == 0).all()
    rows[0][sound.column] = b"nothing like an array" if sound.column == "log_mel" else [1.0]
    with pytest.raises(ClipsError, match="Clip a cannot be used"):
        of_set[0, rows[0]]


def test_features_are_the_processor_s_own() -> None:
    row = make_row("a", "s", 0.0)
    ((_, batch),) = gallery_batches(triples(), [row], 1)
    expected = tiny_processor()(audio=[decode_audio(row["audio"])], sampling_rate=32_000, return_tensors="pt")
    assert torch.equal(batch["input_features"], expected["input_features"])


def test_listing_and_reading_name_the_same_clips(clips: Path) -> None:
    keys = list_clips(str(clips), "medium", "validation")
    assert len(keys) == 8 and keys[3] == ClipKey("validation3", "validation_scan3", 3.0)
    rows = read_rows(str(clips), "medium", "validation", ["validation5", "validation2"])
    assert [row["clip_id"] for row in rows] == ["validation5", "validation2"]
    assert isinstance(rows[0]["frames"][0]["bytes"], bytes)


def test_drawn_clips_alone_are_read_undecoded_and_in_their_order(clips: Path) -> None:
    keys = list_clips(str(clips), "medium", "validation")
    drawn = draw_clips(keys, 3, seed=0)
    assert len(set(drawn)) == 3 and drawn == sorted(drawn, key=keys.index)
    rows = list(only_clips(open_clips(str(clips), "medium", "validation"), drawn))
    assert [row["clip_id"] for row in rows] == [key.clip_id for key in drawn]
    assert isinstance(rows[0]["frames"][0]["bytes"], bytes)
    assert draw_clips(keys, None, seed=0) == draw_clips(keys, 9, seed=0) == keys
    assert draw_clips(keys, 3, seed=0) == drawn


@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(2, 60))
def test_the_gallery_takes_five_or_more_a_scan_where_it_can(sizes: list[int], wanted: int) -> None:
    keys = [
        ClipKey(f"{scan}-{i}", f"{scan:02d}", float(i))
        for scan, size in enumerate(sizes)
        for i in range(size)
    ]
    chosen = choose_gallery(keys, wanted)
    counts = [sum(key.scan_id == f"{scan:02d}" for key in chosen) for scan in range(len(sizes))]
    assert len(chosen) == len(set(chosen)) == min(wanted, len(keys))
    rich = [count for count, size in zip(counts, sizes, strict=True) if size >= 5 and count]
    assert sum(count < 5 for count in rich) <= 1, "only the scan that fills the last places may have fewer"
    if sum(size for size in sizes if size >= 5) >= wanted:
        assert not any(count for count, size in zip(counts, sizes, strict=True) if size < 5)
    assert chosen == choose_gallery(keys[::-1], wanted)


def test_what_is_not_there_is_said_with_what_is(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(StoredRowsError, match=r"'large'.*Available: \['medium'\].*prepare_clips"):
        open_clips(str(clips), "large", "train")
    with pytest.raises(StoredRowsError, match="'test'"):
        open_clips(str(clips), "medium", "test")
    with pytest.raises(StoredRowsError, match="empty"):
        (tmp_path / "empty").mkdir()
        open_clips(str(tmp_path / "empty"), "medium", "train")
    with pytest.raises(StoredRowsError, match=r"no folder here.*nowhere"):
        open_clips(str(tmp_path / "nowhere"), "medium", "train")


def test_clips_that_store_no_sound_at_all_are_refused(clips: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(clips, tmp_path / "clips")
    for path in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns("audio"), path)
    with pytest.raises(StoredRowsError, match="no column audio, log_mel or audio_embedding"):
        open_clips(str(folder), "medium", "train")


def test_a_scan_on_both_sides_is_refused() -> None:
    with pytest.raises(ClipsError, match="shared"):
        check_splits([ClipKey("a", "shared", 0.0)], [ClipKey("b", "shared", 1.0), ClipKey("c", "x", 1.0)])
    check_splits([ClipKey("a", "one", 0.0)], [ClipKey("b", "two", 1.0)])
