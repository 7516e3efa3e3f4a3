"""Claims: one process at a time, and none that outlives its process."""

import subprocess
import sys
from pathlib import Path

from train.claims import claimed


def test_a_claim_is_one_process_s_and_ends_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "run"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom train.claims import claimed\n"
        "with claimed(Path(sys.argv[1])) as mine:\n"
        "    print(mine is not None, flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(lock)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        assert other.stdout.readline().strip() == "True"
        with claimed(lock) as mine:
            assert mine is None
    finally:
        other.kill()
        other.wait()
    with claimed(lock) as mine:
        assert mine is not None
        with claimed(lock) as again:
            assert again is None


def test_a_process_started_in_a_run_keeps_its_claim(tmp_path: Path) -> None:
    with claimed(tmp_path / "run") as lock:
        sleeper = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:
        with claimed(tmp_path / "run") as mine:
            assert mine is None
    finally:
        sleeper.kill()
        sleeper.wait()
    with claimed(tmp_path / "run") as mine:
        assert mine is not None
