"""`tickledger trace`: the batches, offsets, findings, verdicts and corrections behind one number of the dashboard."""

import difflib
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from commands.give_up import given_up
from commands.reconcile import OffsetRanges, read_ranges
from tickledger.command_line import AsJson, print_json
from tickledger.counted import counted
from tickledger.errors import ConfigurationError
from tickledger.landed_revisions import (
    SELECT_TICKS,
    Step,
    TickKey,
    landed_tick,
    read_expired,
    revised_days,
    revisions_of,
    steps,
)
from tickledger.ledger import Ledger
from tickledger.plain_text import plain, print_table
from tickledger.revisions import Place, TickValues
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, fetch_rows, mysql
from tickledger.tick import ms_to_datetime

_BY_BATCH = """
SELECT a.batch_id, a.ticks, a.total_volume, b.landed_at, b.verdict,
       (SELECT GROUP_CONCAT(CONCAT(o.kafka_partition, ':', o.from_offset, '-', o.until_offset - 1)
                            ORDER BY o.kafka_partition SEPARATOR ' ')
          FROM landed_offsets o WHERE o.batch_id = a.batch_id) AS offsets,
       (SELECT GROUP_CONCAT(CONCAT(f.expectation, ' (', f.severity, '): ', f.observed) SEPARATOR '; ')
          FROM batch_findings f WHERE f.batch_id = a.batch_id) AS findings
  FROM ({sums}) AS a
  JOIN landed_batches b ON b.batch_id = a.batch_id
 ORDER BY a.batch_id
"""

_SUMS = """
SELECT batch_id, CAST(SUM(ticks) AS SIGNED) AS ticks, SUM(total_volume) AS total_volume
  FROM aggregated_data WHERE date = %s AND sector = %s GROUP BY batch_id
"""
#: Of batches whose corrections change nothing of it.
_NO_SUMS = """
SELECT batch_id, 0 AS ticks, CAST(0 AS DECIMAL(20,0)) AS total_volume FROM landed_batches WHERE batch_id IN ({ids})
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


class Correction(NamedTuple):
    """A correction or cancellation that has to do with a sector: its tick, and what it did, if that has landed."""

    tick: TickKey
    step: Step
    waits: bool = False

    @property
    def batch_id(self) -> int:
        """The batch that brought it."""
        return self.step.revision.batch_id

    @property
    def kind(self) -> str:
        """What it is."""
        return "cancellation" if self.step.revision.values is None else "correction"

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        revision = self.step.revision
        sides = {"before": self.step.before, "after": self.step.after}
        return {
            "batch": self.batch_id,
            "kind": self.kind,
            **self.tick._asdict(),
            "revised_at": ms_to_datetime(revision.revised_ms),
            **revision.place._asdict(),
            "waits_for_its_tick": self.waits,
            **{name: values and values._asdict() for name, values in sides.items()},
        }


class Traced(NamedTuple):
    """What a number is made of: rows of :data:`_COLUMNS`, of how many batches; corrections; what was given up."""

    rows: list[tuple[Any, ...]]
    batches: int
    corrections: list[Correction]
    lost: list[str]


def main(
    sector: Annotated[str, typer.Option(help="The sector, as in profile.")],
    on: Annotated[datetime | None, typer.Option("--date", formats=["%Y-%m-%d"], help="The trading day; today.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the batches that a day's volume of a sector is made of: offsets, findings and verdict of each.

    Offsets read partition:first-last, the place of a correction partition/offset/position in the message. The volumes
    add up to the number that `volume_today` or `volume_by_day` shows. Batches that were rolled up share one line, with
    what the ledger says of all batches from the first to the last.
    Below stand the corrections and cancellations of its ticks, and the messages that were lost and given up beside or
    between these batches.
    """
    settings = load_settings()
    day = on.date() if on else Ledger(settings).exchange().day_of(datetime.now(UTC))
    traced = _trace(settings, day, sector)
    if not traced.rows:
        raise ConfigurationError(f"--sector is {sector!r}; nothing of it has landed for {day}{_meant(day, sector)}")
    if as_json:
        print_json(_as_json(traced))
        return
    table = Table("batch", "ticks", "volume (shares)", "landed at (UTC)", "verdict", "offsets", "findings", box=None)
    for batch_id, ticks, volume, landed_at, verdict, offsets, findings in traced.rows:
        when = f"{landed_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(batch_id), f"{ticks:,}", f"{volume:,}", when, plain(verdict), offsets, plain(findings or ""))
    print_table(table)
    shares = counted(int(sum(row[2] for row in traced.rows)), "share")
    print(f"{day}, {plain(sector)}: {shares} from {counted(traced.batches, 'batch', 'batches')}")
    _print_corrections(traced.corrections)
    for line in traced.lost:
        print(plain(line))


