"""The walkthrough of CONTRIBUTING.md, followed word by word in a copy of the project, on real servers."""

import json
import re
import shutil
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from commands.reconcile import reconcile
from services.environment import write_dbt_profile
from tests.support.exchanges import NEW_YORK
from tests.support.pipeline import Pipeline
from tests.support.project_copy import ProjectCopy, copy_project
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

#: For the tests that run in the copy.
TESTED = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", "demo.py", "docs", "tests", "tools")
#: Tests of what is listed elsewhere too.
LISTS = (
    "tests/test_great_expectations_command.py::test_lists_are_json_for_programs",
    "tests/test_expectations.py::test_committed_suites_are_fresh",
    "tests/test_lineage.py",
    "tests/test_market.py",
    "tests/test_tick_packing.py",
    "tests/test_docs.py::test_the_architecture_names_every_folder_and_table",
)
#: What programs leave in the folders.
LEFT_BEHIND = ("__pycache__", "target", "logs", "profiles.yml", ".user.yml")

#: In place of `make services`, whose servers are not the test's: what that does to a Cassandra that runs.
ADD_COLUMNS = """python -c '
from services.cassandra_roles import create_roles_and_tables
from tickledger.settings import load_settings
create_roles_and_tables(load_settings())
'"""

#: Draws the page and prints its headings, the specifications of its charts and the columns of its tables.
DRAW_PAGE = """
import json
from streamlit.testing.v1 import AppTest

drawn = AppTest.from_file("dashboard/app.py", default_timeout=120).run()
assert not drawn.exception, drawn.exception
headings = [heading.value for heading in drawn.subheader]
charts = [json.loads(chart.proto.spec) for chart in drawn.get("vega_lite_chart")]
print(json.dumps([headings, charts, [list(table.value.columns) for table in drawn.dataframe]]))
"""


