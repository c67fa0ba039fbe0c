"""Clients that live long, and stores that come back under another address: each looks the name up again."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.pipeline import Pipeline
from tests.support.store_names import MovingStores
from tickledger.settings import PROJECT_ROOT
from tools.fault_kinds import can_mount

pytestmark = pytest.mark.integration

#: Asks both readers of a page that stays open, and the ledger's lock as a stream holds it, about once a second.
_OPEN_PAGE = """
import time
from dashboard.readers import CassandraReader, MySQLReader
from tickledger.errors import StoreUnavailable
from tickledger.ledger import StreamLock
from tickledger.settings import load_settings
settings = load_settings()
mysql, cassandra, lock = MySQLReader(settings), CassandraReader(settings), StreamLock(settings)
questions = {
    "mysql": lambda: mysql.rows("SELECT 1"),
    "cassandra": lambda: cassandra.rows("SELECT cluster_name FROM system.local WHERE key = ?", [("local",)]),
    "lock": lock.hold,
}
while True:
    for name, ask in questions.items():
        try:
            ask()
            print(name, "answers", flush=True)
        except StoreUnavailable as error:
            print(name, "is away:", error, flush=True)
    time.sleep(1)
"""


@pytest.mark.skipif(not can_mount(), reason="needs root, for names of its own")
def test_a_page_and_a_lock_that_stay_open_find_stores_that_moved(pipeline: Pipeline) -> None:
    with closing(MovingStores(pipeline.settings)) as names:
        page = subprocess.Popen(
            [*names.prefix, sys.executable, "-c", _OPEN_PAGE],
            cwd=PROJECT_ROOT,
            env=pipeline.environment | names.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert page.stdout is not None
            said = iter(page.stdout.readline, "")
            _wait(said, "mysql answers")
            _wait(said, "cassandra answers")
            for name in ("mysql", "cassandra"):
                names.move(name)
            # What is asked after the move is answered; Cassandra's driver needs some seconds to notice.
            _wait(said, "cassandra is away")
            for name in ("cassandra", "mysql", "lock"):
                _wait(said, f"{name} answers")
        finally:
            page.kill()
            page.wait()


def _wait(said: Iterator[str], line: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    heard = []
    for one in said:
        heard.append(one)
        if one.startswith(line):
            return
        assert time.monotonic() < deadline, "".join(heard)
    raise AssertionError("".join(heard))
