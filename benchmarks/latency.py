"""`make bench-latency`: how long a tick takes from the producer to each store, at some paces and triggers."""

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from pipeline import Pipeline, StreamProcess
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import Bench
from benchmarks.looks import STAGES, Looks, Sent
from benchmarks.report import record_latency
from commands.reconcile import reconcile
from producer.companies import read_companies
from producer.market import Market
from producer.publish import Publisher
from services.instance import Instance
from tickledger.errors import ConfigurationError, TickledgerError, run_command

#: Seconds at a pace before its messages count, for what a stream that starts it is used to.
WARM_UP_SECONDS = 5
#: Beyond this, what was sent last has not come through.
LONGEST_SECONDS = 180
#: Messages a second that are looked for in Cassandra; in MySQL, all are.
PROBES_A_SECOND = 20
#: A pace that was missed by more than this share was not held.
PACE_SHARE = 0.01
#: Seconds that a stream needs to start and to end, for the time that is left.
START_SECONDS = 25


class Sender:
    """Sends messages of one tick a company at a pace of ticks a second, and remembers when it sent each."""

    def __init__(self, pipeline: Pipeline, sent: Sent) -> None:
        companies = read_companies(pipeline.settings)
        self._market, self._ids, self._sent = Market(companies, seed=1), count(1), sent
        self._publisher = Publisher(pipeline.settings, pipeline.settings.kafka_topic, threading.Event())
        self.ticks_a_message = len(companies)

    def send(self, pace: int, seconds: float) -> range:
        """Send for so long; returns the numbers of the messages. A message that is late does not delay the next."""
        a_second, first = pace / self.ticks_a_message, len(self._sent.at)
        every = max(round(a_second / PROBES_A_SECOND), 1)
        began = time.monotonic()
        for number in range(round(a_second * seconds)):
            time.sleep(max(began + number / a_second - time.monotonic(), 0))
            made = datetime.now(UTC)
            message = self._market.trade(f"{made:%Y-%m-%d %H:%M:%S}.{made.microsecond // 1000:03d}", self._ids)
            self._sent.add(message, probe=number % every == 0)
            self._publisher.send(message)
        self._publisher.flush()
        return range(first, len(self._sent.at))

    def close(self) -> None:
        """Close the connections."""
        self._publisher.close()


@contextmanager
def _stream(pipeline: Pipeline, trigger: float) -> Iterator[StreamProcess]:
    """The stream, checks on, from the moment in which it waits for messages."""
    environment = {"STREAM_TRIGGER_SECONDS": f"{trigger:g}", "CHECKS_ENABLED": "true"}
    stream = StreamProcess(pipeline, environment=environment)
    try:
        yield stream
    finally:
        stream.process.terminate()
        stream.wait()


def measure(pipeline: Pipeline, trigger: float, rates: list[int], seconds: int, look_ms: int) -> list[dict[str, Any]]:
    """One stream and one pace after the other. One row per pace and stage, see :func:`rows_of`."""
    sent, rows = Sent(), []
    sender = Sender(pipeline, sent)
    with _stream(pipeline, trigger) as stream, Looks(pipeline.settings, sent, look_ms / 1000) as looks:
        sender.send(sender.ticks_a_message * 10, 1)
        _wait_until_checked(looks, sent, stream)
        for rate in rates:
            sender.send(rate, WARM_UP_SECONDS)
            numbers = sender.send(rate, seconds)
            _wait_until_checked(looks, sent, stream)
            if looks.problem:
                raise TickledgerError(f"a run does not count: {looks.problem}")
            rows += rows_of(sent, looks, numbers, rate, sender.ticks_a_message)
    sender.close()
    problem = next(iter(reconcile(pipeline.settings).differences), "")
    return [{"trigger": trigger} | row | {"problem": problem or row["problem"]} for row in rows]


