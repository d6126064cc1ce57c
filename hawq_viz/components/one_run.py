"""One run of any kind: how it goes, what was asked, what came out, and all that can be done."""

from collections.abc import Mapping

import streamlit as st

from engine import jobs
from engine.jobs.descriptions import LONGEST_REMARK, LONGEST_TITLE
from hawq_viz.components.chart import numbers
from hawq_viz.components.runs import REFUSED, delete_button, next_button, watch
from hawq_viz.view import View, encode
from hawq_viz.viewmodels import one_run, runs


def show_run(run: jobs.RunView) -> None:
    """The run with its one next action, its title and remark, its settings and its numbers."""
    called, page, name, act, delete = st.columns(
        [4.6, 2.7, 2.1, 2.4, 1], vertical_alignment="center"
    )
    called.markdown(f"##### {runs.plain(runs.run_title(run))}")
    with page:
        page_link(run)
    with name:
        _describe(run)
    with act:
        next_button(run, primary=True)
    with delete:
        delete_button(run)
    if run.remark:
        st.markdown(runs.plain(run.remark))
    watch([run.id], lambda _: None, lambda seen: one_run.verdict(seen[0]))
    found = one_run.found_table(run)
    if len(found):
        numbers(found)
    asked, source = st.columns(2, gap="medium")
    with asked:
        _cells("What was asked", one_run.asked(run))
    with source:
        if told := one_run.source(run):
            _cells("Where its numbers come from", told)


def page_link(run: jobs.RunView) -> None:
    """A link to the page that shows this run."""
    page, label = one_run.PAGES.get(run.kind, one_run.PAGES["finetune"])
    shown = {"analysis": run.id} if run.kind == "analyze" and run.state == "finished" else {}
    of = run.options.get("of") if run.kind == "export" else None
    view = View(workload=run.workload, run=str(of or run.id), **shown)
    st.page_link(
        f"../pages/{page}.py",
        label=label,
        icon=":material/arrow_forward:",
        query_params=encode(view),
    )


def _describe(run: jobs.RunView) -> None:
    """Rename it and say something of it."""
    with (
        st.popover("Rename", help="Give it a title and a remark", width="stretch"),
        st.form(f"name_{run.id}"),
    ):
        title = st.text_input(
            "Title",
            value=run.title,
            max_chars=LONGEST_TITLE,
            placeholder="what to call it wherever it is listed",
        )
        remark = st.text_area("Remark", value=run.remark, max_chars=LONGEST_REMARK)
        if st.form_submit_button("Save", type="primary"):
            try:
                jobs.describe(run.id, title=title, remark=remark)
            except ValueError as error:
                st.session_state[REFUSED] = str(error)
            st.rerun()


def _cells(heading: str, cells: Mapping[str, str]) -> None:
    st.markdown(f"###### {heading}")
    st.table({name: runs.plain(text) for name, text in cells.items()}, border="horizontal")
