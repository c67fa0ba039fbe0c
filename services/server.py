"""What the three servers have in common: start, wait until it answers, set up, stop."""

import errno
import os
import re
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, stop_when_event_set, wait_fixed
from tenacity.stop import stop_any

from services.hosts import LOOPBACK, Hosts
from services.jars import Say
from services.process import ServerProcess
from tickledger.errors import PRIVATE, ConfigurationError, StoreUnavailable, TickledgerError
from tickledger.plain_text import plain
from tickledger.settings import Settings

READY_SECONDS = 120
#: How many servers of a kind there may be; of a cluster, each kind may lose one.
NODES = (1, 3)
CERTIFICATES = "certificates"
#: The head of each server's file of settings.
WRITTEN = "# Written by `tickledger services start` at every start; what is changed here is lost.\n"


class Server(ABC):
    """One server of an instance, with its configuration, data, log and pid file in the instance's folder.

    It is `node` 1 of 1, or in a cluster one of as many `nodes` as there are of each kind: at the addresses of `hosts`,
    all with the same port. Its `settings` name it alone.
    """

    name: str
    title: str
    port_setting: str

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        say: Say,
        cancelled: Event | None = None,
        *,
        node: int = 1,
        nodes: int = 1,
        hosts: Hosts | None = None,
    ):
        self.node, self.nodes = node, nodes
        self.name, self.title = name_of(type(self), node), title_of(type(self), node)
        self.hosts = hosts or Hosts()
        self.host = self.hosts.address(self.name)
        #: Those of all nodes.
        self.whole = settings
        self.settings = own_settings(settings, node, self.host) if nodes > 1 else settings
        self._folder = folder
        self.data = folder / "data" / self.name
        self.conf = folder / "conf" / self.name
        self.temporary = folder / "tmp" / self.name
        #: The authority and the certificate of all three; only where the settings ask for TLS.
        self.certificates = folder / CERTIFICATES
        self.log_file = log_file_of(folder, self.name)
        self.process = process_of(folder, self.name)
        self.say = say
        self._cancelled = cancelled or Event()
        #: Written after the first set-up: from then on the accounts are the settings'.
        self._set_up_mark = self.data / ".set-up"

    @property
    @abstractmethod
    def port(self) -> int:
        """The port that clients use."""

    @property
    def port_between(self) -> int:
        """The port that the nodes of a cluster use among themselves."""
        return self.port + 1

    @staticmethod
    @abstractmethod
    def version() -> str:
        """The server's version, such as 4.1.1; fetches nothing."""

    @abstractmethod
    def prepare(self) -> None:
        """Fetch what is missing, write the configuration, and create an empty data folder at the first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line; no secret stands in it."""

    @abstractmethod
    def check_answers(self) -> None:
        """Log in once. Raises StoreUnavailable while the server is not ready yet."""

    def check_serves(self) -> None:
        """The same, and whatever else it should do for the others. Raises TickledgerError where it does not."""
        self.check_answers()

    @abstractmethod
    def set_up(self) -> None:
        """Create what clients expect to find. Running it again changes nothing that is right."""

    @property
    def address(self) -> str:
        """host:port for people."""
        return f"{self.host}:{self.port}"

    def host_of(self, node: int) -> str:
        """The address of a node of its kind."""
        return self.hosts.address(name_of(type(self), node))

    @property
    def pid(self) -> int | None:
        """The pid while the server runs, else None."""
        return self.process.pid

    @property
    def was_set_up(self) -> bool:
        """Whether the accounts in the data folder were made before."""
        return self._set_up_mark.exists()

    def start(self) -> None:
        """Start the process unless it runs; returns before it answers.

        Raises ConfigurationError where something else listens on its port.
        """
        if self.pid:
            return
        self.refuse_busy_port()
        self.prepare()
        self.temporary.mkdir(parents=True, exist_ok=True)
        command = self.hosts.prefix(self.name) + self.command()
        self.process.start(command, {"TMPDIR": str(self.temporary)})

    def wait_until_ready(self) -> None:
        """Return once it answers, at most 120 s later, and in a cluster as long for each node.

        Raises TickledgerError with the log's file name where it died or took too long.
        """
        seconds = READY_SECONDS * self.nodes
        attempts = Retrying(
            stop=stop_any(stop_after_delay(seconds), stop_when_event_set(self._cancelled)),
            wait=wait_fixed(0.5),
            retry=retry_if_exception_type(StoreUnavailable),
        )
        try:
            attempts(self._check_once)
        except RetryError:
            if self._cancelled.is_set():
                raise TickledgerError(f"waiting for {self.title} was interrupted") from None
            raise self._failure(f"did not answer at {self.address} within {seconds} s") from None

    def bring_up(self) -> None:
        """Start, wait, set up: the whole way, told step by step."""
        bring_up([self])

    def finish(self) -> None:
        """Set it up once it answers, and say that it is ready. Raises TickledgerError."""
        try:
            self.set_up()
        except StoreUnavailable as error:
            raise TickledgerError(f"setting up {self.title} failed: {error} (its log is {self.log_file})") from None
        self._set_up_mark.touch()
        self.say(f"{self.title} is ready")

    def stop(self) -> bool:
        """Stop it in order; False where it did not run."""
        return self.process.stop()

    def kill(self) -> bool:
        """SIGKILL it, as a crash would; False where it did not run."""
        return self.process.kill()

    def refuse_busy_port(self) -> None:
        """Raise ConfigurationError where a port is taken, unless by this very server."""
        if self.pid:
            return
        setting = f"{self.port_setting} is {getattr(self.settings, self.port_setting.lower())}"
        if reason := self._taken(self.port):
            raise ConfigurationError(
                f"{setting}; {reason}: it should be a free port for {self.title}, or stop what listens there"
            )
        if self.nodes > 1 and (reason := self._taken(self.port_between)):
            raise ConfigurationError(
                f"{setting}; {reason}, at the next port, {self.host}:{self.port_between}: both should be free for"
                f" {self.title}, or stop what listens there"
            )

    def _taken(self, port: int) -> str:
        """Why nothing can listen at a port; empty where it can, or on another host."""
        if self.hosts.prefix(self.name):
            return ""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, port))
            except OSError as error:
                busy = error.errno == errno.EADDRINUSE
                return "something else listens there already" if busy else f"{error.strerror}"
        return ""

    def _check_once(self) -> None:
        if self.pid is None:
            raise self._failure("ended right after its start")
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError as error:
            raise StoreUnavailable(f"{self.title} at {self.address}: {error}") from None
        self.check_answers()

    def _failure(self, what: str) -> TickledgerError:
        for line in self.process.last_lines():
            self.say(f"  {plain(line.expandtabs())}")
        return TickledgerError(f"{self.title} {what}; its log is {self.log_file}")


