"""The topic that every engine lands: filled once, with what its ticks must add up to."""

import threading
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from producer.companies import read_companies, read_ladder
from producer.market import Market
from producer.publish import Publisher
from tickledger.settings import Settings

#: One row per date and sector: shares.
Volumes = dict[tuple[date, str], int]


@dataclass(frozen=True)
class Load:
    """What the topic holds: messages, the ticks in them, and their volume by date and sector."""

    topic: str
    messages: int
    ticks: int
    volumes: Volumes


def fill(settings: Settings, topic: str, ticks: int, days: int = 0) -> Load:
    """Create the topic and send this many ticks, a round of all companies per message.

    The rounds are spread over the last `days`, or else made a millisecond apart; the last one is made now, so that no
    check finds it old. Raises StoreUnavailable.
    """
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    admin.close()
    companies = read_companies(settings)
    market, ids, rounds = Market(companies, read_ladder(settings), seed=1), count(1), ticks // len(companies)
    volumes: Volumes = defaultdict(int)
    step = timedelta(days=days) / rounds or timedelta(milliseconds=1)
    first = datetime.now(UTC) - rounds * step
    publisher = Publisher(settings, topic, threading.Event())
    try:
        for number in range(rounds):
            message = trade(market, ids, first + number * step)
            for tick in message:
                volumes[(first + number * step).date(), tick["sector"]] += tick["volume"]
            publisher.send(message)
        publisher.flush()
    finally:
        publisher.close()
    return Load(topic, rounds, rounds * len(companies), dict(volumes))


def trade(market: Market, ids: "count[int]", made: datetime) -> list[dict[str, Any]]:
    """A tick of each company, all made in one moment."""
    return market.trade(f"{made:%Y-%m-%d %H:%M:%S}.{made.microsecond // 1000:03d}", ids)
