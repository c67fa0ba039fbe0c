"""Ticks from a file, at their own pace or another."""

import csv
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from producer.pace import wait_until
from tickledger.errors import ConfigurationError
from tickledger.row_rules import RowRuleBroken, RowRules
from tickledger.tick import TICK_FIELDS

CSV_SUFFIX = ".csv"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
#: Keeps a message well below the 1 MiB that Kafka takes: a tick has some hundred bytes, texts are bounded.
MAX_TICKS_A_MESSAGE = 1_000

FIELD_NAMES = tuple(field.name for field in TICK_FIELDS)
_NUMBERS = frozenset(field.name for field in TICK_FIELDS if field.kind in ("whole", "decimal"))


class TickFile:
    """The ticks of a CSV file (first line: the field names) or of JSON lines (a tick or an array of ticks a line).

    A tick keeps its id and created_at, so that the ledger counts a second replay of a file as duplicates. What
    breaks a row rule that needs no profile (not readable, a field missing, of the wrong type or out of range) is
    left out, counted in `bad` and told to `report`. `ticks` counts the others.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        """Open the file. Raises ConfigurationError where it cannot be read, or is neither CSV nor JSON lines."""
        self.bad = 0
        self.ticks = 0
        self._path = path
        self._report = report
        self._rules = RowRules({})
        if path.suffix.lower() not in (CSV_SUFFIX, *JSON_SUFFIXES):
            raise ConfigurationError(
                f"FILE is {path}; its name should end in {CSV_SUFFIX} or {', '.join(JSON_SUFFIXES)}"
            )
        try:
            # Bytes that are not UTF-8 become bad lines of their own, they do not end the replay.
            self._file = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
        except OSError as error:
            raise ConfigurationError(f"FILE is {path}; it cannot be read: {error.strerror}") from None
        self._elements = self._csv() if path.suffix.lower() == CSV_SUFFIX else self._json_lines()

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The good ticks in the file's order, each with its created_at in milliseconds since 1970-01-01 UTC."""
        with self._file:
            for line, element in self._elements:
                now_ms = time.time_ns() // 1_000_000
                try:
                    tick = self._rules.tick(element, now_ms)
                except RowRuleBroken as rule:
                    # The ledger judges what depends on the profile; all else is for whoever wrote the file.
                    if rule.tick is None:
                        self._bad(line, rule.detail)
                        continue
                    tick = rule.tick
                self.ticks += 1
                yield tick.created_ms, {name: element[name] for name in FIELD_NAMES}

    def _csv(self) -> Iterator[tuple[int, Any]]:
        rows = csv.DictReader(self._file)
        try:
            header = rows.fieldnames or ()
        except csv.Error:
            header = ()
        missing = [name for name in FIELD_NAMES if name not in header]
        if missing:
            self._file.close()
            raise ConfigurationError(
                f"FILE is {self._path}; its first line should name the columns {', '.join(missing)}"
            )
        return self._csv_rows(rows)

    def _csv_rows(self, rows: "csv.DictReader[str]") -> Iterator[tuple[int, Any]]:
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                self._bad(rows.reader.line_num, str(error))
                continue
            values = {name: row[name] for name in FIELD_NAMES}
            if any(value and not _is_utf8(value) for value in values.values()):
                self._bad(rows.reader.line_num, "it is not UTF-8")
                continue
            yield (
                rows.reader.line_num,
                {name: _number(value) if name in _NUMBERS else value for name, value in values.items()},
            )

    def _json_lines(self) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(self._file, start=1):
            if not line.strip():
                continue
            try:
                content = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                self._bad(number, str(error))
                continue
            for element in content if isinstance(content, list) else [content]:
                yield number, element

    def _bad(self, line: int, why: str) -> None:
        self.bad += 1
        self._report(f"{self._path}, line {line}: {why}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(text: str | None) -> Any:
    """A CSV field as the number it spells; as it is where it spells none, for the row rules to refuse."""
    try:
        value = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return text
    return value if type(value) is int or (type(value) is float and math.isfinite(value)) else text


def messages_in_time(
    ticks: Iterator[tuple[int, dict[str, Any]]], speed: float | None, stopping: threading.Event
) -> Iterator[list[dict[str, Any]]]:
    """Messages, each when it is due: neighbours of one created_at together, at most a thousand.

    `speed` 2 is twice as fast as the ticks were made; None does not wait. Ticks older than those before them follow
    at once.
    """
    started = time.monotonic()
    first_ms: int | None = None
    for created_ms, group in itertools.groupby(ticks, key=lambda pair: pair[0]):
        first_ms = created_ms if first_ms is None else first_ms
        due = started + (created_ms - first_ms) / 1000 / speed if speed else started
        while message := [tick for _, tick in itertools.islice(group, MAX_TICKS_A_MESSAGE)]:
            if not wait_until(due, stopping):
                return
            yield message
