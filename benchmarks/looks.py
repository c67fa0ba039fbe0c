"""When a message that was sent can be read: in Cassandra, in `volume_today`, and as checked in the ledger.

Both stores are asked a few times a second by two threads, so that asking costs them next to nothing: Cassandra for
single ticks by their whole key, MySQL for one row a partition and a sum over today's aggregates.
"""

import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pandas as pd

from tickledger.settings import Settings
from tickledger.stores import connect_cassandra, connect_mysql, fetch_rows

STAGES = ("readable in Cassandra", "in volume_today", "checked")
PARTITIONS = 2
#: The most ticks that one look asks Cassandra for, the oldest ones.
MOST_PROBES = 60

_LANDED = """
    SELECT (SELECT COALESCE(SUM(total_volume), 0) FROM volume_today), kafka_partition, MAX(until_offset)
    FROM landed_offsets GROUP BY kafka_partition
"""
_CHECKED = """
    SELECT b.batch_id, o.kafka_partition, o.until_offset
    FROM landed_batches b JOIN landed_offsets o ON o.batch_id = b.batch_id
    WHERE b.batch_id > %(last)s AND b.batch_id < COALESCE(
        (SELECT MIN(batch_id) FROM landed_batches WHERE verdict = 'unchecked'), 9223372036854775807)
"""


class Sent:
    """What was sent, by the number of the message. The producer fills partitions in turn, from offset 0."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.probes: dict[int, tuple[str, datetime, int]] = {}
        #: By partition: the shares in its first messages, for 0, 1, 2 … of them.
        self.volumes: list[list[int]] = [[0] for _ in range(PARTITIONS)]

    def add(self, message: list[dict[str, Any]], *, probe: bool) -> None:
        """Remember a message that is about to be sent; `probe`: look for its first tick in Cassandra."""
        number, first = len(self.at), message[0]
        volumes = self.volumes[number % PARTITIONS]
        volumes.append(volumes[-1] + sum(tick["volume"] for tick in message))
        if probe:
            self.probes[number] = first["ticker"], datetime.fromisoformat(first["created_at"]), first["id"]
        self.at.append(time.monotonic())


class Looks:
    """Looks from entry to exit. `seen` has, by stage, when each message was first seen; `problem` what was wrong."""

    def __init__(self, settings: Settings, sent: Sent, pause: float) -> None:
        self._settings, self._sent, self._pause = settings, sent, pause
        self._stopping = threading.Event()
        self._looks: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self._next = {stage: [0] * PARTITIONS for stage in STAGES[1:]}
        self._newest_checked = 0
        self.seen: dict[str, dict[int, float]] = {stage: {} for stage in STAGES}
        self.problem = ""
        self._threads = [threading.Thread(target=one, daemon=True) for one in (self._cassandra, self._mysql)]

    def __enter__(self) -> "Looks":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def resolution(self, stage: str) -> float:
        """The 95th percentile of the seconds between two looks."""
        return float(pd.Series(self._looks[stage]).diff().quantile(0.95))

    def _repeat(self, look: Callable[[], None]) -> None:
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                look()
                self._stopping.wait(max(self._pause - (time.monotonic() - began), 0))
        except Exception as error:
            self.problem = self.problem or f"{type(error).__name__}: {error}"

    def _cassandra(self) -> None:
        session = connect_cassandra(self._settings)
        query = session.prepare("SELECT id FROM real_time_data WHERE ticker = ? AND trade_date = ? AND created_at IN ?")
        self._repeat(lambda: self._look_for_ticks(session, query))
        session.cluster.shutdown()

    def _look_for_ticks(self, session: Any, query: Any) -> None:
        seen = self.seen[STAGES[0]]
        # A copy in one step: the sender goes on adding.
        waiting = {number: probe for number, probe in list(self._sent.probes.items()) if number not in seen}
        oldest = dict(list(waiting.items())[:MOST_PROBES])
        by_day: dict[tuple[str, date], dict[int, int]] = {}
        for number, (ticker, made, id_) in oldest.items():
            by_day.setdefault((ticker, made.date()), {})[id_] = number
        for (ticker, day), numbers in by_day.items():
            times = sorted({oldest[number][1] for number in numbers.values()})
            found = [row.id for row in session.execute(query, (ticker, day, times))]
            now = time.monotonic()
            seen.update({numbers[id_]: now for id_ in found if id_ in numbers})
        self._looks[STAGES[0]].append(time.monotonic())

    def _mysql(self) -> None:
        # The stream's account may not read a view.
        connection = connect_mysql(self._settings, account="DASHBOARD_MYSQL")
        connection.autocommit = True
        self._repeat(lambda: self._look_at_ledger(connection))
        connection.close()

    def _look_at_ledger(self, connection: Any) -> None:
        landed = fetch_rows(connection, _LANDED)
        self._note(STAGES[1], {partition: until for _, partition, until in landed})
        if landed:
            expected = sum(self._sent.volumes[partition][until] for _, partition, until in landed)
            if int(landed[0][0]) != expected:
                self.problem = (
                    f"volume_today has {landed[0][0]:,} shares, and {expected:,} were sent in what has landed"
                )
        checked = fetch_rows(connection, _CHECKED, {"last": self._newest_checked})
        ends: dict[int, int] = {}
        for batch_id, partition, until in checked:
            self._newest_checked = max(self._newest_checked, batch_id)
            ends[partition] = max(ends.get(partition, 0), until)
        self._note(STAGES[2], ends)

    def _note(self, stage: str, ends: dict[int, int]) -> None:
        now, seen = time.monotonic(), self.seen[stage]
        self._looks[stage].append(now)
        for partition, until in ends.items():
            for offset in range(self._next[stage][partition], until):
                seen[offset * PARTITIONS + partition] = now
            self._next[stage][partition] = max(until, self._next[stage][partition])
