"""`tickledger roll-up --keep-days 30`: move old batches' aggregates into `daily_volume`, beside the stream.

`aggregated_data` grows with every batch, by a row or more per date and sector; `daily_volume` has one per date and
sector. Batches move in their order and as a whole, a thousand at most in one transaction, so every total is the same
before, while and after, and the ledger says of each batch in which table its volume is (`rolled_up_at`).
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.contract import insert_statement
from tickledger.counted import counted
from tickledger.exchange import read_exchange
from tickledger.ledger import utc_now
from tickledger.settings import Settings, load_settings
from tickledger.stores import fetch_rows, locking, mysql

#: Batches that move in one transaction, for which the stream's commits wait.
BATCHES_A_STEP = 1000

_SUMS = """
SELECT date, sector, SUM(total_volume) AS total_volume, SUM(ticks) AS ticks,
       SUM(corrected_volume) AS corrected_volume, SUM(corrected_ticks) AS corrected_ticks,
       SUM(changed_ticks) AS changed_ticks,
       COUNT(DISTINCT batch_id) AS batches,
       MIN(batch_id) AS first_batch_id, MAX(batch_id) AS last_batch_id,
       MIN(first_created_at) AS first_created_at, MAX(last_created_at) AS last_created_at
  FROM aggregated_data WHERE batch_id BETWEEN %s AND %s GROUP BY date, sector ORDER BY date, sector
"""
#: A null, where nothing was corrected, stays one beside another.
_ADD_TO_DAY = """
ON DUPLICATE KEY UPDATE
    total_volume = total_volume + VALUES(total_volume), ticks = ticks + VALUES(ticks),
    corrected_volume = COALESCE(corrected_volume + VALUES(corrected_volume),
                                corrected_volume, VALUES(corrected_volume)),
    corrected_ticks = COALESCE(corrected_ticks + VALUES(corrected_ticks),
                                corrected_ticks, VALUES(corrected_ticks)),
    changed_ticks = COALESCE(changed_ticks + VALUES(changed_ticks), changed_ticks, VALUES(changed_ticks)),
    batches = batches + VALUES(batches), first_batch_id = LEAST(first_batch_id, VALUES(first_batch_id)),
    last_batch_id = GREATEST(last_batch_id, VALUES(last_batch_id)),
    first_created_at = LEAST(first_created_at, VALUES(first_created_at)),
    last_created_at = GREATEST(last_created_at, VALUES(last_created_at)), rolled_up_at = VALUES(rolled_up_at)
