"""MySQL on loopback: a real mysqld if there is one, else MariaDB from its Maven artifact."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from pydantic import SecretStr

from services.hosts import LOOPBACK
from services.jars import MARIADB, fetch
from services.mysql_accounts import create_accounts, refuse_taken_names
from services.mysql_replication import OPTIONS, UNLOGGED, follow, lead, why_it_stands
from services.server import WRITTEN, Server, run_once, write_private
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.settings import NO_FILE
from tickledger.stores import mysql

#: Names the server to use instead of the `mysqld` on PATH: a binary, or a launcher followed by one.
MYSQLD_VARIABLE = "TICKLEDGER_MYSQLD"
#: In a cluster: a primary, and a replica that takes over.
MYSQL_NODES = 2
#: A Unix socket's path may have at most this many bytes (man 7 unix: 108 with the closing zero).
SOCKET_PATH_BYTES = 107

_CONFIGURATION = """[mysqld]
bind-address={host}
port={port}
socket={socket}
pid-file={temporary}/mysqld.pid
datadir={data}
tmpdir={temporary}
init-file={init_file}
skip-name-resolve
character-set-server=utf8mb4
collation-server=utf8mb4_bin
default-time-zone=+00:00
# What the ledger promises: a commit that was answered is on disk.
innodb-flush-log-at-trx-commit=1
innodb-buffer-pool-size=256M
max-connections=200
max-allowed-packet=64M
skip-log-bin
local-infile=OFF
performance-schema=OFF
"""


class MySQLServer(Server):
    """The server, its accounts and the database."""

    name = "mysql"
    title = "MySQL"
    port_setting = "MYSQL_PORT"

    @property
    def port(self) -> int:
        """MYSQL_PORT. Raises ConfigurationError if MYSQL_HOST is not this machine."""
        there = self.whole.mysql_host
        here = [self.host_of(node) for node in range(1, 1 + MYSQL_NODES)] if self.nodes > 1 else [LOOPBACK, "localhost"]
        if there not in here:
            should_be = LOOPBACK if self.nodes == 1 else " or ".join(here)
            raise ConfigurationError(
                f"MYSQL_HOST is {there!r}; the services run on this machine: it should be {should_be}"
            )
        return self.settings.mysql_port

    @staticmethod
    def version() -> str:
        """What the server says of itself, such as `MariaDB 11.4.5`."""
        launcher = _installed_server()
        return _describe(launcher)[0] if launcher else f"MariaDB {MARIADB.version}"

    def prepare(self) -> None:
        """Write the configuration and create the system tables at the first start."""
        refuse_taken_names(self.settings)
        launcher = _installed_server() or [str(fetch(MARIADB, self.say) / "bin" / "mariadbd")]
        for folder in (self.conf, self.temporary, self.data.parent):
            folder.mkdir(parents=True, exist_ok=True)
        _own_folder(self.socket.parent)
        version, is_mariadb = _describe(launcher)
        self._refuse_other_kind(version)
        if self.nodes > 1 and not is_mariadb:
            raise ConfigurationError(
                f"{MYSQLD_VARIABLE} or PATH names {version}; it should be MariaDB, or nothing, where there are"
                f" {self.nodes} nodes"
            )
        if not (self.data / "mysql").is_dir():
            self.say(f"creating the system tables of {version}")
            self._create_system_tables(launcher, is_mariadb)
            self._kind_mark.write_text(version)
        write_private(self._init_file, "".join(f"{statement};\n" for statement in self._accounts()))
        text = _CONFIGURATION.format(
            host=self.host,
            port=self.port,
            socket=self.socket,
            temporary=self.temporary,
            data=self.data,
            init_file=self._init_file,
        )
        if self.nodes > 1:
            text += OPTIONS.format(node=self.node, data=self.data, read_only="OFF" if self.is_primary else "ON")
        own = _own_options(launcher, is_mariadb, secured=bool(self._encryption()))
        if is_mariadb:
            # Beyond it no statement reads or writes a file. MySQL takes NULL, for none at all; MariaDB only a folder.
            files = self.conf / "files"
            files.mkdir(mode=0o700, exist_ok=True)
            own.append(f"secure-file-priv={files}")
        write_private(self._option_file, WRITTEN + text + "".join(f"{line}\n" for line in (*own, *self._encryption())))

    def command(self) -> list[str]:
        """The server with our option file and no other."""
        launcher = _installed_server() or [str(MARIADB.folder / "bin" / "mariadbd")]
        return [*launcher, f"--defaults-file={self._option_file}", *_as_root()]

    def check_answers(self) -> None:
        """Log in as MYSQL_ROOT_USER. Raises ConfigurationError if the running server has another password."""
        with mysql(self.settings, self.settings.mysql_root, database="mysql"):
            pass

    def check_serves(self) -> None:
        """A replica must also follow. Raises TickledgerError, with MariaDB's reason, where it does not."""
        self.check_answers()
        if not self.is_primary and (problem := why_it_stands(self.settings)):
            raise TickledgerError(problem)

    def set_up(self) -> None:
        """Drop the accounts that new system tables bring along; create or renew ours.

        MYSQL_ROOT_USER and the database the server made from the init file.
        """
        self._init_file.unlink(missing_ok=True)
        with mysql(self.settings, self.settings.mysql_root, database="mysql") as connection:
            cursor = connection.cursor()
            # Each server has its own.
            cursor.execute(UNLOGGED)
            # MariaDB gives root one for the host's name and one for ::1, and none of them a password.
            cursor.execute(
                "SELECT user, host FROM mysql.user WHERE user = ''"
                " OR user = 'root' AND NOT (user = %s AND host IN ('localhost', %s))",
                (self.settings.mysql_root.user, self.hosts.clients),
            )
            for user, host in cursor.fetchall():
                cursor.execute("DROP USER %s@%s", (str(user), str(host)))
        if not self.is_primary:
            follow(self.settings, self.whole, self.hosts.clients)
            return
        if self.nodes > 1:
            lead(self.settings)
        create_accounts(self.settings, ("localhost", self.hosts.clients))

    @property
    def is_primary(self) -> bool:
        """Whether MYSQL_HOST names this server."""
        return self.nodes == 1 or self.whole.mysql_host == self.host

    def _encryption(self) -> list[str]:
        """TLS for all clients over TCP if MYSQL_CA_FILE names a file."""
        if self.settings.mysql_ca_file == NO_FILE:
            return []
        files = (("ca", "ca.pem"), ("cert", "server.pem"), ("key", "server.key"))
        return ["require-secure-transport=ON", *(f"ssl-{kind}={self.certificates / name}" for kind, name in files)]

    @property
    def socket(self) -> Path:
        """The Unix socket, in the system's temporary folder if the instance's path is too long for one."""
        path = self.temporary / "mysqld.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            return path
        return Path(tempfile.gettempdir()) / f"tickledger-{os.getuid()}-{self.port}-{self.node}" / "mysqld.sock"

    @property
    def _option_file(self) -> Path:
        return self.conf / "my.cnf"

    @property
    def _kind_mark(self) -> Path:
        return self.data / ".kind"

    @property
    def _init_file(self) -> Path:
        return self.conf / "accounts.sql"

    def _accounts(self) -> list[str]:
        """SQL, a statement a line, that the server runs at every start: the superuser becomes the settings'."""
        root = self.settings.mysql_root.required()
        user, password = _literal(SecretStr(root.user)), _literal(root.password)
        # Each server makes its own: what both log, neither could take from the other.
        statements = [UNLOGGED] if self.nodes > 1 else []
        statements += [f"CREATE DATABASE IF NOT EXISTS `{self.settings.mysql_database}`"]
        for host in ("localhost", self.hosts.clients):
            account = f"{user}@'{host}'"
            statements.append(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {password}")
            statements.append(f"ALTER USER {account} IDENTIFIED BY {password}")
            statements.append(f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION")
        return statements

    def _refuse_other_kind(self, version: str) -> None:
        """MariaDB and MySQL cannot read each other's data folder."""
        there = self._kind_mark.read_text() if self._kind_mark.exists() else version
        if there.split()[0] != version.split()[0]:
            raise ConfigurationError(
                f"{MYSQLD_VARIABLE} or PATH names {version}; it should be {there.split()[0]}, which made the data in "
                f"{self.data}: name it, or delete the data with 'tickledger services clean'"
            )

    def _create_system_tables(self, launcher: list[str], is_mariadb: bool) -> None:
        """Create them in a folder beside, so that an interrupted first start is done again."""
        fresh = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        if is_mariadb:
            fresh.mkdir()
            command = [*_install_db(launcher), f"--datadir={fresh}", f"--tmpdir={self.temporary}"]
        else:
            options = [f"--{line}" for line in _own_options(launcher, is_mariadb, secured=False)]
            command = [*launcher, "--no-defaults", "--initialize-insecure", f"--datadir={fresh}", *options]
        run_once([*command, *_as_root()], "creating MySQL's system tables")
        fresh.replace(self.data)


def _own_folder(folder: Path) -> None:
    """Make a folder for its owner alone. Raises ConfigurationError if it is somebody else's, or a link."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(folder.lstat().st_mode) or folder.lstat().st_uid != os.getuid():
        raise ConfigurationError(f"TMPDIR holds '{folder}'; it should be a folder of your own, or not there")
    folder.chmod(0o700)


def _installed_server() -> list[str] | None:
    """The command of $TICKLEDGER_MYSQLD or of the mysqld on PATH; None if there is neither."""
    named = shlex.split(os.environ.get(MYSQLD_VARIABLE, ""))
    if named:
        return named
    on_path = shutil.which("mysqld")
    return [on_path] if on_path else None


def _describe(launcher: list[str]) -> tuple[str, bool]:
    """Name and version of a server, and whether it is MariaDB. Raises ConfigurationError if it does not run."""
    try:
        answer = subprocess.run([*launcher, "--version"], capture_output=True, text=True, timeout=30)
        problem = answer.stderr.strip().splitlines()[-1:] if answer.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        answer, problem = None, [str(error)]
    found = re.search(r"Ver ([\d.]+)", answer.stdout) if answer else None
    if answer is None or found is None:
        setting = MYSQLD_VARIABLE if os.environ.get(MYSQLD_VARIABLE) else "mysqld"
        raise ConfigurationError(
            f"{setting} is {shlex.join(launcher)!r}; it should be a MySQL server that runs here: {' '.join(problem)}"
        )
    is_mariadb = "MariaDB" in answer.stdout
    return f"{'MariaDB' if is_mariadb else 'MySQL'} {found.group(1)}", is_mariadb


def _own_options(launcher: list[str], is_mariadb: bool, secured: bool) -> list[str]:
    """Options that only this kind of server knows or needs."""
    base = Path(launcher[-1]).resolve().parent.parent
    if is_mariadb:
        return [f"basedir={base}", *([] if secured else ["skip-ssl"])]
    # A server unpacked from a distribution's package looks for its messages where the package would have put them.
    messages = base / "share" / "mysql"
    unpacked = (
        [f"lc-messages-dir={messages}", f"character-sets-dir={messages / 'charsets'}"] if messages.is_dir() else []
    )
    return ["mysqlx=OFF", "secure-file-priv=NULL", *unpacked]


def _install_db(launcher: list[str]) -> list[str]:
    base = Path(launcher[-1]).resolve().parent.parent
    script = base / "scripts" / "mariadb-install-db"
    found = str(script) if script.exists() else shutil.which("mariadb-install-db") or shutil.which("mysql_install_db")
    if not found:
        raise ConfigurationError(f"mariadb-install-db should be on PATH, as {launcher[-1]} is MariaDB")
    options = ("--no-defaults", f"--basedir={base}", "--skip-test-db", "--skip-name-resolve")
    return [found, *options, "--auth-root-authentication-method=normal"]


def _as_root() -> list[str]:
    # Both servers refuse to run as root unless told to.
    return ["--user=root"] if os.geteuid() == 0 else []


def _literal(secret: SecretStr) -> str:
    return "'" + secret.get_secret_value().replace("\\", "\\\\").replace("'", "''") + "'"
