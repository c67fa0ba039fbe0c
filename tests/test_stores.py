"""Cassandra by name: a name that nobody knows, several hosts, a node under another address. What MySQL refuses."""

import socket
import time
from typing import Any

import pytest
from cassandra import DriverException, Unauthorized
from cassandra.cluster import NoHostAvailable, Session
from cassandra.protocol import OverloadedErrorMessage, ProtocolException, ServerError, SyntaxException

from services.server import free_port
from streaming import tick_packing
from streaming.tick_columns import TickColumns
from streaming.tick_sink import TickSink
from tests.support.gate import Gate
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError, StoreUnavailable, TickledgerError
from tickledger.settings import Settings
from tickledger.stores import cassandra_error, connect_cassandra, mysql
from tickledger.tick import Tick

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


def test_a_request_that_is_no_request_is_told_at_once_as_an_error_of_the_program(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = Tick("TMAS.JK", 1_724_569_485_123, 1, 1, 1, 1, "Logistics & Deliveries", 19_960)
    # As if a column was packed of which the row's head knows nothing.
    monkeypatch.setattr(tick_packing, "_VALUES", len(tick_packing.PACKED_COLUMNS) - 1)
    sink = TickSink(pipeline.cassandra)
    sink.write(TickColumns.of([(tick._replace(id=number), number) for number in range(9)]), 0)

    with pytest.raises(TickledgerError, match="does not take what this program sends") as told:
        sink.drain()
    assert type(told.value) is TickledgerError


UNSENT: dict[str, tuple[Exception, type[TickledgerError], str]] = {
    "a node that shuts down": (
        ServerError(0, "shut down", None),
        StoreUnavailable,
        "answers with ServerError: shut down",
    ),
    "a node with too much to do": (OverloadedErrorMessage(1, "", None), StoreUnavailable, "does not answer"),
    "no node": (NoHostAvailable("", {}), StoreUnavailable, "does not answer: NoHostAvailable"),
    "a connection that ends": (NoHostAvailable("", {"a": OSError()}), StoreUnavailable, "does not answer: OSError"),
    "a statement that is none": (SyntaxException(1, "no viable alternative", None), ConfigurationError, "no viable"),
    "bytes that are no request": (ProtocolException(1, "Not enough bytes", None), TickledgerError, "Not enough bytes"),
    "too few nodes up to ask who may": (
        Unauthorized("Unable to perform authorization of permissions: Cannot achieve consistency level LOCAL_QUORUM"),
        StoreUnavailable,
        "too few of its nodes are up",
    ),
    "somebody who may not": (Unauthorized("User has no MODIFY permission"), ConfigurationError, "no MODIFY permission"),
    "what the driver cannot write": (NoHostAvailable("", {"a": TypeError("no bytes")}), TickledgerError, "no bytes"),
}


@pytest.mark.parametrize(("error", "kind", "said"), UNSENT.values(), ids=UNSENT)
def test_only_what_may_pass_is_waited_for(error: Exception, kind: type[TickledgerError], said: str) -> None:
    told = cassandra_error(error)

    assert type(told) is kind
    assert said in str(told)


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
