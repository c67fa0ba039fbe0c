"""`tickledger reconcile`: do Cassandra, MySQL and the ledger tell the same story?

Compares ticks and volume by date, sector and batch, dead letters by batch, and the ledger's own ranges. Batches that
were rolled up are compared together, by date and sector; `company_hours` by date. Reads only.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date
from itertools import pairwise
from typing import Any, NamedTuple

import typer
from cassandra.cluster import Session
from mysql.connector.abstracts import MySQLConnectionAbstract
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.give_up import given_up
from commands.roll_up import newest_rolled_up
from tickledger.command_line import AsJson, print_json
from tickledger.counted import counted
from tickledger.plain_text import plain
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, fetch_rows, mysql
from tickledger.tick import DEAD_LETTER_TABLE, RAW_TABLE


class Amount(NamedTuple):
    """Ticks, and their volume in shares."""

    ticks: int = 0
    volume: int = 0

    def __str__(self) -> str:
        return f"{counted(self.ticks, 'tick')} of {counted(self.volume, 'share')}"

    def __add__(self, other: Any) -> "Amount":
        return Amount(self.ticks + other[0], self.volume + other[1])

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.ticks - other.ticks, self.volume - other.volume)


class BatchRow(NamedTuple):
    """What the ledger says of a batch: its row of `landed_batches`, as far as it is compared."""

    batch_id: int
    messages: int
    ticks_read: int
    ticks_landed: int
    dead_letters: int
    duplicates: int
    volume: int
    verdict: str

    @property
    def landed(self) -> Amount:
        """Its landed ticks."""
        return Amount(self.ticks_landed, int(self.volume))


#: Stands for all batches that were rolled up.
ROLLED_UP = 0
#: (batch id or ROLLED_UP, trading day, sector)
SliceKey = tuple[int, date, str]


@dataclass
class Books:
    """What the stores hold of the landed batches, and where they disagree: one line a difference.

    Rows of a batch that is being landed are not in the ledger yet and count nowhere.
    """

    batches: int = 0
    messages: int = 0
    ticks_read: int = 0
    ticks_landed: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    cassandra: Amount = field(default_factory=Amount)
    mysql: Amount = field(default_factory=Amount)
    verdicts: Counter[str] = field(default_factory=Counter)
    #: Trading days of which `company_hours` has all hours, which are compared.
    days_by_hour: int = 0
    #: What was lost and accepted as such, one line each: no difference.
    given_up: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def since(self, before: "Books") -> "Books":
        """What has come to these books since those before: counts and amounts alone."""
        counted = [one.name for one in fields(self) if one.name not in ("given_up", "differences")]
        return Books(**{name: getattr(self, name) - getattr(before, name) for name in counted})


class OffsetRanges:
    """Finds the batch that landed a message, from the ledger's ranges of offsets. What was skipped has no batch."""

    def __init__(self, rows: list[tuple[int | None, int, int, int]]) -> None:
        self._ranges: dict[int, list[tuple[int, int, int | None]]] = defaultdict(list)
        for batch_id, partition, start, until in rows:
            self._ranges[partition].append((start, until, batch_id))
        for ranges in self._ranges.values():
            ranges.sort(key=lambda one: one[:2])
        self.newest_batch = max((row[0] for row in rows if row[0] is not None), default=0)

    def batch_of(self, partition: int, offset: int) -> int | None:
        """The batch of a message; None where it has not landed."""
        ranges = self._ranges.get(partition, [])
        at = bisect_right(ranges, offset, key=lambda one: one[0]) - 1
        return ranges[at][2] if at >= 0 and offset < ranges[at][1] else None

    def gaps(self) -> Iterator[str]:
        """One line for each place where a partition's ranges do not follow each other."""
        for partition, ranges in sorted(self._ranges.items()):
            for (_, until, before), (start, _, after) in pairwise(ranges):
                if start != until:
                    ended, begun = (f"batch {one}" if one else "a skipped range" for one in (before, after))
                    yield f"partition {partition}: {ended} ends at offset {until}, {begun} begins at {start}"


