"""A host for each process of a cluster: network namespaces joined by a bridge, whose links can be cut. Needs root.

Namespaces, addresses and firewall rules are of their own; of the machine's, only one more interface is there meanwhile.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from services.hosts import Hosts
from tickledger.errors import ConfigurationError

#: What runs on a host of its own; the last one is the stream's driver.
DRIVER = "driver"
NAMES = (
    *("kafka", "kafka-2", "kafka-3", "cassandra", "cassandra-2", "cassandra-3", "mysql", "mysql-2"),
    *("spark-master", "spark-worker-1", "spark-worker-2", DRIVER),
)
#: The namespace of this process, which is in the network too.
_MACHINE = str(os.getpid())
_FIREWALL = """table inet tickledger {
    chain input { type filter hook input priority 0; }
}
"""
#: Where Debian's package has it.
_FAKETIME = "/usr/$LIB/faketime/libfaketime.so.1"


class NetworkedHosts(Hosts):
    """A host for each of NAMES. `close` takes them away; what still runs there is then without a network."""

    def __init__(self, name: str = "tickledger", network: str = "10.83.0") -> None:
        self._name, self._network = name, network
        self.clients = f"{network}.%"
        #: How many seconds a process's clock is ahead, from its next start on.
        self.clock_ahead: dict[str, int] = {}
        if len(self._there()) > len(NAMES):
            # Those of a run that was kept or killed: its servers may still be there.
            self.heal()
            return
        self.close()
        switch = self._namespace("switch")
        ip(f"netns add {switch}", f"-n {switch} link add bridge type bridge", f"-n {switch} link set bridge up")
        try:
            self._join(_MACHINE, name, f"{network}.254")
            for one in NAMES:
                self._add(one)
        except ConfigurationError:
            self.close()
            raise

    def address(self, name: str) -> str:
        """The address of a process's host."""
        return f"{self._network}.{NAMES.index(name) + 1}"

    def prefix(self, name: str) -> list[str]:
        """What the command of a process begins with, so that it runs on its host, with its clock."""
        ahead = self.clock_ahead.get(name)
        # Sleeps and timeouts stay true: only what the clock shows is wrong.
        clock = [f"LD_PRELOAD={_FAKETIME}", f"FAKETIME={ahead:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC=1"] if ahead else []
        return ["nsenter", f"--net=/run/netns/{self._namespace(name)}", *(["env", *clock] if clock else [])]

    def cut(self, name: str, others: Iterable[str]) -> None:
        """From now on nothing arrives at a process's host from the others'."""
        rules = "".join(
            f"add rule inet tickledger input ip saddr {self.address(other)} counter drop\n"
            for other in others
            if other != name
        )
        self._firewall(name, rules)

    def dropped(self) -> int:
        """How many packets the cuts that are there have kept from arriving."""
        rules = (self._firewall(name, "list chain inet tickledger input\n") for name in NAMES)
        return sum(int(count) for said in rules for count in re.findall(r"counter packets (\d+)", said))

    def heal(self) -> None:
        """Take every cut back."""
        for name in NAMES:
            self._firewall(name, "flush chain inet tickledger input\n")

    def close(self) -> None:
        """Take the hosts away."""
        ip(*(f"netns del {one}" for one in self._there()))

    def _add(self, name: str) -> None:
        host = self._namespace(name)
        ip(f"netns add {host}")
        self._join(host, "eth0", self.address(name))
        ip(f"-n {host} link set lo up")
        self._firewall(name, _FIREWALL)

    def _join(self, host: str, link: str, address: str) -> None:
        """A cable from the switch to a host, or to this machine."""
        switch, port = self._namespace("switch"), f"port-{address.rpartition('.')[2]}"
        ip(
            f"-n {switch} link add {port} type veth peer name {link} netns {host}",
            f"-n {switch} link set {port} master bridge up",
        )
        here = ["-n", host] if host != _MACHINE else []
        for command in (f"address add {address}/24 dev {link}", f"link set {link} up"):
            ip(" ".join([*here, command]))

    def _firewall(self, name: str, rules: str) -> str:
        return _run(["ip", "netns", "exec", self._namespace(name), "nft", "--file", "-"], rules)

    def _there(self) -> list[str]:
        """The namespaces of hosts, and the switch's, that are there."""
        known = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
        return [one for one in map(self._namespace, (*NAMES, "switch")) if one in known]

    def _namespace(self, name: str) -> str:
        return f"{self._name}-{name}"


@cache
def why_no_hosts() -> str:
    """Why this machine has no hosts of their own for processes; empty where it has."""
    if os.geteuid():
        return "only root makes network namespaces"
    if missing := [program for program in ("ip", "nft", "nsenter") if not shutil.which(program)]:
        return f"not on PATH: {', '.join(missing)} (Debian's iproute2, nftables and util-linux)"
    trial = f"tickledger-try-{_MACHINE}"
    try:
        ip(f"netns add {trial}")
        try:
            ip(f"-n {trial} link add one type veth peer name other")
            _run(["ip", "netns", "exec", trial, "nft", "--file", "-"], _FIREWALL)
        finally:
            ip(f"netns del {trial}")
    except ConfigurationError as error:
        return str(error)
    return ""


def has_faketime() -> bool:
    """Whether a process here can have another clock."""
    library = _FAKETIME.replace("$LIB", f"lib/{os.uname().machine}-linux-gnu")
    return Path(library).exists()


def ip(*commands: str) -> None:
    """Run iproute2's `ip` with each line of arguments. Raises ConfigurationError with what it says."""
    for command in commands:
        _run(["ip", *command.split()])


def _run(command: list[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
