"""The rows of a message, or of a file, of CSV, as a feed's description says. Pure functions."""

import csv
from collections.abc import Iterator, Sequence

from tickledger.elements import Unreadable
from tickledger.feed import CSV_MARK, MARKED, Feed
from tickledger.revisions import RevisionKind
from tickledger.row_rules import Broken, quote
from tickledger.tick import TICK_FIELDS

#: A row of CSV that a quote lays out over more lines is none.
MOST_LINES_A_ROW = 100


def csv_rows(
    feed: Feed, lines: Sequence[str]
) -> tuple[Sequence[str], Iterator[tuple[list[str] | Broken, tuple[int, int]]]]:
    """The columns that lines of CSV have, and each row's values, or what is wrong with it, and its first and last line.

    Lines are counted from 1, and empty ones are no rows. Raises Unreadable where the columns cannot be told.
    """
    rows = _csv_values(feed, lines)
    if feed.csv.columns:
        return feed.csv.columns, _checked(rows, feed.csv.columns)
    header, _ = next(rows, ([], (1, 1)))
    if type(header) is Broken:
        raise Unreadable("not_csv", f"the first line names no columns: {header.detail}")
    columns = [str(name).strip() for name in header]
    if len(set(columns)) < len(columns):
        raise Unreadable("other_columns", "the first line names a column twice")
    if lacking := [quote(path) for path in _columns_needed(feed) if path not in columns]:
        raise Unreadable("other_columns", f"the first line names no column {', '.join(lacking[:3])}")
    return columns, _checked(rows, columns)


def _csv_values(feed: Feed, lines: Sequence[str]) -> Iterator[tuple[list[str] | Broken, tuple[int, int]]]:
    """The values of each row that is not empty. Behind a line that cannot be read, the next line is a row again."""
    at = 0
    while at < len(lines):
        reader = csv.reader(lines[at : at + MOST_LINES_A_ROW], delimiter=feed.csv.delimiter, strict=True)
        try:
            row: list[str] | Broken = next(reader)
            last = at + reader.line_num
        except csv.Error as error:
            row, last = Broken("not_csv", str(error)), at + 1
        if type(row) is Broken or "".join(row).strip():
            yield row, (at + 1, last)
        at = last


def _checked(
    rows: Iterator[tuple[list[str] | Broken, tuple[int, int]]], columns: Sequence[str]
) -> Iterator[tuple[list[str] | Broken, tuple[int, int]]]:
    for number, (row, place) in enumerate(rows):
        if type(row) is Broken:
            yield row, place
            continue
        if number == 0 and [name.strip() for name in row] == list(columns):
            continue
        marked = len(row) == len(columns) + 1 and row[-1] == CSV_MARK.decode()
        if len(row) != len(columns) and not marked:
            why = f"it has {len(row):,} values for {len(columns):,} columns"
            yield Broken("other_columns", why), place
            continue
        yield row, place


def cells_of(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """The cells of a row that are not empty."""
    cells = {name: text for name, cell in zip(columns, row, strict=False) if (text := cell.strip())}
    return cells | {MARKED: RevisionKind.CORRECTION} if len(row) > len(columns) else cells


def _columns_needed(feed: Feed) -> Iterator[str]:
    optional = {field.name for field in TICK_FIELDS if field.optional}
    for place, _, source in feed.sources():
        if place[-1] not in optional:
            yield from (path for path in source.paths() if path not in (source.first_of or ()))
    if feed.revision is not None:
        yield feed.revision.path
