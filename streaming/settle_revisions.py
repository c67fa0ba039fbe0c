"""What a batch's corrections and cancellations change of its sums, and which of them wait for their tick.

Settled in the driver, between Spark's job and the ledger's commit. "Before the batch" is what the ledger's offsets
cover, so a batch that dies and is landed again comes to the same. A batch without a revision, while none waits, costs
nothing and opens no session.
"""

import json
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any, NamedTuple

from cassandra.cluster import Session
from cassandra.concurrent import execute_concurrent

from streaming.landing_task import PartitionReport, SumKey
from streaming.tick_columns import TickKey
from streaming.tick_sink import VALUE_FIELDS, TickSink
from tickledger.decode import DeadLetter
from tickledger.landed_revisions import SELECT_REVISIONS, SELECT_TICKS, changed_sums, landed_revisions, landed_tick
from tickledger.ledger import Corrected, Ledger, LedgerHead, WaitingRevision
from tickledger.revisions import Change, Place, Revision, RevisionKind, changes
from tickledger.row_rules import REVISED_AT_FIELD, REVISION_FIELD
from tickledger.settings import Settings
from tickledger.stores import cassandra_errors, connect_cassandra
from tickledger.tick import (
    EPOCH_ORDINAL,
    REVISION_TABLE,
    TICK_FIELDS,
    datetime_to_ms,
    day_to_date,
    ms_to_datetime,
)

#: Why a correction is a dead letter whose tick has not come for CORRECTIONS_WAIT_DAYS.
NO_TICK = "no_tick_to_correct"
#: Corrections that expire with one batch at most; the others do with the next.
MOST_EXPIRED = 1000
#: Requests at the same time, and ticks whose answers are held.
READS_IN_FLIGHT, READS_A_PORTION = 32, 256


class Settled(NamedTuple):
    """What a batch's revisions come to: by sum, what they correct; which wait for their tick; whose wait is over."""

    corrected: Mapping[SumKey, Corrected] = {}
    waiting: Sequence[WaitingRevision] = ()
    found: Sequence[WaitingRevision] = ()
    expired: Sequence[WaitingRevision] = ()


