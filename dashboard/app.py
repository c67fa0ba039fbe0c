"""The page: its layout, and what is drawn when. Run it with `streamlit run dashboard/app.py`.

The figures of the day are drawn with every refresh, everything else when they tell of a change, and a part in which a
viewer chooses something at once. Each part asks its own question and survives its store: while that is down the part
says so, shows the last good data with their time, and comes back by itself.
"""

import streamlit as st

from dashboard.draw_batches import draw_batch, draw_batches, draw_dead_letters
from dashboard.draw_history import draw_history
from dashboard.draw_prices import draw_companies, draw_prices
from dashboard.draw_today import changed, draw_average, draw_corrections, draw_today, draw_volumes
from dashboard.drawing import as_text, let_it_paint
from dashboard.sources import page_settings, sources_of
from tickledger.errors import ConfigurationError
from tickledger.settings import Settings

TITLE = "tickledger"


def page() -> None:
    """Draw the page once; from then on it refreshes itself, unless the viewer pauses it."""
    st.set_page_config(page_title=TITLE, page_icon="📈", layout="wide")
    try:
        st.session_state.settings = page_settings()
    except ConfigurationError as error:
        # Who has the page open keeps it while somebody edits the settings.
        if "settings" not in st.session_state:
            st.title(TITLE)
            st.error(f"The settings do not hold. {as_text(error)}", icon=":material/settings_alert:")
            st.caption("Fix the setting and reload this page.")
            return
    settings: Settings = st.session_state.settings
    sources = sources_of(settings)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title(TITLE, width="content", anchor=False)
        live = st.toggle("Refresh by itself", value=True, key="live", width="content")

    drawn, is_first = changed(sources), iter([True])

    @st.fragment(run_every=settings.dashboard_refresh_seconds if live else None)
    def figures() -> None:
        """Draw the figures of the day; with a refresh the whole page, if something has changed since it was drawn."""
        if not next(is_first, False) and changed(sources) != drawn:
            st.rerun()
        draw_today(sources)

    figures()
    let_it_paint()
    left, right = st.columns([7, 5], gap="medium")
    with left:
        draw_volumes(sources)
    with right:
        draw_average(sources)
    draw_corrections(sources)
    let_it_paint(last=True)
    drawn_alone = st.fragment
    drawn_alone(draw_prices)(sources)
    draw_companies(sources)
    draw_batches(sources)
    left, right = st.columns(2, gap="medium")
    with left:
        drawn_alone(draw_batch)(sources)
    with right:
        drawn_alone(draw_dead_letters)(sources)
    drawn_alone(draw_history)(sources)


if __name__ == "__main__":
    page()
