"""What the user sees of a run: one status line while it goes on."""

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console

from producer.publish import Publisher
from tickledger.counted import counted

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 5.0


class Progress:
    """A status line on stderr while its `with` block runs: rewritten on a terminal, else a line every five seconds.

    It has its own thread, so that it also tells of a run that waits for the broker. `source` adds what it says.
    """

    def __init__(self, publisher: Publisher, source: Callable[[], str] = str) -> None:
        self._publisher = publisher
        self._source = source
        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("connected") if self._console.is_terminal else None
        self._seen = (time.monotonic(), 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        if self._status:
            self._status.start()
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._status:
            self._status.stop()

    def _run(self) -> None:
        while not self._done.wait(TERMINAL_SECONDS if self._status else PLAIN_SECONDS):
            line = self._line()
            if self._status:
                self._status.update(line)
            else:
                self._console.print(line, soft_wrap=True)

    def _line(self) -> str:
        totals = self._publisher.totals
        then, ticks_then = self._seen
        self._seen = (time.monotonic(), totals.ticks)
        rate = (self._seen[1] - ticks_then) / (self._seen[0] - then)
        waiting = self._publisher.waiting_messages
        source = self._source()
        parts = [source, str(totals), f"{rate:,.0f} ticks/s"]
        parts += [f"waiting for Kafka: {counted(waiting, 'message')}"] if waiting else []
        return " · ".join(filter(None, parts))
