"""A run as a page shows it: how far it is, how it ended, and the one thing to do next."""

from collections.abc import Callable, Sequence

import streamlit as st

from engine import jobs
from hawq_viz import networks, state
from hawq_viz.view import View, encode
from hawq_viz.viewmodels import runs
from hawq_viz.viewmodels.training import finetune_options

SECONDS_A_TICK = 1.0
REFUSED = "_refused"  # where a callback leaves the sentence that a page shows


def watch(
    run_ids: Sequence[str],
    show: Callable[[list[jobs.RunView]], None],
    verdict: Callable[[list[jobs.RunView]], str] | None,
) -> None:
    """Show a run and keep it fresh while it, or one drawn over it, lives.

    The rest of the page stays still until a run changes its state or has a new result.

    Args:
        run_ids: Runs that exist, the watched one first.
        show: Draws how they go; called at every tick, and once at the end.
        verdict: What they have shown, in a sentence, once the first has finished; None if nothing
            is to be said of their states.
    """
    told = [_told(jobs.view(run_id)) for run_id in run_ids]
    live = any(state not in jobs.FINAL for state, _ in told)

    def panel() -> None:
        try:
            seen = [jobs.view(run_id) for run_id in run_ids]
        except ValueError:  # deleted from another tab
            st.rerun()
        if live and [_told(run) for run in seen] != told:
            st.rerun()  # once all have ended, the clock stops
        with st.container():  # always one element, so that charts below keep their place
            if verdict is None:
                pass
            elif seen[0].state == "finished":
                st.success(verdict(seen))
            else:
                _status(seen[0])
        show(seen)

    # A fragment even when the clock has stopped, so that its charts stay the same elements.
    st.fragment(panel, run_every=SECONDS_A_TICK if live else None)()


def _told(run: jobs.RunView) -> tuple[str, int]:
    """What of a run concerns the whole page."""
    return run.state, len(run.results)


def _status(run: jobs.RunView) -> None:
    if run.state in runs.LIVE:
        st.progress(runs.share_done(run), text=runs.progress_text(run))
    elif run.state == "cancelled":
        st.warning(runs.state_text(run))
    else:
        st.error(runs.state_text(run))
        with st.expander("The end of its log"):
            st.code(run.log_tail or "The log is empty.", language=None)


def next_button(run: jobs.RunView, *, primary: bool, key: str = "") -> None:
    """The one thing to do with a run in its state.

    Args:
        run: Any.
        primary: Whether it may stand out.
        key: Tells this button from another for the same run on the page.
    """
    action = runs.next_action(run)
    if action.name == "another":
        view = View(workload=run.workload)
        same = run.workload == state.current().workload
        shown = None if same else encode(view)
        st.page_link(
            "../pages/frontier.py", label=action.label, icon=action.icon, query_params=shown
        )
        return
    st.button(
        action.label,
        icon=action.icon,
        help=action.why,
        type="primary" if primary and action.name != "cancel" else "secondary",
        width="stretch",
        key=f"{key}{action.name}_{run.id}",
        disabled=run.cancelling,
        on_click=_do,
        args=(action.name, run),
    )


def delete_button(run: jobs.RunView) -> None:
    """Delete a run that has ended, after one more question."""
    with st.popover(
        "Delete",
        icon=":material/delete:",
        key=f"icon_delete_{run.id}",
        help="Delete this run" if run.state in jobs.FINAL else "Cancel it first, then delete it",
        disabled=run.state not in jobs.FINAL,
        width="stretch",
    ):
        st.markdown(
            f"Delete **{runs.plain(runs.run_title(run))}** with its files? This cannot be undone."
        )
        st.button(
            "Delete for good",
            type="primary",
            key=f"delete_{run.id}",
            on_click=_do,
            args=("delete", run),
        )


def refusal() -> None:
    """The sentence with which the last launch, cancel, resume or delete was refused."""
    if refused := st.session_state.pop(REFUSED, None):
        st.error(refused)


def _do(action: str, run: jobs.RunView) -> None:
    try:
        if action == "cancel":
            jobs.cancel(run.id)
        elif action == "resume":
            jobs.resume(run.id)
        elif action == "delete":
            jobs.delete(run.id)
            state.change(run="")
        elif action == "finetune":
            told = finetune_options(runs.planned(run), "quick", run.options["data"])
            state.change(run=networks.launch("finetune", run.workload, told), overlay="")
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
