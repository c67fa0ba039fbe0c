"""Which fields nobody described: their names, of some ticks, of a batch, and from one batch to the next."""

import json
from collections.abc import Iterable

import orjson

#: So many names of a batch are told apart, and so many characters of them are kept.
MOST_NAMES, MOST_CHARACTERS = 100, 2_000
#: Where a tick's `extra` has the fields of the message around it.
AROUND = "/"


def names_in(extras: Iterable[str | None]) -> set[str]:
    """The names of the fields in the `extra` of ticks, those of the message around them with a / in front."""
    names: set[str] = set()
    # In their order, so that a batch that lands again names the same.
    for extra in dict.fromkeys(extras):
        if extra is None or len(names) >= MOST_NAMES:
            continue
        fields = orjson.loads(extra)
        around = fields.pop(AROUND, None)
        names |= fields.keys() | ({f"/{name}" for name in around} if isinstance(around, dict) else set())
    return names


def as_kept(names: Iterable[str]) -> str:
    """Names as the ledger keeps them: a JSON array, sorted; of very many or long ones the first."""
    kept: list[str] = []
    for name in sorted(names)[:MOST_NAMES]:
        if len(json.dumps([*kept, name])) > MOST_CHARACTERS:
            break
        kept.append(name)
    return json.dumps(kept)


def fields_changed(before: str | None, now: str | None) -> int | None:
    """How many fields one batch has and the other has not, from what the ledger keeps; None if it does not know."""
    if before is None or now is None:
        return None
    return len(set(json.loads(before)) ^ set(json.loads(now)))
