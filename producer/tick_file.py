"""The rows of a CSV or JSON file: whatever of its layout can be told without a guess."""

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import ijson
import orjson

# Not ijson's C: an integer of 5,000 digits ends the interpreter there, and half a surrogate pair the file (ijson 3.6).
from ijson.backends import python as json_reader

from tickledger.counted import counted
from tickledger.elements import is_json
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.plain_text import plain
from tickledger.tick import TICK_FIELDS

FIELD_NAMES = tuple(field.name for field in TICK_FIELDS)
OPTIONAL = frozenset(field.name for field in TICK_FIELDS if field.optional)
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
#: What a file begins with is looked at so far to tell what it is.
HEAD_BYTES = 256 * 1024
#: A line of more characters is no row.
LINE_CHARACTERS = 16 * 1024**2
_BOM, _GZIP, _UTF16 = b"\xef\xbb\xbf", b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
#: How a JSON document that is laid out over lines may begin.
_OPENING = re.compile(rb"[\[{\s]+")


class Row(NamedTuple):
    """One row: where it stands, what it holds, and where it cannot be one, (reason, detail)."""

    place: str
    content: Any
    broken: tuple[str, str] | None = None


class OpenFile:
    """A file of rows, open. `found` says in words what it is; :meth:`rows` reads it once, in bounded memory."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError where the file cannot be read or its rows cannot be told."""
        self._path = path
        try:
            self._raw = path.open("rb", buffering=0)
            self._size = os.fstat(self._raw.fileno()).st_size
            self._stream: io.BufferedReader = io.BufferedReader(self._raw, HEAD_BYTES)
            packed = self._stream.peek(2).startswith(_GZIP)
            if packed:
                self._stream = io.BufferedReader(gzip.GzipFile(fileobj=self._stream), HEAD_BYTES)
            head = self._stream.peek(HEAD_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigurationError(f"FILE is {path}; it cannot be read: {_why(error)}") from None
        try:
            self.found, self._rows = self._recognise(head)
        except ConfigurationError:
            self.close()
            raise
        self.found += ", compressed with gzip" if packed else ""

    def rows(self) -> Iterator[Row]:
        """The rows in the file's order. Raises TickledgerError where the rest of the file cannot be read."""
        try:
            yield from self._rows
        except (OSError, EOFError, zlib.error) as error:
            raise TickledgerError(f"{self._path} cannot be read to its end: {_why(error)}") from None

    @property
    def share_read(self) -> float | None:
        """The part of the file that was read, from 0 to 1; None where it has no length. From any thread."""
        try:
            return min(1.0, self._raw.tell() / self._size) if self._size else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()

    def _recognise(self, head: bytes) -> tuple[str, Iterator[Row]]:
        if head.startswith(_UTF16):
            raise ConfigurationError(f"FILE is {self._path}; it is UTF-16 and should be UTF-8")
        begins = head.removeprefix(_BOM).lstrip()
        if not begins:
            raise ConfigurationError(f"FILE is {self._path}; it is empty and should hold ticks as CSV or JSON")
        if begins[:1] not in b"[{":
            return self._csv()
        if _is_laid_out(begins):
            if head.startswith(_BOM):
                self._stream.read(len(_BOM))
            return "a JSON document", _document_rows(self._stream)
        return "JSON lines", _json_line_rows(_text(self._stream))

    def _csv(self) -> tuple[str, Iterator[Row]]:
        text = _text(self._stream)
        skipped, line = 1, _line(text)
        while line and not line.strip():
            skipped, line = skipped + 1, _line(text)
        delimiter, names = max(((one, _header(line, one)) for one in DELIMITERS), key=lambda pair: _known(pair[1]))
        places: dict[str, int] = {}
        for at, name in enumerate(names):
            field = _FIELDS.get(_bare(name))
            if field in places:
                both = f"{names[places[field]]!r} and {name!r}"
                raise ConfigurationError(f"FILE is {self._path}; its columns {both} could both be {field}")
            if field:
                places[field] = at
        if missing := [name for name in FIELD_NAMES if name not in places and name not in OPTIONAL]:
            found = ", ".join(repr(name) for name in names)
            raise ConfigurationError(
                f"FILE is {self._path}; its first line should name the columns {', '.join(missing)}, and is"
                f" {found if len(found) <= MAX_SHOWN else found[:MAX_SHOWN] + '…'}"
            )
        return f"CSV with {DELIMITERS[delimiter]}", _csv_rows(text, delimiter, names, places, skipped)


#: Events of ijson: (kind, value).
Events: TypeAlias = Iterator[tuple[str, Any]]
#: What ijson raises: its own errors, and those of json for a text's control characters.
NOT_JSON = (ijson.JSONError, json.JSONDecodeError)
#: So much of a first line without the columns is shown.
MAX_SHOWN = 120


def _bare(name: str) -> str:
    """A column's name without what programs write differently: capitals, spaces, underscores."""
    return re.sub(r"[\W_]+", "", name).lower()


_FIELDS = {_bare(name): name for name in FIELD_NAMES}


def named(element: dict[str, Any]) -> dict[str, Any]:
    """An object with a tick's names for its keys, where theirs differ in capitals, spaces or underscores only."""
    if all(name in element for name in FIELD_NAMES):
        return element
    renamed = {_FIELDS.get(_bare(key), key): value for key, value in element.items()}
    return renamed if len(renamed) == len(element) else element


NUMBERS = tuple(field.name for field in TICK_FIELDS if field.kind in ("whole", "decimal"))
#: 1.500 is 1500 where a point parts the thousands, as it does where ";" parts the columns.
_GROUPED = re.compile(r"\s*[+-]?\d{1,3}\.\d{3}\s*")


def _known(names: list[str]) -> int:
    return sum(_bare(name) in _FIELDS for name in names)


def _header(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))]
    except csv.Error:
        return [line.strip()]


