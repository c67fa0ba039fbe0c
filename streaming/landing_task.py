"""What one Spark task does with its part of a micro-batch: decode, sort out, write Cassandra, add up.

Runs in Spark's Python workers, through mapInArrow. A task may run twice: its writes are upserts, and only the report
of the attempt that Spark counts reaches the driver.
"""

import gc
import pickle
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streaming.conflicts import conflict_rule, offsets_of_conflicts
from streaming.decode_columns import ColumnDecoder, DecodedColumns
from streaming.tick_columns import KeyColumns, TickColumns, TickKey
from streaming.tick_sink import StoredTick, TickSink, moments_of, session_of_this_process
from tickledger.decode import DeadLetter
from tickledger.errors import TickledgerError
from tickledger.ledger import has_landed
from tickledger.revisions import Place, Revision
from tickledger.settings import Settings
from tickledger.trading_days import TradingDays
from tickledger.unknown_fields import names_in

#: What a task returns: one row per task, a pickled PartitionReport. Arrow carries it as opaque bytes.
REPORT_SCHEMA = "report binary"

#: Keys of ticks that the reports of a batch bring to the driver, 20 bytes each, and as many spans of tickers. A batch
#: of the default STREAM_MAX_MEGABYTES_PER_BATCH has fewer.
MOST_KEYS = 1_000_000

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
    """What a task did with one Kafka partition. `keys` are the ticks that it landed, `came` those that were awaited.

    `spans` are the first and the last created_at, in milliseconds, of each ticker that it landed ticks of. Of keys and
    of spans it sends no more than its share: None in place of more. `revisions` are the corrections and cancellations
    that it has written, and where they stand. `unknown_fields` are the names of fields that came with ticks and that
    nobody described.

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
    keys: KeyColumns | None = field(default_factory=KeyColumns)
    spans: dict[str, tuple[int, int]] | None = field(default_factory=dict)
    came: set[TickKey] = field(default_factory=set)
    revisions: list[tuple[Place, Revision]] = field(default_factory=list)
    unknown_fields: set[str] = field(default_factory=set)
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
        self.ticks_read += len(decoded.ticks) + len(decoded.dead) + len(decoded.revisions)
        self.dead_letters += len(decoded.dead)
        if decoded.ticks.extra is not None:
            self.unknown_fields |= names_in(decoded.ticks.extra.tolist())
        self.unknown_fields |= names_in(one.extra for one in decoded.revisions.values())

    def sum_up(self, ticks: TickColumns, own: tuple[Any, ...] = ()) -> None:
        """Add ticks of one company and day, and with these own values, which land, to their sums."""
        # Summed up in Python, whose integers do not overflow, and which is faster where there are few.
        volume, created_ms = sum(ticks.volume.tolist()), ticks.created_ms.tolist()
        one = SectorSum(len(ticks), volume, min(created_ms), max(created_ms))
        self.sums[int(ticks.trade_day[0]), ticks.sector[0], own].merge(one)
        assert self.spans is not None
        first, last = self.spans.get(ticks.ticker[0], (one.first_ms, one.last_ms))
        self.spans[ticks.ticker[0]] = min(first, one.first_ms), max(last, one.last_ms)

    def cut_to(self, most: int) -> None:
        """Leave out keys, or spans, of which there are more: what reaches the driver does not grow with the ticks."""
        if self.keys is not None and len(self.keys) > most:
            self.keys = None
        if self.spans is not None and len(self.spans) > most:
            self.spans = None


@dataclass(frozen=True)
class LandingTask:
    """The work of one micro-batch, sent to the workers with everything that they need.

    `ends` is the ledger's end of each partition: a stored tick from before it is landed for good, unless its offset is
    `not_landed`, in one of those (partition, from, until): there a batch died whose messages were lost then. Up to
    `recover_until`, an attempt that died may have left rows that no longer belong. `newest_landed_ms` is the latest
    created_at landed so far: only ticks up to it can be duplicates of an earlier batch. `winners` are the ticks that
    several partitions of the batch bring, each with the lowest of these: however many of them another partition brings,
    none lands. Once the `winners_stand` in Cassandra, the losers are held against them. By partition, `room` is how
    many bytes of messages the batch takes; what comes behind them is left alone. `summed_by` is that of the ledger.
    `shares` are those of `profile`, by ticker. Corrections wait for the ticks that are `awaited`. A report brings at
    most `most_keys` keys, and as many spans.
    """

    settings: Settings
    sectors: dict[str, str]
    days: TradingDays
    ends: dict[int, int]
    recover_until: dict[int, int]
    newest_landed_ms: int | None
    today: int
    room: Mapping[int, float]
    winners: Mapping[TickKey, int] = field(default_factory=dict)
    winners_stand: bool = False
    not_landed: tuple[tuple[int, int, int], ...] = ()
    summed_by: tuple[str, ...] = ()
    shares: Mapping[str, int] = field(default_factory=dict)
    awaited: frozenset[TickKey] = frozenset()
    most_keys: int = MOST_KEYS

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Land what Spark hands over; yields one row of :data:`REPORT_SCHEMA` for each Kafka partition met."""
        reports: dict[int, PartitionReport] = {}
        landed: dict[int, set[TickKey]] = defaultdict(set)
        # A task makes objects by the hundred thousand and hardly a cycle: looking for some costs a quarter of its time.
        gc.disable()
        try:
            sink = TickSink(session_of_this_process(self.settings))
            decoder = self.decoder()
            for part, report in self.taken(batches, reports):
                self._land(part, decoder, landed[report.partition], sink, report)
            sink.drain()
        # A store's failure travels as a value: raised here, it would come with Spark's traces and its task retries.
        except TickledgerError as error:
            reports = {-1: PartitionReport(-1, error=error)}
        finally:
            gc.enable()
        for report in reports.values():
            report.cut_to(self.most_keys)
        rows = [pickle.dumps(report) for report in reports.values()]
        yield pa.RecordBatch.from_arrays([pa.array(rows, pa.binary())], names=["report"])

    def decoder(self) -> ColumnDecoder:
        """What makes ticks of messages."""
        return ColumnDecoder(self.sectors, self.days, self.settings.feed_file, self.shares)

    def taken(
        self, batches: Iterable[pa.RecordBatch], reports: dict[int, PartitionReport]
    ) -> Iterator[tuple[pa.RecordBatch, PartitionReport]]:
        """The messages that go into the batch, some of one partition at a time, with the report of that one."""
        for batch in batches:
            for partition in pc.unique(batch.column("partition")).to_pylist():
                part = batch.filter(pc.equal(batch.column("partition"), partition))
                report = reports.setdefault(partition, PartitionReport(partition))
                if len(part := report.taken(part, self.room.get(partition, 0))):
                    yield part, report

    def _land(
        self,
        messages: pa.RecordBatch,
        decoder: ColumnDecoder,
        landed: set[TickKey],
        sink: TickSink,
        report: PartitionReport,
    ) -> None:
        """Land some messages of a partition; `landed` are the keys that the task has written of it."""
        offsets, times_ms = (messages.column(name).to_numpy() for name in ("offset", "time_ms"))
        values = messages.column("value").to_pylist()
        decoded = decoder.decode(offsets, times_ms, values)
        before = self._landed_before(decoded.ticks, sink)
        new, keys = self._new(decoded.ticks, landed, before, report.partition)
        landed |= keys
        report.came |= keys & self.awaited
        self._write_ticks(new, sink, report)
        if len(new) < len(decoded.ticks):
            copied = before | self._landed_now(decoded.ticks, keys, before, sink, report.partition)
            feed = self.settings.feed_file
            computed = () if feed is None else feed.computed_fields
            places = np.flatnonzero(np.isin(offsets, offsets_of_conflicts(decoded.ticks, copied, computed))).tolist()
            odd = [(int(offsets[one]), int(times_ms[one]), values[one]) for one in places]
            decoded = decoder.decode_again(decoded, odd, conflict_rule(copied, computed)) if odd else decoded
        report.duplicates += len(decoded.ticks) - len(new)
        report.add(offsets, decoded)
        self._write_others(decoded, sink, report)
        self._forget_what_died(report.partition, offsets, decoded.dead, landed, sink)

    def _write_others(self, decoded: DecodedColumns, sink: TickSink, report: PartitionReport) -> None:
        for (offset, _), letter in decoded.dead.items():
            sink.write_dead(self.settings.kafka_topic, report.partition, offset, letter)
        for element, revision in decoded.revisions.items():
            place = Place(report.partition, *element)
            sink.write_revision(place, revision)
            # The driver asks Cassandra for the values, which may be many: of which ticks is all that it needs to know.
            report.revisions.append((place, revision._replace(values=None, extra=None)))

    def _new(
        self, ticks: TickColumns, landed: set[TickKey], before: Mapping[TickKey, StoredTick], partition: int
    ) -> tuple[TickColumns, set[TickKey]]:
        """Those that are no copies, of several the first one, and their keys."""
        keys = ticks.keys()
        new = set(keys) - landed
        new -= before.keys()
        new -= self._lost(new, partition)
        if len(new) == len(keys):
            return ticks, new
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key in new}
        return ticks.take(sorted(places.values())), new

    def _lost(self, keys: set[TickKey], partition: int) -> set[TickKey]:
        """Those that a partition leaves to a lower one."""
        return {key for key in self.winners.keys() & keys if self.winners[key] < partition}

    def _write_ticks(self, ticks: TickColumns, sink: TickSink, report: PartitionReport) -> None:
        report.late_ticks += int((ticks.trade_day < self.today).sum())
        assert report.keys is not None
        report.keys.add(ticks)
        for some in ticks.by_company_and_day():
            for own, ticks_of_it in some.by_own(self.summed_by) if self.summed_by else (((), some),):
                report.sum_up(ticks_of_it, own)
            sink.write(some, report.partition)

    def _landed_now(
        self,
        ticks: TickColumns,
        new: Collection[TickKey],
        before: Mapping[TickKey, StoredTick],
        sink: TickSink,
        partition: int,
    ) -> dict[TickKey, StoredTick]:
        """What this very batch has landed of which some ticks are copies, as it is stored; `new` are its first ones."""
        now = [key for key in ticks.keys() if key not in before]  # noqa: SIM118  # no dict
        if len(now) == len(new):
            return {}
        left = Counter(now)
        left.subtract(new)
        wanted = {key for key, copies in left.items() if copies}
        if not self.winners_stand:
            # Of the others' winners nobody knows yet whether they stand there: they are written at the same time.
            wanted -= self._lost(wanted, partition)
        if not wanted:
            return {}
        sink.drain()
        asked = ticks.take([place for place, key in enumerate(ticks.keys()) if key in wanted])
        stored = sink.stored(map(moments_of, asked.by_company_and_day()))
        return {key: one for one in stored if (key := one[:3]) in wanted}

    def _landed_before(self, ticks: TickColumns, sink: TickSink) -> dict[TickKey, StoredTick]:
        """What of some ticks an earlier batch has landed: stored, with an offset before the ledger's end."""
        if self.newest_landed_ms is None:
            return {}
        old = ticks.take(ticks.created_ms <= self.newest_landed_ms)
        return {
            one[:3]: one
            for one in sink.stored(map(moments_of, old.by_company_and_day()))
            if has_landed(self.ends, self.not_landed, one.partition, one.offset)
        }

    def _forget_what_died(
        self,
        partition: int,
        offsets: NDArray[np.int64],
        dead: dict[Element, DeadLetter],
        landed: Collection[TickKey],
        sink: TickSink,
    ) -> None:
        """Delete what an attempt that never reached the ledger decided otherwise, under another `profile`.

        A message may hold a tick that has `landed` beside a copy that cannot.
        """
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
            if (tick.ticker, tick.created_ms, tick.id) not in landed
        }
        for stored in sink.stored(map(moments_of, refused.by_company_and_day())):
            if tick := mine.get(stored[:5]):
                sink.forget_tick(tick)
        for (offset, _), letter in dead.items():
            for position, revision in letter.revisions if first <= offset <= last else ():
                sink.forget_revision(Place(partition, offset, position), revision)
