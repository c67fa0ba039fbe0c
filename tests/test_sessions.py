"""The page's sessions: many share one question to Kafka and leave no thread behind, and an edit shows if it is to."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pandas as pd
import psutil
import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from dashboard.sources import LagWatch
from tests.support.browser import served_page, wait_until
from tests.support.page_data import empty
from tests.support.pipeline import Pipeline
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

SESSIONS = 200
AT_ONCE = 20


@pytest.fixture(scope="module")
def served(stores: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """The page's address and its process."""
    empty(stores)
    before = {child.pid for child in psutil.Process().children()}
    with served_page(stores.environment, tmp_path_factory.mktemp("sessions")) as url:
        (server,) = (child for child in psutil.Process().children() if child.pid not in before)
        yield url, server


@contextlib.contextmanager
def session(url: str) -> Iterator[ClientConnection]:
    """The page as a browser opens it."""
    address = url.replace("http", "ws") + "/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None, close_timeout=1) as socket:  # type: ignore[list-item]
        socket.send(BackMsg(rerun_script=ClientState(query_string="")).SerializeToString())
        yield socket


def is_told(socket: ClientConnection, holds: Callable[[ForwardMsg], bool], seconds: float) -> bool:
    """Whether the page sends such a message in time."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while True:
            message = ForwardMsg.FromString(bytes(socket.recv(deadline - time.monotonic())))  # type: ignore[arg-type]
            if holds(message):
                return True
    return False


def view(url: str) -> list[str]:
    """Open the page, wait for its first figures, and leave; what it said went wrong."""
    wrong: list[str] = []
    with session(url) as socket:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            message = ForwardMsg.FromString(bytes(socket.recv(timeout=120)))  # type: ignore[arg-type]
            element = message.delta.new_element
            if element.WhichOneof("type") == "exception":
                wrong.append(element.exception.message)
            if element.WhichOneof("type") == "metric" and "Batches checked" in element.metric.label:
                return wrong
            if message.WhichOneof("type") == "script_finished":
                return wrong
    return [*wrong, "no figures"]


def test_many_viewers_come_and_go_and_leave_no_thread(served: tuple[str, psutil.Process]) -> None:
    url, server = served
    assert view(url) == []
    time.sleep(3)
    before = server.num_threads()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [line for said in pool.map(view, [url] * SESSIONS) for line in said]
    assert wrong == []
    # The server's thread pools keep a bounded number for the next viewers, and end them when they have been idle.
    bound = before + AT_ONCE
    wait_until(lambda: server.num_threads() <= bound, f"{before} threads became {server.num_threads()}", 60)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(view, [url] * AT_ONCE * 2))
    wait_until(lambda: server.num_threads() <= bound, f"{before} threads became {server.num_threads()}", 60)


@pytest.mark.parametrize(("options", "shows"), [((), False), (("--server.fileWatcherType", "auto"), True)])
def test_an_edit_shows_only_if_files_are_to_be_watched(
    stores: Pipeline, tmp_path: Path, options: tuple[str, ...], shows: bool
) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "secrets.toml")
    script = shutil.copytree(PROJECT_ROOT / "dashboard", tmp_path / "dashboard", ignore=ignored) / "app.py"
    with served_page(stores.environment, tmp_path, *options, script=script) as url, session(url) as socket:
        assert is_told(socket, lambda message: message.WhichOneof("type") == "script_finished", 60)
        script.write_text(f"{script.read_text()}\n# edited\n")
        edited = is_told(socket, lambda message: message.session_event.script_changed_on_disk, 10 if shows else 4)
    assert edited == shows


def test_sixty_at_once_ask_kafka_one_question(stores: Pipeline) -> None:
    ends = pd.DataFrame({"kafka_partition": [0, 1], "topic_offset": [0, 0]})
    before = threading.active_count()
    # Pages of other tests may have one each.
    others = set(lag_threads())
    with closing(LagWatch(stores.settings)) as watch, ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: watch.behind(ends), range(1200)))
        assert {0} <= set(answers) <= {0, None}
        assert len(set(lag_threads()) - others) == 1
    assert watch.behind(ends) is None
    with contextlib.suppress(AssertionError):
        wait_until(lambda: threading.active_count() <= before, "", 10)
    assert set(lag_threads()) <= others


def lag_threads() -> list[threading.Thread]:
    """The threads of this process that ask Kafka for the lag."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("lag")]
