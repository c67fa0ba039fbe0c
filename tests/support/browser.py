"""The page in a real Chromium: where one is, the server that it looks at, and what the tests read of it."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from dotenv import dotenv_values
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from services.server import free_port
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT

#: Width in pixels and colour scheme of each way in which the page is looked at.
VIEWS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}


def chromium() -> str | None:
    """The path of this machine's Chromium; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """This machine's Chromium, without a window."""
    with sync_playwright() as playwright:
        # As root Chromium runs without its sandbox only, and a container has little of /dev/shm.
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=options)
        yield browser
        browser.close()


@contextmanager
def served_page(
    environment: dict[str, str], folder: Path, *options: str, script: Path = PROJECT_ROOT / "dashboard" / "app.py"
) -> Iterator[str]:
    """`streamlit run dashboard/app.py` on a free port of loopback; its address.

    The accounts that may only read come from a secrets.toml alone, as on a machine that has no full .env.
    """
    values = dotenv_values(environment[ENV_FILE_VARIABLE])
    secrets, env_file = folder / "secrets.toml", folder / ".env"
    secrets.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items() if key.startswith("DASHBOARD_")))
    env_file.write_text("".join(f"{key}='{value}'\n" for key, value in values.items() if key[:10] != "DASHBOARD_"))
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("streamlit")), "run", str(script)),
        *("--server.port", str(port), "--secrets.files", str(secrets), *options),
    ]
    log = (folder / "streamlit.log").open("w")
    mine = {name: value for name, value in environment.items() if not name.startswith("DASHBOARD_")}
    server = subprocess.Popen(
        command, cwd=PROJECT_ROOT, env=mine | {ENV_FILE_VARIABLE: str(env_file)}, stdout=log, stderr=log
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(f"{url}/_stcore/health"), f"no Streamlit: {log.name}")
        yield url
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], problem: str, seconds: float = 60) -> None:
    """Ask again and again until something holds. Fails with the problem if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, problem
        time.sleep(0.1)


class Viewer:
    """Somebody who looks at the page. `complaints` holds what the browser's console called an error."""

    def __init__(self, browser: Browser, url: str, view: str = "light", height: int = 900) -> None:
        width, scheme = VIEWS[view]
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
        )
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._complain(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self._complain(str(error)))
        self.page.goto(url)
        self.page.locator('[data-testid="stMetricValue"]').first.wait_for()

    def _complain(self, text: str) -> None:
        self.complaints.append(text)

    def metric(self, label: str) -> Locator:
        """The box of a figure."""
        return self.page.locator('[data-testid="stMetric"]', has=self.page.get_by_text(label, exact=True))

    def figure(self, label: str) -> str:
        """The figure of that label, as it is shown; empty if it is not."""
        values = self.metric(label).locator('[data-testid="stMetricValue"]').all_inner_texts()
        return values[0] if values else ""

    def wait_for_figure(self, label: str, value: str, seconds: float = 60) -> None:
        """Wait until the figure of a label has a value."""
        wait_until(lambda: self.figure(label) == value, f"{label} does not become {value}", seconds)

    def captions(self, *texts: str) -> list[str]:
        """The captions that hold all these texts."""
        captions = self.page.locator('[data-testid="stCaptionContainer"]').all_inner_texts()
        return [caption for caption in captions if all(text in caption for text in texts)]

    @property
    def charts(self) -> Locator:
        """The charts that are drawn, in the page's order; their labels are texts of the document."""
        return self.page.locator('[data-testid="stVegaLiteChart"] svg.marks')

    def wait_for_charts(self, charts: int) -> None:
        """Wait until this many charts are drawn."""
        wait_until(lambda: self.charts.count() >= charts, f"there are not {charts} charts")

    def wait_for_texts(self, chart: Locator, *texts: str) -> None:
        """Wait until a chart shows some texts."""
        shown = chart.locator("text")
        wait_until(lambda: set(texts) <= set(shown.all_text_contents()), f"a chart does not show {texts}")

    def warnings(self) -> list[str]:
        """What the page warns of."""
        return self.page.locator('[data-testid="stAlert"]:has([data-testid="stAlertContentWarning"])').all_inner_texts()

    def show_whole(self) -> None:
        """Make the window as high as the page, so that all of it is drawn."""
        self.page.wait_for_timeout(1_500)
        content = self.page.locator('[data-testid="stMainBlockContainer"]')
        height = int(content.evaluate("element => element.scrollHeight"))
        width = (self.page.viewport_size or {"width": 1280})["width"]
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(2_500)

    def save(self, path: Path, top: int = 0, bottom: int | None = None) -> None:
        """Save a picture of the page, or of the part between two heights."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self.page.viewport_size or {"width": 0, "height": 0}
        height = min(bottom or size["height"], size["height"]) - top
        self.page.screenshot(path=path, clip={"x": 0, "y": top, "width": size["width"], "height": height})
        # Without the alpha channel, and packed as well as can be: a clone carries it for ever.
        Image.open(path).convert("RGB").save(path, optimize=True)


def shown_time(text: str) -> str | None:
    """The time of day that a text tells."""
    found = re.search(r"\d\d:\d\d:\d\d UTC", text)
    return found[0] if found else None
