"""The elements of a message that is JSON, and where each lies in its bytes. Pure functions."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from tickledger.row_rules import json_kind

#: A message with more values than this is not read: a few kilobytes, compressed, can hold them by the hundred million.
MOST_VALUES = 1_000_000


class Unreadable(Exception):
    """A message without elements that could be told: a stable reason, and a detail for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Cut(NamedTuple):
    """Where the elements of a message lie in it, and what stands around each so that it can be read alone."""

    head: bytes
    spans: list[tuple[int, int]]
    tail: bytes

    def raw(self, value: bytes, place: int) -> bytes:
        """What a dead letter keeps of an element."""
        start, end = self.spans[place]
        return self.head + value[start:end] + self.tail

    def size(self, places: Sequence[int]) -> int:
        """The bytes of what is kept of some elements."""
        around = len(self.head) + len(self.tail)
        return sum(around + end - start for start, end in (self.spans[place] for place in places))


def with_marks(value: bytes, cut: Cut, positions: Collection[int], mark: bytes, *, are_lines: bool = False) -> bytes:
    """A message with a mark put into some of its elements: behind an object's last field, or a line's last value.

    Not written anew: as it came, no number loses a digit.
    """
    for place in sorted(positions, reverse=True):
        start, end = cut.spans[place]
        # The last values of a line may be empty, and what parts them white.
        inside = len(value[start:end].rstrip(b"\r\n")) if are_lines else len(value[start:end].rstrip()) - 1
        value = value[: start + inside] + mark + value[start + inside :]
    return value


def elements_of(value: bytes | None) -> list[Any]:
    """The elements of a message's array, at least one. Raises Unreadable."""
    if value is None:
        raise Unreadable("no_value", "the message has no value")
    require_few_values(value)
    elements = parsed(value)
    if not isinstance(elements, list):
        raise Unreadable("not_an_array", f"the message is {json_kind(elements)}; it should be an array")
    if not elements:
        raise Unreadable("empty_array", "the array holds no tick")
    return elements


def require_few_values(value: bytes, *parts: bytes) -> None:
    """Raises Unreadable for what may hold too many values; `parts` are the bytes that part or begin them."""
    # No value is shorter than a byte, so that most messages need no counting.
    if len(value) > MOST_VALUES and sum(map(value.count, parts or (b",", b"[", b"{"))) > MOST_VALUES:
        raise Unreadable("too_many_values", f"the message holds over {MOST_VALUES:,} values")


def parsed(value: bytes) -> Any:
    """What a text of JSON says. Raises Unreadable."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Unreadable(*_why_unreadable(value, error)) from None


def is_json(text: bytes) -> bool:
    """Whether a text is one value of JSON."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


#: A text, or what begins, ends and parts values. Possessive, so that a text of any length takes no memory.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{},]', re.DOTALL)
_WITH_KEYS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}:]', re.DOTALL)
_WHITE = b" \t\n\r"


def element_bytes(value: bytes) -> Iterator[bytes]:
    """The exact bytes of each element of a JSON array that orjson could read, however deep it is."""
    return (value[start:end] for start, end in array_spans(value))


def array_spans(value: bytes, path: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """From where to where each element lies of the array that JSON is, or has at a path; none if there is none."""
    begins = _array_begins(value, path) if path else 0
    if begins is None:
        return
    depth = start = 0
    for found in _STRUCTURE.finditer(value, begins):
        at = found.start()
        mark = value[at : at + 1]
        if mark in b"[{":
            depth += 1
            start = at + 1 if depth == 1 else start
        elif mark in b"]}":
            depth -= 1
        if (mark == b"," and depth == 1) or (mark == b"]" and depth == 0):
            element = value[start:at]
            yield start + len(element) - len(element.lstrip(_WHITE)), start + len(element.rstrip(_WHITE))
            start = at + 1
        if depth == 0:
            return


def _array_begins(value: bytes, path: Sequence[str]) -> int | None:
    """Where the array at a path begins: the last one, as a reader takes the last of equal keys."""
    begins = None
    text = (0, 0)
    # Of each open bracket, where the newest key lies; None in arrays.
    keys: list[tuple[int, int] | None] = []
    for found in _WITH_KEYS.finditer(value):
        at = found.start()
        mark = value[at : at + 1]
        if mark == b'"':
            text = found.span()
        elif mark == b":":
            keys[-1] = text
        elif mark in b"[{":
            if mark == b"[" and len(keys) == len(path) and _are_keys(value, keys, path):
                begins = at
            keys.append(None)
        else:
            keys.pop()
    return begins


def _are_keys(value: bytes, keys: Sequence[tuple[int, int] | None], path: Sequence[str]) -> bool:
    return all(
        key is not None and orjson.loads(value[slice(*key)]) == name for key, name in zip(keys, path, strict=True)
    )


def _why_unreadable(value: bytes, error: orjson.JSONDecodeError) -> tuple[str, str]:
    try:
        value.decode()
    except UnicodeDecodeError as bad:
        return "bad_utf8", f"byte {bad.start} is not UTF-8"
    return "not_json", str(error)
