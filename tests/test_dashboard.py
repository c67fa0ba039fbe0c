"""The page and what it asks, on real stores with known data; the page runs in Streamlit's own test runner."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pipeline import Pipeline
from streamlit.testing.v1 import AppTest

from dashboard import queries
from dashboard.readings import Readings
from streaming.errors import ConfigurationError, StoreUnavailable
from streaming.settings import PROJECT_ROOT

APP = PROJECT_ROOT / "dashboard" / "app.py"
NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)


def land(pipeline: Pipeline, batch_id: int, at: datetime, volumes: dict[str, int], verdict: str = "passed") -> None:
    """Write what the stream writes for a batch of one tick a sector."""
    with closing(pipeline.mysql()) as connection:
        cursor = connection.cursor()
        for place, (sector, volume) in enumerate(volumes.items()):
            cursor.execute(
                "INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,"
                " first_created_at, last_created_at) VALUES (%s, %s, %s, %s, %s, %s, 1, %s, %s)",
                (batch_id * 100 + place, at, sector, volume, at.date(), batch_id, at, at),
            )
        cursor.execute(
            "INSERT INTO landed_batches (batch_id, topic, topic_id, messages, ticks_read, ticks_landed, dead_letters,"
            " duplicates, late_ticks, volume, first_created_at, last_created_at, landed_at, landing_seconds,"
            " contract_hash, verdict, checked_at)"
            " VALUES (%s, 'ticks', 'id', 1, %s, %s, 3, 1, 0, %s, %s, %s, %s, 0.75, 'hash', %s, %s)",
            (batch_id, len(volumes) + 4, len(volumes), sum(volumes.values()), at, at, at, verdict, at),
        )
        connection.commit()


def tick(pipeline: Pipeline, ticker: str, at: datetime, price: str, tick_id: int = 1) -> None:
    """Write one tick as the stream writes it."""
    pipeline.cassandra.execute(
        "INSERT INTO real_time_data (ticker, trade_date, created_at, id, volume, market_cap, price, sector,"
        f" kafka_partition, kafka_offset) VALUES (%s, %s, %s, %s, 100, 1, {price}, 'Coal', 0, 0)",
        (ticker, at.date(), at, tick_id),
    )


@pytest.fixture
def mysql(pipeline: Pipeline) -> Iterator[queries.MySQLReader]:
    with closing(queries.MySQLReader(pipeline.settings)) as reader:
        yield reader


@pytest.fixture
def cassandra(pipeline: Pipeline) -> Iterator[queries.CassandraReader]:
    with closing(queries.CassandraReader(pipeline.settings)) as reader:
        yield reader


@pytest.mark.integration
def test_volume_is_todays_and_sorted(pipeline: Pipeline, mysql: queries.MySQLReader) -> None:
    land(pipeline, 1, NOW - timedelta(days=1), {"Coal": 1_000_000})
    land(pipeline, 2, NOW, {"Coal": 5, "Machinery": 30, "Beverages": 20})
    land(pipeline, 3, NOW, {"Coal": 7})
    found = queries.volume_by_sector(mysql)
    assert found.to_dict("list") == {"sector": ["Machinery", "Beverages", "Coal"], "total_volume": [30.0, 20.0, 12.0]}
    assert found.total_volume.dtype == "float64"


@pytest.mark.integration
def test_todays_figures_leave_out_other_days(pipeline: Pipeline, mysql: queries.MySQLReader) -> None:
    land(pipeline, 1, NOW - timedelta(days=1), {"Coal": 1_000_000}, "failed")
    land(pipeline, 2, NOW, {"Coal": 5, "Machinery": 30}, "passed")
    land(pipeline, 3, NOW, {"Coal": 7}, "warned")
    land(pipeline, 4, NOW, {"Coal": 8}, "failed")
    land(pipeline, 5, NOW, {"Coal": 9}, "unchecked")
    figures = queries.today(mysql).iloc[0].to_dict()
    assert figures.pop("landed_at") == pd.Timestamp(NOW, tz="UTC")
    assert figures == {"volume": 59, "ticks": 5, "batches": 4, "checked": 3, "warned": 1, "failed": 1}


@pytest.mark.integration
def test_an_empty_ledger_is_no_error(mysql: queries.MySQLReader) -> None:
    figures = queries.today(mysql).iloc[0]
    assert (figures.volume, figures.ticks, figures.batches) == (0, 0, 0)
    assert pd.isna(figures.landed_at)
    assert queries.volume_by_sector(mysql).empty
    assert queries.newest_batches(mysql).empty


@pytest.mark.integration
def test_newest_batches_come_first_and_are_bounded(pipeline: Pipeline, mysql: queries.MySQLReader) -> None:
    for batch_id in range(1, 6):
        land(pipeline, batch_id, NOW, {"Coal": batch_id}, "failed" if batch_id == 4 else "passed")
    found = queries.newest_batches(mysql, 3)
    assert list(found.batch_id) == [5, 4, 3]
    assert list(found.verdict) == ["passed", "failed", "passed"]
    assert found.iloc[0][["messages", "ticks_landed", "dead_letters", "duplicates"]].tolist() == [1, 1, 3, 1]
    assert found.landing_seconds.tolist() == [0.75] * 3


@pytest.mark.integration
def test_prices_are_the_newest_of_each_bucket_within_the_window(
    pipeline: Pipeline, cassandra: queries.CassandraReader
) -> None:
    until = datetime(2026, 11, 23, 12, 0, 0)
    tick(pipeline, "TMAS.JK", until - timedelta(minutes=5, milliseconds=1), "1")
    tick(pipeline, "TMAS.JK", until - timedelta(minutes=5), "550")
    tick(pipeline, "TMAS.JK", until - timedelta(seconds=10), "551.25")
    tick(pipeline, "TMAS.JK", until - timedelta(seconds=10) + timedelta(milliseconds=900), "552.5")
    tick(pipeline, "TMAS.JK", until, "2")
    tick(pipeline, "DWGL.JK", until - timedelta(seconds=1), "540")
    found = queries.prices(cassandra, ["TMAS.JK"], queries.WINDOWS["5 min"], until)
    assert found.price.tolist() == [550.0, 552.5]
    assert found.created_at.tolist() == [
        pd.Timestamp("2026-11-23 11:55:00", tz="UTC"),
        pd.Timestamp("2026-11-23 11:59:50.900", tz="UTC"),
    ]
    both = queries.prices(cassandra, ["TMAS.JK", "DWGL.JK"], queries.WINDOWS["5 min"], until)
    assert both.groupby("ticker").price.last().to_dict() == {"DWGL.JK": 540.0, "TMAS.JK": 552.5}


@pytest.mark.integration
def test_a_window_reaches_over_midnight(pipeline: Pipeline, cassandra: queries.CassandraReader) -> None:
    midnight = datetime(2026, 11, 23)
    tick(pipeline, "TMAS.JK", midnight - timedelta(seconds=30), "550")
    tick(pipeline, "TMAS.JK", midnight + timedelta(seconds=30), "560")
    found = queries.prices(cassandra, ["TMAS.JK"], queries.WINDOWS["5 min"], midnight + timedelta(minutes=1))
    assert found.price.tolist() == [550.0, 560.0]


@pytest.mark.integration
def test_every_window_is_understood_by_cassandra(pipeline: Pipeline, cassandra: queries.CassandraReader) -> None:
    tick(pipeline, "TMAS.JK", NOW - timedelta(minutes=1), "550")
    for window in queries.WINDOWS.values():
        assert queries.prices(cassandra, ["TMAS.JK"], window, NOW).price.tolist() == [550.0], window


@pytest.mark.parametrize("name", queries.WINDOWS)
def test_no_window_has_more_points_than_a_chart_can_show(name: str) -> None:
    window = queries.WINDOWS[name]
    assert window.length <= 300 * pd.Timedelta(window.bucket)


@pytest.mark.integration
def test_a_missing_table_names_the_setting_and_the_command(pipeline: Pipeline, mysql: queries.MySQLReader) -> None:
    pipeline.execute("DROP VIEW volume_today")
    with pytest.raises(ConfigurationError, match=r"MYSQL_DATABASE is .* 'dbt run'"):
        queries.volume_by_sector(mysql)


@pytest.mark.integration
def test_a_connection_that_the_server_closed_is_made_anew(pipeline: Pipeline, mysql: queries.MySQLReader) -> None:
    (connection_id,) = mysql.rows("SELECT CONNECTION_ID()")[0]
    pipeline.execute(f"KILL {connection_id}")
    assert mysql.rows("SELECT CONNECTION_ID()")[0] != (connection_id,)


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


class Gate:
    """A way to a server that a test can shut: a forwarded port on loopback."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.shut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                if self.shut:
                    inside.close()
                    continue
                outside = socket.create_connection(("127.0.0.1", self._target))
                self._open += [inside, outside]
                for source, sink in ((inside, outside), (outside, inside)):
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Shut the gate and cut every connection that goes through it."""
        self.shut = True
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()


@pytest.fixture
def environment(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The page's environment: the pipeline's, refreshing twice a second."""
    for name, value in pipeline.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DASHBOARD_REFRESH_SECONDS", "0.5")
    return monkeypatch


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


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_the_page_shows_what_the_stores_hold(pipeline: Pipeline) -> None:
    land(pipeline, 1, NOW, {"Coal": 86_189_937, "Machinery": 30}, "passed")
    land(pipeline, 2, NOW, {"Coal": 3}, "failed")
    moment = datetime.now(UTC).replace(tzinfo=None)
    tick(pipeline, "ALTO.JK", moment - timedelta(seconds=20), "600")
    tick(pipeline, "ALTO.JK", moment - timedelta(seconds=2), "606")
    drawn = page()
    assert not drawn.exception
    assert not drawn.warning
    figures = metrics(drawn)
    assert figures["Volume today (shares)"] == "86,189,970"
    assert figures["Ticks landed today"] == "3"
    assert figures["Batches checked today"] == "100%"
    assert figures["ALTO.JK · Beverages"] == "606.00 IDR"
    assert [metric.delta for metric in drawn.metric if metric.label.startswith("ALTO")] == ["+1.00% in 5 min"]
    assert drawn.dataframe[0].value.verdict.tolist() == ["✗ failed", "✓ passed"]
    assert len(drawn.get("vega_lite_chart")) == 2


