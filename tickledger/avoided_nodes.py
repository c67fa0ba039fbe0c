"""Which of Cassandra's nodes a request goes to: last to one that has just failed another.

A node that hangs, or that reaches no other node, still counts as up: each request that it gets waits for its time-out,
or is refused for want of the accounts.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from cassandra.cluster import OperationTimedOut, ResponseFuture, Session
from cassandra.policies import LoadBalancingPolicy, TokenAwarePolicy
from cassandra.pool import Host

#: By then the node has answered again, or the driver has noticed that it is down.
AVOIDED_SECONDS = 30


class AvoidingPolicy(TokenAwarePolicy):
    """The child's order, with those last that failed a request within the last :data:`AVOIDED_SECONDS`.

    `is_nodes_fault` says of a request's error whether another node might have done it.
    """

    def __init__(self, child: LoadBalancingPolicy, is_nodes_fault: Callable[[Exception], bool]) -> None:
        super().__init__(child)
        self._is_nodes_fault = is_nodes_fault
        self._avoided_until: dict[Host, float] = {}

    def make_query_plan(self, working_keyspace: str | None = None, query: Any = None) -> Iterator[Host]:
        """The nodes that a request is sent to, one after the other until one takes it."""
        plan: Iterator[Host] = super().make_query_plan(working_keyspace, query)
        if not self._avoided_until:
            return plan
        now = time.monotonic()
        return iter(sorted(plan, key=lambda host: self._avoided_until.get(host, now) > now))

    def watch(self, session: Session) -> None:
        """Learn from the requests of a session."""
        session.add_request_init_listener(self._watch_request)

    def _watch_request(self, request: ResponseFuture) -> None:
        # Weak, or each request would be garbage that only a cycle's collection finds.
        request.add_errback(self._failed, weakref.ref(request))

    def _failed(self, error: Exception, request: "weakref.ref[ResponseFuture]") -> None:
        there = request()
        host = error.last_host if isinstance(error, OperationTimedOut) else there and there.coordinator_host
        if host is not None and self._is_nodes_fault(error):
            self._avoided_until[host] = time.monotonic() + AVOIDED_SECONDS
