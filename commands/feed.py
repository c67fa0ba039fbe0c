"""`tickledger feed list|try`: the descriptions of feeds, and what messages would become under one. Needs no server."""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.table import Table

from tickledger.command_line import print_json
from tickledger.counted import counted
from tickledger.decode import DeadLetter, Decoder
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.feed import Feed, read_feed
from tickledger.feed_file import FileMessage, file_messages
from tickledger.ledger import Company
from tickledger.plain_text import plain, print_table
from tickledger.revisions import Revision, TickValues
from tickledger.settings import PROJECT_ROOT
from tickledger.tick import WHOLE_MESSAGE, Tick, ms_to_datetime

FOLDER = PROJECT_ROOT / "feeds"
PROFILE = PROJECT_ROOT / "dbt_project" / "seeds" / "profile.csv"
#: How much of a text a table shows, and how many unknown fields are listed.
SHOWN, MOST_FIELDS = 60, 100

app = typer.Typer(
    help="See the descriptions of feeds, and what messages would become under one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@dataclass(frozen=True)
class Outcome:
    """What one element would become: a tick, a correction, a cancellation, or a dead letter with its reason.

    `line` is that of the file in which its message begins, `position` its place in the message, None of the message
    itself. Of a cancellation only the key is there.
    """

    line: int
    position: int | None
    becomes: str
    tick: dict[str, Any] = field(default_factory=dict)
    extra: str | None = None
    reason: str | None = None
    detail: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What is there of it."""
        return {name: value for name, value in vars(self).items() if value not in (None, {})}


@dataclass
class Tried:
    """What messages would become, in all: by kind, by reason, and how many elements have each unknown field."""

    messages: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        """Count one in."""
        self.kinds[outcome.becomes] += 1
        if outcome.reason:
            self.reasons[outcome.reason] += 1
        if outcome.extra:
            for name in json.loads(outcome.extra):
                if name in self.unknown or len(self.unknown) < MOST_FIELDS:
                    self.unknown[name] += 1


def outcomes(
    feed: Feed, messages: Iterator[FileMessage], companies: dict[str, Company], now_ms: int
) -> Iterator[tuple[FileMessage, list[Outcome]]]:
    """Each message, and what becomes of it if Kafka has it at `now_ms`, in milliseconds since 1970-01-01 UTC."""
    sectors = {ticker: company.sector for ticker, company in companies.items()}
    decoder = Decoder(sectors, feed=feed, shares={ticker: company.shares for ticker, company in companies.items()})
    for message in messages:
        decoded = decoder.decode(message.value, now_ms)
        found = [_of_a_tick(message.line, position, tick) for position, tick in decoded.ticks]
        found += [_of_a_revision(message.line, position, one) for position, one in decoded.revisions]
        found += [_of_a_dead_letter(message.line, letter) for letter in decoded.dead]
        yield message, sorted(found, key=lambda one: -1 if one.position is None else one.position)


def _of_a_tick(line: int, position: int, tick: Tick) -> Outcome:
    return Outcome(line, position, "tick", _shown(tick, _values(tick)), tick.extra)


def _of_a_revision(line: int, position: int, one: Revision) -> Outcome:
    shown = _shown(one, {} if one.values is None else _values(one.values))
    shown["revised_at"] = str(ms_to_datetime(one.revised_ms))
    return Outcome(line, position, str(one.kind), shown, one.extra)


def _shown(one: Tick | Revision, values: dict[str, Any]) -> dict[str, Any]:
    return {"ticker": one.ticker, "created_at": str(ms_to_datetime(one.created_ms)), "id": one.id, **values}


def _values(one: Tick | TickValues) -> dict[str, Any]:
    return {"volume": one.volume, "price": one.price, "market_cap": one.market_cap, "sector": one.sector}


def _of_a_dead_letter(line: int, letter: DeadLetter) -> Outcome:
    position = None if letter.position == WHOLE_MESSAGE else letter.position
    return Outcome(line, position, "dead letter", reason=letter.reason, detail=letter.detail)


def seeded_companies(path: Path = PROFILE) -> dict[str, Company]:
    """The companies of the seed `profile`, by ticker. Raises ConfigurationError where the file is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["ticker"]: Company(row["sector"], int(row["shares"])) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        raise ConfigurationError(
            f"{path} is no profile; it should have ticker, sector and shares of companies"
        ) from None


@app.command("list")
def list_command() -> None:
    """Show the ready descriptions in feeds/, to be used or copied: FEED_FILE names one."""
    table = Table("file", "feed", "a message is", "corrections", "unknown fields", box=None, header_style="bold")
    for path in sorted(FOLDER.glob("*.yml")):
        feed = read_feed(path)
        of = f"an object, ticks at {feed.ticks}" if feed.ticks else feed.messages
        marks = "-" if feed.revision is None else feed.revision.path
        table.add_row(*map(plain, (path.relative_to(PROJECT_ROOT), feed.name, of, marks, feed.unknown_fields)))
    print_table(table)


@app.command("try")
def try_command(
    file: Annotated[Path, typer.Argument(help="The feed's description, as in feeds/binance.yml.", show_default=False)],
    messages: Annotated[
        Path,
        typer.Argument(
            help="One message a line, or one JSON document; CSV and JSON lines as they are; also gzipped. -: stdin.",
            show_default=False,
        ),
    ],
    profile: Annotated[
        Path, typer.Option(help="The companies: a CSV with ticker, sector and shares.", show_default="the seed")
    ] = PROFILE,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many elements; all are counted.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an element, a line each.")] = False,
) -> None:
    """Show what messages would become, before anything is landed. Asks no server.

    Companies are those of the seed dbt_project/seeds/profile.csv, or of --profile. Messages count as sent now, and
    whether a tick has landed before, nobody asks. Exit code 1 if there is a dead letter, or no message.
    """
    feed, companies = read_feed(file), seeded_companies(profile)
    tried = Tried()
    shown: list[Outcome] = []
    with closing(_opened(messages)) as stream:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        for _, found in outcomes(feed, file_messages(feed, stream), companies, now_ms):
            tried.messages += 1
            for outcome in found:
                tried.add(outcome)
                if as_json:
                    print_json(outcome.as_json())
                elif len(shown) < limit:
                    shown.append(outcome)
    if not as_json:
        _print(feed, tried, shown)
    if dead := tried.kinds["dead letter"]:
        raise TickledgerError(f"{counted(dead, 'dead letter')}: {_counts(tried.reasons)}")
    if not tried.messages:
        raise TickledgerError(f"{messages} holds no message")


def _opened(path: Path) -> IO[bytes]:
    if str(path) == "-":
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"MESSAGES is {path}; it cannot be read: {error.strerror}") from None


