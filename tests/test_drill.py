"""The runbook's drill, word by word, in a copy of the project: everything is backed up, lost, restored, and goes on."""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.environment import write_env_file
from services.hosts import LOOPBACK
from services.server import free_port
from tests.support.exchanges import NEW_YORK_FACTS
from tests.support.project_copy import ProjectCopy, copy_project
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

(DRILL,) = re.findall(
    r"^### The drill.*?^```sh\n(.*?)^```$", (PROJECT_ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE | re.DOTALL
)
SEND = "python -m producer replay producer/sample.csv trading_data --as-fast-as-possible"
STREAM = "SPARK_CONF_DIR=. spark-submit streaming/stream_ticks.py --once"
TICKS = len((PROJECT_ROOT / "producer" / "sample.csv").read_text().splitlines()) - 1
BOOKS = "SELECT SUM(ticks_landed), SUM(duplicates), MAX(batch_id) FROM landed_batches"


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[ProjectCopy]:
    """A copy of the project whose servers have ports of their own; they are stopped in the end."""
    folder = tmp_path / "tickledger"
    copy_project(folder)
    write_env_file(
        folder / ".env",
        {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{free_port()}",
            "CASSANDRA_PORT": str(free_port()),
            "MYSQL_PORT": str(free_port()),
        },
    )
    copy = ProjectCopy(folder, dict(os.environ))
    try:
        yield copy
    finally:
        copy.run("tickledger services stop")


@pytest.mark.timeout(900)
def test_the_drill_does_what_it_says(copy: ProjectCopy) -> None:
    # Another exchange than the one that comes: its trading days are no UTC dates.
    seed = copy.folder / "dbt_project" / "seeds" / "exchange.csv"
    with seed.open("w", newline="") as file:
        csv.writer(file).writerows([NEW_YORK_FACTS.keys(), NEW_YORK_FACTS.values()])
    copy.run("make services SECURE=1 && cd dbt_project && dbt --quiet seed && dbt --quiet run")
    copy.run(f"{SEND} && {STREAM}")

    copy.run(DRILL)

    assert "The books agree." in copy.said
    assert re.search(r"given up after batch \d+, .* UTC: .*: a drill: all three servers were lost", copy.said)
    batches = int(books(copy)[2])
    assert books(copy) == [TICKS, 0, batches]
    # Ticks that are sent again are known by their keys, and the stream goes on with new ones.
    copy.run(f"{SEND} && python -m producer trading_data --rounds 3 && {STREAM}")
    landed, duplicates, newest = books(copy)
    assert (landed - TICKS, duplicates) == (30, TICKS)
    assert newest > batches
    assert "The books agree." in copy.run("tickledger reconcile")
    copy.run("tickledger doctor")


def books(copy: ProjectCopy) -> list[int]:
    """Ticks that have landed, copies of them, and the newest batch."""
    said = copy.run("tickledger services sql", given=f"{BOOKS};")
    return [int(number) for number in re.findall(r"\b\d+\b", said.splitlines()[-3])]
