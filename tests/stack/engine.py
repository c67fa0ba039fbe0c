"""A Docker engine: the one that answers, else Debian's package of it, started by hand with a folder of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tickledger.errors import ConfigurationError
from tickledger.settings import PROJECT_ROOT

#: Images and layers, kept between runs and shared by all clones.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tickledger")
START_SECONDS = 60


class Engine:
    """Docker's commands on one engine. `own` tells whether this run started it."""

    def __init__(self, environment: dict[str, str], *, own: bool) -> None:
        self._environment = os.environ | environment
        self.own = own

    def run(
        self, *words: str | Path, check: bool = True, timeout: float = 900, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run `docker …` in the project's folder. Raises CalledProcessError, with its output, unless told not to."""
        return subprocess.run(
            ["docker", *map(str, words)],
            cwd=PROJECT_ROOT,
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def ask(self, *words: str | Path) -> str:
        """What a docker command prints."""
        return self.run(*words).stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which other programs find this engine."""
        return dict(self._environment)


@contextmanager
def some_engine() -> Iterator[Engine]:
    """An engine with Compose and Buildx; what this starts, it stops.

    Raises ConfigurationError if there is none and none can be started.
    """
    if _answers({}):
        yield Engine(_plugins({}), own=False)
        return
    _install()
    before = _firewall()
    with tempfile.TemporaryDirectory(prefix="tickledger-docker-") as folder, Path(folder, "log").open("w") as log:
        environment = {"DOCKER_HOST": f"unix://{folder}/docker.sock"}
        places = [f"--data-root={CACHE / 'docker'}", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"]
        daemon = subprocess.Popen(
            ["dockerd", *places, f"--host={environment['DOCKER_HOST']}"], stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(environment):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    last = Path(log.name).read_text().strip().splitlines()[-1]
                    raise ConfigurationError(f"Debian's Docker engine does not start here: {last}")
                time.sleep(0.5)
            yield Engine(_plugins(environment), own=True)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(60)
            _clean_network(before)


def _answers(environment: dict[str, str]) -> bool:
    if not shutil.which("docker"):
        return False
    return _quietly("docker", "info", "--format", "{{.ServerVersion}}", environment=environment)


def _install() -> None:
    """Debian's package of the engine, if it is not there; nothing is started by it."""
    if shutil.which("dockerd"):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise ConfigurationError("no Docker engine answers; one can be started here as root on Debian or Ubuntu only")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "-qq", "--yes", "--no-install-recommends", "install", "docker.io", "iptables")
    if not (_quietly("apt-get", "-qq", "update") and _quietly(*install, environment=quiet)):
        raise ConfigurationError("no Docker engine answers, and no package of one (docker.io) can be installed")


def _plugins(environment: dict[str, str]) -> dict[str, str]:
    """The environment in which `docker compose` and `docker buildx` are there: Debian's, if they are not."""
    names = ("compose", "buildx")
    if all(_quietly("docker", name, "version", environment=environment) for name in names):
        return environment
    folder = CACHE / "docker-config" / "cli-plugins"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (folder / f"docker-{name}").exists():
            continue
        with tempfile.TemporaryDirectory() as unpacked:
            package = f"docker-{name}"
            unpack = (str(PROJECT_ROOT / ".ci" / "unpack-debian"), unpacked, "alone", package)
            if not _quietly(*unpack):
                raise ConfigurationError(f"there is no 'docker {name}', and no package of it can be had")
            found = [path for path in Path(unpacked).rglob(package) if path.is_file() and os.access(path, os.X_OK)]
            # One of Compose's is a script that starts the other.
            program = max(found, key=lambda path: path.stat().st_size)
            shutil.copy2(program, folder / package)
    # Its new way to build hangs with an engine as old as Debian 12's.
    return environment | {"DOCKER_CONFIG": str(folder.parent), "COMPOSE_BAKE": "false"}


def _firewall() -> str | None:
    done = subprocess.run(["iptables-save"], capture_output=True, text=True) if shutil.which("iptables-save") else None
    return done.stdout if done and done.returncode == 0 else None


def _clean_network(before: str | None) -> None:
    """The engine leaves its bridge and its rules behind."""
    _quietly("ip", "link", "delete", "docker0")
    if before is not None:
        subprocess.run(["iptables-restore"], input=before, text=True, check=False)


def _quietly(*command: str, environment: dict[str, str] | None = None) -> bool:
    try:
        done = subprocess.run(command, env=os.environ | (environment or {}), capture_output=True, timeout=600)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
