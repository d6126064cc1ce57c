"""What a plan may cost: over which cost to look, and within which budgets."""

from collections.abc import Mapping

import streamlit as st

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.viewmodels import costs, plans, studies
from hawq_viz.viewmodels.studies import Study

REFUSED = "_budgets_refused"  # where a callback leaves a sentence and the nearest budgets
BUDGET = "budget_"  # how the keys of the inputs begin


def choose_cost(analysis: Analysis) -> None:
    """The cost that the frontier is drawn against, and what stays as it is along it."""
    view = state.current()
    cost = view.cost or "size"
    title, which, rest = st.columns([3.2, 1.7, 1.7], vertical_alignment="center")
    title.subheader(costs.heading(cost if analysis.activations else "size"))
    if not analysis.activations:
        return
    st.session_state["cost"] = cost
    which.selectbox(
        "Cost",
        list(costs.CHOICES),
        format_func=costs.CHOICES.get,
        key="cost",
        label_visibility="collapsed",
        on_change=_choose,
    )
    known = costs.fixed_choices(analysis, cost)
    if known:
        st.session_state["fixed"] = view.fixed if view.fixed in known else ""
        rest.selectbox(
            "What this cost does not choose",
            list(known),
            format_func=known.get,
            key="fixed",
            label_visibility="collapsed",
            on_change=lambda: state.change(fixed=st.session_state["fixed"]),
        )
    elif cost == "latency":
        with rest.popover("Table of times", icon=":material/table:", width="stretch"):
            _upload(analysis)


def latency_missing() -> bool:
    """Whether latency is asked for and there is no table of times; says what to do then."""
    view = state.current()
    if view.axis != "latency" or state.latency_table(view) is not None:
        return False
    st.info("Latency is counted by your own measurements: load them above, under “Table of times”.")
    return True


def _choose() -> None:
    chosen = st.session_state["cost"]
    st.session_state.pop(REFUSED, None)
    state.change(cost="" if chosen == "size" else chosen, fixed="")


def _upload(analysis: Analysis) -> None:
    st.caption(costs.TABLE_HELP)
    st.download_button(
        "A table to fill in",
        costs.empty_table(analysis),
        "latency.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
    file = st.file_uploader("CSV", type="csv", key="latency_file")
    if file is None or st.session_state.get("_table") == file.file_id:
        return
    try:
        key = state.keep_table(file.name, file.getvalue())
    except ValueError as error:
        st.error(str(error))
        return
    st.session_state["_table"] = file.file_id
    state.change(table=key, cost="latency", latency=None)
    st.rerun()


def budgets_form(study: Study) -> None:
    """Inputs for a budget in each cost, and a button; what is refused comes with a way out."""
    fields = studies.budget_fields(study, state.current().budgets)
    with st.form("budgets", border=False):
        cells = st.columns([1] * len(fields) + [1.1], vertical_alignment="bottom", gap="small")
        for field, cell in zip(fields, cells, strict=False):
            st.session_state.setdefault(BUDGET + field.cost, field.value)
            cell.number_input(
                field.label,
                min_value=0.0,
                step=None,
                format="%g",
                key=BUDGET + field.cost,
                placeholder="any",
                help=field.help,
            )
        cells[-1].form_submit_button(
            "Find it", type="secondary", width="stretch", on_click=_ask, args=(study, fields)
        )
    if refused := st.session_state.get(REFUSED):
        sentence, nearest = refused
        says, take = st.columns([2.6, 1.5], vertical_alignment="center")
        says.error(sentence)
        if nearest:
            take.button(
                "Take the nearest",
                icon=":material/near_me:",
                key="nearest",
                width="stretch",
                on_click=_take,
                args=(nearest,),
            )


def _ask(study: Study, fields: list[studies.Field]) -> None:
    typed = {field: st.session_state[BUDGET + field.cost] for field in fields}
    budgets = {x.cost: value * x.per_unit for x, value in typed.items() if value is not None}
    try:
        study.within(budgets)
    except ValueError as error:
        st.session_state[REFUSED] = (str(error), studies.nearest(error))
    else:
        _take(budgets)


def _take(budgets: Mapping[str, float]) -> None:
    """Ask for these budgets and no others."""
    st.session_state.pop(REFUSED, None)
    for cost in studies.COSTS:
        st.session_state.pop(BUDGET + cost, None)  # the form shows what is asked for
    state.change(**{cost: budgets.get(cost) for cost in studies.COSTS})


def shown_plan(study: Study) -> BitPlan:
    """The plan of the view; where its budgets cannot be met, the suggested one, and why."""
    try:
        return state.picked(study)
    except ValueError as error:
        st.session_state[REFUSED] = (str(error), studies.nearest(error))
        return study.plan(None)


def plan_says(study: Study, plan: BitPlan) -> str:
    """What sets the shown plan apart from the frontier's own; nothing where that is what it is."""
    view = state.current()
    if view.bits or view.abits:
        return plans.opened_says(study, plan)
    if view.cost == state.SEVERAL and study.cost == studies.COMPARED:
        return studies.budgets_says(study, plan, view.budgets)
    return ""
