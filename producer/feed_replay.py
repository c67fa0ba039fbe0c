"""A file of a feed's messages, read as its description says and replayed: in a tick's own names, or as it is."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from producer.bad_rows import BadRows
from producer.market import Company
from producer.replay import due
from tickledger.elements import Unreadable
from tickledger.errors import ConfigurationError
from tickledger.feed import Feed
from tickledger.feed_file import FileMessage, file_messages
from tickledger.feed_reader import FeedReader
from tickledger.row_rules import KNOWN, UNKNOWN, Broken, RowRuleBroken, extra_of


class FeedFile:
    """The ticks of a file that a feed's description tells how to read; otherwise as :class:`producer.replay.TickFile`.

    `companies` are asked for sector and shares, by ticker. With `as_it_is` each tick is the feed's own message that
    holds it alone, as bytes; else an element in a tick's names, with the fields that nobody described beside them.
    """

    def __init__(
        self,
        path: Path,
        feed: Feed,
        companies: Mapping[str, Company],
        tell: Callable[[str], None],
        *,
        as_it_is: bool = False,
    ) -> None:
        """Open the file. Raises ConfigurationError where it cannot be read."""
        self.ticks = 0
        self.bad = BadRows(path, tell)
        self._feed = feed
        sectors = {ticker: company.sector for ticker, company in companies.items()}
        self._reader = FeedReader(feed, sectors, {ticker: company.shares for ticker, company in companies.items()})
        self._as_it_is = as_it_is
        try:
            self._stream = path.open("rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise ConfigurationError(f"FILE is {path}; it cannot be read: {error.strerror}") from None
        tell(f"{path}: messages of the feed {feed.name}")

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """The good ones in the file's order, each with when it was made, in milliseconds since 1970-01-01 UTC.

        Raises TickledgerError where the rest of the file cannot be read.
        """
        try:
            for message in file_messages(self._feed, self._stream):
                yield from self._of(message)
        finally:
            self._stream.close()
            self.bad.close()

    def _of(self, message: FileMessage) -> Iterator[tuple[int, Any]]:
        try:
            elements = self._reader.elements(message.value)
        except Unreadable as error:
            shown = message.value.decode(errors="backslashreplace")
            self.bad.add(f"line {message.line}", error.reason, error.detail, shown)
            return
        cut = self._reader.cut(message.value)
        for position, element in enumerate(elements):
            raw = cut.raw(message.value, position)
            try:
                if type(element) is Broken:
                    raise RowRuleBroken(*element)
                due_ms = due(element)
                extra = extra_of(element)
            except RowRuleBroken as rule:
                place = f"line {message.line}, element {position}"
                self.bad.add(place, rule.reason, rule.detail, raw.decode(errors="backslashreplace"))
                continue
            self.ticks += 1
            yield due_ms, self._feed.message_of(raw) if self._as_it_is else self._named(element, extra)

    def _named(self, element: dict[str, Any], extra: str | None) -> dict[str, Any]:
        sent = {name: _spelt(value) for name, value in element.items() if name != UNKNOWN}
        if extra is None:
            return sent
        # A field of the feed may be called as one of a tick's is.
        unknown = {
            name if name not in KNOWN else f"{self._feed.name}.{name}": value
            for name, value in element[UNKNOWN].items()
        }
        return {name: orjson.Fragment(orjson.dumps(value, default=_spelt)) for name, value in unknown.items()} | sent

    def progress(self) -> str:
        """How much of the file was read, in words; empty where nobody knows. From any thread."""
        try:
            return f"{min(1.0, self._stream.tell() / self._size):.0%} of the file" if self._size else ""
        except (OSError, ValueError):
            return ""


def _spelt(value: Any) -> Any:
    return orjson.Fragment(str(value)) if type(value) is Decimal else value
