"""Backup and restore by the runbook's own commands: taken while batches land, all destroyed, each tick there once."""

import hashlib
import io
import re
import shlex
import subprocess
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from commands.reconcile import reconcile
from services.instance import Instance
from tests.support.batches import TOPIC, Lander, tick
from tests.support.pipeline import Pipeline
from tickledger.ledger import StreamLock
from tickledger.settings import PROJECT_ROOT
from tickledger.stores import connect_cassandra, connect_mysql

pytestmark = pytest.mark.integration

RUNBOOK = (PROJECT_ROOT / "docs" / "runbook.md").read_text()
#: Messages of each of the two partitions; each brings two ticks and a copy of one of the message before.
MESSAGES = 2000


def run(section: str, folder: Path, services: Instance, pipeline: Pipeline) -> "subprocess.CompletedProcess[str]":
    """Run the command of a section of the runbook, on another folder and on the tests' own servers."""
    (block,) = re.findall(rf"^### {section}\n.*?^```sh\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    *words, _ = shlex.split(block)
    return subprocess.run(
        [*words, str(folder), "--instance", services.name],
        cwd=PROJECT_ROOT,
        env=pipeline.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def message(partition: int, offset: int) -> tuple[int, int, list[dict[str, Any]]]:
    """A message of the topic, the same whenever it is read."""
    numbers = [2 * (2 * offset + one) + partition for one in (0, 1, -1)]
    return partition, offset, [tick(number) for number in numbers if number >= 0]


def land_next(lander: Lander, size: int) -> None:
    """Land the next messages after the ledger's end, at most `size` of each partition."""
    ends = lander.ledger.head().ends
    starts = {partition: ends.get(partition, 0) for partition in (0, 1)}
    lander.land(*(message(one, offset) for one in (0, 1) for offset in range(starts[one], starts[one] + size)))


class Landing:
    """Lands small batches in the background until told to stop, and waits for a store that is away."""

    def __init__(self, spark: SparkSession, pipeline: Pipeline) -> None:
        self._lander = Lander(spark, pipeline, retry_seconds=120)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._land)
        self.problem: Exception | None = None
        self._thread.start()

    def _land(self) -> None:
        try:
            while not self._stop.wait(0.2):
                land_next(self._lander, 3)
        except Exception as error:
            self.problem = error

    def wait_for_batch(self, batch_id: int) -> None:
        """Wait until the ledger has a batch."""
        while self._lander.ledger.head().batch_id < batch_id:
            self._thread.join(0.1)
            assert self._thread.is_alive(), self.problem

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def test_what_was_backed_up_beside_a_stream_is_restored_and_lands_once(
    spark: SparkSession, pipeline: Pipeline, services: Instance, tmp_path: Path
) -> None:
    landing = Landing(spark, pipeline)
    try:
        landing.wait_for_batch(2)
        taken = run("Back up", tmp_path / "backup", services, pipeline)
        assert taken.returncode == 0, taken.stderr
        landing.wait_for_batch(Lander(spark, pipeline).ledger.head().batch_id + 2)
    finally:
        landing.stop()
    assert landing.problem is None
    assert reconcile(pipeline.settings).differences == []
    lost = Lander(spark, pipeline).ledger.head().batch_id

    destroy(pipeline)
    done = run("Restore", tmp_path / "backup", services, pipeline)
    assert done.returncode == 0, done.stderr
    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: MESSAGES, 1: MESSAGES}))
    assert 2 <= again.ledger.head().batch_id < lost
    assert reconcile(pipeline.settings).differences == []

    while (end := again.ledger.head().ends[0]) < MESSAGES:
        land_next(again, min(600, MESSAGES - end))
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert books.messages == 2 * MESSAGES
    assert (books.ticks_landed, books.duplicates) == (4 * MESSAGES, 2 * MESSAGES - 2)
    assert books.cassandra == books.mysql


def destroy(pipeline: Pipeline) -> None:
    """Drop the database and empty the keyspace; neither leaves anything on the disk to come back from."""
    connection = connect_mysql(pipeline.settings, pipeline.settings.mysql_root, database="mysql")
    connection.cursor().execute(f"DROP DATABASE {pipeline.settings.mysql_database}")
    connection.close()
    session = connect_cassandra(pipeline.settings)
    for table in ("real_time_data", "dead_letters"):
        session.execute(f"TRUNCATE {table}", timeout=60)
        assert session.execute(f"SELECT COUNT(*) FROM {table}").one()[0] == 0
    session.cluster.shutdown()


