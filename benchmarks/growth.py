"""`make bench-growth`: what grows with a batch's ticks, with the age of the stores and with batches."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
import typer

from benchmarks.bench import Bench, InstanceName, Target, bench, command, say, show, stream
from benchmarks.engines import run
from benchmarks.made_up_reports import of_the_driver, of_the_ledger
from benchmarks.made_up_year import Year
from dashboard import queries
from dashboard.draw_history import DAYS_SHOWN
from dashboard.readers import CassandraReader, MySQLReader
from expectations.checker import Checker
from tests.support.oracle import OracleProducer
from tests.support.pipeline import StreamProcess
from tickledger.errors import ConfigurationError, StoreUnavailable, TickledgerError
from tickledger.exchange import QUERY, Exchange, exchange_of_rows

#: The parts, with the minutes that each takes on two cores.
PARTS = {"batches": 6, "days": 12, "ticks": 12, "memory": 15, "batch-memory": 12, "driver": 8}
SIZES, DAYS, TICKS = [1_000, 10_000, 100_000, 300_000], [1, 30, 365], [500_000, 5_000_000]
#: Days over which ticks are spread, and companies whose candles are asked for: the most that the page shows.
DAYS_OF_TICKS, TICKERS_SHOWN = 5, 6
#: Ticks that one micro-batch of Spark brings.
TICKS_AT_ONCE = [100_000, 500_000, 1_000_000, 3_000_000]
#: Of made-up reports.
PARTITIONS, REPORTED = [2, 32, 256, 1024], [1_000_000, 10_000_000]
Questions = dict[str, Callable[[], Any]]


def land(servers: Bench, batch: int) -> dict[str, float]:
    """Land and check five batches, or as many as make up 40,000 ticks; medians in seconds without the first batch.

    seconds: from a batch's commit to the next one's. landing: from the beginning of a batch to its commit. check alone:
    to check the newest batch again, while nothing lands.
    """
    load = servers.load(max(5 * batch, 40_000))
    with servers.stores(load.topic) as pipeline:
        result = counted(run(servers, "ours", pipeline, load, batch))
        rows = pipeline.rows("SELECT landed_at, landing_seconds FROM landed_batches ORDER BY batch_id")
        with contextlib.closing(Checker(pipeline.settings)) as checker:
            newest = checker.newest()
            assert newest is not None
            alone = median_seconds(lambda: checker.check(newest))
    return {
        "batches": len(rows),
        "seconds": statistics.median((own[0] - before[0]).total_seconds() for before, own in pairwise(rows)),
        "landing": statistics.median(float(landing) for _, landing in rows[1:]),
        "check alone": alone,
        "ticks/s": result["ticks/s"],
    }


def counted(result: dict[str, Any]) -> dict[str, Any]:
    """A run whose rows and volumes are right. Raises TickledgerError."""
    if result["problem"]:
        raise TickledgerError(f"a run does not count: {result['problem']}")
    return result


def median_seconds(call: Callable[[], Any]) -> float:
    """The median time of five calls after a first one, which finds everything cold."""
    took = []
    for _ in range(6):
        began = time.monotonic()
        call()
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def of_mysql(reader: MySQLReader, today: date) -> Questions:
    """All that the page asks MySQL, by what it is called there."""
    newest = int(reader.rows("SELECT MAX(batch_id) FROM landed_batches")[0][0])
    first = today - timedelta(days=DAYS_SHOWN - 1)
    alone = (
        "exchange", "volume_by_verdict", "average_day", "newest_batches", "newest_batch_with_findings",
        "ranges_with_dead_letters", "landed_ends", "companies",
    )  # fmt: skip
    asked: Questions = {name: partial(getattr(queries, name), reader) for name in alone}
    asked |= {"today": partial(queries.today, reader, queries.exchange(reader))}
    asked |= {name: partial(getattr(queries, name), reader, newest) for name in ("batch", "batch_offsets")}
    return asked | {f"volume_by_day, {DAYS_SHOWN} days": partial(queries.volume_by_day, reader, first, today)}


def of_cassandra(reader: CassandraReader, exchange: Exchange, tickers: list[str]) -> Questions:
    """All that the page asks Cassandra of ticks: quotes, and candles of each window up to now."""
    now = datetime.now(UTC).replace(tzinfo=None)
    candles = partial(queries.candles, reader, exchange, tickers[:TICKERS_SHOWN])
    asked: Questions = {"quotes": partial(queries.quotes, reader, tickers, now.date())}
    return asked | {f"candles, {name}": partial(candles, window, now) for name, window in queries.WINDOWS.items()}


def ask(asked: Questions) -> dict[str, float | None]:
    """Seconds of each question; none if the page would not have waited for the answer."""
    answers: dict[str, float | None] = {}
    for name, question in asked.items():
        try:
            answers[name] = median_seconds(question)
        except StoreUnavailable as error:
            say(f"{name}: {error}")
            answers[name] = None
    return answers


def days_table(servers: Bench, days: list[int]) -> pd.DataFrame:
    """One row per question to MySQL; seconds, a column per number of days."""
    columns, today = {}, datetime.now(UTC).date()
    with servers.stores() as pipeline:
        reader, year = MySQLReader(pipeline.settings), Year(pipeline, max(days), today)
        for count in days:
            say(f"MySQL: {count:,} days")
            year.grow_to(count)
            columns[f"{count:,} days"] = ask(of_mysql(reader, today))
        reader.close()
    return pd.DataFrame(columns).rename_axis("question").reset_index()


def ticks_table(servers: Bench, counts: list[int]) -> pd.DataFrame:
    """One row per question to Cassandra; seconds, a column per number of ticks, spread over five days and landed."""
    columns = {}
    for count in counts:
        load = servers.load(count, days=DAYS_OF_TICKS)
        with servers.stores(load.topic) as pipeline:
            counted(run(servers, "ours-unchecked", pipeline, load, 200_000))
            reader = CassandraReader(pipeline.settings)
            exchange = exchange_of_rows(pipeline.rows(QUERY))
            tickers = [str(row[0]) for row in pipeline.rows("SELECT ticker FROM profile ORDER BY ticker")]
            columns[f"{load.ticks:,} ticks"] = ask(of_cassandra(reader, exchange, tickers))
            reader.close()
    return pd.DataFrame(columns).rename_axis("question").reset_index()


def memory(servers: Bench, batches: int) -> pd.DataFrame:
    """Land and check this many batches of a slow load at a trigger of 0; one row per process of the stream, in MB.

    MB a hundred batches: the slope of a straight line through what it held after the first fifth of the batches.
    """
    rows = []
    with servers.stores() as pipeline, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "acknowledged.jsonl"
        log.touch()
        with stream(pipeline, STREAM_TRIGGER_SECONDS="0") as running, contextlib.ExitStack() as stack:
            stack.callback(OracleProducer(pipeline, log, 1, messages_per_second=20).stop)
            running.wait_for("batch ")
            newest = 0
            while newest < batches:
                assert running.process.poll() is None, running.output[-2000:]
                newest = int(pipeline.rows("SELECT MAX(batch_id) FROM landed_batches")[0][0])
                driver, checks, workers, jvm = _processes(running)
                rows.append((newest, _resident(driver), _resident(checks), _resident(workers), _resident(jvm)))
                time.sleep(2)
    samples = pd.DataFrame(rows, columns=["batch", "driver", "checks", "Python workers", "JVM"])
    warm = samples[samples.batch > samples.batch.max() / 5]
    spread = warm.batch - warm.batch.mean()
    return pd.DataFrame(
        {
            "process": name,
            "MB in the end": warm[name].iloc[-1],
            "MB a hundred batches": 100 * float((spread * warm[name]).sum() / (spread**2).sum()),
        }
        for name in samples.columns[1:]
    )


def batch_memory(servers: Bench, sizes: list[int]) -> pd.DataFrame:
    """Land and check this many ticks that one micro-batch of Spark brings; one row per size, the most resident MB.

    A worker is the largest of them. What a process has without a tick is counted too.
    """
    rows = []
    for ticks in sizes:
        load = servers.load(ticks)
        limits = {"STREAM_TRIGGER_SECONDS": "0", "STREAM_MAX_OFFSETS_PER_TRIGGER": str(load.messages)}
        with servers.stores(load.topic) as pipeline, stream(pipeline, **limits) as running:
            running.wait_for("landing ")
            most = [0.0] * 4
            unchecked = "SELECT SUM(messages), SUM(verdict = 'unchecked') FROM landed_batches"
            while (found := pipeline.rows(unchecked)[0]) != (load.messages, 0):
                assert running.process.poll() is None, (found, running.output[-2000:])
                driver, checks, workers, jvm = _processes(running)
                worker = max(map(_resident, ([one] for one in workers)), default=0.0)
                most = list(map(max, most, (worker, _resident(driver), _resident(checks), _resident(jvm))))
                time.sleep(0.25)
            batches, largest = pipeline.rows("SELECT COUNT(*), MAX(ticks_landed) FROM landed_batches")[0]
        names = ("worker", "driver", "checks", "JVM")
        rows.append(
            {"ticks": ticks, "batches": batches, "most ticks": int(largest)} | dict(zip(names, most, strict=True))
        )
    return pd.DataFrame(rows)


def driver(servers: Bench, reported: list[int]) -> pd.DataFrame:
    """One row per number of partitions: what reaches the driver and how long it takes, keyed by ticker and unkeyed."""
    rows = []
    for partitions in PARTITIONS:
        row: dict[str, Any] = {"partitions": partitions}
        for ticks in reported:
            for kind, keyed in (("keyed", True), ("unkeyed", False)):
                megabytes, seconds = of_the_driver(ticks, partitions, keyed=keyed)
                row |= {f"MB, {ticks:,} {kind}": megabytes, f"s, {ticks:,} {kind}": seconds}
        with servers.stores() as pipeline:
            rows.append(row | {"transaction": of_the_ledger(pipeline, partitions)})
    return pd.DataFrame(rows)


def _processes(running: StreamProcess) -> tuple[list[psutil.Process], ...]:
    """A stream's processes: its driver, its checks, Spark's Python workers, its JVM."""
    driver, jvm = psutil.Process(running.python_pid()), psutil.Process(running.process.pid)
    checks = driver.children(recursive=True)
    return [driver], checks, list(set(jvm.children(recursive=True)) - {driver, *checks}), [jvm]


def _resident(processes: Iterable[psutil.Process]) -> float:
    megabytes = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            megabytes += process.memory_info().rss / 1e6
    return megabytes


def main(
    part: Annotated[list[str], typer.Option(help="Which part; may be given again.")] = list(PARTS),  # noqa: B006
    size: Annotated[list[int], typer.Option(min=100, help="batches: ticks per batch.")] = SIZES,
    days: Annotated[list[int], typer.Option(min=1, help="days: days of aggregates.")] = DAYS,
    ticks: Annotated[list[int], typer.Option(min=10_000, help="ticks: ticks in Cassandra.")] = TICKS,
    batches: Annotated[int, typer.Option(min=10, help="memory: batches to land and check.")] = 1000,
    at_once: Annotated[list[int], typer.Option(min=1000, help="batch-memory: ticks at once.")] = TICKS_AT_ONCE,
    reported: Annotated[list[int], typer.Option(min=1024, help="driver: ticks of a batch.")] = REPORTED,
    instance: InstanceName = "bench",
    to: Target = None,
) -> None:
    """Measure what grows with a batch's ticks, with days and ticks in the stores, and with batches.

    Exit code 1: rows or volumes of a part that lands were wrong.
    """
    if unknown := set(part).difference(PARTS):
        raise ConfigurationError(f"--part is {', '.join(unknown)}; it should be some of {', '.join(PARTS)}")
    with bench(instance) as servers:
        measured: dict[str, Callable[[], pd.DataFrame]] = {
            "batches": lambda: pd.DataFrame({"ticks per batch": one} | land(servers, one) for one in size),
            "days": lambda: days_table(servers, sorted(days)),
            "ticks": lambda: ticks_table(servers, ticks),
            "memory": lambda: memory(servers, batches),
            "batch-memory": lambda: batch_memory(servers, at_once),
            "driver": lambda: driver(servers, reported),
        }
        for name in part:
            say(f"{name}: about {PARTS[name]} min at the defaults")
            show(f"Growth: {name}; times in seconds", measured[name](), to)


if __name__ == "__main__":
    command("python -m benchmarks.growth", main)
