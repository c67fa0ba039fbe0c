"""`tickledger rebuild --date …`: rebuild one day's aggregates from Cassandra, beside the stream.

The ledger says which batches have landed and which offsets each covers; Cassandra holds their ticks. Both are read
first, then one transaction replaces the day's rows of exactly those batches: in `aggregated_data`, and in
`daily_volume` for batches that were rolled up. A batch that lands meanwhile is not touched. Running it again leaves the
same numbers.
"""

from collections import defaultdict
from datetime import date, datetime
from typing import Annotated, Any

import typer
from cassandra.cluster import Session

from commands.reconcile import OffsetRanges, read_ranges
from commands.roll_up import add_to_days, newest_rolled_up
from tickledger.counted import counted
from tickledger.errors import LedgerMoved
from tickledger.ledger import SectorVolume, aggregate_row, insert_into, sum_order, summed_by, utc_now
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, mysql
from tickledger.tick import RAW_TABLE, summed_value

#: What the ticks of one day add up to, by batch, sector and what :func:`tickledger.ledger.summed_by` names.
BatchSums = dict[tuple[int, str, tuple[Any, ...]], SectorVolume]


def rebuild_day(settings: Settings, day: date) -> tuple[int, int]:
    """Replace the day's aggregates by sums over Cassandra's ticks; (rows before, rows after), of both tables.

    Raises StoreUnavailable if a store is away and LedgerMoved if batches that landed meanwhile were rolled up
    (run it again); nothing is changed then.
    """
    with mysql(settings, settings.dbt_mysql) as connection:
        ranges = read_ranges(connection)
        connection.rollback()
        sums = _sums(settings, day, ranges)
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


def _sums(settings: Settings, day: date, ranges: OffsetRanges) -> BatchSums:
    ticks: dict[tuple[int, str, tuple[Any, ...]], list[tuple[int, datetime]]] = defaultdict(list)
    columns = ", ".join(("sector", "volume", "created_at", "kafka_partition", "kafka_offset", *summed_by()))
    with cassandra(settings) as session:
        for ticker in companies_by_day(session).get(day, ()):
            rows = session.execute(
                f"SELECT {columns} FROM {RAW_TABLE} WHERE ticker = %s AND trade_date = %s",
                (ticker, day),
            )
            for sector, volume, created_at, partition, offset, *own in rows:
                batch_id = ranges.batch_of(partition, offset)
                if batch_id is not None:
                    ticks[batch_id, sector, summed_value(own)].append((volume, created_at))
    return {
        (batch_id, sector, own): SectorVolume(
            date=day,
            sector=sector,
            ticks=len(found),
            volume=sum(volume for volume, _ in found),
            first_created_at=min(created_at for _, created_at in found),
            last_created_at=max(created_at for _, created_at in found),
            own=own,
        )
        for (batch_id, sector, own), found in ticks.items()
    }


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
