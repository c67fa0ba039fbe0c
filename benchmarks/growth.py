"""`make bench-growth`: what a stream's memory does over a thousand batches, each landed and checked."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import psutil
import typer
from oracle import OracleProducer
from pipeline import Pipeline, StreamProcess

from benchmarks.__main__ import Bench
from benchmarks.report import record_memory, slopes
from services.instance import Instance
from streaming.errors import run_command

#: Messages a second, of a tick a company each.
PACE = 20
SAMPLE_SECONDS = 2.0


def memory(pipeline: Pipeline, batches: int, folder: Path) -> pd.DataFrame:
    """Land and check so many batches of a slow load at a trigger of 0; one row per sample.

    batch: the newest one in the ledger. driver, workers: resident megabytes of the driver's Python and of Spark's
    Python workers together; what they share counts in each.
    """
    log = folder / "acknowledged.jsonl"
    log.touch()
    producer = OracleProducer(pipeline, log, 1, messages_per_second=PACE)
    stream = StreamProcess(pipeline, environment={"STREAM_TRIGGER_SECONDS": "0"})
    rows = []
    try:
        stream.wait_for("batch ")
        driver = psutil.Process(stream.python_pid())
        jvm = psutil.Process(stream.process.pid)
        while True:
            newest = int(pipeline.rows("SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches")[0][0])
            workers = [one for one in jvm.children(recursive=True) if one.pid != driver.pid]
            rows.append((newest, driver.memory_info().rss / 1e6, sum(_resident(one) for one in workers)))
            print(f"\rbatch {newest:,} of {batches:,}", end="", flush=True)
            if newest >= batches:
                break
            assert stream.process.poll() is None, stream.output[-2000:]
            time.sleep(SAMPLE_SECONDS)
        print()
    finally:
        producer.stop()
        stream.process.terminate()
        stream.wait()
    verdicts = dict(pipeline.rows("SELECT verdict, COUNT(*) FROM landed_batches GROUP BY verdict"))
    print(f"verdicts: {verdicts}")
    assert "unchecked" not in verdicts, verdicts
    return pd.DataFrame(rows, columns=["batch", "driver", "workers"])


def _resident(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss / 1e6)
    except psutil.Error:
        return 0.0


def main(
    batches: Annotated[int, typer.Option(min=10, help="Batches to land and check.")] = 1000,
    instance: Annotated[str, typer.Option(help="The servers' instance, which is started for it.")] = "bench",
    keep: Annotated[bool, typer.Option("--record", help="Write docs/performance.* anew from this run.")] = False,
) -> None:
    """Land and check many small batches and print by how many megabytes a hundred of them the stream grows."""
    servers = Instance(instance)
    ran = bool(servers.running())
    servers.start()
    try:
        with tempfile.TemporaryDirectory() as folder, Bench(servers, Path(folder)).stores() as pipeline:
            samples = memory(pipeline, batches, Path(folder))
    finally:
        if not ran:
            servers.stop()
    for name, megabytes in slopes(samples).items():
        print(f"{name}: {megabytes:+.2f}")
    if keep:
        record_memory(samples)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m benchmarks.growth"))
