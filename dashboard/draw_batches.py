"""The part of the page for the ledger: the newest batches, one batch in detail, and what could not land."""

from typing import Literal

import pandas as pd
import streamlit as st

from dashboard import charts, looks, queries
from dashboard.drawing import as_cell, as_text, clock, count_column, draw, drawn_once, explain, is_dark, rows_of
from dashboard.readings import Reading
from dashboard.sources import CASSANDRA, MYSQL, Sources
from tickledger.counted import counted
from tickledger.ledger import range_in_words
from tickledger.plain_text import plain

SAMPLES = 4
TABLE_PIXELS = 320
#: A shade behind a verdict's word, under which the word stays legible.
_SHADES = {word: f"background-color: {colour}40" for word, colour, _ in looks.VERDICTS.values()}


def draw_batches(sources: Sources) -> None:
    """The newest batches over time, with their verdicts."""
    st.subheader("Newest batches", anchor=False)
    nothing = "No batch has landed yet. Start the stream: `SPARK_CONF_DIR=. spark-submit streaming/stream_ticks.py`"
    newest = _newest(sources)
    if rows_of(newest, MYSQL, nothing) is not None:
        _draw_newest(newest, is_dark())
        _draw_given_up(sources)


@drawn_once
def _draw_newest(newest: Reading, dark: bool) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        draw(charts.batches_chart(newest.frame), "batches", dark=dark)
    with right:
        _draw_table(newest.frame)


def _draw_given_up(sources: Sources) -> None:
    """The messages that somebody gave up as lost before they landed."""
    reading = sources.readings.get(MYSQL, "given up", lambda: queries.newest_given_up(sources.mysql))
    if reading.frame is None or reading.frame.empty:
        return
    for lost in reading.frame.to_dict("records"):
        what = range_in_words(lost["from_offset"], lost["until_offset"], lost["topic_offset"])
        st.warning(
            f"Given up after batch {lost['batch_id']:,}, {lost['skipped_at']:%d %B %Y}, {clock(lost['skipped_at'])}:"
            f" partition {lost['kafka_partition']}, {what}. {as_text(lost['reason'])}",
            icon=":material/report:",
        )


def _newest(sources: Sources) -> Reading:
    return sources.readings.get(MYSQL, "batches", lambda: queries.newest_batches(sources.mysql))


def _draw_table(batches: pd.DataFrame) -> None:
    columns = [
        "batch_id",
        "verdict",
        "landed_at",
        "ticks_landed",
        "dead_letters",
        "duplicates",
        "landing_seconds",
        "messages_behind",
    ]
    shown = batches[columns].assign(verdict=[as_cell(_word(verdict)) for verdict in batches.verdict])
    st.dataframe(
        shown.style.map(lambda word: _SHADES.get(str(word), ""), subset=["verdict"]),
        hide_index=True,
        height=TABLE_PIXELS,
        column_config={
            "batch_id": count_column("Batch", 62),
            "verdict": st.column_config.TextColumn("Verdict", width=96),
            "landed_at": st.column_config.DatetimeColumn("Landed (UTC)", format="HH:mm:ss", timezone="UTC", width=92),
            "ticks_landed": count_column("Ticks", 60),
            "dead_letters": count_column("Dead", 52),
            "duplicates": count_column("Dupl.", 52),
            "landing_seconds": st.column_config.NumberColumn("Took (s)", format="%.2f", width=64),
            "messages_behind": count_column("Behind", 62),
        },
    )


def draw_batch(sources: Sources) -> None:
    """One batch: its counts, its offsets and what its checks found."""
    st.subheader("A batch", anchor=False)
    chosen = st.number_input(
        "Number of the batch", min_value=1, step=1, value=None, key="batch", width=320,
        placeholder="the newest with a finding",
    )  # fmt: skip
    batch_id = chosen or _interesting(sources)
    if batch_id is None:
        st.info("No batch has landed yet.")
        return
    reading = sources.readings.get(MYSQL, ("batch", batch_id), lambda: queries.batch(sources.mysql, batch_id))
    if rows_of(reading, MYSQL, f"Batch {batch_id:,} has not landed.") is None:
        return
    offsets = sources.readings.get(MYSQL, ("offsets", batch_id), lambda: queries.batch_offsets(sources.mysql, batch_id))
    findings = sources.readings.get(
        MYSQL, ("findings", batch_id), lambda: queries.batch_findings(sources.mysql, batch_id)
    )
    _draw_one(reading, offsets, findings)


@drawn_once
def _draw_one(batch: Reading, offsets: Reading, findings: Reading) -> None:
    _draw_counts(batch.frame.iloc[0])
    if offsets.frame is not None:
        _draw_offsets(offsets.frame)
    if findings.frame is not None:
        _draw_findings(findings.frame, batch.frame.verdict.iloc[0])


def _interesting(sources: Sources) -> int | None:
    """The batch that is shown if the viewer has chosen none."""
    found = sources.readings.get(MYSQL, "finding", lambda: queries.newest_batch_with_findings(sources.mysql))
    newest = _newest(sources)
    for reading in (found, newest):
        if reading.frame is not None and not reading.frame.empty:
            return int(reading.frame.batch_id.iloc[0])
    return None