def bring_up(nodes: Sequence[Server]) -> None:
    """Start all servers of one kind, wait until each answers, then set them up, told step by step.

    All are started before any is waited for: those of a cluster need each other. Raises as :meth:`Server.start` and
    :meth:`Server.wait_until_ready`.
    """
    for server in nodes:
        if server.pid:
            server.say(f"{server.title} runs already")
        else:
            server.start()
            server.say(f"waiting for {server.title} at {server.address}")
    for server in nodes:
        server.wait_until_ready()
    for server in nodes:
        server.finish()


def own_settings(settings: Settings, node: int, host: str) -> Settings:
    """The settings of a cluster as they would be if it had this node alone."""
    own = {
        "kafka_bootstrap_servers": settings.kafka_bootstrap_servers.split(",")[node - 1],
        "cassandra_hosts": (settings.cassandra_hosts[node - 1],),
        "mysql_host": host,
    }
    return settings.model_copy(update=own)


def name_of(kind: type[Server], node: int) -> str:
    """How files and processes of a node are called."""
    return kind.name if node == 1 else f"{kind.name}-{node}"


def title_of(kind: type[Server], node: int) -> str:
    """How people call a node."""
    return kind.title if node == 1 else f"{kind.title} {node}"


def log_file_of(folder: Path, name: str) -> Path:
    """The log of a server in an instance's folder."""
    return folder / "logs" / f"{name}.log"


def process_of(folder: Path, name: str) -> ServerProcess:
    """The process of a server in an instance's folder; needs no settings, so it can be stopped whatever they say."""
    return ServerProcess(folder / "pids" / f"{name}.json", log_file_of(folder, name))


def free_port() -> int:
    """A port on 127.0.0.1 that is free at the moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def run_once(command: list[str], what: str) -> None:
    """Run a preparing command to its end. Raises TickledgerError with its last line that tells of an error."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, umask=PRIVATE
    )
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or [f"exit code {done.returncode}"]
        telling = [line for line in lines if re.search(r"error|exception|fatal|not found", line, re.IGNORECASE)]
        raise TickledgerError(f"{what} failed: {(telling or lines)[-1].strip()}")
