"""One set of the three servers, or of three of each, with a name, a folder, an env file and ports of its own."""

import fcntl
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from dotenv import dotenv_values

from services.cassandra_server import CassandraServer
from services.certificates import make_certificates
from services.environment import TEMPLATE, write_dbt_profile, write_env_file
from services.hosts import LOOPBACK, Hosts
from services.jars import Say
from services.java import SERVICES_DIR, SETTINGS, java_home
from services.kafka_server import KafkaServer
from services.mysql_server import MYSQL_NODES, MySQLServer
from services.server import (
    CERTIFICATES,
    NODES,
    Server,
    bring_up,
    free_port,
    name_of,
    process_of,
    title_of,
)
from services.spark_cluster import MASTER_PORT, master_at, names, start_cluster, stop_cluster
from tickledger.counted import counted
from tickledger.errors import ConfigurationError
from tickledger.folder import folder_problem
from tickledger.settings import PROJECT_ROOT, Settings, load_settings

DEMO = "demo"
TEST_PORTS = {"kafka": 39092, "cassandra": 19042, "mysql": 13307}
FREE_BYTES = 2 * 1024**3
#: In the order in which they stop: first what takes messages in, last what holds the ledger.
SERVERS: Sequence[type[Server]] = (KafkaServer, CassandraServer, MySQLServer)

ALL_NODES = range(1, max(NODES) + 1)
#: For which a cluster's brokers are waited for as they end.
HAND_OVER_SECONDS = 10


def nodes_of(settings: Settings) -> int:
    """How many servers of a kind the settings name. Raises ConfigurationError if it is not the same of each."""
    nodes, hosts = len(settings.kafka_bootstrap_servers.split(",")), len(settings.cassandra_hosts)
    if nodes not in NODES:
        raise ConfigurationError(
            f"KAFKA_BOOTSTRAP_SERVERS is {settings.kafka_bootstrap_servers!r}; of the services on this machine it"
            f" should name {' or '.join(map(str, NODES))}: 'make services NODES=3' does"
        )
    if hosts != nodes and nodes > 1:
        raise ConfigurationError(
            f"CASSANDRA_HOSTS is {','.join(settings.cassandra_hosts)!r}; it should name {counted(nodes, 'node')}, as"
            " KAFKA_BOOTSTRAP_SERVERS does: 'make services NODES=3' writes both"
        )
    return nodes


def _print(text: str) -> None:
    print(text, flush=True)


