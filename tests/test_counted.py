"""Counts in words."""

from tickledger.counted import counted


def test_one_is_singular_and_everything_else_plural() -> None:
    assert [counted(number, "batch", "batches") for number in (0, 1, 2)] == ["0 batches", "1 batch", "2 batches"]
    assert counted(1_200, "message") == "1,200 messages"
    assert counted(1, "message") == "1 message"
