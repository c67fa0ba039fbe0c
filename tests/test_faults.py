"""The quick part of `make faults`: each named point once, and a MySQL that hangs; and the oracle's own eyes."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from services.instance import Instance
from tests.support.batches import Lander, tick
from tests.support.oracle import judge, logged
from tests.support.pipeline import Pipeline
from tickledger.fault_points import POINTS
from tools.fault_kinds import KINDS, Kind, at_points
from tools.fault_record import table_of
from tools.faults import try_kind

pytestmark = pytest.mark.integration

VICTIMS = ("jvm", "python", "both")
EACH_POINT_ONCE = [(point, VICTIMS[number % 3]) for number, point in enumerate(POINTS)] + [("after_commit", "answer")]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "kind",
    [
        at_points("each named point once", EACH_POINT_ONCE, len(EACH_POINT_ONCE)),
        *(replace(kind, times=1) for kind in KINDS if kind.name == "SIGSTOP of MySQL"),
    ],
    ids=lambda kind: kind.name,
)
def test_nothing_is_lost_or_counted_twice_after(
    kind: Kind, services: Instance, dbt_template: list[str], tmp_path: Path
) -> None:
    seed = Random().randrange(1, 10_000)
    print(f"seed {seed}")

    row = try_kind(kind, services, dbt_template, tmp_path, seed)

    Console(width=160).print(table_of([row]))
    assert row.judgement.problems == []
    assert row.met == kind.times
    assert row.judgement.clean


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def oracle_log(folder: Path, *messages: tuple[int, int, list[dict[str, Any]]]) -> Path:
    """The log of a producer whose messages (partition, offset, ticks) were all acknowledged."""
    log = folder / "acknowledged.jsonl"
    lines = [
        {
            "acked": True,
            "partition": partition,
            "offset": offset,
        }
        | logged(ticks)
        for partition, offset, ticks in messages
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return log


def test_the_oracle_sees_what_is_lost_doubled_altered_and_made_up(lander: Lander, tmp_path: Path) -> None:
    sent = [(0, 0, [tick(1), tick(2)]), (0, 1, [tick(3)])]
    lander.land(*sent)
    lander.pipeline.execute("UPDATE landed_batches SET verdict = 'passed'")
    assert judge(lander.pipeline, oracle_log(tmp_path, *sent)).clean

    lost = judge(lander.pipeline, oracle_log(tmp_path, *sent, (0, 2, [tick(4)])))
    made_up = judge(lander.pipeline, oracle_log(tmp_path, sent[0]))
    altered = judge(lander.pipeline, oracle_log(tmp_path, sent[0], (0, 1, [tick(3, volume=7)])))
    lander.pipeline.execute("UPDATE landed_batches SET ticks_landed = 4, ticks_read = 4")
    doubled = judge(lander.pipeline, oracle_log(tmp_path, *sent))

    assert (lost.lost, made_up.never_sent, altered.volume_difference, doubled.double_counted) == (1, 1, 93, 1)
    assert not any(one.clean for one in (lost, made_up, altered, doubled))


def test_the_oracle_knows_what_corrections_come_to(lander: Lander, tmp_path: Path) -> None:
    late = tick(4) | {"revision": "correction", "revised_at": "2026-03-02 05:30:00.000"}
    gone = {name: tick(1)[name] for name in ("ticker", "created_at", "id")}
    gone |= {"revision": "cancellation", "revised_at": "2026-03-02 05:30:00.000"}
    sent = [
        (0, 0, [tick(1), tick(2), late | {"volume": 30}]),
        (1, 0, [gone, tick(2, volume=7), late | {"id": 99}]),
        (0, 1, [tick(4), late | {"volume": 10, "revised_at": "2026-03-02 05:10:00.000"}]),
    ]
    for one in sent:
        lander.land(one)
    lander.pipeline.execute("UPDATE landed_batches SET verdict = 'passed'")

    agreed = judge(lander.pipeline, oracle_log(tmp_path, *sent))
    other = [sent[0], (1, 0, [gone | {"volume": 5, "sector": "Coal"}, *sent[1][2][1:]]), sent[2]]
    never = [*sent[:2], (0, 1, [*sent[2][2], late | {"revised_at": "2026-03-02 05:40:00.000"}])]
    forgotten = [sent[0], (1, 0, sent[1][2][1:]), sent[2]]

    assert (agreed.problems, agreed.clean, agreed.corrections, agreed.dead) == ([], True, 4, 1)
    # A tick of 5 shares that the stores do not have; a revision that they lack; one that nobody has sent.
    assert judge(lander.pipeline, oracle_log(tmp_path, *other)).volume_difference == 5
    assert judge(lander.pipeline, oracle_log(tmp_path, *never)).lost == 1
    assert judge(lander.pipeline, oracle_log(tmp_path, *forgotten)).volume_difference == 100
