"""The command line of the probes."""

from pathlib import Path

import pytest

from train.probes import named_models


def test_a_name_and_a_folder_are_needed() -> None:
    assert named_models(["best=a/b=c"]) == {"best": Path("a/b=c")}
    for word in ("best", "=a", "Best=a", "best="):
        with pytest.raises(ValueError, match="is not NAME=MODEL"):
            named_models([word])
