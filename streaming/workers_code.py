"""Whether Spark's workers run the code that the driver runs: an archive that travels may be of an earlier day."""

from collections.abc import Callable

from pyspark.sql import SparkSession

from tickledger.errors import ConfigurationError


def refuse_other_code(spark: SparkSession) -> None:
    """Raise ConfigurationError where the workers of a cluster have another version of these packages than the driver.

    Their rows would be those of that version: without a field that was added since, say. Asks one worker; all of them
    get the same archive.
    """
    if str(spark.sparkContext.master).startswith("local"):
        return
    digest = _digest_of_code()
    if spark.sparkContext.parallelize([0], 1).map(digest).collect() != [digest(0)]:
        raise ConfigurationError(
            "spark.archives holds, or the workers have installed, other code than this folder; it should be the same:"
            " 'make archive' packs it anew"
        )


def _digest_of_code() -> Callable[[int], str]:
    # Made here, so that it travels by itself: older code may have no such function.
    def digest(_: int) -> str:
        import hashlib
        from importlib.util import find_spec
        from pathlib import Path

        found = hashlib.sha256()
        for package in ("streaming", "tickledger"):
            spec = find_spec(package)
            for folder in (spec.submodule_search_locations or []) if spec else []:
                for file in sorted(Path(folder).rglob("*.py")):
                    found.update(f"{package}/{file.relative_to(folder)}\n".encode() + file.read_bytes())
        return found.hexdigest()

    return digest
