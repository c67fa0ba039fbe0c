"""Spark's standalone cluster: as the services start and stop it, and a worker to which only the archive travels."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyspark
import pytest

from benchmarks.bench import kill_tree
from services.archive import submit_options, write_archive
from services.hosts import LOOPBACK
from services.java import java_home
from services.server import free_port, process_of
from services.spark_cluster import MASTER, names, start_cluster, stop_cluster
from tests.support import foreign_spark
from tests.support.browser import wait_until
from tests.support.pipeline import Pipeline, StreamProcess
from tests.test_stream import assert_landed_once, ticks
from tickledger.errors import ConfigurationError
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

NOBODY = 65534
#: In a mount namespace of its own a process finds nothing below the first two folders, and goes on as somebody else.
HIDDEN = (
    'mount -t tmpfs -o mode=0700 none "$1" && mount -t tmpfs -o mode=0700 none "$2" && shift 2 &&'
    f' exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"'
)


class Cluster:
    """A cluster of the services in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.secret, self.port = folder, secrets.token_hex(12), free_port()

    def start(self, workers: int) -> str:
        return start_cluster(self.folder, self.secret, print, workers=workers, port=self.port)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    yield (cluster := Cluster(tmp_path))
    stop_cluster(cluster.folder)


def test_a_cluster_is_started_once_found_again_and_stopped_by_pid(cluster: Cluster) -> None:
    url = cluster.start(2)
    started = pids(cluster)
    assert list(started) == ["spark-worker-1", "spark-worker-2", MASTER]
    assert cluster.start(2) == url
    assert pids(cluster) == started
    assert foreign_spark.ask(cluster.port, "master").startswith("refused: "), "who has no secret is let in"

    process_of(cluster.folder, MASTER).kill()
    cluster.start(2)
    log = cluster.folder / "logs" / "spark-worker-1.log"
    wait_until(lambda: "Master has changed" in log.read_text(), "the worker does not find the new master")
    assert {name for name, pid in pids(cluster).items() if pid != started[name]} == {MASTER}

    running = [psutil.Process(pid) for pid in pids(cluster).values()]
    assert stop_cluster(cluster.folder) == list(started)
    assert not [one for one in running if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert stop_cluster(cluster.folder) == []


def test_a_port_that_is_taken_is_told_in_one_line(cluster: Cluster) -> None:
    told = rf"cannot listen on 127.0.0.1:{cluster.port} \(Address already"
    with socket.create_server((LOOPBACK, cluster.port)), pytest.raises(ConfigurationError, match=told):
        cluster.start(1)

    assert pids(cluster) == {}


def pids(cluster: Cluster) -> dict[str, int]:
    found = {name: process_of(cluster.folder, name).pid for name in names(cluster.folder)}
    return {name: pid for name, pid in found.items() if pid is not None}


def test_workers_with_other_code_than_the_driver_are_refused(
    cluster: Cluster, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send([ticks(pipeline, 1)])
    for package in ("tickledger", "streaming"):
        shutil.copytree(PROJECT_ROOT / package, tmp_path / "former" / package)
    with (tmp_path / "former" / "tickledger" / "tick.py").open("a") as file:
        file.write("#: Of an earlier day.\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "former"}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    options = ["--master", cluster.start(1), "--conf", f"spark.pyspark.python={python}"]
    stream = StreamProcess(pipeline, *options, once=True, environment={"SPARK_PASSWORD": cluster.secret})
    try:
        assert stream.wait(120) == 2, stream.output
    finally:
        stream.kill()
    assert stream.lines[-1].startswith("error: spark.archives holds, or the workers have installed, other code than")


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        ([], "spark.pyspark.python is './environment/bin/python'; on each worker it should be a Python 3.* with "),
        (
            ["--archives", "/nowhere/environment.tar.gz#environment"],
            r"Spark does not start: \S*NoSuchFileException: /nowhere/environment.tar.gz; or --master, spark://",
        ),
    ],
    ids=["none", "one that is not there"],
)
def test_workers_without_a_python_are_told_in_one_line(
    cluster: Cluster, pipeline: Pipeline, archive: list[str], said: str
) -> None:
    pipeline.send([ticks(pipeline, 1)])
    options = ["--master", cluster.start(1), *archive, "--conf", "spark.pyspark.python=./environment/bin/python"]
    stream = StreamProcess(pipeline, *options, once=True, environment={"SPARK_PASSWORD": cluster.secret})
    try:
        assert stream.wait(120) == 2, stream.output
    finally:
        stream.kill()
    assert re.match(f"error: {said}", stream.lines[-1])


class ForeignWorker:
    """A worker with Spark and Java, in a folder of its own, of a user who finds neither the project nor its Python."""

    def __init__(self, master: str, secret: str) -> None:
        # Below pytest's own folder nobody else reads anything.
        self.folder = Path(tempfile.mkdtemp(prefix="tickledger-worker-"))
        home = self.folder / "spark"
        for name in ("bin", "jars"):
            shutil.copytree(Path(pyspark.__file__).parent / name, home / name)
        (self.folder / "conf").mkdir()
        defaults = f"spark.authenticate true\nspark.authenticate.secret {secret}\n"
        (self.folder / "conf" / "spark-defaults.conf").write_text(defaults)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(self.folder)], check=True)
        own_python = Path(sys.base_prefix)
        hidden = [PROJECT_ROOT, PROJECT_ROOT if own_python.is_relative_to("/usr") else own_python]
        command = [str(home / "bin" / "spark-class"), "org.apache.spark.deploy.worker.Worker", "--host", LOOPBACK]
        command += ["--webui-port", "0", "--cores", "2", "--memory", "1g", "--work-dir", f"{self.folder}/work", master]
        environment = {"SPARK_HOME": str(home), "SPARK_CONF_DIR": str(self.folder / "conf"), "SPARK_LOCAL_IP": LOOPBACK}
        environment |= {"JAVA_HOME": str(java_home()), "SPARK_DAEMON_MEMORY": "256m"}
        self.process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", HIDDEN, "sh", *map(str, hidden), *command],
            cwd=self.folder,
            env=environment | {"PATH": "/usr/bin:/bin"},
            start_new_session=True,
            text=True,
        )
        self.pythons: dict[str, int] = {}

    def look(self) -> None:
        """Note which Pythons run below the worker, and as whom."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # One that has ended and waits to be reaped has a name, but no program any more.
                if one.name().startswith("python3") and (program := one.exe()):
                    self.pythons[program] = one.uids().real

    def stop(self) -> None:
        kill_tree(self.process)
        shutil.rmtree(self.folder)


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[ForeignWorker]:
    if os.geteuid():
        pytest.skip("only root starts a worker as another user")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine makes no mount namespaces")
    if java_home().is_relative_to(PROJECT_ROOT):
        pytest.skip("the only Java 17 here lies in the project's folder, which the worker must not find")
    yield (worker := ForeignWorker(cluster.start(0), cluster.secret))
    worker.stop()


def test_a_worker_of_another_user_with_nothing_of_the_project_lands_ticks(
    cluster: Cluster, worker: ForeignWorker, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.send([ticks(pipeline, number) for number in range(20)])
    archive = write_archive(tmp_path / "environment.tar.gz")
    options = submit_options(cluster.start(0), archive)
    stream = StreamProcess(pipeline, *options, once=True, environment={"SPARK_PASSWORD": cluster.secret})
    try:
        while stream.process.poll() is None:
            worker.look()
            time.sleep(0.1)
        assert stream.wait() == 0, stream.output
    finally:
        stream.kill()

    assert_landed_once(pipeline, 20)
    assert worker.pythons
    for program, user in worker.pythons.items():
        assert Path(program).is_relative_to(worker.folder / "work"), program
        assert user == NOBODY