def _print(feed: Feed, tried: Tried, shown: list[Outcome]) -> None:
    names = ("ticker", "created_at", "id", "volume", "price", "market_cap", "sector", "revised_at")
    table = Table("line", "element", "becomes", *names, "", box=None, header_style="bold")
    for one in shown:
        position = "message" if one.position is None else str(one.position)
        values = [plain(one.tick.get(name, ""), SHOWN) for name in names]
        told = f"{one.reason}: {one.detail}" if one.reason else one.extra or ""
        table.add_row(str(one.line), position, one.becomes, *values, plain(told, 2 * SHOWN))
    print_table(table, 240)
    if (more := tried.kinds.total() - len(shown)) > 0:
        print(f"… and {more:,} more")
    print(f"{plain(feed.name)}: {counted(tried.messages, 'message')} would become {_kinds(tried.kinds) or 'nothing'}")
    if tried.unknown:
        print(f"fields that nobody described, kept in the column extra: {_counts(tried.unknown)}")
    if "price_times_shares" in (source.computed for source in feed.fields.values()):
        print("market_cap is price times the shares of the profile")


def _kinds(kinds: Counter[str]) -> str:
    return ", ".join(counted(count, kind) for kind, count in kinds.most_common())


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {plain(name, SHOWN)}" for name, count in counts.most_common())
