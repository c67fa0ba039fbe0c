"""`tickledger rebuild --date …`: rebuild one day's aggregates from Cassandra, beside the stream.

The ledger says which batches have landed and which offsets each covers; Cassandra holds their ticks, and what corrects
these. Both are read first, then one transaction replaces the day's rows of exactly those batches: in
`aggregated_data`, and in `daily_volume` for batches that were rolled up. A batch that lands meanwhile is not touched.
Running it again leaves the same numbers.
"""

from collections import defaultdict
from collections.abc import Collection
from datetime import date, datetime
from typing import Annotated, Any

import typer
from cassandra.cluster import Session

from commands.reconcile import OffsetRanges, read_ranges
from commands.roll_up import add_to_days, newest_rolled_up
from tickledger.counted import counted
from tickledger.errors import LedgerMoved
from tickledger.landed_revisions import (
    SELECT_TICKS,
    SumKey,
    changed_sums,
    landed_tick,
    read_expired,
    revised_days,
    revisions_of,
    summed_under,
)
from tickledger.ledger import Corrected, SectorVolume, aggregate_row, insert_into, sum_order, utc_now
from tickledger.revisions import Place, changes
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, locking, mysql
from tickledger.tick import RAW_TABLE

#: What the ticks of one day add up to.
BatchSums = dict[SumKey, SectorVolume]


def rebuild_day(settings: Settings, day: date) -> tuple[int, int]:
    """Replace the day's aggregates by sums over Cassandra's ticks; (rows before, rows after), of both tables.

    Raises StoreUnavailable if a store is away and LedgerMoved if batches that landed meanwhile were rolled up
    (run it again); nothing is changed then.
    """
    with mysql(settings, settings.dbt_mysql) as connection:
        # As of one moment; both servers refuse `SET TRANSACTION` in a transaction.
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ranges, expired = read_ranges(connection), read_expired(connection)
        connection.rollback()
        sums = _sums(settings, day, ranges, expired)
        with locking(connection):
            newest_moved = newest_rolled_up(connection, lock=True)
            if newest_moved > ranges.newest_batch:
                raise LedgerMoved(f"batches up to {newest_moved} were rolled up meanwhile; run it again")
            before = _delete_day(connection, day, ranges.newest_batch)
            _insert_aggregates(connection, sums)
            # Batches that were rolled up have no other row there: theirs go on to where they belong.
            moved, days = add_to_days(connection, 1, newest_moved)
            connection.commit()
        return before, len(sums) - moved + days


def _delete_day(connection: Any, day: date, newest_batch: int) -> int:
    cursor = connection.cursor()
    cursor.execute("DELETE FROM aggregated_data WHERE date = %s AND batch_id <= %s", (day, newest_batch))
    before = int(cursor.rowcount)
    cursor.execute("DELETE FROM daily_volume WHERE date = %s", (day,))
    return before + int(cursor.rowcount)


def _insert_aggregates(connection: Any, sums: BatchSums) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT COALESCE(MAX(processing_id), 0) FROM aggregated_data")
    last_id, rebuilt_at = int(cursor.fetchone()[0]), utc_now()
    for number, ((batch_id, *_), one) in enumerate(sorted(sums.items(), key=lambda one: sum_order(one[0])), start=1):
        row = aggregate_row(batch_id, rebuilt_at, one, last_id + number)
        cursor.execute(insert_into("aggregated_data"), row)


def _sums(settings: Settings, day: date, ranges: OffsetRanges, expired: Collection[Place]) -> BatchSums:
    sums: dict[SumKey, _Sum] = defaultdict(_Sum)
    with cassandra(settings) as session:
        revised = revised_days(session)
        for ticker in companies_by_day(session).get(day, ()):
            found = revisions_of(session, ticker, day, ranges.batch_of, expired) if (ticker, day) in revised else {}
            for row in session.execute(f"{SELECT_TICKS} WHERE ticker = %s AND trade_date = %s", (ticker, day)):
                key, tick = landed_tick(row, ranges.batch_of)
                if tick is None:
                    continue
                sums[tick.batch_id, *summed_under(tick.values)].landed.add(1, tick.values.volume, key.created_at)
                for of_sum, (ticks, volume) in changed_sums(changes(tick, found.get(key, ()))).items():
                    sums[of_sum].corrected.add(ticks, volume, key.created_at)
    return {key: one.of(day, *key[1:]) for key, one in sums.items()}


class _Part:
    """Ticks, shares, and the first and last created_at of the ticks that were added, which `added` counts."""

    def __init__(self) -> None:
        self.added, self.ticks, self.volume = 0, 0, 0
        self.times: list[datetime] = []

    def add(self, ticks: int, volume: int, created_at: datetime) -> None:
        self.added += 1
        self.ticks += ticks
        self.volume += volume
        self.times = [min(created_at, *self.times), max(created_at, *self.times)] if self.times else [created_at] * 2


class _Sum:
    """What a batch landed of a sector, and what it corrected."""

    def __init__(self) -> None:
        self.landed, self.corrected = _Part(), _Part()

    def of(self, day: date, sector: str, own: tuple[Any, ...]) -> SectorVolume:
        landed, corrected = self.landed, self.corrected
        first, last = landed.times or (None, None)
        amounts = corrected.added, corrected.ticks, corrected.volume
        changed = Corrected(*amounts, *corrected.times) if corrected.times else None
        return SectorVolume(day, sector, landed.ticks, landed.volume, first, last, own, changed)


def companies_by_day(session: Session) -> dict[date, list[str]]:
    """The tickers of each trading day of which Cassandra has a tick, landed or not."""
    found: dict[date, list[str]] = defaultdict(list)
    for ticker, trade_date in session.execute(f"SELECT DISTINCT ticker, trade_date FROM {RAW_TABLE}", timeout=60):
        found[trade_date.date()].append(ticker)
    return {day: sorted(tickers) for day, tickers in found.items()}


def main(
    day: Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="The trading day.")],
) -> None:
    """Rebuild one day's aggregates from the ticks in Cassandra, in one transaction, beside the stream."""
    before, after = rebuild_day(load_settings(), day.date())
    print(f"{day.date()}: {counted(before, 'row')} of its aggregates replaced by {after:,}")
