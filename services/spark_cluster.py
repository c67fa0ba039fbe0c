"""A Spark standalone cluster on this machine: a master and its workers, on loopback.

One of `tickledger services`' kinds of servers beside Kafka, Cassandra and MySQL, for who submits the stream with
`--master spark://…`. `start_cluster` starts it and `stop_cluster` stops it.
"""

import socket
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from services.hosts import LOOPBACK, Hosts
from services.jars import Say
from services.java import java_home
from services.process import ServerProcess
from services.server import READY_SECONDS, log_file_of, process_of, write_private
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.plain_text import plain

MASTER, WORKER = "spark-master", "spark-worker"
#: A standalone cluster's usual port.
MASTER_PORT = 7077
#: Of each worker: what its executors may take; one takes a gigabyte.
WORKER_CORES, WORKER_MEMORY = 1, "1g"
_LOG = """rootLogger.level = info
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n%ex{short}
"""


def start_cluster(
    folder: Path, secret: str, say: Say, *, workers: int = 2, port: int = MASTER_PORT, hosts: Hosts | None = None
) -> str:
    """Start what does not run yet of the cluster in an instance's folder; returns the master's address, spark://….

    `secret` is what master, workers and a stream show each other: the stream's SPARK_PASSWORD. Returns once each
    worker that it starts has registered. A master that was killed finds those that run, and applications, again.
    Raises ConfigurationError where something else listens on the port, TickledgerError if a part does not come up.
    """
    hosts = hosts or Hosts()
    master = master_at(port, hosts)
    _write_settings(folder, secret)
    if not process_of(folder, MASTER).pid:
        _refuse_busy(port)
        _start(folder, hosts, MASTER, "master.Master", ["--port", str(port)])
        _wait_for(folder, MASTER, "I have been elected leader")
    for number in range(1, workers + 1):
        if not process_of(folder, name := f"{WORKER}-{number}").pid:
            resources = ["--cores", str(WORKER_CORES), "--memory", WORKER_MEMORY]
            work = ["--work-dir", str(folder / "data" / name)]
            _start(folder, hosts, name, "worker.Worker", [*resources, *work, master])
    for number in range(1, workers + 1):
        _wait_for(folder, f"{WORKER}-{number}", "Successfully registered with master")
    say(f"Spark at {master} has {workers} workers")
    return master


def master_at(port: int, hosts: Hosts) -> str:
    """The address of a master that listens on a port."""
    return f"spark://{hosts.address(MASTER)}:{port}"


def stop_cluster(folder: Path) -> list[str]:
    """Stop what runs of the cluster, the workers first; returns the names of what ran. Needs no settings."""
    return [name for name in names(folder) if process_of(folder, name).stop()]


def names(folder: Path) -> Sequence[str]:
    """The cluster's processes, of which :func:`services.server.process_of` gives each: workers, then the master."""
    return [
        file.stem for pattern in (f"{WORKER}-*", MASTER) for file in sorted((folder / "pids").glob(f"{pattern}.json"))
    ]


def _write_settings(folder: Path, secret: str) -> None:
    conf = _conf(folder)
    recovery = folder / "data" / MASTER
    for one in (conf, recovery):
        one.mkdir(parents=True, exist_ok=True)
    settings = {
        "spark.authenticate": "true",
        "spark.authenticate.secret": secret,
        # Its web interfaces, on free ports, show and do nothing, as the stream's.
        "spark.ui.killEnabled": "false",
        "spark.master.rest.enabled": "false",
        "spark.worker.cleanup.enabled": "true",
        # A master that came back without what it knew would end the stream's executors and never give it others. It
        # waits so many seconds for workers and applications that do not come back.
        "spark.deploy.recoveryMode": "FILESYSTEM",
        "spark.deploy.recoveryDirectory": str(recovery),
        "spark.deploy.recoveryTimeout": "15",
    }
    write_private(conf / "spark-defaults.conf", "".join(f"{name} {value}\n" for name, value in settings.items()))
    (conf / "log4j2.properties").write_text(_LOG)


def _start(folder: Path, hosts: Hosts, name: str, program: str, arguments: list[str]) -> None:
    # Not imported, which every command that names a server would wait for.
    spec = find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    environment = {
        "SPARK_HOME": str(home),
        "JAVA_HOME": str(java_home()),
        "SPARK_CONF_DIR": str(_conf(folder)),
        "SPARK_LOCAL_IP": hosts.address(name),
        "SPARK_LOCAL_DIRS": str(folder / "tmp" / name),
        # They hand out work and watch it; the work is the executors'.
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    }
    # It becomes the Java that it starts.
    command = [*hosts.prefix(name), str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{program}"]
    command += ["--host", hosts.address(name), "--webui-port", "0", *arguments]
    process_of(folder, name).start(command, environment)


def _wait_for(folder: Path, name: str, said: str) -> None:
    """Wait until a process has logged something since its start. Raises TickledgerError."""
    process, deadline = process_of(folder, name), time.monotonic() + READY_SECONDS
    while not any(said in line for line in process.last_lines(1000)):
        if process.pid is None or time.monotonic() > deadline:
            what = "ended right after its start" if process.pid is None else f"is not ready after {READY_SECONDS} s"
            raise TickledgerError(f"{name} {what}: {_last(process)}; its log is {log_file_of(folder, name)}")
        time.sleep(0.2)


def _last(process: ServerProcess) -> str:
    return plain("".join(process.last_lines(1)).expandtabs()) or "it says nothing"


def _refuse_busy(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise ConfigurationError(
                f"Spark's master cannot listen on {LOOPBACK}:{port} ({error.strerror}): stop what listens there"
            ) from None


def _conf(folder: Path) -> Path:
    return folder / "conf" / "spark"
