"""The app as people have it: a process of its own and a browser, on a desk and on a phone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from space_helpers import SECONDS, write_models, write_remark, write_scan

pytest.importorskip("gradio", reason="the app needs `uv sync --group demo`")
httpx = pytest.importorskip("httpx", reason="comes with gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser needs `uv sync --group demo`")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here"),
]

ROOT = Path(__file__).resolve().parents[1]
DESK, PHONE = 1100, 390
LARGEST_MEGABYTES, OLDEST_SECONDS = 1.0, 20.0
# Machines on which everything runs at once are slow; nothing waits for longer.
STARTS_IN_SECONDS, PAGE_MILLISECONDS = 400, 120_000
CONTROLS = ("button", "checkbox", "combobox", "link", "radio", "slider", "spinbutton", "tab", "textbox")
TABS = ("Planes", "Saliency", "Search", "Limits")


@dataclass(frozen=True)
class App:
    """The app while it runs; below `temporary` lies all that it keeps, it was started in `started_in`."""

    process: subprocess.Popen
    url: str
    temporary: Path
    started_in: Path

    def kept(self) -> list[str]:
        """Every file that it keeps, from its private folder on; Gradio makes an empty one for each upload."""
        (private,) = self.temporary.glob("dualrep_space_*")
        files = [path for path in private.rglob("*") if path.is_file() and path.stat().st_size]
        return sorted(str(path.relative_to(private)) for path in files)

    def uploads(self) -> list[str]:
        """Those that visitors sent."""
        return [name for name in self.kept() if name.startswith("uploads")]


@contextmanager
def started(folder: Path, *options: str) -> Iterator[App]:
    """The app as a process, ended in any case."""
    (folder / "temporary").mkdir(parents=True)
    (folder / "started_in").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "hub_cards/space/app.py"), "--port", str(port), *options]
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "HF_HUB_OFFLINE": "1"}
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            command, cwd=folder / "started_in", env=environment, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: opened(process, folder / "said.txt"), STARTS_IN_SECONDS)
        yield App(process, f"http://127.0.0.1:{port}", folder / "temporary", folder / "started_in")
    finally:
        process.kill()
        process.wait()


def opened(process: subprocess.Popen, said: Path) -> bool:
    assert process.poll() is None, said.read_text()
    return "Open http" in said.read_text()


def wait_for(holds: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = write_models(tmp_path_factory.mktemp("browser_models"))
    return [word for name, folder in folders.items() for word in (f"--{name}", folder)]


@pytest.fixture(scope="module")
def app(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    limits = ["--largest_megabytes", str(LARGEST_MEGABYTES), "--oldest_seconds", str(OLDEST_SECONDS)]
    with started(tmp_path_factory.mktemp("app") / "run", *models, *limits) as running:
        yield running


@pytest.fixture(scope="module")
def remark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_remark(tmp_path_factory.mktemp("remark") / "remark.wav")


@pytest.fixture(scope="module")
def browser(remark: Path) -> Iterator["playwright.Browser"]:
    """Its microphone hears the remark, again and again."""
    quiet = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    quiet += "disable-component-update disable-sync use-fake-device-for-media-stream "
    quiet += f"use-fake-ui-for-media-stream use-file-for-fake-audio-capture={remark}"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=BROWSER, args=[f"--{word}" for word in quiet.split()], timeout=PAGE_MILLISECONDS
        )
        yield browser
        browser.close()


@contextmanager
def visit(browser: "playwright.Browser", app: App, width: int = DESK) -> Iterator["playwright.Page"]:
    """The page as one more visitor; whatever it asks for elsewhere fails the test."""
    elsewhere: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, permissions=["microphone"]) as context:
        context.set_default_timeout(PAGE_MILLISECONDS)
        page = context.new_page()
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(app.url)
        page.get_by_role("button", name="Analyse this file").wait_for()
        yield page
        assert [url for url in elsewhere if not url.startswith((app.url, "data:", "blob:"))] == []


def choose(page: "playwright.Page", file: Path) -> None:
    """Puts a file into the field for scans, and waits until it has been sent."""
    page.locator("input[type=file]").first.set_input_files(file)
    page.get_by_role("link", name=re.compile("B|download", re.IGNORECASE)).first.wait_for()


def analyse(page: "playwright.Page", file: Path) -> None:
    choose(page, file)
    page.get_by_role("button", name="Analyse this file").click()


def analysed(page: "playwright.Page", folder: Path) -> None:
    analyse(page, write_scan(folder / "scan.mp4"))
    page.get_by_text(f"The scan of about {SECONDS} s was read").wait_for()
    page.get_by_alt_text("The probability of 3 planes").wait_for()


def show(page: "playwright.Page", tab: str) -> None:
    page.get_by_role("tab", name=tab).click()


def fits(page: "playwright.Page") -> bool:
    """Whether nothing makes the page wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_a_scan_in_and_planes_saliency_and_moments_out(
    width: int, browser: "playwright.Browser", app: App, tmp_path: Path
) -> None:
    with visit(browser, app, width) as page:
        assert fits(page)
        analysed(page, tmp_path)
        assert page.get_by_role("table").inner_text().startswith("plane") and fits(page)
        show(page, "Saliency")
        heat = page.get_by_alt_text("Heat over the same frame")
        heat.wait_for()
        first = heat.get_attribute("src")
        assert heat.bounding_box()["width"] > 200 and fits(page)
        page.get_by_role("combobox", name="Frame").click()
        page.get_by_role("option", name=re.compile("^lips, best")).click()
        wait_for(lambda: heat.get_attribute("src") != first)
        show(page, "Search")
        page.get_by_role("textbox", name="synthetic voice").fill("this is the femur")
        page.get_by_role("button", name="Search for this text").click()
        page.get_by_text(re.compile("1. .*similarity")).wait_for()
        assert page.get_by_alt_text("The scan in the middle of").count() == 5 and fits(page)
        show(page, "Limits")
        page.get_by_text("Not a medical device.").wait_for()
        assert fits(page)


