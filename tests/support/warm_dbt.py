"""dbt in a process of its own, forked from one that has imported it and parsed once.

A dbt that begins from nothing takes seven seconds of a core, most of them for its imports and for the schemas that it
makes of its own classes; the tests run it some hundred times.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from commands.run_dbt import main
from tickledger.settings import PROJECT_ROOT

#: Enough of a profile to parse with.
PROFILE = {"type": "tickledger", "server": "none.invalid", "port": 1, "schema": "a", "username": "a", "password": "a"}

_turn = threading.Lock()
_running: list["subprocess.Popen[str]"] = []


def run_dbt(arguments: list[str], cwd: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run one dbt command to its end, in this environment alone; one at a time."""
    with _turn, tempfile.TemporaryDirectory() as folder:
        if not _running:
            _running.append(_started())
        files = [str(Path(folder, name)) for name in ("out", "err")]
        server = _running.pop()
        # One that is interrupted in the middle would answer the next command with this one's exit code.
        try:
            print(json.dumps([arguments, str(cwd), environment, files]), file=server.stdin, flush=True)
            code = int(server.stdout.readline())  # type: ignore[union-attr]
        except BaseException:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            raise
        _running.append(server)
        out, err = (Path(file).read_text() for file in files)
        return subprocess.CompletedProcess(["dbt", *arguments], code, out, err)


def _started() -> "subprocess.Popen[str]":
    # It ends with this process, whose end closes its standard input.
    command = [sys.executable, "-m", "tests.support.warm_dbt"]
    return subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
    )


def _serve() -> None:
    """Fork a dbt for each line of the standard input, and answer with its exit code."""
    _warm_up()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _become_dbt(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _warm_up() -> None:
    """Parse the project, so that dbt has made what it keeps for its next commands in this process."""
    with tempfile.TemporaryDirectory() as folder:
        profiles = {"tickledger": {"target": "dev", "outputs": {"dev": PROFILE}}}
        Path(folder, "profiles.yml").write_text(json.dumps(profiles))
        project = ["--project-dir", str(PROJECT_ROOT / "dbt_project")]
        written = ["--profiles-dir", folder, "--target-path", folder, "--log-path", folder]
        # The static parser has threads, which a fork does not take along.
        sys.argv = ["dbt", "--quiet", "--no-static-parser", "parse", *project, *written]
        assert _exit_code(main) == 0


def _become_dbt(arguments: list[str], cwd: str, environment: dict[str, str], files: list[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.argv = ["dbt", *arguments]
    code = _exit_code(main)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(command: Callable[[], None]) -> int:
    try:
        command()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else bool(ended.code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve()
