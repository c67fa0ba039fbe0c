"""The oracle: a producer that logs to disk what Kafka acknowledged, and the comparison of that log with the stores.

What corrections come to is computed here once more, by other means than the pipeline's.
"""

import contextlib
import json
import random
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cassandra.cluster import Session
from kafka import KafkaProducer
from kafka.errors import KafkaError

from commands.reconcile import OffsetRanges, read_ranges, reconcile
from streaming.conflicts import CONFLICT
from tests.support.pipeline import Pipeline
from tickledger.ledger import Ledger
from tickledger.stores import connect_cassandra, connect_mysql

NO_JSON = b"no json"
#: (ticker, created_at as sent, id)
TickKey = tuple[str, str, int]
#: How often each round brings one of each: something else of an earlier tick, with a mark or without one.
SHARES = {
    "correction": 0.10,
    "cancellation": 0.05,
    "two at once": 0.03,
    "before its tick": 0.05,
    "again": 0.05,
    "older": 0.03,
    "conflict": 0.03,
}


class OracleProducer:
    """Sends rounds of ticks in the background, now and then a copy or a bad message, and logs every outcome.

    With some rounds come corrections and cancellations of earlier ticks, of ticks that are yet to come, and of ticks
    that were corrected already; and copies that say something else. No two revisions are made at the same time.

    One JSON line per message in `log`: its keys and volumes, its revisions, and whether Kafka acknowledged it (`acked`
    false means unknown: the message may be in the topic). Several producers may share a log. With `late_ticks` some are
    a day late. With `transactions` it sends some messages in each and aborts every fourth, whose messages the log
    leaves out. `shift` is added to the time at which ticks are made; it may change while the producer runs.
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
        self._revised_at = datetime.now(UTC) - timedelta(days=1)
        #: Some earlier ticks, those of them that were corrected, and those whose correction was sent before them.
        self._ticks: deque[dict[str, Any]] = deque(maxlen=500)
        self._revised: deque[dict[str, Any]] = deque(maxlen=50)
        self._held: deque[dict[str, Any]] = deque()
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
                ticks = [*ticks, *self._revisions()]
                value = NO_JSON if self._random.random() < 0.01 else json.dumps(ticks).encode()
                sent = [(value, ticks if value != NO_JSON else [])]
                if self._transactions:
                    sent += [(json.dumps(more).encode(), more) for more in self._rounds(3)]
                    self._send_in_transaction(producer, sent, log)
                else:
                    self._send_all(producer, sent, log)
            if held := list(self._held):
                send = self._send_in_transaction if self._transactions else self._send_all
                send(producer, [(json.dumps(held).encode(), held)], log)
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
        self._ticks.extend(ticks)
        return ticks

    def _revisions(self) -> Iterator[dict[str, Any]]:
        """What this round says of other ticks than its own, and ticks that were held back."""
        while self._held and self._random.random() < 0.3:
            yield self._held.popleft()
        for kind in (kind for kind, share in SHARES.items() if self._random.random() < share):
            tick = self._random.choice(self._ticks)
            if kind == "before its tick":
                self._next_id += 1
                tick = tick | {"id": self._next_id}
                self._held.append(tick)
            if kind == "again" and self._revised:
                tick = self._random.choice(self._revised)
            if kind == "conflict":
                yield tick | {"volume": tick["volume"] + 1}
                continue
            self._revised.append(tick)
            cancels = kind == "cancellation" or self._random.random() < 0.2
            yield self._revision(tick, self._moment(older=kind == "older"), cancels=cancels)
            if kind == "two at once":
                yield self._revision(tick, self._moment(older=False), cancels=False)

    def _moment(self, *, older: bool) -> datetime:
        """When a revision was made: after all that were sent, or before."""
        self._revised_at += timedelta(milliseconds=2)
        # An odd millisecond is of one that is older, so that none is met twice.
        return self._revised_at - timedelta(milliseconds=1 + 2 * self._random.randrange(200) if older else 0)

    def _revision(self, tick: dict[str, Any], made: datetime, *, cancels: bool) -> dict[str, Any]:
        marks = {"revision": "cancellation" if cancels else "correction", "revised_at": _spelt(made)}
        if cancels:
            return {name: tick[name] for name in ("ticker", "created_at", "id")} | marks
        return tick | marks | {"volume": self._random.randrange(1, 1000) * 100}

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
        line = json.dumps({"acked": acked, "partition": partition, "offset": offset} | logged(ticks))
        with self._lock:
            log.write(line + "\n")
            log.flush()

    def _send_all(self, producer: KafkaProducer, messages: list[tuple[bytes, list[dict[str, Any]]]], log: Any) -> None:
        for value, ticks in messages:
            self._send(producer, value, ticks, log)

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


def _spelt(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def logged(elements: list[dict[str, Any]]) -> dict[str, Any]:
    """What the log has of a message: its `ticks` as (key, volume, sector); its `revisions` so too, and when made."""
    names = ("ticker", "created_at", "id", "volume", "sector")
    rows = [([one.get(name) for name in names], one.get("revised_at")) for one in elements]
    return {
        "ticks": [row for row, made in rows if made is None],
        "revisions": [[*row, made] for row, made in rows if made is not None],
    }


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
    corrections: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise held."""
        return not (self.lost or self.double_counted or self.never_sent or self.volume_difference or self.problems)


