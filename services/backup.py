"""A backup of both stores of an instance, taken beside a running stream, and its restore.

MySQL comes first, in both. A batch is in Cassandra before it is in the ledger: so a dump of MySQL and Cassandra's files
from after it hold every tick that the dump's ledger counts. What Cassandra has beyond it the stream lands again from
Kafka, onto the same rows.
"""

import contextlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import mysql.connector as mysql_driver
from mysql.connector import errorcode

from services.instance import Instance
from services.jars import Say
from services.maven import digest_of
from services.mysql_server import MySQLServer
from services.server import Server
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.plain_text import plain
from tickledger.settings import Settings
from tickledger.stores import fetch_rows, first_sentence, mysql

MYSQL_FILE, CASSANDRA_FILE = "mysql.sql", "cassandra.tar"
#: What the files were when they were written, as `sha256sum` writes and checks it.
MANIFEST = "SHA256SUMS"


def back_up(instance: Instance, folder: Path, say: Say) -> None:
    """Write the two files, and a manifest of them, into a new folder that only its owner may read.

    Everything may run meanwhile but dbt. Cassandra is stopped for its part, some twenty seconds, and a stream waits for
    it. Raises ConfigurationError where the folder is there, TickledgerError where a part fails; then no backup is left.
    """
    if folder.exists():
        raise ConfigurationError(f"FOLDER is {str(folder)!r}; it should be one that is not there yet")
    part = folder.with_name(f"{folder.name}.part")
    with _in_one_line("the backup"):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700, parents=True)
        try:
            _dump(_mysql_of(instance), part / MYSQL_FILE)
            say("MySQL is dumped")
            _archive(instance.server("cassandra"), part / CASSANDRA_FILE)
            say("Cassandra's files are copied")
            lines = (f"{digest_of(part / name)}  {name}\n" for name in (MYSQL_FILE, CASSANDRA_FILE))
            (part / MANIFEST).write_text("".join(lines))
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def restore(instance: Instance, folder: Path, say: Say) -> None:
    """Replace the database and all data of Cassandra by a backup's. No stream may run; a retry begins again.

    Raises ConfigurationError where the folder is no whole backup, or where Cassandra's passwords are others than the
    settings', and TickledgerError while a stream runs or where a part fails. A backup that is not whole, or
    whose archive cannot be unpacked, changes nothing.
    """
    with _in_one_line("the restore"):
        _check(folder)
        _refuse_beside_stream(instance.settings())
        cassandra = instance.server("cassandra")
        with _unpacked(cassandra, folder / CASSANDRA_FILE) as fresh:
            _load(_mysql_of(instance), folder / MYSQL_FILE)
            say("MySQL is restored")
            _swap(cassandra, fresh)
            say("Cassandra is restored")


def _check(folder: Path) -> None:
    """Raise ConfigurationError unless both files are there, no links, and what the manifest says."""
    for name in (MANIFEST, MYSQL_FILE, CASSANDRA_FILE):
        if not (folder / name).is_file() or (folder / name).is_symlink():
            raise ConfigurationError(f"FOLDER is {str(folder)!r}; it should be a backup, with a file {name}")
    lines = re.findall(r"^([0-9a-f]{64})  (\S+)$", (folder / MANIFEST).read_text(errors="replace"), re.MULTILINE)
    written = {name: digest for digest, name in lines}
    for name in (MYSQL_FILE, CASSANDRA_FILE):
        if written.get(name) != digest_of(folder / name):
            raise ConfigurationError(
                f"FOLDER is {str(folder)!r}; it should be a whole backup: {name} is not what {MANIFEST} says"
            )


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """A disk that is full, a file that is torn: for the user, in one line."""
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise TickledgerError(f"{what} failed: {' '.join(str(error).split())}") from None


def _mysql_of(instance: Instance) -> MySQLServer:
    server = instance.server("mysql")
    assert isinstance(server, MySQLServer)
    return server


def _dump(server: MySQLServer, file: Path) -> None:
    """All tables and views of the database, as they are at one moment."""
    options = ("--single-transaction", "--add-drop-database", "--databases", server.settings.mysql_database)
    with file.open("xb") as target:
        _run_client(server, "dump", *options, output=target)


