"""Names of the stores that only a test's own processes can look up, at addresses of loopback that change."""

import shlex
import socket
import tempfile
from itertools import count
from pathlib import Path

from tests.support.gate import Gate
from tickledger.settings import Settings

#: In a mount namespace of its own a process has another /etc/hosts; the machine's stays as it is.
_WITHIN = 'mount --bind {hosts} /etc/hosts && exec "$@"'


class StoreNames:
    """MySQL and Cassandra behind a gate each. A move shuts the gate and opens one at an address that was never used."""

    def __init__(self, settings: Settings) -> None:
        self._ports = {"mysql": settings.mysql_port, "cassandra": settings.cassandra_port}
        self._folder = tempfile.TemporaryDirectory(prefix="tickledger-names-")
        self._hosts = Path(self._folder.name) / "hosts"
        self._numbers = count(2)
        self._gates: dict[str, Gate] = {}
        self._addresses: dict[str, str] = {}
        for name in self._ports:
            self.move(name)

    @property
    def environment(self) -> dict[str, str]:
        """The settings that name the stores so."""
        return {"MYSQL_HOST": "mysql.moves", "CASSANDRA_HOSTS": "cassandra.moves"}

    @property
    def prefix(self) -> list[str]:
        """What a command begins with, to know the names; its process is still the command's own."""
        within = _WITHIN.format(hosts=shlex.quote(str(self._hosts)))
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", within, "sh"]

    def move(self, name: str) -> None:
        """Cut every connection of a store, and give it another address."""
        if name in self._gates:
            self._gates[name].close()
        address = f"127.0.0.{next(self._numbers)}"
        self._gates[name], self._addresses[name] = Gate(self._ports[name], address, self._ports[name]), address
        lines = [f"127.0.0.1 localhost {socket.gethostname()}"]
        lines += [f"{address} {store}.moves" for store, address in self._addresses.items()]
        # In place: the mount shows this very file.
        self._hosts.write_text("\n".join([*lines, ""]))

    def close(self) -> None:
        """Shut the gates and forget the names."""
        for gate in self._gates.values():
            gate.close()
        self._folder.cleanup()
