"""docs/performance.md and its plots, made anew from the newest recorded runs in docs/performance.json."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import psutil

from benchmarks.engines import ENGINES, Result
from tickledger.settings import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
FACTS, PAGE = DOCS / "performance.json", DOCS / "performance.md"
_COLUMNS = {
    "warm": "ticks/s warm",
    "whole": "ticks/s with start-up",
    "first_batch_seconds": "first batch (s)",
    "engine_cpu": "engine CPU (s)",
    "stores_cpu": "stores CPU (s)",
    "cores_busy": "cores busy",
    "peak_megabytes": "peak memory (MB)",
}


def uncounted(results: Iterable[Result]) -> list[str]:
    """The engines of which no run counts: a run with one of them cannot be recorded."""
    problems: dict[str, list[str]] = {}
    for result in results:
        problems.setdefault(result.engine, []).append(result.problem)
    return [engine for engine, found in problems.items() if all(found)]


def record_engines(results: list[Result], ticks: int, batch: int) -> None:
    """Keep a run of the engines, in place of the one before, and write the page anew."""
    rows = [result.as_dict() for result in results]
    _record("engines", {"ticks": ticks, "batch": batch, "runs": rows})
    counted = pd.DataFrame([row for row in rows if not row["problem"]])
    counted["title"] = [ENGINES[name].title for name in counted.engine]
    _save(engines_chart(counted), "performance-engines")


def record_backlog(results: list[Result], ticks: int, batch: int) -> None:
    """Keep a run of a few engines, ours with checks on and off among them, in place of the one before."""
    _record("backlog", {"ticks": ticks, "batch": batch, "runs": [result.as_dict() for result in results]})


def record_memory(samples: pd.DataFrame) -> None:
    """Keep a run of the memory, in place of the one before: see :func:`benchmarks.growth.memory`."""
    _record("memory", {"samples": samples.round(2).to_dict("list")} | slopes(samples))
    _save(memory_chart(samples), "performance-memory")


def record_latency(rows: pd.DataFrame, seconds: int) -> None:
    """Keep a run of the latency, in place of the one before: see :func:`benchmarks.latency.rows_of`."""
    _record("latency", {"seconds": seconds, "rows": rows.round(4).to_dict("records")})
    _save(latency_chart(rows[rows.problem == ""]), "performance-latency")


def record_growth(part: str, rows: pd.DataFrame, faster: list[str], **facts: int) -> None:
    """Keep a table of `make bench-growth`, in place of the one before; `faster` is what outgrew its work."""
    plain = rows.round(4).replace(float("inf"), None).to_dict("list")
    _record(part, {"rows": plain, "faster": faster} | facts)


def record_producer(runs: pd.DataFrame, messages: int) -> None:
    """Keep a run of the producers, in place of the one before: see :func:`benchmarks.producer.measure`."""
    _record("producer", {"messages": messages, "runs": runs.round(1).to_dict("records")})


def slopes(samples: pd.DataFrame) -> dict[str, float]:
    """MB a hundred batches by which each process grows after warm-up, a straight line through its samples."""
    warm = samples[samples.batch > samples.batch.max() * WARM_UP]
    return {f"{name}_mb_per_100_batches": round(100 * _slope(warm.batch, warm[name]), 3) for name in PROCESSES}


#: The engines that differ by the checks alone.
CHECKS_ON_AND_OFF = ("ours", "ours-unchecked")
#: What :func:`benchmarks.growth.memory` looks at, for people.
PROCESSES = {"driver": "driver, which lands", "checks": "what it starts for the checks", "workers": "Python workers"}
#: The share of the batches that counts as warm-up.
WARM_UP = 0.2


def _slope(x: "pd.Series[Any]", y: "pd.Series[Any]") -> float:
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def _record(part: str, facts: dict[str, Any]) -> None:
    known = json.loads(FACTS.read_text(encoding="utf-8")) if FACTS.exists() else {}
    known[part] = {"at": datetime.now(UTC).isoformat(timespec="minutes"), "machine": machine()} | facts
    FACTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    write_page(known)


def machine() -> str:
    """The machine and the versions, for people."""
    gigabytes = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "cassandra-driver", "confluent-kafka"))
    return f"{os.cpu_count()} cores, {gigabytes:.0f} GiB, Python {platform.python_version()}, {packages}"


def write_page(known: dict[str, Any]) -> None:
    """Put the tables between the page's marks; the words around them stay."""
    text = PAGE.read_text(encoding="utf-8")
    for part, lines in _PARTS.items():
        if part in known:
            begin, end = f"<!-- {part}: written by make bench -->", f"<!-- end of {part} -->"
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n\n" + "\n".join(lines(known[part])) + f"\n\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, encoding="utf-8")


def _origin(facts: dict[str, Any]) -> str:
    return f"{facts['at'][:16].replace('T', ' ')} UTC · {facts['machine']}"


def _engine_lines(facts: dict[str, Any]) -> Iterable[str]:
    yield from _side_by_side(facts, list(_COLUMNS))
    spread = [f"{ENGINES[name].title} {_spread(facts['runs'], name)}" for name in _engines_of(facts)]
    yield f"Spread of the warm figures, lowest to highest: {'; '.join(spread)}."
    yield ""
    yield "![Ticks a second by engine](performance-engines.svg)"


