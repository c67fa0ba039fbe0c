"""Ticks from a file, at their own pace or another."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import orjson

from producer.bad_rows import BadRows
from producer.pace import wait_until
from producer.tick_file import FIELD_NAMES, NUMBERS, OpenFile, named
from tickledger.row_rules import REVISED_AT_FIELD, REVISION_FIELD, RowRuleBroken, RowRules, is_revision

#: Keeps a message well below the 1 MiB that Kafka takes: a tick has some hundred bytes, texts are bounded.
MAX_TICKS_A_MESSAGE = 1_000
#: Ticks that are due within this number of milliseconds share a message.
SHARED_MS = 20

#: The fields of an element that are sent.
SENT = (*FIELD_NAMES, REVISION_FIELD, REVISED_AT_FIELD)
_RULES = RowRules({})
#: Below it each whole number is a float of its own: 100.0 is 100, while this one may have been the next, or 1e17 any.
_INEXACT_FLOAT = 2**53
MAX_UNSIGNED = 2**64 - 1
#: No tick's number is that large, and far larger ones no float.
MOST_FLOAT = 10**300


_Sent = TypeVar("_Sent")


class TickFile:
    """The ticks of a CSV or JSON file, and the corrections and cancellations in it.

    A tick keeps its id and created_at, so that the ledger counts a second replay of a file as duplicates. What breaks a
    row rule that needs no profile (not readable, a field missing, of the wrong type or out of range) is left out and
    goes to `bad`. `ticks` counts the others. `tell` hears what the file is, and of the first bad rows.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        """Open the file. Raises ConfigurationError where it cannot be read, or is neither CSV nor JSON."""
        self.ticks = 0
        self.bad = BadRows(path, tell)
        self._file = OpenFile(path)
        tell(f"{path}: {self._file.found}")

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The good ticks in the file's order, each with its created_at in milliseconds since 1970-01-01 UTC.

        Of a correction or cancellation it is when it was made. Raises TickledgerError where the rest of the file cannot
        be read.
        """
        try:
            for place, content, broken in self._file.rows():
                if broken:
                    self.bad.add(place, *broken, content)
                    continue
                element = _numbered(named(content)) if type(content) is dict else content
                try:
                    due_ms = due(element)
                except RowRuleBroken as rule:
                    self.bad.add(place, rule.reason, rule.detail, content)
                    continue
                self.ticks += 1
                yield due_ms, {name: element[name] for name in SENT if name in element}
        finally:
            self._file.close()
            self.bad.close()

    def progress(self) -> str:
        """How much of the file was read, in words; empty where nobody knows. From any thread."""
        share = self._file.share_read
        return "" if share is None else f"{share:.0%} of the file"


def due(element: Any) -> int:
    """When an element was made, in milliseconds since 1970-01-01 UTC. Raises RowRuleBroken, but for what profile says.

    The ledger judges what depends on the profile; all else is for whoever wrote the file.
    """
    now_ms = time.time_ns() // 1_000_000
    try:
        if is_revision(element):
            return _RULES.revision(element, now_ms).revised_ms
        return _RULES.tick(element, now_ms).created_ms
    except RowRuleBroken as rule:
        if rule.tick is not None:
            return rule.tick.created_ms
        if rule.revision is not None:
            return rule.revision.revised_ms
        raise


def _numbered(element: dict[str, Any]) -> dict[str, Any]:
    """The element with its numbers as a message spells them."""
    return element | {name: _number(element[name]) for name in NUMBERS if name in element}


def _number(value: Any) -> Any:
    """The number of a CSV field or of JSON, whole where pandas writes 100.0; what is no number stays as it is."""
    if type(value) is str:
        try:
            spelt = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value or None
        if type(spelt) not in (int, float):
            return value
        value = spelt
    elif type(value) is Decimal or (type(value) is int and MAX_UNSIGNED < value < MOST_FLOAT):
        # As the sender's JSON has them, which knows no larger whole numbers.
        value = float(value)
    return int(value) if type(value) is float and value.is_integer() and abs(value) < _INEXACT_FLOAT else value


def messages_in_time(
    ticks: Iterator[tuple[int, _Sent]], speed: float | None, stopping: threading.Event
) -> Iterator[list[_Sent]]:
    """Messages, each when it is due: neighbours that are due within 20 ms together, at most a thousand.

    `speed` 2 is twice as fast as the ticks were made; None does not wait. Ticks older than those before them follow
    at once.
    """
    started = time.monotonic()
    first_ms: int | None = None

    def due(pair: tuple[int, Any]) -> float:
        """Seconds after the first tick, rounded up to 20 ms."""
        nonlocal first_ms
        first_ms = pair[0] if first_ms is None else first_ms
        return -((first_ms - pair[0]) // (SHARED_MS * speed)) * SHARED_MS / 1000 if speed else 0.0

    for seconds, group in itertools.groupby(ticks, key=due):
        while message := [tick for _, tick in itertools.islice(group, MAX_TICKS_A_MESSAGE)]:
            if not wait_until(started + seconds, stopping):
                return
            yield message
