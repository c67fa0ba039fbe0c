"""Great Expectations' Data Docs: its suites, and how one batch fares in them, as pages to open from disk."""

import json
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from expectations.checker import CheckFailedToRun, one_line, open_project
from expectations.read_back import ReadBack
from expectations.suites import CHECKPOINT, PROJECT_FOLDER, is_asked_for
from tickledger.settings import Settings
from tickledger.stores import cassandra

if TYPE_CHECKING:
    import pandas as pd

SITE = "local_site"
#: Great Expectations writes values into its pages as they are. One letter for one: lengths stay.
_LETTERS = str.maketrans({"<": "‹", ">": "›", "&": "＆", '"': "”", "'": "’"})


def build_docs(settings: Settings, folder: Path, batch_id: int | None) -> Path:
    """Write the pages into `folder` and return the one to open. Without a batch they show the suites alone.

    The batch is read back and held against every suite; the ledger keeps the verdict that it has. Building again
    replaces the pages. Raises CheckFailedToRun, and what :meth:`ReadBack.frames` raises.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # The project's own file names no site: it is generated, and Great Expectations would write this one into it.
        project = Path(shutil.copytree(PROJECT_FOLDER, Path(scratch) / "project", ignore=_not_committed))
        _leave_out_what_nobody_asks_for(project, settings.feed_rules)
        context = open_project(project)
        try:
            context.add_data_docs_site(SITE, _site(folder))
            if batch_id is not None:
                _validate(context, settings, batch_id)
            shutil.rmtree(folder, ignore_errors=True)
            context.build_data_docs(site_names=[SITE])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckFailedToRun(f"Data Docs cannot be built in {folder}: {one_line(error)}") from error
    return folder / "index.html"


def _leave_out_what_nobody_asks_for(project: Path, feed_rules: Collection[str]) -> None:
    for path in (project / "expectations").glob("*.json"):
        suite = json.loads(path.read_text(encoding="utf-8"))
        suite["expectations"] = [one for one in suite["expectations"] if is_asked_for(one["meta"]["name"], feed_rules)]
        path.write_text(json.dumps(suite), encoding="utf-8")


def _not_committed(_folder: str, names: list[str]) -> set[str]:
    return {"uncommitted"} & set(names)


def _site(folder: Path) -> dict[str, object]:
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def _validate(context: object, settings: Settings, batch_id: int) -> None:
    from great_expectations.core.run_identifier import RunIdentifier

    with cassandra(settings) as session:
        frames = ReadBack(settings, session).frames(batch_id)
    for definition in context.checkpoints.get(CHECKPOINT).validation_definitions:  # type: ignore[attr-defined]
        definition.run(
            batch_parameters={"dataframe": harmless(frames[definition.suite.name])},
            run_id=RunIdentifier(run_name=f"batch {batch_id}"),
        )


def harmless(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A copy of a frame whose texts hold no letter that HTML gives a meaning: look-alikes stand in their places."""
    import pandas as pd

    texts = {
        name: [value.translate(_LETTERS) if isinstance(value, str) else value for value in column]
        for name, column in frame.select_dtypes(["object", "string"]).items()
    }
    return frame.assign(**{str(name): pd.Series(one, frame.index, frame[name].dtype) for name, one in texts.items()})
