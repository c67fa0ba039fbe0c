"""A page that shows each hostile value in each place in which dashboard/ shows one: `streamlit run` it."""

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.charts import Chart
from dashboard.drawing import as_cell, as_text, draw
from tests.support.hostile import HOSTILE
from tickledger.plain_text import plain

for value in HOSTILE.values():
    text = as_text(value)
    st.markdown(f"**{text}** · {text}")
    st.caption(f"{text} · element 1")
    st.metric(as_text(f"ARKA.JK · {value}"), "1")
    st.warning(f"Given up: {text}", icon=":material/report:")
    st.badge(text)
    st.code(plain(value), language=None, wrap_lines=True)
st.selectbox("Samples of", list(HOSTILE.values()), format_func=plain)
st.multiselect("Tickers", list(HOSTILE.values()), default=list(HOSTILE.values()), format_func=plain)
st.dataframe(pd.DataFrame({"ticker": [as_cell(value) for value in HOSTILE.values()]}), hide_index=True)
bars = alt.Chart().mark_bar().encode(y="sector:N", x="total_volume:Q")
rows = pd.DataFrame({"sector": list(HOSTILE.values()), "total_volume": 1})
draw(Chart(alt.LayerChart(layer=[bars]).to_json(), rows), "chart", dark=False)
st.markdown("all is shown")