# The page can play it before the app has it; what is searched for before then is nothing.
SOUND_THAT_ARRIVED = re.compile("/file=.*/uploads/")


def test_a_remark_as_a_file_and_by_the_microphone(
    browser: "playwright.Browser", app: App, tmp_path: Path, remark: Path
) -> None:
    with visit(browser, app) as page:
        analysed(page, tmp_path)
        show(page, "Search")
        page.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(2500)
        with page.expect_response(SOUND_THAT_ARRIVED):
            page.get_by_role("button", name="Stop").first.click()
        page.get_by_role("button", name=re.compile("^Play")).first.wait_for()
        page.get_by_role("button", name="Search for what was said").click()
        page.get_by_text(re.compile("1. .*similarity")).wait_for()
        page.get_by_role("button", name="Upload file").click()
        with page.expect_response(SOUND_THAT_ARRIVED):
            page.locator("input[type=file]").last.set_input_files(remark)
        page.get_by_role("button", name=re.compile("^Play")).first.wait_for()
        show_nothing = "document.querySelectorAll('figure').forEach(each => each.remove())"
        page.evaluate(show_nothing)
        page.get_by_role("button", name="Search for what was said").click()
        page.get_by_text(re.compile("1. .*similarity")).wait_for()
    assert app.uploads() == []


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_tab_reaches_every_control_and_each_has_a_name(
    width: int, browser: "playwright.Browser", app: App, tmp_path: Path
) -> None:
    with visit(browser, app, width) as page:
        analysed(page, tmp_path)
        for tab in TABS:
            show(page, tab)
            page.wait_for_timeout(1000)
            named = page.locator("body").aria_snapshot()
            nameless = rf"- ({'|'.join(CONTROLS)})( \[.*\])?:?$"
            assert [line for line in named.splitlines() if re.search(nameless, line)] == [], tab
            assert out_of_reach(page) == [], tab


def out_of_reach(page: "playwright.Page") -> list[str]:
    """Controls that Tab does not come to, from the top of the page to its end."""
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    for _ in range(60):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement.dataset.reached = 'yes'")
    missed = []
    for role in CONTROLS:
        for control in page.get_by_role(role).all():
            if control.is_visible() and control.is_enabled() and not control.get_attribute("data-reached"):
                missed.append(f"{role} {control.get_attribute('aria-label') or control.inner_text()}")
    return missed


def test_what_is_said_stands_in_a_region_that_was_there_before(
    browser: "playwright.Browser", app: App, tmp_path: Path
) -> None:
    with visit(browser, app) as page:
        region = page.get_by_role("status").filter(has_text="Choose a scan first").first
        region.evaluate("region => region.dataset.before = 'yes'")
        assert region.get_attribute("aria-live") == "polite"
        (tmp_path / "scan.mp4").write_text("no video at all\n" * 50)
        analyse(page, tmp_path / "scan.mp4")
        page.get_by_text("scan.mp4 is a text file").wait_for()
        said = page.locator("[data-before]")
        assert said.get_attribute("role") == "status" and "is a text file" in said.inner_text()


def test_a_wrong_file_is_a_sentence(browser: "playwright.Browser", app: App, tmp_path: Path) -> None:
    with visit(browser, app) as page:
        for name, content, says in (
            ("zeros.mp4", bytes(50_000), "no video that FFmpeg reads"),
            ("${1+1}<b>{{x}}.mp4", b"#EXTM3U\n" * 20, "is a text file"),
        ):
            (tmp_path / name).write_bytes(content)
            analyse(page, tmp_path / name)
            page.get_by_text(says).wait_for()
            assert "Traceback" not in page.content() and not page.get_by_text("Error", exact=True).count()
    assert app.uploads() == []


def test_a_file_that_is_too_large_is_refused(browser: "playwright.Browser", app: App, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(round(LARGEST_MEGABYTES * 1_500_000)))
    with visit(browser, app) as page:
        page.locator("input[type=file]").first.set_input_files(large)
        page.get_by_text("exceed the maximum allowed size").first.wait_for()
        page.get_by_role("button", name="Analyse this file").click()
        page.get_by_text("Choose a file first.").wait_for()
    # A visitor without a browser is refused by the server itself.
    answer = post(app, "upload", large)
    assert answer.status_code == 413 and app.uploads() == []


def post(app: App, route: str, file: Path) -> "httpx.Response":
    with file.open("rb") as content:
        return httpx.post(f"{app.url}/gradio_api/{route}", files={"files": content}, timeout=60)


def test_an_upload_that_is_cut_off_is_removed(app: App) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="scan.mp4"\r\n\r\n'
    host, port = app.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as visitor:
        visitor.sendall(
            b"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + head + bytes(200_000)
        )
        wait_for(app.uploads)
    wait_for(lambda: not app.uploads(), 4 * OLDEST_SECONDS)


def test_nothing_is_left(models: list[str], browser: "playwright.Browser", tmp_path: Path) -> None:
    """Neither where the app was started, nor, once it is told to end, among the temporary files."""
    with started(tmp_path / "run", *models) as app:
        with visit(browser, app) as page:
            analysed(page, tmp_path)
            choose(page, write_scan(tmp_path / "second.mp4"))
            assert len(app.kept()) == 2, "embeddings of the first, and the second, which nobody analysed"
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(60) == 0
        assert list(app.temporary.iterdir()) == list(app.started_in.iterdir()) == []
