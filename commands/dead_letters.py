"""`tickledger dead-letters list|replay`: see what could not land, and land what has become valid since.

A replay sends the element itself, alone, to the topic again; the running stream lands it. A tick counts once however
often it is sent, so a replay that was killed and is repeated lands nothing twice: the copy counts as a duplicate. What
says something else than the tick that landed is sent as its correction, if a person says so.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from cassandra.cluster import Session
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError
from rich.table import Table

from streaming.conflicts import CONFLICT, says_otherwise
from streaming.settle_revisions import NO_TICK
from streaming.tick_columns import TickColumns
from streaming.tick_sink import TickSink, moments_of
from tickledger.counted import counted
from tickledger.decode import TOO_MANY_BROKEN, Decoded, Decoder, broken_elements
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.feed import LABS_HEAD, LABS_TAIL, Feed
from tickledger.ledger import Ledger
from tickledger.plain_text import plain, print_table
from tickledger.secured import kafka_options
from tickledger.settings import Settings, load_settings
from tickledger.stores import cassandra
from tickledger.tick import DEAD_LETTER_TABLE, TOO_LARGE_TO_KEEP, WHOLE_MESSAGE
from tickledger.topic import describe_topic

#: How much of a raw value a table shows.
SHOWN = 60


@dataclass(frozen=True)
class StoredDeadLetter:
    """One row of `dead_letters` without its raw value. Times are UTC; `replayed_at` is None until a replay sends it."""

    topic: str
    partition: int
    bucket: int
    offset: int
    position: int
    reason: str
    detail: str
    dead_at: datetime
    replayed_at: datetime | None


def read_dead_letters(
    session: Session, *, reason: str | None = None, since: datetime | None = None, replayed: bool = True
) -> Iterator[StoredDeadLetter]:
    """The stored dead letters, in no order; `since` is compared with dead_at (UTC, no time zone).

    A message that was kept whole is also one of each reason that its detail names.
    """
    rows = session.execute(
        "SELECT topic, kafka_partition, offset_bucket, kafka_offset, position, reason, detail, dead_at, replayed_at"
        f" FROM {DEAD_LETTER_TABLE}"
    )
    for row in rows:
        letter = StoredDeadLetter(*row)
        if not _is_of(letter, reason) or (since is not None and letter.dead_at < since):
            continue
        if replayed or letter.replayed_at is None:
            yield letter


def _is_of(letter: StoredDeadLetter, reason: str | None) -> bool:
    named = letter.reason == TOO_MANY_BROKEN and reason is not None and reason in letter.detail
    return named or reason in (None, letter.reason)


def raw_value(session: Session, letter: StoredDeadLetter) -> bytes:
    """A dead letter's bytes, read alone: a page of many could be more than a node's memory."""
    row = session.execute(f"SELECT raw_value FROM {DEAD_LETTER_TABLE} WHERE {_KEY}", _key(letter)).one()
    return bytes(row.raw_value or b"") if row is not None else b""


@dataclass
class Replay:
    """What a replay did: dead letters sent again, their ticks and corrections; those not valid; those too large."""

    sent: int = 0
    ticks: int = 0
    corrections: int = 0
    still_dead: int = 0
    too_large: int = 0


def replay(
    settings: Settings, letters: list[StoredDeadLetter], session: Session, *, as_correction: bool = False
) -> Replay:
    """Send every dead letter that is valid by now to the topic again; the rest keep their newest reason.

    With `as_correction`, ticks that say something else than what landed are sent as corrections, made when they are
    sent; else they stay, for they would die again.
    A message that was kept whole is sent as soon as more of its ticks are valid: what is not dies again, and what had
    landed is a duplicate. A letter of which only the beginning is kept, or which is larger than the topic takes, stays
    as it is. Raises StoreUnavailable where Kafka does not acknowledge; what was sent before is marked as replayed.
    """
    describe_topic(settings)
    ledger = Ledger(settings)
    companies, feed = ledger.companies(), settings.feed_file
    sectors = {ticker: company.sector for ticker, company in companies.items()}
    shares = {ticker: company.shares for ticker, company in companies.items()}
    decoder = Decoder(sectors, ledger.exchange().days, feed, shares)
    done = Replay()
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap_servers.split(","),
        acks="all",
        max_request_size=2**24,
        # As large as it came, a message may be more than the topic takes.
        compression_type="lz4",
        **kafka_options(settings, settings.producer_kafka),
    )
    try:
        for letter in letters:
            if letter.reason == TOO_LARGE_TO_KEEP:
                done.too_large += 1
                continue
            if letter.reason == CONFLICT and not as_correction:
                done.still_dead += 1
                continue
            value = raw_value(session, letter)
            if letter.reason == NO_TICK and feed is not None:
                value = LABS_HEAD + value + LABS_TAIL
            elif letter.position != WHOLE_MESSAGE:
                value = decoder.message_of(value)
            now_ms = int(datetime.now(UTC).timestamp() * 1000)
            decoded = decoder.decode(value, now_ms)
            otherwise = _saying_otherwise(session, decoded, feed) if _may_conflict(letter) else set()
            if as_correction and otherwise:
                value = decoder.as_corrections(value, otherwise)
                decoded, otherwise = decoder.decode(value, now_ms), set()
            if (decoded.dead or otherwise) and not _more_are_valid(letter, decoded, len(otherwise)):
                if decoded.dead:
                    _note_reason(session, letter, decoded.dead[0].reason, decoded.dead[0].detail)
                done.still_dead += 1
                continue
            try:
                producer.send(settings.kafka_topic, value).get(timeout=30)
            except MessageSizeTooLargeError:
                done.too_large += 1
                continue
            _mark_replayed(session, letter)
            done.sent += 1
            done.ticks += len(decoded.ticks)
            done.corrections += len(decoded.revisions)
    except KafkaError as error:
        raise StoreUnavailable(
            f"Kafka does not acknowledge ({type(error).__name__}); sent before: {counted(done.sent, 'dead letter')}"
        ) from None
    finally:
        producer.close()
    return done


def _may_conflict(letter: StoredDeadLetter) -> bool:
    return letter.reason in (CONFLICT, TOO_MANY_BROKEN)


def _saying_otherwise(session: Session, decoded: Decoded, feed: Feed | None) -> set[int]:
    """The positions of a message's ticks that say something else than what is stored."""
    computed = () if feed is None else feed.computed_fields
    ticks = TickColumns.of((tick, 0) for _, tick in decoded.ticks)
    stored = {one[:3]: one for one in TickSink(session).stored(map(moments_of, ticks.by_company_and_day()))}
    return {
        position
        for (position, tick), key in zip(decoded.ticks, ticks.keys(), strict=True)
        if key in stored and says_otherwise(tick, stored[key], computed)
    }