def _backlog_lines(facts: dict[str, Any]) -> Iterable[str]:
    columns = ["warm", "whole", "first_batch_seconds", "engine_cpu", "stores_cpu", "cores_busy"]
    yield from _side_by_side(facts, columns, spread=True)
    yield checks_cost(facts["runs"])


def _engines_of(facts: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["engine"] for run in facts["runs"]))


def _side_by_side(facts: dict[str, Any], columns: list[str], *, spread: bool = False) -> Iterable[str]:
    """What ran, a row an engine, and ours beside each other one. `spread`: with a column for the warm figures."""
    yield f"{_origin(facts)} ·"
    yield f"{facts['ticks']:,} ticks in messages of ten, about {facts['batch']:,} ticks a batch; medians of the rounds."
    yield ""
    headings = ["rounds", *(_COLUMNS[column] for column in columns), *["warm, lowest to highest"] * spread]
    yield f"| engine | {' | '.join(headings)} |"
    yield f"|---|{'---:|' * len(headings)}"
    medians = {name: _medians(facts["runs"], name) for name in _engines_of(facts)}
    for name, one in medians.items():
        cells = [str(len(_counting(facts["runs"], name))), *(_figure(one[column]) for column in columns)]
        cells += [_spread(facts["runs"], name)] * spread
        yield f"| {ENGINES[name].title} | {' | '.join(cells)} |"
    yield ""
    yield "| ratio of medians in this run | warm | with start-up |"
    yield "|---|---:|---:|"
    for name, other in medians.items():
        if name != "ours" and "ours" in medians:
            ours = medians["ours"]
            ratios = [f"{ours[kind] / other[kind]:.2f}" for kind in ("warm", "whole")]
            yield f"| tickledger, checks on : {ENGINES[name].title} | {' | '.join(ratios)} |"
    yield ""


def checks_cost(runs: Sequence[dict[str, Any]]) -> str:
    """How much longer a batch takes with checks on, and how much later the last verdict comes, in words.

    Empty where a run of either kind is missing. Of each run the mean from its first batch to its last counts.
    """
    seconds = [_figures(runs, engine, "batch_seconds") for engine in CHECKS_ON_AND_OFF]
    if not all(seconds):
        return ""
    on, off = map(statistics.median, seconds)
    late = statistics.median(_figures(runs, CHECKS_ON_AND_OFF[0], "verdict_seconds"))
    return (
        f"A batch takes {on:.2f} s with checks on and {off:.2f} s off: {100 * (on / off - 1):+.1f} %."
        f" The last verdict comes {late:.1f} s after the last batch."
    )


def _counting(runs: Iterable[dict[str, Any]], engine: str) -> list[dict[str, Any]]:
    return [run for run in runs if run["engine"] == engine and not run["problem"]]


def _figures(runs: Iterable[dict[str, Any]], engine: str, figure: str) -> list[float]:
    return [run[figure] for run in _counting(runs, engine)]


def _medians(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    mine = [run | {"cores_busy": cores_busy(run)} for run in _counting(runs, name)]
    return {column: statistics.median(run[column] for run in mine) for column in _COLUMNS}


def cores_busy(run: dict[str, Any]) -> float:
    """Seconds of CPU of engine and stores together, by second of the run."""
    return float((run["engine_cpu"] + run["stores_cpu"]) / run["seconds"])


def _spread(runs: list[dict[str, Any]], name: str) -> str:
    warm = _figures(runs, name, "warm")
    return f"{min(warm):,.0f} to {max(warm):,.0f}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _memory_lines(facts: dict[str, Any]) -> Iterable[str]:
    batches = max(facts["samples"]["batch"])
    yield f"{_origin(facts)} · {batches:,} batches, each checked."
    yield ""
    yield "| process | MB a hundred batches, after warm-up |"
    yield "|---|---:|"
    for name, title in PROCESSES.items():
        yield f"| {title} | {facts[f'{name}_mb_per_100_batches']:.2f} |"
    yield ""
    yield "![Resident memory by batch](performance-memory.svg)"


def _latency_lines(facts: dict[str, Any]) -> Iterable[str]:
    rows = pd.DataFrame(facts["rows"])
    stages = list(dict.fromkeys(rows.stage))
    yield f"{_origin(facts)} · {facts['seconds']} s a pace; p50 / p95 / p99 in seconds."
    yield f"Of 100 looks at a store, 95 came within {rows.look.max():.2f} s: a figure may be too long by so much."
    yield ""
    yield f"| trigger (s) | ticks/s | achieved | {' | '.join(stages)} |"
    yield f"|---:|---:|---:|{'---:|' * len(stages)}"
    for (trigger, rate), one in rows.groupby(["trigger", "rate"]):
        figures = [f"{row.p50:.2f} / {row.p95:.2f} / {row.p99:.2f}" for row in one.itertuples()]
        problem = next((text for text in one.problem if text), "")
        cells = [f"does not count: {problem}"] * len(stages) if problem else figures
        yield f"| {trigger:g} | {rate:,} | {one.achieved.iloc[0]:,.0f} | {' | '.join(cells)} |"
    yield ""
    yield "![Seconds from send to each stage](performance-latency.svg)"


def _producer_lines(facts: dict[str, Any]) -> Iterable[str]:
    runs = pd.DataFrame(facts["runs"])
    paces = runs.groupby("way", sort=False).pace
    slowest = paces.median().min()
    rounds = runs["round"].max()
    yield f"{_origin(facts)} · {facts['messages']:,} messages of ten ticks a run; medians of {rounds} rounds."
    yield ""
    yield "| way | messages/s | lowest to highest | times the slowest |"
    yield "|---|---:|---:|---:|"
    for way, pace in paces:
        middle = pace.median()
        yield f"| {way} | {middle:,.0f} | {pace.min():,.0f} to {pace.max():,.0f} | {middle / slowest:.1f} |"


def _growth_lines(facts: dict[str, Any]) -> Iterable[str]:
    batch = f" · {facts['batch']:,} ticks a batch" if "batch" in facts else ""
    yield f"{_origin(facts)}{batch}; seconds."
    yield ""
    columns = list(facts["rows"])
    yield f"| {' | '.join(columns)} |"
    yield f"|---|{'---:|' * (len(columns) - 1)}"
    for cells in zip(*facts["rows"].values(), strict=True):
        yield f"| {' | '.join(_cell(cell) for cell in cells)} |"
    yield ""
    yield f"Grew faster than its work: {'; '.join(facts['faster']) or 'nothing'}."


def _cell(value: Any) -> str:
    if value is None:
        return "no answer in time"
    return f"{value:,.3f}" if isinstance(value, float) and value < 100 else _whole(value)


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}"


