"""A hub without Xet is sent its large files by LFS, and one that has it is left to huggingface_hub."""

from pathlib import Path

import pytest
from hub_helpers import hub_in_this_process, write_run
from hub_stand_in import Fault
from huggingface_hub import HfApi, constants

from hub_cards.push import push_run
from hub_cards.xet import lfs_where_no_xet


@pytest.mark.parametrize(("answer", "disabled"), [(None, True), (200, False), (403, False)])
@pytest.mark.parametrize("before", [True, False])
def test_lfs_is_chosen_where_there_is_no_xet(
    answer: int | None, disabled: bool, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_in_this_process(monkeypatch) as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", before)
        if answer is not None:
            hub.faults.append(Fault("xet-write-token", kind=answer))
        with (
            pytest.raises(KeyError),
            lfs_where_no_xet(HfApi(endpoint=constants.ENDPOINT), "me/tiny", "model"),
        ):
            assert (before or disabled) == constants.HF_HUB_DISABLE_XET
            raise KeyError
        assert before == constants.HF_HUB_DISABLE_XET
        assert hub.count("GET /api/models/me/tiny/xet-write-token/main") == (0 if before else 1)


def test_a_push_to_a_hub_without_xet_needs_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_in_this_process(monkeypatch) as hub:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        push_run(write_run(tmp_path / "run"), "me/tiny")
        assert hub.repositories["model", "me/tiny"].files["model.safetensors"].lfs
