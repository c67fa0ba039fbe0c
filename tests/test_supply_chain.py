"""What comes in from outside, and what must not go out: hashes of packages, the audit, images, the scan for secrets."""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from services import jars
from services.jars import DOWNLOADS, MARIADB, SPARK_KAFKA, fetch
from services.java import java_home
from services.maven import Jar, Refused, digest_of, locked, retrieve
from services.server import free_port
from tickledger.settings import PROJECT_ROOT

LOCK = (PROJECT_ROOT / "requirements.lock").read_text()
#: Each pinned package with all that belongs to it.
BLOCKS = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", LOCK, re.MULTILINE | re.DOTALL)


def run(*words: str | Path, cwd: Path = PROJECT_ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)


# Packages


def test_every_package_is_pinned_with_its_hashes_and_installed_by_them() -> None:
    assert len(BLOCKS) > 100
    assert [block for block in BLOCKS if not re.match(r"\S+==\S+ .*\\\n.*--hash=sha256:[0-9a-f]{64}", block)] == []
    for file in ("Makefile", "Dockerfile"):
        installs = re.findall(r".*pip install .*\b(?:requirements|needed)\.lock", (PROJECT_ROOT / file).read_text())
        assert len(installs) == 1
        assert "--require-hashes --no-deps" in installs[0]


def test_nothing_is_missing_from_the_lock_but_what_is_overridden_on_purpose() -> None:
    """Installed with --no-deps, a package that the lock lacks would be missed at the first import only."""
    locked = {re.split("==", block)[0] for block in BLOCKS}

    done = run(sys.executable, "-m", "pip", "check")

    assert {line for line in done.stdout.splitlines() if line.split()[0] in locked} == {
        f"dbt-core {version('dbt-core')} requires dbt-core-experimental-parser, which is not installed.",
        f"dbt-mysql 1.7.0 has requirement dbt-core~=1.7.0, but you have dbt-core {version('dbt-core')}.",
    }


def test_the_lock_fits_every_python_that_the_project_takes_and_make_looks_for_those() -> None:
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    pythons = SpecifierSet(project["requires-python"])
    fitting = [f"3.{minor}" for minor in range(30) if f"3.{minor}" in pythons]
    makefile = (PROJECT_ROOT / "Makefile").read_text()

    assert re.findall(r"python(3\.\d+)", re.findall(r"^PYTHON \?= .*", makefile, re.MULTILINE)[0]) == fitting[::-1]
    first, last = (tuple(int(part) for part in one.split(".")) for one in (fitting[0], fitting[-1]))
    assert f"{first} <= sys.version_info[:2] <= {last}" in makefile
    assert f"--universal --fork-strategy fewest --python-version {fitting[0]} " in makefile
    pinned = [Requirement(block.split("\\")[0].strip()) for block in BLOCKS]
    for python in fitting:
        here = {"python_version": python, "python_full_version": f"{python}.0"}
        names = [one.name for one in pinned if one.marker is None or one.marker.evaluate(here)]
        assert len(names) == len(set(names)) > 100, python


def test_a_package_that_is_not_what_was_locked_is_refused(tmp_path: Path) -> None:
    (block,) = (block for block in BLOCKS if block.startswith("tomli=="))
    pinned = Requirement(block.split()[0])
    number = str(pinned.specifier).removeprefix("==")
    wheel, notes = tmp_path / f"tomli-{number}-py3-none-any.whl", f"tomli-{number}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tomli.py", "raise SystemExit('somebody else wrote this')\n")
        archive.writestr(f"{notes}/METADATA", f"Metadata-Version: 2.1\nName: tomli\nVersion: {number}\n")
        archive.writestr(f"{notes}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{notes}/RECORD", "")
    own_hash = hashlib.sha256(wheel.read_bytes()).hexdigest()
    install = (sys.executable, "-m", "pip", "install", "--require-hashes", "--no-index", "--target", tmp_path / "to")
    files = {"locked": block, "own": f"{pinned} --hash=sha256:{own_hash}\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    refused = run(*install, "--find-links", tmp_path, "-r", tmp_path / "locked")
    taken = run(*install, "--find-links", tmp_path, "-r", tmp_path / "own")

    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert taken.returncode == 0, taken.stderr


# Jars


def test_every_jar_is_locked_by_its_hash() -> None:
    for download in DOWNLOADS:
        jars = locked(download.title)
        assert set(download.artifacts) <= {":".join(jar[:3]) for jar in jars}
        assert {len(digest) for digest in jars.values()} == {64}
        there = {path.name: digest_of(path) for path in download.folder.glob("*.jar")}
        assert not there or there == {jar.file: digest for jar, digest in jars.items()}


@pytest.mark.integration
def test_a_jar_that_is_not_what_was_locked_is_refused(tmp_path: Path) -> None:
    jar = Jar("org.apache.commons", "commons-pool2", "2.13.1")
    right, java, lock, folder = locked(SPARK_KAFKA.title)[jar], str(java_home() / "bin" / "java"), *_paths(tmp_path)

    lock.write_text(f"\n[one]\n{'0' * 64}  {':'.join(jar[:3])}\n")
    with pytest.raises(Refused, match=rf"commons-pool2-2.13.1.jar is not what lock says: SHA-256 {right}"):
        retrieve("one", folder, java, lock=lock)
    assert list(folder.iterdir()) == [], "nothing of it is left to be run"
    lock.write_text(f"\n[one]\n{right}  {':'.join(jar[:3])}\n")
    retrieve("one", folder, java, lock=lock)

    assert [path.name for path in folder.iterdir()] == [jar.file], "and nothing that it depends on"


@pytest.mark.integration
@pytest.mark.parametrize("change", ["changed", "added", "gone"])
def test_jars_that_were_fetched_before_are_compared_with_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fetch(SPARK_KAFKA, print)
    there = shutil.copytree(SPARK_KAFKA.folder, tmp_path / SPARK_KAFKA.title)
    monkeypatch.setattr(jars, "JARS_DIR", tmp_path)
    said: list[str] = []
    assert fetch(SPARK_KAFKA, said.append) == there
    assert said == []

    jar = next(there.iterdir())
    if change == "added":
        shutil.copy(jar, there / "another.jar")
    elif change == "gone":
        jar.unlink()
    else:
        jar.write_bytes(jar.read_bytes() + b"x")
    fetch(SPARK_KAFKA, said.append)

    assert said[0].endswith("is not what jars.lock says: it is fetched again")
    assert {path.name: digest_of(path) for path in there.iterdir()} == {
        one.file: digest for one, digest in locked(SPARK_KAFKA.title).items()
    }


def test_what_was_unpacked_is_taken_where_it_came_from_the_locked_jar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "JARS_DIR", tmp_path)
    MARIADB.folder.mkdir()
    assert not jars._is_locked(MARIADB), "an older checkout made no mark"
    (MARIADB.folder / jars.MARK).write_text("0" * 64)
    assert not jars._is_locked(MARIADB)
    (MARIADB.folder / jars.MARK).write_text(*locked(MARIADB.title).values())
    assert jars._is_locked(MARIADB)


