"""Each port that is open while the pipeline runs: the table of docs/secured.md, and what strangers reach there."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from services.instance import Instance
from services.server import free_port
from tests.support import foreign_spark
from tests.support.pipeline import Pipeline, StreamProcess, fresh_pipeline
from tests.support.strangers import get, kill_jobs, post, readable, said_to, upgraded
from tests.test_stream import ticks
from tickledger.settings import PROJECT_ROOT
from tickledger.stores import connect_mysql

pytestmark = pytest.mark.integration

PAGE = PROJECT_ROOT / "docs" / "secured.md"
LOOPBACK = "127.0.0.1"
#: Spark takes a free port for each of these if it is told none.
SPARKS = ("spark.driver.port", "spark.driver.blockManager.port")


class Running:
    """Servers, a stream with its checks, and the dashboard, each with every port that it can have."""

    def __init__(self, instance: Instance, pipeline: Pipeline) -> None:
        self.instance = instance
        self.pipeline = pipeline
        self.ui, self.metrics, self.page, driver, blocks = (free_port() for _ in range(5))
        self.sparks = {driver: "Spark's driver", blocks: "Spark's blocks"}
        chosen = zip(SPARKS, self.sparks, strict=True)
        self.stream = StreamProcess(
            pipeline,
            *(word for name, port in chosen for word in ("--conf", f"{name}={port}")),
            environment={"STREAM_UI_PORT": str(self.ui), "STREAM_METRICS_ADDRESS": f"{LOOPBACK}:{self.metrics}"},
        )
        streamlit = str(Path(sys.executable).with_name("streamlit"))
        self.dashboard = subprocess.Popen(
            [streamlit, "run", "dashboard/app.py", f"--server.port={self.page}"],
            cwd=PROJECT_ROOT, env=pipeline.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def land(self, number: int) -> None:
        """Land one more round of ticks, which is batch `number`."""
        self.pipeline.send([ticks(self.pipeline, number)])
        self.stream.wait_for(f"batch {number} ·", seconds=240)

    def landed(self) -> int:
        """How many batches have landed."""
        return sum(bool(re.match(r"batch \d+ ·", line)) for line in self.stream.lines)

    def open(self) -> dict[int, str]:
        """Each port that one of the processes listens at, by its name in the table; a new kind by what has it."""
        named = self._servers() | self.sparks | {self.ui: "Spark's web interface", self.metrics: "metrics"}
        python = psutil.Process(self.stream.python_pid())
        named[int(python.environ()["PYSPARK_GATEWAY_PORT"])] = "Java, for Python's calls"
        roots = [psutil.Process(server.pid) for server in self.instance.servers()]
        roots += [psutil.Process(self.stream.process.pid), psutil.Process(self.dashboard.pid)]
        return {
            port: named.get(port) or self._name_of(process)
            for root in roots
            for process in [root, *root.children(recursive=True)]
            for port in listens(process)
        }

    def ports(self, name: str) -> list[int]:
        """The ports of a name."""
        found = [port for port, given in self.open().items() if given == name]
        assert found, name
        return found

    def _servers(self) -> dict[int, str]:
        kafka, cassandra, mysql = self.instance.servers()
        storage = yaml.safe_load((cassandra.conf / "cassandra.yaml").read_text())["storage_port"]
        properties = (kafka.conf / "server.properties").read_text()
        controller = int(re.search(r"CONTROLLER://[\d.]+:(\d+)", properties).group(1))  # type: ignore[union-attr]
        return {
            kafka.port: "Kafka",
            controller: "Kafka's controller",
            cassandra.port: "Cassandra",
            storage: "Cassandra, for other nodes",
            mysql.port: "MySQL",
            self.page: "dashboard",
        }

    def _name_of(self, process: psutil.Process) -> str:
        if process.pid == self.stream.python_pid():
            return "Python, for Java's calls"
        return f"unknown: {' '.join(process.cmdline())[:200]}"

    def stop(self) -> None:
        """Stop what this test started."""
        self.dashboard.terminate()
        self.dashboard.wait()
        self.stream.kill()
        print(f"--- the stream said:\n{self.stream.output}")


def listens(process: psutil.Process) -> Iterator[int]:
    """The ports at which a process listens, each of which must be on this machine alone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip.removeprefix("::ffff:") == LOOPBACK, (process.cmdline(), connection)
                yield connection.laddr.port


