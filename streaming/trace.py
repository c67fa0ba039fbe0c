"""`python -m streaming.trace`: the batches, offsets, findings and verdicts behind one number of the dashboard."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from streaming.errors import ConfigurationError, run_command
from streaming.settings import load_settings
from streaming.stores import connect_mysql

_QUERY = """
SELECT a.batch_id, a.ticks, a.total_volume, b.landed_at, b.verdict,
       (SELECT GROUP_CONCAT(CONCAT(o.kafka_partition, ':', o.from_offset, '-', o.until_offset - 1)
                            ORDER BY o.kafka_partition SEPARATOR ' ')
          FROM landed_offsets o WHERE o.batch_id = a.batch_id) AS offsets,
       (SELECT GROUP_CONCAT(CONCAT(f.expectation, ' (', f.severity, '): ', f.observed) SEPARATOR '; ')
          FROM batch_findings f WHERE f.batch_id = a.batch_id) AS findings
  FROM aggregated_data a JOIN landed_batches b ON b.batch_id = a.batch_id
 WHERE a.date = %s AND a.sector = %s
 ORDER BY a.batch_id
"""


def main(
    sector: Annotated[str, typer.Option(help="The sector, as in profile.")],
    date: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The trading day (UTC); today.")] = None,
) -> None:
    """List the batches that a day's volume of a sector is made of: offsets, findings and verdict of each.

    Offsets read partition:first-last. The batches' volumes add up to the number that `volume_today` shows.
    """
    day = (date or datetime.now(UTC)).date()
    with connect_mysql(load_settings()) as connection:
        cursor: Any = connection.cursor()
        cursor.execute(_QUERY, (day, sector))
        rows = list(cursor.fetchall())
    if not rows:
        raise ConfigurationError(f"--sector is {sector!r}; nothing of it has landed for {day}")
    table = Table("batch", "ticks", "volume (shares)", "landed at (UTC)", "verdict", "offsets", "findings", box=None)
    for batch_id, ticks, volume, landed_at, verdict, offsets, findings in rows:
        when = f"{landed_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(batch_id), f"{ticks:,}", f"{volume:,}", when, verdict, offsets, findings or "")
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)
    print(f"{day}, {sector}: {sum(row[2] for row in rows):,} shares from {len(rows):,} batches")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m streaming.trace"))
