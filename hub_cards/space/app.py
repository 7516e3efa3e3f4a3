"""The app: a scan's planes over time, saliency over a frame, and search by speech, in the browser.

    uv run --group demo python hub_cards/space/app.py --make_models    # the first time: takes a while
    uv run --group demo python hub_cards/space/app.py [--model FOLDER] [--planes FOLDER] [--saliency FOLDER]

A model that is not named is taken from where the commands of the README leave it; without it its tab says how
to make one. Scans stay on this machine: nothing is sent anywhere, and uploads are removed once they are read.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

# Before NumPy starts: the simulator's products are small, and threads that wait for each other cost more.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# On the Hub nothing is installed but the requirements: our packages are those of the checkout around us.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transformers.utils import logging

from hub_cards.space.making import make_models
from hub_cards.space.models import DEFAULT_FOLDERS, ModelError, Models, load_models
from hub_cards.space.uploads import OLDEST_SECONDS, SWEEP_SECONDS, swept
from train.search_index import SearchError
from train.timeline import TimelineError

MEGABYTE = 1_000_000
# No font is fetched; the colours leave a contrast of 4.5 or more between text and what it stands on.
FONTS = ["system-ui", "sans-serif"]
FIXED_WIDTH_FONTS = ["ui-monospace", "monospace"]


def main(command_line: list[str] | None = None) -> int:
    """The command; what cannot be used ends in a sentence and exit status 2."""
    options = _parser().parse_args(command_line)
    logging.disable_progress_bar()
    try:
        _check(options)
        if options.make_models:
            make_models()
        models = load_models({name: getattr(options, name) for name in DEFAULT_FOLDERS})
        for sentence in models.missing.values():
            print(sentence)
        with tempfile.TemporaryDirectory(prefix="dualrep_space_") as private:
            serve(models, Path(private), options)
    except (ModelError, SearchError, TimelineError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, folder in DEFAULT_FOLDERS.items():
        parser.add_argument(f"--{name}", help=f"folder of a model, or its id on the Hub; default: {folder}")
    parser.add_argument(
        "--make_models",
        action="store_true",
        help="first make those of the default folders that are not there, by the commands of the README",
    )
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    for name, default, meaning in (
        ("longest_seconds", 600.0, "longer scans are refused"),
        ("largest_megabytes", 500.0, "larger files are refused"),
        ("oldest_seconds", OLDEST_SECONDS, "uploads that nobody has analysed for so long are removed"),
    ):
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{meaning}; default: {default:g}")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.port is not None and not 0 < options.port < 65536:
        raise ModelError(f"--port is {options.port}, but must lie between 1 and 65535.")
    for name in ("longest_seconds", "largest_megabytes", "oldest_seconds"):
        if not 0 < getattr(options, name) < math.inf:
            raise ModelError(f"--{name} is {getattr(options, name):g}, but must be above 0.")
    if find_spec("gradio") is None:
        raise ModelError(
            "The app needs gradio: start it by `uv run --group demo python hub_cards/space/app.py`."
        )


def serve(models: Models, private: Path, options: argparse.Namespace) -> None:
    """Runs the app until it is ended.

    Args:
        models: what is there.
        private: an empty folder, for uploads and all that is kept for a while.
        options: of the command line.
    """
    signal.signal(signal.SIGTERM, _end)
    uploads = private / "uploads"
    uploads.mkdir()
    # Before Gradio is imported, which keeps files where the first says, and some where the second does.
    os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = str(uploads)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from hub_cards.space.page import Answers, build_page

    page = build_page(Answers(models, private, options.longest_seconds))
    with swept(uploads, options.oldest_seconds, min(SWEEP_SECONDS, options.oldest_seconds)):
        url = _launch(page, options)
        print(f"Open {url} in a browser; Ctrl+C ends the app.", flush=True)
        page.block_thread()


def _launch(page: Any, options: argparse.Namespace) -> str:
    """Starts the server in a thread; returns its address."""
    import gradio

    from hub_cards.space.page import STYLE

    # One scan at a time: each takes all cores.
    _, url, _ = page.queue(default_concurrency_limit=1, max_size=20).launch(
        prevent_thread_lock=True,
        quiet=True,
        server_port=options.port,
        share=False,
        max_file_size=round(options.largest_megabytes * MEGABYTE),
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
        theme=_theme(gradio),
        css=STYLE,
    )
    return url


def _theme(gradio: Any) -> Any:
    return gradio.themes.Base(primary_hue="blue", font=FONTS, font_mono=FIXED_WIDTH_FONTS).set(
        button_primary_background_fill="#1d4ed8",
        button_primary_background_fill_hover="#1e40af",
        button_primary_text_color="white",
        color_accent="#1d4ed8",
        block_info_text_color="#4b5563",
        block_label_text_color="#1f2937",
        block_title_text_color="#1f2937",
    )


def _end(*_: Any) -> NoReturn:
    """Ends by an exception, so that the folder of the app is removed."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
