"""No library reports to its maker from where patients' recordings are read."""

import os
import subprocess
import sys

import pytest

SHOWN = "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"


@pytest.mark.parametrize(
    "module", ["datasets_scripts.speech_activity", "train.export_towers", "hub_cards.space.app"]
)
def test_onnxruntime_reports_nothing_whatever_the_user_has_set(module: str) -> None:
    """Its C++ reads the variable when it is loaded."""
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    told = f"import {module}\n{SHOWN}"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "1"
