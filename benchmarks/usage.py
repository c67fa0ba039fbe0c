"""What processes cost: seconds of CPU and megabytes of memory, of a process and all below it."""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.25


class Usage:
    """Watches process trees from `start` to `stop`.

    A process that ends is remembered with what it had used at the last look, a quarter of a second before at most.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = list(roots)
        self._used: dict[tuple[int, float], float] = {}
        self._before: dict[tuple[int, float], float] = {}
        self._names: dict[tuple[int, float], str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_megabytes = 0.0

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU since `start`, user and system."""
        return sum(seconds - self._before.get(process, 0.0) for process, seconds in self._used.items())

    def cpu_by_program(self) -> dict[str, float]:
        """Seconds of CPU since `start` of each program, however many processes ran it; those that took most first."""
        seconds: dict[str, float] = defaultdict(float)
        for process, used in self._used.items():
            seconds[self._names[process]] += used - self._before.get(process, 0.0)
        return dict(sorted(seconds.items(), key=lambda program: -program[1]))

    def start(self) -> "Usage":
        """Begin; what the processes have used until now does not count, unless they are not a second old."""
        self._look()
        self._before = dict(self._used)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look a last time."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            self._look()
        self._look()

    def _look(self) -> None:
        resident = 0
        for process in self._tree():
            with suppress(psutil.Error), process.oneshot():
                times, key = process.cpu_times(), (process.pid, process.create_time())
                # What runs a program may have been another one at first, such as a shell.
                self._names[key] = program_of(process.cmdline()) or self._names.get(key, "ended")
                self._used[key] = times.user + times.system
                resident += process.memory_info().rss
        self.peak_megabytes = max(self.peak_megabytes, resident / 1e6)

    def _tree(self) -> Iterable[psutil.Process]:
        for pid in self._roots:
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                yield root
                yield from root.children(recursive=True)


def program_of(command: Sequence[str]) -> str:
    """What a command line runs, for people: a script, a module, a Java class or else the program itself."""
    if not command:
        return ""
    for before, argument in pairwise(command):
        if before == "-m":
            return argument
        if argument.endswith(".py"):
            return Path(argument).name
        if argument.startswith(("org.apache.", "kafka.")):
            return argument.rpartition(".")[2]
    return Path(command[0]).name
