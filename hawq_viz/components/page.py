"""How a page runs: what goes wrong is told in words, and what stands around it stays as it is."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from hawq_viz import state


@contextmanager
def in_words() -> Iterator[None]:
    """Tell what goes wrong in a sentence, never in a traceback."""
    try:
        yield
    except ValueError as error:  # a sentence with its remedy
        st.error(str(error))
    except Exception as error:
        logging.getLogger("hawq_viz").exception("The page failed.")
        st.error(
            f"The page failed ({type(error).__name__}: {error}). The terminal has the details."
        )
    finally:
        state.ran()


def apart(body: Callable[[], None]) -> None:
    """Run this part of a page, and at a choice on it nothing else.

    The sidebar, the list of pages and the title stay as they are then, for they show nothing but
    the network, its analysis and the cost; to draw them anew takes a browser a third of the time
    that a click may.
    """
    shown = _around()

    def run() -> None:
        if _around() != shown:
            st.rerun()
        with in_words():
            body()

    st.fragment(run)()


def _around() -> tuple[str, ...]:
    """What the sidebar and the title show."""
    view = state.current()
    return view.workload, view.analysis, view.cost, view.fixed