def reconcile(settings: Settings) -> Books:
    """Read both stores and compare them. Raises ConfigurationError or StoreUnavailable where one cannot be read."""
    with mysql(settings) as connection:
        connection.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ranges = read_ranges(connection)
        query = f"SELECT {', '.join(BatchRow._fields)} FROM landed_batches ORDER BY batch_id"
        batches = [BatchRow(*row) for row in fetch_rows(connection, query)]
        newest_moved = newest_rolled_up(connection)
        lost = given_up(connection)
        days_by_hour, differing_days = _compare_hours(connection)
        aggregates = {
            (int(batch_id), day, sector): Amount(int(ticks), int(volume))
            for batch_id, day, sector, ticks, volume in fetch_rows(
                connection,
                "SELECT batch_id, date, sector, SUM(ticks), SUM(total_volume) FROM aggregated_data GROUP BY 1, 2, 3"
                f" UNION ALL SELECT {ROLLED_UP}, date, sector, ticks, total_volume FROM daily_volume",
            )
        }
    with cassandra(settings) as session:
        ticks = _ticks_by_slice(session, ranges, newest_moved)
        dead = _dead_by_batch(session, ranges)
    return Books(
        batches=len(batches),
        messages=sum(batch.messages for batch in batches),
        ticks_read=sum(batch.ticks_read for batch in batches),
        ticks_landed=sum(batch.ticks_landed for batch in batches),
        dead_letters=sum(batch.dead_letters for batch in batches),
        duplicates=sum(batch.duplicates for batch in batches),
        cassandra=sum(ticks.values(), Amount()),
        mysql=sum(aggregates.values(), Amount()),
        verdicts=Counter(batch.verdict for batch in batches),
        days_by_hour=days_by_hour,
        given_up=lost,
        differences=[
            *ranges.gaps(),
            *_compare_slices(aggregates, ticks),
            *_compare_batches(batches, aggregates, dead, newest_moved),
            *differing_days,
        ],
    )


def read_ranges(connection: MySQLConnectionAbstract) -> OffsetRanges:
    """The ledger's ranges as this connection sees them."""
    return OffsetRanges(
        fetch_rows(
            connection,
            "SELECT batch_id, kafka_partition, from_offset, until_offset FROM landed_offsets"
            " UNION ALL SELECT NULL, kafka_partition, from_offset, until_offset FROM skipped_offsets",
        )
    )


def _compare_slices(aggregates: dict[SliceKey, Amount], ticks: dict[SliceKey, Amount]) -> Iterator[str]:
    for key in sorted(aggregates.keys() | ticks.keys()):
        in_mysql, in_cassandra = aggregates.get(key, Amount()), ticks.get(key, Amount())
        if in_mysql != in_cassandra:
            batch_id, day, sector = key
            yield (
                f"{_name(batch_id)}, {day}, {sector}: Cassandra has {in_cassandra},"
                f" MySQL {in_mysql.ticks:,} of {in_mysql.volume:,}"
            )


def _compare_batches(
    batches: list[BatchRow], aggregates: dict[SliceKey, Amount], dead: dict[int, int], newest_moved: int
) -> Iterator[str]:
    landed: dict[int, Amount] = defaultdict(Amount)
    for (batch_id, _, _), amount in aggregates.items():
        landed[batch_id] += amount
    moved = sum((batch.landed for batch in batches[:newest_moved]), Amount())
    if landed[ROLLED_UP] != moved:
        yield (
            f"batches 1 to {newest_moved}, rolled up: the ledger says {moved},"
            f" daily_volume {landed[ROLLED_UP].ticks:,} of {landed[ROLLED_UP].volume:,}"
        )
    for expected, batch in enumerate(batches, start=1):
        if batch.batch_id != expected:
            yield f"batch {expected} is missing from the ledger, which goes on with {batch.batch_id}"
            return
        yield from _compare_batch(batch, landed[expected], dead.get(expected, 0), rolled_up=expected <= newest_moved)


def _compare_batch(batch: BatchRow, found: Amount, dead: int, *, rolled_up: bool) -> Iterator[str]:
    if batch.ticks_read != batch.ticks_landed + batch.dead_letters + batch.duplicates:
        parts = f"{batch.ticks_landed:,} + dead letters {batch.dead_letters:,} + duplicates {batch.duplicates:,}"
        yield f"batch {batch.batch_id}: read {batch.ticks_read:,} is not landed {parts}"
    if found != (Amount() if rolled_up else batch.landed):
        yield (
            f"batch {batch.batch_id}: the ledger says {batch.landed},"
            f" aggregated_data {found.ticks:,} of {found.volume:,}"
        )
    if dead != batch.dead_letters:
        said = counted(batch.dead_letters, "dead letter")
        yield f"batch {batch.batch_id}: the ledger says {said}, Cassandra has {dead:,}"


#: A day's sums over the batches up to one; and the newest of them, which is a later one where that was rolled up too.
_DAY_IN_LEDGER = """
SELECT COALESCE(SUM(ticks), 0), COALESCE(SUM(total_volume), 0), MAX(batch_id), MAX(last_created_at)
  FROM (SELECT ticks, total_volume, batch_id, last_created_at
          FROM aggregated_data WHERE date = %(day)s AND batch_id <= %(to_batch)s
         UNION ALL
        SELECT ticks, total_volume, last_batch_id, last_created_at FROM daily_volume WHERE date = %(day)s) AS parts
"""
_DAY_BY_HOUR = "SELECT COALESCE(SUM(ticks), 0), COALESCE(SUM(volume), 0) FROM company_hours WHERE date = %s"


