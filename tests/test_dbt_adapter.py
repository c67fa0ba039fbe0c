"""dbt as this project runs it: dbt-mysql on a dbt of today, and the command `dbt` with what is around it. No server."""

import ast
import inspect
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path

import dbt.adapters.tickledger as adapter
import packaging
import pytest
import yaml
from dbt.adapters.mysql import MySQLAdapter
from dbt.adapters.sql import SQLAdapter
from dbt_common.exceptions import DbtRuntimeError

from tickledger.settings import PROJECT_ROOT

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
#: Modules of dbt that hold what is asked of them, from a list of [module, name or None]; without the adapter's aliases.
FIND_MISSING = """
import importlib, json, sys

def is_there(module, name):
    try:
        found = importlib.import_module(module)
        return name is None or hasattr(found, name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False

print(json.dumps([one for one in json.load(sys.stdin) if not is_there(*one)]))
"""


def asked_for() -> set[tuple[str, str | None]]:
    """(module, name) for all that dbt-mysql imports from dbt, but from itself."""
    found: set[tuple[str, str | None]] = set()
    for file in Path(inspect.getfile(MySQLAdapter)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {(alias.name, None) for alias in node.names}
            elif isinstance(node, ast.Attribute) and re.fullmatch(r"dbt\.[a-z_.]+", ast.unparse(node.value)):
                found.add((ast.unparse(node.value), node.attr))
    return {one for one in found if one[0].startswith("dbt.") and not one[0].startswith("dbt.adapters.mysql")}


def test_the_adapter_puts_back_what_dbt_has_moved_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIND_MISSING],
        input=json.dumps(sorted(asked_for(), key=repr)),
        capture_output=True,
        text=True,
        check=True,
    )
    missing = {(module, name) for module, name in json.loads(done.stdout)}

    modules = {module for module, _ in missing if module in adapter.MOVED_MODULES}
    names = {one for one in missing if one in adapter.MOVED_NAMES}
    assert {one for one in missing if one[0] not in modules} - names == set(), "moved too: what puts it back?"
    assert set(adapter.MOVED_MODULES) - modules == set(), "dbt has these itself, or dbt-mysql does not ask for them"
    assert set(adapter.MOVED_NAMES) - names == set(), "dbt has these itself, or dbt-mysql does not ask for them"


def test_the_methods_of_dbt_mysql_take_what_dbt_calls_them_with() -> None:
    def parameters(owner: type, name: str) -> list[str]:
        return list(inspect.signature(getattr(owner, name)).parameters)

    own = [
        name for name in vars(MySQLAdapter) if inspect.isroutine(getattr(SQLAdapter, name, None)) and name[:2] != "__"
    ]
    assert len(own) > 5
    changed = {name for name in own if parameters(MySQLAdapter, name) != parameters(SQLAdapter, name)}

    # The first the adapter takes from dbt; the second ignores the argument that is another one now.
    assert changed == {"get_catalog", "_get_one_catalog"}
    assert parameters(adapter.TickledgerAdapter, "get_catalog") == parameters(SQLAdapter, "get_catalog")


def run_dbt(*words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """The command as typed."""
    command = [str(Path(sys.executable).with_name("dbt")), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


SERVER = {"server": "{{ env_var('MYSQL_HOST', 'right.invalid') }}", "port": 3306}
PROFILE = SERVER | {"type": "tickledger", "schema": "a", "username": "a", "password": "a"}


def project_below_an_env_file(folder: Path, **profile: object) -> Path:
    """A copy of the dbt project with a profile of its own, in a folder whose .env names another server."""
    shutil.copytree(
        DBT_PROJECT, folder / "dbt_project", ignore=shutil.ignore_patterns("target", "logs", "profiles.yml")
    )
    profiles = {"tickledger": {"target": "dev", "outputs": {"dev": PROFILE | profile}}}
    (folder / "dbt_project" / "profiles.yml").write_text(yaml.safe_dump(profiles))
    (folder / ".env").write_text("MYSQL_HOST=wrong.invalid\n")
    return folder


def test_no_env_file_names_dbts_server(tmp_path: Path) -> None:
    folder = project_below_an_env_file(tmp_path)

    done = run_dbt("debug", "--project-dir", "dbt_project", "--profiles-dir", "dbt_project", cwd=folder)

    assert "server: right.invalid" in done.stdout, done.stdout + done.stderr
    # Which dbt, and which dbt-mysql.
    assert f"dbt version: {version('dbt-core')}" in done.stdout
    assert f"adapter version: {version('dbt-mysql')}" in done.stdout


def test_a_dbt_that_has_read_an_env_file_is_refused(tmp_path: Path) -> None:
    folder = project_below_an_env_file(tmp_path)
    plain = "from dbt.cli.main import cli; cli()"

    done = subprocess.run(
        [sys.executable, "-c", plain, "seed"], cwd=folder / "dbt_project", capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert f"dbt has read {folder / '.env'}, whose settings would win" in " ".join(done.stdout.split())
    assert "wrong.invalid" not in done.stdout


@pytest.mark.parametrize("type_name", ["mysql", "mysql_verified", "postgres"])
def test_a_profile_of_another_type_names_what_mends_it(type_name: str) -> None:
    with pytest.raises(
        DbtRuntimeError, match=f"type is '{type_name}'; it should be 'tickledger': 'make services' writes"
    ):
        adapter.load_credentials(type_name)


def test_dbt_says_so_of_an_older_profile_and_shows_no_traceback(tmp_path: Path) -> None:
    folder = project_below_an_env_file(tmp_path, type="mysql")

    done = run_dbt("run", cwd=folder / "dbt_project")

    assert done.returncode == 2
    assert "its type is 'mysql'; it should be 'tickledger': 'make services' writes a new profiles.yml" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        ({"dbt-core": "1.7.20", "dbt-mysql": "1.7.0"}, "dbt-core is 1.7.20; it should be <1.13,>=1.12"),
        ({"dbt-core": "1.13.0", "dbt-mysql": "1.7.0"}, "dbt-core is 1.13.0; it should be <1.13,>=1.12"),
        ({"dbt-core": "1.12.6", "dbt-mysql": "1.8.0"}, "dbt-mysql is 1.8.0; it should be ==1.7.0"),
        ({"dbt-core": "1.12.6"}, "dbt-mysql is not installed; it should be ==1.7.0"),
        ({"dbt-mysql": "1.7.0"}, "dbt-core is not installed; it should be <1.13,>=1.12"),
    ],
    ids=str,
)
def test_dbt_says_which_package_does_not_fit(tmp_path: Path, installed: dict[str, str], says: str) -> None:
    # Nothing but the command, the requirements of the project, and packages of which only the version is there.
    for name, number in installed.items():
        (notes := tmp_path / f"{name.replace('-', '_')}-{number}.dist-info").mkdir()
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    (notes := tmp_path / "tickledger-0.dist-info").mkdir()
    (notes / "METADATA").write_text(distribution("tickledger").read_text("METADATA") or "")
    (tmp_path / "commands").symlink_to(PROJECT_ROOT / "commands")
    (tmp_path / "packaging").symlink_to(Path(packaging.__file__).parent)

    done = subprocess.run(
        [sys.executable, "-S", "-c", "from commands.run_dbt import main; main()"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {says}: make setup\n")


def test_the_installed_command_is_the_projects() -> None:
    (command,) = (one for one in distribution("tickledger").entry_points if one.name == "dbt")

    assert command.value == "commands.run_dbt:main"
    assert "commands.run_dbt" in Path(sys.executable).with_name("dbt").read_text()
