"""What Cassandra holds of corrections and cancellations, with the batch that landed each: what every reader goes by.

A revision counts if the ledger covers its message, as a tick does. One that waited too long for its tick and became a
dead letter counts nowhere, also while its row is still there.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from cassandra.cluster import Session
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.ledger import summed_by
from tickledger.revisions import Change, LandedRevision, LandedTick, Place, RevisionKind, TickValues, in_force
from tickledger.stores import fetch_rows
from tickledger.tick import OWN_FIELDS, RAW_TABLE, REVISION_TABLE, datetime_to_ms, summed_value

#: Finds the batch of a message by partition and offset; None where it has not landed.
BatchOf = Callable[[int, int], int | None]


class TickKey(NamedTuple):
    """What names a tick; its trading day follows from `created_at` (UTC, without a zone)."""

    ticker: str
    created_at: datetime
    id: int


#: The revisions of each tick that has any, in no order.
Revisions = dict[TickKey, list[LandedRevision]]

_VALUES = ("volume", "market_cap", "price", "sector", *(field.name for field in OWN_FIELDS))
_TICK_COLUMNS = (*TickKey._fields, *_VALUES, "kafka_partition", "kafka_offset")
_REVISION_COLUMNS = (*_TICK_COLUMNS, "kind", "revised_at", "position")
#: What to read of a tick for :func:`landed_tick`.
SELECT_TICKS = f"SELECT {', '.join(_TICK_COLUMNS)} FROM {RAW_TABLE}"
#: What to read of a revision for :func:`landed_revisions`.
SELECT_REVISIONS = f"SELECT {', '.join(_REVISION_COLUMNS)} FROM {REVISION_TABLE}"


def landed_tick(row: Any, batch_of: BatchOf) -> tuple[TickKey, LandedTick | None]:
    """A row of :data:`SELECT_TICKS`: its key, and the tick if it has landed."""
    batch_id = batch_of(row.kafka_partition, row.kafka_offset)
    return _key_of(row), None if batch_id is None else LandedTick(batch_id, _values_of(row))


def landed_revisions(
    rows: Iterable[Any], batch_of: BatchOf, expired: Collection[Place] = ()
) -> Iterator[tuple[TickKey, LandedRevision]]:
    """Of rows of :data:`SELECT_REVISIONS` those that count, each with its tick's key."""
    for row in rows:
        place = Place(row.kafka_partition, row.kafka_offset, row.position)
        batch_id = batch_of(place.partition, place.offset)
        if batch_id is not None and place not in expired:
            values = None if row.kind == RevisionKind.CANCELLATION else _values_of(row)
            yield _key_of(row), LandedRevision(batch_id, values, datetime_to_ms(row.revised_at), place)


def read_revisions(session: Session, batch_of: BatchOf, expired: Collection[Place] = ()) -> Revisions:
    """All that count."""
    return _by_tick(landed_revisions(session.execute(SELECT_REVISIONS, timeout=60), batch_of, expired))


def revisions_of(
    session: Session, ticker: str, day: date, batch_of: BatchOf, expired: Collection[Place] = ()
) -> Revisions:
    """Those of a company and trading day that count."""
    of_day = f"{SELECT_REVISIONS} WHERE ticker = %s AND trade_date = %s"
    return _by_tick(landed_revisions(session.execute(of_day, (ticker, day)), batch_of, expired))


def revised_days(session: Session) -> set[tuple[str, date]]:
    """The companies and trading days of which Cassandra has a revision, landed or not: of all others none is asked."""
    rows = session.execute(f"SELECT DISTINCT ticker, trade_date FROM {REVISION_TABLE}", timeout=60)
    return {(ticker, trade_date.date()) for ticker, trade_date in rows}


def read_expired(connection: MySQLConnectionAbstract) -> set[Place]:
    """The places of those that have become dead letters and whose rows may still be there."""
    query = "SELECT kafka_partition, kafka_offset, position FROM waiting_revisions WHERE expired_at IS NOT NULL"
    return {Place(*map(int, row)) for row in fetch_rows(connection, query)}


class Step(NamedTuple):
    """What one revision did: the values of its tick that held until it landed, and since. None: it was cancelled."""

    revision: LandedRevision
    before: TickValues | None
    after: TickValues | None

    def in_words(self) -> str:
        """From which values to which, as far as they differ."""
        if self.before is None or self.after is None:
            parts = ("cancelled" if one is None else f"volume {one.volume:,} at {one.price}" for one in self[1:])
            return " → ".join(parts) if self.before != self.after else "changes nothing: cancelled"
        changed = [
            f"{name} {_shown(old)} → {_shown(new)}"
            for name, old, new in zip(_VALUES, _flat(self.before), _flat(self.after), strict=True)
            if old != new
        ]
        return ", ".join(changed) or "changes nothing"


def steps(tick: LandedTick, revisions: Iterable[LandedRevision]) -> Iterator[Step]:
    """What each revision of a tick did, in the order of landing. One that is older than another changes nothing."""
    known: list[LandedRevision] = []
    for one in sorted(revisions, key=lambda one: (one.batch_id, one.place)):
        before = in_force(tick, known)
        known.append(one)
        yield Step(one, before, in_force(tick, known))


def _flat(values: TickValues) -> tuple[Any, ...]:
    return *values[:4], *values.own


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def summed_under(values: TickValues) -> tuple[str, tuple[Any, ...]]:
    """The sector, and the values of one's own fields, under which `aggregated_data` sums a tick of these values."""
    own = dict(zip((field.name for field in OWN_FIELDS), values.own, strict=True))
    return values.sector, summed_value(own[name] for name in summed_by())


#: Batch, sector and what :func:`tickledger.ledger.summed_by` names.
SumKey = tuple[int, str, tuple[Any, ...]]


def changed_sums(changes: Iterable[Change]) -> dict[SumKey, tuple[int, int]]:
    """By how many ticks and shares the changes of one tick alter each sum that they touch; 0 and 0 is one too."""
    sums: dict[SumKey, tuple[int, int]] = {}
    for one in changes:
        key = one.batch_id, *summed_under(one.values)
        ticks, volume = sums.get(key, (0, 0))
        sums[key] = ticks + one.ticks, volume + one.volume
    return sums


def _by_tick(revisions: Iterable[tuple[TickKey, LandedRevision]]) -> Revisions:
    found: Revisions = defaultdict(list)
    for key, one in revisions:
        found[key].append(one)
    return dict(found)


def _key_of(row: Any) -> TickKey:
    return TickKey(row.ticker, row.created_at, row.id)


def _values_of(row: Any) -> TickValues:
    own = tuple(getattr(row, field.name) for field in OWN_FIELDS)
    return TickValues(row.volume, row.market_cap, row.price, row.sector, own)
