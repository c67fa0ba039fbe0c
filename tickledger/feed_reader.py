"""From the bytes of a message to elements with a tick's own names, as a feed's description says. Pure functions.

An element that cannot be read as described is a :class:`tickledger.row_rules.Broken`; all else is for the row rules.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from tickledger.elements import Cut, Unreadable, array_spans, parsed, require_few_values
from tickledger.feed import FROM_PROFILE, LABS_HEAD, LABS_TAIL, MARKED, PRICE_TIMES_SHARES, Feed
from tickledger.feed_csv import cells_of, csv_rows
from tickledger.feed_values import look_up, path_getter, times_shares, value_getter
from tickledger.numbers import exact_json, has_long_numbers
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
from tickledger.tick import TICK_FIELDS
from tickledger.unknown_fields import AROUND

#: The sector of a ticker that `profile` does not know: its tick cannot land, whatever the sector.
NO_SECTOR = "?"
_KINDS = {field.name: field.kind for field in TICK_FIELDS}
_KEY = ("ticker", "created_at", "id")


class FeedReader:
    """Reads messages of a feed. `sectors` and `shares` are those of `profile`, by ticker."""

    def __init__(self, feed: Feed, sectors: Mapping[str, str], shares: Mapping[str, int] | None = None) -> None:
        self.feed = feed
        self._sectors = sectors
        self._shares = shares or {}
        self._fields = [
            (name, value_getter(feed, name, source, _KINDS[name]))
            for name, source in feed.fields.items()
            if not source.computed
        ]
        self._key = [(name, getter) for name, getter in self._fields if name in _KEY]
        self._computed = {source.computed for source in feed.fields.values()}
        marks = feed.revision
        self._mark = path_getter(feed, marks.path) if marks else None
        self._kinds = [(mark, RevisionKind.CORRECTION) for mark in marks.corrections] if marks else []
        self._kinds += [(mark, RevisionKind.CANCELLATION) for mark in marks.cancellations] if marks else []
        revised_at = marks.revised_at if marks else None
        self._revised_at = value_getter(feed, REVISED_AT_FIELD, revised_at, "time") if revised_at else None
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
        return self.feed.ticks is not None and type(look_up(self.feed.ticks.split("."), orjson.loads(value))) is list

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
        ticks = look_up(self.feed.ticks.split("."), found)
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
        return self._each((row if type(row) is Broken else cells_of(columns, row) for row, _ in rows), None)

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
        if PRICE_TIMES_SHARES in self._computed:
            price = found.get("price")
            there = known and type(price) in (int, float, Decimal)
            found["market_cap"] = times_shares(price, self._shares.get(ticker, 0)) if there else 0  # type: ignore[arg-type]


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
