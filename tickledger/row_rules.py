"""The row rules of a tick, each written once: asked of thousands of values at once, or of one element for its reason.

What holds is decided by :meth:`FieldRule.holds` and the predicates of :class:`RowRules`; the rest of the module says it
in words. Pure functions, no server needed.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from tickledger.numbers import MOST_DIGITS, is_short
from tickledger.revisions import Revision, RevisionKind, TickValues
from tickledger.tick import (
    CORE_FIELDS,
    EARLIEST_MS,
    LATEST_MS,
    MAX_AHEAD_MS,
    MOST_EXTRA,
    TICK_FIELDS,
    BadTime,
    Tick,
    TickField,
    parse_created_at,
)
from tickledger.trading_days import UTC_DAYS, TradingDays

#: What marks an element as no new tick, with one of :class:`tickledger.revisions.RevisionKind`; null is no mark.
REVISION_FIELD = "revision"
#: When the feed made the correction or cancellation, spelt as created_at is.
REVISED_AT_FIELD = "revised_at"
#: A detail may quote the input; this bounds it.
MAX_QUOTE = 80

_KINDS: dict[str, set[type]] = {"whole": {int}, "decimal": {int, float, Decimal}, "text": {str}, "time": {str}}
_KIND_NAMES = {"whole": "a whole number", "decimal": "a number", "text": "a text", "time": "a text"}


class RowRuleBroken(Exception):
    """A tick that breaks a row rule: a stable reason, and a detail for people, of bounded length.

    `tick`, or `revision`, is there where only `profile` stands against it.
    """

    def __init__(self, reason: str, detail: str, tick: Tick | None = None, revision: Revision | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.tick = tick
        self.revision = revision


class FieldRule(NamedTuple):
    """What the values of one field must be: there unless it is optional, of a kind, and within bounds."""

    field: TickField
    kinds: frozenset[type]

    def values(self, elements: Sequence[Any]) -> list[Any]:
        """The field's value of each element. Raises LookupError or TypeError if one is no object or lacks it."""
        name, default = self.field.name, self.field.default
        if not self.field.optional:
            return [element[name] for element in elements]
        return [default if (value := element.get(name)) is None else value for element in elements]

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether all of the values, of which there is at least one, are as they should be."""
        if self.field.optional and not (values := [value for value in values if value is not None]):
            return True
        if not self.kinds.issuperset(kinds := set(map(type, values))):
            return False
        if Decimal in kinds and not all(map(is_short, values)):
            return False
        if self.field.kind == "time":
            return True
        # As a set, a text that all share is measured once.
        measured = set(map(len, set(values))) if self.field.kind == "text" else values
        return bool(self.field.minimum <= min(measured) and max(measured) <= self.field.maximum)

    def why(self, element: dict[str, Any]) -> RowRuleBroken:
        """What is wrong with the field of an element for which it does not hold."""
        name, value = self.field.name, element.get(self.field.name)
        if name not in element:
            return RowRuleBroken("missing_field", f"{name} is missing")
        if value is None:
            return RowRuleBroken("null_field", f"{name} is null")
        if type(value) not in self.kinds:
            found = json_kind(value) if type(value) in (dict, list) else f"{json_kind(value)} ({quote(value)})"
            return RowRuleBroken("wrong_type", f"{name} is {found}; it should be {_KIND_NAMES[self.field.kind]}")
        if not is_short(value):
            digits = f"at most {MOST_DIGITS} digits, and as many behind its point"
            return RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should have {digits}")
        measure = " characters long" if self.field.kind == "text" else ""
        bounds = f"from {self.field.minimum} to {self.field.maximum}{measure}"
        return RowRuleBroken("out_of_range", f"{name} is {quote(value)}; it should be {bounds}")


def rule_of(field: TickField) -> FieldRule:
    """The rule of a field."""
    return FieldRule(field, frozenset(_KINDS.get(field.kind, ())))


#: One rule a field, in the order in which an element's first broken one is looked for.
FIELD_RULES = tuple(map(rule_of, TICK_FIELDS))


_REQUIRED = frozenset(field.name for field in TICK_FIELDS if not field.optional)
#: All that a cancellation says of its tick.
_KEY_RULES = tuple(rule for rule in FIELD_RULES if rule.field.name in ("ticker", "created_at", "id"))


def has_every_field(element: Any) -> bool:
    """Whether an element is an object with all fields that are not optional; whatever is not breaks a rule."""
    return type(element) is dict and element.keys() >= _REQUIRED


class Broken(NamedTuple):
    """An element that cannot be read as its feed's description says: a stable reason, and a detail for people."""

    reason: str
    detail: str


