"""The oracle: a producer that logs to disk what Kafka acknowledged, and the comparison of that log with the stores."""

import contextlib
import json
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cassandra.cluster import Session
from kafka import KafkaProducer
from kafka.errors import KafkaError

from commands.reconcile import OffsetRanges, read_ranges, reconcile
from tests.support.pipeline import Pipeline
from tickledger.ledger import Ledger
from tickledger.stores import connect_cassandra, connect_mysql

NO_JSON = b"no json"
#: (ticker, created_at as sent, id)
TickKey = tuple[str, str, int]


class OracleProducer:
    """Sends rounds of ticks in the background, now and then a copy or a bad message, and logs every outcome.

    One JSON line per message in `log`: its keys and volumes, and whether Kafka acknowledged it (`acked` false means
    unknown: the message may be in the topic). Several producers may share a log. With `late_ticks` some are a day
    late. With `transactions` it sends some messages in each and aborts every fourth, whose messages the log leaves out.
    `shift` is added to the time at which ticks are made; it may change while the producer runs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        log: Path,
        seed: int,
        *,
        messages_per_second: float = 40,
        late_ticks: bool = True,
        transactions: bool = False,
    ) -> None:
        self.shift = timedelta()
        self._transactions = transactions
        self._lateness = [0, 0, 0, 0, 90_000 if late_ticks else 0]
        self._pipeline = pipeline
        self._log = log
        self._random = random.Random(seed)
        self._pause = 1 / messages_per_second
        self._companies = pipeline.rows("SELECT ticker, sector, shares FROM profile ORDER BY ticker")
        self._next_id = seed * 10_000_000
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending; returns when every message's outcome is in the log."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self._pipeline.settings.kafka_bootstrap_servers,
            acks="all", enable_idempotence=True, linger_ms=5, delivery_timeout_ms=60_000,
            transactional_id=uuid.uuid4().hex if self._transactions else None,
        )  # fmt: skip
        if self._transactions:
            producer.init_transactions()
        earlier: list[list[dict[str, Any]]] = []
        with self._log.open("a") as log:
            while not self._stop.wait(self._pause):
                ticks = self._round()
                if earlier and self._random.random() < 0.02:
                    ticks = self._random.choice(earlier)
                earlier.append(ticks)
                value = NO_JSON if self._random.random() < 0.01 else json.dumps(ticks).encode()
                sent = [(value, ticks if value != NO_JSON else [])]
                if self._transactions:
                    sent += [(json.dumps(more).encode(), more) for more in self._rounds(3)]
                    self._send_in_transaction(producer, sent, log)
                else:
                    self._send(producer, *sent[0], log)
            # What is still unknown then stays unknown in the log.
            with contextlib.suppress(KafkaError):
                producer.flush(timeout=90)
            producer.close(timeout=30)

    def _round(self) -> list[dict[str, Any]]:
        made = datetime.now(UTC) + self.shift - timedelta(seconds=self._random.choice(self._lateness))
        ticks = []
        for ticker, sector, shares in self._companies:
            self._next_id += 1
            price = self._random.randrange(50, 5000)
            ticks.append(
                {
                    "id": self._next_id,
                    "created_at": made.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
                    "volume": self._random.randrange(1, 1000) * 100,
                    "market_cap": price * shares,
                    "ticker": ticker,
                    "price": price,
                    "sector": sector,
                }
            )
        return ticks

    def _rounds(self, most: int) -> list[list[dict[str, Any]]]:
        return [self._round() for _ in range(self._random.randint(0, most))]

    def _send_in_transaction(
        self, producer: KafkaProducer, messages: list[tuple[bytes, list[dict[str, Any]]]], log: Any
    ) -> None:
        aborted = self._random.random() < 0.25
        producer.begin_transaction()
        sent = [(producer.send(self._pipeline.settings.kafka_topic, value), ticks) for value, ticks in messages]
        producer.flush()
        (producer.abort_transaction if aborted else producer.commit_transaction)()
        for future, ticks in sent if not aborted else ():
            place = future.get(timeout=30)
            self._note(log, ticks, acked=True, partition=place.partition, offset=place.offset)

    def _note(
        self, log: Any, ticks: list[dict[str, Any]], *, acked: bool, partition: int = -1, offset: int = -1
    ) -> None:
        keys = [[one["ticker"], one["created_at"], one["id"], one["volume"], one["sector"]] for one in ticks]
        line = json.dumps({"acked": acked, "partition": partition, "offset": offset, "ticks": keys})
        with self._lock:
            log.write(line + "\n")
            log.flush()

    def _send(self, producer: KafkaProducer, value: bytes, ticks: list[dict[str, Any]], log: Any) -> None:
        try:
            future = producer.send(self._pipeline.settings.kafka_topic, value)
        except KafkaError:
            self._note(log, ticks, acked=False)
            return
        future.add_callback(
            lambda sent: self._note(log, ticks, acked=True, partition=sent.partition, offset=sent.offset)
        )
        future.add_errback(lambda _: self._note(log, ticks, acked=False))


@dataclass
class Judgement:
    """What the comparison found. Counts are ticks; an unreadable message counts as one dead letter."""

    acknowledged: int = 0
    landed: int = 0
    dead: int = 0
    duplicates: int = 0
    lost: int = 0
    double_counted: int = 0
    never_sent: int = 0
    volume_difference: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.double_counted or self.never_sent or self.volume_difference or self.problems)


def judge(pipeline: Pipeline, log: Path, landed_until: dict[int, int] | None = None) -> Judgement:
    """Compare everything that was acknowledged with both stores and the ledger.

    `landed_until` is for topics that lost messages themselves: what lies at or after those offsets counts as unknown.
    """
    messages = [json.loads(line) for line in log.read_text().splitlines()]
    for message in messages:
        if landed_until is not None and message["offset"] >= landed_until.get(message["partition"], 0):
            message["acked"] = False
    acked = {tuple(tick[:3]): tick for message in messages if message["acked"] for tick in message["ticks"]}
    sent = {tuple(tick[:3]): tick for message in messages for tick in message["ticks"]}
    with closing(connect_mysql(pipeline.settings)) as connection:
        ranges = read_ranges(connection)
    # The pipeline's own session is from before the fault and may not have noticed yet that its server came back.
    session = connect_cassandra(pipeline.settings)
    try:
        stored, copies = _stored(session, ranges)
        letters = list(session.execute("SELECT raw_value, reason FROM dead_letters", timeout=60))
    finally:
        session.cluster.shutdown()
    books = reconcile(pipeline.settings)
    found = Judgement(
        acknowledged=_elements(message for message in messages if message["acked"]),
        landed=books.ticks_landed,
        dead=books.dead_letters,
        duplicates=books.duplicates,
        lost=len(acked.keys() - stored.keys()),
        double_counted=copies + max(0, books.ticks_landed - len(stored)),
        never_sent=len(stored.keys() - sent.keys()),
        problems=list(books.differences),
    )
    found.volume_difference = _volume_difference(pipeline, stored, sent)
    found.problems.extend(_unlanded(messages, ranges))
    unknown = _elements(message for message in messages if not message["acked"])
    if not found.acknowledged <= books.ticks_read <= found.acknowledged + unknown:
        found.problems.append(f"the ledger read {books.ticks_read}, not {found.acknowledged} to {unknown} more")
    if wrong := {letter.reason for letter in letters if letter.raw_value != NO_JSON}:
        found.problems.append(f"good ticks are dead letters: {', '.join(sorted(wrong))}")
    if unchecked := books.verdicts.get("unchecked"):
        found.problems.append(f"{unchecked} batches have no verdict")
    if books.verdicts.get("failed"):
        found.problems.append(f"{books.verdicts['failed']} batches failed their checks")
    return found


def _elements(messages: Iterable[dict[str, Any]]) -> int:
    """Ticks of the messages; one that is unreadable counts as one."""
    return sum(len(message["ticks"]) or 1 for message in messages)


def _stored(session: Session, ranges: OffsetRanges) -> tuple[dict[TickKey, int], int]:
    """Volume by key of the landed ticks in Cassandra, and how many keys were met twice."""
    stored: dict[TickKey, int] = {}
    copies = 0
    rows = session.execute(
        "SELECT ticker, created_at, id, volume, kafka_partition, kafka_offset FROM real_time_data", timeout=60
    )
    for ticker, created_at, id_, volume, partition, offset in rows:
        if ranges.batch_of(partition, offset) is not None:
            key = (ticker, created_at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3], id_)
            copies += key in stored
            stored[key] = volume
    return stored, copies


def _unlanded(messages: list[dict[str, Any]], ranges: OffsetRanges) -> list[str]:
    missing = [
        message for message in messages
        if message["acked"] and ranges.batch_of(message["partition"], message["offset"]) is None
    ]  # fmt: skip
    return [f"{len(missing)} acknowledged messages are in no batch, such as {missing[0]}"[:200]] if missing else []


def _volume_difference(pipeline: Pipeline, stored: dict[TickKey, int], sent: dict[Any, list[Any]]) -> int:
    """Shares by which aggregated_data differs from what the oracle sent, summed over dates and sectors."""
    expected: dict[tuple[str, str], int] = defaultdict(int)
    for key in stored:
        if key in sent:
            _, created_at, _, volume, sector = sent[key]
            expected[created_at[:10], sector] += volume
    rows = pipeline.rows("SELECT date, sector, SUM(total_volume) FROM aggregated_data GROUP BY date, sector")
    landed = {(str(day), sector): int(volume) for day, sector, volume in rows}
    return sum(abs(landed.get(key, 0) - expected.get(key, 0)) for key in landed.keys() | expected.keys())


def wait_until_quiet(pipeline: Pipeline, log: Path, seconds: float = 120) -> None:
    """Wait until the ledger covers every acknowledged message and every batch has its verdict; then :func:`judge`.

    Gives up if nothing more landed or was checked for `seconds`: how long many small batches take is the machine's.
    """
    ledger = Ledger(pipeline.settings)
    last: dict[int, int] = {}
    for line in log.read_text().splitlines():
        message = json.loads(line)
        if message["acked"]:
            last[message["partition"]] = max(last.get(message["partition"], -1), message["offset"])
    before: object = None
    while True:
        ends, unchecked = ledger.head().ends, ledger.unchecked()
        if all(ends.get(partition, 0) > offset for partition, offset in last.items()) and not unchecked:
            return
        if (ends, unchecked) != before:
            before, deadline = (ends, unchecked), time.monotonic() + seconds
        elif time.monotonic() > deadline:
            return
        time.sleep(0.3)