def rows_of(sent: Sent, looks: Looks, numbers: range, rate: int, ticks_a_message: int) -> list[dict[str, Any]]:
    """One row per stage of a pace: seconds from the producer's send() to the look that saw it.

    rate: ticks a second, wanted; achieved: as they were sent. messages: those that were looked for. p50, p95, p99 and
    longest in seconds. look: the 95th percentile of the seconds between two looks, by which a figure may be too long.
    problem: empty where the pace was held and everything was seen.
    """
    took = sent.at[numbers[-1]] - sent.at[numbers[0]]
    achieved = (len(numbers) - 1) * ticks_a_message / took
    rows = []
    for stage in STAGES:
        wanted = [number for number in numbers if stage != STAGES[0] or number in sent.probes]
        seen = looks.seen[stage]
        delays = pd.Series([seen[number] - sent.at[number] for number in wanted if number in seen])
        problem = f"{len(wanted) - len(delays)} messages were never seen" if len(delays) < len(wanted) else ""
        if achieved < rate * (1 - PACE_SHARE):
            problem = f"the pace was not held: {achieved:,.0f} ticks/s"
        quantiles = {f"p{q}": float(delays.quantile(q / 100)) for q in (50, 95, 99)}
        row = {"rate": rate, "achieved": achieved, "stage": stage, "messages": len(delays)} | quantiles
        rows.append(row | {"longest": float(delays.max()), "look": looks.resolution(stage), "problem": problem})
    return rows


def _wait_until_checked(looks: Looks, sent: Sent, stream: StreamProcess) -> None:
    deadline, last = time.monotonic() + LONGEST_SECONDS, len(sent.at) - 1
    while any(number not in looks.seen[STAGES[2]] for number in (last, last - 1)):
        assert stream.process.poll() is None, stream.output[-2000:]
        if looks.problem or time.monotonic() > deadline:
            return
        time.sleep(0.1)


def run(servers: Instance, triggers: list[float], rates: list[int], seconds: int, look_ms: int) -> pd.DataFrame:
    """Each trigger with a stream and stores of its own; says before each how long all of it still takes."""
    a_rate = WARM_UP_SECONDS + seconds
    costs = [START_SECONDS + len(rates) * (a_rate + trigger + 3) for trigger in triggers]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(servers, Path(folder))
        for number, trigger in enumerate(triggers):
            left = sum(costs[number:]) / 60
            print(
                f"trigger {trigger:g} s, at {', '.join(map(str, rates))} ticks/s: about {left:.0f} min left", flush=True
            )
            with bench.stores() as pipeline:
                rows += measure(pipeline, trigger, rates, seconds, look_ms)
    return pd.DataFrame(rows)


def print_rows(rows: pd.DataFrame, console: Console) -> None:
    """One line per trigger and pace, with p50 / p95 / p99 of each stage."""
    table = Table(title="Seconds from send to …: p50 / p95 / p99", title_justify="left")
    for column in ("trigger (s)", "ticks/s", "achieved", *STAGES, "problem"):
        table.add_column(column, justify="right")
    lines: dict[tuple[float, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows.to_dict("records"):
        lines[row["trigger"], row["rate"]].append(row)  # type: ignore[arg-type]
    for (trigger, rate), stages in lines.items():
        figures = [f"{one['p50']:.2f} / {one['p95']:.2f} / {one['p99']:.2f}" for one in stages]
        problems = next((one["problem"] for one in stages if one["problem"]), "")
        table.add_row(f"{trigger:g}", f"{rate:,}", f"{stages[0]['achieved']:,.0f}", *figures, problems)
    console.print(table)


def _numbers(option: str, text: str, low: float, high: float) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or any(not low <= number <= high for number in numbers):
        raise ConfigurationError(f"{option} is {text!r}; it should be numbers from {low:g} to {high:g}, with commas")
    return numbers


def main(
    rates: Annotated[str, typer.Option(help="Ticks a second, separated by commas.")] = "100,1000,5000",
    triggers: Annotated[str, typer.Option(help="STREAM_TRIGGER_SECONDS, separated by commas.")] = "0,2,10",
    seconds: Annotated[int, typer.Option(min=2, help="How long each pace is measured.")] = 60,
    look_ms: Annotated[int, typer.Option(min=10, help="Milliseconds between two looks at a store.")] = 50,
    instance: Annotated[str, typer.Option(help="The servers' instance, which is started for it.")] = "bench",
    keep: Annotated[bool, typer.Option("--record", help="Write docs/performance.* anew from this run.")] = False,
) -> None:
    """Measure from the producer's send until a tick can be read in Cassandra, in `volume_today`, and as checked.

    Exit code 1: a pace was not held, a message never came, or the books do not agree. A store that cannot be asked or
    a wrong volume ends it at once.
    """
    paces = [round(rate) for rate in _numbers("--rates", rates, 20, 1_000_000)]
    pauses = _numbers("--triggers", triggers, 0, 3600)
    servers = Instance(instance)
    with servers.started():
        rows = run(servers, pauses, paces, seconds, look_ms)
    print_rows(rows, Console(highlight=False, width=150))
    if keep:
        record_latency(rows, seconds)
    if rows.problem.any():
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m benchmarks.latency"))
