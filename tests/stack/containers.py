"""The containers of docker-compose.yml: what a test asks of them and does to them."""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.server import write_private
from tests.stack.engine import Engine
from tickledger.errors import TickledgerError
from tickledger.ledger import Ledger
from tickledger.settings import PROJECT_ROOT, Settings, load_settings
from tickledger.stores import connect_mysql, fetch_rows

PROJECT = "tickledger-test"
#: What .env takes only between single quotes.
AWKWARD = "a$b#c"
#: Two cores for everything, crashes too: a trigger at which the checks keep up.
TRIGGER_SECONDS = 5
#: Containers that run on, in the order in which a crash is tried.
LASTING = ("stream", "producer", "dashboard", "spark-worker", "spark-master", "kafka", "cassandra", "mysql")


#: Tests that run at the same time have a Spark of their own at 4040.
ANY_PORT_FOR_SPARK = """
services:
  stream:
    ports: !override ["127.0.0.1::4040", "127.0.0.1:9464:9464"]
"""


class Failed(TickledgerError):
    """The containers do not do what they should. Exit code 1."""


class Containers:
    """One Compose project with volumes, network and passwords of its own."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.env_file = folder / ".env"
        write_private(self.env_file, filled_in((PROJECT_ROOT / ".env.example").read_text()))
        self._ports = folder / "ports.yml"
        self._ports.write_text(ANY_PORT_FOR_SPARK)
        #: As a program on this machine reads them.
        self.settings: Settings = load_settings(self.env_file)

    def compose(self, *words: str, check: bool = True, timeout: float = 900) -> "subprocess.CompletedProcess[str]":
        """`docker compose …` on this project, of which `tools` starts only if it is named."""
        files = ("--file", PROJECT_ROOT / "docker-compose.yml", "--file", self._ports)
        project = ("compose", *files, "--project-name", PROJECT, "--env-file", self.env_file)
        return self.engine.run(*project, *words, check=check, timeout=timeout)

    def tool(self, *words: str, service: str = "tools") -> str:
        """What a command prints in a container of its own; Failed if its exit code is not 0."""
        done = self.compose("run", "--rm", "--no-deps", "--quiet-pull", "-T", service, *words, check=False)
        if done.returncode:
            raise Failed(f"'{' '.join(words)}' ends with {done.returncode} in {service}: {done.stdout}{done.stderr}")
        return done.stdout

    def ids(self) -> dict[str, str]:
        """Name of each container → its id; one that was recreated has another."""
        return {one["Name"]: one["ID"] for one in self._listed("--all")}

    def states(self) -> dict[str, str]:
        """Name of each container that runs → healthy, starting …; `running` if nothing checks it."""
        return {one["Name"]: one["Health"] or one["State"] for one in self._listed()}

    def exit_codes(self) -> dict[str, int]:
        """Name of each container that has ended → its exit code."""
        return {one["Name"]: one["ExitCode"] for one in self._listed("--all") if one["State"] == "exited"}

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's first container."""
        (found,) = json.loads(self.engine.ask("inspect", f"{PROJECT}-{service}-1"))
        return dict(found)

    def address(self, service: str) -> str:
        """Its address in the project's network."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def kill(self, service: str) -> None:
        """SIGKILL its first process, and with it all.

        An own engine sees a crash and starts it again. Another may run in a virtual machine, where a process has
        another id than here: it is asked to kill and to start.
        """
        if self.engine.own:
            os.kill(self.inspect(service)["State"]["Pid"], signal.SIGKILL)
        else:
            self.engine.run("kill", f"{PROJECT}-{service}-1")
            self.engine.run("start", f"{PROJECT}-{service}-1")

    def wait_until_well(self, seconds: float = 180) -> None:
        """Wait until every container that should run does, and is healthy if it is checked."""
        wanted = {f"{PROJECT}-{service}-1" for service in LASTING}

        def well() -> bool:
            states = self.states()
            return wanted <= set(states) and set(states.values()) <= {"healthy", "running"}

        wait_until(well, lambda: f"not all are well: {self.states()}", seconds)

    def shell(self, script: str, folder: str) -> None:
        """Run a document's commands in a folder, on this project in the place of the one that they name."""
        files = f"{PROJECT_ROOT / 'docker-compose.yml'}:{self._ports}"
        here = {"COMPOSE_PROJECT_NAME": PROJECT, "COMPOSE_FILE": files, "COMPOSE_ENV_FILES": str(self.env_file)}
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("tickledger_", f"{PROJECT}_")],
            cwd=folder,
            env=self.engine.environment | here,
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def first_batch(self) -> tuple[Any, ...]:
        """When the ledger's first batch landed, and with how many ticks."""
        return tuple(self._asked("SELECT landed_at, ticks_landed FROM landed_batches ORDER BY batch_id LIMIT 1"))

    def batches(self) -> int:
        """The newest batch of the ledger; 0 if there is none."""
        return Ledger(self.settings).head().batch_id

    def checked(self) -> int:
        """The newest batch that has a verdict; 0 if none has."""
        (newest,) = self._asked("SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches WHERE verdict <> 'unchecked'")
        return int(newest)

    def wait_for_landing(self, seconds: float = 240) -> None:
        """Wait until batches land that did not before, and are checked."""
        start = patiently(self.batches, seconds)
        wait_until(
            lambda: patiently(self.checked, seconds) >= start + 2,
            lambda: f"nothing lands and is checked after batch {start}: {self.last_lines()}",
            seconds,
        )

    def last_lines(self) -> str:
        """The last that the stream said, for a failure's message."""
        return self.compose("logs", "--no-log-prefix", "--tail", "15", "stream", check=False).stdout

    def _asked(self, query: str) -> Any:
        """The first row that MySQL answers."""
        connection = connect_mysql(self.settings, self.settings.dbt_mysql)
        try:
            return fetch_rows(connection, query)[0]
        finally:
            connection.close()

    def _listed(self, *options: str) -> list[dict[str, Any]]:
        text = self.compose("ps", "--format", "json", *options).stdout
        return [json.loads(line) for line in text.splitlines()]


def filled_in(example: str) -> str:
    """.env.example with generated passwords, one of which has characters that .env gives a meaning."""
    lines = []
    for line in re.sub(r"(?<=^STREAM_TRIGGER_SECONDS=).*", f"{TRIGGER_SECONDS}", example, flags=re.M).splitlines():
        name, assigned, value = line.partition("=")
        if assigned and not value and name.endswith("_PASSWORD"):
            password = secrets.token_hex(12)
            line = f"{name}='{AWKWARD}{password}'" if name == "DBT_MYSQL_PASSWORD" else f"{name}={password}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def wait_until(holds: Callable[[], bool], problem: Callable[[], str], seconds: float) -> None:
    """Ask again and again. Raises Failed with the problem if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(problem())
        time.sleep(0.5)


def patiently(ask: Callable[[], int], seconds: float) -> int:
    """An answer of a store that may be down at the moment. Raises what it raises once the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except TickledgerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
