"""`make bench-producer`: our producer beside a plain loop of kafka-python and json, and beside kafka-python alone."""

import cProfile
import json
import pstats
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Annotated

import orjson
import pandas as pd
import typer
from kafka import KafkaProducer

from benchmarks.__main__ import Bench
from benchmarks.report import record_producer
from producer.companies import read_companies
from producer.market import Company, Market
from producer.publish import BATCH_BYTES, LINGER_MS, Publisher
from services.instance import Instance
from tickledger.errors import TickledgerError, run_command
from tickledger.settings import Settings
from tickledger.topic import describe_topic

CREATED_AT = "2026-01-05 02:00:00.000"


def plain(settings: Settings, companies: list[Company], messages: int) -> float:
    """As a newcomer writes it: json, one send() a message, everything at its default."""
    market, ids = Market(companies, seed=1), count(1)
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers)
    began = time.monotonic()
    for _ in range(messages):
        producer.send(settings.kafka_topic, json.dumps(market.trade(CREATED_AT, ids)).encode())
    producer.flush()
    return _took(began, producer)


def ours(settings: Settings, companies: list[Company], messages: int) -> float:
    """As `python -m producer TOPIC --rounds-per-second 0` sends."""
    market, ids = Market(companies, seed=1), count(1)
    publisher = Publisher(settings, settings.kafka_topic, threading.Event())
    began = time.monotonic()
    for _ in range(messages):
        publisher.send(market.trade(CREATED_AT, ids))
    publisher.flush()
    return _took(began, publisher)


def ceiling(settings: Settings, companies: list[Company], messages: int) -> float:
    """kafka-python alone, with our settings: bytes that are ready, nothing remembered of what was sent."""
    market, ids = Market(companies, seed=1), count(1)
    ready = [orjson.dumps(market.trade(CREATED_AT, ids)) for _ in range(messages)]
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        compression_type="lz4",
        linger_ms=LINGER_MS,
        batch_size=BATCH_BYTES,
    )
    began = time.monotonic()
    for number, value in enumerate(ready):
        producer.send(settings.kafka_topic, value, partition=number % 2)
    producer.flush()
    return _took(began, producer)


def _took(began: float, producer: KafkaProducer | Publisher) -> float:
    """Seconds until the broker had acknowledged everything; then closes."""
    took = time.monotonic() - began
    producer.close()
    return took


PLAIN = "plain kafka-python and json"
WAYS: dict[str, Callable[[Settings, list[Company], int], float]] = {
    "tickledger's producer": ours,
    PLAIN: plain,
    "kafka-python alone, bytes ready": ceiling,
}


def profile(bench: Bench, messages: int) -> None:
    """Print where our producer's own thread spends its time; kafka-python's thread is not seen but as waiting."""
    with bench.stores() as pipeline:
        profiler = cProfile.Profile()
        profiler.runcall(ours, pipeline.settings, read_companies(pipeline.settings), messages)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(15)


def measure(bench: Bench, messages: int, rounds: int) -> pd.DataFrame:
    """Each way once a round, each time into a topic of its own. One row per run: way, round, messages a second.

    Raises TickledgerError where the topic does not hold what was sent.
    """
    rows, began, total = [], time.monotonic(), rounds * len(WAYS)
    for done in range(total):
        way = list(WAYS)[done % len(WAYS)]
        left = f", about {(time.monotonic() - began) / done * (total - done):.0f} s left" if done else ""
        print(f"round {done // len(WAYS) + 1} of {rounds}: {way}{left}", flush=True)
        with bench.stores() as pipeline:
            took = WAYS[way](pipeline.settings, read_companies(pipeline.settings), messages)
            held = sum(describe_topic(pipeline.settings).ends.values())
        if held != messages:
            raise TickledgerError(f"{way}: the topic holds {held:,} messages of {messages:,}")
        rows.append({"way": way, "round": done // len(WAYS) + 1, "pace": messages / took})
    return pd.DataFrame(rows)


def main(
    messages: Annotated[int, typer.Option(min=100, help="Messages of ten ticks in a run.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each way.")] = 3,
    instance: Annotated[str, typer.Option(help="The servers' instance, which is started for it.")] = "bench",
    show_profile: Annotated[
        bool, typer.Option("--profile", help="First print where our producer spends its time.")
    ] = False,
    keep: Annotated[bool, typer.Option("--record", help="Write docs/performance.* anew from this run.")] = False,
) -> None:
    """Send made-up messages with each way in turn; print messages a second, and the ratio to the plain loop."""
    servers = Instance(instance)
    with servers.started(), tempfile.TemporaryDirectory() as folder:
        bench = Bench(servers, Path(folder))
        if show_profile:
            profile(bench, messages)
        runs = measure(bench, messages, rounds)
    medians = {way: statistics.median(runs.pace[runs.way == way]) for way in WAYS}
    for way, pace in medians.items():
        print(f"{way}: {pace:,.0f} messages/s, {pace / medians[PLAIN]:.1f} times the plain loop")
    if keep:
        record_producer(runs, messages)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m benchmarks.producer"))
