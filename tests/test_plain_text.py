"""What strangers wrote is plain text in each command and error line that shows it."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from commands import dead_letters
from commands.reconcile import Books, print_books
from expectations.command import _console, _table
from producer.watch import _line
from services import prompts
from tests.support.hostile import HOSTILE
from tickledger.errors import ConfigurationError, exit_with
from tickledger.plain_text import plain

EACH = pytest.mark.parametrize("value", HOSTILE.values(), ids=list(HOSTILE))


def is_plain(said: str, value: str) -> bool:
    """Whether nothing in it is obeyed, and the value stands in it letter by letter if it wraps nowhere."""
    return all(line.isprintable() for line in said.split("\n")) and plain(value).split()[0] in said


@EACH
def test_plain_text_is_one_line_that_nothing_obeys(value: str) -> None:
    assert plain(value).isprintable()
    assert plain(value.encode()) == plain(value)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"a": 1}', '{"a": 1}'),
        (b"<b>*x*</b>", "<b>*x*</b>"),
        (b"\xff\x00a\n", r"\xff\x00a\n"),
        ("“ü”\u202e".encode(), r"“ü”\u202e"),
        (b"x" * 301, "x" * 300 + "…"),
        (b"", ""),
        (7, "7"),
    ],
)
def test_what_can_be_read_stays_as_it_is(raw: object, shown: str) -> None:
    assert plain(raw, 300) == shown


@EACH
def test_dead_letters_are_listed_as_plain_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime(2026, 11, 28)
    letter = dead_letters.StoredDeadLetter("ticks", 0, 0, 7, 0, "not_json", value, now, None)
    dead_letters._print([(letter, value.encode())])
    assert is_plain(capsys.readouterr().out, value)


@EACH
def test_a_prompt_prints_rows_as_plain_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    prompts._print_rows([value], [[value], [value.encode()], [None]])
    said = capsys.readouterr().out
    assert is_plain(said, value)
    assert "NULL" in said


@EACH
def test_a_watched_message_is_one_line(value: str) -> None:
    line = _line(SimpleNamespace(timestamp=0, partition=1, offset=2, value=value.encode()))
    assert "\n" not in line
    assert is_plain(line, value)
    assert _line(SimpleNamespace(timestamp=0, partition=1, offset=2, value=None)).endswith("(no value)")


@EACH
def test_an_error_is_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        exit_with(ConfigurationError(f"SETTING is {value}"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert is_plain(said, value)


@EACH
def test_a_difference_between_the_stores_is_plain_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_books(Books(differences=[f"2026-11-28, {value}: 1 share"]), Console(width=300))
    assert is_plain(capsys.readouterr().out, value)


@EACH
def test_a_check_tells_what_it_observed_as_plain_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict: Any = SimpleNamespace(batch_id=1)
    found: Any = SimpleNamespace(expectation="a.b", severity="warning", held=False, observed=value, expected=value)
    _console().print(_table(verdict, (found,)))
    assert is_plain(capsys.readouterr().out, value)
