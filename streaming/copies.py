"""Ticks that several Kafka partitions of one batch have brought: who finds them, and which copy stays.

Nothing that reaches the driver grows with the batch's ticks. Each task says, by ticker, from when to when the ticks
were made that it landed. Where no ticker's times meet in two partitions, as in a topic keyed by ticker, there are no
copies. Else the driver compares the keys of all ticks, if they are few, or the workers do.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from streaming.landing_task import LandingTask, PartitionReport
from streaming.tick_columns import TickColumns, TickKey

KEY_SCHEMA = "ticker string, created_ms bigint, id bigint, partition int"
_COLUMNS = {"ticker": pa.string(), "created_ms": pa.int64(), "id": pa.int64(), "partition": pa.int32()}

#: Ticks that several partitions have brought, each with the lowest of these, whose first copy stays.
Winners = dict[TickKey, int]
#: Asks the workers, of some tickers' ticks or, for None, of all.
SecondLook = Callable[[Collection[str] | None], Winners]


def winning_partitions(reports: list[PartitionReport], look: SecondLook) -> Winners:
    """The ticks that several partitions have landed, by what these report or else by a second look; empty if none."""
    tickers = meeting_tickers(reports)
    if tickers is not None and not tickers:
        return {}
    if any(report.keys is None for report in reports):
        return look(tickers)
    return _winners_by_keys(reports)


def meeting_tickers(reports: list[PartitionReport]) -> set[str] | None:
    """The tickers of which two partitions have landed ticks, of times that meet; None if that may be any."""
    if len(reports) < 2:
        return set()
    spans: dict[str, list[tuple[int, int]]] = {}
    for report in reports:
        if report.spans is None:
            return None
        for ticker, span in report.spans.items():
            spans.setdefault(ticker, []).append(span)
    # Sorted by their beginnings, some two meet only if two neighbours do.
    return {
        ticker
        for ticker, several in spans.items()
        if len(several) > 1 and any(later[0] <= before[1] for before, later in pairwise(sorted(several)))
    }


def _winners_by_keys(reports: list[PartitionReport]) -> Winners:
    keys = [report.keys for report in reports if report.keys is not None]
    # Sorted, not numpy's `unique`, which takes 200 times as long.
    fingerprints = np.sort(np.concatenate([one.fingerprints() for one in keys]))
    if not (fingerprints[1:] == fingerprints[:-1]).any():
        return {}
    first: Winners = {}
    several: set[TickKey] = set()
    for report, one in zip(reports, keys, strict=True):
        mine = one.keys()
        several |= mine & first.keys()
        first |= dict.fromkeys(mine - first.keys(), report.partition)
    return {key: first[key] for key in several}


def second_look(messages: DataFrame, task: LandingTask, tickers: Collection[str] | None) -> Winners:
    """What :func:`winning_partitions` asks of the workers: they decode the messages again, and compare the keys.

    The driver gets the copies alone. Ticks that an earlier batch has landed may be among them; no pass lands these.
    """
    keys = messages.mapInArrow(_Keys(task, None if tickers is None else frozenset(tickers)), KEY_SCHEMA)
    key = ("ticker", "created_ms", "id")
    # As many tasks as there are partitions: hundreds of thousands of keys each.
    lowest, highest = F.min("partition").alias("lowest"), F.max("partition").alias("highest")
    found = keys.repartition(len(task.room), *key).groupBy(*key).agg(lowest, highest)
    rows = found.where(F.col("lowest") < F.col("highest")).select(*key, "lowest").collect()
    return {(row.ticker, row.created_ms, row.id): row.lowest for row in rows}


@dataclass(frozen=True)
class _Keys:
    """Yields the keys of the valid ticks of what a task takes: of :data:`KEY_SCHEMA`, only of some tickers if given."""

    task: LandingTask
    tickers: Collection[str] | None

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        decoder, reports = self.task.decoder(), dict[int, PartitionReport]()
        for part, report in self.task.taken(batches, reports):
            offsets, times_ms = (part.column(name).to_numpy() for name in ("offset", "time_ms"))
            ticks = self._asked(decoder.decode(offsets, times_ms, part.column("value").to_pylist()).ticks)
            report.messages += len(part)
            columns = (ticks.ticker, ticks.created_ms, ticks.id, np.full(len(ticks), report.partition, np.int32))
            arrays = [pa.array(one, kind) for one, kind in zip(columns, _COLUMNS.values(), strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, names=list(_COLUMNS))

    def _asked(self, ticks: TickColumns) -> TickColumns:
        if self.tickers is None:
            return ticks
        return ticks.take([place for place, one in enumerate(ticks.ticker.tolist()) if one in self.tickers])
