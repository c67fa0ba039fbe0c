"""The newest good answer to each question, kept for when its store is down and shared by all viewers."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pandas as pd

from tickledger.errors import StoreUnavailable, TickledgerError

#: Questions kept; viewers who choose other tickers ask other ones.
MAX_QUESTIONS = 64


@dataclass(frozen=True)
class Reading:
    """An answer, or the newest good one with the error that keeps a newer one away.

    `frame` and `read_at` (UTC) are None if the question never had an answer.
    """

    frame: pd.DataFrame | None = None
    read_at: datetime | None = None
    error: TickledgerError | None = None
    asked: float = field(default=float("-inf"), repr=False)


class Readings:
    """Asks each question at most once in `fresh_seconds`, however many viewers there are.

    A store that did not answer rests for `retry_seconds`: all questions to it fail at once meanwhile, so that a store
    that hangs does not freeze the parts of the page that live on the other.
    """

    def __init__(self, fresh_seconds: float, retry_seconds: float = 3.0) -> None:
        self._fresh_seconds = fresh_seconds
        self._retry_seconds = retry_seconds
        self._kept: dict[Hashable, Reading] = {}
        self._resting: dict[str, tuple[float, StoreUnavailable]] = {}
        self._lock = threading.Lock()

    def get(
        self, store: str, question: Hashable, read: Callable[[], pd.DataFrame], *, fresh_seconds: float = 0.0
    ) -> Reading:
        """The answer to a question: kept if fresh, else from `read`; if that fails, the last good one.

        An answer that costs much and changes little may stay fresh longer than the others.
        """
        kept = self._kept.get(question, Reading())
        if time.monotonic() - kept.asked < max(self._fresh_seconds, fresh_seconds) and kept.error is None:
            return kept
        until, error = self._resting.get(store, (float("-inf"), None))
        if time.monotonic() < until:
            return replace(kept, error=error)
        reading = self._asked(store, kept, read)
        with self._lock:
            self._kept.pop(question, None)
            self._kept[question] = reading
            while len(self._kept) > MAX_QUESTIONS:
                self._kept.pop(next(iter(self._kept)))
        return reading

    def kept(self, question: Hashable) -> pd.DataFrame | None:
        """The last good answer to a question, without asking again."""
        return self._kept.get(question, Reading()).frame

    def _asked(self, store: str, kept: Reading, read: Callable[[], pd.DataFrame]) -> Reading:
        try:
            return Reading(read(), datetime.now(UTC), None, time.monotonic())
        except StoreUnavailable as error:
            self._resting[store] = (time.monotonic() + self._retry_seconds, error)
            return replace(kept, error=error)
        except TickledgerError as error:
            return replace(kept, error=error, asked=time.monotonic())
