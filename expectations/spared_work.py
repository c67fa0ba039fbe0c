"""Spares Great Expectations the work that it does again and again within one validation, as of version 1.24.

Without it a check costs twice as much beside its rows. What is found is the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def repeated_work_spared() -> Iterator[None]:
    """Use it around one validation; afterwards all is as before. For one thread at a time.

    Each expectation builds its configuration once, not each of the hundred times that it is asked for it. The ids of
    metrics, JSON and a digest each, are made once for what reads the same: some sixty, not two thousand. No digest of
    the frame is made, which nothing reads.
    """
    from great_expectations.core.id_dict import IDDict
    from great_expectations.execution_engine import pandas_execution_engine
    from great_expectations.expectations.expectation import Expectation

    with ExitStack() as replaced:
        for owner, name, value in (
            (Expectation, "configuration", property(_once_an_expectation(Expectation.configuration))),
            (IDDict, "to_id", _once_a_text(IDDict)),
            # Frames of so many bytes and more get none.
            (pandas_execution_engine, "HASH_THRESHOLD", 0),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _once_an_expectation(original: Any) -> Any:
    built: dict[int, tuple[Any, Any]] = {}

    def configuration(expectation: Any) -> Any:
        # With the expectation itself beside it, no later one can have its id.
        if id(expectation) not in built:
            built[id(expectation)] = expectation, original.fget(expectation)
        return built[id(expectation)][1]

    return configuration


def _once_a_text(plain: Any) -> Any:
    original, made = plain.to_id, dict[str, Any]()

    def to_id(self: Any, id_keys: Any = None, id_ignore_keys: Any = None) -> Any:
        # Subclasses leave keys out of their ids; a specification of a batch holds a whole frame.
        if id_keys is not None or id_ignore_keys is not None or type(self) is not plain:
            return original(self, id_keys, id_ignore_keys)
        text = repr(self)
        if text not in made:
            made[text] = original(self)
        return made[text]

    return to_id