class Unknown(dict[str, Any]):
    """Fields that a feed's description does not name, as an element of it holds them under :data:`UNKNOWN`."""


#: Where an element that a feed's description made has its unknown fields.
UNKNOWN = ""
#: All names of an element that are read; those of others are kept beside the tick.
KNOWN = frozenset((*(field.name for field in TICK_FIELDS), REVISION_FIELD, REVISED_AT_FIELD))


def may_have_extra(elements: Iterable[dict[str, Any]]) -> bool:
    """Whether some of the elements, which have all required fields, have more fields than these."""
    return max(map(len, elements), default=0) > len(_REQUIRED)


def extra_of(element: dict[str, Any]) -> str | None:
    """The fields of an element that are none of a tick's, as a JSON object, its keys sorted. None if there are none.

    Raises RowRuleBroken where they are longer than is kept.
    """
    names = element.keys() - KNOWN
    if not names:
        return None
    unknown = element[UNKNOWN] if names == {UNKNOWN} else None
    if type(unknown) is not Unknown:
        unknown = {name: element[name] for name in names}
    try:
        extra = orjson.dumps(unknown, default=_spelt, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError:
        raise _too_much(unknown, "they are nested too deep") from None
    if len(extra) > MOST_EXTRA:
        raise _too_much(unknown, f"they have {len(extra):,} characters as JSON; it should be at most {MOST_EXTRA:,}")
    return extra


def _spelt(number: Decimal) -> orjson.Fragment:
    return orjson.Fragment(str(number))


def _too_much(unknown: Mapping[str, Any], why: str) -> RowRuleBroken:
    some = ", ".join(quote(name) for name in sorted(unknown)[:3])
    return RowRuleBroken("too_much_extra", f"fields that nobody described ({some}) cannot be kept: {why}")


def is_revision(element: Any) -> bool:
    """Whether an element is marked as a correction or cancellation, or as something of that kind."""
    return type(element) is dict and element.get(REVISION_FIELD) is not None


def too_far_ahead(created_ms: Any, message_ms: Any) -> Any:
    """Whether ticks were made too long after their messages; both in milliseconds, numbers or arrays of them.

    Compared with the message's own time, not the clock's, so that a retry decides alike.
    """
    return created_ms - MAX_AHEAD_MS > message_ms


def moment_of(text: str, name: str = "created_at") -> int:
    """A field's time in milliseconds since 1970. Raises RowRuleBroken where it is no time from 1970 to 2199."""
    try:
        moment = parse_created_at(text)
    except BadTime as error:
        raise RowRuleBroken("bad_time", f"{name} is {quote(text)}; {error}") from None
    if not EARLIEST_MS <= moment <= LATEST_MS:
        raise RowRuleBroken("out_of_range", f"{name} is {quote(text)}; it should lie from 1970 to 2199")
    return moment


class RowRules:
    """The rules of a tick against the companies of `profile` (ticker → sector), and its trading day."""

    def __init__(self, sectors: Mapping[str, str], days: TradingDays = UTC_DAYS) -> None:
        self._days = days
        self._sectors = sectors
        self._companies = frozenset(sectors.items())

    def are_companies(self, pairs: Iterable[tuple[str, str]]) -> bool:
        """Whether all pairs of ticker and sector stand in `profile`."""
        return self._companies.issuperset(pairs)

    def tick(self, element: Any, message_ms: int) -> Tick:
        """The tick of one element of a message's array. Raises RowRuleBroken with the first rule that it breaks."""
        if type(element) is Broken:
            raise RowRuleBroken(*element)
        if type(element) is not dict:
            raise RowRuleBroken("not_an_object", f"the element is {json_kind(element)}; it should be an object")
        values = [_value(rule, element, message_ms) for rule in FIELD_RULES]
        ticker, created_ms, id_, volume, market_cap, price, sector = values[: len(CORE_FIELDS)]
        day, own = self._days.day_of(created_ms), tuple(values[len(CORE_FIELDS) :])
        tick = Tick(ticker, created_ms, id_, volume, market_cap, price, sector, day, own, extra_of(element))
        if not self.are_companies([(ticker, sector)]):
            raise self._why_no_company(tick)
        return tick

    def revision(self, element: dict[str, Any], message_ms: int) -> Revision:
        """The correction or cancellation that one element is. Raises RowRuleBroken with the first rule that it breaks.

        A correction keeps all rules of a tick. Of a cancellation only the key is read, and its company may be one that
        is no longer in `profile`. One without `revised_at` was made when its message was.
        """
        mark = element[REVISION_FIELD]
        if mark not in list(RevisionKind):
            known = " or ".join(map(repr, map(str, RevisionKind)))
            raise RowRuleBroken("bad_revision", f"{REVISION_FIELD} is {quote(mark)}; it should be {known}")
        revised_ms = _revised_ms(element, message_ms)
        if mark == RevisionKind.CANCELLATION:
            ticker, created_ms, id_ = (_value(rule, element, message_ms) for rule in _KEY_RULES)
            day = self._days.day_of(created_ms)
            kind, extra = RevisionKind.CANCELLATION, extra_of(element)
            return Revision(kind, ticker, created_ms, id_, day, revised_ms, None, extra)
        try:
            return _correction(self.tick(element, message_ms), revised_ms)
        except RowRuleBroken as broken:
            if broken.tick is None:
                raise
            refused = _correction(broken.tick, revised_ms)
            raise RowRuleBroken(broken.reason, broken.detail, revision=refused) from None

    def _why_no_company(self, tick: Tick) -> RowRuleBroken:
        known = self._sectors.get(tick.ticker)
        if known is None:
            return RowRuleBroken("unknown_ticker", f"ticker {quote(tick.ticker)} is not in profile", tick)
        return RowRuleBroken("wrong_sector", f"sector is {quote(tick.sector)}; profile says {quote(known)}", tick)


def _correction(tick: Tick, revised_ms: int) -> Revision:
    values = TickValues(tick.volume, tick.market_cap, tick.price, tick.sector, tick.own)
    kind = RevisionKind.CORRECTION
    return Revision(kind, tick.ticker, tick.created_ms, tick.id, tick.trade_day, revised_ms, values, tick.extra)


def _value(rule: FieldRule, element: dict[str, Any], message_ms: int) -> Any:
    """A field's value, times in milliseconds since 1970. Raises RowRuleBroken."""
    name = rule.field.name
    value: Any = element.get(name)
    if value is None:
        value = rule.field.default
    if not rule.holds((value,)):
        raise rule.why(element)
    if rule.field.kind == "time" and value is not None:
        return _created_ms(value, message_ms) if name == "created_at" else moment_of(value, name)
    return value


def _revised_ms(element: dict[str, Any], message_ms: int) -> int:
    text = element.get(REVISED_AT_FIELD)
    if text is None:
        if not EARLIEST_MS <= message_ms <= LATEST_MS:
            why = "and its message was not sent from 1970 to 2199"
            raise RowRuleBroken("out_of_range", f"{REVISED_AT_FIELD} is missing, {why}")
        return message_ms
    if type(text) is not str:
        found = json_kind(text)
        raise RowRuleBroken("wrong_type", f"{REVISED_AT_FIELD} is {found}; it should be {_KIND_NAMES['time']}")
    revised_ms = moment_of(text, REVISED_AT_FIELD)
    if too_far_ahead(revised_ms, message_ms):
        raise RowRuleBroken("out_of_range", f"{REVISED_AT_FIELD} is {quote(text)}; its message is over a day older")
    return revised_ms


def _created_ms(text: str, message_ms: int) -> int:
    created_ms = moment_of(text)
    if too_far_ahead(created_ms, message_ms):
        raise RowRuleBroken("out_of_range", f"created_at is {quote(text)}; its message is over a day older")
    return created_ms


_JSON_KINDS = {
    **{bool: "a boolean", str: "a text", list: "an array", dict: "an object"},
    **dict.fromkeys((int, float, Decimal), "a number"),
}


def json_kind(value: Any) -> str:
    """What JSON calls a value, with its article."""
    if value is None:
        return "null"
    return _JSON_KINDS[type(value)]


def quote(value: Any) -> str:
    """A value as a detail shows it, of at most :data:`MAX_QUOTE` characters."""
    if type(value) in (dict, list):
        # Nested as deep as JSON may be, it could not be spelt.
        return json_kind(value)
    # Cut first: what nobody reads is not spelled out.
    text = str(value) if type(value) is Decimal else repr(value[:MAX_QUOTE] if isinstance(value, str) else value)
    whole = len(text) <= MAX_QUOTE and (not isinstance(value, str) or len(value) <= MAX_QUOTE)
    return text if whole else text[: MAX_QUOTE - 1] + "…"