class Instance:
    """The servers named `demo` (env file .env, the template's ports), `test`, or any other name (free ports).

    The env file says how many nodes there are of each kind. `say` receives one line a step. `hosts` are where its
    processes run: on this machine, unless told.
    """

    def __init__(self, name: str = DEMO, say: Say = _print, hosts: Hosts | None = None):
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name) or name in ("java", "jars", SETTINGS):
            raise ConfigurationError(f"--instance is {name!r}; it should be demo, test or a short lower-case name")
        self.name, self.hosts = name, hosts or Hosts()
        self.folder = SERVICES_DIR / name
        self.env_file = PROJECT_ROOT / ".env" if name == DEMO else self.folder / ".env"
        self.dbt_profile = (PROJECT_ROOT / "dbt_project" if name == DEMO else self.folder / "dbt") / "profiles.yml"
        self._say = say
        self._cancelled = Event()
        self._servers: list[Server] = []

    def start(self, *, secure: bool = False, nodes: int | None = None) -> None:
        """Start what does not run yet, wait until all answer, set up, write the env file and the dbt profile.

        `secure` turns TLS and accounts on in the env file, with certificates of the instance's own; later starts obey
        the env file. So it is with `nodes`, how many of each kind. Returns with all ready. A second start is harmless
        and keeps the data.
        Raises ConfigurationError for a busy port, no Java 17, no room on the disk or a folder whose name they cannot be
        started in, and TickledgerError if a server does not come up.
        """
        if problem := folder_problem():
            raise ConfigurationError(problem)
        self._make_folder()
        with self._lock():
            self._refuse_full_disk()
            self.prepare(secure=secure, nodes=nodes)
            servers = self.servers()
            for server in servers:
                server.refuse_busy_port()
            java_home()
            self._bring_up(servers)
            if self.spark_master:
                self.start_spark()
            # Not the environment's: a ledger that a variable names for one command would be every later dbt's.
            write_dbt_profile(load_settings(self.env_file, file_first=True), self.dbt_profile)

    def start_spark(self) -> None:
        """Start what does not run of a cluster's Spark. Raises as :func:`services.spark_cluster.start_cluster`."""
        start_cluster(self.folder, self.spark_secret, self._say, port=self._spark_port(), hosts=self.hosts)

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start what does not run yet, and stop all at the end unless something ran before. Raises as :meth:`start`."""
        ran_before = bool(self.running())
        try:
            self.start()
            yield
        finally:
            if not ran_before:
                self.stop()

    def prepare(self, *, secure: bool = False, nodes: int | None = None) -> None:
        """Create the folder and the env file, or what is missing of them; starts nothing.

        Raises ConfigurationError if `secure` would change the settings of servers that run, or `nodes` those of data.
        """
        self._make_folder()
        replaced: dict[str, str] = {}
        if self.name != DEMO:
            ports = TEST_PORTS if self.name == "test" else {kind.name: free_port() for kind in SERVERS}
            replaced = {
                "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{ports['kafka']}",
                "CASSANDRA_PORT": str(ports["cassandra"]),
                "MYSQL_PORT": str(ports["mysql"]),
                "STREAM_SCRATCH_DIR": str((self.folder / "scratch").relative_to(PROJECT_ROOT)),
            }
        write_env_file(self.env_file, replaced, self._secured(secure) | self._clustered(nodes, replaced))
        self._servers = []

    def _make_folder(self) -> None:
        """The instance's folder, for its owner alone: whatever stands below it is nobody else's to read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def _secured(self, secure: bool) -> dict[str, str]:
        """Make the certificates if they are asked for and missing; the settings that `secure` changes."""
        there = dotenv_values(self.env_file) if self.env_file.exists() else {}
        ca_file = self.folder / CERTIFICATES / "ca.pem"
        name = str(ca_file.relative_to(PROJECT_ROOT))
        running = self.running()
        if secure and running and there.get("KAFKA_SECURITY", "PLAINTEXT") == "PLAINTEXT":
            raise ConfigurationError(
                f"--secure is given, and {', '.join(running)} of instance {self.name} run in plain text: "
                f"'tickledger services stop --instance {self.name}' should come first"
            )
        # `clean` deletes them too. Servers that run keep showing those that they read at their start.
        if (secure or name in there.values()) and not running:
            make_certificates(ca_file.parent)
        files = dict.fromkeys(("KAFKA_CA_FILE", "CASSANDRA_CA_FILE", "MYSQL_CA_FILE"), name)
        return {"KAFKA_SECURITY": "SASL_SSL"} | files if secure else {}

    def _clustered(self, nodes: int | None, replaced: dict[str, str]) -> dict[str, str]:
        """The settings that `nodes` of each kind change; none where as many are there."""
        there = {**dotenv_values(TEMPLATE), **replaced}
        there |= dotenv_values(self.env_file) if self.env_file.exists() else {}
        first, *more = str(there["KAFKA_BOOTSTRAP_SERVERS"]).split(",")
        if nodes is None or nodes == 1 + len(more):
            return {}
        if nodes not in NODES:
            raise ConfigurationError(f"--nodes is {nodes}; it should be {' or '.join(map(str, NODES))}")
        if any((self.folder / "data").glob("*")):
            raise ConfigurationError(
                f"--nodes is {nodes}; instance {self.name} has data of {counted(1 + len(more), 'node')} of each kind: "
                f"'tickledger services clean --instance {self.name}', which deletes them, should come first"
            )
        kafka, cassandra = (
            [self.hosts.address(name_of(kind, node)) for node in range(1, nodes + 1)]
            for kind in (KafkaServer, CassandraServer)
        )
        port, cluster = first.rpartition(":")[2], nodes > 1
        return {
            "KAFKA_BOOTSTRAP_SERVERS": ",".join(f"{host}:{port}" for host in kafka),
            "KAFKA_REPLICATION_FACTOR": str(nodes) if cluster else "default",
            "KAFKA_MIN_IN_SYNC_REPLICAS": str(nodes - 1) if cluster else "default",
            "CASSANDRA_HOSTS": ",".join(cassandra),
            "CASSANDRA_REPLICATION": str(nodes),
            "MYSQL_HOST": self.hosts.address(MySQLServer.name),
        }

    def stop(self) -> list[str]:
        """Stop exactly the processes that `start` started; returns the titles of those that ran."""
        if not self.folder.is_dir():
            return []
        with self._lock(), ThreadPoolExecutor(max(NODES)) as pool:
            stopped = stop_cluster(self.folder)
            for kind in SERVERS:
                there = [node for node in ALL_NODES if process_of(self.folder, name_of(kind, node)).pid]
                # A broker hands over before it ends, for which it needs most of the others: the last ones never do.
                seconds = HAND_OVER_SECONDS if kind is KafkaServer and len(there) > 1 else None
                ending = [pool.submit(process_of(self.folder, name_of(kind, node)).stop, seconds) for node in there]
                stopped += [title_of(kind, node) for node, ran in zip(there, ending, strict=True) if ran.result()]
        return stopped

    def running(self) -> list[str]:
        """The titles of the servers that run; needs no settings."""
        return [name for name in names(self.folder) if process_of(self.folder, name).pid] + [
            title_of(kind, node)
            for kind in SERVERS
            for node in ALL_NODES
            if process_of(self.folder, name_of(kind, node)).pid
        ]

    @property
    def spark_master(self) -> str:
        """Where a stream is submitted to, spark://…; empty of one node, where it does the work itself."""
        return master_at(self._spark_port(), self.hosts) if nodes_of(self.settings()) > 1 else ""

    @property
    def spark_secret(self) -> str:
        """What a stream that is submitted there has as SPARK_PASSWORD."""
        return str(dotenv_values(self.env_file)["SPARK_PASSWORD"])

    def _spark_port(self) -> int:
        """The usual one, or behind those of Kafka."""
        return MASTER_PORT if self.name == DEMO else self.server(KafkaServer.name).port_between + 1

    def clean(self) -> bool:
        """Delete the instance's data and logs; False if there were none. The env file of `demo` stays.

        Raises ConfigurationError while a server runs.
        """
        if not self.folder.is_dir():
            return False
        if running := self.running():
            raise ConfigurationError(
                f"{', '.join(running)} of instance {self.name} still run: "
                f"'tickledger services stop --instance {self.name}' comes first"
            )
        shutil.rmtree(self.folder)
        return True

    def settings(self) -> Settings:
        """The settings as this instance's clients read them: the environment first, then its env file."""
        return load_settings(self.env_file)

    def server(self, name: str) -> Server:
        """The server `kafka`, `cassandra` or `mysql`, or of a cluster the second one, as in `kafka-2`."""
        return next(server for server in self.servers() if server.name == name)

    def servers(self) -> list[Server]:
        """All of them, in the order in which they stop."""
        if not self._servers:
            settings = self.settings()
            nodes = nodes_of(settings)
            self._servers = [
                kind(self.folder, settings, self._say, self._cancelled, node=node, nodes=nodes, hosts=self.hosts)
                for kind in SERVERS
                for node in range(1, 1 + (min(nodes, MYSQL_NODES) if kind is MySQLServer else nodes))
            ]
        return self._servers

    def _bring_up(self, servers: list[Server]) -> None:
        """All kinds at the same time: two of them are JVMs that mostly wait for themselves."""
        kinds = [[server for server in servers if isinstance(server, kind)] for kind in SERVERS]
        # Who follows needs whom it follows.
        kinds[-1].sort(key=lambda server: not (isinstance(server, MySQLServer) and server.is_primary))
        with ThreadPoolExecutor(len(kinds)) as pool:
            runs = [pool.submit(bring_up, nodes) for nodes in kinds]
            try:
                problems = [problem for problem in (run.exception() for run in runs) if problem]
            except KeyboardInterrupt:
                self._cancelled.set()
                raise
        for problem in problems[1:]:
            self._say(f"error: {problem}")
        if problems:
            raise problems[0]

    def _refuse_full_disk(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < FREE_BYTES:
            raise ConfigurationError(
                f"the disk of {self.folder} has {free / 1024**3:.1f} GiB free; "
                f"the services should have at least {FREE_BYTES / 1024**3:.0f} GiB"
            )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One start or stop at a time; a second one waits."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"waiting for another command that starts or stops servers of instance {self.name}")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
