"""What fixes something is named as it is typed: on a machine, and in a container, where there is no make."""

import os
import subprocess
import sys

import pytest

from tickledger import here
from tickledger.settings import PROJECT_ROOT

NAMES = [name for name in vars(here) if name.isupper() and name != "IN_CONTAINER"]


def hints(**environment: str) -> dict[str, str]:
    program = f"from tickledger import here; print(*({', '.join(f'here.{name}' for name in NAMES)}), sep='\\n')"
    clean = {name: value for name, value in os.environ.items() if name != "TICKLEDGER_IN_CONTAINER"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT_ROOT, env=clean | environment, capture_output=True, text=True
    )
    return dict(zip(NAMES, done.stdout.split("\n")[:-1], strict=True))


@pytest.mark.parametrize("in_container", [False, True])
def test_each_hint_can_be_typed_where_it_is_shown(in_container: bool) -> None:
    shown = hints(TICKLEDGER_IN_CONTAINER="1") if in_container else hints()
    prefix = shown.pop("RUN")
    assert prefix == ("docker compose run --rm tools " if in_container else "")
    assert len(shown) >= 4
    assert {hint.startswith("docker compose ") for hint in shown.values()} == {in_container}


def test_the_image_says_that_it_is_one() -> None:
    assert "TICKLEDGER_IN_CONTAINER=1" in (PROJECT_ROOT / "Dockerfile").read_text()
