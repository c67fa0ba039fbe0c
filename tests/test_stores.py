"""Cassandra by name: a name that nobody knows, several hosts, a node under another address. What MySQL refuses."""

import socket
import time
from typing import Any

import pytest
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable, Session

from services.server import free_port
from tests.support.gate import Gate
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.settings import Settings
from tickledger.stores import connect_cassandra, mysql

pytestmark = pytest.mark.integration

NAME = "cassandra.test"


class Names:
    """Where the name leads; None: nowhere, as that of a container that is down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = None
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *arguments: Any, **options: Any) -> Any:
        if host == NAME and self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._look_up(self.address if host == NAME else host, *arguments, **options)


def connect(settings: Settings, *hosts: str, port: int | None = None) -> Session:
    changed = {"cassandra_hosts": hosts, "cassandra_port": port or settings.cassandra_port}
    return connect_cassandra(settings.model_copy(update=changed), keyspace="")


def cluster_name(session: Session) -> str:
    return str(session.execute("SELECT cluster_name FROM system.local", timeout=2).one()[0])


def test_a_name_that_nobody_knows_is_told(test_settings: Settings) -> None:
    with pytest.raises(StoreUnavailable, match=r"Cassandra at nowhere\.invalid:\d+ .* no such host name$"):
        connect(test_settings, "nowhere.invalid")


@pytest.mark.parametrize("hosts", [("nowhere.invalid", "127.0.0.1"), ("localhost", "127.0.0.1")])
def test_any_host_that_answers_will_do(test_settings: Settings, hosts: tuple[str, ...]) -> None:
    session = connect(test_settings, *hosts)
    with session.cluster:
        assert cluster_name(session) == "tickledger"
        # Two names of one node are one node.
        assert len(session.cluster.metadata.all_hosts()) == 1


def test_a_node_that_comes_back_under_another_address_is_found_again(
    test_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, port = Names(monkeypatch), free_port()
    first = Gate(test_settings.cassandra_port, "127.0.0.2", port)
    names.address = "127.0.0.2"
    session = connect(test_settings, NAME, port=port)
    with session.cluster:
        assert cluster_name(session) == "tickledger"

        names.address = None
        first.close()
        with pytest.raises((NoHostAvailable, DriverException)):
            cluster_name(session)

        second = Gate(test_settings.cassandra_port, "127.0.0.3", port)
        names.address = "127.0.0.3"
        deadline = time.monotonic() + 30
        while True:
            try:
                assert cluster_name(session) == "tickledger"
                break
            except (NoHostAvailable, DriverException):
                assert time.monotonic() < deadline, "the session does not come back"
                time.sleep(0.2)
    second.close()


REFUSED = {
    "a number beyond its column": "(number) VALUES (1000)",
    "a text longer than its column": "(text) VALUES ('longer')",
    "a text for a number": "(number) VALUES ('many')",
    "a value against a CHECK": "(number) VALUES (-1)",
}


@pytest.mark.parametrize("values", REFUSED.values(), ids=REFUSED)
def test_a_value_that_mysql_refuses_is_nothing_to_wait_for(stores: Pipeline, values: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^MYSQL_DATABASE is .* refuses a value: .* check-contract"):
        insert(stores.settings, values)


def insert(settings: Settings, values: str) -> None:
    with mysql(settings, settings.dbt_mysql) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE narrow (number tinyint CHECK (number >= 0), text varchar(3))")
        cursor.execute(f"INSERT INTO narrow {values}")