def latency_chart(rows: pd.DataFrame) -> alt.FacetChart:
    """Seconds from send to each stage, by pace and trigger: a line from p50 to p99, a dot at p95."""
    base = alt.Chart().encode(
        x=alt.X("rate:O", title="Ticks a second", axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("stage:N", sort=list(dict.fromkeys(rows.stage))),
        color=alt.Color("stage:N", title=None, sort=list(dict.fromkeys(rows.stage))),
    )
    span = base.mark_rule(strokeWidth=3, opacity=0.5).encode(y=alt.Y("p50:Q", title="Seconds, p50 to p99"), y2="p99:Q")
    dots = base.mark_circle(size=70, opacity=1).encode(y="p95:Q")
    layers = alt.LayerChart(layer=[span, dots]).properties(width=210, height=260)
    return layers.facet(column=alt.Column("trigger:O", title="Trigger (s)"), data=rows)


def engines_chart(runs: pd.DataFrame) -> alt.LayerChart:
    """Ticks a second of each engine, warm and with start-up: a dot a round, a line at the median.

    Logarithmic, as the slowest and the fastest are hundreds of times apart: equal ratios are equally far.
    """
    long = runs.melt(id_vars=["title"], value_vars=["warm", "whole"], var_name="kind", value_name="pace")
    long["kind"] = long.kind.map({"warm": "warm", "whole": "with start-up"})
    base = alt.Chart(long).encode(
        y=alt.Y("title:N", title=None, sort=[ENGINES[name].title for name in ENGINES], axis=alt.Axis(labelLimit=220)),
        x=alt.X(
            "pace:Q",
            title="Ticks a second, logarithmic",
            axis=alt.Axis(format=",.0f", values=[1_000, 10_000, 20_000, 50_000, 100_000, 500_000]),
            scale=alt.Scale(type="log"),
        ),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=["warm", "with start-up"])),
        yOffset="kind:N",
    )
    dots = base.mark_circle(size=60, opacity=0.55)
    medians = base.mark_tick(thickness=3, size=14).encode(x="median(pace):Q")
    return alt.LayerChart(layer=[dots, medians]).properties(width=560, height=alt.Step(22))


def memory_chart(samples: pd.DataFrame) -> alt.Chart:
    """Resident memory by batch, a line a process."""
    long = samples.melt(id_vars=["batch"], value_vars=list(PROCESSES), var_name="process", value_name="mb")
    return (
        alt.Chart(long)
        .mark_line()
        .encode(
            x=alt.X("batch:Q", title="Batches landed and checked"),
            y=alt.Y("mb:Q", title="Resident memory (MB)", scale=alt.Scale(zero=True)),
            color=alt.Color("process:N", title=None),
        )
        .properties(width=560, height=260)
    )


def _save(chart: Any, name: str) -> Path:
    path = DOCS / f"{name}.svg"
    chart.configure(background="white").save(str(path))
    return path


#: The parts of the page that are written, by the name in their marks.
_PARTS: dict[str, Callable[[dict[str, Any]], Iterable[str]]] = {
    "engines": _engine_lines,
    "backlog": _backlog_lines,
    "latency": _latency_lines,
    "producer": _producer_lines,
    "batches": _growth_lines,
    "days": _growth_lines,
    "ticks": _growth_lines,
    "tickers": _growth_lines,
    "memory": _memory_lines,
}
