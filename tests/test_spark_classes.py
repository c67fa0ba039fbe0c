"""The archive of Spark's classes: Java maps it with the options that people start Spark with, and does without it."""

import subprocess
from pathlib import Path

import pytest

from services.java import java_home
from services.spark_classes import ARCHIVE, write_archive
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

_MAIN = "org.apache.spark.deploy.SparkSubmit"
_DEFAULTS = dict(
    line.split(maxsplit=1)
    for line in (PROJECT_ROOT / "spark-defaults.conf").read_text().splitlines()
    if line.startswith("spark.")
)


def start_spark(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Spark's main class on the Java of `make setup`, with the driver's options and jars, in a folder."""
    jars = Path(_DEFAULTS["spark.driver.extraClassPath"])
    # After the archive's own jars the class path may hold anything; Spark's launcher adds the folder of settings.
    path = f"{jars}:{PROJECT_ROOT}:{PROJECT_ROOT / jars}"
    java = [str(java_home() / "bin" / "java"), *_DEFAULTS["spark.driver.extraJavaOptions"].split(), *options]
    return subprocess.run(
        [*java, "-cp", path, _MAIN, "--version"], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_spark_starts_from_the_archive() -> None:
    if not (PROJECT_ROOT / ARCHIVE).exists():
        write_archive()
    # Java ends at once where it cannot use the archive.
    done = start_spark(PROJECT_ROOT, "-Xshare:on", "-Xlog:class+load:stdout")
    assert done.returncode == 0, done.stderr
    (loaded,) = (line for line in done.stdout.splitlines() if f" {_MAIN} " in line)
    assert loaded.endswith("shared objects file")


def test_without_the_archive_spark_starts_and_says_nothing_of_it(tmp_path: Path) -> None:
    usual, without = (start_spark(folder) for folder in (PROJECT_ROOT, tmp_path))
    assert "version 4." in usual.stderr
    assert (without.returncode, without.stdout, without.stderr) == (usual.returncode, usual.stdout, usual.stderr)


def test_an_archive_of_another_java_or_spark_does_no_harm(tmp_path: Path) -> None:
    usual = start_spark(PROJECT_ROOT)
    (tmp_path / ARCHIVE).parent.mkdir()
    (tmp_path / ARCHIVE).write_bytes(b"of another Java" * 1000)
    done = start_spark(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (usual.returncode, usual.stdout, usual.stderr)
