"""What the Kafka broker says about the topic: its id, and where its partitions begin and end."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from kafka import IsolationLevel, KafkaAdminClient, OffsetSpec, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import AuthorizationError, KafkaError, RetriableError, SaslAuthenticationFailedError
from kafka.net import manager
from kafka.net.transport import KafkaSSLTransport
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from tickledger.errors import StoreUnavailable, TickledgerError, TopicChanged, TopicMissing
from tickledger.secured import check_kafka_certificate, kafka_options
from tickledger.settings import Account, Settings

REQUEST_MS = 10_000
BOOTSTRAP_MS = 6_000
LAG_MS = 2_000
TAKE_OVER_SECONDS = 12
Answer = TypeVar("Answer")
#: Settings of a topic whose messages Spark can read. By default Kafka takes a message that says it was sent hundreds of
#: millions of years ago, and Spark, which counts microseconds in 64 bits, fails whenever it reads it.
TIME_CONFIGS = {
    "message.timestamp.before.max.ms": "3155760000000",  # 100 years
    "message.timestamp.after.max.ms": "3600000",  # an hour, Kafka's default since 4.0
}
#: Whether a broker that lacks acknowledged messages may lead a partition, which loses them.
UNCLEAN_ELECTION = "unclean.leader.election.enable"
#: Settings of each topic that is made here.
TOPIC_CONFIGS = {**TIME_CONFIGS, UNCLEAN_ELECTION: "false"}
#: The most of them with which Spark can read every message.
MOST_TIMESTAMP_MS = 9 * 10**15


@dataclass(frozen=True)
class TopicFacts:
    """A topic at one moment, in Kafka's own offsets.

    `begins` are the partitions' first offsets. `ends` are their last stable offsets: up to there a message can be read,
    if it is one; behind it lie transactions that are still open.
    """

    topic_id: str
    begins: dict[int, int]
    ends: dict[int, int]

    def behind(self, reached: Mapping[int, int]) -> int:
        """Messages from the given offsets on, at most: markers and aborted ones among them are counted too.

        A partition that is not given is counted from its beginning.
        """
        return sum(
            max(0, end - max(begin, reached.get(partition, 0)))
            for partition, begin, end in ((one, self.begins[one], self.ends[one]) for one in self.ends)
        )


def describe_topic(settings: Settings, account: Account | None = None) -> TopicFacts:
    """Ask the broker, with KAFKA_USER or another account.

    Raises StoreUnavailable if none answers, ConfigurationError if the topic is missing or the account or the
    broker's certificate is refused.
    """
    with kafka_admin(settings, account or settings.kafka) as admin:
        return once_taken_over(lambda: _facts(admin, settings))


def once_taken_over(ask: Callable[[], Answer]) -> Answer:
    """What a client that has reached Kafka asks for, again where a broker does not answer that has just died.

    Until the others notice, after nine seconds by default, it leads partitions, and clients are sent to it.
    """
    attempts = Retrying(
        stop=stop_after_delay(TAKE_OVER_SECONDS),
        wait=wait_fixed(0.5),
        retry=retry_if_exception_type(RetriableError),
        reraise=True,
    )
    return attempts(ask)


@contextmanager
def kafka_admin(settings: Settings, account: Account) -> Iterator[KafkaAdminClient]:
    """A client that asks and administers, with an account, for the block. Translates what Kafka refuses, as above."""
    # kafka-python logs every refused connection; callers say it in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    check_kafka_certificate(settings)
    refusals = _Refusals()
    try:
        with refusals:
            admin = _admin(settings, account)
        with closing(admin):
            yield admin
    except KafkaError as error:
        raise kafka_error(settings, refusals.refusal or error, account) from None


def takes_any_time(settings: Settings) -> bool:
    """Whether the topic takes a message whose time Spark cannot read; see TIME_CONFIGS.

    Raises StoreUnavailable if no broker answers, ConfigurationError if KAFKA_USER may not ask (DESCRIBE_CONFIGS).
    """
    try:
        with closing(_admin(settings, settings.kafka)) as admin:
            return bool(once_taken_over(lambda: topics_of_any_time(admin, [settings.kafka_topic])))
    except KafkaError as error:
        raise kafka_error(settings, error, settings.kafka) from None


def topics_of_any_time(admin: KafkaAdminClient, topics: Iterable[str]) -> list[str]:
    """Those of some topics that take a message whose time Spark cannot read."""
    names = dict.fromkeys(("message.timestamp.type", *TIME_CONFIGS), "")
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic, configs=names) for topic in topics]
    found = admin.describe_configs(asked, config_filter="all")["topic"] if asked else {}
    return [
        topic
        for topic, configs in found.items()
        if configs["message.timestamp.type"]["value"] == "CreateTime"
        and max(int(configs[name]["value"]) for name in TIME_CONFIGS) > MOST_TIMESTAMP_MS
    ]


class _LastWords(KafkaSSLTransport):
    """Reads over TLS, and passes on what came together with the connection's end, such as a refused login.

    kafka-python 3.0.12 drops it (KafkaTCPTransport._read_from_sock).
    """

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        # The next read meets the end again, with nothing before it.
        return data, None if data else error


manager.KafkaSSLTransport = _LastWords


class _Refusals(logging.Handler):
    """Notices a refused account, which kafka-python only logs: its caller sees a broker that does not answer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.refusal: KafkaError | None = None
        self._logger = logging.getLogger("kafka.net.manager")

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        self.refusal = next((e for e in arguments if isinstance(e, SaslAuthenticationFailedError)), self.refusal)

    def __enter__(self) -> None:
        self._logger.addHandler(self)
        self._logger.setLevel(logging.WARNING)
        self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.setLevel(logging.NOTSET)
        self._logger.propagate = True