def _csv_rows(
    text: io.TextIOBase, delimiter: str, names: list[str], places: dict[str, int], skipped: int
) -> Iterator[Row]:
    reader = csv.reader(iter(lambda: _line(text), ""), delimiter=delimiter, skipinitialspace=True)
    ordered = [(name, places[name]) for name in FIELD_NAMES if name in places]
    numbers = [(name, places[name]) for name in NUMBERS if name in places]
    while True:
        first = skipped + reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place, quote = _lines(first, skipped + reader.line_num)
            yield Row(place, None, ("not_csv", f"{error}{quote}"))
            continue
        place, quote = _lines(first, skipped + reader.line_num)
        if not "".join(values).strip():
            continue
        if len(values) < len(names) or any(values[len(names) :]):
            why = f"it has {counted(len(values), 'value')} for {counted(len(names), 'column')}"
            yield Row(place, _printable(names, values), ("other_columns", why + quote))
        elif not all(value.isascii() or _is_utf8(value) for value in values):
            yield Row(place, _printable(names, values), ("bad_utf8", "it is not UTF-8"))
        elif delimiter == ";" and (grouped := [one for one in numbers if _GROUPED.fullmatch(values[one[1]])]):
            name, at = grouped[0]
            found = f"{name} is {values[at]!r}"
            why = f"{found}, which is another number where a point parts the thousands"
            yield Row(place, _printable(names, values), ("two_numbers", why))
        else:
            texts = ((name, values[at].strip()) for name, at in ordered)
            yield Row(place, {name: text for name, text in texts if text or name not in OPTIONAL})


def _lines(first: int, last: int) -> tuple[str, str]:
    """Where a row of CSV stands, and why it has more than one line."""
    if first >= last:
        return f"line {last}", ""
    return f"lines {first} to {last}", f"; a quote that line {first} opens makes one row of them"


