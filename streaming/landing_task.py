"""What one Spark task does with its part of a micro-batch: decode, sort out, write Cassandra, add up.

Runs in Spark's Python workers, through mapInArrow. A task may run twice: its writes are upserts, and only the report
of the attempt that Spark counts reaches the driver.
"""

import gc
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streaming.decode_columns import ColumnDecoder, DecodedColumns
from streaming.tick_columns import KeyColumns, TickColumns, TickKey
from streaming.tick_sink import Moments, TickSink, session_of_this_process
from tickledger.decode import DeadLetter
from tickledger.errors import TickledgerError
from tickledger.settings import Settings
from tickledger.trading_days import TradingDays

#: What a task returns: one row per task, a pickled PartitionReport. Arrow carries it as opaque bytes.
REPORT_SCHEMA = "report binary"

#: A message's element in its Kafka partition: (offset, position in the array).
Element = tuple[int, int]
#: What ticks are summed by: trade day, sector, and the values of the fields that tickledger.ledger.summed_by names.
SumKey = tuple[int, str, tuple[Any, ...]]


@dataclass
class SectorSum:
    """Sums of one :data:`SumKey`: ticks, shares, first and last created_at in milliseconds."""

    ticks: int = 0
    volume: int = 0
    first_ms: int = 2**63 - 1
    last_ms: int = -(2**63)

    def merge(self, other: "SectorSum") -> None:
        """Count another task's ticks of the same key in."""
        self.ticks += other.ticks
        self.volume += other.volume
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)


@dataclass
class PartitionReport:
    """What a task did with one Kafka partition. `keys` are the ticks that it landed.

    Where it `left` messages to the next batch, since this one has no more room, it ends with its last offset.
    If there is an `error` of a store, nothing else counts.
    """

    partition: int
    first_offset: int = 2**63 - 1
    last_offset: int = -1
    messages: int = 0
    value_bytes: int = 0
    left: bool = False
    ticks_read: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    late_ticks: int = 0
    sums: dict[SumKey, SectorSum] = field(default_factory=lambda: defaultdict(SectorSum))
    keys: KeyColumns = field(default_factory=KeyColumns)
    error: TickledgerError | None = None

    def taken(self, messages: pa.RecordBatch, room: float) -> pa.RecordBatch:
        """The first of some messages that go into `room` bytes with those before; a partition's first one always does.

        Nothing but their sizes decides, so that an attempt which dies is tried again with the same messages.
        """
        ends = np.cumsum(pc.fill_null(pc.binary_length(messages.column("value")), 0).to_numpy())
        fit = 0 if self.left else int(np.searchsorted(ends, room - self.value_bytes, side="right"))
        if not self.messages:
            fit = max(fit, 1)
        self.left |= fit < len(ends)
        self.value_bytes += int(ends[fit - 1]) if fit else 0
        return messages.slice(0, fit)

    def add(self, offsets: NDArray[np.int64], decoded: DecodedColumns) -> None:
        """Count messages in, and what was found in them."""
        self.first_offset = min(self.first_offset, int(offsets.min()))
        self.last_offset = max(self.last_offset, int(offsets.max()))
        self.messages += len(offsets)
        self.ticks_read += len(decoded.ticks) + len(decoded.dead)
        self.dead_letters += len(decoded.dead)

    def sum_up(self, ticks: TickColumns, own: tuple[Any, ...] = ()) -> None:
        """Add ticks of one company and day, and with these own values, which land, to their sums."""
        # Summed up in Python, whose integers do not overflow, and which is faster where there are few.
        volume, created_ms = sum(ticks.volume.tolist()), ticks.created_ms.tolist()
        one = SectorSum(len(ticks), volume, min(created_ms), max(created_ms))
        self.sums[int(ticks.trade_day[0]), ticks.sector[0], own].merge(one)