def _admin(settings: Settings, account: Account, answer_ms: int = REQUEST_MS) -> KafkaAdminClient:
    return KafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers.split(","),
        bootstrap_timeout_ms=min(BOOTSTRAP_MS, answer_ms),
        request_timeout_ms=answer_ms,
        **kafka_options(settings, account),
    )


def kafka_error(settings: Settings, error: KafkaError, account: Account) -> TickledgerError:
    """What a client's error means: a refused account is a setting to fix, anything else a silent broker."""
    if isinstance(error, SaslAuthenticationFailedError | AuthorizationError):
        return account.refused_by(f"Kafka at {settings.kafka_bootstrap_servers} ({type(error).__name__})")
    return StoreUnavailable(
        f"Kafka at {settings.kafka_bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS) does not answer: {type(error).__name__}"
    )


def _facts(admin: KafkaAdminClient, settings: Settings) -> TopicFacts:
    described = admin.describe_topics([settings.kafka_topic])[0]
    if described["error_code"]:
        raise topic_missing(settings)
    partitions = sorted(partition["partition_index"] for partition in described["partitions"])
    begins, ends = (
        admin.list_partition_offsets(
            {TopicPartition(settings.kafka_topic, one): spec for one in partitions}, IsolationLevel.READ_COMMITTED
        )
        for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
    )
    return TopicFacts(
        str(described["topic_id"]),
        {key.partition: at.offset for key, at in begins.items()},
        {key.partition: at.offset for key, at in ends.items()},
    )


def topic_missing(settings: Settings) -> TopicMissing:
    """The one line about a topic that is not there."""
    return TopicMissing(
        f"KAFKA_TOPIC is {settings.kafka_topic!r}; it should be a topic of {settings.kafka_bootstrap_servers}"
    )


class TopicWatch:
    """Asks, on a connection that it keeps, whether the topic is still the one that the stream began with.

    A topic's id never comes back, so what was read before a confirmation was read from that topic. Spark alone would
    go on in a topic that was deleted and filled again up to the same offsets.
    """

    def __init__(self, settings: Settings, topic_id: str) -> None:
        self._settings = settings
        self._topic_id = topic_id
        self._admin: KafkaAdminClient | None = None

    def confirm(self) -> None:
        """Raises TopicChanged if the topic was deleted or recreated, StoreUnavailable without an answer."""
        try:
            if self._admin is None:
                self._admin = _admin(self._settings, self._settings.kafka)
            found = self._admin.describe_topics([self._settings.kafka_topic])[0]
        except KafkaError as error:
            self.close()
            raise kafka_error(self._settings, error, self._settings.kafka) from None
        if found["error_code"] or str(found["topic_id"]) != self._topic_id:
            raise TopicChanged(
                f"KAFKA_TOPIC {self._settings.kafka_topic!r} was deleted or recreated under the stream; nothing of"
                " the batch in flight is in the ledger, and the next start says how to go on"
            )

    def close(self) -> None:
        """Close the connection to the broker."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None


class LagMeter:
    """Counts the messages that are in the topic and not yet landed. Safe between threads.

    It raises nothing but ConfigurationError, if Kafka asks for an account and the settings name none. Its connection
    is made when first needed, and again after a failure: the broker may be at another address by then.
    """

    def __init__(self, settings: Settings, account: Account | None = None) -> None:
        self._settings = settings
        self._account = account or settings.kafka
        self._admin: KafkaAdminClient | None = None
        self._lock = threading.Lock()

    def behind(self, reached: Mapping[int, int]) -> int | None:
        """Messages from the given offsets on, in partitions not given too; None if the broker is silent."""
        with self._lock:
            try:
                if self._admin is None:
                    self._admin = _admin(self._settings, self._account, LAG_MS)
                return _facts(self._admin, self._settings).behind(reached)
            except (KafkaError, TopicMissing):
                self._drop()
                return None

    def close(self) -> None:
        """Close the connection to the broker."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()
