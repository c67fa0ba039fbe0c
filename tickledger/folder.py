"""Whether the project's folder has a name that all programs can be started in. Also a script, which imports nothing.

Spark's settings, MariaDB's scripts and class paths part names at spaces, colons and the like.
"""

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent
#: Letters of any language too.
_BEYOND = re.compile(r"[^\w/.@+=~-]")


def folder_problem(folder: Path = FOLDER) -> str:
    """What is wrong with the folder's name; empty if nothing is."""
    found = _BEYOND.search(str(folder))
    if not found:
        return ""
    return (
        f"the project is in {str(folder)!r}; its path should have no {found[0]!r}, at which Spark and MariaDB part it:"
        " move it, or 'make up' runs everything in containers"
    )


if __name__ == "__main__":
    if problem := folder_problem():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
