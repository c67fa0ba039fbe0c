"""When to send: rounds at a rate, and a request to stop that is heard while waiting."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

#: A producer that was held up sends at most the rounds of this many seconds at once, not all that it missed.
CATCH_UP_SECONDS = 1.0


def stop_on_signals() -> threading.Event:
    """An event that Ctrl-C (SIGINT) or SIGTERM sets. A second signal ends the process in the usual way."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return stopping


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
