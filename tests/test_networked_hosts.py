"""Hosts of their own for a cluster's processes: who reaches whom, before, during and after a cut, and at what time."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from services.instance import Instance
from tools.networked_hosts import NAMES, NetworkedHosts, has_faketime, why_no_hosts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "-"),
]
NETWORK = ("tickledger-test", "10.84.0")
#: Nothing listens there: a host that is reached refuses.
_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=1)
except OSError as error:
    print(type(error).__name__)
"""
REACHED, CUT = "ConnectionRefusedError", "TimeoutError"


@pytest.fixture(scope="module")
def hosts() -> Iterator[NetworkedHosts]:
    # Beside those of `make faults`.
    hosts = NetworkedHosts(*NETWORK)
    yield hosts
    hosts.close()


def connect(hosts: NetworkedHosts, name: str, other: str) -> str:
    command = [*hosts.prefix(name), sys.executable, "-c", _CONNECT, hosts.address(other)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_each_process_has_a_host_and_each_reaches_each(hosts: NetworkedHosts) -> None:
    assert len({hosts.address(name) for name in NAMES}) == len(NAMES)
    assert connect(hosts, "driver", "mysql") == connect(hosts, "mysql", "driver") == REACHED
    here = [sys.executable, "-c", _CONNECT, hosts.address("kafka-2")]
    assert subprocess.run(here, capture_output=True, text=True, check=True).stdout.strip() == REACHED


@pytest.mark.parametrize("way", [("driver", "mysql"), ("mysql", "driver")])
def test_a_cut_is_between_its_sides_alone_and_until_it_heals(hosts: NetworkedHosts, way: tuple[str, str]) -> None:
    hosts.cut(way[0], [way[1]])
    try:
        assert connect(hosts, "driver", "mysql") == CUT
        assert connect(hosts, "driver", "mysql-2") == connect(hosts, "kafka", "mysql") == REACHED
        assert hosts.dropped() > 0
    finally:
        hosts.heal()
    assert hosts.dropped() == 0
    assert connect(hosts, "driver", "mysql") == REACHED


def test_hosts_that_are_there_are_taken_over_whole(hosts: NetworkedHosts) -> None:
    hosts.cut("kafka", ["kafka-2"])
    assert connect(NetworkedHosts(*NETWORK), "kafka-2", "kafka") == REACHED


@pytest.mark.skipif(not has_faketime(), reason="needs libfaketime, of Debian's package of that name")
def test_a_clock_that_is_ahead_is_one_process_s_own(hosts: NetworkedHosts) -> None:
    hosts.clock_ahead["spark-worker-1"] = 300
    for name, ahead in (("spark-worker-1", 300), ("spark-worker-2", 0)):
        shown = subprocess.run([*hosts.prefix(name), "date", "+%s"], capture_output=True, text=True, check=True).stdout
        assert abs(int(shown) - time.time() - ahead) < 10


def test_an_instance_names_its_hosts_in_its_env_file(hosts: NetworkedHosts) -> None:
    instance = Instance("hosts-test", hosts=hosts)
    try:
        instance.prepare(nodes=3)
        settings = instance.settings()
        assert settings.cassandra_hosts == tuple(hosts.address(name) for name in NAMES[3:6])
        assert [server.host for server in instance.servers()] == [hosts.address(name) for name in NAMES[:8]]
        assert settings.mysql_host == hosts.address("mysql")
        assert instance.spark_master.startswith(f"spark://{hosts.address('spark-master')}:")
    finally:
        instance.clean()
