"""`make bench-growth`: what grows with a batch's ticks, with the age of the stores, with tickers and with batches."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pandas as pd
import psutil
import typer
from oracle import OracleProducer
from pipeline import Pipeline, StreamProcess

from benchmarks import growth_landing, growth_queries
from benchmarks.__main__ import Bench
from benchmarks.report import record_growth, record_memory, slopes
from services.instance import Instance
from tickledger.errors import ConfigurationError, TickledgerError, run_command

#: The parts, with the minutes that each takes on two cores.
PARTS = {"batches": 6, "tickers": 5, "days": 12, "ticks": 18, "memory": 15}

#: Messages a second, of a tick a company each.
PACE = 20
SAMPLE_SECONDS = 2.0


def memory(pipeline: Pipeline, batches: int, folder: Path) -> pd.DataFrame:
    """Land and check so many batches of a slow load at a trigger of 0; one row per sample.

    batch: the newest one in the ledger. driver, checks, workers: resident megabytes of the driver's Python, of what it
    starts for the checks, and of Spark's Python workers; what processes share counts in each.
    """
    log = folder / "acknowledged.jsonl"
    log.touch()
    producer = OracleProducer(pipeline, log, 1, messages_per_second=PACE)
    stream = StreamProcess(pipeline, environment={"STREAM_TRIGGER_SECONDS": "0"})
    rows = []
    try:
        stream.wait_for("batch ")
        driver = psutil.Process(stream.python_pid())
        jvm = psutil.Process(stream.process.pid)
        while True:
            newest = int(pipeline.rows("SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches")[0][0])
            checks = driver.children(recursive=True)
            workers = set(jvm.children(recursive=True)) - {driver, *checks}
            rows.append((newest, _resident([driver]), _resident(checks), _resident(workers)))
            print(f"\rbatch {newest:,} of {batches:,}", end="", flush=True)
            if newest >= batches:
                break
            assert stream.process.poll() is None, stream.output[-2000:]
            time.sleep(SAMPLE_SECONDS)
        print()
    finally:
        producer.stop()
        stream.process.terminate()
        stream.wait()
    verdicts = dict(pipeline.rows("SELECT verdict, COUNT(*) FROM landed_batches GROUP BY verdict"))
    print(f"verdicts: {verdicts}")
    assert "unchecked" not in verdicts, verdicts
    return pd.DataFrame(rows, columns=["batch", "driver", "checks", "workers"])


def _resident(processes: Iterable[psutil.Process]) -> float:
    megabytes = 0.0
    for process in processes:
        with suppress(psutil.Error):
            megabytes += process.memory_info().rss / 1e6
    return megabytes


class Growth:
    """The parts of the command. Each measures, prints its table and, with `keep`, records it."""

    def __init__(self, bench: Bench, folder: Path, *, keep: bool) -> None:
        self._bench, self._folder, self._keep = bench, folder, keep
        self.problem = ""

    def batches(self, sizes: list[int]) -> None:
        """The time of a batch by its ticks."""
        rows = growth_landing.batches(self._bench, sizes, say)
        self._landed("batches", rows, "ticks a batch")

    def tickers(self, counts: list[int], batch: int) -> None:
        """The time of a batch of `batch` ticks by the companies that trade."""
        rows = growth_landing.tickers(self._bench, counts, batch, say)
        self._landed("tickers", rows, "tickers", batch=batch)

    def days(self, days: list[int], *, rolled_up: bool) -> None:
        """The dashboard's questions to MySQL by the days in it."""
        rows = growth_queries.days_table(self._bench, days, growth_queries.utc_today(), say, rolled_up=rolled_up)
        plain = [name for name in list(rows.columns)[1:] if "rolled" not in name]
        self._finish("days", rows, growth_queries.faster_than_work(rows, plain, work=1))

    def ticks(self, ticks: int) -> None:
        """The dashboard's questions to Cassandra by the ticks in it."""
        rows = growth_queries.ticks_table(self._bench, ticks, growth_queries.utc_today(), say)
        self._finish("ticks", rows, growth_queries.faster_than_work(rows, list(rows.columns)[1:], work=10))

    def memory(self, batches: int) -> None:
        """What the stream's processes hold over so many batches."""
        with self._bench.stores() as pipeline:
            samples = memory(pipeline, batches, self._folder)
        for name, megabytes in slopes(samples).items():
            print(f"{name}: {megabytes:+.2f}")
        if self._keep:
            record_memory(samples)

    def _landed(self, part: str, rows: pd.DataFrame, name: str, **facts: int) -> None:
        self.problem = self.problem or next((text for text in rows.problem if text), "")
        faster = growth_landing.faster_than_work(rows, name)
        self._finish(part, rows.drop(columns=["work", "problem"]), faster, **facts)

    def _finish(self, part: str, rows: pd.DataFrame, faster: Iterator[str], **facts: int) -> None:
        found = list(faster)
        print(rows.to_string(index=False, float_format=lambda number: f"{number:,.3f}"))
        print("grew faster than its work: " + ("; ".join(found) or "nothing"), flush=True)
        if self._keep and not self.problem:
            record_growth(part, rows, found, **facts)