def _print_corrections(corrections: list[Correction]) -> None:
    if not corrections:
        return
    table = Table("batch", "correction of", "made at (UTC)", "place", "from → to", box=None)
    for one in corrections:
        of = f"{plain(one.tick.ticker)}, {one.tick.created_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f", id {one.tick.id}"
        made_at = ms_to_datetime(one.step.revision.revised_ms)
        place = "/".join(map(str, one.step.revision.place))
        what = "waits for its tick" if one.waits else plain(one.step.in_words())
        table.add_row(str(one.batch_id), of, f"{made_at:%Y-%m-%d %H:%M:%S}", place, what)
    print_table(table)


def _as_json(traced: Traced) -> list[dict[str, Any]]:
    """The rows, each with the corrections that its batches brought."""
    rows: list[dict[str, Any]] = [dict(zip(_COLUMNS, row, strict=True)) | {"corrections": []} for row in traced.rows]
    for one in traced.corrections:
        of_batch = next(row for row in rows if _holds(row["batch"], one.batch_id))
        of_batch["corrections"].append(one.as_json())
    return rows


def _holds(batch: int | str, batch_id: int) -> bool:
    """Whether a row is of that batch: its own one, or that of the batches that were rolled up, "1-7, rolled up"."""
    if isinstance(batch, int):
        return batch == batch_id
    first, last = map(int, batch.partition(",")[0].split("-"))
    return first <= batch_id <= last


def _meant(day: date, sector: str) -> str:
    """Which other sector may be meant, as the end of a sentence; empty if there is none like it."""
    with mysql(load_settings()) as connection:
        known = {str(name).casefold(): str(name) for (name,) in fetch_rows(connection, _SECTORS, {"day": day})}
    asked = sector.strip().casefold()
    alike = difflib.get_close_matches(asked, known, n=1) or [name for name in known if asked and asked in name]
    return f". {known[alike[0]]}?" if alike and known[alike[0]] != sector else ""


def _trace(settings: Settings, day: date, sector: str) -> Traced:
    rows, rolled_up, bounds = [], 0, []
    with mysql(settings) as connection:
        # All as of one moment, whatever lands meanwhile.
        connection.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # As many partitions and findings as there are: MySQL cuts at 1,024 letters, and says nothing.
        connection.cursor().execute("SET SESSION group_concat_max_len = 4294967295")
        spans = "SELECT first_batch_id, last_batch_id FROM daily_volume WHERE date = %s AND sector = %s"
        for first, last in fetch_rows(connection, spans, (day, sector)):
            names = {"day": day, "sector": sector, "first": first, "last": last}
            ((rolled_up, *said),) = fetch_rows(connection, _ROLLED_UP, names)
            rows.append((f"{first}-{last}, rolled up", *said))
            bounds += [first, last]
        by_batch = fetch_rows(connection, _BY_BATCH.format(sums=_SUMS), (day, sector))
        bounds += [row[0] for row in by_batch]
        lost = given_up(connection, min(bounds) - 1, max(bounds)) if bounds else []
        corrections = []
        if bounds and fetch_rows(connection, "SELECT 1 FROM landed_batches WHERE corrections > 0 LIMIT 1"):
            ranges, expired = read_ranges(connection), read_expired(connection)
            corrections = _corrections(settings, day, sector, ranges, expired)
        batches = rolled_up + len(by_batch)
        known = [row[0] for row in rows + by_batch]
        others = {one.batch_id for one in corrections if not any(_holds(batch, one.batch_id) for batch in known)}
        if others:
            no_sums = _NO_SUMS.format(ids=", ".join(["%s"] * len(others)))
            by_batch += fetch_rows(connection, _BY_BATCH.format(sums=no_sums), sorted(others))
            by_batch.sort(key=lambda row: row[0])
    return Traced(rows + by_batch, batches, corrections, lost)


def _corrections(
    settings: Settings, day: date, sector: str, ranges: OffsetRanges, expired: set[Place]
) -> list[Correction]:
    """Those of ticks that were of the sector before or after any of them, in the order of landing."""
    found = []
    with cassandra(settings) as session:
        tick_of = session.prepare(f"{SELECT_TICKS} WHERE ticker = ? AND trade_date = ? AND created_at = ? AND id = ?")
        for ticker in sorted(ticker for ticker, of in revised_days(session) if of == day):
            for key, revisions in revisions_of(session, ticker, day, ranges.batch_of, expired).items():
                rows = session.execute(tick_of, (ticker, day, key.created_at, key.id))
                tick = next((landed_tick(row, ranges.batch_of)[1] for row in rows), None)
                if sector not in _sectors([tick and tick.values, *(one.values for one in revisions)]):
                    continue
                if tick is None:
                    found += [Correction(key, Step(one, None, None), waits=True) for one in revisions]
                else:
                    found += [Correction(key, step) for step in steps(tick, revisions)]
    return sorted(found, key=lambda one: (one.batch_id, one.step.revision.place))


def _sectors(values: list[TickValues | None]) -> set[str]:
    return {one.sector for one in values if one is not None}