def _paths(folder: Path) -> tuple[Path, Path]:
    (folder / "jars").mkdir()
    return folder / "lock", folder / "jars"


@pytest.mark.integration
def test_spark_takes_no_jar_of_the_folder_that_it_is_started_in(tmp_path: Path) -> None:
    jars = tmp_path / ".venv" / "spark-jars"
    jars.mkdir(parents=True)
    with zipfile.ZipFile(jars / "a.jar", "w") as archive:
        archive.writestr("org/apache/spark/deploy/SparkSubmit.class", b"somebody else wrote this")
    submit = Path(sys.executable).with_name("spark-submit")
    path = f"{submit.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [submit, "--version"], cwd=tmp_path, env=os.environ | {"SPARK_CONF_DIR": str(PROJECT_ROOT), "PATH": path},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "version 4." in done.stderr


def test_debians_lists_are_taken_only_while_they_are_valid() -> None:
    scripts = [path for path in PROJECT_ROOT.glob(".ci/*") if path.is_file()] + [PROJECT_ROOT / "Dockerfile"]
    assert not any("Check-Valid-Until" in path.read_text() for path in scripts)


def test_every_image_is_named_by_version() -> None:
    services = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())["services"].values()
    built = {one["image"] for one in services if one.get("pull_policy") == "never"}
    pulled = {one["image"] for one in services} - built
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    bases = {base for base, _ in stages} - {stage for _, stage in stages}

    assert len(pulled) >= 3
    assert bases
    assert [image for image in pulled | bases if not re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", image)] == []


# The audit


class Advisories(ThreadingHTTPServer):
    """Answers as OSV does: a POST of package and version, the advisories of it in return."""

    def __init__(self, known: dict[str, list[dict[str, Any]]], status: int = 200) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                vulns = known.get(question["package"]["name"], [])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps({"vulns": vulns} if vulns else {}).encode())

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


