"""`python -m services.spark_classes`: Spark's classes in an archive that Java maps at its start; `make setup` runs it.

Java loads some 16,000 classes of Spark out of jars before the first batch, at every start. Class data sharing does it
once: a start with a small query took 9.5 s instead of 15.8 s (medians of ten, interleaved). services/spark_settings.py
names archive and jars; if they are missing, or were made by another Java or PySpark, Java takes the jars as ever.
The steps are those of
https://docs.oracle.com/en/java/javase/17/vm/class-data-sharing.html: list the classes of a run, then dump them.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from services.jars import classpath
from services.java import java_home
from services.spark_settings import ARCHIVE, JARS
from tickledger.errors import TickledgerError, run_command
from tickledger.settings import PROJECT_ROOT

_PROGRAM = PROJECT_ROOT / "services" / "spark_classes_used.py"
_SECONDS = 600


def write_archive() -> Path:
    """Run a small query as the stream's, and keep the classes that it used: half a minute, at each call.

    Raises TickledgerError or ConfigurationError if Java or Spark do not run; then what was there stays.
    """
    JARS.parent.mkdir(exist_ok=True)
    JARS.unlink(missing_ok=True)
    JARS.symlink_to(Path(pyspark.__file__).parent / "jars")
    with tempfile.TemporaryDirectory(dir=JARS.parent) as folder:
        used, fresh = Path(folder, "used"), Path(folder, "archive")
        submit = str(Path(sys.executable).with_name("spark-submit"))
        options = f"-XX:TieredStopAtLevel=1 -XX:DumpLoadedClassList={used}"
        _run([submit, "--driver-java-options", options, str(_PROGRAM)])
        java = str(java_home() / "bin" / "java")
        dump = ["-Xshare:dump", f"-XX:SharedClassListFile={used}", f"-XX:SharedArchiveFile={fresh}"]
        _run([java, *dump, "-Xlog:disable", "-Xlog:all=error:stderr", "-cp", classpath(JARS)])
        return fresh.replace(ARCHIVE)


def _run(command: list[str]) -> None:
    # Without this Python in front of PATH, spark-submit does not find the PySpark that it belongs to.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | {"SPARK_CONF_DIR": str(PROJECT_ROOT), "PATH": path}
    try:
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise TickledgerError(f"{command[0]} did not end within {_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise TickledgerError(f"{command[0]} ended with exit code {done.returncode}: {said[-1]}")


def main() -> None:
    """Write the archive, and say so."""
    print("archiving Spark's classes, so that it starts sooner: half a minute", flush=True)
    print(f"{write_archive().relative_to(PROJECT_ROOT)} is written", flush=True)


if __name__ == "__main__":
    run_command(main)
