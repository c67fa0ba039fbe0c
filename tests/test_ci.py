"""The workflow that a host runs: GitHub's own words, held to by actionlint."""

import shutil
import subprocess
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tickledger.settings import PROJECT_ROOT

ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
WORKFLOW = PROJECT_ROOT / ".github" / "workflows" / "ci.yml"


@pytest.mark.slow
def test_actionlint_finds_nothing() -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: actionlint is a Go module")
    there = subprocess.run([go, "run", ACTIONLINT, "-version"], capture_output=True, text=True, timeout=500)
    if there.returncode != 0:
        pytest.skip(f"actionlint is not to be had here: {there.stderr.strip().splitlines()[-1]}")
    done = subprocess.run(
        [go, "run", ACTIONLINT, "-no-color", str(WORKFLOW)], capture_output=True, text=True, cwd=PROJECT_ROOT
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_workflow_runs_what_ci_is() -> None:
    workflow = yaml.safe_load(WORKFLOW.read_text())
    # YAML's `on` is true.
    assert {"push", "pull_request"} <= workflow[True].keys()
    steps = workflow["jobs"]["ci"]["steps"]
    assert ".ci/run" in [step.get("run") for step in steps]
    version = next(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert version == "3.11"


def test_the_other_pythons_that_the_project_takes_have_a_job_of_their_own() -> None:
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["other-pythons"]
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    taken = [minor for minor in range(11, 20) if f"3.{minor}.0" in SpecifierSet(project["requires-python"])]
    assert ["3.11", *job["strategy"]["matrix"]["python"]] == [f"3.{minor}" for minor in taken]
    assert job["steps"][-1]["run"] == ".ci/other-python"
