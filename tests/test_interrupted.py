"""What runs for long ends in order when it is asked to, and takes with it whatever it started."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil
import pytest

from services.instance import Instance
from tests.support.instances import INSTANCE_VARIABLE, KEEP_VARIABLE
from tests.support.pipeline import Pipeline
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

INTERRUPTED = 130
PYTEST_INTERRUPTED = 2


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [
        ("benchmarks --engines ours --ticks 20000 --batch 200 --instance {}", signal.SIGINT, INTERRUPTED),
        ("benchmarks.latency --rate 100 --instance {}", signal.SIGTERM, INTERRUPTED),
        ("benchmarks.growth --part memory --instance {}", signal.SIGTERM, INTERRUPTED),
        ("tools.faults --only SIGTERM", signal.SIGTERM, INTERRUPTED),
        (
            "pytest -p no:cacheprovider --numprocesses=1 tests/test_stream.py -k standalone",
            signal.SIGTERM,
            PYTEST_INTERRUPTED,
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_what_is_asked_to_stop_leaves_no_process_and_no_database(
    services: Instance, pipeline: Pipeline, module: str, number: signal.Signals, code: int
) -> None:
    mark = uuid.uuid4().hex
    databases = "SELECT COUNT(*) FROM information_schema.schemata"
    before = pipeline.rows(databases)
    # One process of a run that is not spread has no suffix in the name of its instance.
    same_servers = {INSTANCE_VARIABLE: services.name, KEEP_VARIABLE: "1", "STARTED_BY": mark}
    running = subprocess.Popen(
        [sys.executable, "-m", *module.format(services.name).split()],
        cwd=PROJECT_ROOT,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name} | same_servers,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_a_worker(running, mark)
    running.send_signal(number)
    output = running.communicate(timeout=240)[0]
    assert running.returncode == code, output
    assert "Traceback" not in output
    # Spark's workers end by themselves once their daemon has lost its JVM.
    psutil.wait_procs(marked(mark), timeout=10)
    assert list(marked(mark).values()) == []
    assert pipeline.rows(databases) == before


def wait_for_a_worker(running: "subprocess.Popen[str]", mark: str, seconds: float = 400) -> None:
    """Wait until Spark's Python workers land a batch."""
    deadline = time.monotonic() + seconds
    while not any("pyspark.worker" in arguments for arguments in marked(mark).values()):
        assert running.poll() is None, running.communicate()[0]
        assert time.monotonic() < deadline, marked(mark)
        time.sleep(0.2)


def marked(mark: str) -> dict[psutil.Process, list[str]]:
    """What runs with the mark in its environment, with its arguments."""
    found = {}
    for process in psutil.process_iter():
        # It may end between two looks at it.
        with suppress(psutil.Error):
            if process.environ().get("STARTED_BY") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = process.cmdline()
    return found
