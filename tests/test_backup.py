"""Backup and restore by the runbook's own commands: taken while batches land, restored half and then whole."""

import gzip
import hashlib
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from commands.reconcile import reconcile
from services.backup import FORMAT
from tests.support.batches import TOPIC, Lander, tick
from tests.support.page_data import empty, land
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError
from tickledger.ledger import StreamLock, utc_now
from tickledger.settings import PROJECT_ROOT
from tickledger.start_up import check_tables

pytestmark = pytest.mark.integration

RUNBOOK = (PROJECT_ROOT / "docs" / "runbook.md").read_text()
#: Messages of each of the two partitions; each brings two ticks and a copy of one of the message before.
MESSAGES = 2000


def command(section: str, folder: Path, *options: str) -> list[str]:
    """The command of a section of the runbook, on another folder."""
    (block,) = re.findall(rf"^### {section}\n.*?^```sh\n(.*?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    _, *words, _ = shlex.split(block)
    return [sys.executable, "-m", "commands.main", *words, str(folder), *options]


def run(section: str, folder: Path, pipeline: Pipeline, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run it on the pipeline's stores."""
    return subprocess.run(
        command(section, folder, *options),
        cwd=PROJECT_ROOT,
        env=pipeline.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def message(partition: int, offset: int) -> tuple[int, int, list[dict[str, Any]]]:
    """A message of the topic, the same whenever it is read; one in a hundred has a tick that cannot land.

    One in seven corrects its first tick, and cancels a tick that comes much later, or in none.
    """
    numbers = [2 * (2 * offset + one) + partition for one in (0, 1, -1)]
    others = [tick(offset, ticker="NONE.JK")] if offset % 100 == 0 else []
    if offset % 7 == 0:
        marks = {"revision": "correction", "revised_at": "2026-03-02 05:30:00"}
        others += [tick(numbers[0], volume=70, **marks)]
        others += [tick(numbers[0] + 1000, **marks | {"revision": "cancellation"})]
    return partition, offset, [tick(number) for number in numbers if number >= 0] + others


def never_come() -> list[int]:
    """The ticks that messages cancel and no message brings."""
    cancelled = [4 * offset + partition + 1000 for offset in range(0, MESSAGES, 7) for partition in (0, 1)]
    return [number for number in cancelled if number >= 4 * MESSAGES]


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
    spark: SparkSession, pipeline: Pipeline, tmp_path: Path
) -> None:
    landing = Landing(spark, pipeline)
    try:
        landing.wait_for_batch(2)
        taken = run("Back up", tmp_path / "backup", pipeline)
        assert taken.returncode == 0, taken.stderr
        landing.wait_for_batch(Lander(spark, pipeline).ledger.head().batch_id + 2)
    finally:
        landing.stop()
    assert landing.problem is None
    assert reconcile(pipeline.settings).differences == []
    lost = Lander(spark, pipeline).ledger.head().batch_id

    die_half_way(tmp_path / "backup", pipeline)
    with pytest.raises(ConfigurationError):
        check_tables(pipeline.settings)
    # Its own rows are no other data, those of another backup are.
    make_backup(tmp_path / "another")
    assert "the restore of another backup is not through" in run("Restore", tmp_path / "another", pipeline).stderr
    done = run("Restore", tmp_path / "backup", pipeline)
    # The topic of frames made by hand is not the one that Kafka has.
    assert (done.returncode, done.stderr) == (1, "")
    assert "was recreated" in done.stdout
    assert run("Back up", tmp_path / "again", pipeline).returncode == 0
    assert content(tmp_path / "again") == content(tmp_path / "backup")

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: MESSAGES, 1: MESSAGES}))
    assert 2 <= again.ledger.head().batch_id < lost
    assert reconcile(pipeline.settings).differences == []
    while (end := again.ledger.head().ends[0]) < MESSAGES:
        land_next(again, min(600, MESSAGES - end))
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert books.messages == 2 * MESSAGES
    assert (books.ticks_landed, books.duplicates) == (4 * MESSAGES, 2 * MESSAGES - 2)
    corrected = "SELECT SUM(corrections), (SELECT COUNT(*) FROM waiting_revisions) FROM landed_batches"
    sent = -(-MESSAGES // 7)
    assert [tuple(map(int, row)) for row in pipeline.rows(corrected)] == [(4 * sent, len(never_come()))]
    assert books.cassandra == books.mysql


def die_half_way(folder: Path, pipeline: Pipeline) -> None:
    """Kill a restore over what has landed, once it has filled Cassandra."""
    restoring = command("Restore", folder, "--replace")
    process = subprocess.Popen(
        restoring, cwd=PROJECT_ROOT, env=pipeline.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "Cassandra is restored\n":
        assert line, "it ended before"
    process.send_signal(signal.SIGKILL)
    process.wait()


def content(folder: Path) -> dict[str, list[bytes]]:
    """The rows of each table of a backup, in an order that they do not lose by being written again."""
    return {file.name: sorted(gzip.open(file)) for file in folder.glob("*.jsonl.gz")}


def make_backup(folder: Path, **facts: Any) -> None:
    """A backup of nothing, with a manifest of what is in it."""
    folder.mkdir(exist_ok=True)
    known: dict[str, Any] = {"format": FORMAT, "topic": "", "mysql": {}, "cassandra": {}} | facts
    (folder / "backup.json").write_text(json.dumps(known))
    for table in (*known["mysql"], *known["cassandra"]):
        (folder / f"{table}.jsonl.gz").write_bytes(gzip.compress(b""))
    write_manifest(folder)


def write_manifest(folder: Path) -> None:
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))


