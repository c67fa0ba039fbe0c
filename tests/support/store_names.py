"""Names of the stores that only a test's own processes can look up, at addresses that change."""

import shlex
import socket
import tempfile
from itertools import count
from pathlib import Path

from tests.support.gate import Gate
from tickledger.settings import Settings

#: In a mount namespace of its own a process has another /etc/hosts; the machine's stays as it is.
_WITHIN = 'mount --bind {hosts} /etc/hosts && exec "$@"'
_SETTINGS = {"mysql": "MYSQL_HOST", "cassandra": "CASSANDRA_HOSTS"}


class StoreNames:
    """The name `mysql.moves` or `cassandra.moves`, or both."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tickledger-names-")
        self._hosts = Path(self._folder.name) / "hosts"
        self._addresses: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name the stores so."""
        return {_SETTINGS[store]: f"{store}.moves" for store in self._addresses}

    @property
    def prefix(self) -> list[str]:
        """What a command begins with, to know the names; its process is still the command's own."""
        within = _WITHIN.format(hosts=shlex.quote(str(self._hosts)))
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", within, "sh"]

    def point(self, store: str, address: str) -> None:
        """Let a store's name lead to an address from now on."""
        self._addresses[store] = address
        lines = [f"127.0.0.1 localhost {socket.gethostname()}"]
        lines += [f"{there} {store}.moves" for store, there in self._addresses.items()]
        # In place: the mount shows this very file.
        self._hosts.write_text("\n".join([*lines, ""]))

    def close(self) -> None:
        """Forget the names."""
        self._folder.cleanup()


class MovingStores(StoreNames):
    """MySQL and Cassandra behind a gate each. A move shuts the gate and opens one at an address that was never used."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._ports = {"mysql": settings.mysql_port, "cassandra": settings.cassandra_port}
        self._numbers = count(2)
        self._gates: dict[str, Gate] = {}
        for store in self._ports:
            self.move(store)

    def move(self, store: str) -> None:
        """Cut every connection of a store, and give it another address."""
        if store in self._gates:
            self._gates[store].close()
        address = f"127.0.0.{next(self._numbers)}"
        self._gates[store] = Gate(self._ports[store], address, self._ports[store])
        self.point(store, address)

    def close(self) -> None:
        """Shut the gates and forget the names."""
        for gate in self._gates.values():
            gate.close()
        super().close()
