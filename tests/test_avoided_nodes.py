"""Which of Cassandra's nodes is asked first: without a server, since the driver's own hosts and policies are enough."""

from types import SimpleNamespace
from typing import Any

import pytest
from cassandra import ReadTimeout, Unauthorized
from cassandra.cluster import OperationTimedOut
from cassandra.policies import RoundRobinPolicy, SimpleConvictionPolicy
from cassandra.pool import Host

from tickledger import stores
from tickledger.avoided_nodes import AVOIDED_SECONDS, AvoidingPolicy

HOSTS = [Host(f"127.0.0.{node}", SimpleConvictionPolicy) for node in (1, 2, 3)]


class Request:
    """A request as the policy sees one: made, and then failed."""

    def __init__(self, policy: AvoidingPolicy, host: Host | None) -> None:
        self.coordinator_host = host
        self._callbacks: list[Any] = []
        policy._watch_request(self)

    def add_errback(self, function: Any, *arguments: Any) -> None:
        self._callbacks.append((function, arguments))

    def fail(self, error: Exception) -> None:
        for function, arguments in self._callbacks:
            function(error, *arguments)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    shown = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("tickledger.avoided_nodes.time.monotonic", lambda: shown.now)
    return shown


@pytest.fixture
def policy(clock: SimpleNamespace) -> AvoidingPolicy:
    assert clock
    policy = AvoidingPolicy(RoundRobinPolicy(), stores._may_pass)
    policy.populate(SimpleNamespace(metadata=None), HOSTS)
    return policy


def last_of(policy: AvoidingPolicy) -> set[Host]:
    """The hosts that stand at the end of a plan, of as many as there are hosts: each in turn, unless one is avoided."""
    plans = [list(policy.make_query_plan()) for _ in HOSTS]
    assert all(sorted(plan) == HOSTS for plan in plans)
    return {plan[-1] for plan in plans}


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeout("no answer of two replicas"),
        Unauthorized("Unable to perform authorization of permissions"),
        OperationTimedOut(last_host=HOSTS[1]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_who_has_failed_a_request_is_asked_last_for_a_while(
    policy: AvoidingPolicy, clock: SimpleNamespace, error: Exception
) -> None:
    assert last_of(policy) == set(HOSTS)
    Request(policy, HOSTS[1]).fail(error)
    assert last_of(policy) == {HOSTS[1]}
    clock.now += AVOIDED_SECONDS - 1
    assert last_of(policy) == {HOSTS[1]}
    clock.now += 2
    assert last_of(policy) == set(HOSTS)


def test_who_refuses_what_each_would_refuse_is_asked_as_before(policy: AvoidingPolicy) -> None:
    Request(policy, HOSTS[1]).fail(Unauthorized("User nobody has no SELECT permission on table"))
    Request(policy, None).fail(ReadTimeout("of nobody"))
    assert last_of(policy) == set(HOSTS)
