"""What strangers wrote is plain text in each command and error line that shows it."""

import io
import threading
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import demo
from commands import dead_letters, doctor
from commands import services as services_command
from commands.reconcile import Books, print_books
from expectations.command import _console, _table
from producer.watch import _line
from services import prompts
from services.mysql_server import MySQLServer
from streaming.check_landed import BatchChecks
from tests.support.hostile import HOSTILE
from tickledger.errors import ConfigurationError, StoreUnavailable, exit_with
from tickledger.plain_text import plain, print_table
from tickledger.retry_policy import GaveUp, RetryPolicy
from tickledger.settings import PROJECT_ROOT, load_settings

EXAMPLE = load_settings(PROJECT_ROOT / ".env.example")
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
    print_books(Books(given_up=[f"given up: {value}"]), Console(width=300))
    assert is_plain(capsys.readouterr().out, value)


@EACH
def test_a_check_tells_what_it_observed_as_plain_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict: Any = SimpleNamespace(batch_id=1)
    found: Any = SimpleNamespace(expectation="a.b", severity="warning", held=False, observed=value, expected=value)
    _console().print(_table(verdict, (found,)))
    assert is_plain(capsys.readouterr().out, value)


@EACH
def test_what_a_stream_waits_for_is_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    stopping = threading.Event()

    def away_twice() -> None:
        if said:
            stopping.set()
        said.append("")
        raise StoreUnavailable(f"MySQL: {value}")

    said: list[str] = []
    with pytest.raises(GaveUp):
        RetryPolicy(60, stopping).call(away_twice)
    line = capsys.readouterr().out
    assert line.startswith("waiting: ")
    assert line.count("\n") == 1
    assert is_plain(line, value)


@EACH
def test_what_checks_complain_of_is_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks = BatchChecks(EXAMPLE, RetryPolicy(0, threading.Event()), lambda _: None)
    checks._say_once(f"batch 1 stays unchecked: {value}")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert is_plain(said, value)


@EACH
def test_the_demo_shows_its_parts_and_what_differs_as_plain_text(
    value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    demo.print_summary(0, Books(), Books(), [value])
    assert is_plain(capsys.readouterr().out, value)
    part: Any = SimpleNamespace(name="stream", log=tmp_path / "log", ready=threading.Event())
    demo._copy(part, io.StringIO(value), "", quiet=False)
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    assert all(plain(line.rstrip()) in said for line in io.StringIO(value))


@EACH
def test_a_fact_of_the_doctor_is_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    doctor._print(Console(soft_wrap=True), doctor.Fact("ledger", value, value))
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert said.count(plain(value)) == 2


@EACH
def test_the_log_of_a_server_that_died_is_shown_as_plain_text(value: str, tmp_path: Path) -> None:
    said: list[str] = []
    server = MySQLServer(tmp_path, EXAMPLE, said.append)
    server.log_file.parent.mkdir()
    server.log_file.write_text(value)
    server._failure("died")
    assert all(line.isprintable() for line in said)
    assert all(plain(line) in shown for line, shown in zip(value.splitlines(), said, strict=True))


@EACH
def test_the_state_of_a_server_is_plain_text(value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server = MySQLServer(tmp_path, EXAMPLE, print)
    print_table(services_command._table(services_command._rows([server], {"mysql": value})), width=400)
    assert is_plain(capsys.readouterr().out, value)


@EACH
def test_a_topic_is_listed_as_plain_text(
    value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "topics", lambda _: {value: 2})
    monkeypatch.setattr(services_command, "load_settings", lambda: EXAMPLE)
    services_command.topics()
    assert is_plain(capsys.readouterr().out, value)
