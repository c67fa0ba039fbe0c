"""The rows of a file that are not sent: the first few told, all counted by reason and kept in a file beside."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import orjson

#: So many bad rows are told one by one; the rest are summed up at the end.
FIRST_ROWS = 5


class BadRows:
    """Bad rows of `path`. They go to `file`, which is made for the first one and replaces that of an earlier replay.

    One JSON object a line: place, reason, detail, and the row as it was read.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.file = path.with_name(f"{path.name}.bad.jsonl")
        self._path = path
        self._tell = tell
        self._out: IO[bytes] | None = None

    def add(self, place: str, reason: str, detail: str, row: Any) -> None:
        """Count one, keep it, and tell it where it is one of the first."""
        self.counts[reason] += 1
        count = self.counts.total()
        if count == 1:
            self._open()
        if count <= FIRST_ROWS:
            self._tell(f"{self._path}, {place}: {detail}")
        if self._out is not None:
            line = _line({"place": place, "reason": reason, "detail": detail, "row": row})
            with self._told_errors():
                self._out.write(line)

    def close(self) -> None:
        """Write what waits to be written."""
        if self._out is not None:
            with self._told_errors():
                self._out.close()

    def summary(self) -> str:
        """How many there are of each reason, and where they stand."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())
        return reasons + (f"; they stand in {self.file}" if self._out is not None else "")

    def _open(self) -> None:
        with self._told_errors():
            self._out = self.file.open("wb")

    @contextmanager
    def _told_errors(self) -> Iterator[None]:
        """A folder that is read-only or a disk that is full costs the file, not the replay."""
        try:
            yield
        except OSError as error:
            self._out = None
            self._tell(f"the bad rows are not kept: {self.file} cannot be written: {error.strerror}")


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry, default=_number, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # Nested deeper than it writes, or with a number beyond 64 bits.
        return orjson.dumps(entry | {"row": _spelt(entry["row"])}, option=orjson.OPT_APPEND_NEWLINE)


def _spelt(row: Any) -> str | None:
    """A row in Python's words; None where it is nested so deep that Python has none either."""
    try:
        return repr(row)
    except RecursionError:
        return None


def _number(value: Any) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError
