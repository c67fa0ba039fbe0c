"""`tickledger trace`: the batches, offsets, findings and verdicts behind one number of the dashboard."""

import difflib
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from commands.give_up import given_up
from tickledger.command_line import AsJson, print_json
from tickledger.counted import counted
from tickledger.errors import ConfigurationError
from tickledger.ledger import Ledger
from tickledger.plain_text import plain, print_table
from tickledger.settings import load_settings
from tickledger.stores import fetch_rows, mysql

_BY_BATCH = """
SELECT a.batch_id, a.ticks, a.total_volume, b.landed_at, b.verdict,
       (SELECT GROUP_CONCAT(CONCAT(o.kafka_partition, ':', o.from_offset, '-', o.until_offset - 1)
                            ORDER BY o.kafka_partition SEPARATOR ' ')
          FROM landed_offsets o WHERE o.batch_id = a.batch_id) AS offsets,
       (SELECT GROUP_CONCAT(CONCAT(f.expectation, ' (', f.severity, '): ', f.observed) SEPARATOR '; ')
          FROM batch_findings f WHERE f.batch_id = a.batch_id) AS findings
  FROM (SELECT batch_id, CAST(SUM(ticks) AS SIGNED) AS ticks, SUM(total_volume) AS total_volume
          FROM aggregated_data WHERE date = %s AND sector = %s GROUP BY batch_id) AS a
  JOIN landed_batches b ON b.batch_id = a.batch_id
 ORDER BY a.batch_id
"""

#: What is left of batches that were rolled up: their sum, and what the ledger says of the batches from first to last.
_ROLLED_UP = """
SELECT d.batches, d.ticks, d.total_volume,
       (SELECT MAX(landed_at) FROM landed_batches WHERE batch_id = d.last_batch_id) AS landed_at,
       (SELECT GROUP_CONCAT(CONCAT(n.batches, ' ', n.verdict) ORDER BY n.verdict SEPARATOR ', ')
          FROM (SELECT verdict, COUNT(*) AS batches FROM landed_batches
                 WHERE batch_id BETWEEN %(first)s AND %(last)s GROUP BY verdict) AS n) AS verdicts,
       (SELECT GROUP_CONCAT(CONCAT(o.kafka_partition, ':', o.begins, '-', o.ends)
                            ORDER BY o.kafka_partition SEPARATOR ' ')
          FROM (SELECT kafka_partition, MIN(from_offset) AS begins, MAX(until_offset) - 1 AS ends FROM landed_offsets
                 WHERE batch_id BETWEEN %(first)s AND %(last)s GROUP BY kafka_partition) AS o) AS offsets,
       (SELECT GROUP_CONCAT(CONCAT(f.expectation, ' (', f.severity, ') of ', f.batches) SEPARATOR '; ')
          FROM (SELECT expectation, severity, COUNT(*) AS batches FROM batch_findings
                 WHERE batch_id BETWEEN %(first)s AND %(last)s GROUP BY expectation, severity) AS f) AS findings
  FROM daily_volume d WHERE d.date = %(day)s AND d.sector = %(sector)s
"""

#: What may be meant by --sector.
_SECTORS = """
SELECT sector FROM profile
 UNION SELECT sector FROM aggregated_data WHERE date = %(day)s
 UNION SELECT sector FROM daily_volume WHERE date = %(day)s
"""

#: What a row of the answer holds: its batch or batches, ticks, shares, and what the ledger says of them.
_COLUMNS = ("batch", "ticks", "volume", "landed_at", "verdict", "offsets", "findings")


def main(
    sector: Annotated[str, typer.Option(help="The sector, as in profile.")],
    on: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="The trading day; today.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the batches that a day's volume of a sector is made of: offsets, findings and verdict of each.

    Offsets read partition:first-last. The volumes add up to the number that `volume_today` or `volume_by_day` shows.
    Batches that were rolled up share one line, with what the ledger says of all batches from the first to the last.
    Below stand the messages that were lost and given up beside or between these batches.
    """
    day = on.date() if on else Ledger(load_settings()).exchange().day_of(datetime.now(UTC))
    rows, batches, lost = _rows(day, sector)
    if not rows:
        raise ConfigurationError(f"--sector is {sector!r}; nothing of it has landed for {day}{_meant(day, sector)}")
    if as_json:
        print_json(dict(zip(_COLUMNS, row, strict=True)) for row in rows)
        return
    table = Table("batch", "ticks", "volume (shares)", "landed at (UTC)", "verdict", "offsets", "findings", box=None)
    for batch_id, ticks, volume, landed_at, verdict, offsets, findings in rows:
        when = f"{landed_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(batch_id), f"{ticks:,}", f"{volume:,}", when, plain(verdict), offsets, plain(findings or ""))
    print_table(table)
    shares = counted(int(sum(row[2] for row in rows)), "share")
    print(f"{day}, {plain(sector)}: {shares} from {counted(batches, 'batch', 'batches')}")
    for line in lost:
        print(plain(line))


def _meant(day: date, sector: str) -> str:
    """Which other sector may be meant, as the end of a sentence; empty if there is none like it."""
    with mysql(load_settings()) as connection:
        known = {str(name).casefold(): str(name) for (name,) in fetch_rows(connection, _SECTORS, {"day": day})}
    asked = sector.strip().casefold()
    alike = difflib.get_close_matches(asked, known, n=1) or [name for name in known if asked and asked in name]
    return f". {known[alike[0]]}?" if alike and known[alike[0]] != sector else ""


def _rows(day: date, sector: str) -> tuple[list[tuple[Any, ...]], int, list[str]]:
    """The table's rows, of how many batches they are, and what was given up beside those."""
    rows, rolled_up, bounds = [], 0, []
    with mysql(load_settings()) as connection:
        # As many partitions and findings as there are: MySQL cuts at 1,024 letters, and says nothing.
        connection.cursor().execute("SET SESSION group_concat_max_len = 4294967295")
        spans = "SELECT first_batch_id, last_batch_id FROM daily_volume WHERE date = %s AND sector = %s"
        for first, last in fetch_rows(connection, spans, (day, sector)):
            names = {"day": day, "sector": sector, "first": first, "last": last}
            ((rolled_up, *said),) = fetch_rows(connection, _ROLLED_UP, names)
            rows.append((f"{first}-{last}, rolled up", *said))
            bounds += [first, last]
        by_batch = fetch_rows(connection, _BY_BATCH, (day, sector))
        bounds += [row[0] for row in by_batch]
        lost = given_up(connection, min(bounds) - 1, max(bounds)) if bounds else []
    return rows + by_batch, rolled_up + len(by_batch), lost
