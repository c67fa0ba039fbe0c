"""The env file and the dbt profile of an instance: what the bare commands need to work as typed."""

import os
import re
import secrets
import string
from pathlib import Path

import yaml
from dotenv import dotenv_values

from tickledger.settings import NO_FILE, PROJECT_ROOT, Settings

TEMPLATE = PROJECT_ROOT / ".env.example"
PASSWORD_LENGTH = 24
_ALPHABET = string.ascii_letters + string.digits
_ASSIGNMENT = re.compile(r"^(?P<key>[A-Z][A-Z0-9_]*)=(?P<value>.*)$")


def write_env_file(path: Path, replaced: dict[str, str], changed: dict[str, str] | None = None) -> None:
    """Create the env file from .env.example, or add to it what it lacks; mode 0600.

    Values that are there stay. An empty password becomes the environment's, else a generated one.
    `replaced` holds values that differ from the template's, such as the ports of another instance; those of `changed`
    replace what is there too.
    """
    there = dotenv_values(path) if path.exists() else {}
    text = path.read_text() if path.exists() else ""
    changed = changed or {}
    lines = [_filled(_changed(line, changed)) for line in text.splitlines()]
    lines += _missing(set(there), replaced | changed)
    fresh = "\n".join(lines) + "\n"
    if fresh != text:
        _write_private(path, fresh)
    path.chmod(0o600)


def write_dbt_profile(settings: Settings, path: Path) -> None:
    """Write dbt's profiles.yml for these settings, mode 0600; a variable set in the environment still wins."""

    def setting(name: str, value: object, filtered: str = "") -> str:
        text = str(value).replace("\\", "\\\\").replace("'", "\\'")
        return f"{{{{ env_var('{name}', '{text}'){filtered} }}}}"

    account = settings.dbt_mysql.required()
    output = {
        # dbt-mysql as this project runs it: dbt_project/adapter.
        "type": "tickledger",
        "server": setting("MYSQL_HOST", settings.mysql_host),
        "port": setting("MYSQL_PORT", settings.mysql_port, " | int"),
        "schema": setting("MYSQL_DATABASE", settings.mysql_database),
        "username": setting("DBT_MYSQL_USER", account.user),
        "password": setting("DBT_MYSQL_PASSWORD", account.password.get_secret_value()),
        "charset": "utf8mb4",
        "collation": "utf8mb4_bin",
        "threads": 4,
    }
    if settings.mysql_ca_file != NO_FILE:
        output["ca_file"] = setting("MYSQL_CA_FILE", settings.mysql_ca_file)
    profile = {"tickledger": {"target": "dev", "outputs": {"dev": output}}}
    head = "# Written by `tickledger services start` from the env file; change that instead.\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_private(path, head + yaml.safe_dump(profile, sort_keys=False, width=1000))


def _missing(there: set[str], replaced: dict[str, str]) -> list[str]:
    """The template's lines whose key is not there yet, each with the comments above it."""
    lines: list[str] = []
    comments: list[str] = []
    for line in TEMPLATE.read_text().splitlines():
        found = _ASSIGNMENT.match(line)
        if not found:
            # What explains the template as a whole belongs to a new file only.
            comments.append(line)
            continue
        key = found["key"]
        if key not in there:
            lines += comments
            lines.append(_filled(f"{key}={replaced[key]}" if key in replaced else line))
        comments = []
    return lines


def _changed(line: str, changed: dict[str, str]) -> str:
    found = _ASSIGNMENT.match(line)
    return f"{found['key']}={_quoted(changed[found['key']])}" if found and found["key"] in changed else line


def _filled(line: str) -> str:
    """The line with a value in place of an empty password."""
    found = _ASSIGNMENT.match(line)
    if not found or not found["key"].endswith("_PASSWORD") or found["value"].strip().strip("'\""):
        return line
    given = os.environ.get(found["key"])
    return f"{found['key']}={_quoted(given) if given else _generated()}"


def _generated() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))


def _quoted(value: str) -> str:
    return value if value.isalnum() else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step by one that only its owner may read."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