def empty_tar() -> bytes:
    """An archive that holds one empty folder."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("data")
        member.type, member.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(member)
    return tar.getvalue()


def drop_profile(pipeline: Pipeline) -> bytes:
    """A dump that would be noticed."""
    return f"USE `{pipeline.settings.mysql_database}`;\nDROP TABLE profile;\n".encode()


def make_backup(folder: Path, sql: bytes = b"", tar: bytes = b"") -> None:
    """A folder that looks like a backup, with a manifest of what is in it."""
    (folder / "mysql.sql").write_bytes(sql)
    (folder / "cassandra.tar").write_bytes(tar)
    sums = "".join(f"{hashlib.sha256(one).hexdigest()}  {name}\n" for name, one in _named(sql, tar))
    (folder / "SHA256SUMS").write_text(sums)


def _named(sql: bytes, tar: bytes) -> list[tuple[str, bytes]]:
    return [("mysql.sql", sql), ("cassandra.tar", tar)]


def test_a_backup_that_is_not_what_its_manifest_says_changes_nothing(
    stores: Pipeline, services: Instance, tmp_path: Path
) -> None:
    make_backup(tmp_path, b"DROP TABLE profile;\n")
    (tmp_path / "cassandra.tar").write_bytes(b"another")

    done = run("Restore", tmp_path, services, stores)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "should be a whole backup: cassandra.tar is not what SHA256SUMS says" in done.stderr
    assert stores.rows("SELECT COUNT(*) > 0 FROM profile") == [(1,)]


@pytest.mark.parametrize(
    "command",
    ["\\! touch {}", "system touch {}", "\\T {}", "tee {}", "\\. {}", "source {}", "SELECT 'x' INTO OUTFILE '{}';"],
)
def test_no_command_of_a_backup_reaches_beyond_the_server(
    stores: Pipeline, services: Instance, tmp_path: Path, command: str
) -> None:
    ran = tmp_path / "ran"
    make_backup(tmp_path, f"SELECT 1;\n{command.format(ran)}\nSELECT * FROM nowhere.nothing;\n".encode(), empty_tar())

    done = run("Restore", tmp_path, services, stores)

    assert not ran.exists()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, "outside"])
def test_an_archive_leaves_its_folder_by_nothing(
    stores: Pipeline, services: Instance, tmp_path: Path, kind: bytes | str
) -> None:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("../../outside" if kind == "outside" else "data/inside")
        if isinstance(kind, bytes):
            member.type, member.linkname = kind, "data/other"
        archive.addfile(member)
    make_backup(tmp_path, drop_profile(stores), tar.getvalue())
    before = services.server("cassandra").pid

    done = run("Restore", tmp_path, services, stores)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the restore failed: ")
    assert services.server("cassandra").pid == before
    assert not list(services.folder.rglob("outside"))
    assert not list(services.folder.rglob("cassandra.restored"))
    assert stores.rows("SELECT COUNT(*) > 0 FROM profile") == [(1,)]


def test_nothing_is_restored_under_a_stream(stores: Pipeline, services: Instance, tmp_path: Path) -> None:
    make_backup(tmp_path)
    lock = StreamLock(stores.settings)
    lock.hold()

    done = run("Restore", tmp_path, services, stores)

    lock.release()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "a stream lands into" in done.stderr


def test_a_torn_backup_is_told_in_one_line_and_changes_nothing(
    stores: Pipeline, services: Instance, tmp_path: Path
) -> None:
    make_backup(tmp_path, drop_profile(stores), b"torn" * 1000)
    before = services.server("cassandra").pid

    done = run("Restore", tmp_path, services, stores)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the restore failed: ")
    assert services.server("cassandra").pid == before
    assert stores.rows("SELECT COUNT(*) > 0 FROM profile") == [(1,)]


@pytest.mark.parametrize(
    ("section", "says"), [("Back up", "should be one that is not there yet"), ("Restore", "should be a backup")]
)
def test_a_wrong_folder_is_refused(
    stores: Pipeline, services: Instance, tmp_path: Path, section: str, says: str
) -> None:
    done = run(section, tmp_path, services, stores)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []
