"""`tickledger reconcile`: do Cassandra, MySQL and the ledger tell the same story?

Compares ticks and volume by date, sector and batch, dead letters by batch, and the ledger's own ranges. Batches that
were rolled up are compared together, by date and sector. Reads only.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from tickledger.plain_text import plain
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra, fetch_rows, mysql
from tickledger.tick import DEAD_LETTER_TABLE, RAW_TABLE


class Amount(NamedTuple):
    """Ticks, and their volume in shares."""

    ticks: int = 0
    volume: int = 0

    def __add__(self, other: Any) -> "Amount":
        return Amount(self.ticks + other[0], self.volume + other[1])

    def minus(self, other: "Amount") -> "Amount":
        """What is left without the other amount."""
        return Amount(self.ticks - other.ticks, self.volume - other.volume)


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
    verdicts: dict[str, int] = field(default_factory=dict)
    #: What was lost and accepted as such, one line each: no difference.
    given_up: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


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
    books = Books()
    with mysql(settings) as connection:
        connection.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        ranges = read_ranges(connection)
        batches = fetch_rows(
            connection,
            "SELECT batch_id, messages, ticks_read, ticks_landed, dead_letters, duplicates, volume, verdict"
            " FROM landed_batches ORDER BY batch_id",
        )
        newest_moved = newest_rolled_up(connection)
        books.given_up = given_up(connection)
        aggregates = {
            (int(batch_id), day, sector): Amount(int(ticks), int(volume))
            for batch_id, day, sector, ticks, volume in fetch_rows(
                connection,
                "SELECT batch_id, date, sector, ticks, total_volume FROM aggregated_data"
                f" UNION ALL SELECT {ROLLED_UP}, date, sector, ticks, total_volume FROM daily_volume",
            )
        }
    with cassandra(settings) as session:
        ticks = _ticks_by_slice(session, ranges, newest_moved)
        dead = _dead_by_batch(session, ranges)
    _add_up(books, batches, aggregates, ticks)
    books.differences.extend(ranges.gaps())
    books.differences.extend(_compare_slices(aggregates, ticks))
    books.differences.extend(_compare_batches(batches, aggregates, dead, newest_moved))
    return books


def read_ranges(connection: MySQLConnectionAbstract) -> OffsetRanges:
    """The ledger's ranges as this connection sees them."""
    return OffsetRanges(
        fetch_rows(
            connection,
            "SELECT batch_id, kafka_partition, from_offset, until_offset FROM landed_offsets"
            " UNION ALL SELECT NULL, kafka_partition, from_offset, until_offset FROM skipped_offsets",
        )
    )


def _add_up(
    books: Books, batches: list[Any], aggregates: dict[SliceKey, Amount], ticks: dict[SliceKey, Amount]
) -> None:
    books.batches = len(batches)
    for _, messages, read, landed, dead, duplicates, _, verdict in batches:
        books.messages += messages
        books.ticks_read += read
        books.ticks_landed += landed
        books.dead_letters += dead
        books.duplicates += duplicates
        books.verdicts[verdict] = books.verdicts.get(verdict, 0) + 1
    books.cassandra = sum(ticks.values(), Amount())
    books.mysql = sum(aggregates.values(), Amount())


def _compare_slices(aggregates: dict[SliceKey, Amount], ticks: dict[SliceKey, Amount]) -> Iterator[str]:
    for key in sorted(aggregates.keys() | ticks.keys()):
        in_mysql, in_cassandra = aggregates.get(key, Amount()), ticks.get(key, Amount())
        if in_mysql != in_cassandra:
            batch_id, day, sector = key
            yield (
                f"{_name(batch_id)}, {day}, {sector}: Cassandra has {in_cassandra.ticks:,} ticks of"
                f" {in_cassandra.volume:,} shares, MySQL {in_mysql.ticks:,} of {in_mysql.volume:,}"
            )


def _compare_batches(
    batches: list[Any], aggregates: dict[SliceKey, Amount], dead: dict[int, int], newest_moved: int
) -> Iterator[str]:
    landed: dict[int, Amount] = defaultdict(Amount)
    for (batch_id, _, _), amount in aggregates.items():
        landed[batch_id] += amount
    moved = sum((Amount(ticks, int(volume)) for _, _, _, ticks, _, _, volume, _ in batches[:newest_moved]), Amount())
    if landed[ROLLED_UP] != moved:
        yield (
            f"batches 1 to {newest_moved}, rolled up: the ledger says {moved.ticks:,} ticks of {moved.volume:,} shares,"
            f" daily_volume {landed[ROLLED_UP].ticks:,} of {landed[ROLLED_UP].volume:,}"
        )
    for expected, (batch_id, _, read, ticks, dead_letters, duplicates, volume, _) in enumerate(batches, start=1):
        if batch_id != expected:
            yield f"batch {expected} is missing from the ledger, which goes on with {batch_id}"
            return
        if read != ticks + dead_letters + duplicates:
            parts = f"landed {ticks:,} + dead letters {dead_letters:,} + duplicates {duplicates:,}"
            yield f"batch {batch_id}: read {read:,} is not {parts}"
        if landed[batch_id] != (Amount(ticks, int(volume)) if batch_id > newest_moved else Amount()):
            yield (
                f"batch {batch_id}: the ledger says {ticks:,} ticks of {volume:,} shares, aggregated_data"
                f" {landed[batch_id].ticks:,} of {landed[batch_id].volume:,}"
            )
        if dead.get(batch_id, 0) != dead_letters:
            stored = dead.get(batch_id, 0)
            yield f"batch {batch_id}: the ledger says {dead_letters:,} dead letters, Cassandra has {stored:,}"


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
    console.print(f"{books.batches:,} batches of {books.messages:,} messages: {verdicts or 'none landed yet'}")
    for line in books.given_up:
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for difference in books.differences:
        console.print(Text.assemble(("differs", "red"), f" {plain(difference)}"))
    console.print("[red]The books do not agree.[/red]" if books.differences else "[green]The books agree.[/green]")


def main(as_json: AsJson = False) -> None:
    """Compare Cassandra, MySQL and the ledger by date, sector and batch.

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
