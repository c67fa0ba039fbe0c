"""A Python worker that Spark lets go says nothing."""

import os
import socket
import struct
import subprocess
import sys
import tempfile

import psutil
import pytest


def said_after_a_worker_is_let_go(module: str, folder: str) -> str:
    """What the daemon and its worker write to stderr when the worker's socket is closed, as Spark does when idle."""
    environment = os.environ | {
        "PYTHON_UNIX_DOMAIN_ENABLED": "true",
        "PYTHON_WORKER_FACTORY_SOCK_DIR": folder,
        "PYTHON_DAEMON_KILL_WORKER_ON_FLUSH_FAILURE": "1",
        "SPARK_REUSE_WORKER": "1",
    }
    command = [sys.executable, "-m", module, "pyspark.worker"]
    daemon = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert daemon.stdout is not None
    (length,) = struct.unpack("!i", daemon.stdout.read(4))
    address = daemon.stdout.read(length).decode()
    with socket.socket(socket.AF_UNIX) as spark:
        spark.connect(address)
        worker = psutil.Process(struct.unpack("!i", spark.recv(4, socket.MSG_WAITALL))[0])
    # Only then the daemon, which would end the worker first.
    psutil.wait_procs([worker], timeout=60)
    return daemon.communicate(timeout=60)[1].decode()


@pytest.mark.parametrize(("module", "told"), [("pyspark.daemon", True), ("streaming.python_daemon", False)])
def test_a_worker_that_is_let_go_says_nothing(module: str, told: bool) -> None:
    # A socket's path is short: pytest's own folder may be too long for one.
    with tempfile.TemporaryDirectory() as folder:
        assert ("BrokenPipeError" in said_after_a_worker_is_let_go(module, folder)) is told
