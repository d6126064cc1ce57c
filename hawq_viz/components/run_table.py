"""The table of all runs: which to list, and which one or two to look at."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import streamlit as st

from engine import jobs
from hawq_viz import state
from hawq_viz.components.runs import SECONDS_A_TICK
from hawq_viz.view import MOST_LETTERS
from hawq_viz.viewmodels import run_table, runs
from hawq_viz.viewmodels.run_table import KINDS, STATES, Filter

ROW = 35  # pixels
MOST_ROWS = 6  # seen at once
PICKED, MOUNTED = "_picked_rows", "_mounted"  # what the table shows as picked; how often it was new
CONFIG: dict[str, Any] = {
    "run": st.column_config.TextColumn(width=190),
    "measured (%)": st.column_config.NumberColumn(format="%.1f", width=98),
    "size (KiB)": st.column_config.NumberColumn(format="%.1f"),
    "Ω": st.column_config.NumberColumn(format="%.3g"),
    "loss": st.column_config.NumberColumn(format="%.4f"),
    "made": st.column_config.DatetimeColumn(format="D MMM HH:mm"),
    "minutes": st.column_config.NumberColumn(format="%.1f"),
}


def filters(everything: Sequence[jobs.RunView]) -> list[jobs.RunView]:
    """The inputs that say which runs to list; those runs, newest first."""
    find, network, kind, which, clear = st.columns([3, 2.6, 2, 2, 1.3], vertical_alignment="bottom")
    known = {run.workload: run.workload for run in everything}
    chosen = _filter(known)
    st.session_state["runs_find"] = chosen.find
    find.text_input(
        "Search",
        key="runs_find",
        placeholder="title, remark, bits, seed …",
        max_chars=MOST_LETTERS,
        on_change=lambda: state.change(find=st.session_state["runs_find"].strip()),
    )
    with network:
        _choice("network", "Network", "all networks", known)
    with kind:
        _choice("kind", "Kind", "all kinds", KINDS)
    with which:
        _choice("state", "State", "all states", {name: name for name in STATES})
    clear.button(
        "Clear",
        help="List all runs again",
        width="stretch",
        disabled=not chosen,
        key="runs_clear",
        on_click=lambda: state.change(**asdict(Filter())),
    )
    return chosen.of(everything)


def _filter(known: Mapping[str, str]) -> Filter:
    """Which runs the view lists; a network without runs is passed over."""
    view = state.current()
    return Filter(view.network if view.network in known else "", view.kind, view.state, view.find)


def _choice(field: str, label: str, everything: str, known: Mapping[str, str]) -> None:
    """A field of the filter: all, or one of those known."""
    key, asked = f"runs_{field}", getattr(state.current(), field)
    st.session_state[key] = asked if asked in known else ""
    st.selectbox(
        label,
        ["", *known],
        key=key,
        format_func=lambda name: known.get(name, everything),
        on_change=lambda: state.change(**{field: st.session_state[key]}),
    )


def table(listed: Sequence[jobs.RunView], picked: Sequence[str]) -> None:
    """The listed runs, sorted by a click on a column; one or two picked by their boxes.

    Args:
        listed: Newest first.
        picked: Ids of at most two; one that is not listed has no row.
    """
    ids = [run.id for run in listed]
    seen = tuple(one for one in picked if one in ids)
    if st.session_state.get(PICKED) != seen:  # picked elsewhere: only a new table shows that
        st.session_state[MOUNTED] = st.session_state.get(MOUNTED, 0) + 1
        st.session_state[PICKED] = seen
    digest = hashlib.sha256(" ".join(ids).encode()).hexdigest()[:12]
    key = f"runs_{st.session_state[MOUNTED]}_{digest}"
    st.dataframe(
        run_table.run_table(listed),
        key=key,
        hide_index=True,
        width="stretch",
        height=ROW * (min(len(listed), MOST_ROWS) + 1) + 3,
        column_config=CONFIG,
        placeholder="",
        on_select=lambda: _pick(key, ids, seen),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [ids.index(one) for one in seen]}},
        alt="All listed runs; the lists below pick them from the keyboard",
    )
    _keep_fresh([run for run in listed if run.state in runs.LIVE])


def _keep_fresh(live: Sequence[jobs.RunView]) -> None:
    """Run the page anew when a live run's row would read otherwise; the table stays in place."""
    told = [_told(run) for run in live]

    def look() -> None:
        try:
            now = [_told(jobs.view(run.id)) for run in live]
        except ValueError:  # deleted from another tab
            st.rerun()
        if now != told:
            st.rerun()

    if live:
        st.fragment(look, run_every=SECONDS_A_TICK)()


def picked_runs(everything: Sequence[jobs.RunView]) -> list[jobs.RunView]:
    """The run, or the two, of the view; a warning for one that is not here."""
    view = state.current()
    known = {run.id: run for run in everything}
    asked = view.compared or tuple(filter(None, (view.run,)))
    for missing in (one for one in asked if one not in known):
        st.warning(f"The run {missing} is not here any more: pick another.")
    return [known[one] for one in asked if one in known]


def _told(run: jobs.RunView) -> tuple[str, int]:
    """What of a run the table shows that may change."""
    return run_table.state_in_short(run), len(run.results)


def _pick(key: str, ids: Sequence[str], before: Sequence[str]) -> None:
    """Take over which rows are picked; of three, the first stays and the newest comes."""
    rows = [ids[row] for row in st.session_state[key]["selection"]["rows"] if row < len(ids)]
    kept = [one for one in before if one in rows]
    chosen = [*kept, *(one for one in rows if one not in kept)]
    if len(chosen) > 2:
        chosen = [chosen[0], chosen[-1]]
    if len(chosen) == len(rows):
        st.session_state[PICKED] = tuple(chosen)
    look_at(*chosen)


def look_at(*run_ids: str) -> None:
    """Look at no run, at one, or at two beside each other."""
    state.change(
        run=run_ids[0] if run_ids else "", compare=",".join(run_ids) if len(run_ids) == 2 else ""
    )


def twins(listed: Sequence[jobs.RunView], shown: Sequence[jobs.RunView]) -> None:
    """The lists that pick from the keyboard what boxes in the table pick: a run, and a second."""
    offered = {run.id: run for run in (*listed, *shown)}
    ids = [run.id for run in shown]
    first, second, swap = st.columns([5, 5, 1.3], vertical_alignment="bottom")
    st.session_state["runs_first"] = ids[0] if ids else ""
    first.selectbox(
        "Run",
        ["", *offered],
        key="runs_first",
        format_func=lambda one: runs.any_name(offered[one]) if one else "none",
        on_change=lambda: look_at(
            *dict.fromkeys(filter(None, (st.session_state["runs_first"], *ids[1:])))
        ),
    )
    st.session_state["runs_second"] = ids[1] if len(ids) > 1 else ""
    second.selectbox(
        "Compare with",
        ["", *(one for one in offered if one not in ids[:1])],
        key="runs_second",
        format_func=lambda one: runs.any_name(offered[one]) if one else "nothing",
        disabled=not ids,
        on_change=lambda: look_at(*filter(None, (*ids[:1], st.session_state["runs_second"]))),
    )
    swap.button(
        "Swap",
        icon=":material/swap_horiz:",
        help="A becomes B, and B becomes A",
        width="stretch",
        disabled=len(ids) < 2,
        key="runs_swap",
        on_click=lambda: look_at(*reversed(ids)),
    )