@pytest.mark.integration
@pytest.mark.usefixtures("environment")
def test_a_new_batch_and_another_choice_appear(pipeline: Pipeline) -> None:
    drawn = page()
    assert any("No batch has landed yet" in info.value for info in drawn.info)
    assert any("No tick of today has landed yet" in info.value for info in drawn.info)
    assert metrics(drawn)["Age of the newest batch"] == "none yet"
    land(pipeline, 1, NOW, {"Coal": 5})
    drawn_until(drawn, lambda now: metrics(now)["Volume today (shares)"] == "5")
    assert drawn.dataframe[0].value.batch_id.tolist() == [1]
    drawn.multiselect(key="tickers").set_value(["TMAS.JK"]).run()
    assert [metric.label for metric in drawn.metric if ".JK" in metric.label] == ["TMAS.JK · Logistics & Deliveries"]
    drawn.multiselect(key="tickers").set_value([]).run()
    assert any("Choose at least one ticker" in info.value for info in drawn.info)


@pytest.mark.integration
def test_with_mysql_away_its_parts_say_so_and_come_back(pipeline: Pipeline, environment: pytest.MonkeyPatch) -> None:
    gate = Gate(pipeline.settings.mysql_port)
    environment.setenv("MYSQL_PORT", str(gate.port))
    land(pipeline, 1, NOW, {"Coal": 5})
    tick(pipeline, "ALTO.JK", datetime.now(UTC).replace(tzinfo=None), "600")
    drawn = page()
    assert not drawn.warning

    gate.close()
    drawn_until(drawn, lambda now: len(now.warning) == 3)
    assert "MYSQL\\_PORT" in drawn.warning[0].value
    assert all("MySQL gives no answer" in warning.value for warning in drawn.warning)
    assert all(" UTC" in warning.value for warning in drawn.warning)
    assert metrics(drawn)["Volume today (shares)"] == "5"
    assert metrics(drawn)["ALTO.JK · Beverages"] == "600.00 IDR"

    land(pipeline, 2, NOW, {"Coal": 6})
    gate.shut = False
    drawn_until(drawn, lambda now: not now.warning and metrics(now)["Volume today (shares)"] == "11")


@pytest.mark.integration
def test_with_cassandra_away_the_ledger_is_shown(pipeline: Pipeline, environment: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        environment.setenv("CASSANDRA_PORT", str(taken.getsockname()[1]))
    land(pipeline, 1, NOW, {"Coal": 5})
    drawn = page()
    assert not drawn.exception
    assert [
        ("CASSANDRA\\_PORT" in warning.value, "Nothing was read yet" in warning.value) for warning in drawn.warning
    ] == [(True, True)]
    assert metrics(drawn)["Volume today (shares)"] == "5"


def test_a_bad_setting_is_one_message_on_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    example = tmp_path / ".env"
    example.write_text((PROJECT_ROOT / ".env.example").read_text())
    monkeypatch.setenv("TICKLEDGER_ENV_FILE", str(example))
    monkeypatch.setenv("MYSQL_PORT", "70000")
    drawn = page()
    assert not drawn.exception
    assert len(drawn.error) == 1
    assert "MYSQL\\_PORT is '70000'; it should be a port from 1 to 65535" in drawn.error[0].value
    assert not drawn.metric
