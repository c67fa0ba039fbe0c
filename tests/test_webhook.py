"""Failed batches are posted to a real HTTP server, once each; a server that is away, hangs or refuses stops nothing."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from expectations.checker import CheckResult, Verdict
from streaming import webhook
from streaming.check_landed import BatchChecks
from streaming.webhook import Webhook
from tests.support.healthy_batch import land_ticks
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError
from tickledger.retry_policy import RetryPolicy
from tickledger.settings import PROJECT_ROOT, load_settings

LOST = CheckResult("books.ticks_are_in_cassandra", "critical", False, "ticks_in_cassandra = 1", "every landed tick")
PASSED = CheckResult("books.volume_is_aggregated", "critical", True, "volume = 1", "volume")


def failed(batch_id: int) -> Verdict:
    return Verdict(batch_id, "failed", (LOST, PASSED))


class Receiver:
    """An HTTP server that keeps what is posted to it and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.location = ""
        self.posts: list[tuple[str, str | None, Any]] = []
        self.gets: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.posts.append((self.path, self.headers["Content-Type"], json.loads(body)))
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.end_headers()

            def do_GET(self) -> None:
                receiver.gets.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/batches?token=geheim"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.mark.integration
def test_failed_batches_are_told_once_with_their_findings(pipeline: Pipeline, receiver: Receiver) -> None:
    for batch_id in (1, 2, 3):
        land_ticks(pipeline, batch_id)
    pipeline.execute("UPDATE landed_batches SET volume = volume + 1 WHERE batch_id = 2")
    settings = pipeline.settings.model_copy(update={"checks_webhook_url": SecretStr(receiver.url)})

    checks = BatchChecks(settings, RetryPolicy(30, threading.Event()), lambda _: None)
    checks.begin()
    checks.close()

    assert pipeline.rows("SELECT verdict FROM landed_batches ORDER BY batch_id") == [
        ("passed",),
        ("failed",),
        ("passed",),
    ]
    ((path, kind, body),) = receiver.posts
    assert (path, kind) == ("/batches?token=geheim", "application/json")
    assert (body["batch_id"], body["verdict"]) == (2, "failed")
    found = pipeline.rows("SELECT expectation, severity, observed, expected FROM batch_findings")
    assert [tuple(finding.values()) for finding in body["findings"]] == found


def tell(url: str, batches: int) -> tuple[list[str], float]:
    """Tell of some batches, twice each: what is said, and how long telling and closing took."""
    said: list[str] = []
    started = time.monotonic()
    hook = Webhook(url, said.append)
    for batch_id in (*range(batches), *range(batches)):
        hook.tell(failed(batch_id))
    told = time.monotonic() - started
    hook.close()
    assert told < 1
    return said, time.monotonic() - started


def test_a_batch_that_is_checked_again_is_not_told_again(receiver: Receiver) -> None:
    said, _ = tell(receiver.url, 3)

    assert said == []
    assert [body["batch_id"] for _, _, body in receiver.posts] == [0, 1, 2]
    assert [finding["expectation"] for finding in receiver.posts[0][2]["findings"]] == [LOST.expectation]


def test_a_server_that_refuses_is_said_without_its_address(receiver: Receiver) -> None:
    receiver.status = 500

    said, _ = tell(receiver.url, 1)

    assert said == ["the webhook does not get failed batches: CHECKS_WEBHOOK_URL answers 500"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_is_no_success(receiver: Receiver, status: int) -> None:
    receiver.status, receiver.location = status, receiver.url.replace("/batches", "/elsewhere")

    said, _ = tell(receiver.url, 1)

    assert said == [f"the webhook does not get failed batches: CHECKS_WEBHOOK_URL answers {status}"]
    assert (len(receiver.posts), receiver.gets) == (1, [])


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_what_is_not_http_is_not_opened(address: str) -> None:
    # No setting names one: it stands for what would come past that.
    said, _ = tell(address, 1)

    assert said == ["the webhook does not get failed batches: CHECKS_WEBHOOK_URL does not answer (str)"]


def test_nobody_listening_is_said() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as freed:
        port = freed.getsockname()[1]

    said, _ = tell(f"http://127.0.0.1:{port}/", 1)

    assert said == [
        "the webhook does not get failed batches: CHECKS_WEBHOOK_URL does not answer (ConnectionRefusedError)"
    ]


def test_a_server_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(webhook, "CLOSE_SECONDS", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        # More than can wait.
        said, seconds = tell(f"http://127.0.0.1:{silent.getsockname()[1]}/", webhook.MOST_WAITING + 20)

    assert seconds < 4
    assert any("CHECKS_WEBHOOK_URL takes longer" in line for line in said)
    assert any("CHECKS_WEBHOOK_URL does not answer (TimeoutError)" in line for line in said)


@pytest.mark.parametrize("value", ["nope", "ftp://example.org/geheim", "http://", "https://a b"])
def test_an_address_that_is_none_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CHECKS_WEBHOOK_URL", value)
    for name in ("CASSANDRA_PASSWORD", "MYSQL_PASSWORD"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(PROJECT_ROOT / ".env.example")
    assert str(refusal.value) == (
        "CHECKS_WEBHOOK_URL is (hidden); it should be none, or an address that begins with http:// or https://"
    )