def _load(server: MySQLServer, file: Path) -> None:
    with file.open("rb") as source:
        _run_client(server, "shell", *_SHELL, source=source)


_SHELL = (
    # The client's own commands, `\!` among them, would run programs here: in this mode it knows none.
    "--binary-mode",
    # MariaDB's name for the same, and more; another client passes it over.
    "--loose-sandbox",
    # A stream that has started meanwhile holds the database's lock: it is not waited for without an end.
    "--init-command=SET SESSION lock_wait_timeout = 30",
)


def _run_client(
    server: MySQLServer, kind: str, *options: str, source: IO[bytes] | None = None, output: IO[bytes] | None = None
) -> None:
    """Run MySQL's dump or shell as root over the server's socket; the password stands in a private file."""
    command = server.client(kind)
    server.temporary.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=server.temporary) as login:
        password = server.settings.mysql_root.password.get_secret_value()
        # On a socket of this machine nothing needs to be encrypted; MySQL's own programs do not know the option.
        login.write(f"[client]\nuser=root\npassword='{password}'\nsocket={server.socket}\nloose-skip-ssl\n")
        login.flush()
        done = subprocess.run(
            [*command, f"--defaults-file={login.name}", *options],
            stdin=source or subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        problem = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise TickledgerError(f"{Path(command[-1]).name} failed: {' '.join(problem)}")


def _files_and_folders(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """What Cassandra's data are made of, inside of the folder. Raises tarfile.FilterError for anything else."""
    if not (member.isreg() or member.isdir()):
        # A link is one here: no backup of ours has any.
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, folder)


@contextlib.contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """The server in order stopped, which writes all it holds to its files; it runs again afterwards."""
    server.stop()
    try:
        yield
    finally:
        server.start()
        server.wait_until_ready()


def _archive(server: Server, file: Path) -> None:
    # What is linked is written twice: a restore takes no link.
    with _stopped(server), tarfile.open(file, "x", dereference=True) as archive:
        archive.add(server.data, arcname=".")


@contextlib.contextmanager
def _unpacked(server: Server, file: Path) -> Iterator[Path]:
    """The archive in a folder beside the data's: what is torn, or a link, is met before anything changes."""
    fresh = server.data.with_name(f"{server.data.name}.restored")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with tarfile.open(file) as archive:
            archive.extractall(fresh, filter=_files_and_folders)  # noqa: S202  # the filter takes files and folders alone
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(server: Server, fresh: Path) -> None:
    """Put a folder in the data's place; the old one goes once the server has started with the new one."""
    old = server.data.with_name(f"{server.data.name}.replaced")
    with _stopped(server):
        if server.data.exists():
            shutil.rmtree(old, ignore_errors=True)
            server.data.rename(old)
        fresh.rename(server.data)
    shutil.rmtree(old, ignore_errors=True)


def _refuse_beside_stream(settings: Settings) -> None:
    """Raise TickledgerError where a stream holds its lock; the database itself may be gone.

    One that starts from here on keeps the database from being dropped, or finds no lock in it before all is loaded.
    """
    with mysql(settings, settings.mysql_root, database="mysql") as connection:
        lock = f"`{settings.mysql_database}`.stream_lock"
        try:
            fetch_rows(connection, f"SELECT part FROM {lock} WHERE part = 'lock' FOR UPDATE NOWAIT")
        except mysql_driver.Error as error:
            if error.errno in _NO_LOCK:
                return
            if error.errno not in _LOCKED:
                raise TickledgerError(f"the stream's lock cannot be asked: {first_sentence(error)}") from None
            rows = fetch_rows(connection, f"SELECT holder FROM {lock} WHERE part = 'holder'")
            who = f" ({plain(rows[0][0])})" if rows else ""
            raise TickledgerError(f"a stream lands into {settings.mysql_database!r}{who}; stop it first") from None


_NO_LOCK = (errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_DB_ERROR)
#: MariaDB's answer to NOWAIT, and MySQL's.
_LOCKED = (errorcode.ER_LOCK_WAIT_TIMEOUT, errorcode.ER_LOCK_NOWAIT)
