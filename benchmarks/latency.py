"""`make bench-latency`: how long a tick takes from the producer until it has landed and is checked.

The ledger has each batch's times and offsets, and the sender remembers when it sent each message. So nobody looks into
the stores meanwhile, and every message counts.
"""

import threading
import time
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from benchmarks.bench import InstanceName, Target, bench, command, say, show, stream
from benchmarks.load import trade
from commands.reconcile import reconcile
from producer.companies import read_companies, read_ladder
from producer.market import Market
from producer.publish import Publisher
from tests.support.pipeline import Pipeline, StreamProcess
from tickledger.errors import TickledgerError

#: Seconds at a pace before its messages count, and after which what was sent last has not come through.
WARM_UP_SECONDS, LONGEST_SECONDS = 5, 180
STAGES = ("in Cassandra", "in MySQL", "checked")
RATES, TRIGGERS = [100.0, 1000.0, 5000.0], [0.0, 2.0, 10.0]
Times = np.ndarray[Any, Any]


class Sender:
    """Sends messages of one tick a company at a pace of ticks a second. `at` has the seconds since 1970 of each."""

    def __init__(self, pipeline: Pipeline) -> None:
        companies = read_companies(pipeline.settings)
        self._market, self._ids = Market(companies, read_ladder(pipeline.settings), seed=1), count(1)
        self._publisher = Publisher(pipeline.settings, pipeline.settings.kafka_topic, threading.Event())
        self.ticks_a_message, self.at = len(companies), list[float]()
        self.close = self._publisher.close

    def send(self, pace: float, seconds: float) -> range:
        """Send for so long; returns the numbers of the messages. A message that is late does not delay the next."""
        a_second, first, began = pace / self.ticks_a_message, len(self.at), time.monotonic()
        for number in range(round(a_second * seconds)):
            time.sleep(max(began + number / a_second - time.monotonic(), 0))
            message = trade(self._market, self._ids, datetime.now(UTC))
            self.at.append(time.time())
            self._publisher.send(message)
        self._publisher.flush()
        return range(first, len(self.at))


def measure(pipeline: Pipeline, trigger: float, paces: list[float], seconds: int) -> list[dict[str, Any]]:
    """One stream, one pace after the other; one row per pace. Raises TickledgerError if the books do not agree."""
    sender, sent = Sender(pipeline), []
    with stream(pipeline, STREAM_TRIGGER_SECONDS=f"{trigger:g}", CHECKS_ENABLED="true") as running:
        sender.send(sender.ticks_a_message * 10, 1)
        _wait_until_checked(pipeline, len(sender.at), running)
        for pace in paces:
            sender.send(pace, WARM_UP_SECONDS)
            sent.append(sender.send(pace, seconds))
            _wait_until_checked(pipeline, len(sender.at), running)
    sender.close()
    if differences := reconcile(pipeline.settings).differences:
        raise TickledgerError(f"the run does not count: {differences[0]}")
    ledger = pipeline.rows(
        "SELECT o.kafka_partition, o.from_offset, o.until_offset, b.landed_at, b.commit_seconds, b.checked_at"
        " FROM landed_offsets o JOIN landed_batches b ON b.batch_id = o.batch_id"
    )
    found = delays(np.array(sender.at), ledger)
    rows = []
    for pace, part in zip(paces, sent, strict=True):
        achieved = (len(part) - 1) * sender.ticks_a_message / (sender.at[part[-1]] - sender.at[part[0]])
        quantiles = np.quantile(found[part.start : part.stop], (0.5, 0.95, 0.99), axis=0).T
        stages = {stage: " / ".join(f"{one:.2f}" for one in of) for stage, of in zip(STAGES, quantiles, strict=True)}
        rows.append({"trigger (s)": trigger, "ticks/s": pace, "achieved": achieved} | stages)
    return rows


def delays(sent_at: Times, ledger: list[tuple[Any, ...]]) -> Times:
    """Seconds from each message's send to each stage, one row per message; the producer fills partitions in turn.

    `ledger` has a batch's partition, first offset, end, landed_at, commit_seconds and checked_at. Cassandra was written
    by `landed_at` at the latest, and MySQL committed `commit_seconds` later.
    """
    stages = np.full((len(sent_at), len(STAGES)), np.nan)
    for partition, start, until, landed_at, commit, checked_at in ledger:
        landed, checked = (at.replace(tzinfo=UTC).timestamp() for at in (landed_at, checked_at))
        stages[start * 2 + partition : until * 2 + partition : 2] = landed, landed + float(commit), checked
    return stages - sent_at[:, None]


def _wait_until_checked(pipeline: Pipeline, messages: int, running: StreamProcess) -> None:
    """Wait until this many messages have landed and are checked. Raises TickledgerError after three minutes."""
    deadline = time.monotonic() + LONGEST_SECONDS
    unchecked = "SELECT COUNT(*) FROM landed_batches WHERE verdict = 'unchecked' OR commit_seconds IS NULL"
    while not pipeline.ledger_covers(messages) or pipeline.rows(unchecked)[0][0]:
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise TickledgerError(f"{messages:,} messages were not landed and checked:\n{running.output[-2000:]}")
        time.sleep(0.5)


def main(
    rate: Annotated[list[float], typer.Option(min=20, help="Ticks a second; may be given again.")] = RATES,
    trigger: Annotated[list[float], typer.Option(min=0, help="Trigger, in seconds; may be given again.")] = TRIGGERS,
    seconds: Annotated[int, typer.Option(min=2, help="How long each pace is measured.")] = 60,
    instance: InstanceName = "bench",
    to: Target = None,
) -> None:
    """Measure from the producer's send until a tick is in Cassandra, in MySQL, and checked.

    Exit code 1: a message never came, or the books do not agree. If `achieved` is short of ticks/s, the producer
    could not keep the pace.
    """
    rows = []
    with bench(instance) as servers:
        for one in trigger:
            say(f"a trigger of {one:g} s, at {', '.join(f'{pace:g}' for pace in rate)} ticks/s")
            with servers.stores() as pipeline:
                rows += measure(pipeline, one, rate, seconds)
    show(f"Seconds from send to …: p50 / p95 / p99, {seconds} s a pace", pd.DataFrame(rows), to)


if __name__ == "__main__":
    command("python -m benchmarks.latency", main)
