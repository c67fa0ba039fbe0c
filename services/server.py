"""What the three servers have in common: start, wait until it answers, set up, stop."""

import errno
import os
import re
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from threading import Event

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, stop_when_event_set, wait_fixed
from tenacity.stop import stop_any

from services.jars import Say
from services.process import ServerProcess
from tickledger.errors import PRIVATE, ConfigurationError, StoreUnavailable, TickledgerError
from tickledger.plain_text import plain
from tickledger.settings import Settings

LOOPBACK = "127.0.0.1"
READY_SECONDS = 120
CERTIFICATES = "certificates"
#: The head of each server's file of settings.
WRITTEN = "# Written by `tickledger services start` at every start; what is changed here is lost.\n"


class Server(ABC):
    """One server of an instance, with its configuration, data, log and pid file in the instance's folder."""

    name: str
    title: str
    port_setting: str

    def __init__(self, folder: Path, settings: Settings, say: Say, cancelled: Event | None = None):
        self.settings = settings
        self.data = folder / "data" / self.name
        self.conf = folder / "conf" / self.name
        self.temporary = folder / "tmp" / self.name
        #: The authority and the certificate of all three; only where the settings ask for TLS.
        self.certificates = folder / CERTIFICATES
        self.log_file = log_file_of(folder, self.name)
        self.process = process_of(folder, self.name)
        self._say = say
        self._cancelled = cancelled or Event()
        #: Written after the first set-up: from then on the accounts are the settings'.
        self._set_up_mark = self.data / ".set-up"

    @property
    @abstractmethod
    def port(self) -> int:
        """The port on 127.0.0.1 that clients use."""

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

    @abstractmethod
    def set_up(self) -> None:
        """Create what clients expect to find. Running it again changes nothing that is right."""

    @property
    def address(self) -> str:
        """host:port for people."""
        return f"{LOOPBACK}:{self.port}"

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
        self.process.start(self.command(), {"TMPDIR": str(self.temporary)})

    def wait_until_ready(self) -> None:
        """Return once it answers, at most 120 s later.

        Raises TickledgerError with the log's file name where it died or took too long.
        """
        attempts = Retrying(
            stop=stop_any(stop_after_delay(READY_SECONDS), stop_when_event_set(self._cancelled)),
            wait=wait_fixed(0.5),
            retry=retry_if_exception_type(StoreUnavailable),
        )
        try:
            attempts(self._check_once)
        except RetryError:
            if self._cancelled.is_set():
                raise TickledgerError(f"waiting for {self.title} was interrupted") from None
            raise self._failure(f"did not answer at {self.address} within {READY_SECONDS} s") from None

    def bring_up(self) -> None:
        """Start, wait, set up: the whole way, told step by step."""
        if self.pid:
            self._say(f"{self.title} runs already")
        else:
            self.start()
            self._say(f"waiting for {self.title} at {self.address}")
        self.wait_until_ready()
        try:
            self.set_up()
        except StoreUnavailable as error:
            raise TickledgerError(f"setting up {self.title} failed: {error} (its log is {self.log_file})") from None
        self._set_up_mark.touch()
        self._say(f"{self.title} is ready")

    def stop(self) -> bool:
        """Stop it in order; False where it did not run."""
        return self.process.stop()

    def kill(self) -> bool:
        """SIGKILL it, as a crash would; False where it did not run."""
        return self.process.kill()

    def refuse_busy_port(self) -> None:
        """Raise ConfigurationError where the port is taken, unless by this very server."""
        if self.pid:
            return
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, self.port))
                return
            except OSError as error:
                busy = error.errno == errno.EADDRINUSE
                reason = "something else listens there already" if busy else f"{error.strerror}"
        raise ConfigurationError(
            f"{self.port_setting} is {getattr(self.settings, self.port_setting.lower())}; {reason}: "
            f"it should be a free port for {self.title}, or stop what listens there"
        )

    def _check_once(self) -> None:
        if self.pid is None:
            raise self._failure("ended right after its start")
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError as error:
            raise StoreUnavailable(f"{self.title} at {self.address}: {error}") from None
        self.check_answers()

    def _failure(self, what: str) -> TickledgerError:
        for line in self.process.last_lines():
            self._say(f"  {plain(line.expandtabs())}")
        return TickledgerError(f"{self.title} {what}; its log is {self.log_file}")


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
