"""The contract: drift of live tables is found and refused; a column reaches a live table while the stream lands."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from expectations.checker import Checker
from services.environment import write_dbt_profile
from tests.support.batches import Lander, assert_books_agree, tick
from tests.support.pipeline import Database, Pipeline
from tickledger import contract
from tickledger.contract_drift import differences, landing_differences, mysql_differences
from tickledger.errors import ConfigurationError
from tickledger.settings import PROJECT_ROOT
from tickledger.start_up import check_tables
from tickledger.table_facts import TableFacts, misfits

NEW_COLUMN = """
      - name: spark_version
        description: Version of Spark that landed the batch.
        data_type: varchar(16)
        constraints:
          - {type: check, expression: spark_version <> '', warn_unsupported: false}
"""


def dbt_project(folder: Path, **edits: tuple[str, str]) -> Path:
    """A copy of the dbt project; `edits` gives for a model the text of its YAML to replace, and by what."""
    copy = folder / "dbt_project"
    shutil.copytree(
        PROJECT_ROOT / "dbt_project", copy, ignore=shutil.ignore_patterns("target", "logs", "profiles.yml", ".user.yml")
    )
    for model, (old, new) in edits.items():
        (path,) = (copy / "models").rglob(f"{model}.yml")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new) if old else text.rstrip("\n") + new)
    return copy


#: What is done to a live table of MySQL → every difference that it must make: table, what.
DRIFT: dict[str, tuple[str, set[tuple[str, str]]]] = {
    "nothing": ("SELECT 1", set()),
    "an index more": ("ALTER TABLE landed_batches ADD INDEX (landed_at)", set()),
    "a table is gone": ("DROP TABLE batch_findings", {("batch_findings", "table")}),
    "a column is gone": ("ALTER TABLE batch_findings DROP COLUMN observed", {("batch_findings", "column observed")}),
    "a column more": ("ALTER TABLE batch_findings ADD COLUMN note text", {("batch_findings", "column note")}),
    "a column is renamed": (
        "ALTER TABLE batch_findings RENAME COLUMN observed TO seen",
        {("batch_findings", "column observed"), ("batch_findings", "column seen")},
    ),
    "a column is narrowed": (
        "ALTER TABLE batch_findings MODIFY observed varchar(999) NOT NULL",
        {("batch_findings", "column observed")},
    ),
    "a column is retyped": (
        "ALTER TABLE landed_batches MODIFY landed_at timestamp(3) NOT NULL DEFAULT '2026-01-01 00:00:00'",
        {("landed_batches", "column landed_at")},
    ),
    "a column takes null": (
        "ALTER TABLE landed_batches MODIFY topic varchar(249)",
        {("landed_batches", "column topic")},
    ),
    "texts compare otherwise": (
        "ALTER TABLE batch_findings MODIFY observed varchar(1000) COLLATE utf8mb4_general_ci NOT NULL",
        {("batch_findings", "column observed")},
    ),
    "the primary key is another": (
        "ALTER TABLE landed_offsets DROP PRIMARY KEY, ADD PRIMARY KEY (kafka_partition, batch_id)",
        {("landed_offsets", "primary key")},
    ),
    "an index is gone": ("ALTER TABLE landed_batches DROP INDEX verdict", {("landed_batches", "index")}),
    "a check more": ("ALTER TABLE landed_offsets ADD CHECK (batch_id < 10)", {("landed_offsets", "check")}),
    "the seed's table has another type": (
        "ALTER TABLE profile MODIFY company_name varchar(100) NOT NULL",
        {("profile", "column company_name")},
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", DRIFT)
def test_drift_of_mysqls_tables_is_found_and_nothing_else(
    database: Database, dbt_template: list[str], case: str
) -> None:
    statement, expected = DRIFT[case]
    with closing(database.connect()) as connection:
        cursor: Any = connection.cursor()
        for one in (*dbt_template, statement):
            cursor.execute(one)
            _ = cursor.fetchall() if cursor.with_rows else None
    assert {(one.table, one.what) for one in mysql_differences(database.settings)} == expected
    # Landing depends on neither.
    needed = {(table, what) for table, what in expected if what not in ("index", "check")}
    assert {(one.table, one.what) for one in landing_differences(database.settings)} == needed


@pytest.mark.parametrize(
    ("contract_type", "found", "holds"),
    [
        ("decimal(42,0)", "decimal(42,0)", True),
        ("decimal(42,0)", "decimal(30,0)", True),
        ("decimal(30,0)", "decimal(42,0)", False),
        ("decimal(42,2)", "decimal(42,0)", False),
        ("decimal(42,1)", "decimal(41,2)", False),
        ("varchar(64)", "varchar(9)", True),
        ("varchar(9)", "varchar(64)", False),
        ("bigint", "int", True),
        ("int", "bigint", False),
        ("bigint", "bigint unsigned", False),
        ("bigint", "int unsigned", True),
        ("bigint unsigned", "int", False),
        ("text", "varchar(64)", True),
        ("varchar(64)", "char(0)", True),
        ("varchar(64)", "text", False),
        ("longtext", "mediumtext", True),
        ("double", "float", True),
        ("float", "double", False),
        ("datetime(3)", "datetime(3)", True),
        ("datetime", "datetime(3)", False),
        ("date", "datetime", False),
        ("decimal(30,0)", "bigint", False),
    ],
)
def test_a_views_contract_holds_what_its_query_gives(contract_type: str, found: str, holds: bool) -> None:
    said = misfits(TableFacts({"x": contract_type}, {}, ""), TableFacts({"x": f"{found} NOT NULL"}, {}, ""))
    assert said == ([] if holds else [f"column x is {found}; the contract's {contract_type} does not hold that"])


@pytest.mark.integration
def test_a_check_that_is_gone_is_found(database: Database, dbt_template: list[str]) -> None:
    with closing(database.connect()) as connection:
        cursor: Any = connection.cursor()
        for one in dbt_template:
            cursor.execute(one)
        cursor.execute("SHOW CREATE TABLE landed_offsets")
        (name,) = re.findall(r"CONSTRAINT `(\w+)` CHECK \(+`until_offset`.*`from_offset`", cursor.fetchone()[1])
        cursor.execute(f"ALTER TABLE landed_offsets DROP CONSTRAINT `{name}`")
    (found,) = mysql_differences(database.settings)
    assert (found.table, found.what, found.live) == ("landed_offsets", "check", "missing")
    assert "until_offset" in found.contract


@pytest.mark.integration
def test_drift_of_cassandras_tables_is_a_table_of_differences_and_refused(pipeline: Pipeline) -> None:
    def check_contract() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "commands.main", "check-contract"]
        return subprocess.run(
            command, env=pipeline.environment, capture_output=True, text=True, check=False, timeout=60
        )

    healthy = check_contract()
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (
        0,
        "13 tables of MySQL and 3 of Cassandra follow their contract\n",
        "",
    )

    for statement in (
        "ALTER TABLE real_time_data DROP price",
        "ALTER TABLE real_time_data ADD note text",
        "DROP TABLE dead_letters",
        "CREATE TABLE dead_letters (topic text, kafka_partition int, offset_bucket bigint, kafka_offset bigint,"
        " position int, raw_value text, reason text, detail text, dead_at timestamp, replayed_at timestamp,"
        " PRIMARY KEY (topic, kafka_partition, offset_bucket, kafka_offset, position))",
    ):
        pipeline.alter_cassandra(statement)
    assert {(one.store, one.table, one.what) for one in differences(pipeline.settings)} == {
        ("Cassandra", "real_time_data", "column price"),
        ("Cassandra", "real_time_data", "column note"),
        ("Cassandra", "dead_letters", "column raw_value"),
        ("Cassandra", "dead_letters", "primary key"),
    }
    with pytest.raises(ConfigurationError, match=r"'real_time_data' of Cassandra differs .* column price.* and 2 more"):
        check_tables(pipeline.settings)
    drifted = check_contract()
    assert (drifted.returncode, drifted.stderr) == (1, "")
    shown = [line.split("│")[1:4] for line in drifted.stdout.splitlines() if line.startswith("│ Cassandra")]
    assert len(shown) == 4
    assert ["Cassandra", "dead_letters", "primary key"] in [[cell.strip() for cell in row] for row in shown]


@pytest.mark.integration
def test_the_stream_refuses_drift_and_starts_beside_a_nullable_column_more(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    check_tables(pipeline.settings)
    assert capsys.readouterr().out == ""

    pipeline.execute("ALTER TABLE landed_batches ADD COLUMN spark_version varchar(16)")
    check_tables(pipeline.settings)
    assert "table 'landed_batches' has a column spark_version that its contract lacks" in capsys.readouterr().out

    pipeline.execute("ALTER TABLE landed_batches MODIFY spark_version varchar(16) NOT NULL")
    with pytest.raises(ConfigurationError, match="differs from its contract in column spark_version"):
        check_tables(pipeline.settings)
    pipeline.execute("ALTER TABLE landed_batches DROP COLUMN spark_version")

    pipeline.alter_cassandra("ALTER TABLE real_time_data ADD venue text")
    check_tables(pipeline.settings)
    assert "table 'real_time_data' has a column venue that its contract lacks" in capsys.readouterr().out

    pipeline.alter_cassandra("ALTER TABLE real_time_data DROP volume")
    with pytest.raises(ConfigurationError, match=r"'real_time_data' of Cassandra differs .* column volume"):
        check_tables(pipeline.settings)
    pipeline.alter_cassandra("ALTER TABLE real_time_data ADD volume bigint")

    pipeline.execute("ALTER TABLE landed_batches MODIFY volume decimal(10,0)")
    with pytest.raises(ConfigurationError, match=r"in column volume: it is decimal\(10,0\)"):
        check_tables(pipeline.settings)


@pytest.fixture
def dbt_folder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the stream's contract that of a copy of the dbt project."""
    return lambda folder: monkeypatch.setattr(contract, "DBT_FOLDER", folder)


