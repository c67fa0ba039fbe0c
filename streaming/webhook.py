"""Tells an address of the user's, CHECKS_WEBHOOK_URL, of failed batches: one plain JSON POST each."""

import json
import queue
import threading
from collections.abc import Callable
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

if TYPE_CHECKING:
    from expectations.checker_process import Verdict

#: How long a request may wait for the connection, and for each part of the answer.
ANSWER_SECONDS = 5
#: How long the end of the stream waits for what is still to be posted.
CLOSE_SECONDS = 10
#: Failed batches that wait to be posted; while the address hangs, later ones are left out.
MOST_WAITING = 100


def _opener() -> OpenerDirector:
    """Opens http and https alone, and follows no redirect: no setting names the address that it leads to."""
    opener = OpenerDirector()
    known = (ProxyHandler, HTTPHandler, HTTPSHandler, UnknownHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor)
    for handler in known:
        opener.add_handler(handler())
    return opener


class Webhook:
    """Posts failed verdicts from a thread of its own, so that no address can hold up a check.

    Each batch is posted at most once, without a second attempt or a redirect: verdict and findings are in the ledger
    anyway. A failure goes to `say`, in a line that names the setting and never the address, which may hold a
    token.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url = url
        self._say = say
        self._opener = _opener()
        self._told: set[int] = set()
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(MOST_WAITING)
        # A daemon: a request that hangs must not keep the program from its end.
        self._thread = threading.Thread(target=self._post_all, name="webhook", daemon=True)
        self._thread.start()

    def tell(self, verdict: "Verdict") -> None:
        """Post a verdict soon, if its batch was not posted before. Returns at once, raises nothing."""
        if verdict.batch_id in self._told:
            return
        self._told.add(verdict.batch_id)
        try:
            self._waiting.put_nowait(message_of(verdict))
        except queue.Full:
            self._fail("takes longer to answer than batches fail; some are left out")

    def close(self) -> None:
        """Post what waits, for at most :data:`CLOSE_SECONDS`."""
        try:
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _post_all(self) -> None:
        while (message := self._waiting.get()) is not None:
            self._post(message)

    def _post(self, message: dict[str, Any]) -> None:
        try:
            body, kind = json.dumps(message).encode(), {"Content-Type": "application/json"}
            request = Request(self._url, body, kind)  # noqa: S310  # the opener knows http and https alone
            with self._opener.open(request, timeout=ANSWER_SECONDS):
                pass
        except HTTPError as error:
            error.close()
            self._fail(f"answers {error.code}")
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            self._fail(f"does not answer ({type(reason).__name__})")

    def _fail(self, problem: str) -> None:
        self._say(f"the webhook does not get failed batches: CHECKS_WEBHOOK_URL {problem}")


def message_of(verdict: "Verdict") -> dict[str, Any]:
    """What is posted of a verdict: batch_id, verdict, and one entry per finding, as in `batch_findings`."""
    return {
        "event": "batch_checked",
        "batch_id": verdict.batch_id,
        "verdict": verdict.verdict,
        "findings": [
            {
                "expectation": finding.expectation,
                "severity": finding.severity,
                "observed": finding.observed,
                "expected": finding.expected,
            }
            for finding in verdict.findings
        ],
    }
