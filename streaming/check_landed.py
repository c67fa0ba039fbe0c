"""Checks landed batches beside the landing of the next ones, in order, and says one line for each."""

import contextlib
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from expectations.checker_process import PROJECT_FOLDER, CheckerProcess
from streaming.metrics import Metrics
from streaming.webhook import Webhook
from tickledger import fault_points
from tickledger.errors import TickledgerError
from tickledger.ledger import LandedBatch, Ledger
from tickledger.patience import Patience
from tickledger.settings import Settings

#: Landing waits once so many batches are landed and not yet checked.
MOST_WAITING = 128
#: While a backlog lands, checks rest for so many times the seconds that the last one, or loading, took.
REST = 5
#: Before Great Expectations is loaded they rest for so many seconds, in which a short backlog lands whole.
SECONDS_BEFORE_LOADING = 30
#: They do not rest where so many batches have been put off already.
MOST_PUT_OFF = 64
#: A stream that is asked to stop begins no check after so many seconds; the next start checks the rest.
SECONDS_AT_THE_END = 30


class BatchFailed(TickledgerError):
    """A landed batch's verdict is `failed`, and the settings say that this stops the stream. Exit code 1."""


@dataclass
class _Waiting:
    """A landed batch without a verdict. `said`: its line stands, and its verdict gets one of its own."""

    batch: LandedBatch
    lag: Callable[[], int | None]
    messages_behind: int | None = None
    said: bool = False


