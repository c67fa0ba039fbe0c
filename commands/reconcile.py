"""`tickledger reconcile`: do Cassandra, MySQL and the ledger tell the same story?

Compares ticks and volume, as corrected, by date, sector and batch, corrections and dead letters by batch, and the
ledger's own ranges. Batches that were rolled up are compared together, by date and sector; `company_hours` by date.
Reads only.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from datetime import date, datetime
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
from tickledger.landed_revisions import Revisions, TickKey, read_revisions
from tickledger.plain_text import plain
from tickledger.revisions import LandedTick, Place, TickValues, changes
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
    corrections: int | None
    dead_letters: int
    duplicates: int
    volume: int
    corrected_ticks: int | None
    corrected_volume: int | None
    verdict: str

    @property
    def corrected(self) -> Amount:
        """By what its corrections change what held before; nothing in batches from before there were any."""
        return Amount(int(self.corrected_ticks or 0), int(self.corrected_volume or 0))

    @property
    def summed(self) -> Amount:
        """What `aggregated_data` has of it: its landed ticks, and what it corrects."""
        return Amount(self.ticks_landed, int(self.volume)) + self.corrected


#: Stands for all batches that were rolled up.
ROLLED_UP = 0
#: (batch id or ROLLED_UP, trading day, sector)
SliceKey = tuple[int, date, str]
#: Of each slice its ticks and volume, and by what corrections change what held before, which is part of them.
Slices = dict[SliceKey, tuple[Amount, Amount]]
_EMPTY = Amount(), Amount()


@dataclass
class Books:
    """What the stores hold of the landed batches, and where they disagree: one line a difference.

    Rows of a batch that is being landed are not in the ledger yet and count nowhere.
    """

    batches: int = 0
    messages: int = 0
    ticks_read: int = 0
    ticks_landed: int = 0
    corrections: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    cassandra: Amount = field(default_factory=Amount)
    mysql: Amount = field(default_factory=Amount)
    verdicts: Counter[str] = field(default_factory=Counter)
    #: Trading days of which `company_hours` has all hours, which are compared.
    days_by_hour: int = 0
    #: What was lost and accepted as such, one line each: no difference.
    given_up: list[str] = field(default_factory=list)
    #: Corrections whose tick has not landed yet, in one line: no difference.
    waiting: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def since(self, before: "Books") -> "Books":
        """What has come to these books since those before: counts and amounts alone."""
        counted = [one.name for one in fields(self) if one.name not in ("given_up", "waiting", "differences")]
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
        aggregates = _aggregates_by_slice(connection)
        waiting, expired = _waiting(connection)
    with cassandra(settings) as session:
        revisions = read_revisions(session, ranges.batch_of, expired)
        ticks = _ticks_by_slice(session, ranges, newest_moved, revisions)
        # The dead letters last: a correction that waits too long becomes one, and only then does its row go.
        dead, expired_since = _dead_letters(session, ranges, waiting.keys(), expired)
    # One that has expired, or did meanwhile, counts as the ledger has it, wherever its row is by now.
    places = {one.place for of_tick in revisions.values() for one in of_tick} | expired_since
    corrections = Counter(batch_id for batch_id in (ranges.batch_of(*place[:2]) for place in places) if batch_id)
    return Books(
        batches=len(batches),
        messages=sum(batch.messages for batch in batches),
        ticks_read=sum(batch.ticks_read for batch in batches),
        ticks_landed=sum(batch.ticks_landed for batch in batches),
        corrections=sum(batch.corrections or 0 for batch in batches),
        dead_letters=sum(batch.dead_letters for batch in batches),
        duplicates=sum(batch.duplicates for batch in batches),
        cassandra=sum((amount for amount, _ in ticks.values()), Amount()),
        mysql=sum((amount for amount, _ in aggregates.values()), Amount()),
        verdicts=Counter(batch.verdict for batch in batches),
        days_by_hour=days_by_hour,
        given_up=lost,
        waiting=_waiting_in_words(list(waiting.values())),
        differences=[
            *ranges.gaps(),
            *_compare_slices(aggregates, ticks),
            *_compare_batches(batches, aggregates, dead, corrections, newest_moved),
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


def _aggregates_by_slice(connection: MySQLConnectionAbstract) -> Slices:
    sums = "ticks, total_volume, COALESCE(corrected_ticks, 0), COALESCE(corrected_volume, 0)"
    rows = fetch_rows(
        connection,
        "SELECT batch_id, date, sector, SUM(ticks), SUM(total_volume), COALESCE(SUM(corrected_ticks), 0),"
        " COALESCE(SUM(corrected_volume), 0) FROM aggregated_data GROUP BY 1, 2, 3"
        f" UNION ALL SELECT {ROLLED_UP}, date, sector, {sums} FROM daily_volume",
    )
    return {
        (int(batch_id), day, sector): (Amount(*map(int, amounts[:2])), Amount(*map(int, amounts[2:])))
        for batch_id, day, sector, *amounts in rows
    }


def _waiting(connection: MySQLConnectionAbstract) -> tuple[dict[Place, datetime], set[Place]]:
    """The corrections that wait for their tick, with since when; and those that waited too long, as dead letters."""
    query = "SELECT kafka_partition, kafka_offset, position, waits_since, expired_at FROM waiting_revisions"
    waiting, expired = {}, set()
    for partition, offset, position, since, expired_at in fetch_rows(connection, query):
        place = Place(int(partition), int(offset), int(position))
        if expired_at is None:
            waiting[place] = since
        else:
            expired.add(place)
    return waiting, expired


def _waiting_in_words(since: list[datetime]) -> list[str]:
    if not since:
        return []
    verb = "waits for its tick" if len(since) == 1 else "wait for their ticks"
    return [f"{counted(len(since), 'correction')} {verb}, the oldest since {min(since):%Y-%m-%d %H:%M:%S} UTC"]


def _compare_slices(aggregates: Slices, ticks: Slices) -> Iterator[str]:
    for key in sorted(aggregates.keys() | ticks.keys()):
        batch_id, day, sector = key
        for what, in_mysql, in_cassandra in zip(
            ("", ", by corrections"), aggregates.get(key, _EMPTY), ticks.get(key, _EMPTY), strict=True
        ):
            if in_mysql != in_cassandra:
                yield (
                    f"{_name(batch_id)}, {day}, {sector}{what}: Cassandra has {in_cassandra},"
                    f" MySQL {in_mysql.ticks:,} of {in_mysql.volume:,}"
                )


def _compare_batches(
    batches: list[BatchRow],
    aggregates: Slices,
    dead: Counter[int],
    corrections: Counter[int],
    newest_moved: int,
) -> Iterator[str]:
    summed: dict[int, tuple[Amount, Amount]] = defaultdict(lambda: _EMPTY)
    for (batch_id, _, _), (amount, corrected) in aggregates.items():
        summed[batch_id] = summed[batch_id][0] + amount, summed[batch_id][1] + corrected
    moved = (
        sum((batch.summed for batch in batches[:newest_moved]), Amount()),
        sum((batch.corrected for batch in batches[:newest_moved]), Amount()),
    )
    for what, said, found in zip(("", ", by corrections"), moved, summed[ROLLED_UP], strict=True):
        if found != said:
            yield (
                f"batches 1 to {newest_moved}, rolled up{what}: the ledger says {said},"
                f" daily_volume {found.ticks:,} of {found.volume:,}"
            )
    for expected, batch in enumerate(batches, start=1):
        if batch.batch_id != expected:
            yield f"batch {expected} is missing from the ledger, which goes on with {batch.batch_id}"
            return
        yield from _compare_books(batch, dead[expected], corrections[expected])
        yield from _compare_sums(batch, summed[expected], rolled_up=expected <= newest_moved)


def _compare_books(batch: BatchRow, dead: int, corrections: int) -> Iterator[str]:
    said = batch.corrections or 0
    if batch.ticks_read != batch.ticks_landed + said + batch.dead_letters + batch.duplicates:
        parts = (
            f"{batch.ticks_landed:,} + corrections {said:,} + dead letters {batch.dead_letters:,}"
            f" + duplicates {batch.duplicates:,}"
        )
        yield f"batch {batch.batch_id}: read {batch.ticks_read:,} is not landed {parts}"
    if corrections != said:
        yield f"batch {batch.batch_id}: the ledger says {counted(said, 'correction')}, Cassandra has {corrections:,}"
    if dead != batch.dead_letters:
        letters = counted(batch.dead_letters, "dead letter")
        yield f"batch {batch.batch_id}: the ledger says {letters}, Cassandra has {dead:,}"


def _compare_sums(batch: BatchRow, found: tuple[Amount, Amount], *, rolled_up: bool) -> Iterator[str]:
    said = _EMPTY if rolled_up else (batch.summed, batch.corrected)
    for what, in_ledger, in_sums in zip(("", ", by corrections"), said, found, strict=True):
        if in_ledger != in_sums:
            yield (
                f"batch {batch.batch_id}{what}: the ledger says {in_ledger},"
                f" aggregated_data {in_sums.ticks:,} of {in_sums.volume:,}"
            )


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


def _ticks_by_slice(session: Session, ranges: OffsetRanges, newest_moved: int, revisions: Revisions) -> Slices:
    found: Slices = defaultdict(lambda: _EMPTY)

    def add(batch_id: int, day: date, sector: str, amount: Amount, corrected: Amount = _EMPTY[1]) -> None:
        key = batch_id if batch_id > newest_moved else ROLLED_UP, day, sector
        before = found[key]
        found[key] = before[0] + amount, before[1] + corrected

    # Without a correction, no tick is asked for its key.
    key = ", ticker, created_at, id" if revisions else ""
    rows = session.execute(
        f"SELECT trade_date, sector, volume, kafka_partition, kafka_offset{key} FROM {RAW_TABLE}", timeout=60
    )
    for trade_date, sector, volume, partition, offset, *tick in rows:
        batch_id = ranges.batch_of(partition, offset)
        if batch_id is None:
            continue
        day = trade_date.date()
        add(batch_id, day, sector, Amount(1, volume))
        # What is summed is compared here: of a tick's values its sector and its volume.
        for one in changes(
            LandedTick(batch_id, TickValues(volume, None, None, sector)), _revisions_of(tick, revisions)
        ):
            amount = Amount(one.ticks, one.volume)
            add(one.batch_id, day, one.values.sector, amount, amount)
    return found


def _revisions_of(tick: list[Any], revisions: Revisions) -> list[Any]:
    return revisions.get(TickKey(*tick), []) if tick else []


def _dead_letters(
    session: Session, ranges: OffsetRanges, waiting: Collection[Place], expired: set[Place]
) -> tuple[Counter[int], set[Place]]:
    """How many dead letters each batch has, all expired corrections among them; and those of the ones that wait."""
    found: Counter[int] = Counter()
    expired_since = set()
    # Asked for nothing but the key, Cassandra reads whole rows into its memory, raw values and all.
    rows = session.execute(
        f"SELECT kafka_partition, kafka_offset, position, reason FROM {DEAD_LETTER_TABLE}", timeout=60
    )
    for partition, offset, position, _ in rows:
        if (place := Place(partition, offset, position)) in waiting:
            expired_since.add(place)
        elif place not in expired and (batch_id := ranges.batch_of(partition, offset)) is not None:
            found[batch_id] += 1
    found.update(batch_id for batch_id in (ranges.batch_of(*place[:2]) for place in expired) if batch_id is not None)
    return found, expired_since


def print_books(books: Books, console: Console) -> None:
    """Show the books as a table, then every difference."""
    table = Table(title="The books of every landed batch", title_justify="left")
    table.add_column("what")
    table.add_column("ticks", justify="right")
    table.add_column("volume (shares)", justify="right")
    table.add_row("read from Kafka", f"{books.ticks_read:,}", "")
    table.add_row("= landed", f"{books.ticks_landed:,}", "")
    table.add_row("+ corrections", f"{books.corrections:,}", "")
    table.add_row("+ dead letters", f"{books.dead_letters:,}", "")
    table.add_row("+ duplicates", f"{books.duplicates:,}", "", end_section=True)
    table.add_row("in Cassandra, as corrected", f"{books.cassandra.ticks:,}", f"{books.cassandra.volume:,}")
    table.add_row("in MySQL, aggregated_data + daily_volume", f"{books.mysql.ticks:,}", f"{books.mysql.volume:,}")
    console.print(table)
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in sorted(books.verdicts.items()))
    read = f"{counted(books.batches, 'batch', 'batches')} of {counted(books.messages, 'message')}"
    console.print(f"{read}: {verdicts or 'none landed yet'}")
    console.print(f"company_hours: {counted(books.days_by_hour, 'day')} with all hours filled")
    for line in books.waiting:
        console.print(line)
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
