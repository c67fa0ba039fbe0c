"""Ids of ticks, unique across restarts and producers without asking any store."""

import secrets
from collections.abc import Iterator

RANDOM_BITS = 33
COUNTER_BITS = 30


def tick_ids() -> Iterator[int]:
    """Endless ids of 63 bits, from 0 to 2**63 - 1: a random prefix of 33 bits, then a counter of 30 bits from 0.

    One process never repeats an id within a prefix; after 2**30 ticks it draws another prefix. For n prefixes
    ever drawn (one a start, mostly), the chance that any two are alike is below n**2 / 2**34: 1 in 17,000 for a
    thousand starts. Even then a tick is mistaken for another only if ticker, created_at and counter agree as well.
    """
    while True:
        prefix = secrets.randbits(RANDOM_BITS) << COUNTER_BITS
        for counter in range(1 << COUNTER_BITS):
            yield prefix | counter
