"""What of a batch's ticks is stored already: found whatever is asked for, with few requests and few rows too many."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import pytest
from cassandra.cluster import Session

from streaming.tick_columns import TickColumns
from streaming.tick_sink import ROWS_A_TIME, TIMES_A_REQUEST, Moments, StoredTick, TickSink
from tests.support.pipeline import Pipeline
from tickledger.tick import MS_A_DAY, Tick

pytestmark = pytest.mark.integration

DAY = 20_000
MIDNIGHT = DAY * MS_A_DAY


@pytest.fixture
def sink(stores: Pipeline) -> TickSink:
    stores.alter_cassandra("TRUNCATE real_time_data")
    return TickSink(stores.cassandra)


def store(sink: TickSink, *keys: tuple[str, int, int]) -> set[StoredTick]:
    """Store a tick of each (company, created_at, id); its offset is its place."""
    ticks = [Tick(company, at, id_, 100, 1000, 10, "Coal", at // MS_A_DAY) for company, at, id_ in keys]
    for some in TickColumns.of((tick, offset) for offset, tick in enumerate(ticks)).by_company_and_day():
        sink.write(some, 0)
    sink.drain()
    return {StoredTick(*key, 0, offset, (100, 1000, 10, "Coal")) for offset, key in enumerate(keys)}


@contextmanager
def requests_of(session: Session) -> Iterator[list[object]]:
    """The requests that a session sends meanwhile, each page one."""
    sent: list[object] = []
    session.add_request_init_listener(sent.append)
    try:
        yield sent
    finally:
        session.remove_request_init_listener(sent.append)


def test_late_ticks_do_not_read_their_whole_day(sink: TickSink) -> None:
    """60 late ticks in a day of 20,000: the day is not read, what was landed of them is found."""
    day = [("A", MIDNIGHT + 4_000 * number, number) for number in range(20_000)]
    stored = store(sink, *day)
    asked = [at + number % 2 for number, (_, at, _) in enumerate(day[150::330])]

    found = list(sink.stored([Moments(["A"], DAY, asked)]))

    assert {one for one in stored if one.created_ms in asked} <= set(found) <= stored
    assert len(asked) == 61
    assert len(found) <= (ROWS_A_TIME + 1) * len(asked)


def test_copies_of_a_whole_batch_are_read_as_slices(sink: TickSink, stores: Pipeline) -> None:
    stored = store(sink, *((company, MIDNIGHT + 10 * number, 1) for company in "AB" for number in range(2_000)))
    asked = [Moments([company], DAY, [MIDNIGHT + 10 * number for number in range(2_000)]) for company in "AB"]

    with requests_of(stores.cassandra) as sent:
        assert set(sink.stored(asked)) == stored
    assert len(sent) == len(asked)


def test_hundreds_of_companies_and_days_share_requests(sink: TickSink, stores: Pipeline) -> None:
    """A tick a company and day, as a file of past days brings them: far fewer requests than companies and days."""
    keys = [(f"C{company}", MIDNIGHT + day * MS_A_DAY + company, 1) for company in range(200) for day in range(20)]
    stored = store(sink, *keys[::2])

    with requests_of(stores.cassandra) as sent:
        assert set(sink.stored(Moments([one], at // MS_A_DAY, [at]) for one, at, _ in keys)) == stored
    assert len(sent) <= len(keys) / TIMES_A_REQUEST


def test_times_with_thousands_of_ids_are_read_to_their_end(sink: TickSink) -> None:
    """More ids at one time than a slice reads: the rows at which it stops are asked for again."""
    asked = [MIDNIGHT + number for number in range(TIMES_A_REQUEST + 10)]
    ids = {at: 1_000 if at in (asked[3], asked[-1]) else 1 for at in asked}
    stored = store(sink, *(("A", at, id_) for at in asked for id_ in range(ids[at])))

    assert set(sink.stored([Moments(["A"], DAY, asked)])) == stored


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_asked_for_is_found(sink: TickSink, seed: int) -> None:
    random = Random(seed)
    moments = [MIDNIGHT + random.randrange(3) * MS_A_DAY + random.randrange(2_000) for _ in range(3_000)]
    keys = sorted({(random.choice("ABCDE"), at, random.randrange(3)) for at in moments})
    stored = store(sink, *random.sample(keys, 2_000))
    wanted: dict[tuple[str, int], set[int]] = {}
    for company, at, _ in random.sample(keys, random.choice([5, 50, 500])):
        wanted.setdefault((company, at // MS_A_DAY), set()).add(at)

    found = set(sink.stored(Moments([company], day, sorted(times)) for (company, day), times in wanted.items()))

    def is_asked_for(one: StoredTick) -> bool:
        return one.created_ms in wanted.get((one.ticker, one.created_ms // MS_A_DAY), ())

    assert {one for one in stored if is_asked_for(one)} <= found <= stored


def test_nothing_is_asked_for_where_nothing_is_old(sink: TickSink, stores: Pipeline) -> None:
    with requests_of(stores.cassandra) as sent:
        assert list(sink.stored([])) == []
    assert not sent
