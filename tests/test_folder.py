"""A folder of any name: what runs there, and what is refused in one line before anything is fetched or made."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from services.jars import JARS_DIR
from services.kafka_server import KafkaServer
from tickledger.folder import folder_problem
from tickledger.settings import PROJECT_ROOT, Settings

PACKAGES = ("commands", "producer", "services", "streaming", "tickledger", "dashboard", "expectations")
FILES = ("Makefile", "requirements.lock", "pyproject.toml", ".env.example", "spark-env.sh", "spark-defaults.conf")
ENTRANCES = {
    "make setup": ["make", "--no-print-directory", "setup", f"PYTHON={sys.executable}"],
    "make demo": ["make", "--no-print-directory", "demo", f"PYTHON={sys.executable}"],
    "services start": [sys.executable, "-m", "commands.main", "services", "start"],
}


def copied(folder: Path) -> Path:
    """The project's programs in another folder."""
    for name in PACKAGES:
        shutil.copytree(PROJECT_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*FILES, "log4j2.properties"):
        shutil.copy(PROJECT_ROOT / name, folder)
    return folder


def run_in(folder: Path, command: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    named = {"PYTHONPATH": str(folder), "SPARK_CONF_DIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    own = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_ALL", "LC_CTYPE", "MAKEFLAGS")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env=own | named | {"PATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("command", ENTRANCES.values(), ids=ENTRANCES)
def test_a_folder_with_a_space_is_refused_before_anything_is_made(command: list[str], tmp_path: Path) -> None:
    folder = copied(tmp_path / "my ticks")
    before = sorted(folder.rglob("*"))

    done = run_in(folder, command)

    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not re.match(r"make(\[\d+\])?: ", line)]
    assert len(said) == 1
    assert said[0].startswith(f"error: the project is in '{folder}'; its path should have no ' '")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["ticks", "Börse", "株", "ticks-2.0", "a_b", "~me", "c++", "a=b", "me@home"])
def test_other_names_are_taken(name: str) -> None:
    assert folder_problem(Path("/home/me") / name) == ""


@pytest.mark.parametrize(
    "name", ["my ticks", "a\tb", "a:b", "a,b", "it's", 'a"b', "a$b", "a%20b", "a#b", "a*b", "a;b", "(a)"]
)
def test_names_that_some_program_parts_are_not(name: str) -> None:
    problem = folder_problem(Path("/home/me") / name)
    assert "its path should have no" in problem
    assert "\n" not in problem


@pytest.mark.integration
def test_kafkas_data_are_in_a_folder_with_an_umlaut_and_in_no_other(tmp_path: Path, test_settings: Settings) -> None:
    kafka = KafkaServer(tmp_path / "Börse" / "株", test_settings, print)

    kafka.prepare()

    assert (kafka.data / "meta.properties").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["Börse"]


@pytest.mark.timeout(300)
@pytest.mark.integration
def test_java_and_spark_run_below_an_umlaut_whatever_the_locale(tmp_path: Path) -> None:
    folder = copied(tmp_path / "Börse")
    (folder / ".venv").mkdir()
    (folder / ".services").mkdir()
    # What was fetched once is not fetched again.
    shutil.copytree(JARS_DIR, folder / ".services" / "jars", ignore=shutil.ignore_patterns("mariadb*", "cassandra*"))

    done = run_in(folder, [sys.executable, "-m", "services.spark_classes"], LC_ALL="C")

    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / ".venv" / "spark-classes.jsa").stat().st_size > 1e6
