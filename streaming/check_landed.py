"""Checks landed batches beside the landing of the next ones, in order, and says one line for each."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from expectations.checker_process import CheckerProcess
from expectations.suites import PROJECT_FOLDER
from streaming import fault_points
from streaming.errors import TickledgerError
from streaming.ledger import LandedBatch, Ledger
from streaming.metrics import Metrics
from streaming.patience import Patience
from streaming.settings import Settings
from streaming.webhook import Webhook

#: Landing waits once so many batches are landed and not yet checked.
MOST_WAITING = 32


class BatchFailed(TickledgerError):
    """A landed batch's verdict is `failed`, and the settings say that this stops the stream. Exit code 1."""


class BatchChecks:
    """Checks batches as they land, one after the other. `on_failure` is called where the stream should stop for it.

    A thread waits for the process that checks, and notes each batch's figures in the ledger and in `metrics`. `project`
    is the folder of the Great Expectations project.
    """

    def __init__(
        self,
        settings: Settings,
        patience: Patience,
        on_failure: Callable[[TickledgerError], None],
        metrics: Metrics | None = None,
        project: Path = PROJECT_FOLDER,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._on_failure = on_failure
        self._metrics = metrics
        self._ledger = Ledger(settings)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checks")
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._checker = CheckerProcess(settings, project)
        self._loaded = False
        self._told: set[str] = set()
        self._begun = not settings.checks_enabled
        #: The first batch that landed since the start; 0 where none has yet.
        self._first = 0
        address = settings.checks_webhook_url.get_secret_value()
        self._webhook = None if address == "none" else Webhook(address, self._say_once)

    def begin(self) -> None:
        """Load Great Expectations, which takes seconds of a core, and check what is unchecked; once."""
        if not self._begun:
            self._begun = True
            self._thread.submit(self._catch_up).add_done_callback(self._raise_bugs)

    def landed(self, batch: LandedBatch, lag: Callable[[], int | None]) -> None:
        """Check a batch and print its line, soon. Waits where too many are ahead of it."""
        self._first = self._first or batch.batch_id
        self.begin()
        self._waiting.acquire()
        self._thread.submit(self._check_and_say, batch, lag).add_done_callback(self._raise_bugs)

    def close(self) -> None:
        """Check what waits, tell of what failed, then end."""
        self._thread.shutdown(wait=True)
        self._checker.close()
        if self._webhook is not None:
            self._webhook.close()

    def _catch_up(self) -> None:
        try:
            waiting = self._patience.wait_for(self._checker.unchecked)
            self._loaded = True
            for batch_id in waiting:
                if self._first and batch_id >= self._first:
                    # Its own turn comes, and its own line.
                    break
                verdict, seconds = self._verdict(batch_id)
                print(f"batch {batch_id} · caught up · {verdict} (check {seconds:.2f} s)", flush=True)
        except TickledgerError as error:
            self._say_once(f"batches stay unchecked: {error}")

    def _check_and_say(self, batch: LandedBatch, lag: Callable[[], int | None]) -> None:
        try:
            fault_points.reached("before_check")
            verdict, seconds = self._verdict(batch.batch_id)
            fault_points.reached("after_check")
            behind = lag()
            self._note(batch, behind, verdict, None if verdict == "unchecked" else seconds)
            print(_line(batch, behind, verdict, seconds), flush=True)
            if verdict == "failed" and self._settings.checks_stop_on_failed:
                self._on_failure(
                    BatchFailed(
                        f"batch {batch.batch_id} failed its checks (CHECKS_STOP_ON_FAILED is true);"
                        f" see 'great_expectations checkpoint run landed_batch --batch {batch.batch_id}'"
                    )
                )
        finally:
            self._waiting.release()

    def _note(self, batch: LandedBatch, behind: int | None, verdict: str, check_seconds: float | None) -> None:
        if self._metrics is not None:
            self._metrics.checked(verdict, check_seconds, behind)
        try:
            self._ledger.note(batch, check_seconds, behind)
        except TickledgerError as error:
            self._say_once(f"batch {batch.batch_id} keeps no figures of its check and lag: {error}")

    def _verdict(self, batch_id: int) -> tuple[str, float]:
        if not self._loaded:
            return "unchecked", 0.0
        started = time.monotonic()
        try:
            verdict = self._patience.wait_for(lambda: self._checker.check(batch_id))
        except TickledgerError as error:
            self._say_once(f"batch {batch_id} stays unchecked: {error}")
            return "unchecked", time.monotonic() - started
        if verdict.verdict == "failed" and self._webhook is not None:
            self._webhook.tell(verdict)
        return verdict.verdict, time.monotonic() - started

    def _say_once(self, line: str) -> None:
        reason = line.partition(":")[2]
        if reason not in self._told:
            self._told.add(reason)
            print(line, flush=True)

    def _raise_bugs(self, done: "Future[None]") -> None:
        if error := done.exception():
            self._say_once(f"checks ended unexpectedly: {type(error).__name__}: {error}")


def _line(batch: LandedBatch, lag: int | None, verdict: str, check_seconds: float) -> str:
    parts = [
        f"batch {batch.batch_id}",
        f"{batch.messages:,} messages",
        f"{batch.ticks_landed:,} ticks",
        f"{batch.dead_letters:,} dead letters",
        f"{batch.duplicates:,} duplicates",
        f"{batch.landing_seconds:.2f} s",
        f"lag {'unknown' if lag is None else format(lag, ',')}",
        verdict if verdict == "unchecked" else f"{verdict} (check {check_seconds:.2f} s)",
    ]
    return " · ".join(parts)
