"""What the driver does between Spark's job and the ledger, with made-up reports of as many partitions and ticks."""

import pickle
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from streaming.copies import Winners, winning_partitions
from streaming.land_batch import sector_volumes
from streaming.landing_task import MOST_KEYS, PartitionReport
from streaming.tick_columns import TickColumns, objects
from tests.support.pipeline import Pipeline
from tickledger.ledger import LandedBatch, Ledger, utc_now

TICKERS, TICKS_A_PART, SECTORS = 1_024, 5_000, 9


def made_up(ticks: int, partitions: int, *, keyed: bool) -> Iterator[bytes]:
    """A report per partition, as its task sends it; `keyed` by ticker, or each partition has ticks of all."""
    made, day = int(datetime.now(UTC).timestamp()) * 1000, int(datetime.now(UTC).timestamp()) // 86_400
    each = ticks // partitions
    for partition in range(partitions):
        report = PartitionReport(partition)
        own = np.arange(partition, TICKERS, partitions) if keyed else np.arange(TICKERS)
        for start in range(0, each, TICKS_A_PART):
            number = np.arange(start, min(start + TICKS_A_PART, each))
            company = own[number % len(own)]
            ones, names = np.ones(len(number), np.int64), objects([f"T{one:05}" for one in company])
            sectors = objects([f"S{one % SECTORS}" for one in company])
            key = (names, made + number, number * partitions + partition)
            some_ticks = TickColumns(*key, ones, ones, ones, sectors, ones * day, number)
            assert report.keys is not None
            report.keys.add(some_ticks)
            for some in some_ticks.by_company_and_day():
                report.sum_up(some)
        report.cut_to(MOST_KEYS // partitions)
        yield pickle.dumps(report)


def of_the_driver(ticks: int, partitions: int, *, keyed: bool) -> tuple[float, float]:
    """Megabytes that reach the driver, and its seconds for them, without those of a second look."""
    rows = list(made_up(ticks, partitions, keyed=keyed))
    began = time.monotonic()
    reports = [pickle.loads(row) for row in rows]  # noqa: S301  # made a moment ago
    assert not winning_partitions(reports, _none)
    sector_volumes(reports)
    return sum(map(len, rows)) / 1e6, time.monotonic() - began


def of_the_ledger(pipeline: Pipeline, partitions: int) -> float:
    """Median seconds of five batches' transactions, each with a range of each partition."""
    ledger, took = Ledger(pipeline.settings), []
    for number in range(6):
        ranges = dict.fromkeys(range(partitions), (number, number + 1))
        batch = LandedBatch(number + 1, "topic", "id", ranges, partitions, 0, 0, 0, 0, [], utc_now(), 0.5)
        began = time.monotonic()
        ledger.commit(batch)
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def _none(_tickers: object) -> Winners:
    return {}
