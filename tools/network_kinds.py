"""The kinds of fault that `make faults NODES=3` tries on hosts of their own: a split network, a wrong clock."""

import time
from collections.abc import Callable, Sequence

from services.cassandra_server import CassandraServer
from services.kafka_server import KafkaServer
from services.spark_cluster import MASTER
from tools.cluster_kinds import (
    WORKERS,
    Pick,
    controller,
    executors,
    leader,
    some,
    spark,
    wait_until_spark_is_whole,
    wait_until_whole,
)
from tools.fault_kinds import Fault, Kind, Run
from tools.networked_hosts import DRIVER, NAMES, NetworkedHosts, has_faketime, why_no_hosts

#: The processes on the two sides of a cut.
Sides = Callable[[Run, int], tuple[Sequence[str], Sequence[str]]]
#: Some 10 minutes, either way.
CLOCK_SECONDS = 600
#: Of landing beside a cut, in seconds.
LONGEST_PAUSE = 60
KAFKAS, CASSANDRAS = (tuple(name for name in NAMES if name.startswith(kind)) for kind in ("kafka", "cassandra"))


def between(here: Sequence[str], there: Sequence[str]) -> Sides:
    """Between these processes and those."""
    return lambda _run, _number: (here, there)


def one_of(pick: Pick, others: Sequence[str]) -> Sides:
    """Between one server, which is picked as for a death, and others; itself may stand among them."""

    def sides(run: Run, number: int) -> tuple[Sequence[str], Sequence[str]]:
        (server,) = pick(run, number)
        return [server.name], others

    return sides


def two_brokers(run: Run, number: int) -> tuple[Sequence[str], Sequence[str]]:
    """Between two brokers, any."""
    one, other = some(KafkaServer, 2)(run, number)
    return [one.name], [other.name]


def a_worker(others: Sequence[str]) -> Sides:
    """Between one of Spark's workers, in turn, and others."""
    return lambda _run, number: ([WORKERS[number % 2]], others)


def splits(sides: Sides, seconds: Sequence[float], *, lands: bool) -> Fault:
    """A network is cut for some of these seconds, in turn, and in turn both ways, one way, the other way.

    Where it `lands`, batches must land meanwhile; else once the network is whole again, from where recovery is counted.
    A cut that no packet has met is no fault.
    """

    def fault(run: Run, number: int) -> None:
        hosts = run.services.hosts
        assert isinstance(hosts, NetworkedHosts)
        (wait_until_spark_is_whole if run.kind.on_spark else wait_until_whole)(run)
        here, there = sides(run, number)
        # Another seed begins with another one.
        turn, since = run.seed + number, time.monotonic()
        length = seconds[turn % len(seconds)] * run.random.uniform(0.8, 1.2)
        try:
            for name in here if turn % 3 != 1 else ():
                hosts.cut(name, there)
            for name in there if turn % 3 != 2 else ():
                hosts.cut(name, here)
            if lands:
                run.goes_on(since)
            before, left = run.batches(), max(0, since + length - time.monotonic())
            time.sleep(left)
            if lands and left > LONGEST_PAUSE and run.batches() == before:
                run.problems.append(f"nothing landed in the last {left:.0f} s of a cut")
            dropped = hosts.dropped()
        finally:
            hosts.heal()
        if lands:
            run.wait_for_batches(1)
        else:
            run.recovered(time.monotonic())
        if not dropped:
            run.not_met()

    return fault


def clock_off(run: Run, number: int) -> None:
    """One of Spark's workers starts again with a clock that is minutes off, lands with the other one, and is mended."""
    hosts, name = run.services.hosts, WORKERS[number % 2]
    assert isinstance(hosts, NetworkedHosts)
    hosts.clock_ahead[name] = (1, -1)[number % 2] * run.random.randint(60, CLOCK_SECONDS)
    try:
        _restart(run, name)
        (executor,) = executors(run, name)
        if "FAKETIME" not in executor.environ():
            run.problems.append("the executor's clock is right")
        run.wait_for_batches(3)
    finally:
        del hosts.clock_ahead[name]
        since = _restart(run, name)
    run.recovered(since)


def _restart(run: Run, name: str) -> float:
    """Stop a worker and start it again; since when it was away."""
    wait_until_spark_is_whole(run)
    since = time.monotonic()
    spark(run, name).stop()
    run.services.start_spark()
    wait_until_spark_is_whole(run)
    return since


def _split(
    name: str, sides: Sides, seconds: Sequence[float], times: int, *, lands: bool, on_spark: bool = False
) -> Kind:
    return Kind(name, splits(sides, seconds, lands=lands), times, why_not=why_no_hosts, on_spark=on_spark)


def _why_no_clocks() -> str:
    return why_no_hosts() or ("" if has_faketime() else "needs libfaketime, of Debian's package of that name")


#: A node of Cassandra, any.
a_node = some(CassandraServer, 1)

#: For less and for more than each part waits: for an answer of MySQL 20 s, of Cassandra 15 s, for a broker's sign of
#: life 9 s, for a replica of MySQL 10 s, for a worker's sign of life 60 s, and the driver for an executor's 120 s.
NETWORK_KINDS = [
    _split("driver cut off from MySQL", between([DRIVER], ["mysql", "mysql-2"]), (4, 30), 6, lands=False),
    _split("driver cut off from a Cassandra node", one_of(a_node, [DRIVER]), (5, 25), 6, lands=True),
    _split("workers cut off from a Cassandra node", one_of(a_node, WORKERS), (5, 25), 4, lands=True, on_spark=True),
    _split("Cassandra node cut off from the others", one_of(a_node, CASSANDRAS), (5, 40), 6, lands=True),
    _split("broker cut off from another", two_brokers, (5, 20), 6, lands=True),
    _split("leader cut off from the other brokers", one_of(leader, KAFKAS), (5, 25), 6, lands=False),
    _split("controller cut off from the other brokers", one_of(controller, KAFKAS), (5, 25), 6, lands=False),
    _split("driver cut off from a broker", one_of(leader, [DRIVER]), (5, 25), 6, lands=False),
    _split("primary cut off from its replica", between(["mysql"], ["mysql-2"]), (4, 25), 4, lands=True),
    _split("worker cut off from the driver", a_worker([DRIVER]), (10, 150), 3, lands=False, on_spark=True),
    # Every 15 s a worker gives a sign of life. Between driver and master nothing passes that a cut could stop.
    _split("worker cut off from Spark's master", a_worker([MASTER]), (25, 75), 4, lands=True, on_spark=True),
    Kind("worker whose clock is minutes off", clock_off, 3, why_not=_why_no_clocks, on_spark=True),
]  # fmt: skip
