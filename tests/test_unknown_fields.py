"""Which fields nobody described, and how many came or went from one batch to the next."""

import json

import pytest

from tickledger.unknown_fields import MOST_CHARACTERS, MOST_NAMES, as_kept, fields_changed, names_in


def test_names_are_those_of_all_ticks_and_of_what_stands_around_them() -> None:
    extras = ['{"side":"B"}', None, '{"venue":7,"/":{"seq":1}}', '{"side":"S"}', '{"/":3}']

    assert names_in(extras) == {"side", "venue", "/seq"}


@pytest.mark.parametrize("name", ["field_{}", "x" * 900 + "{}", "\x01" * 40 + "ü{}"])
def test_what_the_ledger_keeps_is_bounded(name: str) -> None:
    kept = as_kept(name.format(number) for number in range(500))

    assert 2 <= len(kept) <= MOST_CHARACTERS
    assert len(json.loads(kept)) <= MOST_NAMES


def test_what_came_and_what_went_is_counted() -> None:
    assert fields_changed(as_kept([]), as_kept([])) == 0
    assert fields_changed(as_kept(["side", "venue"]), as_kept(["venue", "board"])) == 2
    assert fields_changed(None, as_kept(["side"])) is None
    assert fields_changed(as_kept(["side"]), None) is None
