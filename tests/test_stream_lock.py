"""The lock that keeps a second stream from a ledger: who may hold it, who is named, and what a killed holder leaves."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.gate import Gate
from tests.support.pipeline import Pipeline
from tickledger import ledger
from tickledger.errors import LedgerMoved, StoreUnavailable
from tickledger.ledger import Ledger, StreamLock
from tickledger.settings import PROJECT_ROOT
from tickledger.stores import IDLE_SECONDS, fetch_rows, locking, mysql

pytestmark = pytest.mark.integration

_HOLD = """
import sys
from tickledger.ledger import StreamLock
from tickledger.settings import load_settings
lock = StreamLock(load_settings())
lock.hold()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here waits for long."""
    monkeypatch.setattr(ledger, "LOCK_SECONDS", 2)


@pytest.fixture
def lock(stores: Pipeline) -> Iterator[Callable[[], StreamLock]]:
    """Locks of the test's own, let go after it."""
    made: list[StreamLock] = []

    def another() -> StreamLock:
        made.append(StreamLock(stores.settings))
        return made[-1]

    yield another
    for one in made:
        one.release()


def holder(pipeline: Pipeline) -> "subprocess.Popen[str]":
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD],
        cwd=PROJECT_ROOT, env=pipeline.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_holder_is_told_who_has_it_until_it_is_let_go(lock: Callable[[], StreamLock]) -> None:
    first, second = lock(), lock()
    first.hold()
    first.hold()
    who = f"process {os.getpid()} on {re.escape(socket.gethostname())}, since 20.*UTC"
    with pytest.raises(LedgerMoved, match=rf"^another stream lands into '\w+' \({who}\); stop it first$"):
        second.hold()
    first.release()
    second.hold()


def test_a_killed_holder_is_named_and_leaves_nothing(stores: Pipeline, lock: Callable[[], StreamLock]) -> None:
    process = holder(stores)
    with pytest.raises(LedgerMoved, match=rf"\(process {process.pid} on "):
        lock().hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = time.monotonic()
    lock().hold()
    assert time.monotonic() - begun < 2


def test_of_many_that_begin_at_once_one_holds_it(lock: Callable[[], StreamLock]) -> None:
    def held(one: StreamLock) -> bool:
        try:
            one.hold()
        except LedgerMoved:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(held, [lock() for _ in range(8)])) == 1


def test_a_holder_whose_connection_the_server_ended_does_not_go_on_beside_another(
    stores: Pipeline, lock: Callable[[], StreamLock]
) -> None:
    first, second = lock(), lock()
    first.hold()
    assert first._connection is not None
    (number,) = fetch_rows(first._connection, "SELECT CONNECTION_ID()")[0]
    with mysql(stores.settings, stores.settings.mysql_root, database="mysql") as server:
        server.cursor().execute(f"KILL {number}")
    second.hold()
    with pytest.raises((LedgerMoved, StoreUnavailable), match="another stream"):
        first.hold()


def test_an_idle_holder_keeps_nobody_from_landing(stores: Pipeline, lock: Callable[[], StreamLock]) -> None:
    lock().hold()
    stores.execute("INSERT INTO profile (ticker, company_name, sector, shares) VALUES ('LOCK.JK', 'x', 'Coal', 1)")
    stores.execute("DELETE FROM profile WHERE ticker = 'LOCK.JK'")


def test_an_idle_holder_keeps_it_for_longer_than_the_server_waits(
    lock: Callable[[], StreamLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "IDLE_SECONDS", 2)
    lock().hold()
    time.sleep(4)
    with pytest.raises(LedgerMoved, match=r"^another stream"):
        lock().hold()


@pytest.fixture
def lost(stores: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamLock]:
    """One that was held over a network that is gone: the server has not noticed, and gives it up in a few seconds."""
    monkeypatch.setattr(ledger, "IDLE_SECONDS", 5)
    with contextlib.closing(Gate(stores.settings.mysql_port)) as gate:
        one = StreamLock(stores.settings.model_copy(update={"mysql_port": gate.port}))
        one.hold()
        gate.lose()
        yield one
        one.release()


def test_a_holder_waits_for_what_the_server_keeps_of_its_lost_connection(lost: StreamLock) -> None:
    with pytest.raises(StoreUnavailable, match=r"still waits for this stream's former connection$"):
        lost.hold()
    wait_until_held(lost)


@pytest.mark.usefixtures("lost")
def test_what_a_lost_host_has_held_is_free_for_another_a_while_later(lock: Callable[[], StreamLock]) -> None:
    with pytest.raises(LedgerMoved, match=r"^another stream"):
        lock().hold()
    wait_until_held(lock())


def wait_until_held(lock: StreamLock) -> None:
    begun = time.monotonic()
    while True:
        try:
            return lock.hold()
        except (LedgerMoved, StoreUnavailable):
            assert time.monotonic() - begun < 20


def test_a_batch_whose_host_is_lost_keeps_its_locks_no_longer(stores: Pipeline) -> None:
    with Ledger(stores.settings)._transaction() as connection:
        assert fetch_rows(connection, "SELECT @@SESSION.wait_timeout") == [(IDLE_SECONDS,)]


def test_a_connection_that_has_locked_and_reads_elsewhere_meanwhile_is_kept(stores: Pipeline) -> None:
    with mysql(stores.settings) as connection:
        with locking(connection):
            assert fetch_rows(connection, "SELECT @@SESSION.wait_timeout") == [(IDLE_SECONDS,)]
        assert fetch_rows(connection, "SELECT @@SESSION.wait_timeout = @@GLOBAL.wait_timeout") == [(1,)]
