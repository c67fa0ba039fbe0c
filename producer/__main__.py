"""The command line: `python -m producer TOPIC`, `… replay FILE TOPIC`, `… watch TOPIC`."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from producer.companies import CompanyWatch, read_companies, read_ladder
from producer.feed_replay import FeedFile
from producer.market import Market
from producer.pace import rounds
from producer.progress import Progress
from producer.publish import Publisher
from producer.replay import TickFile, messages_in_time
from producer.revise import Reviser
from producer.tick_ids import tick_ids
from producer.watch import watch
from tickledger.command_line import run_app
from tickledger.counted import counted
from tickledger.errors import ConfigurationError, TickledgerError, TopicMissing
from tickledger.feed import read_feed
from tickledger.here import RUN
from tickledger.settings import Account, Settings, load_settings
from tickledger.stopping import stop_on_signals
from tickledger.topic import describe_topic

DEFAULT_COMMAND = "send"


class TopicFirst(TyperGroup):
    """A group of commands in which a first word that is no command is the topic of `send`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `send` in front where no command is named."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=TopicFirst,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Make ticks and send them to Kafka. `python -m producer TOPIC` is short for `python -m producer send TOPIC`.",
    rich_markup_mode=None,
)

Topic = Annotated[str, typer.Argument(help="The Kafka topic. It must exist.", metavar="TOPIC", show_default=False)]
Summary = Annotated[
    Path | None,
    typer.Option(
        help="Also write the totals as JSON to this file.", metavar="FILE", dir_okay=False, show_default=False
    ),
]


@app.command()
def send(
    topic: Topic,
    rounds_per_second: Annotated[
        float, typer.Option(min=0, help="Messages a second, one tick per company in each; 0: as fast as possible.")
    ] = 1.0,
    rounds_to_send: Annotated[
        int | None,
        typer.Option("--rounds", min=1, help="End after this many rounds instead of at Ctrl-C.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed makes the same prices and volumes.", show_default=False)
    ] = None,
    corrections: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="SHARE", help="The share of ticks that are corrected or cancelled later."),
    ] = 0.0,
    summary: Summary = None,
) -> None:
    """Send made-up ticks; the default command.

    Each message is an array with one tick for every company in `profile`; one that is seeded meanwhile trades within
    seconds. Ctrl-C sends what is waiting and ends.
    """
    settings = load_settings()
    if topic == settings.kafka_topic and settings.feed_file is not None and not settings.feed_file.reads_the_labs:
        raise ConfigurationError(
            f"TOPIC is {topic!r}, whose messages are of the feed {settings.feed_file.name!r}: FEED_FILE should be none,"
            " or replay a file of that feed"
        )
    stopping = stop_on_signals(threading.Event(), second_ends=True)
    profile = CompanyWatch(settings, stopping)
    market, ids = Market(profile.companies, read_ladder(settings), seed), tick_ids()
    reviser = Reviser(corrections, seed) if corrections else None

    def trade() -> list[dict[str, Any]]:
        market.follow(profile.companies)
        now = _now()
        ticks = market.trade(now, ids)
        return ticks if reviser is None else reviser.revise(ticks, now)

    messages = (trade() for _ in rounds(rounds_per_second, rounds_to_send, stopping))
    _deliver(settings, topic, messages, stopping, summary)


