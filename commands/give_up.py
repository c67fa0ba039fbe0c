"""`tickledger give-up`: name the messages that were lost before they landed; accept their loss, and go on without them.

Each accepted loss is a row of `skipped_offsets`, written in the ledger's own transaction and shown by `trace`, by
`reconcile` and on the dashboard.
"""

from dataclasses import replace
from typing import Annotated

import typer
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.errors import ConfigurationError
from tickledger.ledger import Ledger, SkipKind, StreamLock, range_in_words
from tickledger.settings import Settings, load_settings
from tickledger.start_up import Break, breaks
from tickledger.stores import fetch_rows
from tickledger.topic import describe_topic

MOST_LETTERS = 500


def give_up(settings: Settings, reason: str) -> list[Break]:
    """Let the ledger go on where the topic does, and note the reason; what was given up is returned.

    Raises LedgerMoved if a stream runs, StoreUnavailable if Kafka or MySQL is away; nothing is changed then.
    """
    lock, ledger = StreamLock(settings), Ledger(settings)
    lock.hold()
    try:
        head = ledger.head()
        topic = describe_topic(settings)
        found = breaks(settings, head, topic)
        skips = [replace(one.skip, reason=reason) for one in found]
        ledger.skip(replace(head, topic_id=topic.topic_id), skips)
        return found
    finally:
        lock.release()


def check_reason(option: str, reason: str) -> None:
    """Raise ConfigurationError if a reason is too long for the ledger."""
    if len(reason) > MOST_LETTERS:
        raise ConfigurationError(f"{option} has {len(reason)} letters; it should have at most {MOST_LETTERS}")


def given_up(connection: MySQLConnectionAbstract, first_batch: int = 0, last_batch: int | None = None) -> list[str]:
    """One line for each range that was given up after one of these batches, or after any, oldest first."""
    rows = fetch_rows(
        connection,
        "SELECT kafka_partition, from_offset, until_offset, topic_offset, batch_id, skipped_at, reason"
        " FROM skipped_offsets WHERE kind = %s AND batch_id >= %s AND batch_id <= COALESCE(%s, batch_id)"
        " ORDER BY skipped_at, kafka_partition",
        (SkipKind.GIVEN_UP.value, first_batch, last_batch),
    )
    return [
        f"given up after batch {batch_id}, {skipped_at:%Y-%m-%d %H:%M} UTC: partition {partition},"
        f" {range_in_words(start, until, topic_offset)}: {reason}"
        for partition, start, until, topic_offset, batch_id, skipped_at, reason in rows
    ]


def main(
    reason: Annotated[str, typer.Option(help="Why they are lost; it stays in the ledger.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Accept the loss, for good.")] = False,
) -> None:
    """Name what the topic lost before it landed, so that the stream refuses to start; with --yes go on without it.

    Nothing is changed without both options. Exit code 0: nothing is lost, or its loss is accepted. 1: there is a loss,
    or a stream runs. 2: a store cannot be asked.
    """
    settings = load_settings()
    check_reason("--reason", reason)
    accepted = yes and bool(reason.strip())
    if accepted:
        found = give_up(settings, reason.strip())
    else:
        head = Ledger(settings).head()
        found = breaks(settings, head, describe_topic(settings))
    if not found:
        print("nothing to give up: the topic goes on where the ledger ends")
        return
    for one in found:
        skip = one.skip
        print(f"{settings.kafka_topic}{one.problem}")
        what = range_in_words(skip.from_offset, skip.until_offset, skip.topic_offset)
        print(f"  partition {skip.kafka_partition}: {what}: {'given up' if accepted else 'to be given up'}")
    if not accepted:
        print("nothing was changed; to go on without them: tickledger give-up --reason 'why they are lost' --yes")
        raise typer.Exit(1)
