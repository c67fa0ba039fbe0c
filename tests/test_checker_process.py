"""The process that checks: it dies and comes again, and never outlives the stream."""

import contextlib
import signal
import subprocess
import sys

import psutil
import pytest

from expectations.checker import CheckFailedToRun
from expectations.checker_process import CheckerProcess
from expectations.read_back import UnknownBatch
from tests.support.healthy_batch import land_ticks
from tests.support.pipeline import Pipeline

STREAM = """
import time
from expectations.checker_process import CheckerProcess
from tickledger.settings import load_settings
CheckerProcess(load_settings()).load()
print("ready", flush=True)
time.sleep(600)
"""


def checking(pid: int | None = None) -> list[psutil.Process]:
    """The processes that check for a process: for this one, if none is named."""
    found = []
    for one in psutil.Process(pid).children():
        # One that was killed may not have been waited for yet: it has no arguments any more.
        with contextlib.suppress(psutil.Error):
            if "expectations.checker_process" in one.cmdline():
                found.append(one)
    return found


@pytest.mark.integration
def test_a_process_that_dies_leaves_its_batch_unchecked_and_the_next_call_begins_another(pipeline: Pipeline) -> None:
    land_ticks(pipeline)
    checker = CheckerProcess(pipeline.settings)
    checker.load()
    (process,) = checking()
    process.kill()

    with pytest.raises(CheckFailedToRun, match="the process of the checks ended"):
        checker.check(1)
    assert pipeline.rows("SELECT verdict FROM landed_batches") == [("unchecked",)]

    assert checker.check(1).verdict == "passed"
    with pytest.raises(UnknownBatch, match="no batch 7"):
        checker.check(7)
    checker.close()
    assert checking() == []


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_stream_however_that_ends(pipeline: Pipeline, number: signal.Signals) -> None:
    stream = subprocess.Popen(
        [sys.executable, "-c", STREAM], env=pipeline.environment, stdout=subprocess.PIPE, text=True
    )
    with stream:
        assert stream.stdout is not None
        assert stream.stdout.readline() == "ready\n"
        (process,) = checking(stream.pid)
        stream.send_signal(number)
    gone, _ = psutil.wait_procs([process], timeout=20)
    assert gone == [process]
