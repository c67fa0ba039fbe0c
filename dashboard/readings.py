"""The newest good answer to each question, kept for when its store is down and shared by all viewers."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pandas as pd

from streaming.errors import TickledgerError

#: Questions kept; viewers who choose other tickers ask other ones.
MAX_QUESTIONS = 64


@dataclass
class Reading:
    """An answer, or the newest good one with the error that keeps a newer one away.

    `frame` and `read_at` (UTC) are None where the question never had an answer.
    """

    frame: pd.DataFrame | None = None
    read_at: datetime | None = None
    error: TickledgerError | None = None
    asked: float = field(default=float("-inf"), repr=False)


class Readings:
    """Asks each question at most once in `fresh_seconds`, however many viewers there are.

    A question that failed rests for `retry_seconds`, so that a store that hangs does not freeze the page.
    """

    def __init__(self, fresh_seconds: float, retry_seconds: float = 3.0) -> None:
        self._fresh_seconds = fresh_seconds
        self._retry_seconds = retry_seconds
        self._kept: dict[Hashable, Reading] = {}
        self._lock = threading.Lock()

    def get(self, question: Hashable, read: Callable[[], pd.DataFrame]) -> Reading:
        """The answer to a question: kept where fresh, else from `read`; where that fails, the last good one."""
        kept = self._kept.get(question, Reading())
        patience = self._retry_seconds if kept.error else self._fresh_seconds
        if time.monotonic() - kept.asked < patience:
            return kept
        try:
            reading = Reading(read(), datetime.now(UTC), None, time.monotonic())
        except TickledgerError as error:
            reading = Reading(kept.frame, kept.read_at, error, time.monotonic())
        with self._lock:
            self._kept.pop(question, None)
            self._kept[question] = reading
            while len(self._kept) > MAX_QUESTIONS:
                self._kept.pop(next(iter(self._kept)))
        return reading
