"""Whether Spark's workers run the code that the driver runs: an archive that travels may be of an earlier day."""

import sys
from collections.abc import Callable

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from tickledger.errors import ConfigurationError


def refuse_other_code(spark: SparkSession) -> None:
    """Raise ConfigurationError where the workers of a cluster have another version of these packages than the driver.

    Their rows would be those of that version: without a field that was added since, say. Also where they have no Python
    that runs it. Asks one worker; all of them get the same archive.
    """
    context = spark.sparkContext
    if str(context.master).startswith("local"):
        return
    digest = _digest_of_code()
    try:
        found = context.parallelize([0], 1).map(digest).collect()
    except (Py4JJavaError, PySparkException) as error:
        if not any(said in str(error) for said in _NO_PYTHON):
            raise
        raise ConfigurationError(
            f"spark.pyspark.python is {context.pythonExec!r}; on each worker it should be a Python"
            f" {sys.version_info.major}.{sys.version_info.minor} with what tasks import: 'make archive' packs one, for"
            " --archives"
        ) from None
    if found != [digest(0)]:
        raise ConfigurationError(
            "spark.archives holds, or the workers have installed, other code than this folder; it should be the same:"
            " 'make archive' packs it anew"
        )


#: What Spark says where a worker finds no Python, one without our packages, or another version.
_NO_PYTHON = ("Cannot run program", "Error from python worker", "PYTHON_VERSION_MISMATCH")


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
