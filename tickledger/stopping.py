"""A request to stop that comes as a signal."""

import queue
import signal
import threading
from types import FrameType


def stop_on_signals(stopping: threading.Event, *, second_ends: bool = False) -> threading.Event:
    """Let Ctrl-C (SIGINT) or SIGTERM set `stopping`, and return it. For the main thread to call.

    With `second_ends`, a second signal ends the process in the usual way; otherwise it changes nothing.
    """
    # Python runs a handler in the middle of whatever the main thread does. In the middle of Event.wait that thread
    # holds the lock that Event.set waits for, so a handler that sets the event hangs for ever. SimpleQueue.put may be
    # called there (docs.python.org/3.11/library/queue.html#queue.SimpleQueue.put), and another thread sets the event.
    asked: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask(number: int, _frame: FrameType | None) -> None:
        if second_ends:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        asked.put(number)

    def pass_on() -> None:
        asked.get()
        stopping.set()

    threading.Thread(target=pass_on, name="signals", daemon=True).start()
    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stopping


def interrupt_on_signals() -> None:
    """Let SIGTERM end the main thread as Ctrl-C does, by KeyboardInterrupt, and ignore what comes after the first.

    For a program whose `finally` stops what it started: a second signal would end the cleaning up.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    # A shell lets a job in the background ignore SIGINT; a handler takes that back.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