def _json_line_rows(text: io.TextIOBase) -> Iterator[Row]:
    for number, line in enumerate(iter(lambda: _line(text), ""), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            content = orjson.loads(line.rstrip().removesuffix(","))
        except orjson.JSONDecodeError as error:
            long = len(line) > LINE_CHARACTERS
            why = (
                ("too_long", f"it is longer than {LINE_CHARACTERS:,} characters") if long else ("not_json", str(error))
            )
            yield Row(place, None if long else line.rstrip().encode(errors="backslashreplace").decode(), why)
            continue
        yield from (Row(place, element) for element in _elements(content))


def _elements(content: Any) -> list[Any]:
    """The ticks of a value: of an array its elements, of an object that is no tick the elements of its arrays."""
    if isinstance(content, list):
        return content
    arrays = [value for value in content.values() if isinstance(value, list)] if isinstance(content, dict) else []
    return [content] if not arrays or _names_a_tick(content) else [element for array in arrays for element in array]


def _names_a_tick(element: dict[str, Any]) -> bool:
    return any(_bare(name) in _FIELDS for name in element)


def _document_rows(stream: IO[bytes]) -> Iterator[Row]:
    number = 0
    try:
        for number, element in enumerate(_document_elements(stream), start=1):
            if _has_half_characters(element):
                yield Row(f"element {number}", element, ("bad_utf8", "a text holds half of a character"))
            else:
                yield Row(f"element {number}", element)
    except NOT_JSON as error:
        why = f"it is no JSON, nor can be read what follows: {plain(str(error), MAX_SHOWN)}"
        yield Row(f"element {number + 1}", None, ("not_json", why))


def _document_elements(stream: IO[bytes]) -> Iterator[Any]:
    """What :func:`_elements` finds in each value of a document, one at a time, however large the value is."""
    events = json_reader.basic_parse(stream, multiple_values=True)
    for event, value in events:
        if event == "start_array":
            yield from _array(events)
        elif event == "start_map":
            yield from _object(events)
        else:
            yield value


def _array(events: Events) -> Iterator[Any]:
    for event, value in events:
        if event == "end_array":
            return
        element = _built(event, value, events)
        yield from element if isinstance(element, list) else [element]


def _object(events: Events) -> Iterator[Any]:
    own: dict[str, Any] = {}
    arrays = False
    for event, name in events:
        if event == "end_map":
            break
        event, value = next(events)
        if event == "start_array" and not _names_a_tick(own):
            arrays = True
            yield from _array(events)
        else:
            own[name] = _built(event, value, events)
    if not arrays or _names_a_tick(own):
        yield own


def _built(event: str, value: Any, events: Events) -> Any:
    """The value that begins with an event, with the events that are its own taken from `events`."""
    builder = ijson.ObjectBuilder()
    builder.event(event, value)
    depth = int(event.startswith("start"))
    while depth:
        event, value = next(events)
        builder.event(event, value)
        depth += event.startswith("start") - event.startswith("end_")
    return builder.value


def _has_half_characters(element: Any) -> bool:
    texts = [text for pair in element.items() for text in pair if type(text) is str] if type(element) is dict else []
    return not all(text.isascii() or _is_utf8(text) for text in texts)


def _is_laid_out(begins: bytes) -> bool:
    """Whether values of JSON span lines; else each line is a value of its own, or is none."""
    first = begins.partition(b"\n")[0].rstrip()
    if is_json(first.removesuffix(b",")):
        return False
    if _OPENING.fullmatch(first):
        return True
    try:
        return any(True for _ in _document_elements(io.BytesIO(begins)))
    except NOT_JSON:
        return False


def _text(stream: io.BufferedReader) -> io.TextIOBase:
    # Bytes that are not UTF-8 become bad rows of their own, they do not end the replay.
    return io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _line(text: io.TextIOBase) -> str:
    """The next line; of one that is longer than :data:`LINE_CHARACTERS` so much, and an end. Empty at the end."""
    line = text.readline(LINE_CHARACTERS)
    if len(line) < LINE_CHARACTERS or line.endswith("\n"):
        return line
    while (rest := text.readline(LINE_CHARACTERS)) and not rest.endswith("\n"):
        pass
    return line + "\n"


def _printable(names: list[str], values: list[str]) -> dict[str, str]:
    texts = [value.encode(errors="backslashreplace").decode() for value in values]
    more = [f"column {number}" for number in range(len(names) + 1, len(values) + 1)]
    return dict(zip([*names, *more], texts, strict=False))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
