"""A file of a feed's messages, cut into messages as the feed's description says. Bounded memory, whatever its size."""

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from tickledger.elements import is_json
from tickledger.errors import TickledgerError
from tickledger.feed import Feed

#: So many lines of CSV, or of JSON lines, make one message.
LINES_A_MESSAGE = 500
#: A message of more bytes is cut off, and so is dead; a document of JSON is read whole up to this.
MOST_MESSAGE_BYTES = 64 * 2**20
_GZIP = b"\x1f\x8b"


class FileMessage(NamedTuple):
    """A message, and the line of the file in which it begins, from 1."""

    line: int
    value: bytes


def file_messages(feed: Feed, stream: IO[bytes]) -> Iterator[FileMessage]:
    """The messages of a file: one a line, or all of it where a line is none; of CSV and JSON lines, some lines each.

    Raises TickledgerError where the file cannot be read to its end.
    """
    try:
        buffered = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
        peek = getattr(buffered, "peek", None)
        if peek is not None and peek(2)[:2] == _GZIP:
            buffered = io.BufferedReader(gzip.GzipFile(fileobj=buffered))
        yield from _messages(feed, buffered)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise TickledgerError(f"the file cannot be read to its end: {why}") from None


def _messages(feed: Feed, stream: IO[bytes]) -> Iterator[FileMessage]:
    lines = enumerate(iter(lambda: stream.readline(MOST_MESSAGE_BYTES), b""), start=1)
    if feed.messages == "csv":
        yield from _csv_messages(feed, lines)
    elif feed.messages == "lines":
        while some := list(itertools.islice(lines, LINES_A_MESSAGE)):
            if value := b"".join(line for _, line in some).strip():
                yield FileMessage(some[0][0], value)
    else:
        yield from _json_messages(lines)


def _json_messages(lines: Iterator[tuple[int, bytes]]) -> Iterator[FileMessage]:
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    number, line = first
    if not is_json(line):
        # No message by itself: the file is one, laid out over lines, or its lines are as broken as the first.
        rest = list(_up_to(lines, MOST_MESSAGE_BYTES))
        document = b"".join((line, *(more for _, more in rest)))
        if is_json(document):
            yield FileMessage(number, document.strip())
            return
        lines = itertools.chain(rest, lines)
    for at, value in itertools.chain([(number, line)], lines):
        if value.strip():
            yield FileMessage(at, value.strip())


def _up_to(lines: Iterator[tuple[int, bytes]], most: int) -> Iterator[tuple[int, bytes]]:
    size = 0
    for number, line in lines:
        size += len(line)
        yield number, line
        if size > most:
            return


def _csv_messages(feed: Feed, lines: Iterator[tuple[int, bytes]]) -> Iterator[FileMessage]:
    """Rows of CSV, which a quote may lay out over lines, behind the line that names the columns."""
    header = b""
    if feed.csv.columns is None:
        header = next((line for _, line in lines if line.strip()), b"").removeprefix(b"\xef\xbb\xbf")
        header = header if header.endswith(b"\n") or not header else header + b"\n"
    waiting: list[bytes] = []
    begins, size = 0, 0
    for number, line in lines:
        begins = begins or number
        waiting.append(line)
        size += len(line)
        if _is_enough(feed, waiting) or size > MOST_MESSAGE_BYTES:
            yield FileMessage(begins, header + b"".join(waiting))
            waiting, begins, size = [], 0, 0
    if b"".join(waiting).strip():
        yield FileMessage(begins, header + b"".join(waiting))
    elif header and not begins:
        yield FileMessage(1, header)


def _is_enough(feed: Feed, lines: list[bytes]) -> bool:
    """Whether some lines make a message: a row that a quote lays out over lines is not parted, unless it never ends."""
    if len(lines) % LINES_A_MESSAGE:
        return False
    reader = csv.reader((line.decode("utf-8", "replace") for line in lines), delimiter=feed.csv.delimiter, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        return len(lines) > 10 * LINES_A_MESSAGE or "unexpected end of data" not in str(error)
    return True