def advisory(package: str, identity: str, alias: str, fixed: str) -> dict[str, Any]:
    """An advisory in OSV's format."""
    events = [{"introduced": "0"}, {"fixed": fixed}]
    return {
        "schema_version": "1.6.0",
        "id": identity,
        "aliases": [alias],
        "summary": "It may fill the memory",
        "published": "2025-12-05T18:33:09Z",
        "modified": "2025-12-06T00:12:20Z",
        "affected": [
            {
                "package": {"name": package, "ecosystem": "PyPI", "purl": f"pkg:pypi/{package}"},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
    }


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of a service that knows one advisory on urllib3 and none on six."""
    server = Advisories({"urllib3": [advisory("urllib3", "GHSA-gm62-xv2j-4w53", "CVE-2025-66418", "2.6.0")]})
    yield server.url
    server.shutdown()
    server.server_close()


def audit(folder: Path, accepted: str, url: str) -> "subprocess.CompletedProcess[str]":
    (folder / "lock").write_text("six==1.17.0 \\\n    --hash=sha256:aa\nurllib3==1.26.20 \\\n    --hash=sha256:bb\n")
    (folder / "accepted.toml").write_text(accepted)
    options = ("--lock", folder / "lock", "--accepted", folder / "accepted.toml", "--osv-url", url)
    return run(sys.executable, ".ci/audit.py", *options)


def test_the_audit_asks_about_every_version_of_a_package(tmp_path: Path, service: str) -> None:
    lines = ("six==1.17.0", "urllib3==1.26.20 ; python_full_version < '3.12'", "urllib3==2.5.0", "urllib3==2.8.0")
    (tmp_path / "lock").write_text("".join(f"{line} \\\n    --hash=sha256:aa\n" for line in lines))
    (tmp_path / "accepted.toml").write_text("")

    done = run(
        *(sys.executable, ".ci/audit.py", "--lock", tmp_path / "lock", "--accepted", tmp_path / "accepted.toml"),
        *("--osv-url", service),
    )

    assert done.returncode == 1, done.stderr
    assert sorted(re.findall(r"VULNERABLE: urllib3 (\S+):", done.stdout)) == ["1.26.20", "2.5.0", "2.8.0"]
    assert "audited 4 locked packages" in done.stdout


def entry(**changes: str) -> str:
    """An accepted finding, as the file has it."""
    values = {"id": "CVE-2025-66418", "package": "urllib3", "version": "1.26.20", "reason": "no stranger's server"}
    return "[[accepted]]\n" + "".join(f'{key} = "{value}"\n' for key, value in (values | changes).items())


def test_the_audit_fails_on_a_finding_that_is_not_accepted(tmp_path: Path, service: str) -> None:
    done = audit(tmp_path, entry(id="CVE-2000-0001"), service)

    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        "VULNERABLE: urllib3 1.26.20: CVE-2025-66418, GHSA-gm62-xv2j-4w53 (fixed in: 2.6.0)",
        "audited 2 locked packages with osv: 1 findings are not accepted",
    ]


@pytest.mark.parametrize("identity", ["CVE-2025-66418", "GHSA-gm62-xv2j-4w53"])
def test_the_audit_passes_with_what_is_accepted_by_any_of_its_names(
    tmp_path: Path, service: str, identity: str
) -> None:
    done = audit(tmp_path, entry(id=identity), service)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "no stranger's server" in done.stdout
    assert "0 findings are not accepted" in done.stdout


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"reason": " "}, "should have id, package, version and reason", id="no reason"),
        pytest.param({"version": "1.26.19"}, "the lock has 1.26.20", id="another version"),
        pytest.param({"package": "gone"}, "the lock has no such package", id="a package that is gone"),
    ],
)
def test_the_audit_fails_on_an_accepted_finding_that_does_not_hold(
    tmp_path: Path, service: str, changes: dict[str, str], says: str
) -> None:
    done = audit(tmp_path, entry(**changes), service)

    assert done.returncode == 1
    assert says in done.stdout


def test_an_audit_that_nobody_answers_does_not_count_as_one(tmp_path: Path) -> None:
    refusing = Advisories({}, status=503)
    for url in (f"http://127.0.0.1:{free_port()}", refusing.url):
        done = audit(tmp_path, entry(), url)

        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        assert line.startswith("not audited: NO VULNERABILITY SERVICE ANSWERS")
    refusing.shutdown()
    refusing.server_close()


def test_the_projects_own_exceptions_are_of_locked_versions_and_have_reasons() -> None:
    accepted = PROJECT_ROOT / ".ci" / "accepted-vulnerabilities.toml"

    done = run(sys.executable, ".ci/audit.py", "--osv-url", f"http://127.0.0.1:{free_port()}")

    assert done.returncode == 0, done.stdout + done.stderr
    ids = [one["id"] for one in tomllib.loads(accepted.read_text()).get("accepted", [])]
    assert len(ids) == len(set(ids))


# Secrets


def test_a_secret_is_found_also_where_a_later_commit_took_it_away(tmp_path: Path) -> None:
    # Made again each time: written here it would be found here.
    planted = base64.b64encode(secrets.token_bytes(30)).decode()
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    run("git", "init", "--quiet", cwd=tmp_path)
    for text in (f'password = "{planted}"\n', 'password = ""\n'):
        (tmp_path / "settings.py").write_text(f"host = 'example'\n{text}")
        run("git", "add", "settings.py", cwd=tmp_path)
        assert run(*git, "commit", "--quiet", "--message", "Change", cwd=tmp_path).returncode == 0
    first = run("git", "rev-list", "--max-parents=0", "--abbrev-commit", "HEAD", cwd=tmp_path).stdout.strip()

    done = run(sys.executable, ".ci/scan_secrets.py", "--repository", tmp_path)
    newest = run(sys.executable, ".ci/scan_secrets.py", "--repository", tmp_path, "HEAD^{tree}")

    assert done.returncode == 1, done.stderr
    assert set(done.stdout.splitlines()) == {f"SECRET: settings.py:2, first in commit {first}"}
    assert planted not in done.stdout + done.stderr
    assert newest.returncode == 0, newest.stdout


@pytest.mark.slow
def test_the_newest_commit_holds_no_secret() -> None:
    done = run(sys.executable, ".ci/scan_secrets.py", "HEAD^{tree}")

    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"\d+", done.stdout)[0]) > 100
