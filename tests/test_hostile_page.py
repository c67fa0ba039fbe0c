"""What strangers wrote is plain text on the page, in what is downloaded from it, and in what else shows a value."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.request import urlopen

import pandas as pd
import pytest
from playwright.sync_api import Download, Page
from prometheus_client.parser import text_string_to_metric_families
from streamlit.testing.v1 import AppTest

from dashboard.drawing import as_cell, as_text
from expectations.data_docs import SITE, _site, harmless
from services.server import free_port
from streaming.metrics import Metrics
from streaming.stream_ticks import _root_cause
from tests.support.browser import chromium, running_browser, wait_until
from tests.support.healthy_batch import dead_offset, land_ticks
from tests.support.hostile import HOSTILE
from tests.support.page_data import empty, land
from tests.support.pipeline import Pipeline
from tickledger.command_line import print_json
from tickledger.plain_text import plain
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, load_settings

EACH = pytest.mark.parametrize("value", HOSTILE.values(), ids=list(HOSTILE))
APP = PROJECT_ROOT / "dashboard" / "app.py"
HARNESS = PROJECT_ROOT / "tests" / "support" / "hostile_page.py"


@EACH
def test_a_value_is_code_or_words_and_one_line(value: str) -> None:
    text = as_text(value)
    assert text.isprintable()
    assert plain(value) in text
    assert re.fullmatch(r"(`+) .* \1", text)
    assert as_text("ALTO.JK · Logistics & Deliveries") == "ALTO.JK · Logistics & Deliveries"


@EACH
def test_no_cell_begins_as_a_formula(value: str) -> None:
    for cell in re.split("[,;|\t]", as_cell(value)):
        assert not cell.lstrip(' "').startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))


@pytest.mark.parametrize("value", ["+2.30%", "-7", "12", "ARKA.JK", "PT A, Tbk", "29 Nov 10:00:00", "2026-11-29"])
def test_a_cell_that_is_no_formula_stays_as_it_is(value: str) -> None:
    assert as_cell(value) == value


@EACH
def test_json_for_programs_does_nothing_to_a_terminal(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json([{"value": value}])
    said = capsys.readouterr().out
    assert said.rstrip("\n").isprintable()
    assert json.loads(said) == [{"value": value}]


@EACH
def test_a_reason_of_javas_is_one_line(value: str) -> None:
    assert "\n" not in plain(_root_cause(f"java.lang.Exception: x\nCaused by: y: {value}"))


@pytest.fixture(scope="module")
def browsed() -> Iterator[tuple[Page, list[str]]]:
    """The page with all hostile values, in Chromium, and the addresses that it asked for."""
    if chromium() is None:
        pytest.skip("no Chromium on PATH; install the package 'chromium'")
    port = free_port()
    streamlit = str(Path(sys.executable).with_name("streamlit"))
    command = [streamlit, "run", str(HARNESS), f"--server.port={port}", "--server.headless=true"]
    options = ["--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
    server = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_up(port), "no Streamlit")
        with running_browser() as browser:
            page, asked = browser.new_page(viewport={"width": 1280, "height": 2000}), []
            # A window in which a person picks a file: without it the browser saves as it is told.
            page.add_init_script("delete window.showSaveFilePicker")
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"http://127.0.0.1:{port}")
            page.get_by_text("all is shown").wait_for(timeout=60_000)
            yield page, asked
    finally:
        server.terminate()
        server.wait(20)


def _is_up(port: int) -> bool:
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


def test_a_browser_makes_nothing_of_a_value(browsed: tuple[Page, list[str]]) -> None:
    page, asked = browsed
    main = page.locator('[data-testid="stMainBlockContainer"]')
    for made in ("a", "img", "li", "em", "h1", "del", ".katex", "pre b", '[data-testid="stIconMaterial"] + a'):
        assert main.locator(made).count() == 0, made
    # Streamlit writes the name of an icon so, in code too, and then shows that.
    shown = main.inner_text().replace(":material_", ":material/")
    for value in HOSTILE.values():
        assert " ".join(plain(value).split()) in " ".join(shown.split()), value
    assert [url for url in asked if not re.match(r"(https?|ws)://127\.0\.0\.1:\d+/|data:|blob:", url)] == []


def test_what_a_viewer_downloads_computes_nothing(browsed: tuple[Page, list[str]], tmp_path: Path) -> None:
    page, _ = browsed
    cells = [as_cell(value) for value in HOSTILE.values()]
    assert [row[-1] for row in _downloaded(page, tmp_path)] == cells
    # The chart's toolbar shows its rows in a table's place, which has a toolbar of its own.
    page.locator('[data-testid="stVegaLiteChart"]').hover()
    page.get_by_role("button", name=re.compile("show data", re.IGNORECASE)).last.click()
    page.get_by_role("button", name=re.compile("show chart", re.IGNORECASE)).last.wait_for()
    assert [row[1] for row in _downloaded(page, tmp_path)] == cells


def _downloaded(page: Page, folder: Path) -> list[list[str]]:
    """The rows of the last table on the page, as its toolbar downloads them."""
    begun: list[Download] = []
    # Playwright notes something on the function, which a method of a list does not take.
    page.once("download", lambda download: begun.append(download))

    def clicked() -> bool:
        # A click that comes while the page is still laid out hits nothing.
        page.locator('[data-testid="stDataFrame"]').last.hover()
        page.get_by_role("button", name=re.compile("csv", re.IGNORECASE)).last.click()
        page.wait_for_timeout(2000)
        return bool(begun)

    wait_until(clicked, "no download")
    begun[0].save_as(folder / "download.csv")
    with (folder / "download.csv").open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.integration
def test_every_part_of_the_page_takes_values_as_text(stores: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    _land_hostile_values(stores)
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(stores.env_file))
    drawn = AppTest.from_file(str(APP), default_timeout=60).run()
    assert not drawn.exception
    shown = [*drawn.markdown, *drawn.caption, *drawn.warning, *drawn.info, *drawn.error]
    texts = [str(one.value) for one in shown] + [str(metric.label) for metric in drawn.metric]
    marks = re.compile(r"https?:|www\.|<img|!\[|\[l\]|\[/foo\]|:smile|@example|owned|=HYPER|@SUM|x\^2|two")
    assert sum(bool(marks.search(text)) for text in texts) >= 4, "the values are not on the page"
    outside = [re.sub(r"(`+) .*? \1", "", text) for text in texts]
    assert [text for text in outside if marks.search(text)] == []
    assert all(code.value.isprintable() for code in drawn.code)
    assert not any(str(cell).lstrip()[:1] in "=+-@" for table in drawn.dataframe for cell in table.value.iloc[:, 0])


def _land_hostile_values(stores: Pipeline) -> None:
    empty(stores)
    land_ticks(stores, 1)
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    land(stores, 2, now, {value[:64]: 1 for value in HOSTILE.values()}, "failed")
    for number, value in enumerate(HOSTILE.values()):
        company = (f"{value[:25]}{number}", value, value[:64])
        stores.execute("INSERT INTO profile (ticker, company_name, sector, shares) VALUES (%s, %s, %s, 1)", company)
        finding = (f"{number}.{value}"[:100], value, value)
        stores.execute(
            "INSERT INTO batch_findings (batch_id, expectation, severity, observed, expected)"
            " VALUES (2, %s, 'critical', %s, %s)",
            finding,
        )
        stores.execute(
            "INSERT INTO skipped_offsets (kafka_partition, from_offset, until_offset, topic_offset, kind, reason,"
            " topic, topic_id, batch_id, skipped_at) VALUES (9, %s, %s, %s, 'given_up', %s, 't', 'id', 1, %s)",
            (number, number + 1, number + 1, value, now),
        )
    everything = " ".join(HOSTILE.values())
    stores.cassandra.execute(
        "UPDATE dead_letters SET raw_value = %s, detail = %s WHERE topic = %s AND kafka_partition = 0 AND"
        " offset_bucket = %s AND kafka_offset = %s AND position = -1",
        (everything.encode(), everything, stores.settings.kafka_topic, dead_offset(1) // 10_000, dead_offset(1)),
    )


@EACH
def test_a_label_of_a_metric_is_one_value(value: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    example = load_settings(PROJECT_ROOT / ".env.example")
    metrics = Metrics(example.model_copy(update={"stream_metrics_address": address}))
    try:
        metrics.checked(value, 0.5)
        with urlopen(f"http://{address}/metrics", timeout=5) as answer:
            families = {one.name: one for one in text_string_to_metric_families(answer.read().decode())}
    finally:
        metrics.close()
    counted = [one for one in families["tickledger_verdicts"].samples if one.name == "tickledger_verdicts_total"]
    assert [(one.labels, one.value) for one in counted] == [({"verdict": value}, 1.0)]


def _tags_of_data_docs(folder: Path, frame: pd.DataFrame) -> list[str]:
    """The elements of Great Expectations' page about the values of a column `sector`, and their attributes."""
    import great_expectations

    context = great_expectations.get_context(mode="ephemeral")
    context.update_data_docs_site(SITE, _site(folder))
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
    rule = great_expectations.expectations.ExpectColumnValuesToBeInSet(column="sector", value_set=["Coal"])
    suite = context.suites.add(great_expectations.ExpectationSuite("suite", expectations=[rule]))
    definition = great_expectations.ValidationDefinition(
        name="frame", data=asset.add_batch_definition_whole_dataframe("whole"), suite=suite
    )
    context.validation_definitions.add(definition).run(batch_parameters={"dataframe": frame})
    context.build_data_docs(site_names=[SITE])
    (page,) = (folder / "validations").rglob("*.html")
    tags = _Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return tags.found


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(" ".join([tag, *(name for name, _ in attrs)]))


def test_data_docs_make_nothing_of_a_value(tmp_path: Path) -> None:
    hostile = pd.DataFrame({"sector": [*HOSTILE.values()]})
    words = pd.DataFrame({"sector": [f"word {number}" for number in range(len(HOSTILE))]})
    wanted = _tags_of_data_docs(tmp_path / "words", words)
    assert _tags_of_data_docs(tmp_path / "harmless", harmless(hostile)) == wanted
    assert "img src onerror" in _tags_of_data_docs(tmp_path / "hostile", hostile), (
        "it escapes values: spare the letters"
    )


def test_texts_of_data_docs_keep_their_lengths() -> None:
    frame = pd.DataFrame({"sector": [*HOSTILE.values(), None], "volume": range(len(HOSTILE) + 1)})
    shown = harmless(frame)
    assert shown.sector.str.len().equals(frame.sector.str.len())
    assert shown.volume.equals(frame.volume)
