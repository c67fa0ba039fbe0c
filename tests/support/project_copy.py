"""A copy of the project, in which a test does what a document says, word by word."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from services.jars import JARS_DIR
from tickledger.settings import PROJECT_ROOT

COPIED = ("commands", "dashboard", "dbt_project", "expectations", "producer", "services", "streaming", "tickledger")
COPIED_TOO = (
    *("pyproject.toml", "requirements.lock", "Makefile", "spark-defaults.conf", "spark-env.sh", "log4j2.properties"),
    ".env.example",
)
#: What programs leave in the folders.
LEFT_BEHIND = ("__pycache__", "target", "logs", "profiles.yml", ".user.yml")


class ProjectCopy:
    """The copy and the environment of its commands; `said` holds what the last one printed."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.said = ""
        # Ahead of the environment's own copy, which is the project that the tests run in.
        own = {"PYTHONPATH": str(folder), "SPARK_CONF_DIR": str(folder)}
        self.environment = environment | own | {"PATH": f"{folder / '.venv' / 'bin'}:{environment['PATH']}"}

    def run(self, command: str, *, given: str | None = None, code: int = 0) -> str:
        """Run a command in the copy, as in `make shell`; returns what it printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
        )
        self.said = done.stdout
        assert done.returncode == code, f"{command}\n{done.stdout}"
        return done.stdout


def copy_project(folder: Path, more: Iterable[str] = ()) -> None:
    """Make a folder with what the project's programs need, and with `more` files and folders."""
    folder.mkdir()
    for name in (*COPIED, *COPIED_TOO, *more):
        source = PROJECT_ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        else:
            shutil.copy2(source, folder / name)
    # A folder of its own: make would else set up again the environment that the tests run in.
    (folder / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (folder / ".venv" / path.name).symlink_to(path)
    (folder / ".venv" / "installed").touch()
    # What was fetched once is not fetched again.
    (folder / ".services").mkdir(mode=0o700)
    (folder / ".services" / "jars").symlink_to(JARS_DIR)
