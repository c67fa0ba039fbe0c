"""From the bytes of a message to elements with a tick's own names, as a feed's description says. Pure functions.

An element that cannot be read as described is a :class:`tickledger.row_rules.Broken`; all else is for the row rules.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from tickledger.elements import Cut, Unreadable, array_spans, parsed, require_few_values
from tickledger.feed import EPOCHS, FROM_PROFILE, ISO, LABS_HEAD, LABS_TAIL, Feed, Source
from tickledger.numbers import FLOAT_DIGITS, exact, exact_json, has_long_numbers
from tickledger.revisions import RevisionKind
from tickledger.row_rules import (
    REVISED_AT_FIELD,
    REVISION_FIELD,
    UNKNOWN,
    Broken,
    RowRuleBroken,
    Unknown,
    extra_of,
    json_kind,
    quote,
)
from tickledger.tick import (
    EARLIEST_MS,
    LATEST_MS,
    MAX_BIGINT,
    MAX_TIME_LENGTH,
    TICK_FIELDS,
    BadTime,
    ms_to_datetime,
    parse_created_at,
)
from tickledger.unknown_fields import AROUND

#: The sector of a ticker that `profile` does not know: its tick cannot land, whatever the sector.
NO_SECTOR = "?"
#: No number is longer as a text.
MOST_NUMBER = 100
#: Times that a reader remembers, which mostly repeat.
REMEMBERED = 65_536
_MAY_BE_PARTED = re.compile(r"[-+]?\d{1,3}(\.\d{3})+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
#: What strptime does not read.
_BELOW_MICROSECONDS = re.compile(r"(\.\d{6})\d{1,3}(?!\d)")
_KINDS = {field.name: field.kind for field in TICK_FIELDS}
_KEY = ("ticker", "created_at", "id")
#: Computes with all digits that a number may have; decimals' own context rounds to 28.
_EXACT = Context(prec=400)

#: What a replay of dead letters puts into an element that a person has said is a correction, whatever the feed's marks.
MARKED = "tickledger.revision"
JSON_MARK = f', "{MARKED}": "{RevisionKind.CORRECTION}"'.encode()
#: A row of CSV that a quote lays out over more lines is none.
MOST_LINES_A_ROW = 100
CSV_MARK = f"{MARKED}={RevisionKind.CORRECTION}".encode()

#: A value out of an element and the message around it; None where there is none. Raises RowRuleBroken.
Getter = Callable[[Any, Any], Any]


class FeedReader:
    """Reads messages of a feed. `sectors` and `shares` are those of `profile`, by ticker."""

    def __init__(self, feed: Feed, sectors: Mapping[str, str], shares: Mapping[str, int] | None = None) -> None:
        self.feed = feed
        self._sectors = sectors
        self._shares = shares or {}
        self._fields = [
            (name, self._getter(name, source, _KINDS[name]))
            for name, source in feed.fields.items()
            if not source.computed
        ]
        self._key = [(name, getter) for name, getter in self._fields if name in _KEY]
        self._computed = {source.computed for source in feed.fields.values()}
        marks = feed.revision
        self._mark = _path_getter(feed, marks.path) if marks else None
        self._kinds = [(mark, RevisionKind.CORRECTION) for mark in marks.corrections] if marks else []
        self._kinds += [(mark, RevisionKind.CANCELLATION) for mark in marks.cancellations] if marks else []
        revised_at = marks.revised_at if marks else None
        self._revised_at = self._getter(REVISED_AT_FIELD, revised_at, "time") if revised_at else None
        self._named, self._named_around = _named_paths(feed)

    def elements(self, value: bytes | None) -> list[Any]:
        """The elements of a message, at least one, each with a tick's names or Broken. Raises Unreadable."""
        if value is None:
            raise Unreadable("no_value", "the message has no value")
        if value.startswith(LABS_HEAD):
            return _labs_elements(value)
        read = {"csv": self._csv, "lines": self._lines}.get(self.feed.messages, self._json)
        found = read(value)
        if not found:
            raise Unreadable("no_ticks", "the message holds no tick")
        return found

    def cut(self, value: bytes) -> Cut:
        """Where the elements of a message lie in it that :meth:`elements` has read."""
        if value.startswith(LABS_HEAD):
            return Cut(LABS_HEAD, list(array_spans(value, ("tickledger.lab",))), LABS_TAIL)
        if self.feed.messages == "csv":
            return self._cut_csv(value)
        if self.feed.messages == "lines":
            return Cut(b"", [span for span in _line_spans(value) if value[slice(*span)].strip()], b"")
        if self.feed.messages == "array":
            return Cut(b"", list(array_spans(value)), b"")
        spans = list(array_spans(value, str(self.feed.ticks).split("."))) if self._has_array(value) else []
        if not spans:
            return Cut(b"", [(0, len(value))], b"")
        return Cut(value[: spans[0][0]], spans, value[spans[-1][1] :])

    def _has_array(self, value: bytes) -> bool:
        return self.feed.ticks is not None and type(_look_up(self.feed.ticks.split("."), orjson.loads(value))) is list

    # One message

    def _json(self, value: bytes) -> list[Any]:
        require_few_values(value)
        found = _all_digits(value, parsed(value))
        if self.feed.messages == "array":
            if type(found) is not list:
                raise Unreadable("not_an_array", f"the message is {json_kind(found)}; it should be an array")
            if not found:
                raise Unreadable("empty_array", "the array holds no tick")
            return self._each(found, None)
        if type(found) is not dict:
            raise Unreadable("not_an_object", f"the message is {json_kind(found)}; it should be an object")
        if self.feed.ticks is None:
            return self._each([found], None)
        ticks = _look_up(self.feed.ticks.split("."), found)
        if type(ticks) not in (list, dict):
            what = "nothing" if ticks is None else json_kind(ticks)
            why = f"at {self.feed.ticks} the message has {what}; it should be an array or an object of ticks"
            raise Unreadable("no_ticks", why)
        return self._each(ticks if type(ticks) is list else [ticks], found)

    def _lines(self, value: bytes) -> list[Any]:
        require_few_values(value, b",", b"[", b"{", b"\n")
        found: list[Any] = []
        for start, end in _line_spans(value):
            line = value[start:end]
            if not line.strip():
                continue
            try:
                found.append(_all_digits(line, parsed(line)))
            except Unreadable as error:
                found.append(Broken(error.reason, error.detail))
        return self._each(found, None)

    def _csv(self, value: bytes) -> list[Any]:
        columns, rows = self._csv_rows(value)
        return self._each((row if type(row) is Broken else _cells(columns, row) for row, _ in rows), None)

    def _csv_rows(self, value: bytes) -> tuple[Sequence[str], list[tuple[Any, tuple[int, int]]]]:
        """The columns, and each row's values or what is wrong with it, with the first and last of its lines."""
        require_few_values(value, self.feed.csv.delimiter.encode(), b"\n", b"\r")
        try:
            text = value.decode("utf-8-sig")
        except UnicodeDecodeError as bad:
            raise Unreadable("bad_utf8", f"byte {bad.start} is not UTF-8") from None
        columns, rows = csv_rows(self.feed, list(io.StringIO(text, newline="")))
        return columns, list(rows)

    def _cut_csv(self, value: bytes) -> Cut:
        _, rows = self._csv_rows(value)
        text = value.decode("utf-8-sig")
        ends = [len(value) - len(text.encode())]
        for line in io.StringIO(text, newline=""):
            ends.append(ends[-1] + len(line.encode()))
        spans = [(ends[first - 1], ends[last]) for _, (first, last) in rows]
        head = b"" if self.feed.csv.columns else value[ends[0] : spans[0][0]] if spans else b""
        return Cut(head, spans, b"")

    # One element

    def _each(self, elements: Iterable[Any], around: Any) -> list[Any]:
        found = []
        outside = (
            _rest(around, self._named_around) if around is not None and self.feed.unknown_fields != "ignore" else {}
        )
        # Asked once: they are the same for each of the message's ticks.
        too_much = _too_much_around(outside) if self.feed.unknown_fields == "keep" else None
        for element in elements:
            if too_much is not None:
                found.append(too_much)
                continue
            try:
                found.append(self._element(element, around, outside))
            except RowRuleBroken as broken:
                # Not the exception itself, which holds on to frames.
                found.append(Broken(broken.reason, broken.detail))
            except ArithmeticError:
                found.append(Broken("out_of_range", "a number is too large, or too small, to be computed with"))
            except RecursionError:
                found.append(Broken("wrong_type", "the element is nested too deep"))
        return found

    def _element(self, element: Any, around: Any, outside: dict[str, Any]) -> Any:
        if type(element) is Broken:
            return element
        if type(element) is not dict:
            return Broken("not_an_object", f"the element is {json_kind(element)}; it should be an object")
        found: dict[str, Any] = {}
        kind = self._revision(element, around, found)
        for name, getter in self._key if kind == RevisionKind.CANCELLATION else self._fields:
            value = getter(element, around)
            if value is not None:
                found[name] = value
        if self._computed and kind != RevisionKind.CANCELLATION:
            self._compute(found)
        if self.feed.unknown_fields != "ignore":
            unknown = _rest(element, self._named)
            if outside:
                unknown[AROUND] = outside
            if unknown:
                self._keep_unknown(found, unknown)
        return found

    def _keep_unknown(self, found: dict[str, Any], unknown: dict[str, Any]) -> None:
        if self.feed.unknown_fields == "refuse":
            names = ", ".join(map(quote, sorted(unknown)[:3]))
            raise RowRuleBroken("unknown_field", f"the feed's description does not name {names}")
        found[UNKNOWN] = Unknown(unknown)

    def _revision(self, element: Any, around: Any, found: dict[str, Any]) -> RevisionKind | None:
        if element.get(MARKED) == RevisionKind.CORRECTION or (
            type(around) is dict and around.get(MARKED) == RevisionKind.CORRECTION
        ):
            found[REVISION_FIELD] = str(RevisionKind.CORRECTION)
            return RevisionKind.CORRECTION
        marks = self.feed.revision
        if marks is None or self._mark is None:
            return None
        mark = self._mark(element, around)
        if mark is None or mark == "" or any(mark == one and type(mark) is type(one) for one in marks.ticks):
            return None
        kind = next((kind for one, kind in self._kinds if mark == one and type(mark) is type(one)), None)
        if kind is None:
            known = ", ".join(repr(one) for one, _ in self._kinds)
            raise RowRuleBroken(
                "bad_revision", f"{marks.path} is {quote(mark)}; of a correction or cancellation it is {known}"
            )
        found[REVISION_FIELD] = str(kind)
        if self._revised_at is not None and (revised_at := self._revised_at(element, around)) is not None:
            found[REVISED_AT_FIELD] = revised_at
        return kind

    def _compute(self, found: dict[str, Any]) -> None:
        ticker = found.get("ticker")
        known = type(ticker) is str and ticker in self._sectors
        if FROM_PROFILE in self._computed:
            found["sector"] = self._sectors[ticker] if known else NO_SECTOR  # type: ignore[index]
        if "price_times_shares" in self._computed:
            price = found.get("price")
            there = known and type(price) in (int, float, Decimal)
            found["market_cap"] = _times(price, self._shares.get(ticker, 0)) if there else 0  # type: ignore[arg-type]

    # One field

    def _getter(self, name: str, source: Source, kind: str) -> Getter:
        get = _raw_getter(self.feed, source)
        if source.constant is not None or source.digest_of is not None:
            return get
        if kind == "time":
            return partial(_converted, get, _time_of(name, source))
        if kind == "text":
            if not source.values:
                return get
            return partial(_converted, get, partial(_mapped, source.values))
        text = self.feed.reads_text(source)
        if not text and source.times is None:
            return get
        return partial(_converted, get, partial(_number, name, source, kind, text))


