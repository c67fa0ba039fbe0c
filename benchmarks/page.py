"""`make bench-page`: what the dashboard's process costs while people look at it, and how soon they all see a batch.

Each viewer is a page of a real Chromium on this machine, which shares the cores with the process that is measured.
Batches are written as the stream writes them, without Kafka and Spark, and are checked a moment later.
"""

import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
import typer
from playwright.sync_api import TimeoutError as NotSeen

from benchmarks.bench import InstanceName, Target, bench, command, say, show
from tests.support.browser import Viewer, chromium, running_browser, served_page
from tests.support.made_up_days import Filler, fill
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.ledger import utc_now

VIEWERS = [0, 1, 5, 20]
#: Between two batches, from a batch's landing to its verdict, and after which a viewer is said not to see it.
BATCH_SECONDS, CHECK_SECONDS, LONGEST_SECONDS = 2.0, 0.3, 60
#: What there is to look at: ticks of the last 24 hours, and days before.
TICKS, EARLIER_DAYS = 40_000, 3
#: Whether a page shows this number of batches of today, and their volume in the chart by sector, or later ones.
SEEN = """([batches, volume]) => {
  const number = text => Number(text.replaceAll(/[^0-9]/g, ''));
  const shown = [...document.querySelectorAll('[data-testid="stMetricDelta"]')]
    .map(one => one.textContent).find(text => /in [0-9,]+ batch/.test(text));
  const bars = [...document.querySelector('svg.marks').querySelectorAll('text')]
    .map(one => one.textContent).filter(text => /^[0-9,]+$/.test(text));
  return number(shown) >= batches && bars.map(number).reduce((sum, one) => sum + one, 0) >= volume;
}"""
Landed = tuple[float, int, int]


@contextmanager
def landing(pipeline: Pipeline) -> Iterator["deque[Landed]"]:
    """Land a batch every two seconds. Yields when each landed, and how many and how much today has then."""
    landed: deque[Landed] = deque()
    stop = threading.Event()

    def land() -> None:
        with closing(Filler.behind(pipeline.settings)) as filler:
            land_until_stopped(filler)

    def land_until_stopped(filler: Filler) -> None:
        due = time.monotonic()
        while not stop.wait(max(due - time.monotonic(), 0)):
            now = utc_now()
            filler.land([now - timedelta(seconds=1)], now, verdict="unchecked")
            at = time.monotonic()
            # The chart rounds each sector's volume.
            batches, volume = pipeline.rows(
                "SELECT (SELECT COUNT(*) FROM landed_batches WHERE last_created_at >= UTC_DATE()),"
                " (SELECT SUM(total_volume) FROM aggregated_data WHERE date = UTC_DATE())"
            )[0]
            landed.append((at, int(batches), int(volume)))
            stop.wait(CHECK_SECONDS)
            pipeline.execute(
                "UPDATE landed_batches SET verdict = 'passed', checked_at = UTC_TIMESTAMP(3)"
                " WHERE verdict = 'unchecked'"
            )
            due += BATCH_SECONDS

    with ThreadPoolExecutor(1) as pool:
        landings = pool.submit(land)
        try:
            yield landed
        finally:
            stop.set()
        landings.result()


class Cores:
    """What the page's process and all browsers use from now on."""

    def __init__(self, page: psutil.Process) -> None:
        self._page = page
        self._before, self.began = self._used(), time.monotonic()

    def used(self) -> list[float]:
        """CPU seconds a second of the page's process and of the browsers."""
        seconds = time.monotonic() - self.began
        return [(now - before) / seconds for now, before in zip(self._used(), self._before, strict=True)]

    def _used(self) -> list[float]:
        browsers = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
        return [sum(sum(one.cpu_times()[:2]) for one in some) for some in ([self._page], browsers)]


def seconds_until_seen(viewers: list[Viewer], landed: Landed) -> float:
    """Seconds from a batch's landing until the last viewer shows it. Raises TickledgerError if one does not."""
    at, *wanted = landed
    try:
        for viewer in viewers:
            viewer.page.wait_for_function(SEEN, arg=wanted, polling=50, timeout=LONGEST_SECONDS * 1000)
    except NotSeen:
        raise TickledgerError(f"a viewer of {len(viewers)} did not see a batch in {LONGEST_SECONDS} s") from None
    return time.monotonic() - at


def measure(pipeline: Pipeline, page: psutil.Process, viewers: list[Viewer], seconds: int) -> dict[str, Any]:
    """One row: at rest for so long, then while batches land for so long."""
    cores = Cores(page)
    time.sleep(seconds)
    rest, _ = cores.used()
    seen: list[float] = []
    with landing(pipeline) as landed:
        cores = Cores(page)
        while time.monotonic() < cores.began + seconds:
            if landed and viewers:
                seen.append(seconds_until_seen(viewers, landed.popleft()))
            else:
                time.sleep(0.02)
        busy, browsers = cores.used()
    times = pd.Series(seen, dtype=float)
    return {
        "viewers": len(viewers),
        "cores, at rest": rest,
        "cores while ticks land": busy,
        "cores of the browsers": browsers,
        "seen by all (s), median": times.median(),
        "longest": times.max(),
    }


def main(
    viewers: Annotated[list[int], typer.Option(min=0, help="How many look; may be given again, ascending.")] = VIEWERS,
    seconds: Annotated[int, typer.Option(min=4, help="How long each is measured, at rest and while ticks land.")] = 30,
    instance: InstanceName = "bench",
    to: Target = None,
) -> None:
    """Measure the dashboard's process with viewers in real Chromiums, at rest and while a batch lands every 2 s.

    Exit code 1: a viewer did not see a batch within a minute.
    """
    if chromium() is None:
        raise ConfigurationError("no Chromium on PATH; install one, such as your distribution's package 'chromium'")
    rows: list[dict[str, Any]] = []
    with bench(instance) as servers, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        pipeline = stack.enter_context(servers.stores())
        say(f"{fill(pipeline.settings, ticks=TICKS, earlier_days=EARLIER_DAYS):,} ticks are in the stores")
        url = stack.enter_context(served_page(pipeline.environment, Path(folder)))
        (page,) = (one for one in psutil.Process().children() if "streamlit" in " ".join(one.cmdline()))
        browser = stack.enter_context(running_browser())
        looking: list[Viewer] = []
        for count in sorted(viewers):
            looking += [Viewer(browser, url) for _ in range(count - len(looking))]
            for viewer in looking:
                viewer.wait_for_charts(2)
            say(f"{count} viewers")
            rows.append(measure(pipeline, page, looking, seconds))
            say("    " + ", ".join(f"{name}: {value:.2f}" for name, value in rows[-1].items()))
    title = f"The page's process, {seconds} s at rest and as long with a batch every {BATCH_SECONDS:g} s"
    show(title, pd.DataFrame(rows), to)


if __name__ == "__main__":
    command("python -m benchmarks.page", main)