def _more_are_valid(letter: StoredDeadLetter, decoded: Decoded, conflicts: int) -> bool:
    """Whether fewer elements cannot land than when the letter died, or was last looked at."""
    broken = sum(broken_elements(one.reason, one.detail) for one in decoded.dead)
    return broken + conflicts < broken_elements(letter.reason, letter.detail)


_KEY = "topic = %s AND kafka_partition = %s AND offset_bucket = %s AND kafka_offset = %s AND position = %s"


def _key(letter: StoredDeadLetter) -> tuple[str, int, int, int, int]:
    return letter.topic, letter.partition, letter.bucket, letter.offset, letter.position


def _note_reason(session: Session, letter: StoredDeadLetter, reason: str, detail: str) -> None:
    session.execute(
        f"UPDATE {DEAD_LETTER_TABLE} SET reason = %s, detail = %s WHERE {_KEY}", (reason, detail, *_key(letter))
    )


def _mark_replayed(session: Session, letter: StoredDeadLetter) -> None:
    session.execute(f"UPDATE {DEAD_LETTER_TABLE} SET replayed_at = %s WHERE {_KEY}", (datetime.now(UTC), *_key(letter)))


app = typer.Typer(
    help="See what could not land, and land what has become valid since.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Reason = Annotated[str | None, typer.Option(help="Only those of this reason, such as unknown_ticker.")]
Since = Annotated[datetime | None, typer.Option(help="Only those that died at or after this time (UTC).")]


@app.command("list")
def list_command(
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this number, the newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, all of them.")] = False,
) -> None:
    """Show the dead letters, the newest first, and how many there are of each reason."""
    with cassandra(load_settings()) as session:
        letters = sorted(read_dead_letters(session, reason=reason, since=since), key=lambda one: one.dead_at)[::-1]
        if as_json:
            for letter in letters:
                raw = raw_value(session, letter).decode(errors="replace")
                print(json.dumps(vars(letter) | {"raw_value": raw}, default=str))
            return
        _print([(letter, raw_value(session, letter)[: SHOWN + 1]) for letter in letters[:limit]])
    counts = Counter(letter.reason for letter in letters)
    for name, count in counts.most_common():
        print(f"{count:8,}  {plain(name)}")
    waiting = sum(letter.replayed_at is None for letter in letters)
    print(f"{counted(len(letters), 'dead letter')}, {waiting:,} of them not replayed")


@app.command("replay")
def replay_command(
    reason: Reason = None,
    since: Since = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
    as_correction: Annotated[
        bool,
        typer.Option("--as-correction", help=f"Those of {CONFLICT}: what they say corrects the tick that landed."),
    ] = False,
) -> None:
    """Send the dead letters that are valid by now to the topic again; the running stream lands each once.

    Name them by --reason, by --since, or take --all. Those that are still not valid stay, with their newest reason.
    """
    if as_correction:
        if reason not in (None, CONFLICT):
            raise ConfigurationError(
                f"--reason is {reason!r}; with --as-correction it should be {CONFLICT!r}, or left out"
            )
        reason = CONFLICT
    if not (reason or since or everything):
        raise ConfigurationError("nothing is chosen; name --reason, --since or --all")
    settings = load_settings()
    with cassandra(settings) as session:
        letters = sorted(
            read_dead_letters(session, reason=reason, since=since, replayed=False),
            # Of several that correct one tick, the one that came last is sent last.
            key=lambda one: (one.dead_at, one.partition, one.offset, one.position),
        )
        done = replay(settings, letters, session, as_correction=as_correction)
    too_large = f"; too large to be sent: {done.too_large:,}" if done.too_large else ""
    corrections = f" and {counted(done.corrections, 'correction')}" if done.corrections else ""
    print(f"sent {counted(done.ticks, 'tick')}{corrections} again; still not valid: {done.still_dead:,}{too_large}")


def _print(letters: list[tuple[StoredDeadLetter, bytes]]) -> None:
    table = Table("died at (UTC)", "place", "reason", "detail", "raw value", box=None, header_style="bold")
    for letter, beginning in letters:
        where = "message" if letter.position == WHOLE_MESSAGE else f"element {letter.position}"
        table.add_row(
            f"{letter.dead_at:%Y-%m-%d %H:%M:%S}",
            f"{letter.topic} {letter.partition}/{letter.offset}, {where}",
            plain(letter.reason) + (" (replayed)" if letter.replayed_at else ""),
            plain(letter.detail),
            plain(beginning, SHOWN),
        )
    print_table(table, 240)