class BatchChecks:
    """Checks batches as they land, one after the other. `on_failure` is called where the stream should stop for it.

    A thread waits for the process that checks, and notes each batch's figures in the ledger and in `metrics`. `project`
    is the folder of the Great Expectations project.

    While at least another STREAM_MAX_OFFSETS_PER_TRIGGER messages wait to land, checks work a part of the time only:
    both take processor time, and the backlog's batches are checked once it has landed. Where a failed batch stops the
    stream, checks never rest.
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
        self._checker = CheckerProcess(settings, project)
        self._loaded = False
        self._complaints: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="checks", daemon=True)
        self._places = threading.BoundedSemaphore(MOST_WAITING)
        #: What an earlier stream left; what has landed since, in order, and None once nothing will any more; and what
        #: was taken from there and put off.
        self._earlier: deque[int] = deque()
        self._landed: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._put_off: deque[_Waiting] = deque()
        #: The first batch that landed since the start; 0 where none has yet.
        self._first = 0
        #: Set by it, or by the end.
        self._first_landed = threading.Event()
        self._messages_behind: int | None = None
        self._last_begin_at = math.inf
        address = settings.checks_webhook_url.get_secret_value()
        self._webhook = None if address == "none" else Webhook(address, self._say_once)

    def begin(self, messages_behind: int = 0) -> None:
        """Load Great Expectations and check what is unchecked; once.

        Loading takes seconds of a core. Where messages wait to land, their first batch goes before.
        """
        if self._thread.ident is None:
            self._messages_behind = messages_behind
            self._thread.start()

    def landed(self, batch: LandedBatch, lag: Callable[[], int | None]) -> None:
        """Check a batch and print its line, soon. Waits where too many are ahead of it."""
        self._first = self._first or batch.batch_id
        self.begin()
        self._places.acquire()
        self._landed.put(_Waiting(batch, lag))
        self._first_landed.set()

    def close(self, seconds: float = math.inf) -> None:
        """Begin checks of what waits for at most `seconds`, tell of what failed, then end."""
        self._last_begin_at = time.monotonic() + seconds
        self._landed.put(None)
        self._first_landed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._checker.close()
        if self._webhook is not None:
            self._webhook.close()

    def _run(self) -> None:
        with self._bugs_said():
            if self._settings.checks_enabled:
                self._let_landing_begin()
                self._rest(REST * self._load())
        while (check := self._next()) is not None:
            with self._bugs_said():
                self._rest(REST * check())
        with self._bugs_said():
            self._leave()

    @contextlib.contextmanager
    def _bugs_said(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._say_once(f"checks ended unexpectedly: {type(error).__name__}: {error}")

    def _let_landing_begin(self) -> None:
        if self._messages_behind:
            self._first_landed.wait(SECONDS_BEFORE_LOADING)
        self._rest(SECONDS_BEFORE_LOADING)

    def _load(self) -> float:
        """Load Great Expectations and list what an earlier stream left; returns the seconds that it took."""
        started = time.monotonic()
        try:
            batch_ids = self._patience.wait_for(self._checker.unchecked)
            self._loaded = True
        except TickledgerError as error:
            self._say_once(f"batches stay unchecked: {error}")
            return 0.0
        # What has landed since the start has its own turn and its own line.
        self._earlier.extend(one for one in batch_ids if not self._first or one < self._first)
        return time.monotonic() - started

    def _next(self) -> Callable[[], float] | None:
        """The next check, which returns the seconds that it took; None where there is none any more."""
        if time.monotonic() > self._last_begin_at:
            return None
        if self._earlier:
            return partial(self._catch_up, self._earlier.popleft())
        waiting = self._put_off.popleft() if self._put_off else self._landed.get()
        return None if waiting is None else partial(self._check, waiting)

    def _rest(self, seconds: float) -> None:
        """Check nothing for some seconds, if a backlog lands; tell of batches that land meanwhile."""
        until = time.monotonic() + seconds
        while (
            (left := until - time.monotonic()) > 0
            and self._lands_a_backlog()
            and len(self._earlier) + len(self._put_off) < MOST_PUT_OFF
        ):
            try:
                waiting = self._landed.get(timeout=left)
            except queue.Empty:
                return
            if waiting is None:
                # It stays the queue's end.
                self._landed.put(None)
                return
            self._put_off.append(waiting)
            self._tell(waiting, "check waits")

    def _lands_a_backlog(self) -> bool:
        behind = self._messages_behind or 0
        much = behind >= self._settings.stream_max_offsets_per_trigger
        return much and not self._settings.checks_stop_on_failed

    def _leave(self) -> None:
        """Let what is not checked yet be, where the time to end has come."""
        while not self._landed.empty() and (waiting := self._landed.get()) is not None:
            self._put_off.append(waiting)
            self._tell(waiting, "unchecked")
        if left := len(self._earlier) + len(self._put_off):
            print(f"{left:,} batches stay unchecked; the next start checks them", flush=True)

    def _catch_up(self, batch_id: int) -> float:
        verdict, seconds = self._verdict(batch_id)
        print(f"batch {batch_id} · caught up · {_in_words(verdict, seconds)}", flush=True)
        return seconds

    def _check(self, waiting: _Waiting) -> float:
        batch_id = waiting.batch.batch_id
        try:
            verdict, seconds = self._verdict(batch_id)
            check_seconds = None if verdict == "unchecked" else seconds
            if self._metrics is not None:
                self._metrics.checked(verdict, check_seconds)
            self._tell(waiting, _in_words(verdict, seconds), check_seconds)
            if verdict == "failed" and self._settings.checks_stop_on_failed:
                self._on_failure(
                    BatchFailed(
                        f"batch {batch_id} failed its checks (CHECKS_STOP_ON_FAILED is true);"
                        f" see 'great_expectations checkpoint run landed_batch --batch {batch_id}'"
                    )
                )
        finally:
            self._places.release()
        return seconds

    def _tell(self, waiting: _Waiting, verdict: str, check_seconds: float | None = None) -> None:
        """Note a batch's figures in the ledger, then print its line, or its verdict's where its line stands."""
        batch = waiting.batch
        if not waiting.said:
            waiting.messages_behind = self._messages_behind = waiting.lag()
            if self._metrics is not None:
                self._metrics.behind(waiting.messages_behind)
        try:
            self._ledger.note(batch, check_seconds, waiting.messages_behind)
        except TickledgerError as error:
            self._say_once(f"batch {batch.batch_id} keeps no figures of its check and lag: {error}")
        if waiting.said:
            print(f"batch {batch.batch_id} · caught up · {verdict}", flush=True)
        else:
            print(_line(batch, waiting.messages_behind, verdict), flush=True)
        waiting.said = True

    def _verdict(self, batch_id: int) -> tuple[str, float]:
        if not self._loaded:
            return "unchecked", 0.0
        started = time.monotonic()
        fault_points.reached("before_check")
        try:
            verdict = self._patience.wait_for(lambda: self._checker.check(batch_id))
        except TickledgerError as error:
            self._say_once(f"batch {batch_id} stays unchecked: {error}")
            return "unchecked", time.monotonic() - started
        fault_points.reached("after_check")
        if verdict.verdict == "failed" and self._webhook is not None:
            self._webhook.tell(verdict)
        return verdict.verdict, time.monotonic() - started

    def _say_once(self, line: str) -> None:
        reason = line.partition(":")[2]
        if reason not in self._complaints:
            self._complaints.add(reason)
            print(line, flush=True)


def _in_words(verdict: str, check_seconds: float) -> str:
    return verdict if verdict == "unchecked" else f"{verdict} (check {check_seconds:.2f} s)"


def _line(batch: LandedBatch, lag: int | None, verdict: str) -> str:
    parts = [
        f"batch {batch.batch_id}",
        f"{batch.messages:,} messages",
        f"{batch.ticks_landed:,} ticks",
        f"{batch.dead_letters:,} dead letters",
        f"{batch.duplicates:,} duplicates",
        f"{batch.landing_seconds:.2f} s",
        f"lag {'unknown' if lag is None else format(lag, ',')}",
        verdict,
    ]
    return " · ".join(parts)