def say(line: str) -> None:
    """What is being done now, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


def _numbers(option: str, text: str, low: int, high: int) -> list[int]:
    parts = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isdecimal() and low <= int(part) <= high for part in parts):
        raise ConfigurationError(
            f"{option} is {text!r}; it should be whole numbers from {low:,} to {high:,}, with commas"
        )
    return sorted({int(part) for part in parts})


def main(
    parts: Annotated[str, typer.Option(help="Which parts, by name, separated by commas.")] = ",".join(PARTS),
    sizes: Annotated[str, typer.Option(help="batches: ticks a batch.")] = "1000,10000,100000,300000",
    tickers: Annotated[str, typer.Option(help="tickers: numbers of companies.")] = "10,100,1000",
    batch: Annotated[int, typer.Option(min=1_000, help="tickers: ticks a batch.")] = 100_000,
    days: Annotated[str, typer.Option(help="days: days of aggregates.")] = "1,30,365",
    ticks: Annotated[int, typer.Option(min=1_000, help="ticks: ticks in Cassandra.")] = 10_000_000,
    rolled_up: Annotated[
        bool, typer.Option("--rolled-up", help="days: also after a roll-up that keeps 30 days by batch.")
    ] = False,
    batches: Annotated[int, typer.Option(min=10, help="memory: batches to land and check.")] = 1000,
    instance: Annotated[str, typer.Option(help="The servers' instance, which is started for it.")] = "bench",
    keep: Annotated[bool, typer.Option("--record", help="Write docs/performance.* anew from this run.")] = False,
) -> None:
    """Measure what grows with a batch's ticks, with days and ticks in the stores, with tickers, and with batches.

    Exit code 1: rows or volumes of a landing part were wrong; that part is not recorded.
    """
    names = [name.strip() for name in parts.split(",")]
    if unknown := [name for name in names if name not in PARTS]:
        raise ConfigurationError(f"--parts names {', '.join(unknown)}; it should be some of {', '.join(PARTS)}")
    some_sizes = _numbers("--sizes", sizes, 100, 1_000_000)
    counts, some_days = _numbers("--tickers", tickers, 1, 5_000), _numbers("--days", days, 1, 3_650)
    servers = Instance(instance)
    with servers.started(), tempfile.TemporaryDirectory() as folder:
        growth = Growth(Bench(servers, Path(folder)), Path(folder), keep=keep)
        steps = {
            "batches": lambda: growth.batches(some_sizes),
            "tickers": lambda: growth.tickers(counts, batch),
            "days": lambda: growth.days(some_days, rolled_up=rolled_up),
            "ticks": lambda: growth.ticks(ticks),
            "memory": lambda: growth.memory(batches),
        }
        for number, name in enumerate(names, 1):
            say(f"part {number} of {len(names)}: {name}, about {PARTS[name]} min at the defaults")
            steps[name]()
    if growth.problem:
        raise TickledgerError(f"a run does not count: {growth.problem}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m benchmarks.growth"))
