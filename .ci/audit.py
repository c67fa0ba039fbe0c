"""`make audit`: is a package of requirements.lock known to be vulnerable? pip-audit asks a public service.

Findings that the project lives with stand in accepted-vulnerabilities.toml, each with its reason. Exit code 0: nothing
but those, or no service answers, which is said in a line that begins with "not audited". 1: a finding that is not
accepted, or an accepted one that has no reason or is not of a locked version. 2: pip-audit itself does not work.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: What pip-audit's last words hold if the service, and not the question, is at fault.
UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|HTTPError|ServiceError|Could not connect")
#: Asked in turn until one answers: options of pip-audit.
SERVICES = (("--vulnerability-service", "osv"), ("--vulnerability-service", "pypi"))


class NotAudited(Exception):
    """The service does not answer, or does not know the packages."""


def locked_versions(lock: Path) -> list[tuple[str, str]]:
    """(package, version) for each of a lock's pinned lines: a package may have another version for another Python."""
    return re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE)


def flaws_of(accepted: list[dict[str, Any]], locked: list[tuple[str, str]]) -> Iterator[str]:
    """One line for each accepted finding that lacks something, or that is not of a locked version any longer."""
    for entry in accepted:
        name = f"{entry.get('id')} of {entry.get('package')} {entry.get('version')}"
        if any(not str(entry.get(key, "")).strip() for key in ("id", "package", "version", "reason")):
            yield f"{name}: an accepted finding should have id, package, version and reason"
        elif (entry["package"], entry["version"]) not in locked:
            versions = ", ".join(version for package, version in locked if package == entry["package"])
            yield f"{name}: the lock has {versions or 'no such package'}; take the entry out"


def ask(service: tuple[str, ...], packages: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What pip-audit says of each package. Raises NotAudited, and RuntimeError if pip-audit itself fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(f"{name}=={version}\n" for name, version in packages)
        requirements.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements.name, "--disable-pip", "--no-deps"]
        command += ["--format", "json", "--progress-spinner", "off", *service]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout.startswith("{"):
        answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        return answers
    problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if UNREACHABLE.search(problem):
        raise NotAudited(problem[:200])
    raise RuntimeError(f"pip-audit failed: {problem}")


def audit(service: tuple[str, ...], packages: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Ask a service about all packages, once it has answered about one. Raises NotAudited."""
    (first,) = ask(service, packages[:1])
    if "skip_reason" in first:
        raise NotAudited(first["skip_reason"])
    answers = []
    while packages:
        # pip-audit refuses a package that is there twice.
        versions = dict(packages)
        answers += ask(service, list(versions.items()))
        packages = [one for one in packages if one not in versions.items()]
    return answers


def findings_of(answers: list[dict[str, Any]], accepted: list[dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    """(whether it fails the audit, a line) for each finding, and for each package that was not looked up."""
    reasons = {(entry["package"], entry["version"], entry["id"]): entry["reason"] for entry in accepted}
    for answer in answers:
        if "skip_reason" in answer:
            yield False, f"not audited: {answer['name']}: {answer['skip_reason']}"
            continue
        for found in answer["vulns"]:
            ids = [found["id"], *found["aliases"]]
            known = (reasons.get((answer["name"], answer["version"], one)) for one in ids)
            reason = next((one for one in known if one), None)
            line = f"{answer['name']} {answer['version']}: {', '.join(ids)}"
            if reason:
                yield False, f"accepted: {line}: {reason}"
            else:
                yield True, f"VULNERABLE: {line} (fixed in: {', '.join(found['fix_versions']) or 'no version'})"


def main() -> int:
    """Audit, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--lock", type=Path, default=HERE.parent / "requirements.lock", help="the pinned packages")
    parser.add_argument("--accepted", type=Path, default=HERE / "accepted-vulnerabilities.toml", help="the exceptions")
    parser.add_argument("--osv-url", help="ask this service alone, which answers as OSV does")
    arguments = parser.parse_args()
    locked = locked_versions(arguments.lock)
    accepted = tomllib.loads(arguments.accepted.read_text()).get("accepted", [])
    if flaws := list(flaws_of(accepted, locked)):
        print("\n".join(f"{arguments.accepted.name}: {flaw}" for flaw in flaws))
        return 1
    services = (("--vulnerability-service", "osv", "--osv-url", arguments.osv_url),) if arguments.osv_url else SERVICES
    problems = []
    for service in services:
        try:
            findings = list(findings_of(audit(service, locked), accepted))
        except NotAudited as error:
            problems.append(f"{service[1]}: {error}")
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        else:
            print("\n".join(line for _, line in findings))
            new = sum(fails for fails, _ in findings)
            print(f"audited {len(locked)} locked packages with {service[1]}: {new} findings are not accepted")
            return 1 if new else 0
    print(f"not audited: NO VULNERABILITY SERVICE ANSWERS, so nothing is known of the packages ({'; '.join(problems)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
