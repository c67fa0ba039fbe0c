"""The archive of Spark's classes: Java maps it with the options that people start Spark with, and does without it."""

import shlex
import subprocess
from pathlib import Path

import pytest

from services.java import java_home
from services.spark_classes import write_archive
from services.spark_settings import ARCHIVE, JARS, write_settings
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

_MAIN = "org.apache.spark.deploy.SparkSubmit"


def start_spark(*options: str, archive: Path = ARCHIVE) -> subprocess.CompletedProcess[str]:
    """Spark's main class on the Java of `make setup`, with the driver's options, class path and archive."""
    lines = (write_settings() / "spark-defaults.conf").read_text().splitlines()
    defaults = dict(line.split(maxsplit=1) for line in lines if line.startswith("spark."))
    # After the archive's own jars the class path may hold anything; Spark's launcher adds the folder of settings.
    path = f"{defaults['spark.driver.extraClassPath']}:{PROJECT_ROOT}:{JARS}"
    own = defaults["spark.driver.defaultJavaOptions"].replace(str(ARCHIVE), str(archive))
    java = [str(java_home() / "bin" / "java"), *shlex.split(own), *defaults["spark.driver.extraJavaOptions"].split()]
    return subprocess.run(
        [*java, *options, "-cp", path, _MAIN, "--version"], capture_output=True, text=True, timeout=120
    )


def test_spark_starts_from_the_archive() -> None:
    if not ARCHIVE.exists():
        write_archive()
    # Java ends at once if it cannot use the archive.
    done = start_spark("-Xshare:on", "-Xlog:class+load:stdout")
    assert done.returncode == 0, done.stderr
    (loaded,) = (line for line in done.stdout.splitlines() if f" {_MAIN} " in line)
    assert loaded.endswith("shared objects file")


def test_without_the_archive_spark_starts_and_says_nothing_of_it(tmp_path: Path) -> None:
    usual, without = start_spark(), start_spark(archive=tmp_path / "not there")
    assert "version 4." in usual.stderr
    assert (without.returncode, without.stdout, without.stderr) == (usual.returncode, usual.stdout, usual.stderr)


def test_an_archive_of_another_java_or_spark_does_no_harm(tmp_path: Path) -> None:
    usual, other = start_spark(), tmp_path / ARCHIVE.name
    other.write_bytes(b"of another Java" * 1000)
    done = start_spark(archive=other)
    assert (done.returncode, done.stdout, done.stderr) == (usual.returncode, usual.stdout, usual.stderr)
