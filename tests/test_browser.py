"""The page in a real Chromium, against real stores with known data."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Locator

from services.instance import Instance
from tests.support.browser import VIEWS, Viewer, chromium, running_browser, served_page, shown_time, wait_until
from tests.support.healthy_batch import land_ticks
from tests.support.page_data import empty, land, tick
from tests.support.pipeline import Pipeline
from tickledger.settings import PROJECT_ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(chromium() is None, reason="no Chromium on PATH; install the package 'chromium'"),
]

#: Pictures of every run, git-ignored.
ARTIFACTS = PROJECT_ROOT / "artifacts"
#: Volume by sector, today against the average, two of candles, heat map, batches, dead letters, history and its day.
CHARTS = 9


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture
def pipeline(stores: Pipeline) -> Pipeline:
    """The pipeline with a batch of long ago that left a dead letter, one of yesterday, two of today, and prices."""
    empty(stores)
    land_ticks(stores, 1)
    land(stores, 2, now() - timedelta(days=1), {"Coal": 100_000_000, "Machinery": 40})
    land(stores, 3, now(), {"Coal": 86_189_937, "Machinery": 30}, "passed")
    land(stores, 4, now(), {"Coal": 3}, "failed")
    for ticker, prices in (("ALTO.JK", ("600", "606")), ("ARKA.JK", ("1500", "1485"))):
        for minutes, price in zip((3, 1), prices, strict=True):
            tick(stores, ticker, now() - timedelta(minutes=minutes), price)
    return stores


@pytest.fixture(scope="module")
def url(stores: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page's address; it refreshes once a second."""
    environment = stores.environment | {"DASHBOARD_REFRESH_SECONDS": "1"}
    with served_page(environment, tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with running_browser() as browser:
        yield browser


@pytest.fixture
def look(browser: Browser, url: str) -> Iterator[Callable[..., Viewer]]:
    """Looks at the page; what looks is closed after the test, however it ends: an open page goes on asking."""
    viewers: list[Viewer] = []

    def looking(view: str = "light") -> Viewer:
        viewers.append(Viewer(browser, url, view))
        return viewers[-1]

    yield looking
    for viewer in viewers:
        viewer.page.close()


def zoomed_times(candles: Locator) -> list[str]:
    """The labels of a chart's time axis."""
    return [text for text in candles.locator("text").all_text_contents() if ":" in text]


def volume_in_mysql(pipeline: Pipeline) -> str:
    """Today's volume as MySQL has it, written as the page writes it."""
    (volume,) = pipeline.rows("SELECT SUM(total_volume) FROM aggregated_data WHERE date = UTC_DATE()")[0]
    return f"{int(volume):,}"


def test_numbers_are_the_stores_and_a_new_batch_appears_without_a_reload(
    pipeline: Pipeline, look: Callable[..., Viewer]
) -> None:
    viewer = look()
    page = viewer.page
    viewer.wait_for_figure("Volume today (shares)", "86,189,970")
    assert volume_in_mysql(pipeline) == "86,189,970"
    assert viewer.figure("Ticks landed today") == "3"
    assert viewer.figure("Batches checked today") == "100%"
    assert "1 failed" in viewer.metric("Batches checked today").inner_text()
    viewer.wait_for_figure("ALTO.JK · Beverages", "606.00 IDR")
    viewer.wait_for_figure("ARKA.JK · Machinery", "1,485.00 IDR")
    viewer.wait_for_charts(CHARTS)

    bars = viewer.charts.first
    viewer.wait_for_texts(bars, "86,189,940", "30")
    assert viewer.page.locator("svg text", has_text="undefined").count() == 0
    bars.locator("path[aria-roledescription='bar']").first.hover()
    tooltip = page.locator("#vg-tooltip-element")
    wait_until(lambda: "86,189,937" in tooltip.inner_text(), "no tooltip of a bar's checked part")
    assert "Coal" in tooltip.inner_text()

    # What the viewer did is still so after the page has refreshed itself.
    page.get_by_role("radio", name="15 min").click()
    candles = viewer.charts.filter(has_text="Price (IDR)").first
    viewer.wait_for_texts(candles, "Price (IDR)")
    whole = candles.locator("text").all_text_contents()
    candles.hover()
    page.keyboard.down("Shift")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Shift")
    wait_until(lambda: candles.locator("text").all_text_contents() != whole, "no zoom")
    zoomed = zoomed_times(candles)
    page.get_by_label("Number of the batch").fill("1")
    page.keyboard.press("Enter")
    page.get_by_text("Batch 1", exact=True).wait_for()
    page.evaluate("window.mine = document.querySelector('[data-testid=\"stVegaLiteChart\"] svg.marks')")
    page.locator('[data-testid="stMain"]').evaluate("element => element.scrollTo(0, 700)")
    tick(pipeline, "ALTO.JK", now(), "612")
    land(pipeline, 5, now(), {"Coal": 30}, "unchecked")
    viewer.wait_for_figure("Volume today (shares)", "86,190,000")
    assert volume_in_mysql(pipeline) == "86,190,000"
    viewer.wait_for_figure("ALTO.JK · Beverages", "612.00 IDR")
    viewer.wait_for_texts(bars, "86,189,970")
    viewer.wait_for_texts(viewer.charts.filter(has_text="ARKA.JK"), "+2.00%")
    assert zoomed_times(candles) == zoomed, "new data take the zoom away"
    assert viewer.figure("Batches checked today") == "67%"
    assert "+2.00% in 15 min" in viewer.metric("ALTO.JK · Beverages").inner_text()
    assert page.get_by_text("Batch 1", exact=True).is_visible()
    assert page.locator('[data-testid="stMain"]').evaluate("element => element.scrollTop") == 700
    assert page.evaluate("window.mine.isConnected"), "the chart that stood was drawn again: it flickers"

    page.get_by_text("Refresh by itself").click()
    page.wait_for_timeout(1_500)
    land(pipeline, 6, now(), {"Coal": 1})
    page.wait_for_timeout(2_500)
    assert viewer.figure("Volume today (shares)") == "86,190,000", "paused"
    page.get_by_text("Refresh by itself").click()
    viewer.wait_for_figure("Volume today (shares)", "86,190,001")
    assert viewer.complaints == []


def test_what_has_not_changed_is_left_alone(pipeline: Pipeline, look: Callable[..., Viewer]) -> None:
    viewer = look()
    viewer.wait_for_figure("Volume today (shares)", volume_in_mysql(pipeline))
    viewer.wait_for_charts(CHARTS)
    figures, quotes = set[str](), set[str]()
    for _ in range(60):
        figures |= set(viewer.captions("Refreshed at"))
        quotes |= set(viewer.captions("Read at", "since the day's first"))
        viewer.page.wait_for_timeout(100)
    assert len(figures) >= 4
    # All is asked again now and then.
    assert len(quotes) <= 2


@pytest.mark.parametrize("view", VIEWS)
def test_nothing_is_cut_or_wider_than_the_window(pipeline: Pipeline, look: Callable[..., Viewer], view: str) -> None:
    viewer = look(view)
    viewer.wait_for_figure("Volume today (shares)", volume_in_mysql(pipeline))
    viewer.wait_for_charts(CHARTS)
    viewer.show_whole()
    viewer.save(ARTIFACTS / f"dashboard-{view}.png")
    page = viewer.page
    wide = page.evaluate(
        "() => [...document.querySelectorAll('[data-testid=\"stMain\"] *')]"
        ".filter(one => one.getBoundingClientRect().right > innerWidth + 1"
        " && !one.closest('[data-testid=\"stDataFrame\"]')).map(one => one.tagName + one.className)"
    )
    assert wide == []
    cut = page.evaluate(
        "() => [...document.querySelectorAll('[data-testid=\"stMetric\"] *')]"
        ".filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflow === 'hidden')"
        ".map(one => one.innerText)"
    )
    assert cut == []
    # A text's box is somewhat larger than its letters.
    outside = page.evaluate(
        "() => [...document.querySelectorAll('svg.marks')].flatMap(chart => [...chart.querySelectorAll('text')]"
        ".filter(one => getComputedStyle(one).opacity > 0).filter(one => { const box = one.getBoundingClientRect(),"
        " edge = chart.getBoundingClientRect(); return box.right > edge.right + 8 || box.left < edge.left - 8 })"
        ".map(one => one.textContent))"
    )
    assert outside == []
    background = page.evaluate("getComputedStyle(document.querySelector('[data-testid=\"stApp\"]')).backgroundColor")
    red, green, blue = (int(part) for part in re.findall(r"\d+", background)[:3])
    assert (max(red, green, blue) < 64) == (view == "dark"), background
    assert page.locator("code", has_text="{").first.is_visible(), "the raw value of the dead letter"
    assert viewer.complaints == []


def test_a_stopped_mysql_says_so_and_recovers(
    pipeline: Pipeline, services: Instance, look: Callable[..., Viewer]
) -> None:
    viewer = look()
    page = viewer.page
    viewer.wait_for_figure("Volume today (shares)", volume_in_mysql(pipeline))
    viewer.wait_for_figure("ALTO.JK · Beverages", "606.00 IDR")
    viewer.wait_for_charts(CHARTS)
    assert viewer.warnings() == []
    page.evaluate("window.mine = [...document.querySelectorAll('[data-testid=\"stMetricValue\"], svg.marks')]")
    mysql = services.server("mysql")
    mysql.kill()
    try:
        wait_until(lambda: any("MYSQL_PORT" in text for text in viewer.warnings()), "no warning")
        text = next(text for text in viewer.warnings() if "MYSQL_PORT" in text)
        assert "MySQL gives no answer" in text
        assert shown_time(text), "the time of the last good data"
        assert viewer.figure("Volume today (shares)") == "86,189,970", "the last good figures"
        gone = "window.mine.filter(one => !one.isConnected).map(one => one.textContent)"
        assert page.evaluate(gone) == [], "drawn again when the warning came"
        tick(pipeline, "ALTO.JK", now(), "618")
        viewer.wait_for_figure("ALTO.JK · Beverages", "618.00 IDR")
    finally:
        mysql.start()
        mysql.wait_until_ready()
    land(pipeline, 5, now(), {"Coal": 30})
    viewer.wait_for_figure("Volume today (shares)", "86,190,000")
    wait_until(lambda: viewer.warnings() == [], "the warnings stay")
    assert viewer.complaints == []
