"""The docs against the code: commands and their options, settings and their defaults, links, modules."""

import io
import os
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from dbt.cli.main import cli as dbt
from dotenv import dotenv_values

from tickledger.settings import PROJECT_ROOT, Account, Settings

DOCS = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((PROJECT_ROOT / "docs").glob("*.md"))))
PACKAGES = ("tickledger", "commands", "streaming", "producer", "dashboard", "expectations", "services")
#: Programs that a command of the docs may begin with: ours, whose options are looked up, and others'.
OURS = ("make", "python", "tickledger", "dbt", "spark-submit", "great_expectations", "streamlit", "cd")
OTHERS = ("git", "docker", "pre-commit", "cp", "echo", "install")
#: What a command may end with here: the rest is another command, or a file that its output goes to.
SEPARATORS = {"&&", "||", "|", ";", ">", "<"}
SETTING = r"(?:CORRECTIONS|KAFKA|CASSANDRA|MYSQL|DBT_MYSQL|PRODUCER|STREAM|CHECKS|FEED|DASHBOARD)_[A-Z_]+"


def text_of(doc: str) -> str:
    return (PROJECT_ROOT / doc).read_text(encoding="utf-8")


def fences(doc: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text_of(doc), re.MULTILINE | re.DOTALL)


def prose(doc: str) -> str:
    """The document without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", text_of(doc), flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks in prose."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


# Commands


@dataclass(frozen=True)
class Command:
    """One command of the docs, as words, without the variables that are set in front of it."""

    doc: str
    words: tuple[str, ...]
    #: Options that stand alone in backticks behind the command, on the same line of the document.
    more_options: tuple[str, ...] = field(default=())

    @property
    def options(self) -> list[str]:
        # In front of its script, spark-submit's own.
        own = next((i for i, word in enumerate(self.words) if word.endswith(".py")), 0)
        words = (*(self.words[own:] if self.words[0] == "spark-submit" else self.words), *self.more_options)
        return [word.partition("=")[0] for word in words if word.startswith("--")]

    def __str__(self) -> str:
        return f"{self.doc}: {' '.join((*self.words, *self.more_options))}"


def split_commands(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line of shell, each without the assignments in front of it."""
    lexer = shlex.shlex(re.sub(r"(^|\s)#.*", "", line), posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word not in SEPARATORS and word not in ("(", ")"):
            if words or not re.fullmatch(r"\w+=.*", word):
                words.append(word)
        elif words:
            yield tuple(words)
            words = []


def commands_of(doc: str) -> Iterator[Command]:
    """Every command in the shell blocks and between the backticks of a document."""
    for language, content in fences(doc):
        if language in ("sh", "bash", "shell"):
            for line in content.replace("\\\n", " ").splitlines():
                for words in split_commands(line):
                    yield Command(doc, words)
    for line in prose(doc).splitlines():
        last: Command | None = None
        for span in spans(line):
            if span.startswith("--") and last is not None:
                last = Command(doc, last.words, (*last.more_options, *span.split()))
                yield last
            elif span.split()[0] in OURS or re.match(r"\w+=\S+ ", span):
                for words in split_commands(span):
                    last = Command(doc, words)
                    yield last


#: Commands of `tickledger` that have commands of their own.
GROUPS = ("dead-letters", "feed", "services", "produce")

COMMANDS = list(dict.fromkeys(command for doc in DOCS for command in commands_of(doc)))


def run_as_typed(*words: str) -> None:
    """Run a Python program by its path, or `python -m` its module, in this process."""
    words = words[1:] if words[0] == sys.executable else words
    with pytest.MonkeyPatch.context() as patch:
        if words[0] == "-m":
            patch.setattr(sys, "argv", list(words[1:]))
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            patch.setattr(sys, "argv", list(words))
            runpy.run_path(words[0], run_name="__main__")


@cache
def help_of(*words: str) -> str:
    """What a command prints for --help; fails if it does not know it.

    Runs in this process: dozens of interpreters would import the same modules again.
    """
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), warnings.catch_warnings():
        # Python's words for a module that is run and was imported before.
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.chdir(PROJECT_ROOT)
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            run_as_typed(*words, "--help")
    assert ended.value.code in (0, None), f"{' '.join(words)} --help"
    return printed.getvalue()


def asked_for_help(command: Command) -> tuple[str, ...]:
    """The command up to its subcommand, whose --help must name its options; empty if it is somebody else's."""
    words = command.words
    if words[:2] == ("python", "-m"):
        return sys.executable, "-m", words[2], *subcommands(words[2], words[3:])
    if words[0] == "python":
        return sys.executable, words[1]
    if words[0] == "spark-submit":
        # Options in front of the script are Spark's own.
        script = next(word for word in words if word.endswith(".py"))
        return sys.executable, script
    if words[0] == "great_expectations":
        return str(Path(sys.executable).with_name(words[0])), *words[1:3]
    if words[0] == "tickledger":
        deeper = 3 if words[1:2] and words[1] in GROUPS else 2
        return str(Path(sys.executable).with_name(words[0])), *(word for word in words[1:deeper] if word[0] != "-")
    return ()


def subcommands(module: str, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The first argument, if the module's help lists it as a command."""
    known = re.findall(r"^[ │]+([a-z][a-z-]*)  ", help_of(sys.executable, "-m", module), re.MULTILINE)
    if arguments and arguments[0] in known:
        return arguments[:1]
    # `python -m producer TOPIC` is short for its `send`.
    return ("send",) if module == "producer" else ()


def make_targets() -> dict[str, str]:
    """Target → its recipe."""
    parts = re.split(r"^([a-z][a-z-]*):", text_of("Makefile"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_docs_hold_commands() -> None:
    programs = {command.words[0] for command in COMMANDS}
    assert programs >= set(OURS) - {"python"}
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_every_command_and_option_exists(command: Command) -> None:
    program, *arguments = command.words
    if "/" in program:
        assert os.access(PROJECT_ROOT / program, os.X_OK)
        return
    assert program in (*OURS, *OTHERS), f"{program}: no test knows this program"
    if program == "make":
        targets = make_targets()
        for word in arguments:
            name, is_variable, _ = word.partition("=")
            used = "".join(targets.values()) + text_of("Makefile").partition("\n.PHONY")[0]
            assert f"$({name})" in used if is_variable else name in targets
    elif program == "dbt":
        known = dbt.commands[arguments[0]]
        names = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert names.issuperset(command.options)
    elif program == "streamlit":
        assert arguments[0] == "run"
        assert (PROJECT_ROOT / arguments[1]).is_file()
    elif program == "cd":
        assert (PROJECT_ROOT / arguments[0]).is_dir()
    elif words := asked_for_help(command):
        text = help_of(*words)
        for option in command.options:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is not in the help:\n{text}"


def test_every_make_target_says_what_it_does() -> None:
    help_lines = [recipe.splitlines()[0] for recipe in make_targets().values()]
    assert all("##" in line for line in help_lines)


# Settings


def documented_settings() -> dict[str, str]:
    """Setting → default, of the table in docs/settings.md. A row of several settings gives as many defaults."""
    found: dict[str, str] = {}
    rows = re.findall(r"^\| `.*", text_of("docs/settings.md"), re.MULTILINE)
    for cells in (row.strip("|").split("|") for row in rows):
        names = re.findall(rf"`({SETTING}|SPARK_[A-Z_]+)`", cells[0])
        if names:
            defaults = [default.strip().strip("`") for default in cells[1].split(",")]
            assert len(defaults) in (1, len(names)), f"{names} have the defaults {defaults}"
            found |= dict(zip(names, defaults * (len(names) // len(defaults)), strict=True))
    return found


def test_every_setting_is_documented_with_its_default() -> None:
    example = dotenv_values(PROJECT_ROOT / ".env.example")
    expected = {name: value or "generated" for name, value in example.items()}
    assert documented_settings() == expected


def test_every_setting_is_read() -> None:
    example = set(dotenv_values(PROJECT_ROOT / ".env.example"))
    accounts = {name for name, field in Settings.model_fields.items() if field.annotation is Account}
    settings = Settings.model_fields.keys() - accounts
    settings |= {f"{name}_{part}" for name in accounts for part in ("user", "password")}
    fields = {name.upper() for name in settings}
    assert fields <= example
    compose = PROJECT_ROOT / "docker-compose.yml"
    read_by_compose = set(re.findall(r"\$\{([A-Z_]+)", compose.read_text())) if compose.exists() else set()
    assert example - fields <= read_by_compose
    code = "".join(path.read_text() for path in python_files() if path.name != "settings.py")
    unread = {name for name in Settings.model_fields if not re.search(rf"\.{name}\b", code)}
    assert unread == set()


@pytest.mark.parametrize("doc", DOCS)
def test_no_document_names_a_setting_that_is_gone(doc: str) -> None:
    named = {span for span in spans(prose(doc)) if re.fullmatch(SETTING, span)}
    assert named <= set(dotenv_values(PROJECT_ROOT / ".env.example"))


# Files, links, modules


def python_files() -> list[Path]:
    return [PROJECT_ROOT / "demo.py", *(path for name in PACKAGES for path in (PROJECT_ROOT / name).rglob("*.py"))]


@cache
def project_files() -> frozenset[str]:
    """Every file and folder of the project, by path and by name."""
    environments = {".venv", ".venv-bytewax"}
    skipped = environments | {".git", ".services", ".scratch", ".demo", "target", "logs", "__pycache__"}
    found: set[str] = set()
    for folder, folders, files in os.walk(PROJECT_ROOT):
        folders[:] = [name for name in folders if name not in skipped and not name.endswith("_cache")]
        for name in (*folders, *files):
            found |= {name, str((Path(folder) / name).relative_to(PROJECT_ROOT))}
    return frozenset(found)


def anchors(doc: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    headings = re.findall(r"^#+ (.+)$", doc.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("doc", [*DOCS, "CHANGELOG.md"])
def test_every_link_leads_somewhere(doc: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"", text_of(doc))
    for target in (one or other for one, other in targets):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (PROJECT_ROOT / doc).parent / path if path else PROJECT_ROOT / doc
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


#: Made in the walkthrough, or by a program.
NOT_COMMITTED = {
    "dbt_project/models/marts/tick_size_today.sql",
    "dbt_project/models/marts/tick_size_today.yml",
    "ticks.csv",
}


@pytest.mark.parametrize("doc", DOCS)
def test_every_file_that_is_named_exists(doc: str) -> None:
    named = {span for span in spans(prose(doc)) if re.fullmatch(r"[\w./-]+\.(py|sql|ya?ml|md|csv|conf|toml|sh)", span)}
    trees = [content for language, content in fences(doc) if not language and "──>" not in content]
    named |= {
        name for tree in trees for name in re.findall(r"^[\s│├└─]*([\w.-]+(?:/|\.\w+))\s{2,}", tree, re.MULTILINE)
    }
    assert {name for name in named if name.rstrip("/") not in project_files()} <= NOT_COMMITTED


def test_the_architecture_names_every_folder_and_table() -> None:
    named = set(re.findall(r"^\| `(\w+)/` \| \S", text_of("docs/architecture.md"), re.MULTILINE))
    assert named == {path.relative_to(PROJECT_ROOT).parts[0] for path in python_files()} - {"demo.py"}
    # A view says all of it in its own YAML.
    models = {path.stem for path in (PROJECT_ROOT / "dbt_project" / "models" / "landed").glob("*.sql")}
    tables = set(re.findall(r"^\| MySQL \| `(\w+)` \| one row per", text_of("docs/architecture.md"), re.MULTILINE))
    assert tables == models | {path.stem for path in (PROJECT_ROOT / "dbt_project" / "seeds").glob("*.csv")}


def test_the_glossary_is_sorted() -> None:
    words = [word.lower() for word in re.findall(r"^\| (\w[^|]*?) \|", text_of("docs/glossary.md"), re.MULTILINE)[1:]]
    assert len(words) > 30
    assert [pair for pair in pairwise(words) if pair[0] > pair[1]] == []
