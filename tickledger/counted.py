"""Counts as people say them: "1 batch", "1,200 batches"."""


def counted(number: int, one: str, many: str = "") -> str:
    """A number and what it counts; `many` is the plural where it is not `one` and an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
