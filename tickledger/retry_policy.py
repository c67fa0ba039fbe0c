"""Waiting for a store that is down: for a bounded time, telling the user, and not beyond a request to stop."""

import threading
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.plain_text import plain

Result = TypeVar("Result")


class GaveUp(TickledgerError):
    """A store stayed away for longer than the settings allow. Exit code 1."""


class RetryPolicy:
    """Calls an action again while it raises StoreUnavailable, for at most `seconds`, until `stopping` is set."""

    def __init__(self, seconds: float, stopping: threading.Event) -> None:
        self._seconds = seconds
        self._stopping = stopping

    def call(self, action: Callable[[], Result]) -> Result:
        """Return what `action` returns, sooner or later. Raises GaveUp, or what else the action raises."""
        attempts = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_exponential(multiplier=0.5, max=5),
            stop=lambda state: self._stopping.is_set() or stop_after_delay(self._seconds)(state),
            sleep=self._sleep,
            before_sleep=self._say,
            reraise=True,
        )
        try:
            return attempts(action)
        except StoreUnavailable as error:
            raise GaveUp(f"{error}; gave up, the next start goes on from the ledger") from None

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds)

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        print(f"waiting: {plain(error)} (attempt {state.attempt_number}, for at most {self._seconds:g} s)", flush=True)
