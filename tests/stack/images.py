"""The images that docker-compose.yml and Dockerfile name: official ones if a registry answers, else stand-ins.

A stand-in has the same name and is built from packages, by a Dockerfile of this folder: the same programs, started by
an entry of our own. Only an engine that this run started gets one, so that no other holds a false official image.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from services.cassandra_server import _EXPORTS, _LOGBACK, _OPENS
from services.jars import CASSANDRA, KAFKA, Say, fetch
from tests.stack.engine import Engine
from tickledger.errors import ConfigurationError
from tickledger.settings import PROJECT_ROOT

HERE = Path(__file__).parent
DEBIAN = "tickledger-test/debian"
JAVA = "tickledger-test/java"
MYSQL_LIBRARIES = ("usr/lib/{0}", "usr/lib", "lib/{0}")
PULL_SECONDS = 300


def official_names() -> list[str]:
    """The images that come from a registry, as the two files name them."""
    services = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"].values()
    servers = [service["image"] for service in services if service["image"] != "tickledger:local"]
    (base,) = re.findall(r"^FROM (\S+) AS java$", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [base, *servers]


def provide_images(engine: Engine, say: Say) -> list[str]:
    """Pull or build what is missing; the names of the stand-ins. Raises ConfigurationError if neither can be had."""
    names = official_names()
    if not engine.own:
        missing = [name for name in names if not _is_there(engine, name)]
        for name in missing:
            if engine.run("pull", "--quiet", name, check=False, timeout=PULL_SECONDS).returncode:
                raise ConfigurationError(f"image {name} is not here, and no registry gives it")
        return []
    if all(_pull(engine, name) for name in names):
        return []
    _provide_debian(engine, say)
    base, kafka, cassandra, mysql = names
    fetch(KAFKA, say)
    fetch(CASSANDRA, say)
    for name, folder, fill in (
        (base, "python", _nothing_more),
        (JAVA, "java", _nothing_more),
        (kafka, "kafka", _kafka),
        (cassandra, "cassandra", _cassandra),
        (mysql, "mysql", _mysql),
    ):
        say(f"stand-in for {name}" if name != JAVA else "base of Kafka's and Cassandra's stand-ins")
        with _context(folder, fill) as context:
            engine.run("build", "--quiet", "--tag", name, context)
    return names


def _is_there(engine: Engine, name: str) -> bool:
    return engine.run("image", "inspect", name, check=False).returncode == 0


def _pull(engine: Engine, name: str) -> bool:
    """Whether a registry gives the image. A stand-in of that name that an earlier run built does not count."""
    try:
        return engine.run("pull", "--quiet", name, check=False, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _provide_debian(engine: Engine, say: Say) -> None:
    """Debian 12's base system from its packages, with the authorities that this machine trusts."""
    if _is_there(engine, DEBIAN):
        return
    say("base of the stand-ins: Debian 12 by debootstrap")
    if not shutil.which("debootstrap"):
        subprocess.run(["apt-get", "-qq", "--yes", "install", "debootstrap"], check=True, capture_output=True)
    listed = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirrors = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    mirror = next(line for line in mirrors if re.search(r"/debian/*$", line))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", folder, mirror], check=True, capture_output=True
        )
        # As in official images: no package stays in the cache, and no manual.
        (Path(folder) / "etc/apt/apt.conf.d/clean").write_text(
            'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };\n'
        )
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(Path(folder, waste), ignore_errors=True)
        for needed in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
            Path(folder, needed).mkdir(parents=True)
        ours = Path("/usr/local/share/ca-certificates")
        if ours.is_dir():
            shutil.copytree(ours, Path(folder, *ours.parts[1:]), dirs_exist_ok=True)
        archive = subprocess.Popen(["tar", "--directory", folder, "--create", "."], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "-", DEBIAN],
            stdin=archive.stdout,
            env=engine.environment,
            check=True,
            capture_output=True,
        )
        archive.wait()


@contextmanager
def _context(folder: str, fill: Callable[[Path], None]) -> Iterator[Path]:
    """A build context: the folder's files, and what `fill` adds. On the project's disk, so that jars can be linked."""
    parent = PROJECT_ROOT / ".services"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="context-", dir=parent) as name:
        context = Path(name)
        shutil.copytree(HERE / folder, context, dirs_exist_ok=True)
        fill(context)
        yield context


def _nothing_more(_context: Path) -> None:
    pass


def _kafka(context: Path) -> None:
    _link(KAFKA.folder, context / "jars")


def _cassandra(context: Path) -> None:
    _link(CASSANDRA.folder, context / "jars")
    exports = (f"--add-exports={export}=ALL-UNNAMED" for export in _EXPORTS)
    opens = (f"--add-opens={package}=ALL-UNNAMED" for package in _OPENS)
    places = (
        "-Dcassandra.config=file:///etc/cassandra/cassandra.yaml",
        "-Dcassandra.storagedir=/var/lib/cassandra",
        "-Dcassandra.logdir=/var/log/cassandra",
        "-Dlogback.configurationFile=/etc/cassandra/logback.xml",
        "-Djdk.attach.allowAttachSelf=true",
        "-Dio.netty.tryReflectionSetAccessible=true",
    )
    (context / "java.options").write_text("\n".join((*exports, *opens, *places)) + "\n")
    (context / "logback.xml").write_text(_LOGBACK)


def _mysql(context: Path) -> None:
    """A real MySQL server, and programs that start it and its clients with the libraries that came along."""
    server = PROJECT_ROOT / ".services" / "real-mysql-server"
    subprocess.run([PROJECT_ROOT / ".ci" / "real-mysql", server], check=True, capture_output=True)
    _link(server / "root", context / "root")
    # The first is the one beside the libraries; another name of it stands in lib64.
    loader = min((server / "root").rglob("ld-linux-*.so.?"))
    triplet = loader.parent.name
    path = ":".join(f"/opt/mysql/{folder.format(triplet)}" for folder in MYSQL_LIBRARIES)
    programs = context / "programs"
    programs.mkdir()
    for program in ("sbin/mysqld", "bin/mysql", "bin/mysqladmin"):
        start = programs / Path(program).name
        command = f"/opt/mysql/{loader.relative_to(server / 'root')} --library-path {path} /opt/mysql/usr/{program}"
        start.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        start.chmod(0o755)


def _link(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--link", source, target], check=True)
