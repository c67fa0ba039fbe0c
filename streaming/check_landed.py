"""Checks landed batches beside the landing of the next ones, and says one line for each."""

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from expectations.checker_process import PROJECT_FOLDER, CheckerProcess
from streaming.metrics import Metrics
from streaming.webhook import Webhook
from tickledger import fault_points
from tickledger.counted import counted
from tickledger.errors import TickledgerError
from tickledger.ledger import LandedBatch, Ledger
from tickledger.plain_text import plain
from tickledger.retry_policy import RetryPolicy
from tickledger.settings import Settings

#: So many landed batches wait for their checks at most; the next one waits until one of them is checked.
MOST_WAITING = 64
#: A stream that is asked to stop begins no check after this many seconds; the next start checks the rest.
SECONDS_AT_THE_END = 30

Lag = Callable[[], int | None]


class BatchFailed(TickledgerError):
    """A landed batch's verdict is `failed`, and the settings say that this stops the stream. Exit code 1."""


class BatchChecks:
    """Checks batches, one after the other. `on_failure` is called if the stream should stop for it.

    While a backlog lands (at least another STREAM_MAX_OFFSETS_PER_TRIGGER messages wait), checks wait, at most
    :data:`MOST_WAITING` batches long; else each batch is checked at once. If a failed batch stops the stream, checks
    never wait. What an earlier stream left unchecked is checked when no batch of this one waits.

    A thread waits for the process that checks, and notes each batch's figures in the ledger and in `metrics`. `project`
    is the folder of the Great Expectations project.
    """

    def __init__(
        self,
        settings: Settings,
        retry_policy: RetryPolicy,
        on_failure: Callable[[TickledgerError], None],
        metrics: Metrics | None = None,
        project: Path = PROJECT_FOLDER,
    ) -> None:
        self._settings = settings
        self._retry_policy = retry_policy
        self._on_failure = on_failure
        self._metrics = metrics
        self._ledger = Ledger(settings)
        self._checker = CheckerProcess(settings, project)
        self._complaints: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        #: What has landed, in order, and None once nothing will any more; what of it waits for its check; and what an
        #: earlier stream left.
        self._landed: queue.SimpleQueue[tuple[LandedBatch, Lag] | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[LandedBatch, int | None]] = deque()
        self._earlier: deque[int] = deque()
        self._messages_behind = 0
        self._closed = False
        self._last_begin_at = math.inf
        address = settings.checks_webhook_url.get_secret_value()
        self._webhook = None if address == "none" else Webhook(address, self._say_once)

    def begin(self, messages_behind: int = 0) -> None:
        """Begin with what an earlier stream left unchecked; once. Nothing of this stream may have landed yet.

        Raises GaveUp if MySQL stays away.
        """
        if self._thread.ident is None:
            self._messages_behind = messages_behind
            if self._settings.checks_enabled:
                self._earlier.extend(self._retry_policy.call(self._ledger.unchecked))
            self._thread.start()

    def landed(self, batch: LandedBatch, lag: Lag) -> None:
        """Print a batch's line and check it, by the rule above. Waits if too many batches wait already."""
        self._places.acquire()
        self._landed.put((batch, lag))

    def close(self, seconds: float = math.inf) -> None:
        """Begin checks of what waits for at most `seconds`, tell of what failed, then end."""
        self._last_begin_at = time.monotonic() + seconds
        self._landed.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self._checker.close()
        if self._webhook is not None:
            self._webhook.close()

    def _run(self) -> None:
        if self._settings.checks_enabled and not self._lands_a_backlog():
            with self._bugs_said():
                self._load()
        while not self._closed or self._is_due():
            with self._bugs_said():
                if not self._landed.empty() or not self._is_due():
                    self._take(self._landed.get())
                elif self._waiting:
                    self._check_waiting()
                else:
                    self._catch_up(self._earlier.popleft())
        if left := len(self._waiting) + len(self._earlier):
            print(f"left unchecked until the next start: {counted(left, 'batch', 'batches')}", flush=True)

    @contextlib.contextmanager
    def _bugs_said(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._say_once(f"checks ended unexpectedly: {type(error).__name__}: {error}")

    def _load(self) -> None:
        """Load Great Expectations, which takes seconds, before the first batch needs it."""
        with contextlib.suppress(TickledgerError):  # The first check meets it again, and says so.
            self._checker.load()

    def _is_due(self) -> bool:
        """Whether a check should run now, by the class's rule."""
        if self._closed:
            return bool(self._waiting or self._earlier) and time.monotonic() <= self._last_begin_at
        if self._lands_a_backlog():
            return len(self._waiting) >= MOST_WAITING
        return bool(self._waiting or self._earlier)

    def _lands_a_backlog(self) -> bool:
        may_wait = self._settings.checks_enabled and not self._settings.checks_stop_on_failed
        return may_wait and self._messages_behind >= self._settings.stream_max_offsets_per_trigger

    def _take(self, landed: tuple[LandedBatch, Lag] | None) -> None:
        """Take in what has landed: check it at once, or say its line and let it wait."""
        if landed is None:
            self._closed = True
            return
        batch, lag = landed
        behind: int | None = None
        with self._bugs_said():
            behind = lag()
        self._messages_behind = behind or 0
        if self._metrics is not None:
            self._metrics.behind(behind)
        if self._waiting or self._lands_a_backlog() or time.monotonic() > self._last_begin_at:
            self._note(batch, behind)
            print(_line(batch, behind, "check waits"), flush=True)
            self._waiting.append((batch, behind))
        else:
            self._check(batch, behind, lambda verdict: _line(batch, behind, verdict))

    def _check_waiting(self) -> None:
        batch, behind = self._waiting.popleft()
        self._check(batch, behind, lambda verdict: f"batch {batch.batch_id} · caught up · {verdict}")

    def _check(self, batch: LandedBatch, behind: int | None, line: Callable[[str], str]) -> None:
        try:
            verdict, seconds = self._verdict(batch.batch_id)
            check_seconds = None if verdict == "unchecked" else seconds
            if self._metrics is not None:
                self._metrics.checked(verdict, check_seconds)
            self._note(replace(batch, phases={**batch.phases, "check": check_seconds}), behind)
            print(line(_in_words(verdict, seconds)), flush=True)
        finally:
            self._places.release()
        self._stop_if_failed(batch.batch_id, verdict)

    def _catch_up(self, batch_id: int) -> None:
        verdict, seconds = self._verdict(batch_id)
        print(f"batch {batch_id} · caught up · {_in_words(verdict, seconds)}", flush=True)
        self._stop_if_failed(batch_id, verdict)

    def _verdict(self, batch_id: int) -> tuple[str, float]:
        if not self._settings.checks_enabled:
            return "unchecked", 0.0
        started = time.monotonic()
        fault_points.reached("before_check")
        try:
            verdict = self._retry_policy.call(lambda: self._checker.check(batch_id))
        except TickledgerError as error:
            self._say_once(f"batch {batch_id} stays unchecked: {error}")
            return "unchecked", time.monotonic() - started
        fault_points.reached("after_check")
        if verdict.verdict == "failed" and self._webhook is not None:
            self._webhook.tell(verdict)
        return verdict.verdict, time.monotonic() - started

    def _stop_if_failed(self, batch_id: int, verdict: str) -> None:
        if verdict == "failed" and self._settings.checks_stop_on_failed:
            self._on_failure(
                BatchFailed(
                    f"batch {batch_id} failed its checks (CHECKS_STOP_ON_FAILED is true);"
                    f" see 'great_expectations checkpoint run landed_batch --batch {batch_id}'"
                )
            )

    def _note(self, batch: LandedBatch, behind: int | None) -> None:
        """Note a batch's figures in its row of the ledger."""
        try:
            self._ledger.note(batch, behind)
        except TickledgerError as error:
            self._say_once(f"batch {batch.batch_id} keeps no figures of its check and lag: {error}")

    def _say_once(self, line: str) -> None:
        reason = line.partition(":")[2]
        if reason not in self._complaints:
            self._complaints.add(reason)
            print(plain(line), flush=True)


def _in_words(verdict: str, check_seconds: float) -> str:
    return verdict if verdict == "unchecked" else f"{verdict} (check {check_seconds:.2f} s)"


def _line(batch: LandedBatch, lag: int | None, verdict: str) -> str:
    parts = [
        f"batch {batch.batch_id}",
        counted(batch.messages, "message"),
        counted(batch.ticks_landed, "tick"),
        *([counted(batch.corrections, "correction")] if batch.corrections else []),
        counted(batch.dead_letters, "dead letter"),
        counted(batch.duplicates, "duplicate"),
        f"{batch.landing_seconds:.2f} s",
        f"lag {'unknown' if lag is None else format(lag, ',')}",
        verdict,
    ]
    return " · ".join(parts)
