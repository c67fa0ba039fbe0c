"""A signal stops a program whatever its main thread does at that moment."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tickledger.stopping import stop_on_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_is_heard_at_any_moment_of_a_wait(number: signal.Signals) -> None:
    for attempt in range(100):
        stopping = stop_on_signals(threading.Event())
        threading.Timer(0.001 + attempt * 1e-5, os.kill, (os.getpid(), number)).start()
        while not stopping.wait(0):
            pass


def test_a_second_signal_ends_the_process_where_that_is_asked_for() -> None:
    stopping = stop_on_signals(threading.Event(), second_ends=True)
    signal.raise_signal(signal.SIGINT)
    assert stopping.wait(10)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_signal_changes_nothing_otherwise() -> None:
    stopping = stop_on_signals(threading.Event())
    signal.raise_signal(signal.SIGTERM)
    assert stopping.wait(10)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert stopping.is_set()
