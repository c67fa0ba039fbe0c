"""Jars from Maven, each by its SHA-256: the Ivy that PySpark's wheel carries fetches what jars.lock names, and no more.

`python services/maven.py spark-kafka-4.2.0 FOLDER` needs nothing of this project but the lock beside it, for an image.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

LOCK = Path(__file__).with_name("jars.lock")
_EXTRA = "http://ant.apache.org/ivy/maven"


class Refused(Exception):
    """Maven gave nothing, or something else than what is locked. One line."""


class Jar(NamedTuple):
    """One jar: Maven's coordinates; `classifier` is empty unless a module has several jars."""

    group: str
    name: str
    version: str
    classifier: str = ""

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{'-'.join(part for part in (self.name, self.version, self.classifier) if part)}.jar"


def locked(download: str, lock: Path = LOCK) -> dict[Jar, str]:
    """The jars of a download, each with its SHA-256 in hexadecimal digits; none if the lock does not name it."""
    _, _, after = lock.read_text().partition(f"\n[{download}]\n")
    lines = after.partition("\n[")[0].splitlines()
    return {Jar(*coordinates.split(":")): digest for digest, coordinates in (line.split() for line in lines if line)}


def retrieve(
    download: str, target: Path, java: str, fetched: Callable[[int], None] = lambda _: None, lock: Path = LOCK
) -> None:
    """Fetch the jars of a download into an empty folder; `fetched` gets the number of jars so far.

    Raises Refused, and leaves no jar, if one of them is missing or is not what the lock says.
    """
    jars = locked(download, lock)
    if not jars:
        raise Refused(f"{lock.name} does not name {download}")
    modules: dict[Jar, list[Jar]] = {}
    for jar in jars:
        modules.setdefault(jar._replace(classifier=""), []).append(jar)
    pattern = "[artifact]-[revision](-[classifier]).[ext]"
    run_ivy("".join(_dependency(*module) for module in modules.items()), target, pattern, java, fetched)
    found = {path.name: digest_of(path) for path in target.iterdir()}
    wanted = {jar.file: digest for jar, digest in jars.items()}
    wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if wrong:
        for path in target.iterdir():
            path.unlink()
        raise Refused(f"{wrong[0]} is not what {lock.name} says: SHA-256 {found.get(wrong[0], 'of nothing')}")


def digest_of(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def run_ivy(dependencies: str, target: Path, pattern: str, java: str, fetched: Callable[[int], None]) -> None:
    """Let Ivy retrieve dependencies, given in its XML, below a folder. Raises Refused with Ivy's reason."""
    xml = (
        f'<ivy-module version="2.0" xmlns:m="{_EXTRA}"><info organisation="tickledger" module="jars"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{dependencies}</dependencies></ivy-module>"
    )
    with tempfile.TemporaryDirectory() as folder:
        ivy_file = Path(folder, "ivy.xml")
        ivy_file.write_text(xml)
        command = [
            *(java, "-jar", str(_ivy_jar()), "-cache", f"{folder}/cache", "-ivy", str(ivy_file)),
            *("-confs", "default", "-types", "jar", "bundle", "-retrieve", f"{target}/{pattern}"),
        ]
        _told(command, fetched)


def _told(command: list[str], fetched: Callable[[int], None]) -> None:
    last_lines: deque[str] = deque(maxlen=30)
    count = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        assert ivy.stdout is not None
        for line in ivy.stdout:
            last_lines.append(line.strip())
            if "[SUCCESSFUL ]" in line and ".jar" in line:
                count += 1
                fetched(count)
    if ivy.returncode != 0:
        # Ivy first says what it did not find, then why.
        problem = next((line for line in reversed(last_lines) if re.search(r"access error|Exception", line)), "")
        problem = problem or next((line for line in last_lines if re.search(r"not found|FAILED", line)), "")
        raise Refused(problem or f"Ivy exit code {ivy.returncode}")


def _dependency(module: Jar, jars: Iterable[Jar]) -> str:
    """A module of which Ivy takes these jars, and nothing that it depends on."""
    artifacts = "".join(
        f'<artifact name={quoteattr(jar.name)} type="jar" ext="jar"'
        + (f" m:classifier={quoteattr(jar.classifier)}" if jar.classifier else "")
        + "/>"
        for jar in jars
    )
    return (
        f"<dependency org={quoteattr(module.group)} name={quoteattr(module.name)} rev={quoteattr(module.version)} "
        f'transitive="false" conf="default->default">{artifacts}</dependency>'
    )


def _ivy_jar() -> Path:
    spec = find_spec("pyspark")
    jars = sorted((Path(spec.origin).parent / "jars").glob("ivy-*.jar")) if spec and spec.origin else []
    if not jars:
        raise Refused("the installed pyspark has no ivy-*.jar: reinstall it from requirements.lock")
    return jars[-1]


def main(download: str, folder: str) -> None:
    """Put the jars of a download into a folder beside what is there."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else shutil.which("java") or "java"
    with tempfile.TemporaryDirectory() as fresh:
        retrieve(download, Path(fresh), java)
        for jar in Path(fresh).iterdir():
            shutil.copy(jar, folder)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as error:
        sys.exit(f"error: {error}")
