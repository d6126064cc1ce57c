"""Launch the picked plan: rounded only or fine-tuned, with its uniform rival or without."""

import streamlit as st

from hawq_viz import networks, state
from hawq_viz.components.runs import REFUSED, refusal
from hawq_viz.viewmodels.measured import ROUNDING, quantize_options
from hawq_viz.viewmodels.plans import Summary
from hawq_viz.viewmodels.runs import NO_RECIPE, RECIPES
from hawq_viz.viewmodels.training import CHOICES, NUMBERS, WHOLE, finetune_options, usual

DATA = {"sample": "The sample", "full": "All (fetched once)"}
TYPED = "typed_"  # how the keys of the inputs begin
LOOKS = "Looks at 512 of the training images, without their labels."
ROUNDING_HELP = {
    "rounding": LOOKS,
    "correction": LOOKS,
    "sums": "An integer kernel needs what enters an addition or a concatenation on one scale.",
}
A_ROW = 4  # inputs of the custom recipe beside each other


def launch_form(summary: Summary, *, primary: bool, folded: bool) -> None:
    """Recipe, images, rival and the button; a custom recipe opens its settings below.

    Args:
        summary: Of the picked plan.
        primary: Whether to launch is the one obvious thing to do now.
        folded: Whether the settings of a recipe leave their place to a run at work.
    """
    _remember()
    recipe, images, rival, start = st.columns([3, 2.4, 2.6, 2.8], vertical_alignment="bottom")
    chosen = recipe.selectbox(
        "Recipe",
        list(RECIPES),
        format_func=RECIPES.get,
        key=TYPED + "recipe",
        help="Fine-tuning goes on from the rounded network. Its best step is chosen by training "
        "images held back, never by test images.",
    )
    images.selectbox(
        "Images",
        list(DATA),
        format_func=DATA.get,
        key=TYPED + "data",
        disabled=networks.is_own(summary.plan.workload),  # it brings its own
        help="To train and to test on: the few that come along, or the whole data set.",
    )
    rival.checkbox(
        f"Also {summary.rival_name[0].lower()}{summary.rival_name[1:]}",
        key=TYPED + "rival",
        help="Do the same with the cheapest uniform plan that is not cheaper, and show both. "
        "A fine-tuning of it waits until the first has ended.",
    )
    start.button(
        "Quantize" if chosen == NO_RECIPE else "Quantize and fine-tune",
        icon=":material/play_arrow:",
        type="primary" if primary else "secondary",
        width="stretch",
        key="launch",
        on_click=_launch,
        args=(summary,),
    )
    if chosen in ("custom", NO_RECIPE):
        with st.expander("Settings of this recipe", expanded=not folded):
            _rounding()
            if chosen == "custom":
                _settings()
    refusal()


def _remember() -> None:
    """Keep what was typed: Streamlit forgets an input with the page or the recipe it is on."""
    kept = st.session_state.setdefault("_typed", {})
    kept.setdefault(TYPED + "data", state.current().data or "sample")
    for name in ("recipe", "data", "rival", *ROUNDING, *CHOICES, *NUMBERS):
        key = TYPED + name
        if key in st.session_state:
            kept[key] = st.session_state[key]
        elif key in kept:
            st.session_state[key] = kept[key]


def _rounding() -> None:
    """How weights are rounded before any training."""
    for (name, (label, known)), cell in zip(
        ROUNDING.items(), st.columns(len(ROUNDING)), strict=True
    ):
        cell.selectbox(
            label,
            list(known),
            index=None,
            placeholder=known[next(iter(known))],
            format_func=known.get,
            key=TYPED + name,
            help=ROUNDING_HELP[name],
        )


def _settings() -> None:
    """Everything fine-tuning can be told; a blank leaves it to the engine."""
    cells = [cell for _ in range(3) for cell in st.columns(A_ROW)]
    for (name, (label, known)), cell in zip(CHOICES.items(), cells, strict=False):
        cell.selectbox(
            label, known, index=None, placeholder=usual(name), key=TYPED + name, width="stretch"
        )
    for (name, label), cell in zip(NUMBERS.items(), cells[len(CHOICES) :], strict=False):
        whole = name in WHOLE
        cell.number_input(
            label,
            value=None,
            step=1 if whole else None,
            format="%d" if whole else "%g",
            placeholder=usual(name),
            key=TYPED + name,
        )


def _launch(summary: Summary) -> None:
    recipe, data, rival = (st.session_state[TYPED + name] for name in ("recipe", "data", "rival"))
    custom = {name: st.session_state.get(TYPED + name) for name in (*ROUNDING, *CHOICES, *NUMBERS)}
    plans = [summary.plan, summary.rival] if rival else [summary.plan]
    launched: list[str] = []
    try:
        if recipe == NO_RECIPE:  # measures the rival in any case
            kind, told = "quantize", [quantize_options(summary, data, custom)]
        else:
            kind, told = "finetune", [finetune_options(p, recipe, data, custom) for p in plans]
        for options in told:
            launched.append(networks.launch(kind, summary.plan.workload, options))
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
    if launched:
        state.change(run=launched[0], overlay=",".join(launched[1:]))
