"""Reads what a landed batch's corrections change of the sums, as Cassandra has it. Writes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from cassandra.cluster import Session
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.landed_revisions import read_expired
from tickledger.ledger import has_landed
from tickledger.revisions import LandedRevision, LandedTick, Place, RevisionKind, TickValues, changes
from tickledger.stores import fetch_rows
from tickledger.tick import RAW_TABLE, REVISION_TABLE, ms_to_datetime

if TYPE_CHECKING:
    import pandas as pd

#: A request costs as much as two hundred rows: with 50 companies in one answer, little of that is left.
COMPANIES_A_READ = 50

#: Asks a prepared statement with each of some values: an iterator of pages of numpy arrays for each.
Read = Callable[[Any, list[Any]], Iterator[Any]]
#: By trading day and sector: ticks, and shares.
Changed = dict[tuple[date, str], tuple[int, int]]
#: ticker, trading day, created_at in milliseconds, id
Key = tuple[str, date, int, int]


class Slice(NamedTuple):
    """Rows of some companies and one day, created from `first` to `last`, both included (UTC)."""

    tickers: list[str]
    trade_date: date
    first: datetime
    last: datetime


@dataclass(frozen=True)
class CorrectionsView:
    """What MySQL says of a batch's corrections: where they are, and what had landed by then.

    `ranges` are the batch's offsets [from, until) by partition, `ends` where each partition ended with the batch,
    `not_landed` (partition, from, until) what the ledger skipped, and `expired` what has become dead letters.
    """

    batch_id: int
    ranges: dict[int, tuple[int, int]]
    ends: dict[int, int] = field(default_factory=dict)
    not_landed: list[tuple[int, int, int]] = field(default_factory=list)
    expired: set[Place] = field(default_factory=set)
    slices: list[Slice] = field(default_factory=list)

    def batch_of(self, partition: int, offset: int) -> int | None:
        """The batch, or for all batches before it the one before; None of what had not landed by then."""
        start, until = self.ranges.get(partition, (0, 0))
        if start <= offset < until:
            return self.batch_id
        return self.batch_id - 1 if has_landed(self.ends, self.not_landed, partition, offset) else None


def corrections_view(
    connection: MySQLConnectionAbstract,
    batch_id: int,
    ranges: dict[int, tuple[int, int]],
    ends: dict[int, int],
    aggregates: list[dict[str, Any]],
) -> CorrectionsView:
    """What is to be read of a batch with these rows of `aggregated_data`: of one that corrects nothing, nothing."""
    days: dict[date, list[datetime]] = defaultdict(list)
    for row in aggregates:
        if row.get("corrected_ticks") is not None:
            days[row["date"]] += [row["first_created_at"], row["last_created_at"]]
    if not days:
        return CorrectionsView(batch_id, ranges)
    # A company that `profile` has no longer may still be corrected.
    known = "SELECT ticker FROM profile_versions UNION SELECT ticker FROM profile ORDER BY ticker"
    tickers = [ticker for (ticker,) in fetch_rows(connection, known)]
    skipped = "SELECT kafka_partition, from_offset, until_offset FROM skipped_offsets WHERE kind <> 'nothing_to_read'"
    slices = [
        Slice(tickers[start : start + COMPANIES_A_READ], day, min(times), max(times))
        for day, times in sorted(days.items())
        for start in range(0, len(tickers), COMPANIES_A_READ)
    ]
    not_landed = [(int(one), int(start), int(until)) for one, start, until in fetch_rows(connection, skipped)]
    return CorrectionsView(batch_id, ranges, ends, not_landed, read_expired(connection), slices)


class CorrectionsReader:
    """Reads corrections on a session that returns pages of numpy arrays."""

    def __init__(self, session: Session, read: Read) -> None:
        self._read = read
        place, values = "kafka_partition, kafka_offset", "volume, sector"
        key = "ticker, to_unix_timestamp(created_at) AS created_ms, id"
        self._revisions = session.prepare(
            f"SELECT {key}, {values}, {place}, position, kind, to_unix_timestamp(revised_at) AS revised_ms"
            f" FROM {REVISION_TABLE} WHERE ticker IN ? AND trade_date = ? AND created_at >= ? AND created_at <= ?"
        )
        self._tick = session.prepare(
            f"SELECT {values}, {place} FROM {RAW_TABLE}"
            " WHERE ticker = ? AND trade_date = ? AND created_at = ? AND id = ?"
        )

    def changed(self, view: CorrectionsView, ticks: "pd.DataFrame") -> Changed:
        """By how many ticks and shares the batch's corrections change what held; `ticks` are those that it landed.

        What is summed is compared: of a tick's values its volume and its sector. Raises what the driver raises.
        """
        revisions = self._revisions_of(view)
        # Those of the batch, and those that waited for one of its ticks.
        own_ids = set(ticks["id"]) if revisions else set()
        keys = [
            key
            for key, found in revisions.items()
            if key[3] in own_ids or any(one.batch_id == view.batch_id for one in found)
        ]
        asked = [(ticker, day, ms_to_datetime(created_ms), number) for ticker, day, created_ms, number in keys]
        sums: dict[tuple[date, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for key, pages in zip(keys, self._read(self._tick, asked), strict=True):
            for one in changes(_landed_tick(view, pages), revisions[key]):
                if one.batch_id == view.batch_id:
                    before = sums[key[1], one.values.sector]
                    sums[key[1], one.values.sector] = before[0] + one.ticks, before[1] + one.volume
        return dict(sums)

    def _revisions_of(self, view: CorrectionsView) -> dict[Key, list[LandedRevision]]:
        found: dict[Key, list[LandedRevision]] = defaultdict(list)
        for one, pages in zip(view.slices, self._read(self._revisions, view.slices), strict=True):
            for row in _rows(pages):
                place = Place(row["kafka_partition"], row["kafka_offset"], row["position"])
                batch_id = view.batch_of(place.partition, place.offset)
                if batch_id is not None and place not in view.expired:
                    values = None if row["kind"] == RevisionKind.CANCELLATION else _values(row)
                    key = row["ticker"], one.trade_date, row["created_ms"], row["id"]
                    found[key].append(LandedRevision(batch_id, values, row["revised_ms"], place))
        return found


def _landed_tick(view: CorrectionsView, pages: Any) -> LandedTick | None:
    for row in _rows(pages):
        batch_id = view.batch_of(row["kafka_partition"], row["kafka_offset"])
        return None if batch_id is None else LandedTick(batch_id, _values(row))
    return None


def _values(row: dict[str, Any]) -> TickValues:
    return TickValues(row["volume"], None, None, row["sector"])


def _rows(pages: Any) -> Iterator[dict[str, Any]]:
    """The rows of pages, with Python's own numbers."""
    for page in pages:
        columns = [column.tolist() for column in page.values()]
        for values in zip(*columns, strict=True):
            yield dict(zip(page, values, strict=True))