def _torn(folder: Path) -> None:
    make_backup(folder, mysql={"landed_batches": ["batch_id"]})
    (folder / "landed_batches.jsonl.gz").write_bytes(b"torn")


def _linked(folder: Path) -> None:
    make_backup(folder, mysql={"landed_batches": ["batch_id"]})
    (folder / "elsewhere").write_bytes((folder / "landed_batches.jsonl.gz").read_bytes())
    (folder / "landed_batches.jsonl.gz").unlink()
    (folder / "landed_batches.jsonl.gz").symlink_to(folder / "elsewhere")


def _older(folder: Path) -> None:
    (folder / "cassandra.tar").touch()


def _no_json(folder: Path) -> None:
    (folder / "backup.json").write_text("{")
    write_manifest(folder)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no backup": (lambda _: None, "should be a backup, with a file SHA256SUMS"),
    "a torn file": (_torn, "should be a whole backup: landed_batches.jsonl.gz is not what SHA256SUMS says"),
    "a link": (_linked, "should be a whole backup: landed_batches.jsonl.gz is not what SHA256SUMS says"),
    "a file out of place": (
        lambda folder: make_backup(folder, mysql={"../profile": ["ticker"]}),
        "'../profile.ticker'",
    ),
    "no facts": (_no_json, "should be a backup, whose backup.json says what is in it"),
    "of an older version": (_older, "an older one made it, with whose code it can be restored"),
    "of a newer version": (lambda folder: make_backup(folder, format=FORMAT + 1), "a newer tickledger wrote it"),
    "with a newer table": (lambda folder: make_backup(folder, mysql={"fees": ["id"]}), "have written 'fees.id'"),
    "with a newer column": (
        lambda folder: make_backup(folder, cassandra={"real_time_data": ["ticker", "venue"]}),
        "a newer one may have written 'real_time_data.venue'",
    ),
    "of another topic": (lambda folder: make_backup(folder, topic="other"), "should be 'other', which the backup's"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_backup_for_here_is_refused_in_one_line(stores: Pipeline, tmp_path: Path, kind: str) -> None:
    make, says = REFUSED[kind]
    make(tmp_path)

    done = run("Restore", tmp_path, stores, "--replace")

    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert says in done.stderr
    assert stores.rows("SELECT COUNT(*) > 0 FROM profile") == [(1,)]


@pytest.mark.parametrize("store", ["MySQL", "Cassandra"])
def test_servers_that_hold_other_data_keep_them(stores: Pipeline, tmp_path: Path, store: str) -> None:
    empty(stores)
    if store == "MySQL":
        land(stores, 1, utc_now(), {"Coal": 1})
        setting, table = "MYSQL_DATABASE", "aggregated_data"
    else:
        stores.cassandra.execute(
            "INSERT INTO dead_letters (topic, kafka_partition, offset_bucket, kafka_offset, position)"
            " VALUES ('ticks', 0, 0, 0, 0)"
        )
        setting, table = "CASSANDRA_KEYSPACE", "dead_letters"
    make_backup(tmp_path)

    done = run("Restore", tmp_path, stores)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert re.search(rf"{setting} is .*; it should hold nothing that has landed, and {table} has rows", done.stderr)
    left = stores.rows("SELECT COUNT(*) FROM landed_batches")[0][0] if store == "MySQL" else 1
    assert left == 1
    assert stores.rows("SELECT COUNT(*) > 0 FROM profile") == [(1,)]
    empty(stores)


def test_nothing_is_restored_under_a_stream(stores: Pipeline, tmp_path: Path) -> None:
    make_backup(tmp_path)
    lock = StreamLock(stores.settings)
    lock.hold()

    done = run("Restore", tmp_path, stores)

    lock.release()
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "a stream lands into" in done.stderr


def test_a_backup_goes_into_a_folder_of_its_own(stores: Pipeline, tmp_path: Path) -> None:
    done = run("Back up", tmp_path, stores)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "should be one that is not there yet" in done.stderr
    assert list(tmp_path.iterdir()) == []
