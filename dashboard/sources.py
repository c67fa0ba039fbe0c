"""What all viewers of the page share: a reader for each store, the newest good answers, and the stream's lag."""

import gc
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from dashboard.readers import CassandraReader, MySQLReader
from dashboard.readings import Readings
from tickledger.settings import Settings, load_settings
from tickledger.topic import LagMeter

MYSQL, CASSANDRA, KAFKA = "MySQL", "Cassandra", "Kafka"
#: What may change without a batch or a verdict, such as the window of the candles, is asked and drawn again this often.
ALL_AGAIN_SECONDS = 20
#: Of the refresh: for how long viewers share the figures of the day. A batch shows later by as much.
SHARED = 0.25
#: For how long a part of the page waits for Kafka before it goes on without.
LAG_SECONDS = 0.3


class LagWatch:
    """Asks Kafka for the lag in a thread of its own, so that a broker that is silent holds up no part of the page.

    Safe between threads: however many viewers ask, one question is under way, and all of them get its answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._meter = LagMeter(settings, settings.dashboard_kafka)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lag")
        self._lock = threading.Lock()
        self._asked: Future[int | None] | None = None
        self._closed = False

    def behind(self, ends: pd.DataFrame) -> int | None:
        """Messages in the topic behind the ledger's ends; None if Kafka does not say, or not yet.

        `ends` has one row per Kafka partition: kafka_partition, topic_offset.
        """
        landed = dict(zip(ends.kafka_partition.tolist(), ends.topic_offset.tolist(), strict=True))
        asked = self._question(landed)
        if asked is None:
            return None
        wait([asked], LAG_SECONDS)
        if not asked.done():
            return None
        with self._lock:
            if self._asked is asked:
                self._asked = None
        return asked.result()

    def _question(self, landed: dict[int, int]) -> Future[int | None] | None:
        """The question that is under way, or a new one; None once closed."""
        with self._lock:
            if self._asked is None and not self._closed:
                self._asked = self._pool.submit(self._meter.behind, landed)
            return self._asked

    def close(self) -> None:
        """Close the connection, without waiting for an answer that is under way."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._pool.submit(self._meter.close)
        self._pool.shutdown(wait=False)


@dataclass(frozen=True)
class Sources:
    """What the parts of the page read from. `topic` is the one that the ledger lands.

    For `look_seconds` all viewers share what each of them asks with every refresh.
    """

    mysql: MySQLReader
    cassandra: CassandraReader
    readings: Readings
    lag: LagWatch
    topic: str
    look_seconds: float

    def close(self) -> None:
        """Close all connections."""
        self.mysql.close()
        self.cassandra.close()
        self.lag.close()


def page_settings() -> Settings:
    """The settings, with the accounts that only read.

    Streamlit puts what stands in dashboard/.streamlit/secrets.toml into the environment, which wins over .env. Raises
    ConfigurationError, also if an account is missing: with that of the stream the page could write.
    """
    settings = load_settings()
    accounts = [settings.dashboard_mysql, settings.dashboard_cassandra]
    if settings.kafka_security != "PLAINTEXT":
        accounts.append(settings.dashboard_kafka)
    for account in accounts:
        account.required()
    return settings


@st.cache_resource(max_entries=1, show_spinner=False, hash_funcs={Settings: hash}, on_release=Sources.close)
def sources_of(settings: Settings) -> Sources:
    """The sources, made once for the server; other settings (after a reload) make others."""
    readings, look_seconds = Readings(ALL_AGAIN_SECONDS), settings.dashboard_refresh_seconds * SHARED
    mysql, cassandra = MySQLReader(settings), CassandraReader(settings)
    # After each run of a part Streamlit has Python look through every object: 0.1 s for what the imports made.
    gc.collect()
    gc.freeze()
    return Sources(mysql, cassandra, readings, LagWatch(settings), settings.kafka_topic, look_seconds)