@app.command()
def replay(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with a header, or JSON: lines, an array, pretty-printed; also gzipped.", show_default=False
        ),
    ],
    topic: Topic,
    speed: Annotated[
        float, typer.Option(min=0.001, help="1: at the pace of created_at; 2: twice as fast; and so on.")
    ] = 1.0,
    as_fast_as_possible: Annotated[
        bool, typer.Option("--as-fast-as-possible", help="Do not wait at all.", show_default=False)
    ] = False,
    feed: Annotated[
        Path | None,
        typer.Option(
            help="The description to read FILE by, as in feeds/vendor-csv.yml. Else FEED_FILE, if it is set.",
            show_default=False,
        ),
    ] = None,
    summary: Summary = None,
) -> None:
    """Send the ticks of a file.

    Columns: id, created_at, volume, market_cap, ticker, price, sector, in any order, with others beside them.
    created_at is 2024-08-25 07:04:45.123 or ISO 8601, UTC where it names no offset. docs/replay.md has the rest. With
    --feed FILE is what that description says, and becomes such ticks; with FEED_FILE it is sent as it is.

    Ticks keep their id and created_at, so that a second replay of a file lands nothing twice. Bad rows are left out,
    counted by reason and kept in FILE.bad.jsonl; then the exit code is 1.
    """
    settings = load_settings()
    ticks = _tick_file(settings, file, feed)
    stopping = stop_on_signals(threading.Event(), second_ends=True)
    messages = messages_in_time(iter(ticks), None if as_fast_as_possible else speed, stopping)
    _deliver(settings, topic, messages, stopping, summary, ticks.progress)
    ticks.bad.close()
    if bad := ticks.bad.counts.total():
        raise TickledgerError(
            f"{bad:,} of {counted(bad + ticks.ticks, 'row')} of {file} were bad and not sent: {ticks.bad.summary()}"
        )


@app.command("watch")
def watch_topic(
    topic: Topic,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest message, not with the next one.")
    ] = False,
    messages: Annotated[
        int | None, typer.Option(min=1, help="End after this many messages instead of at Ctrl-C.", show_default=False)
    ] = None,
) -> None:
    """Print what arrives in a topic.

    One line a message: time (UTC), partition, offset and value.
    """
    settings = load_settings()
    _require_topic(settings, topic, settings.kafka)
    stopping = stop_on_signals(threading.Event(), second_ends=True)
    with contextlib.closing(watch(settings, topic, from_beginning=from_beginning, stopping=stopping)) as lines:
        print(next(lines), file=sys.stderr, flush=True)
        for line in islice(lines, messages):
            print(line, flush=True)


def _tick_file(settings: Settings, file: Path, described: Path | None) -> TickFile | FeedFile:
    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    feed = settings.feed_file if described is None else read_feed(described)
    if feed is None:
        return TickFile(file, tell)
    if settings.feed_file not in (None, feed):
        raise ConfigurationError(
            f"--feed is {described}, and FEED_FILE describes another feed: the topic's messages are of that one"
        )
    companies = {company.ticker: company for company in read_companies(settings)} if feed.needs_profile else {}
    return FeedFile(file, feed, companies, tell, as_it_is=settings.feed_file is not None)


def _deliver(
    settings: Settings,
    topic: str,
    messages: Iterable[list[Any]],
    stopping: threading.Event,
    summary: Path | None,
    source: Callable[[], str] = str,
) -> None:
    """Send the messages, wait for every acknowledgement, and say what became of them, whatever happens."""
    _require_topic(settings, topic, settings.producer_kafka)
    publisher = Publisher(settings, topic, stopping)
    try:
        with Progress(publisher, source):
            for ticks in messages:
                if isinstance(ticks[0], bytes):
                    for value in ticks:
                        publisher.send_value(value, 1)
                else:
                    publisher.send(ticks)
            publisher.flush()
    finally:
        publisher.close()
        print(f"sent {publisher.totals}", flush=True)
        if summary:
            _write_summary(summary, publisher.totals.as_json())


def _write_summary(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise TickledgerError(f"cannot write the summary {path}: {error.strerror}") from None


def _require_topic(settings: Settings, topic: str, account: Account) -> None:
    """Raises ConfigurationError where the topic is missing: a producer that creates topics hides typing errors."""
    try:
        describe_topic(settings.model_copy(update={"kafka_topic": topic}), account)
    except TopicMissing:
        raise ConfigurationError(
            f"TOPIC is {topic!r}; it should be a topic of {settings.kafka_bootstrap_servers}"
            f" ('{RUN}tickledger services topics' lists them)"
        ) from None


def _now() -> str:
    """The time as a tick's created_at: UTC, cut off to the millisecond."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "milliseconds")


if __name__ == "__main__":
    run_app(app, "python -m producer")
