"""The command `tickledger`: its help, and every command's answer to bad words and to `--json`."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from commands.main import COMMANDS, _load, main
from tests.support.pipeline import Pipeline
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT

TICKLEDGER = str(Path(sys.executable).with_name("tickledger"))


def _all() -> Iterator[tuple[str, Any]]:
    """Every command, as it is typed, and what typer makes of it."""
    for name in (name for commands in COMMANDS.values() for name in commands):
        command = _load(name)
        nested = getattr(command, "commands", None)
        yield from ((f"{name} {one}", below) for one, below in nested.items()) if nested else [(name, command)]


ALL = dict(_all())
TABLES = [words for words, command in ALL.items() if any("--json" in one.opts for one in command.params)]
#: What a command must be told besides.
MORE = {"trace": " --sector Coal"}

BAD = {
    "nope": "No such command 'nope'",
    "--nope": "No such option: --nope",
    "services nope": "No such command 'nope'",
    "services status --instance": "Option '--instance' requires an argument",
    "services start --instance No": "--instance is 'No'; it should be demo, test or a short lower-case name",
    "services backup": "Missing argument 'folder' (tickledger services backup --help)",
    "rebuild": "Missing option '--date'",
    "rebuild --date 2026-13-01": "Invalid value for '--date': '2026-13-01' does not match",
    "trace --sector Coal --date yesterday": "Invalid value for '--date': 'yesterday' does not match",
    "trace": "Missing option '--sector'",
    "fill-hours --date soon": "Invalid value for '--date': 'soon' does not match",
    "roll-up --keep-days 0": "Invalid value for '--keep-days'",
    "roll-up --keep-days many": "Invalid value for '--keep-days'",
    "dead-letters replay": "nothing is chosen; name --reason, --since or --all",
    "dead-letters list --limit 0": "Invalid value for '--limit'",
    "dead-letters list --since soon": "Invalid value for '--since'",
    "feed try": "Missing argument",
    "feed try nowhere.yml -": "nowhere.yml is no description of a feed: No such file or directory",
    "feed try feeds/lab.yml nowhere.jsonl": "MESSAGES is nowhere.jsonl; it cannot be read: No such file or directory",
    "feed try feeds/lab.yml - --profile nowhere.csv": "nowhere.csv is no profile; it should have ticker, sector and",
    "feed try feeds/lab.yml - --limit 0": "Invalid value for '--limit'",
    "produce replay": "Missing argument",
    "produce replay a.csv t --feed nowhere.yml": "nowhere.yml is no description of a feed: No such file or directory",
    "produce replay nowhere.csv t": "FILE is nowhere.csv; it cannot be read: No such file or directory",
    "produce replay a.csv t --speed 0": "Invalid value for '--speed'",
    "produce send t --rounds 0": "Invalid value for '--rounds'",
    "produce watch t --messages few": "Invalid value for '--messages'",
    **{f"{words} --nope": "No such option: --nope" for words in ALL},
}


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of servers that are not there."""
    example = dotenv_values(PROJECT_ROOT / ".env.example")
    there = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CASSANDRA_PORT": "1", "MYSQL_PORT": "1"}
    values = {name: value or "secret" for name, value in example.items()} | there
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    for name in example:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(tmp_path / ".env"))


def run(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command, in this process."""
    monkeypatch.setattr(sys, "argv", ["tickledger", *shlex.split(words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize(("words", "says"), BAD.items(), ids=BAD)
def test_bad_words_are_one_line_and_exit_2(
    words: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(words, monkeypatch, capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith(f"error: {says}")


def test_the_help_fits_one_screen_and_has_a_line_for_each_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help", monkeypatch, capsys)
    lines = out.splitlines()
    assert (code, len(lines) <= 40, max(map(len, lines)) <= 80) == (0, True, True)
    for title, commands in COMMANDS.items():
        at = lines.index(f"{title}:") + 1
        assert [line.split()[0] for line in lines[at : at + len(commands)]] == list(commands)


@pytest.mark.parametrize("words", ALL)
def test_every_command_explains_itself(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(f"{words} --help", monkeypatch, capsys)
    assert (code, out.splitlines()[0].startswith(f"Usage: tickledger {words}")) == (0, True)
    summary = (ALL[words].help or "").splitlines()[0]
    assert len(summary) > 10


def test_the_help_imports_no_program() -> None:
    heavy = {"pyspark", "pandas", "kafka", "cassandra", "mysql", "great_expectations", "streamlit", "dbt"}
    code = f"import sys, commands.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dead", ["dead-letters"]),
        ("services sta", ["start", "status"]),
        ("trace --se", ["--sector"]),
    ],
)
def test_the_shell_completes(typed: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": f"tickledger {typed}", "COMP_CWORD": str(len(typed.split()))}
    done = subprocess.run(
        [TICKLEDGER], env=os.environ | words | {"_TICKLEDGER_COMPLETE": "complete_bash"}, capture_output=True, text=True
    )
    assert done.stdout.split() == offered


def test_each_command_that_prints_a_table_has_json() -> None:
    assert {"doctor", "reconcile", "trace", "check-contract", "dead-letters list"} <= set(TABLES)
    assert {"services start", "services status", "services topics"} <= set(TABLES)


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("words", [words for words in TABLES if words not in ("services start", "feed try")])
def test_json_is_valid_or_nothing_while_servers_are_away(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # An instance that was never started has no settings.
    instance = " --instance not-there" if words == "services status" else ""
    code, out, err = run(f"{words}{MORE.get(words, '')}{instance} --json", monkeypatch, capsys)
    if words == "doctor":
        # What it finds out is its answer, also then.
        assert (code, err) == (1, "")
        assert {one["what"] for one in json.loads(out) if not one["good"]} >= {"Kafka and topic", "Cassandra", "MySQL"}
    else:
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert "does not answer" in err or words == "services status"


@pytest.mark.integration
@pytest.mark.parametrize("words", [words for words in TABLES if not words.startswith(("services st", "feed try"))])
def test_json_is_valid_on_a_healthy_set_up(stores: Pipeline, words: str) -> None:
    if words == "trace":
        # Of a sector without a tick there is no table.
        pytest.skip("tests/test_repair.py traces what has landed")
    done = subprocess.run(
        [TICKLEDGER, *words.split(), "--json"], env=stores.environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    if words == "dead-letters list":
        assert done.stdout == ""
    else:
        assert json.loads(done.stdout) is not None
