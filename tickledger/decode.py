"""From the bytes of a Kafka message to valid ticks and dead letters. Pure functions, no server needed."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from tickledger.elements import Cut, Unreadable, array_spans, elements_of, with_marks
from tickledger.feed import CSV_MARK, JSON_MARK, Feed
from tickledger.feed_reader import FeedReader
from tickledger.numbers import exact_json, has_long_numbers
from tickledger.revisions import Revision, RevisionKind
from tickledger.row_rules import (
    REVISED_AT_FIELD,
    REVISION_FIELD,
    RowRuleBroken,
    RowRules,
    has_every_field,
    is_revision,
)
from tickledger.tick import WHOLE_MESSAGE, Tick
from tickledger.trading_days import UTC_DAYS, TradingDays

#: Broken elements that are kept one by one: one per this number of bytes of the message, and at most this number.
#: A tick with all of its fields has over a hundred bytes, and a dead letter's row costs about three times that.
BYTES_A_DEAD_LETTER = 100
MOST_DEAD_LETTERS = 100
#: Those of a message take at most so many bytes beside twice its own; else it is kept whole.
MOST_AROUND = 10_000
#: The reason of a message that is kept whole since more of its elements are broken.
TOO_MANY_BROKEN = "too_many_broken"
#: Raises RowRuleBroken for a tick that must not land although it keeps all rules.
OneMoreRule = Callable[[Tick], None]


class DeadLetter(NamedTuple):
    """What could not land. `position` counts from 0 in the message's array; -1 is the message itself.

    `ticks` are those that only `profile` stands against: they would land once the company is seeded. `revisions` are
    such corrections, each with its position.
    """

    position: int
    raw_value: bytes
    reason: str
    detail: str
    ticks: tuple[Tick, ...] = ()
    revisions: tuple[tuple[int, Revision], ...] = ()


class Decoded(NamedTuple):
    """One message taken apart; ticks and revisions come with their position in the array.

    read = len(ticks) + len(dead) + len(revisions).
    """

    ticks: list[tuple[int, Tick]]
    dead: list[DeadLetter]
    revisions: list[tuple[int, Revision]]


class Decoder:
    """Decodes messages against the companies of `profile` (ticker → sector); ticks get one of the trading days.

    `feed` describes the messages; without one they are the lab's. `shares` (ticker → shares outstanding) are needed
    where it asks for market_cap by them.
    """

    def __init__(
        self,
        sectors: Mapping[str, str],
        days: TradingDays = UTC_DAYS,
        feed: Feed | None = None,
        shares: Mapping[str, int] | None = None,
    ) -> None:
        self._rules = RowRules(sectors, days)
        reader = None if feed is None else FeedReader(feed, sectors, shares)
        self._elements = _lab_elements if reader is None else reader.elements
        self._cut = _lab_cut if reader is None else reader.cut
        self._feed = feed

    def decode(self, value: bytes | None, message_ms: int, one_more_rule: OneMoreRule | None = None) -> Decoded:
        """Take one message apart. `message_ms` is Kafka's timestamp of it, in milliseconds since 1970-01-01 UTC.

        `one_more_rule` is asked of each tick that keeps all others.

        Never raises: what cannot be read or breaks a rule comes back as a dead letter with its reason. There are at
        most as many dead letters as :func:`most_dead_letters` says, or one, the message itself.
        """
        try:
            elements = self._elements(value)
        except Unreadable as error:
            return Decoded([], [DeadLetter(WHOLE_MESSAGE, value or b"", error.reason, error.detail)], [])
        assert value is not None
        ticks: list[tuple[int, Tick]] = []
        revisions: list[tuple[int, Revision]] = []
        broken = _Broken(most_dead_letters(value))
        for position, element in enumerate(elements):
            try:
                if is_revision(element):
                    revisions.append((position, self._rules.revision(element, message_ms)))
                elif broken.are_many and not has_every_field(element):
                    broken.number += 1
                else:
                    tick = self._rules.tick(element, message_ms)
                    if one_more_rule is not None:
                        one_more_rule(tick)
                    ticks.append((position, tick))
            except RowRuleBroken as rule:
                broken.add(position, rule)
            except RecursionError:
                broken.add(position, RowRuleBroken("wrong_type", "the element is nested too deep"))
        return Decoded(ticks, broken.dead_letters(value, len(elements), self._cut), revisions)

    def message_of(self, raw_value: bytes) -> bytes:
        """The message that holds one element alone, from what its dead letter keeps of it."""
        return b"[" + raw_value + b"]" if self._feed is None else self._feed.message_of(raw_value)

    def as_corrections(self, value: bytes, positions: Collection[int]) -> bytes:
        """The message with a mark on some of its elements that they correct a tick, whatever marks one in its feed."""
        if self._feed is None:
            return with_marks(value, self._cut(value), positions, LAB_MARK)
        if self._feed.messages == "csv":
            mark = self._feed.csv.delimiter.encode() + CSV_MARK
            return with_marks(value, self._cut(value), positions, mark, are_lines=True)
        return with_marks(value, self._cut(value), positions, JSON_MARK)


#: The mark of the lab's messages, behind an object's last field. It is made when it is sent, whatever the feed says.
LAB_MARK = f', "{REVISION_FIELD}": "{RevisionKind.CORRECTION}", "{REVISED_AT_FIELD}": null'.encode()


def _lab_elements(value: bytes | None) -> list[Any]:
    elements = elements_of(value)
    if has_long_numbers(value or b""):
        exact: list[Any] = exact_json(value or b"")
        return exact
    return elements


def _lab_cut(value: bytes) -> Cut:
    return Cut(b"", list(array_spans(value)), b"")


class _Broken:
    """The elements of a message that broke a rule; the first `most` of them with their reasons."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.number = 0
        self._reasons: Counter[str] = Counter()
        self._first: list[tuple[int, str, str]] = []
        #: By position, of those that only `profile` stands against.
        self._ticks: dict[int, Tick] = {}
        self._revisions: dict[int, Revision] = {}

    @property
    def are_many(self) -> bool:
        """Whether the message will be kept as a whole, so that no more reasons are asked for."""
        return self.number > self._most

    def add(self, position: int, rule: RowRuleBroken) -> None:
        self.number += 1
        self._reasons[rule.reason] += 1
        if self.number <= self._most:
            # Not the exception itself, which holds on to frames.
            self._first.append((position, rule.reason, rule.detail))
        if rule.tick is not None:
            self._ticks[position] = rule.tick
        if rule.revision is not None:
            self._revisions[position] = rule.revision

    def dead_letters(self, value: bytes, elements: int, cut: Callable[[bytes], Cut]) -> list[DeadLetter]:
        if not self.number:
            return []
        parts = None if self.are_many else cut(value)
        places = [at for at, *_ in self._first]
        # Each element is kept with what stands around all of them, which may be most of a message.
        if parts is None or len(parts.spans) != elements or parts.size(places) > 2 * len(value) + MOST_AROUND:
            at, _, detail = self._first[0]
            unread = Counter({"not looked at": self.number - self._reasons.total()})
            counts = [*self._reasons.most_common(), *(+unread).items()]
            reasons = ", ".join(f"{count:,} {name}" for name, count in counts)
            detail = f"{self.number:,} of {elements:,} elements cannot land ({reasons}); element {at}: {detail}"
            ticks, revisions = tuple(self._ticks.values()), tuple(self._revisions.items())
            return [DeadLetter(WHOLE_MESSAGE, value, TOO_MANY_BROKEN, detail, ticks, revisions)]
        return [
            DeadLetter(
                at,
                parts.raw(value, at),
                reason,
                detail,
                _of(self._ticks, at),
                tuple((at, one) for one in _of(self._revisions, at)),
            )
            for at, reason, detail in self._first
        ]


def _of(by_position: Mapping[int, Any], position: int) -> tuple[Any, ...]:
    return (by_position[position],) if position in by_position else ()


def broken_elements(reason: str, detail: str) -> int:
    """How many elements could not land for which a dead letter of this reason and detail stands."""
    found = re.match(r"([\d,]+) of ", detail) if reason == TOO_MANY_BROKEN else None
    return int(found[1].replace(",", "")) if found else 1


def most_dead_letters(value: bytes) -> int:
    """How many broken elements of a message are kept one by one; with more, the message is kept as a whole."""
    return min(1 + len(value) // BYTES_A_DEAD_LETTER, MOST_DEAD_LETTERS)