def _draw_counts(batch: pd.Series) -> None:
    checked = "not checked yet" if pd.isna(batch.checked_at) else f"checked at {clock(batch.checked_at)}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**Batch {batch.batch_id:,}**", width="content")
        st.badge(as_text(_word(batch.verdict)), color=_BADGES.get(batch.verdict, "gray"))
    st.caption(
        f"Landed {batch.landed_at:%d %B %Y}, {clock(batch.landed_at)}, in {batch.landing_seconds:.2f} s · {checked} · "
        f"{counted(batch.messages, 'message')} · volume {counted(int(batch.volume), 'share')}"
    )
    if phases := _phases(batch):
        st.caption(phases)
    st.markdown(
        f"{counted(batch.ticks_read, 'tick')} read = **{batch.ticks_landed:,} landed**"
        + (f" + {counted(batch.corrections, 'correction')}" if batch.corrections else "")
        + f" + {counted(batch.dead_letters, 'dead letter')}"
        f" + {counted(batch.duplicates, 'duplicate')}; {batch.late_ticks:,} of the landed ones late"
    )


def _phases(batch: pd.Series) -> str:
    """How long each phase of a batch took, and what was left to land; what the ledger does not know is left out."""
    seconds = {
        name: batch[f"{phase}_seconds"]
        for name, phase in (("waited", "waiting"), ("Spark job", "job"), ("commit", "commit"), ("check", "check"))
    }
    parts = [f"{name} {float(took):.2f} s" for name, took in seconds.items() if not pd.isna(took)]
    if not pd.isna(batch.messages_behind):
        parts.append(f"{counted(int(batch.messages_behind), 'message')} behind")
    return " · ".join(parts)


_BADGES: dict[str, Literal["green", "yellow", "red"]] = {"passed": "green", "warned": "yellow", "failed": "red"}


def _draw_offsets(offsets: pd.DataFrame) -> None:
    ranges = [
        f"partition {row.kafka_partition}: {row.from_offset:,} up to {row.until_offset:,}"
        for row in offsets.itertuples()
    ]
    if ranges:
        st.caption("Kafka offsets · " + " · ".join(ranges))


def _draw_findings(findings: pd.DataFrame, verdict: str) -> None:
    if findings.empty and verdict == "passed":
        st.success("Every expectation held.", icon=":material/check:")
    elif findings.empty:
        st.info("No finding is kept of this batch." if verdict in _BADGES else "Its checks have not run yet.")
    for finding in findings.itertuples():
        with st.container(border=True, gap="small"):
            st.markdown(f"**{as_text(finding.expectation)}** · {as_text(finding.severity)}")
            st.caption("observed")
            st.code(plain(finding.observed), language=None, wrap_lines=True)
            st.caption("expected")
            st.code(plain(finding.expected), language=None, wrap_lines=True)


def draw_dead_letters(sources: Sources) -> None:
    """What could not land, by reason, with the beginnings of some raw values as they came."""
    st.subheader("Dead letters", anchor=False)
    ranges = sources.readings.get(MYSQL, "dead ranges", lambda: queries.ranges_with_dead_letters(sources.mysql))
    spans = rows_of(ranges, MYSQL, "Every tick so far was fit to land.")
    if spans is None:
        return
    reading = sources.readings.get(
        CASSANDRA, "dead letters", lambda: queries.dead_letters(sources.cassandra, sources.topic, spans)
    )
    explain(reading, CASSANDRA, why=False)
    if reading.frame is None or reading.frame.empty:
        return
    _draw_reasons(reading, is_dark())
    _draw_samples(sources, reading.frame)


@drawn_once
def _draw_reasons(letters: Reading, dark: bool) -> None:
    draw(charts.reasons_chart(letters.frame, dark=dark), "reasons", dark=dark)
    st.caption(f"In the newest {queries.BATCHES_WITH_DEAD_LETTERS} batches that had any.")


def _draw_samples(sources: Sources, letters: pd.DataFrame) -> None:
    reasons = letters.reason.value_counts().index.tolist()
    reason = st.selectbox("Samples of", reasons, key="reason", width=320, format_func=plain)
    some = letters[letters.reason == reason].head(SAMPLES)
    keys = tuple(some[["kafka_partition", "kafka_offset", "position"]].itertuples(index=False, name=None))
    reading = sources.readings.get(
        CASSANDRA, ("raw values", keys), lambda: queries.raw_values(sources.cassandra, sources.topic, some)
    )
    if reading.frame is None:
        return
    for letter in some.merge(reading.frame, on=["kafka_partition", "kafka_offset", "position"]).itertuples():
        element = "whole message" if letter.position < 0 else f"element {letter.position}"
        place = f"partition {letter.kafka_partition}, offset {letter.kafka_offset:,}, {element}"
        st.caption(" · ".join(filter(None, [as_text(letter.detail) if letter.detail else "", place])))
        st.code(plain(letter.raw_value), language=None, wrap_lines=True)


def _word(verdict: str) -> str:
    return looks.VERDICTS.get(verdict, (verdict,))[0]
