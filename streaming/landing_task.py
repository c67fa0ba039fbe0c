"""What one Spark task does with its part of a micro-batch: decode, sort out, write Cassandra, add up.

Runs in Spark's Python workers, through mapInArrow. A task may run twice: its writes are upserts, and only the report
of the attempt that Spark counts reaches the driver.
"""

import gc
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from streaming.decode import DeadLetter, Decoder
from streaming.errors import ConfigurationError, StoreUnavailable
from streaming.settings import Settings
from streaming.tick import Tick
from streaming.tick_sink import TickSink, session_of_this_process

#: What a task returns: one row per task, a pickled PartitionReport. Arrow carries it as opaque bytes.
REPORT_SCHEMA = "report binary"

#: A message's element: (Kafka partition, offset, position in the array).
Element = tuple[int, int, int]
#: A valid tick, with the partition and offset of the message that brought it.
Found = tuple[Tick, int, int]
#: What makes a tick one tick: (ticker, created_at in milliseconds, id).
TickKey = tuple[str, int, int]


@dataclass
class SectorSum:
    """Sums of one (trade day, sector): ticks, shares, first and last created_at in milliseconds."""

    ticks: int = 0
    volume: int = 0
    first_ms: int = 2**63 - 1
    last_ms: int = -(2**63)

    def add(self, tick: Tick) -> None:
        """Count one tick in."""
        created_ms = tick.created_ms
        self.ticks += 1
        self.volume += tick.volume
        # Once a tick: comparing costs a third of calling min and max.
        if created_ms < self.first_ms:
            self.first_ms = created_ms
        if created_ms > self.last_ms:
            self.last_ms = created_ms

    def merge(self, other: "SectorSum") -> None:
        """Count another task's ticks of the same day and sector in."""
        self.ticks += other.ticks
        self.volume += other.volume
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)


@dataclass
class PartitionReport:
    """What a task did with one Kafka partition. `keys` are the ticks that it landed.

    `unavailable` or `misconfigured` hold the one line of a store's failure, and nothing else counts then.
    """

    partition: int
    first_offset: int
    last_offset: int
    messages: int = 0
    ticks_read: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    late_ticks: int = 0
    sums: dict[tuple[int, str], SectorSum] = field(default_factory=lambda: defaultdict(SectorSum))
    keys: set[TickKey] = field(default_factory=set)
    unavailable: str = ""
    misconfigured: str = ""


class Message(NamedTuple):
    """One Kafka message as Spark's source gives it; the time is in milliseconds since 1970-01-01 UTC."""

    partition: int
    offset: int
    time_ms: int
    value: bytes | None


