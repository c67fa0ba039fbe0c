"""`make secrets`: does a file of any commit hold a secret? detect-secrets looks at each version of each file once.

Exit code 0: none. 1: one, with the file, the line and the first commit that has it; the secret itself is not shown.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

PROJECT = Path(__file__).resolve().parent.parent
HOOK = Path(sys.executable).with_name("detect-secrets-hook")
#: Hashes of packages look like secrets; the hook leaves the same file out.
LEFT_OUT = ("requirements.lock",)


def git(repository: Path, *arguments: str) -> bytes:
    """What a git command prints. Raises CalledProcessError."""
    return subprocess.run(["git", "-C", str(repository), *arguments], stdout=subprocess.PIPE, check=True).stdout


def write_versions(repository: Path, revisions: list[str], folder: Path) -> int:
    """Write each version of each file of the revisions to folder/BLOB/PATH, but for binaries; returns how many."""
    only_files = ("--filter=object:type=blob", "--filter-provided-objects")
    count = 0
    for line in git(repository, "rev-list", "--objects", *only_files, *revisions).decode().splitlines():
        blob, _, path = line.partition(" ")
        content = git(repository, "cat-file", "blob", blob)
        if Path(path).name in LEFT_OUT or b"\0" in content:
            continue
        place = folder / blob / path
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        count += 1
    return count


def hook_options() -> list[str]:
    """The options of the commit hook, so that both look for the same."""
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entry: str = next(hook["entry"] for hook in hooks if hook["id"] == "secrets")
    _, option, pattern = entry.split(maxsplit=2)
    return [option, pattern.strip("'")]


def main() -> int:
    """Scan, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("revisions", nargs="*", default=["--all"], help="as git rev-list takes them; default: --all")
    parser.add_argument("--repository", type=Path, default=PROJECT, help="default: this one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        versions = write_versions(arguments.repository, arguments.revisions, folder)
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        command = [str(HOOK), *hook_options(), *files]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        print(f"no secret in {versions} versions of files")
        return 0
    for line in done.stdout.splitlines():
        if line.startswith("Location:"):
            blob, _, place = line.removeprefix("Location:").strip().partition("/")
            commits = git(arguments.repository, "log", "--all", f"--find-object={blob}", "--format=%h").decode().split()
            print(f"SECRET: {place}, first in commit {commits[-1]}")
    print(done.stderr, end="", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
