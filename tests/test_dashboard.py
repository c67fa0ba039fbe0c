"""The page and what it asks, on real stores with known data; the page runs in Streamlit's own test runner."""

import shutil
import socket
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dotenv import dotenv_values
from streamlit.testing.v1 import AppTest

from dashboard import draw_today, drawing, queries
from dashboard.charts import Chart
from dashboard.drawing import DRAWINGS_BEFORE_ALL_ARE_DROPPED, draw, drawn_once
from dashboard.readers import CassandraReader, MySQLReader
from dashboard.readings import Reading, Readings
from dashboard.sources import LagWatch, sources_of
from services.certificates import make_certificates
from streaming.tick_sink import TickSink
from tests.support.exchanges import JAKARTA, NEW_YORK, NEW_YORK_FACTS, SEEDED, put_exchange
from tests.support.gate import Gate
from tests.support.healthy_batch import dead_offset, first_offset, land_ticks
from tests.support.page_data import empty, land, revision, tick
from tests.support.pipeline import Pipeline
from tickledger import contract
from tickledger.decode import DeadLetter
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.exchange import exchange_of
from tickledger.settings import PROJECT_ROOT, load_settings
from tickledger.stores import connect_mysql
from tickledger.tick import MOST_RAW_BYTES, WHOLE_MESSAGE

APP = PROJECT_ROOT / "dashboard" / "app.py"


@pytest.fixture
def now() -> datetime:
    """The test's own moment, in UTC: a run of the tests may pass midnight."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture
def pipeline(stores: Pipeline) -> Pipeline:
    """The pipeline, emptied of what the test before has landed."""
    empty(stores)
    return stores


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No browser looks on that would need a moment, nor anybody for whom a slow day is put off to the next answer."""
    monkeypatch.setattr(drawing, "PAINT_SECONDS", 0)
    monkeypatch.setattr(queries, "BUDGET_SECONDS", 60.0)


@pytest.fixture
def mysql(pipeline: Pipeline) -> Iterator[MySQLReader]:
    with closing(MySQLReader(pipeline.settings)) as reader:
        yield reader


@pytest.fixture
def cassandra(pipeline: Pipeline) -> Iterator[CassandraReader]:
    with closing(CassandraReader(pipeline.settings)) as reader:
        yield reader


# What is asked of MySQL


