"""When to send: rounds at a rate, each waited for unless a stop is asked for."""

import itertools
import threading
import time
from collections.abc import Iterator

#: A producer that was held up sends at most the rounds of this many seconds at once, not all that it missed.
CATCH_UP_SECONDS = 1.0


def wait_until(due: float, stopping: threading.Event) -> bool:
    """Wait for a moment of the monotonic clock, in seconds. False where a stop was asked for first."""
    return not stopping.wait(max(0.0, due - time.monotonic()))


def rounds(per_second: float, count: int | None, stopping: threading.Event) -> Iterator[int]:
    """Number the rounds from 0, each when it is due. 0 a second means as fast as possible, None without end."""
    due = time.monotonic()
    for number in itertools.count():
        if number == count or not wait_until(due, stopping):
            return
        yield number
        if per_second:
            due = max(due + 1 / per_second, time.monotonic() - CATCH_UP_SECONDS)
