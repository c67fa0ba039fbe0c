"""Every command, and what it does if a store is down, holds no tables, refuses the account, or is lost half-way.

It says one line on stderr and ends with its exit code, without a traceback. What the stream does at its start stands in
tests/test_bad_settings.py.
"""

import io
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from commands.main import main as tickledger
from expectations.command import main as great_expectations
from services.instance import Instance
from tests.support.gate import Gate
from tests.support.pipeline import Pipeline, fresh_pipeline, run_tickledger
from tickledger.contract import CONTRACT_TABLES, SEEDS
from tickledger.settings import Settings
from tickledger.tick import CASSANDRA_TABLES

pytestmark = pytest.mark.integration

MYSQL, CASSANDRA = "MySQL", "Cassandra"
DOWN, NO_TABLES, DENIED, LOST = "down", "no tables", "denied", "lost half-way"


class Command(NamedTuple):
    """What is typed, and for each store that it uses the words of a request half-way, at which the store is lost."""

    words: str
    stores: dict[str, str]
    typed: str = ""


COMMANDS = (
    Command("reconcile", {MYSQL: "FROM landed_batches", CASSANDRA: "FROM real_time_data"}),
    Command("trace --sector Coal", {MYSQL: "FROM aggregated_data"}),
    Command("rebuild --date 2026-03-02", {MYSQL: "FOR UPDATE", CASSANDRA: "FROM real_time_data"}),
    Command("fill-hours", {MYSQL: "FROM filled_days", CASSANDRA: "FROM real_time_data"}),
    Command("roll-up", {MYSQL: "rolled_up_at IS NOT NULL"}),
    Command("dead-letters list", {CASSANDRA: "FROM dead_letters"}),
    Command("dead-letters replay --all", {MYSQL: "FROM profile", CASSANDRA: "FROM dead_letters"}),
    Command("give-up", {MYSQL: "FROM landed_batches"}),
    Command("check-contract", {MYSQL: "SHOW CREATE", CASSANDRA: "system_schema.tables"}),
    Command("doctor", {MYSQL: "SHOW CREATE", CASSANDRA: "release_version FROM system.local"}),
    Command("services sql", {MYSQL: "FROM landed_batches"}, "SELECT * FROM landed_batches;"),
    Command("services cql", {CASSANDRA: "FROM dead_letters"}, "SELECT * FROM dead_letters;"),
    Command("produce send {topic} --rounds 1", {MYSQL: "FROM profile"}),
    Command("checkpoint run landed_batch", {MYSQL: "FROM landed_batches", CASSANDRA: "FROM real_time_data"}),
)
#: What the line says. doctor and check-contract say it on stdout instead; a prompt shows the server's own error.
SAYS = {
    (MYSQL, DOWN): "MySQL at .* does not answer",
    (MYSQL, NO_TABLES): "MYSQL_DATABASE is .* refuses a statement: .*exist.* 'dbt seed' and 'dbt run' make",
    (MYSQL, DENIED): r"\w*MYSQL_USER is .* refuses it: \w*MYSQL_USER and \w*MYSQL_PASSWORD should name an account",
    (MYSQL, LOST): "MySQL at .* does not answer",
    (CASSANDRA, DOWN): "Cassandra at .* does not answer",
    (CASSANDRA, NO_TABLES): "Cassandra refuses a request: .*'tickledger doctor' says",
    (CASSANDRA, DENIED): "CASSANDRA_USER is .* refuses it: CASSANDRA_USER and CASSANDRA_PASSWORD should name a role",
    (CASSANDRA, LOST): "Cassandra .*does not answer",
}
CASES = [
    pytest.param(command, store, situation, id=f"{command.words.partition(' {')[0]}: {store} {situation}")
    for command in COMMANDS
    for store in command.stores
    for situation in (DOWN, NO_TABLES, DENIED, LOST)
]


@pytest.fixture(scope="module")
def bare(
    services: Instance, test_settings: Settings, dbt_template: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """A database and a keyspace whose tables are gone."""
    with fresh_pipeline(services, test_settings, dbt_template, tmp_path_factory.mktemp("bare")) as pipeline:
        pipeline.execute(f"DROP TABLE {', '.join((*CONTRACT_TABLES, *SEEDS))}")
        for table in CASSANDRA_TABLES:
            pipeline.alter_cassandra(f"DROP TABLE {table}")
        yield pipeline


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _lost(stores: Pipeline, store: str, at: str, closing: ExitStack) -> dict[str, str]:
    setting = f"{store.upper()}_PORT"
    gate = Gate(getattr(stores.settings, setting.lower()), closes_at=at.encode())
    closing.callback(gate.close)
    return {setting: str(gate.port)}


def _changes(bare: Pipeline, store: str, situation: str) -> dict[str, str]:
    if situation == DOWN:
        return {f"{store.upper()}_PORT": "1"}
    if situation == DENIED:
        names = ("MYSQL", "DBT_MYSQL", "PRODUCER_MYSQL") if store == MYSQL else ("CASSANDRA",)
        return {f"{name}_PASSWORD": name.lower() for name in names}
    if store == MYSQL:
        return {"MYSQL_DATABASE": bare.settings.mysql_database}
    return {"CASSANDRA_KEYSPACE": bare.settings.cassandra_keyspace}


@pytest.mark.parametrize(("command", "store", "situation"), CASES)
def test_a_store_that_fails_is_one_line_and_an_exit_code(
    stores: Pipeline,
    bare: Pipeline,
    closing: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Command,
    store: str,
    situation: str,
) -> None:
    changes = (
        _lost(stores, store, command.stores[store], closing) if situation == LOST else _changes(bare, store, situation)
    )
    for name, value in (stores.environment | changes).items():
        monkeypatch.setenv(name, value)
    words = command.words.format(topic=stores.settings.kafka_topic).split()
    program = great_expectations if words[0] == "checkpoint" else tickledger
    monkeypatch.setattr(sys, "argv", ["tickledger", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO(command.typed))

    with pytest.raises(SystemExit) as ended:
        program()

    out, err = capsys.readouterr()
    says = SAYS[store, situation]
    if words == ["doctor"] or (words == ["check-contract"] and situation == NO_TABLES):
        assert (ended.value.code, err) == (1, ""), err
        assert re.search(r"bad .*(table|does not answer|refuses it)" if words == ["doctor"] else "missing", out), out
    elif command.typed and situation == NO_TABLES:
        assert (ended.value.code, len(err.splitlines())) == (1, 1), err
        assert err.startswith("error: ")
    else:
        assert (ended.value.code, len(err.splitlines())) == (2, 1), err
        assert re.match(f"error: {says}", err), err


def test_the_entry_point_does_the_same(stores: Pipeline, bare: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        stores, "settings", stores.settings.model_copy(update={"mysql_database": bare.settings.mysql_database})
    )

    done = run_tickledger(stores, "reconcile")

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"error: {SAYS[MYSQL, NO_TABLES]}.*\n", done.stderr), done.stderr