@dataclass(frozen=True)
class LandingTask:
    """The work of one micro-batch, sent to the workers with everything that they need.

    `ends` is the ledger's end of each partition: a stored tick from before it is landed for good. Up to
    `recover_until`, an attempt that died may have left rows that no longer belong. `newest_landed_ms` is the latest
    created_at landed so far: only ticks up to it can be duplicates of an earlier batch. `losers` are, by partition, the
    ticks of which a lower partition of the batch has a copy: however many of them a partition brings, none lands.
    """

    settings: Settings
    sectors: dict[str, str]
    ends: dict[int, int]
    recover_until: dict[int, int]
    newest_landed_ms: int | None
    today: int
    losers: Mapping[int, frozenset[TickKey]] = field(default_factory=dict)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Land what Spark hands over; yields one row of :data:`REPORT_SCHEMA` for each Kafka partition met."""
        reports: dict[int, PartitionReport] = {}
        # A task makes objects by the hundred thousand and hardly a cycle: looking for some costs a quarter of its time.
        gc.disable()
        try:
            sink = TickSink(session_of_this_process(self.settings))
            decoder = Decoder(self.sectors)
            for batch in batches:
                self._land(batch, decoder, sink, reports)
            sink.drain()
        # A store's failure travels as a value: raised here, it would come with Spark's traces and its task retries.
        except StoreUnavailable as error:
            reports = {-1: PartitionReport(-1, 0, 0, unavailable=str(error))}
        except ConfigurationError as error:
            reports = {-1: PartitionReport(-1, 0, 0, misconfigured=str(error))}
        finally:
            gc.enable()
        rows = [pickle.dumps(report) for report in reports.values()]
        yield pa.RecordBatch.from_arrays([pa.array(rows, pa.binary())], names=["report"])

    def _land(
        self, batch: pa.RecordBatch, decoder: Decoder, sink: TickSink, reports: dict[int, PartitionReport]
    ) -> None:
        found: list[Found] = []
        dead: dict[Element, DeadLetter] = {}
        for message in _messages(batch):
            report = reports.setdefault(
                message.partition, PartitionReport(message.partition, message.offset, message.offset)
            )
            report.last_offset = max(report.last_offset, message.offset)
            report.messages += 1
            decoded = decoder.decode(message.value, message.time_ms)
            report.ticks_read += len(decoded.ticks) + len(decoded.dead)
            partition, offset = message.partition, message.offset
            found.extend([(tick, partition, offset) for _, tick in decoded.ticks])
            dead.update(((partition, offset, letter.position), letter) for letter in decoded.dead)
        self._write_dead(dead, sink, reports)
        self._forget_what_died(batch, dead, sink)
        self._write_ticks(found, sink, reports)

    def _write_dead(self, dead: dict[Element, DeadLetter], sink: TickSink, reports: dict[int, PartitionReport]) -> None:
        for (partition, offset, _), letter in dead.items():
            sink.write_dead(self.settings.kafka_topic, partition, offset, letter)
            reports[partition].dead_letters += 1

    def _write_ticks(self, found: list[Found], sink: TickSink, reports: dict[int, PartitionReport]) -> None:
        landed = self._landed_before(found, sink)
        for tick, partition, offset in found:
            report, key = reports[partition], (tick.ticker, tick.created_ms, tick.id)
            if key in landed or key in report.keys or (self.losers and key in self.losers.get(partition, ())):
                report.duplicates += 1
                continue
            sink.write(tick, partition, offset)
            report.keys.add(key)
            report.sums[tick.trade_day, tick.sector].add(tick)
            report.late_ticks += tick.trade_day < self.today

    def _landed_before(self, found: list[Found], sink: TickSink) -> set[TickKey]:
        """The keys among `found` that an earlier batch has landed: stored, with an offset before the ledger's end."""
        if self.newest_landed_ms is None:
            return set()
        slices: dict[tuple[str, int], set[int]] = defaultdict(set)
        for tick, _, _ in found:
            if tick.created_ms <= self.newest_landed_ms:
                slices[tick.ticker, tick.trade_day].add(tick.created_ms)
        return {
            (stored.ticker, stored.created_ms, stored.id)
            for (ticker, trade_day), times in slices.items()
            for stored in sink.stored(ticker, trade_day, list(times))
            if stored.offset < self.ends.get(stored.partition, 0)
        }

    def _forget_what_died(self, batch: pa.RecordBatch, dead: dict[Element, DeadLetter], sink: TickSink) -> None:
        """Delete what an attempt that never reached the ledger decided otherwise, under another `profile`."""
        spans = [
            (partition, offset)
            for partition, offset in zip(
                batch.column("partition").to_pylist(), batch.column("offset").to_pylist(), strict=True
            )
            if offset < self.recover_until.get(partition, 0)
        ]
        for partition in {partition for partition, _ in spans}:
            offsets = [offset for at, offset in spans if at == partition]
            topic = self.settings.kafka_topic
            for offset, position in list(sink.dead_positions(topic, partition, min(offsets), max(offsets))):
                if (partition, offset, position) not in dead:
                    sink.forget_dead(topic, partition, offset, position)
        recovering = set(spans)
        for (partition, offset, _), letter in dead.items():
            if letter.tick is not None and (partition, offset) in recovering:
                self._forget_tick(letter.tick, (partition, offset), sink)

    @staticmethod
    def _forget_tick(tick: Tick, place: tuple[int, int], sink: TickSink) -> None:
        for stored in sink.stored(tick.ticker, tick.trade_day, [tick.created_ms]):
            if stored.id == tick.id and (stored.partition, stored.offset) == place:
                sink.forget_tick(tick)


def _messages(batch: pa.RecordBatch) -> Iterator[Message]:
    columns = [batch.column(name).to_pylist() for name in ("partition", "offset", "time_ms", "value")]
    return (Message(*row) for row in zip(*columns, strict=True))
