"""The newest good answer to each question, kept for when its store is down and shared by all viewers."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pandas as pd

from tickledger.errors import StoreUnavailable, TickledgerError

#: Questions kept; viewers who choose other tickers ask other ones.
MAX_QUESTIONS = 64

#: What is drawn is kept under these, also by a process whose developer has this module loaded again.
_numbers = count(time.time_ns())


@dataclass(frozen=True)
class Reading:
    """An answer, or the newest good one with the error that keeps a newer one away.

    `frame` is a DataFrame, or what else the question returns. It and `read_at` (UTC) are None if there never was an
    answer. Readings of one number have one answer, or equal ones. `asked` and `answered` are of `time.monotonic`.
    """

    frame: Any = None
    read_at: datetime | None = None
    error: TickledgerError | None = None
    asked: float = field(default=float("-inf"), repr=False)
    answered: float = field(default=float("-inf"), repr=False)
    number: int = 0


@dataclass
class _Question:
    """A question's newest reading; the lock is held while it is asked."""

    reading: Reading = field(default_factory=Reading)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Readings:
    """Asks each question once for all viewers, and again when something has changed or `fresh_seconds` are over.

    A store that did not answer rests for `retry_seconds`: all questions to it fail at once meanwhile, so that a store
    that hangs does not freeze the parts of the page that live on the other.
    """

    def __init__(self, fresh_seconds: float, retry_seconds: float = 3.0) -> None:
        self._fresh_seconds = fresh_seconds
        self._retry_seconds = retry_seconds
        self._questions: dict[Hashable, _Question] = {}
        self._resting: dict[str, tuple[float, StoreUnavailable]] = {}
        self._lock = threading.Lock()
        self._mark: Hashable = None
        self._marked = float("-inf")
        self._changed, self._retry_at = float("-inf"), float("inf")

    def changed(self, mark: Hashable, asked: float) -> float:
        """When something changed last: another mark than before, or it is time to ask again what may have changed.

        That is `fresh_seconds` after the last change, or `retry_seconds` after a question that had no answer. A mark
        that was `asked` for earlier than the newest one, by a slower viewer, tells of nothing.
        """
        with self._lock:
            now = time.monotonic()
            is_new = mark != self._mark and asked >= self._marked
            if is_new or now >= min(self._retry_at, self._changed + self._fresh_seconds):
                self._changed = now
                self._retry_at = self._retry_at if now < self._retry_at else float("inf")
            if is_new:
                self._mark, self._marked = mark, asked
            return self._changed

    def get(
        self, store: str, question: Hashable, read: Callable[[], Any], *, fresh_seconds: float | None = None
    ) -> Reading:
        """The answer to a question: kept if fresh, else from `read`; if that fails, the last good one.

        With `fresh_seconds` an answer stays fresh for that long, whatever changes.
        """
        with self._lock:
            known = self._questions[question] = self._questions.pop(question, _Question())
            while len(self._questions) > MAX_QUESTIONS:
                self._questions.pop(next(iter(self._questions)))
        with known.lock:
            if self._is_fresh(known.reading, fresh_seconds):
                return known.reading
            until, error = self._resting.get(store, (float("-inf"), None))
            if (rest := until - time.monotonic()) > 0:
                self.ask_again(rest)
                return replace(known.reading, error=error)
            known.reading = self._asked(store, known.reading, read)
            return known.reading

    def ask_again(self, seconds: float = 0.0) -> None:
        """Let :meth:`changed` tell of a change after this number of seconds at the latest."""
        with self._lock:
            self._retry_at = min(self._retry_at, time.monotonic() + seconds)

    def kept(self, question: Hashable) -> Any:
        """The last good answer to a question, without asking again."""
        known = self._questions.get(question)
        return known and known.reading.frame

    def _is_fresh(self, reading: Reading, seconds: float | None) -> bool:
        if reading.error is not None:
            return False
        if seconds is None:
            return reading.asked >= self._changed and time.monotonic() - reading.asked < self._fresh_seconds
        return time.monotonic() - reading.answered < seconds

    def _asked(self, store: str, kept: Reading, read: Callable[[], Any]) -> Reading:
        asked = time.monotonic()
        try:
            answer = read()
        except TickledgerError as error:
            if isinstance(error, StoreUnavailable):
                self._resting[store] = time.monotonic() + self._retry_seconds, error
            self.ask_again(self._retry_seconds)
            return replace(kept, error=error, asked=asked)
        is_same = isinstance(answer, pd.DataFrame) and kept.frame is not None and answer.equals(kept.frame)
        number = kept.number if is_same else next(_numbers)
        return Reading(answer, datetime.now(UTC), None, asked, time.monotonic(), number)