class Newcomer(ProjectCopy):
    """Somebody who follows CONTRIBUTING.md in a copy of the project."""

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        super().__init__(folder, pipeline.environment)
        self._topic = pipeline.settings.kafka_topic
        self._sections = dict(
            re.findall(r"^### (.+?)\n(.*?)(?=^##)", (PROJECT_ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
        )

    def follow(self, title: str) -> None:
        """Apply the diffs, write the files and run the commands of one section, in their order."""
        blocks = re.findall(r"(?:^`([^`\n]+)`:\n\n)?^```(\w+)\n(.*?)^```$", self._sections[title], re.M | re.S)
        assert blocks
        for path, language, content in blocks:
            if language == "diff":
                self.run("git apply -", given=content)
            elif language == "sh":
                self.run(content.replace("trading_data", self._topic).replace("make services", ADD_COLUMNS))
            else:
                assert path, f"no line names the file of:\n{content}"
                (self.folder / path).write_text(content)


@pytest.fixture
def newcomer(pipeline: Pipeline, tmp_path: Path) -> Newcomer:
    """A copy of the project with the environment and dbt's profile of the pipeline."""
    folder = tmp_path / "tickledger"
    copy_project(folder, TESTED)
    # Without a server's address: dbt's profile for `dbt parse`.
    shutil.copytree(PROJECT_ROOT / "tests" / "dbt_parse", folder / "tests" / "dbt_parse", dirs_exist_ok=True)
    write_dbt_profile(pipeline.settings, folder / "dbt_project" / "profiles.yml")
    return Newcomer(folder, pipeline)


@pytest.mark.timeout(1200)
def test_the_walkthrough_does_what_it_says(newcomer: Newcomer, pipeline: Pipeline) -> None:
    before = NEW_YORK.day_of(datetime.now(UTC))
    newcomer.follow("Change the exchange")
    exchange = pipeline.rows("SELECT DISTINCT name, time_zone, currency FROM exchange")
    assert exchange == [("New York Stock Exchange", "America/New_York", "USD")]
    days = {before, NEW_YORK.day_of(datetime.now(UTC))}
    assert {day for (day,) in pipeline.rows("SELECT date FROM aggregated_data")} <= days
    prices = [row.price for row in pipeline.cassandra.execute("SELECT price, trade_date FROM real_time_data")]
    assert len(prices) == 30
    assert any(price % 1 for price in prices)
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("passed",)]

    newcomer.follow("Add a company")
    assert pipeline.rows("SELECT sector FROM profile WHERE ticker = 'GIAA.JK'") == [("Airlines",)]
    assert pipeline.rows("SELECT SUM(ticks) FROM aggregated_data WHERE sector = 'Airlines'") == [(3,)]
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("passed",)]
    newest = int(pipeline.rows("SELECT MAX(batch_id) FROM landed_batches")[0][0])

    newcomer.follow("Add a column to the contract")
    sectors = pipeline.rows("SELECT batch_id <= %s, sectors, COUNT(*) FROM landed_batches GROUP BY 1, 2", (newest,))
    assert {(bool(old), count) for old, count, _ in sectors} == {(True, None), (False, 10)}
    assert pipeline.rows("SELECT COUNT(DISTINCT contract_hash) FROM landed_batches") == [(2,)]

    newcomer.follow("Add an expectation")
    assert re.search(r"held .*raw_ticks\.price_is_above_zero .*warning .*price > 0", newcomer.said)
    assert newest_verdict(pipeline) == ("passed", None)
    give_away_one_tick(pipeline)
    newcomer.run("great_expectations checkpoint run landed_batch")
    assert newest_verdict(pipeline) == ("warned", "raw_ticks.price_is_above_zero")

    newcomer.follow("Add a view and its chart")
    sizes = dict(pipeline.rows("SELECT sector, shares_per_tick FROM tick_size_today"))
    volume, ticks = pipeline.rows("SELECT SUM(total_volume), SUM(ticks) FROM aggregated_data WHERE sector = 'Coal'")[0]
    assert len(sizes) == 10
    assert float(sizes["Coal"]) == pytest.approx(float(volume / ticks), abs=0.05)
    headings, charts, _ = json.loads(newcomer.run(f"python -c '{DRAW_PAGE}'").splitlines()[-1])
    assert "Average tick by sector" in headings
    assert "Average tick today (shares)" in {title for chart in charts for title in x_titles(chart)}

    # Messages from before the field, which land after it is there.
    newcomer.run(f"python -m producer {pipeline.settings.kafka_topic} --rounds 2")
    newcomer.follow("Add a field of the tick")
    venues = Counter(row.venue for row in pipeline.cassandra.execute("SELECT venue FROM real_time_data"))
    assert venues.keys() == {None, "RG", "NG"}
    assert venues["RG"] + venues["NG"] == 33
    assert newest_verdict(pipeline) == ("passed", None)
    assert pipeline.rows("SELECT SUM(dead_letters) FROM landed_batches") == [(0,)]
    *_, tables = json.loads(newcomer.run(f"python -c '{DRAW_PAGE}'").splitlines()[-1])
    assert any("venue" in columns for columns in tables)

    newcomer.follow("Sum by another column than the sector")
    assert newest_verdict(pipeline) == ("passed", None)
    sums = "SELECT COALESCE(venue, 'none'), SUM(ticks) FROM aggregated_data GROUP BY 1"
    after = Counter(row.venue for row in pipeline.cassandra.execute("SELECT venue FROM real_time_data"))
    summed = {str(venue): int(ticks) for venue, ticks in pipeline.rows(sums)}
    assert {venue: summed[venue] for venue in ("RG", "NG")} == {v: after[v] - venues[v] for v in ("RG", "NG")}
    assert "venue" in newcomer.said
    assert newcomer.run("tickledger check-contract").count("follow their contract") == 1
    trade_date = newest_trade_date(pipeline)
    newcomer.run(f"tickledger rebuild --date {trade_date}")
    assert {str(venue): int(ticks) for venue, ticks in pipeline.rows(sums)}.items() >= {"RG": after["RG"]}.items()

    assert reconcile(pipeline.settings).differences == []
    # The code that the walkthrough shows keeps the house rules.
    newcomer.run("ruff check . && ruff format --check . && mypy dashboard expectations tickledger")
    # Nor does any list elsewhere want what was added.
    newcomer.run(f"python -m pytest -q {' '.join(LISTS)}")


def newest_verdict(pipeline: Pipeline) -> tuple[Any, ...]:
    """The newest batch's verdict and its finding, if it has one."""
    query = "SELECT verdict, expectation FROM landed_batches LEFT JOIN batch_findings USING (batch_id)"
    return pipeline.rows(f"{query} ORDER BY batch_id DESC LIMIT 1")[0]


def newest_trade_date(pipeline: Pipeline) -> str:
    """The newest trading day that has an aggregate."""
    return str(pipeline.rows("SELECT MAX(date) FROM aggregated_data")[0][0])


def give_away_one_tick(pipeline: Pipeline) -> None:
    """Set price and market_cap of a tick of the newest batch to zero, as if it had come so."""
    rows = pipeline.cassandra.execute("SELECT ticker, trade_date, created_at, id FROM real_time_data")
    newest = max(rows, key=lambda row: row.created_at)
    pipeline.cassandra.execute(
        "UPDATE real_time_data SET price = 0, market_cap = 0"
        " WHERE ticker = %s AND trade_date = %s AND created_at = %s AND id = %s",
        tuple(newest),
    )


def x_titles(chart: dict[str, Any]) -> set[str]:
    """The titles of a chart's horizontal axes, those of layers in layers too."""
    if "layer" in chart:
        return {title for layer in chart["layer"] for title in x_titles(layer)}
    return {str(chart["encoding"]["x"].get("title"))}
