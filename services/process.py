"""One server process: started apart from the terminal, found again through its pid file, stopped, killed."""

import json
import os
import subprocess
from pathlib import Path

import psutil

from tickledger.errors import PRIVATE

#: Names of variables that a server inherits; none of them can hold a secret or change a server's configuration.
_INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
TERM_SECONDS = 30


class ServerProcess:
    """A process remembered in a pid file by pid and start, so that a stale file never hits another process."""

    def __init__(self, pid_file: Path, log_file: Path):
        self.pid_file = pid_file
        self.log_file = log_file

    @property
    def pid(self) -> int | None:
        """The pid while the process runs, else None."""
        process = self._find()
        return process.pid if process else None

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Start the command detached, its output in the log file; the log of the start before is kept as `.1`."""
        for path in (self.log_file, self.pid_file):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_name(self.log_file.name + ".1"))
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with self.log_file.open("wb") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log_file.parent,
                env=inherited | environment,
                umask=PRIVATE,
                start_new_session=True,
            )
        try:
            record = {"pid": child.pid, "started": _start_of(child.pid)}
        except OSError:
            return
        self.pid_file.write_text(json.dumps(record))

    def stop(self, seconds: float | None = None) -> bool:
        """SIGTERM, then SIGKILL after so many seconds, 30 unless told. False if nothing ran."""
        process = self._find()
        if process:
            process.terminate()
            _wait_or_kill(process, TERM_SECONDS if seconds is None else seconds)
        self.pid_file.unlink(missing_ok=True)
        return process is not None

    def kill(self) -> bool:
        """SIGKILL, as a crash would. False if nothing ran."""
        process = self._find()
        if process:
            process.kill()
            process.wait(TERM_SECONDS)
        self.pid_file.unlink(missing_ok=True)
        return process is not None

    def last_lines(self, count: int = 20) -> list[str]:
        """The newest lines of the log."""
        if not self.log_file.exists():
            return []
        return self.log_file.read_text(errors="replace").splitlines()[-count:]

    def _find(self) -> psutil.Process | None:
        try:
            record = json.loads(self.pid_file.read_text())
            process = psutil.Process(record["pid"])
            is_ours = record["started"] == _start_of(process.pid)
            return process if is_ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
            return None


def _start_of(pid: int) -> str:
    """A process's start as `boot id:clock ticks since boot`, which does not move when the clock is set (proc(5)).

    Raises OSError if there is no such process.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The name, in brackets, may hold spaces; the start time is the 22nd field.
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}:{ticks}"


def _wait_or_kill(process: psutil.Process, seconds: float) -> None:
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        # If it is a child of a program that still runs, it may be a zombie by now, for as long as that one likes.
        if process.status() != psutil.STATUS_ZOMBIE:
            process.kill()
            process.wait(TERM_SECONDS)
