"""What must hold before the stream reads its first message: tables, and a ledger that the topic continues."""

import time
from dataclasses import dataclass

from tickledger.contract import insert_statement
from tickledger.contract_drift import cassandra_differences, fix_of, landing_differences
from tickledger.counted import counted
from tickledger.errors import ConfigurationError
from tickledger.here import RUN, SET_UP_ANYWHERE
from tickledger.ledger import LedgerHead, Skip, SkipKind, filled
from tickledger.settings import Settings
from tickledger.table_facts import MISSING, Difference, Kind, is_addition
from tickledger.topic import TopicFacts, describe_topic

WAYS_ON = f"bring back what is gone, or accept its loss with '{RUN}tickledger give-up', which names it first"
BILLION = 1_000_000_000
SECOND_LOOK_SECONDS = 2


def check_tables(settings: Settings) -> None:
    """Raises ConfigurationError where the stream cannot land into the tables as they are.

    A nullable column that only the contract has, or only the live table, stops nothing: it is told, and stays null.
    """
    for table, columns in filled().items():
        insert_statement(table, columns)
    found = [*landing_differences(settings), *cassandra_differences(settings)]
    grave = [one for one in found if not is_addition(one, found) or _is_needed(one)]
    if not grave:
        for one in found:
            _tell(one)
        return
    first, more = grave[0], f" and {len(grave) - 1} more" if len(grave) > 1 else ""
    if first.kind == Kind.TABLE:
        repair = "'dbt seed' and 'dbt run' in dbt_project/" if first.store == "MySQL" else SET_UP_ANYWHERE
        raise ConfigurationError(f"{first.store} has no table {first.table!r}{more}; run {repair}")
    raise ConfigurationError(
        f"table {first.table!r} of {first.store} differs from its contract in {first.what}:"
        f" it is {first.live}, the contract says {first.contract}{more};"
        f" '{RUN}tickledger check-contract' lists all. Fix: {fix_of(first)}"
    )


def _is_needed(one: Difference) -> bool:
    return one.live == MISSING and one.is_new_column and one.name in filled().get(one.table, ())


def _tell(one: Difference) -> None:
    if one.is_new_column and one.live == MISSING:
        print(f"table {one.table!r} lacks {one.what} of its contract; 'dbt run' adds it", flush=True)
    elif one.is_new_column:
        print(f"table {one.table!r} has a {one.what} that its contract lacks; it stays null", flush=True)


@dataclass(frozen=True)
class Break:
    """A place where the topic does not go on where the ledger ends: what is said of it, and the skip over it.

    It `ends_too_soon` where the topic is the ledger's and has fewer messages.
    """

    problem: str
    skip: Skip
    ends_too_soon: bool = False


def begun(settings: Settings, head: LedgerHead, topic: TopicFacts) -> LedgerHead:
    """The head of a ledger as it begins: one that has nothing yet takes the topic as it finds it."""
    if head.topic:
        return head
    return LedgerHead(topic=settings.kafka_topic, topic_id=topic.topic_id, ends=dict(topic.begins))


def check_continuity(settings: Settings, head: LedgerHead, topic: TopicFacts) -> None:
    """Raises ConfigurationError, with the repair, where the topic does not go on where the ledger ends.

    `topic` must have been asked for after `head`, or a batch that landed in between looks like a loss.
    """
    if found := breaks(settings, head, topic):
        more = f" (and so in {counted(len(found) - 1, 'more partition')})" if len(found) > 1 else ""
        raise ConfigurationError(f"KAFKA_TOPIC {settings.kafka_topic!r}{found[0].problem}{more}: {WAYS_ON}")


def breaks(settings: Settings, head: LedgerHead, topic: TopicFacts) -> list[Break]:
    """Each place where the topic does not go on where the ledger ends, in the partitions' order.

    A topic that seems to end too soon is asked for once more: a broker that has just taken a partition over may not
    know yet how far it goes. Raises ConfigurationError where the ledger lands another topic.
    """
    found = _breaks(settings, head, topic)
    if any(one.ends_too_soon for one in found):
        time.sleep(SECOND_LOOK_SECONDS)
        found = _breaks(settings, head, describe_topic(settings))
    return found


def _breaks(settings: Settings, head: LedgerHead, topic: TopicFacts) -> list[Break]:
    if not head.topic:
        return []
    if head.topic != settings.kafka_topic:
        raise ConfigurationError(
            f"KAFKA_TOPIC is {settings.kafka_topic!r}; this ledger lands {head.topic!r}: name that one, or give this"
            " topic a ledger of its own (another MYSQL_DATABASE and CASSANDRA_KEYSPACE)"
        )
    if head.topic_id != topic.topic_id:
        problem = f" was recreated (its id is {topic.topic_id}, the ledger's {head.topic_id})"
        return [
            Break(problem, _onto_another_billion(head, partition, topic.begins.get(partition, 0)))
            for partition in sorted(head.ends.keys() | topic.begins.keys())
        ]
    return [found for partition in sorted(topic.begins) if (found := _break_in(head, topic, partition))]


def _break_in(head: LedgerHead, topic: TopicFacts, partition: int) -> Break | None:
    reached, begins, ends = head.topic_offsets.get(partition, 0), topic.begins[partition], topic.ends[partition]
    if reached < begins:
        start, until = head.ends.get(partition, 0), begins + head.shifts.get(partition, 0)
        problem = (
            f", partition {partition}: retention deleted {counted(begins - reached, 'message')} before landing"
            f" (offsets {reached} to {begins - 1})"
        )
        return Break(problem, Skip(partition, start, until, begins, SkipKind.GIVEN_UP, ""))
    if reached > ends:
        problem = (
            f", partition {partition} ends at offset {ends}, before the ledger's {reached}: the broker lost messages"
        )
        return Break(problem, _onto_another_billion(head, partition, ends), ends_too_soon=True)
    return None


def _onto_another_billion(head: LedgerHead, partition: int, topic_offset: int) -> Skip:
    """The skip that lets a partition go on at an offset of Kafka's which the ledger has had before.

    What a batch that died has left in Cassandra lies behind the ledger's end: so the ledger counts on from further
    away than any batch reaches, from where Kafka's own offset can still be read off.
    """
    end = head.ends.get(partition, 0)
    return Skip(partition, end, (end // BILLION + 1) * BILLION + topic_offset, topic_offset, SkipKind.GIVEN_UP, "")


def starting_offsets(head: LedgerHead, topic: TopicFacts) -> dict[int, int]:
    """Where each partition goes on, in Kafka's own offsets."""
    return {partition: head.topic_offsets.get(partition, 0) for partition in topic.begins}
