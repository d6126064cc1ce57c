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
    """Run all of a page, and at a choice on it nothing but that.

    The sidebar and the list of pages stay as they are then, for they show nothing but the network
    and its analysis; to draw them anew takes a browser a third of the time that a click may.
    """
    shown = _around()

    def run() -> None:
        if _around() != shown:
            st.rerun()
        with in_words():
            body()

    st.fragment(run)()


def _around() -> tuple[str, str]:
    """What the sidebar shows."""
    view = state.current()
    return view.workload, view.analysis
