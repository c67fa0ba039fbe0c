"""Environments of their own for engines whose packages do not go together with ours: made when first chosen."""

import subprocess
import sys
import venv
from pathlib import Path

from tickledger.errors import TickledgerError
from tickledger.settings import PROJECT_ROOT


class NoEnvironment(TickledgerError):
    """An engine's packages could not be installed; what pip said last follows. Exit code 1."""


def environment(name: str) -> Path:
    """The folder of the environment `.venv-NAME`, made from `benchmarks/NAME-requirements.txt` where that has changed.

    Raises NoEnvironment; the next call tries again.
    """
    folder, wanted = PROJECT_ROOT / f".venv-{name}", PROJECT_ROOT / "benchmarks" / f"{name}-requirements.txt"
    installed = folder / "installed"
    if installed.exists() and installed.read_bytes() == wanted.read_bytes():
        return folder
    print(f"setting up .venv-{name}: a minute or two the first time", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--requirement", str(wanted)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment(f"{wanted.relative_to(PROJECT_ROOT)} cannot be installed: {done.stderr[-1000:]}")
    installed.write_bytes(wanted.read_bytes())
    return folder
