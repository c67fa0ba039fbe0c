"""From many Kafka messages to columns of valid ticks and dead letters. Pure functions, no server needed.

The row rules are asked of whole columns. A message with anything that breaks one goes through :class:`Decoder`, which
knows the reason, so that both say the same of every message.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streaming.tick_columns import TickColumns, numbers, objects, whole
from tickledger.decode import DeadLetter, Decoder, OneMoreRule
from tickledger.elements import Unreadable, elements_of
from tickledger.feed import Feed
from tickledger.feed_reader import FeedReader
from tickledger.numbers import has_long_numbers
from tickledger.revisions import Revision
from tickledger.row_rules import (
    FIELD_RULES,
    REVISION_FIELD,
    RowRuleBroken,
    RowRules,
    extra_of,
    has_every_field,
    may_have_extra,
    moment_of,
    too_far_ahead,
)
from tickledger.tick import MAX_BIGINT, OWN_FIELDS, Tick, TickField
from tickledger.trading_days import UTC_DAYS, TradingDays


class DecodedColumns(NamedTuple):
    """Messages taken apart: valid ticks; dead letters and revisions by (offset, position in the message)."""

    ticks: TickColumns
    dead: dict[tuple[int, int], DeadLetter]
    revisions: dict[tuple[int, int], Revision]


class _NotPlain(Exception):
    """Some ticks break a rule; `rows` are their places."""

    def __init__(self, rows: Sequence[int]) -> None:
        super().__init__(rows)
        self.rows = rows


class ColumnDecoder:
    """Decodes the messages of a Kafka partition against the companies of `profile` (ticker → sector).

    Keep one for a micro-batch: it remembers the times that it has parsed. `feed` and `shares` are those of
    :class:`Decoder`.
    """

    def __init__(
        self,
        sectors: Mapping[str, str],
        days: TradingDays = UTC_DAYS,
        feed: Feed | None = None,
        shares: Mapping[str, int] | None = None,
    ) -> None:
        self._single = Decoder(sectors, days, feed, shares)
        self._elements = elements_of if feed is None else FeedReader(feed, sectors, shares).elements
        self._has_all_digits = feed is not None
        self._rules = RowRules(sectors)
        self._days = days
        self._times: dict[str, int | None] = {}

    def decode(
        self, offsets: NDArray[np.int64], times_ms: NDArray[np.int64], values: Sequence[bytes | None]
    ) -> DecodedColumns:
        """Take messages apart: their offsets, Kafka's timestamps of them in milliseconds since 1970, their values.

        Never raises: what cannot be read or breaks a rule comes back as a dead letter with its reason.
        """
        arrays = [self._array(value) for value in values]
        plain = [number for number, array in enumerate(arrays) if array]
        ticks = TickColumns.of(())
        while plain:
            messages = np.repeat(plain, [len(arrays[number]) for number in plain])
            elements = list(chain.from_iterable(arrays[number] for number in plain))
            try:
                columns = self._columns(elements, offsets[messages], times_ms[messages])
                if not self._has_all_digits:
                    _require_all_digits(columns, messages, values)
                ticks = columns
                break
            except _NotPlain as broken:
                others = set(messages[broken.rows].tolist())
                plain = [number for number in plain if number not in others]
        if len(plain) == len(values):
            return DecodedColumns(ticks, {}, {})
        rest = sorted(set(range(len(values))).difference(plain))
        return self._one_by_one(ticks, [(int(offsets[n]), int(times_ms[n]), values[n]) for n in rest])

    def _array(self, value: bytes | None) -> list[Any]:
        """The elements of a message; none if it cannot be read."""
        try:
            return self._elements(value)
        except Unreadable:
            return []

    def decode_again(
        self, decoded: DecodedColumns, messages: list[tuple[int, int, bytes | None]], one_more_rule: OneMoreRule
    ) -> DecodedColumns:
        """The same, with one more rule for some of the messages: (offset, time in milliseconds, value) of each."""
        ticks, dead, revisions = decoded
        offsets = [offset for offset, _, _ in messages]
        again = self._one_by_one(ticks.take(~np.isin(ticks.offset, offsets)), messages, one_more_rule)
        gone = set(offsets)
        dead = {place: letter for place, letter in dead.items() if place[0] not in gone}
        revisions = {place: one for place, one in revisions.items() if place[0] not in gone}
        return DecodedColumns(again.ticks, dead | again.dead, revisions | again.revisions)

    def _one_by_one(
        self,
        ticks: TickColumns,
        messages: list[tuple[int, int, bytes | None]],
        one_more_rule: OneMoreRule | None = None,
    ) -> DecodedColumns:
        others: list[tuple[Tick, int]] = []
        dead: dict[tuple[int, int], DeadLetter] = {}
        revisions: dict[tuple[int, int], Revision] = {}
        for offset, time_ms, value in messages:
            decoded = self._single.decode(value, time_ms, one_more_rule)
            others.extend((tick, offset) for _, tick in decoded.ticks)
            dead.update(((offset, letter.position), letter) for letter in decoded.dead)
            revisions.update(((offset, position), one) for position, one in decoded.revisions)
        return DecodedColumns(ticks.merged(TickColumns.of(others)) if others else ticks, dead, revisions)

    def _columns(self, elements: list[Any], offsets: NDArray[np.int64], times_ms: NDArray[np.int64]) -> TickColumns:
        """The columns of elements that break no rule. Raises _NotPlain with the first rule's offenders, never none.

        Revisions are few, so that what is made of one is said in one place: they go one by one too.
        """
        try:
            columns = {rule.field.name: rule.values(elements) for rule in FIELD_RULES}
            marks = [element.get(REVISION_FIELD) for element in elements]
        except (LookupError, TypeError):
            raise _NotPlain([n for n, element in enumerate(elements) if not has_every_field(element)]) from None
        _require(marks, lambda some: not any(mark is not None for mark in some))
        for rule in FIELD_RULES:
            _require(columns[rule.field.name], rule.holds)
        _require(list(zip(columns["ticker"], columns["sector"], strict=True)), self._rules.are_companies)
        created = self._moments(columns["created_at"])
        if (ahead := too_far_ahead(created, times_ms)).any():
            raise _NotPlain(np.flatnonzero(ahead).tolist())
        return TickColumns(
            objects(columns["ticker"]), created, whole(columns["id"]), whole(columns["volume"]),
            numbers(columns["market_cap"]), numbers(columns["price"]), objects(columns["sector"]),
            self._days.days_of(created), offsets,
            tuple([self._own(field, columns[field.name]) for field in OWN_FIELDS]),
            _extra(elements) if may_have_extra(elements) else None,
        )  # fmt: skip

    def _own(self, field: TickField, values: list[Any]) -> NDArray[Any]:
        if field.kind != "time":
            return objects(values)
        there = [place for place, value in enumerate(values) if value is not None]
        moments = objects([None] * len(values))
        try:
            moments[there] = self._moments([values[place] for place in there])
        except _NotPlain as broken:
            raise _NotPlain([there[place] for place in broken.rows]) from None
        return moments

    def _moments(self, texts: list[str]) -> NDArray[np.int64]:
        for text in set(texts).difference(self._times):
            try:
                self._times[text] = moment_of(text)
            except RowRuleBroken:
                self._times[text] = None
        times = list(map(self._times.__getitem__, texts))
        _require(times, lambda some: None not in some)
        return whole(times)  # type: ignore[arg-type]


def _extra(elements: list[Any]) -> NDArray[Any]:
    found: list[str | None] = []
    broken: list[int] = []
    for place, element in enumerate(elements):
        try:
            found.append(extra_of(element))
        except RowRuleBroken:
            broken.append(place)
    if broken:
        raise _NotPlain(broken)
    return objects(found)


def _require_all_digits(ticks: TickColumns, messages: NDArray[np.int64], values: Sequence[bytes | None]) -> None:
    """Raises _NotPlain with the ticks of messages that hold a number with more digits than were read.

    Only numbers that became floats can have lost some, and those of fields that nobody described.
    """
    columns = [column.tolist() for column in (ticks.market_cap, ticks.price, *ticks.own) if column.dtype == object]
    floats = [column for column in columns if float in set(map(type, column))]
    if not floats and ticks.extra is None:
        return
    whole = ticks.extra is not None or any(max(filter(None, column), default=0) > MAX_BIGINT for column in floats)
    some = np.unique(messages).tolist()
    if long := [number for number in some if has_long_numbers(values[number] or b"", whole=whole)]:
        raise _NotPlain(np.flatnonzero(np.isin(messages, long)).tolist())


def _require(column: Sequence[Any], holds: Callable[[Sequence[Any]], bool]) -> None:
    """Ask something of a column; what does not hold of all is asked of each. Raises _NotPlain."""
    if not holds(column):
        raise _NotPlain([place for place, one in enumerate(column) if not holds([one])])
