"""The narration of a scan: what is said, when, by whom, and how it sounds."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.room_sound import RoomParameters, amplitude, in_room
from datasets_scripts.schema import BACKGROUND, PLANES
from datasets_scripts.simulated_speech import Narration, SpeechParameters, narrate
from datasets_scripts.simulated_visits import Visit
from datasets_scripts.voices import VARIANTS
from datasets_scripts.wordings import CHAT, STRUCTURES, chat_wordings, plane_wordings

STRUCTURE_PLANES = [plane for plane in PLANES if plane != BACKGROUND]
BARE = SpeechParameters(relevant_share=1.0, wrong_share=0.0, chat_share=0.0, room=None)
ANATOMY = """
abdomen aorta aortic arch arm artery atria backbone bladder blood body bone bones brain cerebellum chamber
chambers cheek chest chin cisterna coronal diaphragm face femur finger foot forehead hand head heart kidney
kidneys leg lens ligament lip lips liver lung lungs mouth neck nose nostrils organ outflow placenta plexus
profile pulmonary renal rib ribs sagittal shoulder skin skull spine stomach tailbone thigh trachea tummy
umbilical vein ventricle ventricles vertebrae vessel vessels windpipe
"""
ANATOMICAL_WORDS = set(ANATOMY.split())


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def visits_of(labels: list[str], seconds: float = 4.0) -> list[Visit]:
    """Visits of equal length with a second between them."""
    return [
        Visit(index * (seconds + 1.0), index * (seconds + 1.0) + seconds, label)
        for index, label in enumerate(labels)
    ]


def narrated(
    visits: list[Visit], parameters: SpeechParameters, voice_seed: int = 1, wording_seed: int = 2
) -> Narration:
    voice_rng, wording_rng = np.random.default_rng(voice_seed), np.random.default_rng(wording_seed)
    return narrate(visits, visits[-1].end_s + 1.0, voice_rng, wording_rng, parameters)


@pytest.fixture(scope="module")
def all_planes() -> Narration:
    return narrated(visits_of(list(PLANES)), BARE)


def test_the_same_generators_give_the_same_narration():
    parameters = SpeechParameters()
    first, second = (narrated(visits_of(["femur", "lips", "kidneys"]), parameters) for _ in range(2))
    np.testing.assert_array_equal(first.waveform, second.waveform)
    assert first.remarks == second.remarks


@pytest.mark.parametrize("duration_s", [7.0, 4.3217, 0.4])
def test_the_sound_is_as_long_as_the_scan(duration_s):
    narration = narrate(
        [Visit(0.0, 4.0, "femur")],
        duration_s,
        np.random.default_rng(0),
        np.random.default_rng(0),
        SpeechParameters(),
    )
    assert narration.waveform.shape == (round(duration_s * narration.sampling_rate_hz),)
    assert narration.waveform.dtype == np.float32
    assert all(remark.end_s <= duration_s for remark in narration.remarks)


def test_a_remark_that_would_not_fit_is_said_faster_or_not_at_all():
    visits = [Visit(5.0 * index, 5.0 * index + 0.6, plane) for index, plane in enumerate(PLANES * 3)]
    remarks = narrated(visits, BARE).remarks
    assert 0 < len(remarks) < len(visits)
    assert all(remark.end_s - 5.0 * (remark.start_s // 5.0) <= 1.1 for remark in remarks)


def test_remarks_of_neighbouring_visits_never_overlap():
    visits = [Visit(2.5 * index, 2.5 * (index + 1), plane) for index, plane in enumerate(PLANES * 3)]
    remarks = narrated(visits, BARE).remarks
    assert len(remarks) > 30
    assert all(later.start_s >= earlier.end_s for earlier, later in pairwise(remarks))


def test_a_scan_without_visits_holds_no_remark():
    narration = narrate([], 1.0, np.random.default_rng(0), np.random.default_rng(0), BARE)
    assert narration.remarks == []
    assert not narration.waveform.any()


def test_remarks_name_the_plane_inside_its_visit(all_planes):
    for visit in visits_of(list(PLANES)):
        inside = [remark for remark in all_planes.remarks if visit.start_s <= remark.start_s < visit.end_s]
        assert 1 <= len(inside) <= BARE.most_remarks_per_visit
        for remark in inside:
            assert (remark.kind, remark.label) == ("plane", visit.label)
            assert remark.text in plane_wordings(visit.label)
            assert remark.start_s >= visit.start_s + BARE.pause_seconds[0]
            assert remark.end_s <= visit.end_s + BARE.overrun_seconds
    ordered = all_planes.remarks
    for earlier, later in pairwise(ordered):
        assert later.start_s >= earlier.end_s + BARE.pause_seconds[0] - 1e-9


def test_sound_is_where_the_remarks_are_and_nowhere_else(all_planes):
    said = np.zeros(len(all_planes.waveform), dtype=bool)
    for remark in all_planes.remarks:
        first, last = (
            round(time_s * all_planes.sampling_rate_hz) for time_s in (remark.start_s, remark.end_s)
        )
        said[first : last + 1] = True
        assert np.sqrt(np.mean(all_planes.waveform[first:last] ** 2)) > amplitude(-34.0)
    assert not all_planes.waveform[~said].any()


def test_remarks_differ_in_loudness_within_the_spread(all_planes):
    levels_db = []
    for remark in all_planes.remarks:
        first, last = (
            round(time_s * all_planes.sampling_rate_hz) for time_s in (remark.start_s, remark.end_s)
        )
        levels_db.append(10.0 * np.log10(np.mean(all_planes.waveform[first:last] ** 2)))
    assert BARE.loudness_spread_db < np.ptp(levels_db) < 2.0 * BARE.loudness_spread_db + 0.1


def test_shares_are_kept_over_many_visits():
    parameters = SpeechParameters(relevant_share=0.4, wrong_share=0.2, chat_share=0.3, room=None)
    visits = visits_of(STRUCTURE_PLANES * 9, seconds=3.0)
    remarks_at_full_share = narrated(visits, replace(BARE, most_remarks_per_visit=1)).remarks
    assert len(remarks_at_full_share) == len(visits)
    kinds = Counter(
        remark.kind for remark in narrated(visits, replace(parameters, most_remarks_per_visit=1)).remarks
    )
    for kind, share in (("plane", 0.4), ("wrong", 0.2), ("chat", 0.3)):
        deviation = np.sqrt(share * (1 - share) / len(visits))
        assert abs(kinds[kind] / len(visits) - share) < 4 * deviation


def test_no_share_is_silence():
    silent = replace(BARE, relevant_share=0.0)
    narration = narrated(visits_of(["femur"]), silent)
    assert narration.remarks == []
    assert not narration.waveform.any()


@pytest.mark.parametrize("kind", ["wrong", "chat"])
def test_other_words_keep_place_length_and_voice(kind, all_planes):
    shares = {"relevant_share": 0.0, f"{kind}_share": 1.0}
    visits = visits_of(list(PLANES))
    narration = narrated(visits, replace(BARE, **shares))
    others = narration.remarks
    assert [remark.start_s for remark in others] == [remark.start_s for remark in all_planes.remarks]
    for other, remark in zip(others, all_planes.remarks, strict=True):
        assert other.kind == kind
        length_ratio = (other.end_s - other.start_s) / (remark.end_s - remark.start_s)
        assert 0.8 < length_ratio <= 1.0 + 1e-9
        last = round(other.end_s * narration.sampling_rate_hz) - 2
        assert abs(narration.waveform[last]) < 2e-3  # faded out, wherever it was cut off
        if kind == "wrong":
            assert other.label not in (remark.label, BACKGROUND)
            assert other.text in plane_wordings(other.label)
        else:
            assert other.label == ""
            assert other.text in CHAT


def test_shares_do_not_change_the_voice(monkeypatch):
    spoken = []

    def listen(text, voice):
        spoken.append(replace(voice, rate_words_per_minute=175))
        return np.ones(22_050, dtype=np.float32)

    monkeypatch.setattr("datasets_scripts.simulated_speech.synthesize", listen)
    for relevant_share, wording_seed in ((1.0, 2), (0.0, 2), (1.0, 3)):
        shares = replace(BARE, relevant_share=relevant_share, wrong_share=1.0 - relevant_share)
        narrated(visits_of(["femur", "lips"]), shares, wording_seed=wording_seed)
    assert len(spoken) > 6
    assert len(set(spoken)) == 1
    for voice_seed in range(8):
        narrated(visits_of(["femur"]), replace(BARE, voice_group="held_out"), voice_seed)
    assert {voice.variant for voice in spoken[-8:]} <= set(VARIANTS["held_out"])
    assert len(set(spoken[-8:])) > 1


def test_the_wording_generator_changes_the_words_and_the_voice_generator_does_not():
    visits = visits_of(["femur", "lips", "profile", "kidneys"], seconds=8.0)
    one_remark = replace(BARE, most_remarks_per_visit=1)
    base, other_voice, other_wording = (
        narrated(visits, one_remark, voice_seed, wording_seed).remarks
        for voice_seed, wording_seed in ((1, 2), (5, 2), (1, 5))
    )
    assert [(remark.text, remark.start_s) for remark in base] == [(r.text, r.start_s) for r in other_voice]
    assert [remark.end_s for remark in base] != [remark.end_s for remark in other_voice]
    assert [remark.text for remark in base] != [remark.text for remark in other_wording]


def test_words_and_share_of_one_visit_leave_the_others_alone():
    labels = ["femur", "lips", "profile"]
    changed = ["spine_coronal", *labels[1:]]
    kept, other = (
        [remark for remark in narrated(visits_of(these), BARE).remarks if remark.start_s > 5.0]
        for these in (labels, changed)
    )
    assert kept == other


@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_wordings_keep_to_their_group(group):
    parameters = SpeechParameters(
        relevant_share=0.5, wrong_share=0.5, chat_share=0.0, wording_group=group, room=None
    )
    for remark in narrated(visits_of(list(PLANES)), parameters).remarks:
        assert remark.text in plane_wordings(remark.label, group)


@pytest.mark.parametrize("group", ["seen", "held_out"])
def test_chat_and_wrong_names_keep_to_their_group(group):
    parameters = replace(
        BARE, relevant_share=0.0, wrong_share=0.3, chat_share=0.7, wording_group=group, voice_group=group
    )
    remarks = narrated(visits_of(list(PLANES) * 3), parameters).remarks
    assert {remark.kind for remark in remarks} == {"wrong", "chat"}
    for remark in remarks:
        spoken = chat_wordings(group) if remark.kind == "chat" else plane_wordings(remark.label, group)
        assert remark.text in spoken


@given(st.floats(0.0, 1.0), st.floats(0.05, 0.5), st.floats(0.0, 0.2), st.floats(0.01, 0.3))
def test_another_relevance_is_as_much_speech(relevance, relevant, wrong, chat):
    parameters = SpeechParameters(relevant_share=relevant, wrong_share=wrong, chat_share=chat)
    changed = parameters.with_relevance(relevance)
    assert changed.spoken_share == pytest.approx(relevant + wrong + chat)
    assert changed.relevant_share == pytest.approx(relevance * changed.spoken_share)
    # What is beside the point keeps its mixture.
    assert changed.wrong_share * chat == pytest.approx(changed.chat_share * wrong)
    shares = {"relevant_share": relevant, "wrong_share": wrong, "chat_share": chat}
    assert replace(changed, **shares) == parameters


def test_another_relevance_changes_words_and_neither_times_nor_silence():
    parameters = replace(BARE, relevant_share=0.35, wrong_share=0.05, chat_share=0.3)
    visits = visits_of(list(PLANES))
    plain = narrated(visits, parameters).remarks
    for relevance in (0.0, 0.25, 1.0):
        remarks = narrated(visits, parameters.with_relevance(relevance)).remarks
        assert [remark.start_s for remark in remarks] == [remark.start_s for remark in plain]
        assert [remark.text for remark in remarks] != [remark.text for remark in plain]
    assert all(remark.kind == "plane" for remark in remarks)
    assert 5 <= len(plain) < len(narrated(visits, BARE).remarks)


@pytest.mark.parametrize("relevance", [-0.1, 1.1, float("nan")])
def test_an_impossible_relevance_is_refused(relevance):
    with pytest.raises(ValueError, match="give a share from 0 to 1"):
        SpeechParameters().with_relevance(relevance)


def test_speech_that_is_all_to_the_point_does_not_say_what_other_speech_would_be():
    assert BARE.with_relevance(1.0) == BARE
    with pytest.raises(ValueError, match="wrong_share and chat_share are 0"):
        BARE.with_relevance(0.5)


def test_the_room_adds_noise_that_knows_nothing_of_the_words():
    silent = replace(BARE, relevant_share=0.0, room=RoomParameters())
    noises = [
        narrated(visits_of([label]), silent, wording_seed=seed).waveform
        for label, seed in (("femur", 2), ("lips", 3))
    ]
    np.testing.assert_array_equal(*noises)
    assert amplitude(-63.0) < np.sqrt(np.mean(noises[0] ** 2)) < amplitude(-48.0)


def test_reverberation_rings_on_after_a_remark():
    room = RoomParameters((-200.0, -200.0), (-200.0, -200.0), (0.3, 0.3), (-15.0, -15.0))
    click = np.zeros(22_050, dtype=np.float32)
    click[100] = 1.0
    heard = in_room(click, 22_050, np.random.default_rng(0), room)
    echo = heard - click
    assert not np.abs(echo[:100]).max() > 1e-5
    assert np.sum(echo**2) == pytest.approx(amplitude(-15.0) ** 2, rel=0.01)
    early, late = np.sum(echo[100:2305] ** 2), np.sum(echo[2305:4510] ** 2)
    assert 10 * np.log10(early / late) == pytest.approx(20.0, abs=2.0)  # 60 dB in 0.3 s, so 20 dB in 0.1 s


def test_loud_speech_does_not_clip():
    loud = replace(BARE, speech_level_db=(-3.0, -3.0), room=RoomParameters())
    assert 0.9 < np.abs(narrated(visits_of(["femur"]), loud).waveform).max() < 1.0


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3), st.floats(0.0, 0.999))
def test_kinds_follow_the_cumulated_shares(weights, draw):
    total = max(sum(weights), 1.0)
    relevant, wrong, chat = (weight / total for weight in weights)
    kind = SpeechParameters(relevant_share=relevant, wrong_share=wrong, chat_share=chat).kind(draw)
    edges = np.cumsum([relevant, wrong, chat])
    if np.abs(edges - draw).min() > 1e-9:
        assert kind == ("plane", "wrong", "chat", None)[int(np.searchsorted(edges, draw))]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"relevant_share": 1.2}, "relevant_share is 1.2"),
        ({"wrong_share": -0.1}, "wrong_share is -0.1"),
        ({"chat_share": float("nan")}, "chat_share is nan"),
        ({"relevant_share": 0.8, "chat_share": 0.3}, "add up to"),
        ({"wording_group": "heard"}, "wording_group is 'heard'"),
        ({"voice_group": "heard"}, "voice_group is 'heard'"),
        ({"most_remarks_per_visit": 0}, "most_remarks_per_visit is 0"),
        ({"pause_seconds": (1.0, 0.5)}, "pause_seconds is"),
        ({"pause_seconds": (-1.0, 0.5)}, "pause_seconds is"),
        ({"overrun_seconds": -0.5}, "overrun_seconds is -0.5"),
    ],
)
def test_impossible_parameters_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        SpeechParameters(**setting)


@pytest.mark.parametrize(
    "setting",
    [{"noise_level_db": (-50.0, -60.0)}, {"reverberation_seconds": (0.0, 0.2)}, {"hum_level_db": (-60.0,)}],
)
def test_impossible_rooms_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        RoomParameters(**setting)


def test_an_unknown_plane_is_refused():
    with pytest.raises(ValueError, match="'elbow'"):
        narrated(visits_of(["elbow"]), BARE)


def test_every_plane_has_wordings_of_both_groups_and_none_in_common():
    assert set(STRUCTURES) == set(PLANES)
    for plane in PLANES:
        seen, held_out = plane_wordings(plane, "seen"), plane_wordings(plane, "held_out")
        assert len(seen) >= 20
        assert len(held_out) >= 5
        assert len(set(seen + held_out)) == len(seen) + len(held_out)
        assert plane_wordings(plane, "all") == seen + held_out
        assert all(wording[0].isupper() or wording[0] == "“" for wording in seen + held_out)
        assert not any("{" in wording for wording in seen + held_out)


def test_chat_has_two_groups_of_like_lengths_and_none_in_common():
    seen, held_out = chat_wordings("seen"), chat_wordings("held_out")
    assert chat_wordings() == chat_wordings("all") == CHAT
    assert sorted(seen + held_out) == sorted(CHAT)
    assert len(held_out) == len(CHAT) // 4
    lengths = [
        np.percentile([len(text) for text in group], (0, 25, 50, 75, 100)) for group in (seen, held_out)
    ]
    np.testing.assert_allclose(*lengths, atol=5)
    with pytest.raises(ValueError, match="'heard'"):
        chat_wordings("heard")


def test_no_sentence_names_two_planes():
    owners = Counter(wording for plane in PLANES for wording in set(plane_wordings(plane)))
    assert owners.most_common(1)[0][1] == 1


def test_chat_and_searching_name_no_anatomy():
    assert len(set(CHAT)) == len(CHAT) >= 60
    for sentence in CHAT + plane_wordings(BACKGROUND):
        assert not words(sentence) & ANATOMICAL_WORDS, sentence


@pytest.mark.parametrize("plane", STRUCTURE_PLANES)
def test_every_name_of_a_structure_is_anatomical(plane):
    for name in STRUCTURES[plane].names:
        assert words(name) & (ANATOMICAL_WORDS | {"transventricular", "transcerebellar"}), name
