"""What is being looked at: in the URL, so that a link, a reload or another browser shows the same.

The session holds it while pages change (a page change empties the URL), and every change is written
to the URL at once. The analyses behind it are kept by the content of their files.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import streamlit as st

from engine import jobs
from engine.analysis import Analysis
from engine.results import FormatError
from engine.workloads import stored_analysis, workload_names
from hawq_viz.figures.finetune import MOST_RUNS
from hawq_viz.viewmodels.plans import Study

STUDIES = 8  # kept in memory
UNDOS = 50
SECONDS_UNSEEN = 1.0  # within which a browser may not have seen our last change of its URL
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}")
BITS = re.compile(r"[1-8]{1,1000}")
MOST_OVERLAID = MOST_RUNS - 1  # runs drawn over the watched one


@dataclass(frozen=True)
class View:
    """Everything that a link holds."""

    workload: str = ""  # none: the first there is
    analysis: str = ""  # run that made it; none: the one that comes with the workload
    size: float | None = None  # bytes the picked plan may have; none: the suggested one
    run: str = ""  # the one watched
    overlay: str = ""  # runs drawn over it, parted by commas
    bits: str = ""  # of an opened plan, a digit a layer; none: the frontier's plan of that size

    @property
    def overlaid(self) -> tuple[str, ...]:
        """The runs drawn over the watched one."""
        return tuple(run for run in self.overlay.split(",") if run not in ("", self.run))


def encode(view: View) -> dict[str, str]:
    """A view as query parameters; what is not chosen is left out."""
    chosen = {key: value for key, value in asdict(view).items() if value not in ("", None)}
    if view.size is not None:
        chosen["size"] = repr(view.size).removesuffix(".0")
    return chosen


def decode(parameters: Mapping[str, str]) -> View:
    """Read a view from query parameters; what no view could have written is passed over."""
    found: dict[str, str | float] = {
        name: parameters[name]
        for name in ("workload", "analysis", "run")
        if IDENTIFIER.fullmatch(parameters.get(name, ""))
    }
    overlaid = parameters.get("overlay", "").split(",")
    if len(overlaid) <= MOST_OVERLAID and all(map(IDENTIFIER.fullmatch, overlaid)):
        found["overlay"] = ",".join(overlaid)
    if BITS.fullmatch(parameters.get("bits", "")):
        found["bits"] = parameters["bits"]
    try:
        size = float(parameters["size"])
        if 0 < size < float("inf"):
            found["size"] = size
    except (KeyError, ValueError):
        pass
    return View(**found)  # type: ignore[arg-type]


def restore() -> None:
    """At the start of a script run: take the view from the URL, or the URL from the view."""
    wanted = decode(st.query_params)
    unseen = time.monotonic() - st.session_state.get("_written", -1e9) < SECONDS_UNSEEN
    if wanted != View() and not unseen:
        st.session_state["_view"] = replace(wanted, workload=wanted.workload or _first_workload())
    _write()


def current() -> View:
    """The view as it stands."""
    return st.session_state.get("_view", View(workload=_first_workload()))


def _first_workload() -> str:
    return workload_names()[0]


def change(**chosen: str | float | None) -> None:
    """Look at something else; another workload takes nothing of the old one along.

    A size that is picked takes the place of a plan that was opened.
    """
    before = current()
    if "size" in chosen:
        chosen = {"bits": "", **chosen}
    after = replace(before, **chosen)  # type: ignore[arg-type]
    if after.workload != before.workload:
        after = View(workload=after.workload)
    if (after.size, after.bits) != (before.size, before.bits):
        undo = st.session_state.setdefault("_undo", [])
        undo.append({"size": before.size, "bits": before.bits})
        del undo[:-UNDOS]
    st.session_state["_view"] = after
    st.session_state["_written"] = time.monotonic()
    _write()


def reset() -> None:
    """Look at the sample network as it comes."""
    change(workload=_first_workload(), analysis="", size=None, run="", overlay="")


def can_undo() -> bool:
    """Whether a plan was picked before this one."""
    return bool(st.session_state.get("_undo"))


def undo() -> None:
    """Go back to the plan picked before."""
    change(**st.session_state["_undo"].pop())
    st.session_state["_undo"].pop()  # what the change itself has put there


def _write() -> None:
    wanted = encode(current())
    others = {key: value for key, value in st.query_params.items() if key not in _NAMES}
    if st.query_params.to_dict() != {**others, **wanted}:
        st.query_params.from_dict({**others, **wanted})


_NAMES = {field.name for field in fields(View)}


def analysis_file(view: View) -> Path:
    """Where the analysis of a view lies.

    Raises:
        ValueError: If the workload or the run is unknown, or the run is of another workload.
    """
    stored = stored_analysis(view.workload)
    if not view.analysis:
        return stored
    run = jobs.view(view.analysis)
    if run.kind != "analyze" or run.workload != view.workload:
        raise ValueError(
            f"analysis must be a run that analyzed {view.workload}, got {view.analysis}: "
            "choose another in the sidebar."
        )
    return run.artefact("analysis.json")


def require_study() -> Study:
    """The chosen analysis with its frontier; where there is none, say what to do and stop."""
    view = current()
    try:
        path = analysis_file(view)
        if not path.exists() and not view.analysis:
            st.info(f"{view.workload} has not been analyzed yet.")
            st.page_link("../pages/sensitivity.py", label="Analyse it", icon=":material/search:")
            st.stop()
        return study_of(path)
    except ValueError as error:
        st.error(str(error))
        st.button(f"Back to {_first_workload()}", on_click=reset)
        st.stop()


def study_of(path: Path) -> Study:
    """Load an analysis file and work out its frontier, once for the same content.

    Raises:
        FormatError: If it is not a whole analysis.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FormatError(
            f"{path} must be a saved analysis, but cannot be read: {error}."
        ) from error
    return _study(str(path), digest)


@st.cache_resource(max_entries=STUDIES, show_spinner="Finding the frontier …")
def _study(path: str, digest: str) -> Study:  # noqa: ARG001 — the digest is the cache's key
    return Study.of(Analysis.load(path))
