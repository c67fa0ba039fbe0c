"""What must hold before the stream reads its first message: tables, and a ledger that the topic continues."""

from tickledger.contract import insert_statement
from tickledger.contract_drift import MISSING, Difference, differences, is_addition
from tickledger.errors import ConfigurationError
from tickledger.here import RUN, SET_UP
from tickledger.ledger import LedgerHead, filled_columns
from tickledger.settings import Settings
from tickledger.topic import TopicFacts

NEW_LEDGER = "or give this topic a ledger of its own (another MYSQL_DATABASE and CASSANDRA_KEYSPACE)"


def check_tables(settings: Settings) -> None:
    """Raises ConfigurationError where the stream cannot land into the tables as they are.

    A nullable column that only the contract has, or only the live table, stops nothing: it is told, and stays null.
    """
    for table, filled in filled_columns().items():
        insert_statement(table, filled)
    found = differences(settings)
    grave = [one for one in found if not is_addition(one, found) or _is_needed(one)]
    if not grave:
        for one in found:
            _tell(one)
        return
    first, more = grave[0], f" and {len(grave) - 1} more" if len(grave) > 1 else ""
    if first.what == "table":
        repair = "'dbt seed' and 'dbt run' in dbt_project/" if first.store == "MySQL" else f"'{SET_UP}'"
        raise ConfigurationError(f"{first.store} has no table {first.table!r}{more}; run {repair}")
    raise ConfigurationError(
        f"table {first.table!r} of {first.store} differs from its contract in {first.what}:"
        f" it is {first.live}, the contract says {first.contract}{more};"
        f" '{RUN}tickledger check-contract' lists all, 'dbt run' adds what can be added"
    )


def _is_needed(one: Difference) -> bool:
    return one.live == MISSING and one.new_column in filled_columns().get(one.table, ())


def _tell(one: Difference) -> None:
    if one.new_column and one.live == MISSING:
        print(f"table {one.table!r} lacks {one.what} of its contract; 'dbt run' adds it", flush=True)
    elif one.new_column:
        print(f"table {one.table!r} has a {one.what} that its contract lacks; it stays null", flush=True)


def check_continuity(settings: Settings, head: LedgerHead, topic: TopicFacts) -> None:
    """Raises ConfigurationError, with the repair, where the topic does not go on where the ledger ends."""
    if not head.batch_id:
        return
    name = settings.kafka_topic
    if head.topic != name:
        raise ConfigurationError(
            f"KAFKA_TOPIC is {name!r}; this ledger lands {head.topic!r}: name that one {NEW_LEDGER}"
        )
    if head.topic_id != topic.topic_id:
        raise ConfigurationError(
            f"KAFKA_TOPIC {name!r} was created anew (its id is {topic.topic_id}, the ledger's {head.topic_id}):"
            f" bring the old topic back {NEW_LEDGER}"
        )
    for partition, end in sorted(head.ends.items()):
        begins, ends = topic.begins.get(partition, 0), topic.ends.get(partition, 0)
        if end < begins:
            raise ConfigurationError(
                f"KAFKA_TOPIC {name!r}, partition {partition}: retention deleted {begins - end} messages before they"
                f" were landed (offsets {end} to {begins - 1}): restore them {NEW_LEDGER}"
            )
        if end > ends:
            raise ConfigurationError(
                f"KAFKA_TOPIC {name!r}, partition {partition} ends at offset {ends}, before the ledger's {end}:"
                f" the broker lost messages; restore them {NEW_LEDGER}"
            )


def starting_offsets(head: LedgerHead, topic: TopicFacts) -> dict[int, int]:
    """Where each partition begins: the ledger's end, or the partition's first offset where the ledger has none."""
    return {partition: head.ends.get(partition, first) for partition, first in topic.begins.items()}


def messages_behind(head: LedgerHead, topic: TopicFacts) -> int:
    """Messages up to the ends that the topic had, which the ledger does not have yet."""
    starts = starting_offsets(head, topic)
    return sum(max(0, end - starts[partition]) for partition, end in topic.ends.items())