"""


#: What keeps a batch where it is, with all after it. Each query gives at most one batch; the lowest one counts. None
#: looks further than the step, so that a step costs the same however much has landed.
_STAYS = {
    "nothing more has landed": "SELECT COALESCE(MAX(batch_id), 0) + 1 FROM landed_batches",
    "what landed in the last {keep_days} days stays by batch": """
        SELECT batch_id FROM landed_batches WHERE batch_id BETWEEN %(first)s AND %(last)s AND landed_at >= %(keep_from)s
        ORDER BY batch_id LIMIT 1""",
    "batch {batch_id} has ticks of the last {keep_days} days and stays, with all after it": """
        SELECT MIN(batch_id) FROM aggregated_data
         WHERE batch_id BETWEEN %(first)s AND %(last)s AND date >= %(keep_from_day)s""",
    # Its number is the one that the next row goes on from.
    "batch {batch_id} has the newest row of aggregated_data and stays": """
        SELECT batch_id FROM aggregated_data ORDER BY processing_id DESC LIMIT 1""",
    "batch {batch_id} is unchecked and stays, with all after it:"
    " 'great_expectations checkpoint run landed_batch --unchecked' checks it": """
        SELECT batch_id FROM landed_batches WHERE batch_id BETWEEN %(first)s AND %(last)s AND verdict = 'unchecked'
        ORDER BY batch_id LIMIT 1""",
    "batch {batch_id} is not in aggregated_data as the ledger has it and stays, with all after it:"
    " 'tickledger reconcile' shows the difference": """
        SELECT batches.batch_id
          FROM landed_batches AS batches
          LEFT JOIN (SELECT batch_id, SUM(ticks) AS ticks, SUM(total_volume) AS volume,
                            SUM(corrected_ticks) AS corrected_ticks, SUM(corrected_volume) AS corrected_volume
                       FROM aggregated_data WHERE batch_id BETWEEN %(first)s AND %(last)s GROUP BY batch_id) AS sums
            ON sums.batch_id = batches.batch_id
         WHERE batches.batch_id BETWEEN %(first)s AND %(last)s
           AND (batches.ticks_landed + COALESCE(batches.corrected_ticks, 0) <> COALESCE(sums.ticks, 0)
                OR batches.volume + COALESCE(batches.corrected_volume, 0) <> COALESCE(sums.volume, 0)
                OR COALESCE(batches.corrected_ticks, 0) <> COALESCE(sums.corrected_ticks, 0)
                OR COALESCE(batches.corrected_volume, 0) <> COALESCE(sums.corrected_volume, 0))
         ORDER BY batches.batch_id LIMIT 1""",
}


def roll_up(settings: Settings, keep_days: int, told: Callable[[str], None] = lambda _line: None) -> tuple[int, str]:
    """Move what landed more than `keep_days` whole trading days ago; the rows moved, and why the next batch stays.

    `told` gets a line per committed transaction. Running it again moves what is left. Raises StoreUnavailable
    if MySQL is away; the transaction in flight is then undone.
    """
    rows = 0
    with mysql(settings, settings.dbt_mysql) as connection:
        exchange = read_exchange(connection)
        keep_from = exchange.day_of(datetime.now(UTC)) - timedelta(days=keep_days)
        kept = {"keep_from_day": keep_from, "keep_from": exchange.begin_of(keep_from)}
        while True:
            with locking(connection):
                first = newest_rolled_up(connection, lock=True) + 1
                last, why = _last_to_move(connection, first, kept)
                if last < first:
                    return rows, why.format(batch_id=last + 1, keep_days=keep_days)
                moved = _move(connection, first, last)
            rows += moved
            told(f"batches {first:,} to {last:,}: {counted(moved, 'row')} of aggregated_data rolled up")


def newest_rolled_up(connection: MySQLConnectionAbstract, *, lock: bool = False) -> int:
    """The newest batch that was rolled up, as are all before it; 0 if none was.

    With `lock` no batch lands and none is rolled up until the connection's transaction ends.
    """
    if lock:
        fetch_rows(connection, "SELECT batch_id FROM landed_batches ORDER BY batch_id DESC LIMIT 1 FOR UPDATE")
    newest = "SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches WHERE rolled_up_at IS NOT NULL"
    return int(fetch_rows(connection, newest)[0][0])


def add_to_days(connection: MySQLConnectionAbstract, first: int, last: int) -> tuple[int, int]:
    """Move what `aggregated_data` has of some batches into `daily_volume`; the caller commits.

    (rows taken from the one, rows of the other that they were added to).
    """
    moved_at = utc_now()
    cursor: Any = connection.cursor(dictionary=True)
    cursor.execute(_SUMS, (first, last))
    days = [row | {"rolled_up_at": moved_at} for row in cursor.fetchall()]
    for row in days:
        cursor.execute(insert_statement("daily_volume", row) + _ADD_TO_DAY, row)
    cursor.execute("DELETE FROM aggregated_data WHERE batch_id BETWEEN %s AND %s", (first, last))
    return int(cursor.rowcount), len(days)


def _move(connection: MySQLConnectionAbstract, first: int, last: int) -> int:
    rows, _ = add_to_days(connection, first, last)
    connection.cursor().execute(
        "UPDATE landed_batches SET rolled_up_at = %s WHERE batch_id BETWEEN %s AND %s", (utc_now(), first, last)
    )
    connection.commit()
    return rows


def _last_to_move(connection: MySQLConnectionAbstract, first: int, kept: Mapping[str, Any]) -> tuple[int, str]:
    """The batch before the first one that stays, at most a step's worth, and why that one stays."""
    last, why = first + BATCHES_A_STEP - 1, ""
    for reason, query in _STAYS.items():
        for (batch_id,) in fetch_rows(connection, query, {"first": first, "last": last, **kept}):
            if batch_id is not None and batch_id <= last:
                last, why = int(batch_id) - 1, reason
    return last, why


def main(
    keep_days: Annotated[
        int, typer.Option(min=1, help="Whole trading days that stay in aggregated_data by batch.")
    ] = 30,
) -> None:
    """Move the aggregates of batches that landed long ago into daily_volume, one row per date and sector.

    No total changes, and the stream goes on beside it. Made to be run once a day. Ctrl-C ends it between two
    transactions; the next run goes on from there. Exit code 2: MySQL is away.
    """
    rows, why = roll_up(load_settings(), keep_days, lambda line: print(line, flush=True))
    print(f"{counted(rows, 'row')} rolled up; {why}")
