"""`make picture`: pictures of the dashboard for the README, light, dark and on a phone; or its first paint, measured.

    python -m tools.picture                           # docs/dashboard-light.png, -ledger.png, -dark.png, -phone.png
    python -m tools.picture --first-paint 1000000     # seconds to the first paint, with a million ticks in the table

Starts the servers of the tests' instance if they do not run, fills a database and a keyspace of its own with
made-up days, and drops them in the end. Neither Spark nor a running demo is needed.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext

from services.instance import Instance
from tests.support.browser import VIEWS, Viewer, chromium, running_browser, served_page
from tests.support.made_up_days import Filler, fill
from tests.support.pipeline import Pipeline, dbt_statements, fresh_pipeline
from tickledger.ledger import utc_now
from tickledger.settings import PROJECT_ROOT

TARGET = PROJECT_ROOT / "docs"
#: Charts of a page whose stores have all that it can show.
CHARTS = 9
#: From where to where on the page each picture goes, in pixels; the page is the same in all.
PARTS = {
    "light": {"dashboard-light.png": (0, 1_960), "dashboard-ledger.png": (1_960, 3_300)},
    "dark": {"dashboard-dark.png": (0, 1_960)},
    "phone": {"dashboard-phone.png": (0, 1_835)},
}
VISITS = 7


def main() -> None:
    """Take the pictures, or measure."""
    parser = ArgumentParser(description="Pictures of the dashboard on made-up days, or its first paint, measured.")
    parser.add_argument("--first-paint", type=int, metavar="TICKS", help="measure, with this many ticks in the table")
    ticks = parser.parse_args().first_paint
    if chromium() is None:
        sys.exit("error: no Chromium on PATH; install one, such as your distribution's package 'chromium'")
    instance = Instance(os.environ.get("TICKLEDGER_TEST_INSTANCE", "test"))
    instance.prepare()
    with instance.started(), tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        template = dbt_statements(instance, instance.settings(), Path(folder) / "dbt")
        pipeline = stack.enter_context(fresh_pipeline(instance, instance.settings(), template, Path(folder)))
        if ticks:
            landed = fill(pipeline.settings, ticks=ticks)
        else:
            landed = fill(pipeline.settings, ticks=40_000, earlier_days=11, live_seconds=3_900)
        print(f"{landed:,} ticks are in the stores", flush=True)
        url = stack.enter_context(served_page(pipeline.environment, Path(folder)))
        browser = stack.enter_context(running_browser())
        if ticks:
            measure(browser, url)
        else:
            take_pictures(browser, url, pipeline)


def measure(browser: Browser, url: str) -> None:
    """Open the page again and again, and print how long it took until a viewer saw something of it.

    Each browser comes twice: with nothing cached, and again. `paint` is what the browser calls its first contentful
    paint; figures and charts are those of the first screen.
    """
    visits: dict[str, list[tuple[float, ...]]] = {"nothing cached": [], "again": []}
    for _ in range(VISITS):
        context = browser.new_context(viewport={"width": VIEWS["light"][0], "height": 900})
        for visit in visits.values():
            visit.append(_visit(context, url))
        context.close()
    first, *visits["nothing cached"] = visits["nothing cached"]
    names = ("paint", "figures", "charts")
    print("just started:   " + ", ".join(f"{name} {one:.2f} s" for name, one in zip(names, first, strict=True)))
    for kind, found in visits.items():
        for name, seconds in zip(names, zip(*found, strict=True), strict=True):
            median = statistics.median(seconds)
            print(f"{kind + ':':15} {name:8} median {median:.2f} s, from {min(seconds):.2f} to {max(seconds):.2f} s")


def _visit(context: BrowserContext, url: str) -> tuple[float, ...]:
    page = context.new_page()
    begun = time.monotonic()
    page.goto(url, wait_until="commit")
    page.locator('[data-testid="stMetricValue"]').first.wait_for()
    figures = time.monotonic() - begun
    page.wait_for_function("document.querySelectorAll('[data-testid=\"stVegaLiteChart\"] svg.marks').length >= 2")
    charts = time.monotonic() - begun
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.wait_for_timeout(1_500)
    page.close()
    return paint / 1000, figures, charts


def take_pictures(browser: Browser, url: str, pipeline: Pipeline) -> None:
    """Save the pictures, while batches go on landing."""
    stop = threading.Event()
    landing = threading.Thread(target=_go_on, args=(pipeline, stop), daemon=True)
    landing.start()
    try:
        for view in VIEWS:
            viewer = Viewer(browser, url, view)
            viewer.wait_for_charts(CHARTS)
            viewer.show_whole()
            for name, (top, bottom) in PARTS[view].items():
                path = TARGET / name
                viewer.save(path, top, bottom)
                print(f"wrote {path} ({path.stat().st_size // 1024} KiB)", flush=True)
            viewer.page.close()
    finally:
        stop.set()
        landing.join()


def _go_on(pipeline: Pipeline, stop: threading.Event) -> None:
    filler = Filler.behind(pipeline.settings)
    while not stop.wait(2):
        filler.land_live(utc_now())
    filler.close()


if __name__ == "__main__":
    main()