@pytest.fixture(scope="module")
def running(services: Instance, dbt_template: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All of it, once a batch has landed and the page has been seen."""
    folder = tmp_path_factory.mktemp("ports")
    with fresh_pipeline(services, services.settings(), dbt_template, folder) as pipeline:
        running = Running(services, pipeline)
        try:
            running.land(1)
            _wait_for_page(running.page)
            yield running
        finally:
            running.stop()


@pytest.fixture(autouse=True)
def lands_on(running: Running) -> Iterator[None]:
    """Whatever a stranger tried, the next batch lands."""
    yield
    if running.stream.process.poll() is None:
        running.land(running.landed() + 1)


def _wait_for_page(port: int) -> None:
    deadline = time.monotonic() + 60
    while not _is_up(port):
        assert time.monotonic() < deadline, "no dashboard"


def _is_up(port: int) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        return b"200 OK" in get(port, "/_stcore/health")
    return False


def test_the_table_names_each_port_that_is_open(running: Running) -> None:
    section = PAGE.read_text().partition("## Every port")[2].partition("\n## ")[0]
    table = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")][1:]
    elsewhere = (", in containers", ", in a cluster")
    assert sorted(set(running.open().values())) == sorted(one for one in table if not one.endswith(elsewhere))


def test_a_page_in_a_browser_ends_no_job(running: Running) -> None:
    (ui,) = running.ports("Spark's web interface")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(kill_jobs, ui, 15)
        while not asked.done():
            running.land(running.landed() + 1)
    assert asked.result() > 10
    assert "the query ended" not in running.stream.output


def test_no_stranger_has_the_heap_counted_and_threads_are_told_by_rest_alone(running: Running) -> None:
    (ui,) = running.ports("Spark's web interface")
    assert b"Thread dump for" not in get(ui, "/executors/threadDump/?executorId=driver")
    assert b"Heap Histogram" not in get(ui, "/executors/heapHistogram/?executorId=driver")
    (application,) = re.findall(rb'"id" : "([\w-]+)"', get(ui, "/api/v1/applications"))
    threads = get(ui, f"/api/v1/applications/{application.decode()}/executors/driver/threads")
    # Spark has no setting against it, and docs/secured.md says so.
    assert b'"threadName"' in threads


def _calls() -> bytes:
    """In py4j's words: call `handle` of each object that Python may have given to Java."""
    return b"".join(f"c\np{number}\nhandle\nn\ne\n".encode() for number in range(20))


def _with_token(running: Running) -> bytes:
    """How a call begins that has the token of this start."""
    token = psutil.Process(running.stream.python_pid()).environ()["PYSPARK_GATEWAY_SECRET"]
    return f"A\n{token}\ne\n".encode()


def test_no_stranger_calls_python_as_java_does(running: Running) -> None:
    for port in running.ports("Python, for Java's calls"):
        assert b"!yv" in said_to(port, _with_token(running))
        for answer in (said_to(port, _calls()), post(port, _calls()), said_to(port, b"A\nwrong\n" + _calls())):
            assert b"!yv" not in answer


def test_no_stranger_calls_java_as_python_does(running: Running) -> None:
    (port,) = running.ports("Java, for Python's calls")
    assert b"!yv" in said_to(port, _with_token(running))
    exits = b"c\nz:java.lang.System\nexit\ni1\ne\n"
    for sent in (exits, b"A\nwrong\n" + exits):
        assert b"!yv" not in said_to(port, sent)
        assert b"!yv" not in post(port, sent)


def test_another_spark_does_not_stop_the_driver(running: Running) -> None:
    (port,) = running.ports("Spark's driver")
    assert foreign_spark.ask(port, "driver").startswith("refused: ")


#: The magic number with which a node of Cassandra begins, and what may follow.
_NODE = b"\xca\x55\x2d\xfa" + b"\x00" * 12


def test_no_stranger_is_a_node_of_cassandra(running: Running) -> None:
    (port,) = running.ports("Cassandra, for other nodes")
    assert said_to(port, _NODE) == b""
    with pytest.raises(OSError, match=r"certificate|reset|EOF|alert|hung up"):
        _as_node_without_certificate(port)


def _as_node_without_certificate(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((LOOPBACK, port), timeout=5) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(_NODE)
        # The server asks for a certificate in the handshake, and says that none came after it.
        if not connection.recv(1):
            raise ConnectionResetError("it hung up")


def test_no_foreign_page_opens_the_dashboards_stream(running: Running) -> None:
    (port,) = running.ports("dashboard")
    answer = upgraded(port, "/_stcore/stream")
    assert b" 403 " in answer.partition(b"\r\n")[0], answer[:200]


def test_metrics_are_read_and_nothing_else(running: Running) -> None:
    (port,) = running.ports("metrics")
    assert b"tickledger_batches_total" in get(port, "/metrics")
    assert b" 405 " in post(port, b"x").partition(b"\r\n")[0]


def test_no_stranger_reads_what_servers_and_stream_keep(running: Running) -> None:
    scratch = running.pipeline.settings.stream_scratch_dir
    temporary = Path(tempfile.gettempdir())
    kept = [running.instance.folder, scratch, *_folders_of(psutil.Process(running.stream.process.pid), temporary)]
    assert readable(kept) == []
    assert list(scratch.glob("*/blockmgr-*")), "Spark's blocks are not where they are looked for"
    assert readable([PROJECT_ROOT / "docs"]), "a stranger who reads nothing at all proves nothing"


def _folders_of(jvm: psutil.Process, temporary: Path) -> list[Path]:
    """What Java or Python have open below the folder for temporary files."""
    files = [Path(one.path) for process in (jvm, *jvm.children(recursive=True)) for one in process.open_files()]
    return [file for file in files if temporary in file.parents]


def test_what_is_no_client_gets_nothing_from_a_server(running: Running) -> None:
    for name in ("Kafka", "Kafka's controller", "Cassandra", "MySQL", "Spark's blocks"):
        for port in running.ports(name):
            for answer in (
                get(port, "/", 2),
                said_to(port, b"\x00\x00\x00\x02\x00\x00"),
                said_to(port, os.urandom(4096)),
            ):
                assert len(answer) < 1000, (name, answer)


def test_a_stranger_who_hangs_up_on_mysql_shuts_nobody_out(running: Running) -> None:
    settings = running.pipeline.settings
    for _ in range(150):
        with socket.create_connection((LOOPBACK, settings.mysql_port), timeout=5) as connection:
            connection.recv(1)
    connect_mysql(settings).close()


def test_the_stream_ends_in_order_after_all_that(running: Running) -> None:
    running.stream.process.send_signal(signal.SIGTERM)
    assert running.stream.wait() == 0, running.stream.output
    assert "Traceback" not in running.stream.output