@dataclass(frozen=True)
class LandingTask:
    """The work of one micro-batch, sent to the workers with everything that they need.

    `ends` is the ledger's end of each partition: a stored tick from before it is landed for good, unless its offset is
    `not_landed`, in one of those (partition, from, until): there a batch died whose messages were lost then. Up to
    `recover_until`, an attempt that died may have left rows that no longer belong. `newest_landed_ms` is the latest
    created_at landed so far: only ticks up to it can be duplicates of an earlier batch. `losers` are, by partition, the
    ticks of which a lower partition of the batch has a copy: however many of them a partition brings, none lands. By
    partition, `room` is how many bytes of messages the batch takes; what comes behind them is left alone. `summed_by`
    is that of the ledger. `shares` are those of `profile`, by ticker.
    """

    settings: Settings
    sectors: dict[str, str]
    days: TradingDays
    ends: dict[int, int]
    recover_until: dict[int, int]
    newest_landed_ms: int | None
    today: int
    room: Mapping[int, float]
    losers: Mapping[int, frozenset[TickKey]] = field(default_factory=dict)
    not_landed: tuple[tuple[int, int, int], ...] = ()
    summed_by: tuple[str, ...] = ()
    shares: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Land what Spark hands over; yields one row of :data:`REPORT_SCHEMA` for each Kafka partition met."""
        reports: dict[int, PartitionReport] = {}
        landed: dict[int, set[TickKey]] = defaultdict(set)
        # A task makes objects by the hundred thousand and hardly a cycle: looking for some costs a quarter of its time.
        gc.disable()
        try:
            sink = TickSink(session_of_this_process(self.settings))
            decoder = ColumnDecoder(self.sectors, self.days, self.settings.feed_file, self.shares)
            for batch in batches:
                for partition in pc.unique(batch.column("partition")).to_pylist():
                    part = batch.filter(pc.equal(batch.column("partition"), partition))
                    report = reports.setdefault(partition, PartitionReport(partition))
                    if len(part := report.taken(part, self.room.get(partition, 0))):
                        ticks = self._take_apart(part, decoder, sink, report)
                        self._write_ticks(ticks, landed[partition], sink, report)
            sink.drain()
        # A store's failure travels as a value: raised here, it would come with Spark's traces and its task retries.
        except TickledgerError as error:
            reports = {-1: PartitionReport(-1, error=error)}
        finally:
            gc.enable()
        rows = [pickle.dumps(report) for report in reports.values()]
        yield pa.RecordBatch.from_arrays([pa.array(rows, pa.binary())], names=["report"])

    def _take_apart(
        self, messages: pa.RecordBatch, decoder: ColumnDecoder, sink: TickSink, report: PartitionReport
    ) -> TickColumns:
        offsets, times_ms = (messages.column(name).to_numpy() for name in ("offset", "time_ms"))
        decoded = decoder.decode(offsets, times_ms, messages.column("value").to_pylist())
        report.add(offsets, decoded)
        for (offset, _), letter in decoded.dead.items():
            sink.write_dead(self.settings.kafka_topic, report.partition, offset, letter)
        self._forget_what_died(report.partition, offsets, decoded.dead, sink)
        return decoded.ticks

    def _write_ticks(self, ticks: TickColumns, landed: set[TickKey], sink: TickSink, report: PartitionReport) -> None:
        """Write those that are no copies; `landed` are the keys that the task has written of this partition."""
        keys = ticks.keys()
        new = set(keys) - landed
        new -= self._landed_before(ticks, sink)
        new -= self.losers.get(report.partition, frozenset())
        if len(new) < len(keys):
            # Of several copies, the first one lands.
            places = {key: place for place, key in reversed(list(enumerate(keys))) if key in new}
            ticks = ticks.take(sorted(places.values()))
        report.duplicates += len(keys) - len(new)
        landed |= new
        report.late_ticks += int((ticks.trade_day < self.today).sum())
        report.keys.add(ticks)
        for some in ticks.by_company_and_day():
            for own, ticks_of_it in some.by_own(self.summed_by) if self.summed_by else (((), some),):
                report.sum_up(ticks_of_it, own)
            sink.write(some, report.partition)

    def _landed_before(self, ticks: TickColumns, sink: TickSink) -> set[TickKey]:
        """The keys of ticks that an earlier batch has landed: stored, with an offset before the ledger's end."""
        if self.newest_landed_ms is None:
            return set()
        old = ticks.take(ticks.created_ms <= self.newest_landed_ms)
        return {
            (stored.ticker, stored.created_ms, stored.id)
            for stored in sink.stored(map(_moments_of, old.by_company_and_day()))
            if self._has_landed(stored.partition, stored.offset)
        }

    def _has_landed(self, partition: int, offset: int) -> bool:
        return offset < self.ends.get(partition, 0) and not any(
            partition == skipped and start <= offset < until for skipped, start, until in self.not_landed
        )

    def _forget_what_died(
        self, partition: int, offsets: NDArray[np.int64], dead: dict[Element, DeadLetter], sink: TickSink
    ) -> None:
        """Delete what an attempt that never reached the ledger decided otherwise, under another `profile`."""
        recovering = offsets[offsets < self.recover_until.get(partition, 0)]
        if not len(recovering):
            return
        topic, first, last = self.settings.kafka_topic, int(recovering.min()), int(recovering.max())
        for place in list(sink.dead_positions(topic, partition, first, last)):
            if place not in dead:
                sink.forget_dead(topic, partition, *place)
        refused = TickColumns.of(
            (tick, offset) for (offset, _), letter in dead.items() for tick in letter.ticks if first <= offset <= last
        )
        # Those that are stored with these very offsets.
        mine = {
            (tick.ticker, tick.created_ms, tick.id, partition, offset): tick
            for tick, offset in zip(refused.ticks(), refused.offset.tolist(), strict=True)
        }
        for stored in sink.stored(map(_moments_of, refused.by_company_and_day())):
            if tick := mine.get(stored):
                sink.forget_tick(tick)


def _moments_of(ticks: TickColumns) -> Moments:
    """When the ticks of one company and day were made."""
    return Moments([ticks.ticker[0]], int(ticks.trade_day[0]), sorted(set(ticks.created_ms.tolist())))
