"""A Checker in a process of its own: checks take no turn of the interpreter in which batches land."""

import gc
import os
import subprocess
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from expectations.checker import Checker, CheckFailedToRun, Verdict, one_line
from expectations.suites import PROJECT_FOLDER
from tickledger.errors import TickledgerError
from tickledger.settings import PROJECT_ROOT, Settings

#: All that the stream takes from this package.
__all__ = ["PROJECT_FOLDER", "CheckerProcess", "Verdict"]

#: Landing goes first while both have work, and the checks catch up when it waits.
NICENESS = 15


class CheckerProcess:
    """Checks batches as :class:`Checker` does, and raises what it raises; for use by one thread.

    The process begins at the first call. It ends with `close`, and by itself when the process that began it is gone.
    Raises CheckFailedToRun if it died; the next call begins another.
    """

    def __init__(self, settings: Settings, project: Path = PROJECT_FOLDER) -> None:
        self._settings = settings
        self._project = project
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def load(self) -> None:
        """Load Great Expectations ahead of the first check. Raises what :class:`Checker` raises."""
        self._call(None)

    def check(self, batch_id: int) -> Verdict:
        """See :meth:`Checker.check`."""
        verdict: Verdict = self._call(batch_id)
        return verdict

    def close(self) -> None:
        """End the process, which finishes what it is at."""
        if self._connection is not None and self._process is not None:
            self._connection.close()
            self._process.wait()
        self._connection = self._process = None

    def _call(self, batch_id: int | None) -> Any:
        try:
            if self._connection is None:
                self._connection = self._begin()
            self._connection.send(batch_id)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self.close()
            raise CheckFailedToRun(f"the process of the checks ended: {type(error).__name__}") from None
        if isinstance(answer, TickledgerError):
            raise answer
        return answer

    def _begin(self) -> Connection:
        ours, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "expectations.checker_process", str(theirs.fileno())],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C reaches every process of the terminal's group; what waits is checked before this one ends. A
                # session of its own would have a scheduling group of its own, in which niceness yields to nobody.
                process_group=0,
            )
        ours.send((self._settings, self._project))
        return ours


def _serve(connection: Connection) -> None:
    """Check the batches that are named until the other end is closed. Loading takes seconds of a core."""
    os.nice(NICENESS)
    settings, project = connection.recv()
    checker: Checker | None = None
    while True:
        batch_id: int | None = connection.recv()
        try:
            if checker is None:
                checker = Checker(settings, project)
                # What is loaded stays; looking through it for garbage time and again takes a third of a check's time.
                gc.collect()
                gc.freeze()
            answer: Any = None if batch_id is None else checker.check(batch_id)
        except TickledgerError as error:
            answer = error
        except Exception as error:
            answer = CheckFailedToRun(f"the checks failed inside: {type(error).__name__}: {one_line(error)}")
        connection.send(answer)


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(Connection(int(sys.argv[1])))
