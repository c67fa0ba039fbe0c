"""Spares Great Expectations the work that it does again and again within one validation, as of version 1.24.

Without it a check costs twice as much beside its rows. What is found is the same.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def repeated_work_spared() -> Iterator[None]:
    """Use it around one validation; afterwards all is as before. For one thread at a time.

    Each expectation builds its configuration once, not each of the hundred times that it is asked for it, and that
    builds its expectation once. The ids of metrics, JSON and a digest each, are made once for what reads the same: some
    sixty, not two thousand. No digest of the frame is made, which nothing reads, and no copy of it if no row is left
    out: pandas copies on write (the default from pandas 3 on).
    """
    import pandas as pd
    from great_expectations.core.id_dict import IDDict
    from great_expectations.execution_engine import pandas_execution_engine
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    with ExitStack() as replaced:
        replaced.enter_context(pd.option_context("mode.copy_on_write", True))
        for owner, name, value in (
            (Expectation, "configuration", property(_once_an_object(Expectation.configuration.fget))),
            (ExpectationConfiguration, "to_domain_obj", _once_an_object(ExpectationConfiguration.to_domain_obj)),
            (IDDict, "to_id", _once_a_text(IDDict)),
            # Frames of so many bytes and more get none.
            (pandas_execution_engine, "HASH_THRESHOLD", 0),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _once_an_object(build: Any) -> Any:
    built: dict[int, tuple[Any, Any]] = {}

    def build_once(source: Any) -> Any:
        # With the source itself beside it, no later one can have its id.
        if id(source) not in built:
            built[id(source)] = source, build(source)
        return built[id(source)][1]

    return build_once


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