def _labs_elements(value: bytes) -> list[Any]:
    require_few_values(value)
    found = _all_digits(value, parsed(value)).get("tickledger.lab")
    if type(found) is not list or not found:
        raise Unreadable("no_ticks", "the message holds no tick")
    return found


def _too_much_around(outside: dict[str, Any]) -> Broken | None:
    """What is wrong with each tick of a message if more stands around them than is kept."""
    try:
        extra_of({UNKNOWN: Unknown({AROUND: outside})} if outside else {})
    except RowRuleBroken as broken:
        return Broken(broken.reason, broken.detail)
    return None


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


def _cells(columns: Sequence[str], row: Sequence[str]) -> dict[str, str]:
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


def _raw_getter(feed: Feed, source: Source) -> Getter:
    if source.constant is not None:
        return partial(_constant, source.constant)
    if source.path:
        return _path_getter(feed, source.path)
    getters = [_path_getter(feed, path) for path in source.paths()]
    make = _digest if source.digest_of else _joined if source.joined else _first
    return partial(make, getters)


def _path_getter(feed: Feed, path: str) -> Getter:
    if feed.messages == "csv":
        return partial(_member, path)
    names = path.removeprefix("/").split(".")
    if path.startswith("/"):
        return lambda _, around: _look_up(names, around)
    if len(names) == 1:
        return partial(_member, names[0])
    return lambda element, _: _look_up(names, element)