class RevisionSettler:
    """Settles the revisions of one batch after the other, and knows which wait.

    Where a store is away its methods raise StoreUnavailable; calling again is the retry.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._waiting = {one.place: one for one in ledger.waiting()}
        self._store: _RevisionStore | None = None

    def awaited(self) -> frozenset[TickKey]:
        """The ticks that corrections wait for."""
        return frozenset(self._waiting_by_key())

    def settle(
        self,
        reports: Sequence[PartitionReport],
        head: LedgerHead,
        ranges: Mapping[int, tuple[int, int]],
        landed_at: datetime,
    ) -> Settled:
        """What the batch behind `head` changes that lands these ranges; its tasks have written all that they report."""
        mine = {place: revision for report in reports for place, revision in report.revisions}
        if not mine and not self._waiting:
            return Settled()
        batch = _Batch(head, ranges, mine)
        waiting = self._waiting_by_key()
        came = waiting.keys() & {key for report in reports for key in report.came}
        days = {key: waiting[key][0].date for key in came}
        days |= {_key(one): day_to_date(one.trade_day) for one in mine.values()}
        sums = _CorrectedSums()
        for key, ticks, revisions in self._stored().read(days):
            landed = [tick for row in ticks if (tick := landed_tick(row, batch.batch_of)[1]) is not None]
            if not landed:
                batch.wait(key)
                continue
            found = changes(landed[0], (one for _, one in landed_revisions(revisions, batch.batch_of)))
            sums.add([one for one in found if one.batch_id == batch.batch_id], days[key], key[1])
        ended = [one for key in came for one in waiting[key]]
        waits = [_waiting(place, mine[place], batch.batch_id, landed_at) for place in batch.waiting]
        return Settled(sums.by_key(), waits, ended, self._due(head.newest_created_at, ended))

    def landed(self, settled: Settled, landed_at: datetime) -> None:
        """Note that the ledger has it; what has expired is left to :meth:`bury`."""
        self._waiting |= {one.place: one for one in settled.waiting}
        for one in settled.found:
            del self._waiting[one.place]
        self._waiting |= {one.place: one._replace(expired_at=landed_at) for one in settled.expired}

    def bury(self) -> None:
        """Make dead letters of the revisions that have expired by the ledger. Doing it again changes nothing."""
        if expired := [one for one in self._waiting.values() if one.expired_at is not None]:
            self._stored().bury(self._settings.kafka_topic, expired)
            self._ledger.forget_expired(expired)
            self._waiting = {place: one for place, one in self._waiting.items() if one.expired_at is None}

    def _waiting_by_key(self) -> dict[TickKey, list[WaitingRevision]]:
        by_key: dict[TickKey, list[WaitingRevision]] = {}
        for one in self._waiting.values():
            by_key.setdefault((one.ticker, datetime_to_ms(one.created_at), one.tick_id), []).append(one)
        return by_key

    def _due(self, newest: datetime | None, found: Sequence[WaitingRevision]) -> list[WaitingRevision]:
        """Judged by the newest landed tick: a stream that was stopped first reads what came meanwhile."""
        if newest is None:
            return []
        since, ended = newest - timedelta(days=self._settings.corrections_wait_days), {one.place for one in found}
        over = (one for place, one in self._waiting.items() if one.waits_since <= since and place not in ended)
        return list(islice(over, MOST_EXPIRED))

    def _stored(self) -> "_RevisionStore":
        if self._store is None:
            self._store = _RevisionStore(connect_cassandra(self._settings))
        return self._store


class _Batch:
    """Of what Cassandra holds, what has landed: before the batch that is being settled, or with it."""

    def __init__(
        self, head: LedgerHead, ranges: Mapping[int, tuple[int, int]], revisions: Mapping[Place, Revision]
    ) -> None:
        self.batch_id = head.batch_id + 1
        #: Places of revisions whose tick has not landed.
        self.waiting: list[Place] = []
        self._head = head
        self._ranges = ranges
        self._places: dict[TickKey, list[Place]] = {}
        for place, one in revisions.items():
            self._places.setdefault(_key(one), []).append(place)

    def wait(self, key: TickKey) -> None:
        """Let the batch's revisions of a tick wait for it."""
        self.waiting.extend(self._places.get(key, ()))

    def batch_of(self, partition: int, offset: int) -> int | None:
        """The batch of a message that has landed by now. Of earlier ones any number below this one's is as good."""
        if self._head.has_landed(partition, offset):
            return self._head.batch_id
        start, until = self._ranges.get(partition, (0, 0))
        return self.batch_id if start <= offset < until else None


class _CorrectedSums:
    """Changes added up by trading day, sector and own values."""

    def __init__(self) -> None:
        self._sums: dict[SumKey, tuple[int, int, int, int, int]] = {}

    def add(self, of_tick: Iterable[Change], day: date, created_ms: int) -> None:
        """Count in what the batch changes of a tick of that day and moment."""
        for (_, sector, own), (more_ticks, more_volume) in changed_sums(of_tick).items():
            key = day.toordinal() - EPOCH_ORDINAL, sector, own
            changed, ticks, volume, first, last = self._sums.get(key, (0, 0, 0, created_ms, created_ms))
            times = min(first, created_ms), max(last, created_ms)
            self._sums[key] = changed + 1, ticks + more_ticks, volume + more_volume, *times

    def by_key(self) -> dict[SumKey, Corrected]:
        """The sums."""
        return {
            key: Corrected(changed, ticks, volume, ms_to_datetime(first), ms_to_datetime(last))
            for key, (changed, ticks, volume, first, last) in self._sums.items()
        }


