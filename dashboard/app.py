"""The page: its layout, and the pace of its parts. Run it with `streamlit run dashboard/app.py`.

Each part asks its own question and survives its store: while that is down the part says so, shows the last good
data with their time, and comes back by itself.
"""

import streamlit as st

from dashboard.draw_batches import draw_batch, draw_batches, draw_dead_letters
from dashboard.draw_history import draw_history
from dashboard.draw_prices import draw_companies, draw_prices
from dashboard.draw_today import draw_average, draw_today, draw_volumes
from dashboard.drawing import as_text, let_it_paint
from dashboard.sources import page_settings, sources_of
from tickledger.errors import ConfigurationError

TITLE = "tickledger"
#: Between two refreshes of what is about whole days.
CALM_SECONDS = 20


def page() -> None:
    """Draw the page once; from then on its parts refresh themselves, unless the viewer pauses them."""
    st.set_page_config(page_title=TITLE, page_icon="📈", layout="wide")
    try:
        settings = page_settings()
    except ConfigurationError as error:
        st.title(TITLE)
        st.error(f"The settings do not hold. {as_text(error)}", icon=":material/settings_alert:")
        st.caption("Fix the setting and reload this page.")
        return
    sources = sources_of(settings)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title(TITLE, width="content", anchor=False)
        live = st.toggle("Refresh by itself", value=True, key="live", width="content")
    alive = st.fragment(run_every=settings.dashboard_refresh_seconds if live else None)
    calm = st.fragment(run_every=CALM_SECONDS if live else None)

    alive(draw_today)(sources)
    let_it_paint()
    left, right = st.columns([7, 5], gap="medium")
    with left:
        alive(draw_volumes)(sources)
    with right:
        calm(draw_average)(sources)
    let_it_paint(last=True)
    alive(draw_prices)(sources)
    alive(draw_companies)(sources)
    alive(draw_batches)(sources)
    left, right = st.columns(2, gap="medium")
    with left:
        alive(draw_batch)(sources)
    with right:
        alive(draw_dead_letters)(sources)
    calm(draw_history)(sources)


if __name__ == "__main__":
    page()
