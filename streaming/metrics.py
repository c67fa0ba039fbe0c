"""The stream's live figures for Prometheus; the same figures of each batch stand in the ledger."""

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Summary, start_http_server

from tickledger.errors import ConfigurationError
from tickledger.ledger import LandedBatch
from tickledger.settings import Settings


class Metrics:
    """Counts what landed since the stream's start, and serves it at STREAM_METRICS_ADDRESS under /metrics.

    Names begin with `tickledger_`; durations in seconds, by phase (waiting, job, commit, check). With `none` it counts
    and serves nothing. Raises ConfigurationError if it cannot serve at the address.
    """

    def __init__(self, settings: Settings) -> None:
        registry = CollectorRegistry()
        self._counts = {
            name: Counter(f"tickledger_{name}", what, registry=registry)
            for name, what in {
                "batches": "Batches landed",
                "messages": "Kafka messages landed",
                "ticks_landed": "Ticks that the batches added to the stores",
                "corrections": "Corrections and cancellations of ticks",
                "dead_letters": "Ticks or whole messages that could not land",
                "duplicates": "Ticks that had landed before",
            }.items()
        }
        self._verdicts = Counter("tickledger_verdicts", "Batches by verdict", ["verdict"], registry=registry)
        self._phases = Summary("tickledger_phase_seconds", "Duration of a batch's phases", ["phase"], registry=registry)
        self._behind = Gauge("tickledger_messages_behind", "Messages in the topic, not landed yet", registry=registry)
        self._batch = Gauge("tickledger_newest_batch_id", "The ledger's newest batch", registry=registry)
        self._landed = Gauge("tickledger_landed_timestamp_seconds", "When the newest batch landed", registry=registry)
        self._serve(settings.stream_metrics_address, registry)

    def landed(self, batch: LandedBatch) -> None:
        """Count a batch that is in the ledger."""
        for name, count in self._counts.items():
            count.inc(1 if name == "batches" else getattr(batch, name))
        self._batch.set(batch.batch_id)
        self._landed.set(time.time())
        for phase, seconds in batch.phases.items():
            self._observe(phase, seconds)

    def checked(self, verdict: str, check_seconds: float | None) -> None:
        """Count a landed batch's verdict, `unchecked` included."""
        self._verdicts.labels(verdict).inc()
        self._observe("check", check_seconds)

    def behind(self, messages_behind: int | None) -> None:
        """Set the messages that wait to land; None (the broker is silent) leaves them as they are."""
        if messages_behind is not None:
            self._behind.set(messages_behind)

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()

    def _observe(self, phase: str, seconds: float | None) -> None:
        if seconds is not None:
            self._phases.labels(phase).observe(seconds)

    def _serve(self, address: str, registry: CollectorRegistry) -> None:
        self._server = None
        if address == "none":
            return
        host, _, port = address.rpartition(":")
        try:
            self._server = start_http_server(int(port), addr=host, registry=registry)
        except OSError as error:
            raise ConfigurationError(
                f"STREAM_METRICS_ADDRESS is {address!r}; it should be none, or a free host:port of this machine:"
                f" {error.strerror}"
            ) from None