@pytest.mark.integration
def test_a_contract_that_grew_before_dbt_ran_stops_no_start(
    pipeline: Pipeline, tmp_path: Path, dbt_folder: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    dbt_folder(dbt_project(tmp_path, landed_batches=("", NEW_COLUMN)))

    check_tables(pipeline.settings)

    assert "lacks column spark_version of its contract; 'dbt run' adds it" in capsys.readouterr().out


BROKEN: dict[str, tuple[dict[str, tuple[str, str]], str]] = {
    "broken YAML": ({"landed_batches": ("columns:", "columns: [")}, r"landed_batches\.yml is no YAML"),
    "a file that is no YAML of dbt": ({"landed_batches": ("version: 2", "- 1\n#")}, r"landed_batches\.yml is"),
    "a column without a type": (
        {"landed_offsets": ("        data_type: int\n", "")},
        r"landed_offsets\.yml: .*data_type",
    ),
    "an unknown constraint": (
        {"landed_offsets": ("type: primary_key", "type: first_key")},
        "the contract of 'landed_offsets' has a constraint of type 'first_key'",
    ),
    "a model that nothing describes": (
        {"landed_offsets": ("- name: landed_offsets", "- name: offsets")},
        "describes 'landed_offsets'",
    ),
    "a column that the stream does not fill and that takes no null": (
        {"landed_batches": ("", NEW_COLUMN.replace("- {type: check", "- {type: not_null}\n          - {type: check"))},
        "requires spark_version, which the stream does not fill",
    ),
    "a column that the stream fills is renamed": (
        {"landed_batches": ("- name: late_ticks", "- name: ticks_late")},
        "requires ticks_late",
    ),
    "a nullable column that the stream fills is removed": (
        {"landed_batches": ("      - name: checked_at\n", "      - name: seen_at\n")},
        "has no checked_at, which the stream fills",
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", BROKEN)
def test_a_contract_that_cannot_hold_stops_the_start_with_one_line(
    test_settings: Any,
    database: Database,
    dbt_template: list[str],
    tmp_path: Path,
    dbt_folder: Callable[[Path], None],
    case: str,
) -> None:
    edits, line = BROKEN[case]
    with closing(database.connect()) as connection:
        for statement in dbt_template:
            connection.cursor().execute(statement)
        connection.commit()
    dbt_folder(dbt_project(tmp_path, **edits))

    # The tests' own keyspace has no tables, which is not what is told first.
    keyspace = test_settings.cassandra_keyspace
    with pytest.raises(ConfigurationError, match=line) as refusal:
        check_tables(database.settings.model_copy(update={"cassandra_keyspace": keyspace}))
    assert "\n" not in str(refusal.value)


@pytest.mark.integration
def test_a_type_that_no_server_knows_is_found(
    pipeline: Pipeline, tmp_path: Path, dbt_folder: Callable[[Path], None]
) -> None:
    dbt_folder(dbt_project(tmp_path, landed_offsets=("data_type: int\n", "data_type: wholenumber\n")))

    with pytest.raises(ConfigurationError, match=r"contract of 'landed_offsets' is refused by MySQL: .*wholenumber"):
        mysql_differences(pipeline.settings)


@pytest.mark.integration
def test_columns_and_a_company_reach_the_live_tables_by_dbt_while_batches_land_and_are_checked(
    spark: SparkSession, pipeline: Pipeline, tmp_path: Path
) -> None:
    write_dbt_profile(pipeline.settings, tmp_path / "profiles.yml")
    database = Database(pipeline.settings, pipeline.env_file, tmp_path)
    project = dbt_project(tmp_path, landed_batches=("", NEW_COLUMN), aggregated_data=("", NEW_COLUMN))
    with (project / "seeds" / "profile.csv").open("a") as seed:
        seed.write("GIAA.JK,PT Garuda Indonesia (Persero) Tbk,Airlines,91480000000\n")
    altered, stop = threading.Event(), threading.Event()
    seeded: list[bool] = []

    def land() -> tuple[list[int], list[str]]:
        """Land and check until asked to stop: which batches were begun after the change, and all verdicts."""
        lander, checker = Lander(spark, pipeline), Checker(pipeline.settings)
        after: list[int] = []
        verdicts: list[str] = []
        while not (stop.is_set() and len(after) >= 3):
            number, is_after = len(verdicts), altered.is_set()
            ticks = [tick(3 * number), tick(3 * number + 1, ticker="DWGL.JK", sector="Coal")]
            batch = lander.land((0, number, [*ticks, tick(3 * number + 2, ticker="GIAA.JK", sector="Airlines")]))
            assert batch is not None
            # Until it is seeded, the third tick's company is one that nobody knows.
            seeded.append(batch.dead_letters == 0)
            verdicts.append(checker.check(batch.batch_id).verdict)
            after += [batch.batch_id] if is_after else []
        checker.close()
        return after, verdicts

    with ThreadPoolExecutor(max_workers=1) as thread:
        landing = thread.submit(land)
        try:
            while not landing.done() and pipeline.rows("SELECT COUNT(*) FROM landed_batches") < [(3,)]:
                time.sleep(0.05)
            done = database.dbt("run", "--select", "landed_batches", "aggregated_data", project=project)
            sown = database.dbt("seed", project=project)
        finally:
            altered.set()
            stop.set()
        after, verdicts = landing.result()

    assert done.returncode == 0, done.stdout
    assert sown.returncode == 0, sown.stdout
    assert done.stdout.count("ALTERED") >= 2
    # Each tick's market_cap is a made-up one, of which no feed's rule warns here.
    assert set(verdicts) == {"passed"}
    assert after[0] > 3
    assert seeded == sorted(seeded), "the company's ticks land from one batch on"
    assert (seeded[0], seeded[after[0] - 1]) == (False, True)
    for table in ("landed_batches", "aggregated_data"):
        assert pipeline.rows(f"SELECT COUNT(DISTINCT batch_id), MAX(spark_version) FROM {table}") == [
            (len(verdicts), None)
        ]
    assert pipeline.rows("SELECT SUM(ticks) FROM volume_by_day") == [(2 * len(verdicts) + sum(seeded),)]
    assert_books_agree(Lander(spark, pipeline))
    check_tables(pipeline.settings)
