"""The topic that every engine lands: filled once, with what its ticks must add up to."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from pipeline import Pipeline

from producer.companies import read_companies
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


def seed(pipeline: Pipeline, tickers: int) -> None:
    """Put so many made-up companies, in ten sectors, in place of those of `profile`."""
    pipeline.execute("DELETE FROM profile")
    connection = pipeline.mysql()
    connection.cursor().executemany(
        "INSERT INTO profile (ticker, company_name, sector, shares) VALUES (%s, %s, %s, %s)",
        [(f"T{n:04d}.JK", f"Company {n}", f"Sector {n % 10}", 1_000_000_000 + n) for n in range(tickers)],
    )
    connection.commit()


def fill(settings: Settings, topic: str, ticks: int, told: Callable[[int], None]) -> Load:
    """Create the topic and send so many ticks, a round of all companies a message, a millisecond between two rounds.

    `told` hears how many were sent. The last tick is made now, so that no check finds them old. Raises
    StoreUnavailable.
    """
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    admin.close()
    companies = read_companies(settings)
    market, ids = Market(companies, seed=1), count(1)
    volumes: Volumes = defaultdict(int)
    rounds = ticks // len(companies)
    first = datetime.now(UTC) - timedelta(milliseconds=rounds)
    publisher = Publisher(settings, topic, threading.Event())
    try:
        for number in range(rounds):
            made = first + timedelta(milliseconds=number)
            message = market.trade(f"{made:%Y-%m-%d %H:%M:%S}.{made.microsecond // 1000:03d}", ids)
            for tick in message:
                volumes[made.date(), tick["sector"]] += tick["volume"]
            publisher.send(message)
            if number % 5000 == 0:
                told(number * len(companies))
        publisher.flush()
    finally:
        publisher.close()
    return Load(topic, rounds, rounds * len(companies), dict(volumes))
