"""Files of a quantized network: have them written, see what they are worth, take them away."""

from functools import partial
from pathlib import Path

import streamlit as st

from engine import jobs
from engine.jobs.folders import ONNX, PACKED
from engine.results import PLAN_FILE
from hawq_viz import networks, state
from hawq_viz.components.chart import chart, numbers
from hawq_viz.components.runs import REFUSED, next_button, refusal, watch
from hawq_viz.figures import export as figures
from hawq_viz.report import analysis_of, report
from hawq_viz.viewmodels import export, runs

SCRIPT = Path(__file__).parents[2] / "docs" / "load_packed.py"
FILES = {  # of an export, and what each is for
    PACKED: (
        "Packed",
        "As small as promised; `engine.load_packed` makes the network of it",
    ),
    ONNX: ("ONNX", "For ONNX Runtime and what else reads ONNX"),
    PLAN_FILE: ("Plan", "The bits and how they were chosen, for `hawq-viz quantize --plan`"),
}


def export_page() -> None:
    """Choose a finished run; its files, if they have been written, and the button that does."""
    view, everything = state.current(), state.list_runs()
    listed = [
        run
        for run in runs.runs_of(everything, runs.QUANTIZING, view.workload)
        if run.state == "finished"
    ]
    if not listed:
        st.info("No quantized network is here to be taken away yet.")
        st.page_link("../pages/quantize.py", label="Quantize one", icon=":material/compress:")
        return
    shown = next((run for run in listed if run.id == view.run), listed[0])
    made = next(iter(export.exports_of(everything, shown)), None)
    _choose(listed, shown, made)
    refusal()
    if made is None:
        st.info("Its files have not been written yet: press “Make the files”.")
    else:
        watch([made.id], _nothing, lambda seen: export.verdict(seen[0]))
    _downloads(shown, made)
    if made is not None:
        made = jobs.view(made.id)
        _sizes(made)
        _onnx(made)


def _choose(listed: list[jobs.RunView], shown: jobs.RunView, made: jobs.RunView | None) -> None:
    """Which run's network, and the one thing to do with it."""
    which, act = st.columns([6, 2], vertical_alignment="bottom")
    st.session_state["exported"] = shown.id
    which.selectbox(
        "Quantized network",
        [run.id for run in listed],
        key="exported",
        format_func={run.id: runs.listed_name(run) for run in listed}.get,
        on_change=lambda: state.change(run=st.session_state["exported"]),
    )
    with act:
        if made is not None and made.state != "finished":
            next_button(made, primary=True)
            return
        st.button(
            "Make the files" if made is None else "Make them again",
            icon=":material/inventory_2:",
            help="Packed and ONNX; both are tried on the test images",
            type="primary" if made is None else "secondary",
            width="stretch",
            key="export",
            on_click=_launch,
            args=(shown,),
        )


def _launch(run: jobs.RunView) -> None:
    told = {"of": run.id, "data": run.options.get("data", "sample")}
    try:
        networks.launch("export", run.workload, told)
        state.change(run=run.id)
    except ValueError as error:
        st.session_state[REFUSED] = str(error)


def _downloads(shown: jobs.RunView, made: jobs.RunView | None) -> None:
    """What there is to take away; files are read when they are asked for."""
    cells = iter(st.columns(len(FILES) + 2))
    stem = shown.workload.replace("/", "-")
    for name, (label, why) in FILES.items():
        file = None if made is None else made.artefact(name)
        there = file is not None and file.exists()
        next(cells).download_button(
            f"{label} ({file.stat().st_size / 2**10:,.0f} KiB)" if there and file else label,
            partial(file.read_bytes) if there and file else b"",
            f"{stem}.{name.removeprefix('network.')}",
            icon=":material/download:",
            help=why if there else f"{why}. Make the files first",
            on_click="ignore",
            disabled=not there,
            width="stretch",
            key=f"download_{name}",
        )
    next(cells).download_button(
        "Loader",
        partial(SCRIPT.read_bytes),
        SCRIPT.name,
        icon=":material/download:",
        help="A Python file that loads the packed network with PyTorch alone",
        on_click="ignore",
        width="stretch",
        key="download_loader",
    )
    next(cells).download_button(
        "Report",
        lambda: report(shown, analysis_of(shown)).encode(),
        f"{shown.id}.html",
        icon=":material/download:",
        help="One file for a browser: what was done, what came out, how to make it again",
        on_click="ignore",
        width="stretch",
        key="download_report",
    )


def _sizes(made: jobs.RunView) -> None:
    if (file := export.packed_of(made)) is None:
        return
    st.subheader("What the bytes are")
    chart(
        figures.sizes(file),
        key=f"sizes_{made.id}",
        alt=export.sizes_alt(file),
        how_to_read=export.READ_SIZES,
        table=export.packed_table(file),
        table_open=True,
    )


def _onnx(made: jobs.RunView) -> None:
    written, check = export.onnx_of(made)
    if written is None:
        return
    st.subheader("How ONNX Runtime runs each layer")
    for note in export.onnx_notes(written, check):
        st.caption(note)
    numbers(export.onnx_table(written, check))


def _nothing(_: list[jobs.RunView]) -> None:
    """There is nothing to draw while files are written."""