def _member(name: str, element: Any, _around: Any) -> Any:
    return element.get(name)


def _constant(value: Any, _element: Any, _around: Any) -> Any:
    return value


def _first(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    return next((value for get in getters if (value := get(element, around)) not in (None, "")), None)


def _joined(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    values = [get(element, around) for get in getters]
    if any(value is None for value in values):
        return None
    if odd := next((value for value in values if type(value) in (dict, list)), None):
        raise RowRuleBroken("wrong_type", f"a part of what is joined is {json_kind(odd)}; it should be a text")
    return " ".join(str(value)[:MAX_TIME_LENGTH] for value in values)


def _digest(getters: Sequence[Getter], element: Any, around: Any) -> Any:
    """A whole number of 63 bits that is the same for the same values."""
    values = [get(element, around) for get in getters]
    if all(value is None for value in values):
        return None
    # 100 and 100.0 are one number, however a sender writes it.
    values = [format(_decimal(one).normalize(), "f") if type(one) in (int, float, Decimal) else one for one in values]
    try:
        spelt = orjson.dumps(values, default=str, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise RowRuleBroken("wrong_type", "a value that the id is made of is nested too deep") from None
    return int.from_bytes(blake2b(spelt, digest_size=8).digest(), "big") & MAX_BIGINT


def _converted(get: Getter, convert: Callable[[Any], Any], element: Any, around: Any) -> Any:
    value = get(element, around)
    return None if value is None else convert(value)


def _look_up(names: Sequence[str], value: Any) -> Any:
    for name in names:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


# Texts and numbers


def _text(value: Any) -> Any:
    return value


def _mapped(values: Mapping[str, str], value: Any) -> Any:
    return values.get(value if type(value) is str else str(value), value) if type(value) in (str, int) else value


def _number(name: str, source: Source, kind: str, text: bool, value: Any) -> Any:
    number = value
    if type(value) is str and text:
        if value == "":
            return None
        spelt = value.strip()
        if source.decimal_point == ",":
            # Whoever writes 1,5 writes 1.000 for a thousand.
            spelt = "" if "." in spelt else spelt.replace(",", ".", 1)
        # 1.000 may be a thousand, or one as a feed writes it whose description says `times: 1`.
        parted = kind == "whole" and source.times is None and _MAY_BE_PARTED.fullmatch(spelt)
        if parted or len(spelt) > MOST_NUMBER or not _NUMBER.fullmatch(spelt):
            raise RowRuleBroken("wrong_type", f"{name} is {quote(value)}; it should be a number")
        number = Decimal(spelt) if kind == "whole" or source.times else exact(spelt.lstrip("+"))
    if type(number) not in (int, float, Decimal):
        return value
    if source.times is not None:
        number = _EXACT.multiply(_decimal(number), Decimal(source.times))
    if kind != "whole" or type(number) is not Decimal:
        return _plain(number) if type(number) is Decimal else number
    if number != number.to_integral_value():
        by = f", times {source.times:,}," if source.times else ""
        raise RowRuleBroken("wrong_type", f"{name} is {quote(value)}{by} and should be a whole number")
    return int(number)


def _decimal(number: float | Decimal) -> Decimal:
    return number if type(number) is Decimal else Decimal(repr(number))


def _times(price: float | Decimal, shares: int) -> int | float | Decimal:
    return price * shares if type(price) is int else _plain(_EXACT.multiply(_decimal(price), Decimal(shares)))


def _plain(number: Decimal) -> int | float | Decimal:
    """A decimal as JSON would have been read: an int or a float that has all of its digits, else itself."""
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or abs(exponent) > MOST_NUMBER:
        return number
    if len(digits) > FLOAT_DIGITS:
        short = number.normalize(_EXACT)
        return short if len(short.as_tuple().digits) > FLOAT_DIGITS else _plain(short)
    return int(number) if number == number.to_integral_value() else float(number)


# Times


def _time_of(name: str, source: Source) -> Callable[[Any], Any]:
    zone = ZoneInfo(source.zone) if source.zone else None
    if source.time in EPOCHS:
        return partial(_counted, name, source.time)
    if source.time is None or source.time == ISO:
        return _text if zone is None else partial(_remembered, lru_cache(REMEMBERED)(partial(_iso_in, name, zone)))
    return partial(_remembered, lru_cache(REMEMBERED)(partial(_formatted, name, source.time, zone)))


def _remembered(read: Callable[[str], str | Broken], value: Any) -> Any:
    if type(value) is not str:
        return value
    found = read(value[: MAX_TIME_LENGTH + 1])
    if type(found) is Broken:
        raise RowRuleBroken(*found)
    return found


def _counted(name: str, unit: str, value: Any) -> Any:
    """The time that is a number of some unit since 1970, in UTC."""
    number = value
    if type(value) is str and len(value) <= MAX_TIME_LENGTH and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    if type(number) not in (int, float, Decimal):
        raise RowRuleBroken(
            "bad_time", f"{name} is {quote(value)}; it should be a number of {unit.partition('_')[2]} since 1970"
        )
    ms_of_one, parts = EPOCHS[unit]
    bound = LATEST_MS * parts
    # Compared first: of a float like 1e300 nobody writes all digits.
    if not -bound <= number * ms_of_one <= bound + parts:
        raise RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should lie from 1970 to 2199")
    if type(number) is int:
        return _spelt_time(name, number * ms_of_one // parts, value)
    milliseconds = _EXACT.divide(_EXACT.multiply(_decimal(number), Decimal(ms_of_one)), Decimal(parts))
    return _spelt_time(name, math.floor(milliseconds), value)


def _spelt_time(name: str, milliseconds: int, value: Any) -> str:
    if not EARLIEST_MS <= milliseconds <= LATEST_MS:
        raise RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should lie from 1970 to 2199")
    return ms_to_datetime(milliseconds).isoformat(" ", "milliseconds")


def _iso_in(name: str, zone: ZoneInfo, text: str) -> str | Broken:
    try:
        parse_created_at(text)
        moment = datetime.fromisoformat(text)
        return text if moment.tzinfo is not None else _utc(moment, zone)
    except (BadTime, ValueError, OverflowError) as error:
        return Broken("bad_time", f"{name} is {quote(text)}; {error}")


def _formatted(name: str, form: str, zone: ZoneInfo | None, text: str) -> str | Broken:
    try:
        moment = datetime.strptime(_BELOW_MICROSECONDS.sub(r"\1", text), form)  # noqa: DTZ007  # it may have a zone
        if moment.tzinfo is not None:
            return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")
        return moment.isoformat(" ", "milliseconds") if zone is None else _utc(moment, zone)
    except (ValueError, OverflowError) as error:
        return Broken("bad_time", f"{name} is {quote(text)}; {error}"[:300])


def _utc(moment: datetime, zone: ZoneInfo) -> str:
    """A local time in UTC. Raises ValueError where the clocks showed it twice, or never."""
    first, second = (moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        times = "twice" if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == moment else "never"
        raise ValueError(f"the clocks of {zone.key} showed that time {times}")
    return first.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")


# What nobody described


def _named_paths(feed: Feed) -> tuple[dict[str, Any], dict[str, Any]]:
    """The paths that a description names, as trees: in an element, and in the message around it."""
    inside: dict[str, Any] = {}
    around: dict[str, Any] = {}
    paths = [path for _, _, source in feed.sources() for path in source.paths()]
    paths += [feed.revision.path] if feed.revision is not None else []
    for path in (*paths, *feed.ignored):
        outside = path.startswith("/") and feed.messages != "csv"
        _name(around if outside else inside, [path] if feed.messages == "csv" else path.removeprefix("/").split("."))
    if feed.ticks:
        _name(around, feed.ticks.split("."))
    inside[MARKED] = around[MARKED] = None
    return inside, around


def _name(tree: dict[str, Any], names: Sequence[str]) -> None:
    *parents, last = names
    for name in parents:
        if tree.setdefault(name, {}) is None:
            return
        tree = tree[name]
    tree[last] = None


def _rest(value: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """What of an object no path leads to."""
    rest = {name: value[name] for name in value.keys() - named.keys()}
    for name, below in named.items():
        if below is None or (there := value.get(name)) is None:
            continue
        if type(there) is not dict:
            rest[name] = there
        elif inner := _rest(there, below):
            rest[name] = inner
    return rest


def _line_spans(value: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(value):
        end = value.find(b"\n", start)
        end = len(value) if end < 0 else end
        yield start, end
        start = end + 1


def _all_digits(value: bytes, found: Any) -> Any:
    return exact_json(value) if has_long_numbers(value) else found
