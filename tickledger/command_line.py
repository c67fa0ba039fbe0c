"""What the command lines of all programs have in common: errors of usage in one line, and `--json`."""

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NoReturn

import typer

from tickledger.errors import run_command

#: The option of a command that prints a table.
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]

#: What typer raises for words that it does not understand; it gives the class no name of its own.
_UsageError: Any = typer.BadParameter.__bases__[0]


def run_app(app: typer.Typer, name: str) -> NoReturn:
    """Run a program that is called `name`, and exit.

    One line and exit code 2 for an unknown command or option, or a value that is none; 1 or 2 and one line for an error
    that the user can act on; 130 after Ctrl-C.
    """
    code: Any = None

    def run() -> None:
        nonlocal code
        try:
            code = app(prog_name=name, standalone_mode=False)
        except _UsageError as error:
            _exit_with_usage(error)
        except typer.Abort:
            raise SystemExit(1) from None

    run_command(run)
    raise SystemExit(code if isinstance(code, int) else 0)


def _exit_with_usage(error: Any) -> NoReturn:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        raise SystemExit(2)
    said = " ".join(error.format_message().replace("Value error, ", "").split()).removesuffix(".")
    where = f" ({error.ctx.command_path} --help)" if error.ctx else ""
    print(f"error: {said}{where}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def print_json(rows: Iterable[Mapping[str, Any]] | Mapping[str, Any]) -> None:
    """Print an object, or an array of one object a row. Times and other values that JSON lacks are texts."""
    value = dict(rows) if isinstance(rows, Mapping) else [dict(row) for row in rows]
    # In ASCII: a terminal obeys some of the other characters.
    print(json.dumps(value, default=str), flush=True)
