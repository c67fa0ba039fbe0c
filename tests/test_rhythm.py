"""What is unusual about a batch beside those before it, and that normal life is not."""

from datetime import datetime, timedelta
from typing import Any

from expectations.rhythm import Landing, duplicate_share, minutes_ahead, minutes_behind, pace_to_usual

NOON = datetime(2026, 3, 2, 5, 0)


def landing(at: float, age: float = 1, ticks: int = 100) -> Landing:
    """A batch that landed this many seconds after NOON, its newest tick `age` seconds old."""
    landed_at = NOON + timedelta(seconds=at)
    return Landing(landed_at, landed_at - timedelta(seconds=age), ticks)


def batch(at: float, age: float = 1, ticks: int = 100, **changes: Any) -> dict[str, Any]:
    """The ledger's row of such a batch."""
    one = landing(at, age, ticks)
    return {
        "landed_at": one.landed_at,
        "last_created_at": one.newest,
        "ticks_read": ticks,
        "ticks_landed": ticks,
        "late_ticks": 0,
        "duplicates": 0,
    } | changes


def steady(until: float = 0, batches: int = 20, age: float = 1, ticks: int = 100) -> list[Landing]:
    """Batches every two seconds, the last one at `until`."""
    return [landing(until - 2 * number, age, ticks) for number in reversed(range(batches))]


HOURS = 3600


def behind(now: dict[str, Any], before: list[Landing]) -> float | None:
    return minutes_behind(now, before, limit=120)


def test_ticks_of_a_clock_that_is_hours_behind_are_told() -> None:
    assert behind(batch(2, age=3 * HOURS), steady(age=3 * HOURS)) == 180


def test_a_created_at_that_falls_behind_more_and_more_is_told() -> None:
    assert behind(batch(2, age=3 * HOURS + 1), steady(age=3 * HOURS)) == 180


def test_the_age_of_a_fresh_tick_is_no_finding() -> None:
    assert behind(batch(2), steady()) is None


def test_the_first_batch_may_be_of_any_age() -> None:
    assert behind(batch(2, age=9 * HOURS), []) is None


def test_a_stream_that_was_away_catches_up_without_a_finding() -> None:
    first = landing(9 * HOURS, age=9 * HOURS - 60, ticks=20_000)
    assert behind(batch(9 * HOURS, age=9 * HOURS - 60), steady()) is None
    assert behind(batch(9 * HOURS + 5, age=8 * HOURS), [*steady(), first]) is None


def test_a_stream_that_falls_behind_while_it_catches_up_is_told() -> None:
    first = landing(9 * HOURS, age=9 * HOURS - 60)
    assert behind(batch(9 * HOURS + 5, age=9 * HOURS - 61), [*steady(), first]) == 539.0


def test_ticks_that_are_sent_again_or_of_past_days_may_be_of_any_age() -> None:
    assert behind(batch(2, age=3 * HOURS), steady()) is None
    assert behind(batch(2, age=48 * HOURS, late_ticks=100), steady(age=48 * HOURS)) is None
    assert behind(batch(2, last_created_at=None, ticks_landed=0), steady()) is None


def test_a_newest_tick_of_the_future_is_ahead() -> None:
    assert minutes_ahead(batch(2, age=-7 * HOURS)) == 420
    assert str(minutes_ahead(batch(2))) == "0.0", "not -0.0"
    assert minutes_ahead(batch(2, last_created_at=None)) is None


def test_size_is_a_multiple_of_the_usual_pace() -> None:
    assert pace_to_usual(batch(2), steady()) == 1
    assert pace_to_usual(batch(2, ticks=5000), steady()) == 50
    assert pace_to_usual(batch(2, ticks=1), steady()) == 0.01


def test_a_pause_between_two_batches_is_made_up_for() -> None:
    assert pace_to_usual(batch(8, ticks=400), steady()) == 1


def test_nothing_is_usual_for_the_first_batches() -> None:
    assert pace_to_usual(batch(2, ticks=5000), steady(batches=10)) is None
    assert pace_to_usual(batch(2, ticks=5000), steady(batches=11)) == 50


def test_large_batches_of_a_stream_that_catches_up_are_usual() -> None:
    assert pace_to_usual(batch(9 * HOURS, age=9 * HOURS - 400, ticks=20_000), steady()) is None
    # The second one: created_at moves on by 400 seconds within two.
    before = [*steady(), landing(9 * HOURS, age=9 * HOURS - 400, ticks=20_000)]
    assert pace_to_usual(batch(9 * HOURS + 2, age=9 * HOURS - 798, ticks=20_000), before) == 1
    # Back to the usual after twenty large ones.
    large = [landing(2 * number, age=400 * (20 - number) + 1, ticks=20_000) for number in range(21)]
    assert pace_to_usual(batch(42), large) == 1.005


def test_ticks_that_are_sent_again_have_no_pace() -> None:
    assert pace_to_usual(batch(2, age=600, ticks=5000), steady()) is None


def test_a_batch_after_a_night_of_rest_has_no_pace() -> None:
    assert pace_to_usual(batch(15 * HOURS, ticks=1), steady()) is None


def test_a_file_of_past_days_beside_a_producer_makes_no_batch_large() -> None:
    replayed = {"ticks_read": 5100, "ticks_landed": 5100, "late_ticks": 5000}
    assert pace_to_usual(batch(2, **replayed), steady()) == 1
    assert (
        pace_to_usual(batch(2, **replayed | {"ticks_landed": 100, "late_ticks": 0, "duplicates": 5000}), steady()) == 1
    )
    # Its own ticks may still be too many.
    assert pace_to_usual(batch(2, **replayed | {"late_ticks": 100}), steady()) == 50


def test_past_days_make_no_batch_small() -> None:
    # Nothing of today: replayed, or made just before midnight.
    assert pace_to_usual(batch(2, late_ticks=100), steady()) is None
    assert pace_to_usual(batch(2, late_ticks=99), steady()) is None


def test_copies_are_a_share_only_beside_something_new() -> None:
    assert duplicate_share(batch(2, ticks=100, ticks_landed=40, duplicates=60)) == 0.6
    assert duplicate_share(batch(2, ticks=100, ticks_landed=0, duplicates=100)) is None
    assert duplicate_share(batch(2, ticks=10, ticks_landed=2, duplicates=8)) is None