@pytest.mark.integration
def test_volume_is_todays_by_sector_and_verdict(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    land(pipeline, 1, now - timedelta(days=1), {"Coal": 1_000_000})
    land(pipeline, 2, now, {"Coal": 5, "Machinery": 30}, "failed")
    land(pipeline, 3, now, {"Coal": 7}, "passed")
    land(pipeline, 4, now, {"Coal": 8}, "passed")
    found = queries.volume_by_verdict(mysql)
    assert list(found.itertuples(index=False, name=None)) == [
        ("Coal", "failed", 5.0),
        ("Coal", "passed", 15.0),
        ("Machinery", "failed", 30.0),
    ]
    assert found.total_volume.dtype == "float64"


@pytest.mark.integration
def test_todays_figures_leave_out_other_days(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    land(pipeline, 1, now - timedelta(days=1), {"Coal": 1_000_000}, "failed")
    land(pipeline, 2, now, {"Coal": 5, "Machinery": 30}, "passed")
    land(pipeline, 3, now, {"Coal": 7}, "warned")
    land(pipeline, 4, now, {"Coal": 8}, "failed")
    land(pipeline, 5, now, {"Coal": 9}, "unchecked")
    figures = queries.today(mysql, JAKARTA).iloc[0].to_dict()
    assert figures.pop("landed_at") == figures.pop("made_at") == pd.Timestamp(now, tz="UTC")
    assert figures.pop("ticks_a_second") >= 0
    assert figures == {"volume": 59, "ticks": 5, "batches": 4, "checked": 3, "warned": 1, "failed": 1}


@pytest.mark.integration
def test_the_pace_is_what_landed_in_the_last_seconds(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    land(pipeline, 1, now - timedelta(seconds=queries.PACE_SECONDS + 5), dict.fromkeys("abcdefg", 1))
    land(pipeline, 2, now, dict.fromkeys("abc", 1))
    land(pipeline, 3, now, dict.fromkeys("def", 1))
    assert queries.today(mysql, JAKARTA).ticks_a_second.tolist() == [6 / queries.PACE_SECONDS]


@pytest.mark.integration
def test_an_empty_ledger_is_no_error(mysql: MySQLReader, now: datetime) -> None:
    figures = queries.today(mysql, JAKARTA).iloc[0]
    assert (figures.volume, figures.ticks, figures.batches, figures.ticks_a_second) == (0, 0, 0, 0)
    assert pd.isna(figures.landed_at)
    assert pd.isna(figures.made_at)
    questions = (queries.volume_by_verdict, queries.average_day, queries.newest_batches, queries.landed_ends)
    assert all(question(mysql).empty for question in questions)
    assert queries.newest_batch_with_findings(mysql).empty
    assert queries.ranges_with_dead_letters(mysql).empty
    assert queries.volume_by_day(mysql, now.date(), now.date()).empty


@pytest.mark.integration
def test_an_average_day_is_of_the_earlier_ones(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    land(pipeline, 1, now - timedelta(days=3), {"Coal": 100, "Machinery": 10})
    land(pipeline, 2, now - timedelta(days=1), {"Coal": 50})
    land(pipeline, 3, now, {"Coal": 30})
    found = queries.average_day(mysql).set_index("sector")
    assert found.average_volume.to_dict() == {"Coal": 75.0, "Machinery": 5.0}
    assert found.total_volume.to_dict() == {"Coal": 30.0, "Machinery": 0.0}
    assert set(found.days) == {2}


@pytest.mark.integration
def test_newest_batches_come_first_and_are_bounded(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    for batch_id in range(1, 6):
        land(pipeline, batch_id, now, {"Coal": batch_id}, "failed" if batch_id == 4 else "passed")
    found = queries.newest_batches(mysql, 3)
    assert list(found.batch_id) == [5, 4, 3]
    assert list(found.verdict) == ["passed", "failed", "passed"]
    assert found.iloc[0][["messages", "ticks_landed", "dead_letters", "duplicates"]].tolist() == [1, 1, 3, 1]
    assert found.landing_seconds.tolist() == [0.75] * 3


@pytest.mark.integration
def test_a_batch_is_told_with_its_offsets_and_findings(pipeline: Pipeline, mysql: MySQLReader) -> None:
    land_ticks(pipeline)
    pipeline.execute(
        "INSERT INTO batch_findings (batch_id, expectation, severity, observed, expected) VALUES"
        " (1, 'books.volume', 'warning', '7', '8'), (1, 'books.ticks', 'critical', '9', '10')"
    )
    batch = queries.batch(mysql, 1).iloc[0]
    assert (batch.ticks_read, batch.ticks_landed, batch.dead_letters, batch.duplicates) == (17, 15, 1, 1)
    assert batch.findings == 2
    offsets = queries.batch_offsets(mysql, 1)
    assert offsets[["kafka_partition", "from_offset", "until_offset"]].values.tolist() == [
        [partition, first_offset(1), first_offset(2)] for partition in (0, 1)
    ]
    findings = queries.batch_findings(mysql, 1)
    assert findings.expectation.tolist() == ["books.ticks", "books.volume"]
    assert findings[["observed", "expected"]].values.tolist() == [["9", "10"], ["7", "8"]]
    assert queries.newest_batch_with_findings(mysql).batch_id.tolist() == [1]
    assert queries.batch(mysql, 2).empty
    assert queries.landed_ends(mysql).topic_offset.tolist() == [first_offset(2)] * 2


@pytest.mark.integration
def test_a_day_of_the_history_is_that_day_alone(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    for batch_id, days in enumerate((40, 2, 1, 1), start=1):
        land(pipeline, batch_id, now - timedelta(days=days), {"Coal": batch_id, "Machinery": 10})
    found = queries.volume_by_day(mysql, (now - timedelta(days=30)).date(), now.date())
    dates = [pd.Timestamp((now - timedelta(days=n)).date()) for n in (2, 1)]
    assert list(found.itertuples(index=False, name=None)) == [
        *((dates[0], "Coal", 2.0, 1), (dates[0], "Machinery", 10.0, 1)),
        *((dates[1], "Coal", 7.0, 2), (dates[1], "Machinery", 20.0, 2)),
    ]


@pytest.mark.integration
def test_a_missing_table_names_the_setting_and_the_command(pipeline: Pipeline) -> None:
    bare = f"{pipeline.settings.mysql_database}_bare"
    pipeline.execute(f"CREATE DATABASE {bare}")
    try:
        settings = pipeline.settings.model_copy(update={"mysql_database": bare})
        with (
            closing(MySQLReader(settings)) as reader,
            pytest.raises(ConfigurationError, match=r"MYSQL_DATABASE is .* 'dbt run'"),
        ):
            queries.volume_by_verdict(reader)
    finally:
        pipeline.execute(f"DROP DATABASE {bare}")


@pytest.mark.integration
def test_a_connection_that_the_server_closed_is_made_anew(pipeline: Pipeline, mysql: MySQLReader) -> None:
    (connection_id,) = mysql.rows("SELECT CONNECTION_ID()")[0]
    with closing(connect_mysql(pipeline.settings, pipeline.settings.mysql_root)) as admin:
        admin.cursor().execute(f"KILL {connection_id}")
    assert mysql.rows("SELECT CONNECTION_ID()")[0] != (connection_id,)


@pytest.mark.integration
def test_the_page_logs_in_with_accounts_that_may_only_read(mysql: MySQLReader, cassandra: CassandraReader) -> None:
    (account,) = mysql.rows("SELECT CURRENT_USER()")[0]
    assert account.startswith("tickledger_reader@")
    with pytest.raises(ConfigurationError, match="denied"):
        mysql.rows("DELETE FROM profile")
    with pytest.raises(ConfigurationError, match="has no MODIFY permission"):
        cassandra.rows("DELETE FROM dead_letters WHERE topic = 't' AND kafka_partition = 0 AND offset_bucket = 0", [()])


# What is asked of Cassandra

NINE = datetime(2026, 11, 23, 9)
MINUTES = queries.Window(timedelta(minutes=10), "1m")


@pytest.mark.integration
def test_candles_are_those_of_the_ticks(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    for number, (second, price) in enumerate(((0, 10), (20, 12), (40, 9), (59.999, 11), (60, 20), (240, 30), (300, 1))):
        tick(pipeline, "TMAS.JK", NINE + timedelta(seconds=second), str(price), number)
    tick(pipeline, "TMAS.JK", NINE - timedelta(minutes=5, milliseconds=1), "1", 99)
    tick(pipeline, "DWGL.JK", NINE + timedelta(seconds=3), "540.5")
    found = queries.candles(cassandra, JAKARTA, ["DWGL.JK", "TMAS.JK"], MINUTES, NINE + timedelta(minutes=5)).rows
    columns = ["ticker", "open", "high", "low", "close", "volume", "ticks"]
    assert found[columns].values.tolist() == [
        ["DWGL.JK", 540.5, 540.5, 540.5, 540.5, 100, 1],
        ["TMAS.JK", 10, 12, 9, 11, 400, 4],
        ["TMAS.JK", 20, 20, 20, 20, 100, 1],
        ["TMAS.JK", 30, 30, 30, 30, 100, 1],
    ]
    starts = found[found.ticker == "TMAS.JK"].start
    assert starts.tolist() == [pd.Timestamp(NINE + timedelta(minutes=minute), tz="UTC") for minute in (0, 1, 4)]


@pytest.mark.integration
def test_a_window_reaches_over_midnight(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    midnight = datetime(2026, 11, 23)
    tick(pipeline, "TMAS.JK", midnight - timedelta(seconds=30), "550")
    tick(pipeline, "TMAS.JK", midnight + timedelta(seconds=30), "560")
    found = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, midnight + timedelta(minutes=1))
    assert found.rows.close.tolist() == [550.0, 560.0]


@pytest.mark.integration
def test_a_candle_in_which_a_trading_day_ends_is_whole(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    """Midnight in India is 18:30 UTC, half an hour into a candle of an hour."""
    india = exchange_of(SEEDED | {"time_zone": "Asia/Kolkata", "trading_day_begins": "00:00"})
    window, until = queries.WINDOWS["5 days"], datetime(2026, 11, 22, 18, 45)
    for minute, price, day in ((10, "10", 22), (20, "8", 22), (31, "12", 23), (40, "11", 23)):
        at = datetime(2026, 11, 22, 18, minute)
        tick(pipeline, "TMAS.JK", at, price, day=datetime(2026, 11, day).date())
    first = queries.candles(cassandra, india, ["TMAS.JK"], window, until)
    assert first.rows[["open", "high", "low", "close", "volume", "ticks"]].values.tolist() == [[10, 12, 8, 11, 400, 4]]
    tick(pipeline, "TMAS.JK", until, "13", day=datetime(2026, 11, 23).date())
    again = queries.candles(cassandra, india, ["TMAS.JK"], window, until + timedelta(minutes=1), first)
    assert again.rows[["open", "high", "low", "close", "volume", "ticks"]].values.tolist() == [[10, 13, 8, 13, 500, 5]]


@pytest.mark.integration
def test_only_the_newest_candles_are_read_again(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    until = NINE + timedelta(minutes=5, seconds=1)
    tick(pipeline, "TMAS.JK", NINE, "10", 1)
    tick(pipeline, "TMAS.JK", until - timedelta(seconds=1), "11", 2)
    first = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, until)
    tick(pipeline, "TMAS.JK", NINE + timedelta(seconds=1), "900", 3)
    tick(pipeline, "TMAS.JK", until, "12", 4)
    soon = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, until + timedelta(seconds=2), first)
    assert soon.rows.close.tolist() == [10.0, 12.0], "the old candle as it was, the new one read again"
    later = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, until + timedelta(seconds=70), soon)
    assert later.rows.close.tolist() == [900.0, 12.0], "all of it, a candle's length later"
    last = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, until + timedelta(minutes=9), later)
    assert last.rows.close.tolist() == [12.0]


@pytest.mark.integration
def test_days_that_take_too_long_follow_with_the_next_answer(
    pipeline: Pipeline, cassandra: CassandraReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = queries.WINDOWS["5 days"]
    for days in range(4):
        tick(pipeline, "TMAS.JK", NINE - timedelta(days=days, hours=1), str(550 + days))
    monkeypatch.setattr(queries, "BUDGET_SECONDS", -1.0)
    found, closes = None, []
    while found is None or found.to_come:
        found = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], window, NINE, found)
        closes.append(found.rows.close.tolist())
        assert len(closes) < 10
    assert closes[0] == [550.0], "the newest day first"
    assert closes[-1] == [553.0, 552.0, 551.0, 550.0]


@pytest.mark.integration
def test_every_window_is_understood_by_cassandra(pipeline: Pipeline, cassandra: CassandraReader, now: datetime) -> None:
    tick(pipeline, "TMAS.JK", now - timedelta(minutes=1), "550")
    for window in queries.WINDOWS.values():
        assert queries.candles(cassandra, JAKARTA, ["TMAS.JK"], window, now).rows.close.tolist() == [550.0], window


@pytest.mark.parametrize("name", queries.WINDOWS)
def test_no_window_has_more_candles_than_a_chart_can_show(name: str) -> None:
    window = queries.WINDOWS[name]
    assert window.length <= 120 * window.candle_length
    assert timedelta(days=1) % window.candle_length == timedelta(0), "no candle lies across midnight"


@pytest.mark.integration
def test_quotes_tell_the_change_since_the_days_first_price(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    tick(pipeline, "TMAS.JK", NINE - timedelta(days=1), "1")
    for minute, price in enumerate(("500", "900", "550")):
        tick(pipeline, "TMAS.JK", NINE + timedelta(minutes=minute), price)
    tick(pipeline, "DWGL.JK", NINE, "0")
    found = queries.quotes(cassandra, ["ALTO.JK", "DWGL.JK", "TMAS.JK"], NINE.date()).set_index("ticker")
    assert list(found.index) == ["DWGL.JK", "TMAS.JK"]
    assert found[["first_price", "price", "market_cap"]].values.tolist() == [[0, 0, 1], [500, 550, 1]]
    assert found.change["TMAS.JK"] == pytest.approx(0.1)
    assert pd.isna(found.change["DWGL.JK"])


@pytest.mark.integration
def test_candles_are_those_of_the_ticks_as_they_hold(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    seconds = {0: 10, 10: 15, 20: 12, 30: 11, 60: 20, 70: 21, 120: 30, 180: 40, 190: 41, 200: 39}
    for second, price in seconds.items():
        tick(pipeline, "TMAS.JK", NINE + timedelta(seconds=second), str(price), second)

    def revise(second: int, price: str | None, minute: int = 1, **more: Any) -> None:
        at = NINE + timedelta(seconds=second)
        revision(pipeline, "TMAS.JK", at, price, second, revised_at=at + timedelta(minutes=minute), **more)

    # An extreme that was none; a first tick that was none; a whole candle; and one that is not read again.
    revise(10, None)
    revise(20, "13", volume=70)
    revise(60, None)
    revise(120, None)
    revise(200, "38")
    revise(200, "42", minute=2, volume=1)
    revise(200, None, minute=0)
    # Of a tick that has not come.
    revise(500, None)
    found = queries.candles(cassandra, JAKARTA, ["DWGL.JK", "TMAS.JK"], MINUTES, NINE + timedelta(minutes=5)).rows
    columns = ["ticker", "open", "high", "low", "close", "volume", "ticks"]
    assert found[columns].values.tolist() == [
        ["TMAS.JK", 10, 13, 10, 11, 270, 3],
        ["TMAS.JK", 21, 21, 21, 21, 100, 1],
        ["TMAS.JK", 40, 42, 40, 42, 201, 3],
    ]
    for second, price in ((300, 5), (310, 9), (320, 7), (330, 6)):
        tick(pipeline, "TMAS.JK", NINE + timedelta(seconds=second), str(price), second)
    revise(320, "10", volume=3)
    found = queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, NINE + timedelta(minutes=6)).rows
    assert found[columns].values.tolist()[-1] == ["TMAS.JK", 5, 10, 5, 6, 303, 4]


@pytest.mark.integration
def test_quotes_are_of_the_ticks_as_they_hold(pipeline: Pipeline, cassandra: CassandraReader) -> None:
    for minute, price in enumerate(("500", "501", "900", "550", "560")):
        for ticker in ("DWGL.JK", "TMAS.JK"):
            tick(pipeline, ticker, NINE + timedelta(minutes=minute), price, minute)
    tick(pipeline, "ALTO.JK", NINE, "7", 9)
    for minute, corrected in ((0, None), (1, "502"), (3, "555"), (4, None)):
        revision(pipeline, "TMAS.JK", NINE + timedelta(minutes=minute), corrected, minute)
    revision(pipeline, "ALTO.JK", NINE, None, 9)
    found = queries.quotes(cassandra, ["ALTO.JK", "DWGL.JK", "TMAS.JK"], NINE.date()).set_index("ticker")
    assert found[["first_price", "price"]].to_dict("index") == {
        "DWGL.JK": {"first_price": 500, "price": 560},
        "TMAS.JK": {"first_price": 502, "price": 555},
    }
    assert found.created_at["TMAS.JK"] == pd.Timestamp(NINE + timedelta(minutes=3), tz="UTC")


@pytest.mark.integration
def test_a_company_without_a_correction_costs_one_question(
    pipeline: Pipeline, cassandra: CassandraReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick(pipeline, "TMAS.JK", NINE, "500")
    asked: list[int] = []
    rows = CassandraReader.rows

    def counting(reader: CassandraReader, statement: str, parameters: Sequence[tuple[Any, ...]]) -> list[Any]:
        asked.append(len(parameters))
        return rows(reader, statement, parameters)

    monkeypatch.setattr(CassandraReader, "rows", counting)
    queries.quotes(cassandra, ["TMAS.JK", "DWGL.JK"], NINE.date())
    assert asked == [1, 2, 2]
    asked.clear()
    queries.candles(cassandra, JAKARTA, ["TMAS.JK"], MINUTES, NINE + timedelta(minutes=5))
    assert asked == [1, 1, 1]


@pytest.mark.integration
def test_no_part_of_a_bar_is_below_zero(pipeline: Pipeline, mysql: MySQLReader, now: datetime) -> None:
    land(pipeline, 1, now, {"Coal": 100, "Energy": 10, "Machinery": 30}, "passed")
    land(pipeline, 2, now, {"Coal": 20, "Energy": 8}, "failed")
    land(pipeline, 3, now, {"Coal": 0, "Energy": 0}, "warned")
    pipeline.execute("UPDATE aggregated_data SET total_volume = -70 WHERE batch_id = 3 AND sector = 'Coal'")
    # More than the largest part.
    pipeline.execute("UPDATE aggregated_data SET total_volume = -15 WHERE batch_id = 3 AND sector = 'Energy'")
    found = queries.volume_by_verdict(mysql)
    assert list(found.itertuples(index=False, name=None)) == [
        ("Coal", "failed", 20.0),
        ("Coal", "passed", 30.0),
        ("Energy", "failed", 3.0),
        ("Machinery", "passed", 30.0),
    ]


@pytest.mark.integration
def test_dead_letters_are_those_of_the_newest_batches_with_their_raw_values(
    pipeline: Pipeline, mysql: MySQLReader, cassandra: CassandraReader
) -> None:
    land_ticks(pipeline, 1)
    land_ticks(pipeline, 2)
    ranges = queries.ranges_with_dead_letters(mysql)
    assert len(ranges) == 4
    topic = pipeline.settings.kafka_topic
    found = queries.dead_letters(cassandra, topic, ranges)
    assert sorted(found.kafka_offset) == [dead_offset(1), dead_offset(2)]
    assert set(found.reason) == {"not_json"}
    raw = queries.raw_values(cassandra, topic, found)
    assert raw.raw_value.tolist() == ["{", "{"]
    newest = queries.dead_letters(cassandra, topic, queries.ranges_with_dead_letters(mysql, 1))
    assert newest.kafka_offset.tolist() == [dead_offset(2)]


@pytest.mark.integration
def test_raw_values_are_read_one_after_the_other(
    pipeline: Pipeline, cassandra: CassandraReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have 15 MiB; four at once are more than a connection carries in time."""
    topic, sink, count = pipeline.settings.kafka_topic, TickSink(pipeline.cassandra), 4
    for offset in range(count):
        sink.write_dead(topic, 0, offset, DeadLetter(WHOLE_MESSAGE, b"x" * MOST_RAW_BYTES, "noise", "noise"))
    sink.drain()
    letters = pd.DataFrame({"kafka_partition": 0, "kafka_offset": range(count), "position": WHOLE_MESSAGE})
    read, together = cassandra.rows, list[int]()

    def reading(asked: str, parameters: Sequence[tuple[Any, ...]]) -> list[Any]:
        together.append(len(parameters))
        return read(asked, parameters)

    monkeypatch.setattr(cassandra, "rows", reading)

    raw = queries.raw_values(cassandra, topic, letters)

    assert raw.raw_value.tolist() == ["x" * 300 + "…"] * count
    assert together == [1] * count


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        (b"<b>*x*</b>", "<b>*x*</b>"),
        (b"\xff\x00a\n", r"\xff\x00a\n"),
        ("é".encode(), "é"),
        (b"x" * 301, "x" * 300 + "…"),
        (None, ""),
    ],
)
def test_a_raw_value_is_one_line_of_text(raw: bytes | None, shown: str) -> None:
    assert queries.printable(raw) == shown


# What is kept while a store is down


class Store:
    """A store that answers with a counter, or not at all."""

    def __init__(self) -> None:
        self.asked = 0
        self.up = True

    def read(self) -> pd.DataFrame:
        self.asked += 1
        if not self.up:
            raise StoreUnavailable("down")
        return pd.DataFrame({"asked": [self.asked]})


def test_a_fresh_answer_is_shared() -> None:
    store, readings = Store(), Readings(fresh_seconds=60)
    answers = [readings.get("MySQL", "question", store.read) for _ in range(3)]
    assert store.asked == 1
    assert all(answer.frame is answers[0].frame for answer in answers)


def test_an_answer_that_costs_much_stays_fresh_for_longer() -> None:
    store, readings = Store(), Readings(fresh_seconds=0, retry_seconds=0)
    answers = [readings.get("MySQL", "question", store.read, fresh_seconds=60) for _ in range(3)]
    assert store.asked == 1
    assert readings.kept("question") is answers[0].frame
    assert readings.get("MySQL", "question", store.read).frame is not answers[0].frame


def test_answers_are_asked_again_once_something_has_changed_and_not_before() -> None:
    store, readings = Store(), Readings(fresh_seconds=60)
    first = readings.changed("batch 1", 0.0)
    readings.get("MySQL", "question", store.read)
    assert readings.changed("batch 1", 0.0) == first
    readings.get("MySQL", "question", store.read)
    assert store.asked == 1
    assert readings.changed("batch 2", 0.0) > first
    readings.get("MySQL", "question", store.read)
    assert store.asked == 2
    readings.changed("batch 3", 0.0)
    readings.get("MySQL", "question", store.read, fresh_seconds=60)
    assert store.asked == 2


@pytest.mark.parametrize("seconds", [0.2, 60])
def test_what_changes_without_a_sign_is_asked_again_after_a_while(seconds: float) -> None:
    readings = Readings(fresh_seconds=seconds)
    first = readings.changed("batch 1", 0.0)
    time.sleep(0.3)
    assert (readings.changed("batch 1", 0.0) > first) == (seconds < 0.3)


def test_a_question_without_an_answer_is_asked_again_soon() -> None:
    store, readings = Store(), Readings(fresh_seconds=60, retry_seconds=0.2)
    first, store.up = readings.changed("batch 1", 0.0), False
    readings.get("MySQL", "question", store.read)
    assert readings.changed("batch 1", 0.0) == first
    time.sleep(0.3)
    second = readings.changed("batch 1", 0.0)
    assert second > first
    assert readings.changed("batch 1", 0.0) == second


def test_a_store_that_failed_two_at_once_is_asked_again_as_soon_as_it_has_rested() -> None:
    store, readings = Store(), Readings(fresh_seconds=60, retry_seconds=0.4)
    store.up, both = False, threading.Barrier(2)

    def fail(seconds: float) -> Reading:
        def read() -> pd.DataFrame:
            both.wait()
            time.sleep(seconds)
            return store.read()

        return readings.get("MySQL", seconds, read)

    readings.changed("batch 1", 0.0)
    with ThreadPoolExecutor(2) as pool:
        assert all(one.error for one in pool.map(fail, [0.0, 0.2]))
    store.up = True
    answers: list[bool] = []
    deadline = time.monotonic() + 2
    while not any(answers) and time.monotonic() < deadline:
        before = readings.changed("batch 1", 0.0)
        time.sleep(0.05)
        if readings.changed("batch 1", 0.0) != before:
            answers.append(readings.get("MySQL", 0.0, store.read).error is None)
    assert any(answers)


def test_a_mark_that_a_slower_viewer_brings_late_tells_of_nothing() -> None:
    readings = Readings(fresh_seconds=60)
    readings.changed("batch 1", 1.0)
    newest = readings.changed("batch 2", 2.0)
    assert readings.changed("batch 1", 1.0) == newest
    assert readings.changed("batch 2", 3.0) == newest
    assert readings.changed("batch 3", 3.0) > newest


def test_drawings_that_nobody_sees_any_more_leave_nothing_behind() -> None:
    drawn: list[int] = []

    @drawn_once
    def part(number: int) -> None:
        drawn.append(number)

    for number in range(DRAWINGS_BEFORE_ALL_ARE_DROPPED + 1):
        part(number)
        part(number)
    assert drawn == list(range(DRAWINGS_BEFORE_ALL_ARE_DROPPED + 1))
    part(DRAWINGS_BEFORE_ALL_ARE_DROPPED - 2)
    assert len(drawn) == DRAWINGS_BEFORE_ALL_ARE_DROPPED + 2


def test_an_answer_has_another_number_if_it_differs() -> None:
    store, readings = Store(), Readings(fresh_seconds=0)
    numbers = [readings.get("MySQL", "question", store.read).number for _ in range(2)]
    numbers += [readings.get("MySQL", "same", lambda: pd.DataFrame({"asked": [1]})).number for _ in range(2)]
    assert numbers[0] != numbers[1] != numbers[2] == numbers[3]


# Also where the answer takes longer than it stays fresh.
@pytest.mark.parametrize("fresh_seconds", [None, 0.2])
def test_many_who_ask_at_once_ask_once(fresh_seconds: float | None) -> None:
    store, readings = Store(), Readings(fresh_seconds=60)

    def read() -> pd.DataFrame:
        time.sleep(0.3)
        return store.read()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: readings.get("MySQL", "question", read, fresh_seconds=fresh_seconds), range(20)))
    assert store.asked == 1


def test_the_last_good_answer_outlives_its_store_and_gives_way_to_the_next() -> None:
    store, readings = Store(), Readings(fresh_seconds=0, retry_seconds=0)
    good = readings.get("MySQL", "question", store.read)
    store.up = False
    stale = readings.get("MySQL", "question", store.read)
    assert str(stale.error) == "down"
    assert (stale.frame is good.frame, stale.read_at) == (True, good.read_at)
    store.up = True
    recovered = readings.get("MySQL", "question", store.read)
    assert recovered.error is None
    assert recovered.frame is not None
    assert recovered.frame.asked.tolist() == [3]


def test_a_store_that_is_down_rests_and_the_other_goes_on() -> None:
    down, other, readings = Store(), Store(), Readings(fresh_seconds=0, retry_seconds=60)
    down.up = False
    answers = [readings.get("MySQL", question, down.read) for question in ("one", "two", "one")]
    assert down.asked == 1
    assert all(str(answer.error) == "down" and answer.frame is None for answer in answers)
    assert readings.get("Cassandra", "three", other.read).error is None


# The page


@pytest.fixture
def environment(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The page's environment: the pipeline's, refreshing twice a second; no answer of another test is kept."""
    sources_of.clear()
    for name, value in pipeline.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DASHBOARD_REFRESH_SECONDS", "0.5")
    return monkeypatch


@pytest.mark.integration
def test_a_column_that_the_contract_has_no_more_is_named(
    mysql: MySQLReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(contract.DBT_FOLDER, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    described = tmp_path / "dbt" / "models" / "landed" / "batch_findings.yml"
    described.write_text(described.read_text().replace("- name: observed", "- name: seen"))
    monkeypatch.setattr(contract, "DBT_FOLDER", tmp_path / "dbt")

    with pytest.raises(ConfigurationError, match="contract of 'batch_findings' has no observed, which dashboard/quer"):
        queries.batch_findings(mysql, 1)


def page() -> AppTest:
    """The page, drawn once."""
    return AppTest.from_file(APP, default_timeout=60).run()


def metrics(drawn: AppTest) -> dict[str, str]:
    """The page's figures by their labels."""
    return {metric.label: metric.value for metric in drawn.metric}


def drawn_until(drawn: AppTest, holds: Callable[[AppTest], bool], seconds: float = 20) -> AppTest:
    """Draw the page again until something holds, as the browser does by itself."""
    deadline = time.monotonic() + seconds
    while not holds(drawn):
        assert time.monotonic() < deadline, [warning.value for warning in drawn.warning]
        time.sleep(0.3)
        drawn.run()
        assert not drawn.exception
    return drawn


@pytest.fixture
def new_york(pipeline: Pipeline) -> Iterator[Pipeline]:
    """The pipeline with another exchange."""
    put_exchange(pipeline, NEW_YORK, NEW_YORK_FACTS)
    yield pipeline
    put_exchange(pipeline, JAKARTA, SEEDED)


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_the_page_is_of_the_exchange(new_york: Pipeline) -> None:
    moment = datetime.now(UTC)
    day = NEW_YORK.day_of(moment)
    opened = NEW_YORK.begin_of(day)
    land(new_york, 1, opened - timedelta(milliseconds=1), {"Coal": 1_000}, day=day - timedelta(days=1))
    land(new_york, 2, opened, {"Coal": 70}, day=day)
    tick(new_york, "ALTO.JK", moment.replace(tzinfo=None) - timedelta(seconds=2), "60.6", day=day)
    drawn = page()
    assert not drawn.exception
    assert not drawn.warning
    assert f"**{day:%A, %d %B %Y}** · trading day in New York" in [text.value for text in drawn.markdown]
    figures = metrics(drawn)
    assert (figures["Volume today (shares)"], figures["Ticks landed today"]) == ("70", "1")
    assert figures["ALTO.JK · Beverages"] == "60.60 USD"
    captions = [caption.value for caption in drawn.caption]
    assert "The average of the last 1 trading day, from 00:00 to 00:00 in New York." in captions
    specs = " ".join(chart.proto.spec for chart in drawn.get("vega_lite_chart"))
    assert all(title in specs for title in ("Price (USD)", "Market capitalisation (USD)", "Trading day (New York)"))
    assert "IDR" not in specs


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_the_page_shows_what_the_stores_hold(pipeline: Pipeline, now: datetime) -> None:
    land(pipeline, 1, now, {"Coal": 86_189_937, "Machinery": 30}, "passed")
    land(pipeline, 2, now, {"Coal": 3}, "failed")
    moment = datetime.now(UTC).replace(tzinfo=None)
    tick(pipeline, "ALTO.JK", moment - timedelta(seconds=20), "600")
    tick(pipeline, "ALTO.JK", moment - timedelta(seconds=2), "606")
    drawn = page()
    assert not drawn.exception
    assert not drawn.warning
    # Kafka may take longer to answer than the page waits for it.
    drawn_until(drawn, lambda now: metrics(now)["Lag (messages)"] == "0")
    figures = metrics(drawn)
    assert figures["Volume today (shares)"] == "86,189,970"
    assert figures["Ticks landed today"] == "3"
    assert figures["Batches checked today"] == "100%"
    assert figures["ALTO.JK · Beverages"] == "606.00 IDR"
    assert [metric.delta for metric in drawn.metric if metric.label.startswith("ALTO")] == ["+1.00% in 1 hour"]
    companies, batches = (table.value for table in drawn.dataframe)
    assert companies.ticker.tolist() == ["ALTO.JK"]
    assert batches.verdict.tolist() == ["✗ failed", "✓ passed"]
    # Volumes, candles, heat map, batches, history and its day.
    assert len(drawn.get("vega_lite_chart")) >= 6
    headings = [
        *("Volume by sector", "Today against an average day", "Prices", "Companies by market capitalisation"),
        *("Newest batches", "A batch", "Dead letters", "Volume by day and sector"),
    ]
    assert [heading.value for heading in drawn.subheader if heading.value in headings] == headings


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_new_batch_and_another_choice_appear(pipeline: Pipeline, now: datetime) -> None:
    drawn = page()
    assert any("No batch has landed yet" in info.value for info in drawn.info)
    assert any("No tick of today has landed yet" in info.value for info in drawn.info)
    assert metrics(drawn)["Age of the newest tick"] == "none yet"
    land(pipeline, 1, now, {"Coal": 5})
    drawn_until(drawn, lambda now: metrics(now)["Volume today (shares)"] == "5")
    # Each part asks its own question, at its own pace.
    drawn_until(drawn, lambda now: [table.value.batch_id.tolist() for table in now.dataframe] == [[1]])
    drawn.multiselect(key="tickers").set_value(["TMAS.JK"]).run()
    assert [metric.label for metric in drawn.metric if ".JK" in metric.label] == ["TMAS.JK · Logistics & Deliveries"]
    drawn.multiselect(key="tickers").set_value([]).run()
    assert any("Choose at least one ticker" in info.value for info in drawn.info)


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_bar_that_shrinks_says_why(pipeline: Pipeline, now: datetime) -> None:
    land(pipeline, 1, now, {"Logistics & Deliveries": 300})
    land(pipeline, 2, now, {"Logistics & Deliveries": 0})
    pipeline.execute("UPDATE aggregated_data SET total_volume = -130, corrected_volume = -130 WHERE batch_id = 2")
    pipeline.execute("INSERT INTO landed_offsets VALUES (1, 0, 0, 1), (2, 0, 1, 5)")
    for tick_id in (1, 2, 3):
        tick(pipeline, "TMAS.JK", now, "550", tick_id)
    revision(pipeline, "TMAS.JK", now, None, 1, offset=1, revised_at=now + timedelta(seconds=1))
    revision(pipeline, "TMAS.JK", now, "551", 2, offset=2, volume=70)
    # One that has not landed.
    revision(pipeline, "TMAS.JK", now, None, 3, offset=9)
    drawn = page()
    assert not drawn.exception
    assert metrics(drawn)["Volume today (shares)"] == "170"
    assert any(
        "**Corrected today** · 2 ticks, 1 of them cancelled: volume -130 shares" in one.value for one in drawn.markdown
    )
    (table,) = (one.value for one in drawn.dataframe if "holds" in one.value)
    assert table[["ticker", "came", "holds", "change", "batch"]].values.tolist() == [
        ["TMAS.JK", "100 at 550.00", "cancelled", -100, 2],
        ["TMAS.JK", "100 at 550.00", "70 at 551.00", -30, 2],
    ]


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_chosen_batch_and_its_dead_letters_are_told_as_text(pipeline: Pipeline) -> None:
    land_ticks(pipeline, 1)
    land_ticks(pipeline, 2)
    pipeline.cassandra.execute(
        "UPDATE dead_letters SET raw_value = %s, detail = %s WHERE topic = %s AND kafka_partition = 0 AND"
        " offset_bucket = %s AND kafka_offset = %s AND position = -1",
        (b"<b>**raw**</b>", "*why*", pipeline.settings.kafka_topic, dead_offset(2) // 10_000, dead_offset(2)),
    )
    pipeline.execute(
        "INSERT INTO batch_findings (batch_id, expectation, severity, observed, expected)"
        " VALUES (1, 'books.ticks', 'critical', '**9**', '10')"
    )
    drawn = page()
    assert not drawn.exception
    assert any("**Batch 1**" in text.value for text in drawn.markdown), "the newest with a finding"
    codes = [code.value for code in drawn.code]
    assert codes[:2] == ["**9**", "10"]
    assert sorted(codes[2:]) == ["<b>**raw**</b>", "{"]
    assert any("17 ticks read = **15 landed** + 1 dead letter + 1 duplicate;" in text.value for text in drawn.markdown)
    assert any("` *why* `" in caption.value for caption in drawn.caption)
    drawn.number_input(key="batch").set_value(2).run()
    assert any("**Batch 2**" in text.value for text in drawn.markdown)
    drawn.number_input(key="batch").set_value(3).run()
    assert any("Batch 3 has not landed" in info.value for info in drawn.info)


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_what_has_not_changed_is_drawn_once_for_all_viewers(
    pipeline: Pipeline, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[float]()

    def drawing(chart: Chart, key: str, *, dark: bool) -> None:
        if key == "volumes":
            drawn.append(float(chart.rows.total_volume.sum()))
        draw(chart, key, dark=dark)

    monkeypatch.setattr(draw_today, "draw", drawing)
    land(pipeline, 1, now, {"Coal": 5})
    viewers = [page() for _ in range(3)]
    specifications = {viewer.get("vega_lite_chart")[0].proto.spec for viewer in viewers}
    assert (len(specifications), drawn) == (1, [5])
    land(pipeline, 2, now, {"Coal": 6})
    for viewer in viewers:
        drawn_until(viewer, lambda now: metrics(now)["Volume today (shares)"] == "11")
    assert drawn == [5, 11]


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_day_of_the_history_can_be_picked(pipeline: Pipeline, now: datetime) -> None:
    yesterday = now - timedelta(days=1)
    land(pipeline, 1, yesterday, {"Coal": 40})
    land(pipeline, 2, now, {"Coal": 10})
    drawn = page()
    assert any("10 shares in 1 ticks" in text.value for text in drawn.markdown)
    assert [metric.delta for metric in drawn.metric if "Volume" in metric.label] == ["25% of the average"]
    drawn.date_input(key="day").set_value(yesterday.date()).run()
    assert any("40 shares in 1 ticks" in text.value for text in drawn.markdown)


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_volume_beyond_64_bits_is_shown(pipeline: Pipeline, now: datetime) -> None:
    land(pipeline, 1, now, {"Coal": 9_300_000_000_000_000_000})
    drawn = page()
    assert not drawn.exception
    assert [one.value for one in drawn.metric if "Volume" in one.label] == ["9,300,000,000,000,000,000"]


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_what_was_given_up_is_shown_with_its_reason(pipeline: Pipeline, now: datetime) -> None:
    land(pipeline, 1, now, {"Coal": 1})
    pipeline.execute(
        "INSERT INTO skipped_offsets (kafka_partition, from_offset, until_offset, topic_offset, kind, reason, topic,"
        " topic_id, batch_id, skipped_at) VALUES (1, 4, 7, 7, 'given_up', 'off over Christmas', 't', 'id', 1, %s),"
        " (1, 7, 9, 9, 'nothing_to_read', 'markers', 't', 'id', 1, %s)",
        (now, now),
    )
    (warning,) = page().warning
    assert "partition 1, offsets 4 to 6. off over Christmas" in warning.value


@pytest.mark.integration
def test_lag_is_what_kafka_holds_behind_the_ledger(pipeline: Pipeline) -> None:
    pipeline.send([[], [], []], partition=0)
    ends = pd.DataFrame({"kafka_partition": [0, 1], "topic_offset": [1, 0]})
    with closing(LagWatch(pipeline.settings)) as watch:
        deadline = time.monotonic() + 10
        while (lag := watch.behind(ends)) is None:
            assert time.monotonic() < deadline
    assert lag == 2


def test_a_silent_kafka_leaves_the_lag_unknown_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    example = tmp_path / ".env"
    example.write_text((PROJECT_ROOT / ".env.example").read_text())
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    begun = time.monotonic()
    with closing(LagWatch(load_settings(example))) as watch:
        assert watch.behind(pd.DataFrame({"kafka_partition": [0], "topic_offset": [1]})) is None
    assert time.monotonic() - begun < 2


@pytest.mark.integration
def test_with_mysql_away_its_parts_say_so_and_come_back(
    pipeline: Pipeline, environment: pytest.MonkeyPatch, now: datetime
) -> None:
    gate = Gate(pipeline.settings.mysql_port)
    environment.setenv("MYSQL_PORT", str(gate.port))
    land(pipeline, 1, now, {"Coal": 5})
    tick(pipeline, "ALTO.JK", datetime.now(UTC).replace(tzinfo=None), "600")
    drawn = page()
    assert not drawn.warning

    gate.close()
    drawn_until(drawn, lambda now: len(now.warning) >= 5)
    assert "MYSQL_PORT" in drawn.warning[0].value
    assert all("MySQL gives no answer" in warning.value for warning in drawn.warning)
    assert all(" UTC" in warning.value for warning in drawn.warning)
    assert metrics(drawn)["Volume today (shares)"] == "5"
    assert metrics(drawn)["ALTO.JK · Beverages"] == "600.00 IDR"

    land(pipeline, 2, now, {"Coal": 6})
    gate.shut = False
    drawn_until(drawn, lambda now: not now.warning and metrics(now)["Volume today (shares)"] == "11")


@pytest.mark.integration
def test_with_cassandra_away_the_ledger_is_shown(
    pipeline: Pipeline, environment: pytest.MonkeyPatch, now: datetime
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        environment.setenv("CASSANDRA_PORT", str(taken.getsockname()[1]))
    land(pipeline, 1, now, {"Coal": 5})
    drawn = page()
    assert not drawn.exception
    assert len(drawn.warning) == 2, "candles and companies"
    assert "CASSANDRA_PORT" in drawn.warning[0].value
    assert all("Nothing was read yet" in warning.value for warning in drawn.warning)
    assert metrics(drawn)["Volume today (shares)"] == "5"


def test_a_bad_setting_is_one_message_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text((PROJECT_ROOT / ".env.example").read_text())
    monkeypatch.setenv("TICKLEDGER_ENV_FILE", str(example))
    monkeypatch.setenv("MYSQL_PORT", "70000")
    drawn = page()
    assert not drawn.exception
    assert len(drawn.error) == 1
    assert "MYSQL_PORT is '70000'; it should be a port from 1 to 65535" in drawn.error[0].value
    assert not drawn.metric


def test_without_an_account_that_may_only_read_the_page_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = tmp_path / ".env"
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines(keepends=True)
    before.write_text(
        "".join(line for line in lines if not line.startswith("DASHBOARD_")) + "DASHBOARD_REFRESH_SECONDS=2"
    )
    for name in ("DASHBOARD_MYSQL_USER", "DASHBOARD_CASSANDRA_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TICKLEDGER_ENV_FILE", str(before))
    drawn = page()
    assert "DASHBOARD_MYSQL_USER is not set" in drawn.error[0].value
    assert "make services" in drawn.error[0].value


def test_a_page_without_the_account_that_a_secured_kafka_asks_for_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_certificates(tmp_path)
    text = (PROJECT_ROOT / ".env.example").read_text().replace("_PASSWORD=\n", "_PASSWORD=x\n")
    secured = f"KAFKA_SECURITY=SASL_SSL\nKAFKA_CA_FILE={tmp_path / 'ca.pem'}\nDASHBOARD_KAFKA_PASSWORD=\n"
    (tmp_path / ".env").write_text(text + secured)
    monkeypatch.setenv("TICKLEDGER_ENV_FILE", str(tmp_path / ".env"))
    assert "DASHBOARD_KAFKA_PASSWORD is not set" in page().error[0].value


def test_the_example_of_secrets_holds_every_setting_as_env_example_does(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = tomllib.loads((APP.parent / ".streamlit" / "secrets.toml.example").read_text())
    example = {name: value or "" for name, value in dotenv_values(PROJECT_ROOT / ".env.example").items()}
    assert secrets.items() <= example.items()
    for name in example:
        monkeypatch.delenv(name, raising=False)
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert load_settings(Path("/nonexistent")).dashboard_mysql.user == "tickledger_reader"