def judge(pipeline: Pipeline, log: Path, landed_until: dict[int, int] | None = None) -> Judgement:
    """Compare everything that was acknowledged with both stores and the ledger.

    `landed_until` is for topics that lost messages themselves: what lies at or after those offsets counts as unknown.
    """
    messages = [{"revisions": [], **json.loads(line)} for line in log.read_text().splitlines()]
    for message in messages:
        if landed_until is not None and message["offset"] >= landed_until.get(message["partition"], 0):
            message["acked"] = False
    acked = [message for message in messages if message["acked"]]
    sent: dict[TickKey, set[tuple[int, str]]] = defaultdict(set)
    for *key, volume, sector in (tick for message in messages for tick in message["ticks"]):
        sent[_key(key)].add((volume, sector))
    with closing(connect_mysql(pipeline.settings)) as connection:
        ranges = read_ranges(connection)
    # The pipeline's own session is from before the fault and may not have noticed yet that its server came back.
    session = connect_cassandra(pipeline.settings)
    try:
        stored, copies = _stored(session, ranges)
        revised = _revised(session, ranges)
        letters = list(
            session.execute("SELECT raw_value, reason, kafka_partition, kafka_offset FROM dead_letters", timeout=60)
        )
    finally:
        session.cluster.shutdown()
    books = reconcile(pipeline.settings)
    found = Judgement(
        acknowledged=_elements(acked),
        landed=books.ticks_landed,
        dead=books.dead_letters,
        duplicates=books.duplicates,
        lost=len({_key(tick) for message in acked for tick in message["ticks"]} - stored.keys()),
        double_counted=copies + max(0, books.ticks_landed - len(stored)),
        never_sent=sum(one not in sent.get(key, ()) for key, one in stored.items()),
        corrections=int(pipeline.rows("SELECT COALESCE(SUM(corrections), 0) FROM landed_batches")[0][0]),
        problems=list(books.differences),
    )
    found.lost += len({(_key(one), one[5]) for message in acked for one in message["revisions"]} - revised)
    expected = _in_force(stored, [one for message in messages for one in message["revisions"]], revised)
    found.volume_difference, ticks = _differences(pipeline, expected)
    found.problems.extend([f"aggregated_data differs by {ticks} ticks"] if ticks else [])
    found.problems.extend(_unlanded(messages, ranges))
    unknown = [message for message in messages if not message["acked"]]
    for what, counted, sure, more in (
        ("read", books.ticks_read, found.acknowledged, _elements(unknown)),
        ("kept as corrections", found.corrections, _revisions_of(acked), _revisions_of(unknown)),
        ("refused as conflicts", _conflicting(letters, ranges), _conflicts(acked, stored), _conflicts(unknown, stored)),
    ):
        if not sure <= counted <= sure + more:
            found.problems.append(f"the ledger {what} {counted}, not {sure} to {more} more")
    if wrong := {one.reason for one in letters if one.raw_value != NO_JSON and one.reason != CONFLICT}:
        found.problems.append(f"good ticks are dead letters: {', '.join(sorted(wrong))}")
    if unchecked := books.verdicts.get("unchecked"):
        found.problems.append(f"{unchecked} batches have no verdict")
    if books.verdicts.get("failed"):
        found.problems.append(f"{books.verdicts['failed']} batches failed their checks")
    return found


