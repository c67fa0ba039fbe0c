"""The errors a user can act on, each one line, and the exit codes they end a program with."""

import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from tickledger.plain_text import plain

#: As a umask: files and folders that nobody else may read.
PRIVATE = 0o077


class TickledgerError(Exception):
    """An error whose message is for the user: one line, no secret in it. Exit code 1."""

    exit_code = 1


class ConfigurationError(TickledgerError):
    """A setting, credential or missing object that only the user can fix. Exit code 2."""

    exit_code = 2


class CertificateRefused(ConfigurationError):
    """A server shows a certificate that the settings do not take. Exit code 2."""


class TopicMissing(ConfigurationError):
    """The topic is not there, or the account may not see it. Exit code 2."""


class StoreUnavailable(TickledgerError):
    """A store does not answer at the moment; the same call may succeed later. Exit code 2."""

    exit_code = 2


class StoreReadOnly(StoreUnavailable):
    """MySQL reads and does not write: MYSQL_HOST is not the primary, or not yet. Exit code 2."""


class LedgerMoved(TickledgerError):
    """The ledger's end is not where this stream left it: somebody else landed a batch. Exit code 1."""


class TopicChanged(TickledgerError):
    """The topic is not the one that the stream began with. Exit code 1."""


def exit_with(error: TickledgerError) -> NoReturn:
    """Print the error as one line on stderr and end the process with its exit code."""
    print(f"error: {plain(error)}", file=sys.stderr, flush=True)
    raise SystemExit(error.exit_code)


def run_command(command: Callable[[], object]) -> None:
    """Run a command-line program: user errors become one line and an exit code, Ctrl-C becomes 130.

    What it writes, and what the programs write that it starts, is for their owner alone. Those programs read names of
    files as UTF-8: under another locale Java finds no file below a folder with an umlaut.
    """
    os.umask(PRIVATE)
    locale = next((os.environ[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(name)), "")
    if not re.search("utf-?8", locale, re.IGNORECASE):
        os.environ["LC_ALL"] = "C.UTF-8"
    try:
        command()
    except TickledgerError as error:
        exit_with(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