class _RevisionStore:
    """Cassandra as the driver reads it. The session is closed with the last reference to this."""

    def __init__(self, session: Session) -> None:
        weakref.finalize(self, session.cluster.shutdown)
        self._session = session
        values = ", ".join(field.name for field in VALUE_FIELDS)
        of_tick = "WHERE ticker = ? AND trade_date = ? AND created_at = ? AND id = ?"
        with cassandra_errors():
            self._tick = session.prepare(f"{SELECT_TICKS} {of_tick}")
            self._revisions = session.prepare(f"{SELECT_REVISIONS} {of_tick}")
            self._revision = session.prepare(
                f"SELECT kind, {values}, extra FROM {REVISION_TABLE} {of_tick}"
                " AND revised_at = ? AND kafka_partition = ? AND kafka_offset = ? AND position = ?"
            )

    def read(self, days: Mapping[TickKey, date]) -> Iterator[tuple[TickKey, list[Any], list[Any]]]:
        """The rows of ticks that are given with their trading days: one or none of each tick, and its revisions."""
        keys = iter(days)
        while some := list(islice(keys, READS_A_PORTION)):
            bound = [(key[0], days[key], ms_to_datetime(key[1]), key[2]) for key in some]
            with cassandra_errors():
                ticks = self._ask([(self._tick, one) for one in bound])
                revisions = self._ask([(self._revisions, one) for one in bound])
                yield from zip(some, ticks, revisions, strict=True)

    def bury(self, topic: str, expired: Iterable[WaitingRevision]) -> None:
        """Let revisions lie in `dead_letters` in place of `tick_revisions`; both stand there if this dies between."""
        sink = TickSink(self._session)
        read = []
        with cassandra_errors():
            for one in expired:
                tick = (one.ticker, one.date, one.created_at, one.tick_id)
                read += [
                    (one, row) for row in self._session.execute(self._revision, (*tick, one.revised_at, *one.place))
                ]
        for one, row in read:
            sink.write_dead(topic, one.place.partition, one.place.offset, _dead_letter(one, row))
        sink.drain()
        for one, row in read:
            key = (one.ticker, datetime_to_ms(one.created_at), one.tick_id, one.date.toordinal() - EPOCH_ORDINAL)
            revision = Revision(RevisionKind(row.kind), *key, datetime_to_ms(one.revised_at), None)
            sink.forget_revision(one.place, revision)
        sink.drain()

    def _ask(self, queries: list[Any]) -> list[Any]:
        return [list(rows) for _, rows in execute_concurrent(self._session, queries, concurrency=READS_IN_FLIGHT)]


def _key(revision: Revision) -> TickKey:
    return revision.ticker, revision.created_ms, revision.id


def _waiting(place: Place, revision: Revision, batch_id: int, landed_at: datetime) -> WaitingRevision:
    return WaitingRevision(
        place=place,
        ticker=revision.ticker,
        date=day_to_date(revision.trade_day),
        created_at=ms_to_datetime(revision.created_ms),
        tick_id=revision.id,
        revised_at=ms_to_datetime(revision.revised_ms),
        batch_id=batch_id,
        waits_since=landed_at,
    )


def _dead_letter(one: WaitingRevision, row: Any) -> DeadLetter:
    """The dead letter of an expired revision. Its raw value spells what is kept of it, as the lab's format does."""
    element = {"ticker": one.ticker, "created_at": one.created_at, "id": one.tick_id}
    element |= {name: value for name, value in row._asdict().items() if value is not None and name in _FIELD_NAMES}
    element |= {REVISION_FIELD: row.kind, REVISED_AT_FIELD: one.revised_at}
    raw = ", ".join(f"{json.dumps(name)}: {_as_json(value)}" for name, value in element.items())
    if row.extra:
        raw += f", {row.extra[1:-1]}"
    detail = (
        f"no tick {one.tick_id} of {one.ticker}, made at {_text(one.created_at)}, came since {_text(one.waits_since)}"
    )
    return DeadLetter(one.place.position, f"{{{raw}}}".encode(), NO_TICK, detail)


_FIELD_NAMES = frozenset(field.name for field in TICK_FIELDS)


def _as_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(_text(value) if isinstance(value, datetime) else value)


def _text(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="milliseconds")