def _key(values: list[Any]) -> TickKey:
    ticker, created_at, id_ = values[:3]
    return ticker, created_at, id_


def _elements(messages: Iterable[dict[str, Any]]) -> int:
    """Ticks of the messages, and what revises some; one that is unreadable counts as one."""
    return sum(len(message["ticks"]) + len(message["revisions"]) or 1 for message in messages)


def _revisions_of(messages: Iterable[dict[str, Any]]) -> int:
    return sum(len(message["revisions"]) for message in messages)


def _conflicts(messages: Iterable[dict[str, Any]], stored: dict[TickKey, tuple[int, str]]) -> int:
    """Ticks of the messages that say something else than what landed under their key."""
    ticks = [tick for message in messages for tick in message["ticks"]]
    return sum(stored.get(_key(tick), (tick[3], tick[4])) != (tick[3], tick[4]) for tick in ticks)


def _conflicting(letters: list[Any], ranges: OffsetRanges) -> int:
    return sum(
        one.reason == CONFLICT and ranges.batch_of(one.kafka_partition, one.kafka_offset) is not None for one in letters
    )


def _stored(session: Session, ranges: OffsetRanges) -> tuple[dict[TickKey, tuple[int, str]], int]:
    """Volume and sector by key of the landed ticks in Cassandra, and how many keys were met twice."""
    stored: dict[TickKey, tuple[int, str]] = {}
    copies = 0
    rows = session.execute(
        "SELECT ticker, created_at, id, volume, sector, kafka_partition, kafka_offset FROM real_time_data", timeout=60
    )
    for ticker, created_at, id_, volume, sector, partition, offset in rows:
        if ranges.batch_of(partition, offset) is not None:
            key = (ticker, _spelt(created_at), id_)
            copies += key in stored
            stored[key] = volume, sector
    return stored, copies


def _revised(session: Session, ranges: OffsetRanges) -> set[tuple[TickKey, str]]:
    """The landed revisions in Cassandra: of which tick, and when made, which no two of one tick share."""
    rows = session.execute(
        "SELECT ticker, created_at, id, revised_at, kafka_partition, kafka_offset FROM tick_revisions", timeout=60
    )
    return {
        ((ticker, _spelt(created_at), id_), _spelt(revised_at))
        for ticker, created_at, id_, revised_at, partition, offset in rows
        if ranges.batch_of(partition, offset) is not None
    }


def _in_force(
    stored: dict[TickKey, tuple[int, str]], said: list[list[Any]], landed: set[tuple[TickKey, str]]
) -> dict[TickKey, tuple[int, str]]:
    """Volume and sector by key of what holds: of each landed tick the last word that was sent of it and landed."""
    holds: dict[TickKey, tuple[int, str] | None] = dict(stored)
    for *key, volume, sector, made in sorted(said, key=lambda one: str(one[5])):
        if _key(key) in stored and (_key(key), made) in landed:
            holds[_key(key)] = None if volume is None else (volume, sector)
    return {key: what for key, what in holds.items() if what is not None}


def _unlanded(messages: list[dict[str, Any]], ranges: OffsetRanges) -> list[str]:
    missing = [
        message for message in messages
        if message["acked"] and ranges.batch_of(message["partition"], message["offset"]) is None
    ]  # fmt: skip
    return [f"{len(missing)} acknowledged messages are in no batch, such as {missing[0]}"[:200]] if missing else []


def _differences(pipeline: Pipeline, holds: dict[TickKey, tuple[int, str]]) -> tuple[int, int]:
    """Shares and ticks by which aggregated_data differs from what holds, summed over dates and sectors."""
    expected: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (_, created_at, _), (volume, sector) in holds.items():
        shares, ticks = expected[created_at[:10], sector]
        expected[created_at[:10], sector] = shares + volume, ticks + 1
    rows = pipeline.rows(
        "SELECT date, sector, SUM(total_volume), SUM(ticks) FROM aggregated_data GROUP BY date, sector"
    )
    found = {(str(day), sector): (int(volume), int(ticks)) for day, sector, volume, ticks in rows}
    pairs = [(found.get(key, (0, 0)), expected[key]) for key in found.keys() | expected.keys()]
    return sum(abs(one[0] - other[0]) for one, other in pairs), sum(abs(one[1] - other[1]) for one, other in pairs)


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
