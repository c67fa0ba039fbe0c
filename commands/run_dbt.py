"""The command `dbt`: dbt's own, beside this project's settings and on the adapter in dbt_project/adapter.

The project installs it in the place of dbt-core's, because two things must be so before dbt is imported. dbt 1.12 reads
the `.env` of the working directory, or of any folder above, whose settings then win over the profile's: a dbt that is
meant for one server would work on another. And dbt-mysql can only be imported once the adapter has been.
"""

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

#: What must be as pyproject.toml has it.
PACKAGES = ("dbt-core", "dbt-mysql")


def main() -> None:
    """Run dbt with the arguments of the command line; one line and exit code 2 if what is installed does not fit."""
    if found := misfit():
        print(f"error: {found}: make setup", file=sys.stderr)
        sys.exit(2)
    # Only now: what it imports may be what is missing.
    from tickledger.errors import PRIVATE

    os.environ["PYTHON_DOTENV_DISABLED"] = "1"
    # dbt's log holds rows, and what it compiles names accounts.
    os.umask(PRIVATE)
    importlib.import_module("dbt.adapters.tickledger")
    from dbt.cli.main import cli

    cli()


def misfit() -> str | None:
    """What of the installed packages does not fit, as part of a line; None if dbt can run."""
    for wanted in (Requirement(one) for one in requires("tickledger") or []):
        if wanted.name not in PACKAGES:
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            return f"{wanted.name} is not installed; it should be {wanted.specifier}"
        if installed not in wanted.specifier:
            return f"{wanted.name} is {installed}; it should be {wanted.specifier}"
    return None