def _compare_hours(connection: MySQLConnectionAbstract) -> tuple[int, list[str]]:
    """How many days have all hours of the batches that they are filled to, and which of them differ from the ledger."""
    days, differences = 0, []
    filled = "SELECT date, filled_to_batch, filled_until FROM filled_days ORDER BY date"
    for day, to_batch, until in fetch_rows(connection, filled):
        of_day = {"day": day, "to_batch": to_batch}
        ((ticks, volume, newest_batch, last_created_at),) = fetch_rows(connection, _DAY_IN_LEDGER, of_day)
        if newest_batch is not None and (newest_batch > to_batch or last_created_at >= until):
            continue
        days += 1
        (by_hour,) = fetch_rows(connection, _DAY_BY_HOUR, (day,))
        if (found := Amount(*map(int, by_hour))) != (said := Amount(int(ticks), int(volume))):
            differences.append(
                f"{day}, by company and hour: the ledger says {said}, company_hours {found.ticks:,} of"
                f" {found.volume:,}; 'tickledger fill-hours --date {day}' sums it again"
            )
    return days, differences


def _name(batch_id: int) -> str:
    return "rolled up" if batch_id == ROLLED_UP else f"batch {batch_id}"


def _ticks_by_slice(session: Session, ranges: OffsetRanges, newest_moved: int) -> dict[SliceKey, Amount]:
    found: dict[SliceKey, Amount] = defaultdict(Amount)
    rows = session.execute(
        f"SELECT trade_date, sector, volume, kafka_partition, kafka_offset FROM {RAW_TABLE}", timeout=60
    )
    for day, sector, volume, partition, offset in rows:
        batch_id = ranges.batch_of(partition, offset)
        if batch_id is not None:
            place = batch_id if batch_id > newest_moved else ROLLED_UP
            found[place, day.date(), sector] += Amount(1, volume)
    return found


def _dead_by_batch(session: Session, ranges: OffsetRanges) -> dict[int, int]:
    found: dict[int, int] = defaultdict(int)
    # Asked for nothing but the key, Cassandra reads whole rows into its memory, raw values and all.
    for partition, offset, _ in session.execute(
        f"SELECT kafka_partition, kafka_offset, reason FROM {DEAD_LETTER_TABLE}", timeout=60
    ):
        batch_id = ranges.batch_of(partition, offset)
        if batch_id is not None:
            found[batch_id] += 1
    return found


def print_books(books: Books, console: Console) -> None:
    """Show the books as a table, then every difference."""
    table = Table(title="The books of every landed batch", title_justify="left")
    table.add_column("what")
    table.add_column("ticks", justify="right")
    table.add_column("volume (shares)", justify="right")
    table.add_row("read from Kafka", f"{books.ticks_read:,}", "")
    table.add_row("= landed", f"{books.ticks_landed:,}", "")
    table.add_row("+ dead letters", f"{books.dead_letters:,}", "")
    table.add_row("+ duplicates", f"{books.duplicates:,}", "", end_section=True)
    table.add_row("in Cassandra, real_time_data", f"{books.cassandra.ticks:,}", f"{books.cassandra.volume:,}")
    table.add_row("in MySQL, aggregated_data + daily_volume", f"{books.mysql.ticks:,}", f"{books.mysql.volume:,}")
    console.print(table)
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(books.verdicts.items()))
    read = f"{counted(books.batches, 'batch', 'batches')} of {counted(books.messages, 'message')}"
    console.print(f"{read}: {verdicts or 'none landed yet'}")
    console.print(f"company_hours: {counted(books.days_by_hour, 'day')} with all hours filled")
    for line in books.given_up:
        console.print(Text(plain(line), "yellow"), soft_wrap=True)
    for difference in books.differences:
        console.print(Text.assemble(("differs", "red"), f" {plain(difference)}"))
    console.print("[red]The books do not agree.[/red]" if books.differences else "[green]The books agree.[/green]")


def main(as_json: AsJson = False) -> None:
    """Compare Cassandra, MySQL and the ledger by date, sector and batch; what is filled by hour by date.

    Exit code 0: the books agree. 1: they do not, and each difference is named. 2: a store cannot be read.
    """
    books = reconcile(load_settings())
    if as_json:
        amounts = {"cassandra": books.cassandra._asdict(), "mysql": books.mysql._asdict()}
        print_json(vars(books) | amounts | {"agree": not books.differences})
    else:
        print_books(books, Console(width=100))
    if books.differences:
        raise typer.Exit(1)
