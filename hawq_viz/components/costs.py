"""What a plan may cost: over which cost to look, and within which budgets."""

from collections.abc import Mapping

import streamlit as st

from engine.analysis import Analysis
from engine.results import BitPlan
from hawq_viz import state
from hawq_viz.figures.costs import cost_of
from hawq_viz.view import LEAST
from hawq_viz.viewmodels import costs, plans, sliders, studies
from hawq_viz.viewmodels.studies import Study

BUDGET = "budget_"  # how the keys of the inputs begin
SHOWN = "_budgets_shown"  # what they were last filled with
PUT = "_put_"  # how the keys begin of what sliders were last set to


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
    if known := costs.fixed_choices(analysis, cost):
        st.session_state["fixed"] = view.fixed if view.fixed in known else ""
        rest.selectbox(
            "What this cost does not choose",
            list(known),
            format_func=known.get,
            key="fixed",
            label_visibility="collapsed",
            on_change=lambda: state.change(fixed=st.session_state["fixed"]),
        )
    else:
        with rest.popover("Table of times", icon=":material/table:", width="stretch"):
            _upload(analysis)


def require_table(analysis: Analysis) -> None:
    """Where times are asked for and there are none, say what to do and stop."""
    if state.lacks_table(analysis):
        st.info(
            "Latency is counted by your own measurements: load them above, under “Table of times”."
        )
        st.stop()


def _choose() -> None:
    chosen = st.session_state["cost"]
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
    state.change(table=key, latency=None)
    st.rerun()


def budgets_form(study: Study, refusal: ValueError | None) -> None:
    """Inputs for a budget in each cost, and a button; what is refused comes with a way out.

    Args:
        study: Over the cost that is drawn.
        refusal: Why no plan keeps to the budgets of the view, if none does.
    """
    asked = state.current().budgets
    fields = studies.budget_fields(study, asked)
    typed = {BUDGET + field.cost: field.value for field in fields}
    if st.session_state.get(SHOWN) != asked or not typed.keys() <= st.session_state.keys():
        st.session_state.update(typed)  # after an undo, on another page and back
        st.session_state[SHOWN] = asked
    with st.form("budgets", border=False):
        cells = st.columns([1] * len(fields) + [0.9], vertical_alignment="bottom", gap="xsmall")
        for field, cell in zip(fields, cells, strict=False):
            cell.number_input(
                field.label,
                value=None,
                min_value=0.0,
                step=None,
                format="%g",
                key=BUDGET + field.cost,
                placeholder="any",
                help=field.help if len(fields) < len(studies.COSTS) else None,  # no room
            )
        cells[-1].form_submit_button(
            "Find it", type="secondary", width="stretch", on_click=_ask, args=(fields,)
        )
    if refusal is None:
        return
    says, take = st.columns([2.4, 1.7], vertical_alignment="center")
    says.error(str(refusal))
    if nearest := studies.nearest(refusal):
        take.button(
            "Take the nearest",
            icon=":material/near_me:",
            key="nearest",
            width="stretch",
            on_click=_take,
            args=(nearest,),
        )
        take.caption(studies.budgets_text(nearest))


def _ask(fields: list[studies.Field]) -> None:
    typed = {field: st.session_state[BUDGET + field.cost] for field in fields}
    _take({x.cost: max(v * x.per_unit, LEAST) for x, v in typed.items() if v is not None})


def _take(budgets: Mapping[str, float]) -> None:
    """Ask for these budgets and no others."""
    state.change(**{cost: budgets.get(cost) for cost in studies.COSTS})


def shown_plan(study: Study) -> tuple[BitPlan, ValueError | None]:
    """The plan of the view; where there is none, the suggested one and why."""
    try:
        return state.picked(study), None
    except ValueError as error:
        return study.plan(None), error


def budget_slider(study: Study, plan: BitPlan) -> None:
    """The keyboard's way to pick a plan."""
    own = plans.is_own(plan)
    asked = cost_of(plan, study.cost) if own else getattr(state.current(), study.cost)
    slider = sliders.budget_slider(study, asked)
    _put("budget", slider.value)

    def pick() -> None:
        if _moved("budget"):
            state.pick(study.cost, st.session_state["budget"] * slider.per_unit)

    st.slider(
        costs.slider_label(study.cost, slider.unit),
        slider.low,
        slider.high,
        step=slider.step,
        format=slider.format,
        key="budget",
        on_change=pick,
        help="The keyboard's way to pick: the arrow keys go from plan to plan.",
    )


def _put(key: str, value: object) -> None:
    """Set a slider to what the page shows."""
    st.session_state[key] = st.session_state[PUT + key] = value


def _moved(key: str) -> bool:
    """Whether someone has moved a slider.

    A choice that is made while a page is still being drawn tells of its sliders, too, as if those
    had been moved that the page itself has just set.
    """
    return bool(st.session_state[key] != st.session_state[PUT + key])


def part_slider(study: Study) -> None:
    """The keyboard's way to look at a part of the costs, and the way back to all of them."""
    view = state.current()
    slider = sliders.part_slider(study, sliders.part_of(study, view.low, view.high))
    _put("part", slider.values)

    def look() -> None:
        if _moved("part"):
            low, high = slider.asked(st.session_state["part"])
            state.change(low=low, high=high)

    ends, whole = st.columns([5, 1], vertical_alignment="bottom", gap="xsmall")
    ends.slider(
        "Part that is drawn",
        slider.low,
        slider.high,
        step=slider.step,
        format=slider.format,
        key="part",
        on_change=look,
        help="Or draw a box in the chart; a double click there shows the whole range again.",
    )
    whole.button(
        "Whole range",
        icon=":material/zoom_out_map:",
        key="whole",
        disabled=view.low is None and view.high is None,
        on_click=lambda: state.change(low=None, high=None),
        help="Draw the whole range",
    )


def plan_says(study: Study, plan: BitPlan, refusal: ValueError | None) -> None:
    """What sets the shown plan apart from the frontier's own, and what limits cost it."""
    view = state.current()
    if refusal is not None:
        st.caption("There is no such plan: shown is one that is suggested.")
        return
    if plans.is_own(plan):
        says, take = st.columns([3, 2], vertical_alignment="center")
        says.markdown(plans.opened_says(study, plan))
        take.button(
            "Frontier's plan",
            icon=":material/near_me:",
            key="frontiers",
            width="stretch",
            on_click=_take_best,
            args=(study, plan),
            help="Take the best plan that costs no more.",
        )
        return
    if view.bits or view.abits:
        st.caption("The bits in the link fit no plan of this network: shown is that of the budget.")
    elif state.several(study.analysis):
        st.caption(studies.budgets_says(study, plan, view.budgets))
    if says := plans.limits_says(study, plan):
        st.markdown(says)


def _take_best(study: Study, plan: BitPlan) -> None:
    if state.several(study.analysis):
        state.change(bits="", abits="")
    else:
        state.pick(study.cost, cost_of(plan, study.cost))
