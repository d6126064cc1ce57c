"""What is being looked at: in the URL, so that a link, a reload or another browser shows the same.

The session holds it while pages change (a page change empties the URL), and every change is written
to the URL at once. The analyses behind it are kept by the content of their files.
"""

import hashlib
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import streamlit as st

from engine import jobs
from engine.analysis import COSTS, Analysis
from engine.latency import LatencyTable
from engine.results import BitPlan, FormatError
from engine.workloads import check_workload_name, stored_analysis
from hawq_viz import networks
from hawq_viz.view import LIMITS, NAMES, PICK, View, decode, encode
from hawq_viz.viewmodels.analyses import is_analysis
from hawq_viz.viewmodels.limits import NOTHING, Held
from hawq_viz.viewmodels.studies import PLANNED, SEVERAL, Study, other_side
from hawq_viz.viewmodels.uploads import load_upload

STUDIES = 16  # kept in memory
TABLES = 16  # of latencies, likewise
UNDOS = 50
SENSITIVITY, FRONTIER = "../pages/sensitivity.py", "../pages/frontier.py"
SECONDS_UNSEEN = 1.0  # after a script run, that a browser may take to see the URL it changed


def restore() -> None:
    """At the start of a script run: take the view from the URL, or the URL from the view."""
    wanted = decode(st.query_params)
    unseen = time.monotonic() - st.session_state.get("_written", -1e9) < SECONDS_UNSEEN
    if wanted != View() and not unseen:
        st.session_state["_view"] = replace(wanted, workload=wanted.workload or _first_workload())
    _write()


def current() -> View:
    """The view as it stands."""
    held: View | None = st.session_state.get("_view")
    return held or View(workload=_first_workload())  # which looks for files, so not for nothing


def _first_workload() -> str:
    return networks.network_names()[0]


def networks_listed() -> tuple[str, ...]:
    """The networks to choose from, the one that is looked at among them if it is a known one."""
    names, name = networks.network_names(), current().workload
    if name in names:
        return names
    try:
        return (*names, check_workload_name(name))
    except ValueError:
        return names


def list_runs() -> list[jobs.RunView]:
    """All runs of the networks that are offered here, newest first."""
    return networks.runs_here(jobs.list_runs())


def comes_analyzed() -> bool:
    """Whether an analysis comes with the network that is looked at."""
    stored = _stored(current())
    return stored is not None and stored.exists()


def _stored(view: View) -> Path | None:
    """Where the analysis lies that comes with the network, if one does; None if none can.

    Raises:
        ValueError: If the network is unknown.
    """
    return None if networks.is_own(view.workload) else stored_analysis(view.workload)


def change(**chosen: str | float | None) -> None:
    """Look at something else; another workload takes nothing of the old one along.

    A budget, a cost or a limit that is picked takes the place of a plan that was opened; another
    cost is looked at as a whole.
    """
    before = current()
    if not chosen.keys().isdisjoint({"cost", "fixed", *COSTS, *LIMITS}):
        chosen = {"bits": "", "abits": "", **chosen}
    if chosen.get("cost", before.cost) != before.cost:
        chosen = {"low": None, "high": None, **chosen}
    after = replace(before, **chosen)  # type: ignore[arg-type]
    if after.workload != before.workload:
        after = View(workload=after.workload)
    was, now = ({name: getattr(view, name) for name in PICK} for view in (before, after))
    if now != was:
        undo = st.session_state.setdefault("_undo", [])
        undo.append(was)
        del undo[:-UNDOS]
    st.session_state["_view"] = after
    st.session_state["_changed"], st.session_state["_written"] = True, time.monotonic()
    _write()


def ran() -> None:
    """At the end of a script run: what the browser asked meanwhile still had the URL of before."""
    if st.session_state.pop("_changed", False):
        st.session_state["_written"] = time.monotonic()


def pick(cost: str, budget: float) -> None:
    """Take the best plan within one budget, drawn against its cost."""
    change(cost="" if cost == "size" else cost, **{cost: budget})


def is_clear() -> bool:
    """Whether the plan is the suggested one."""
    view = current()
    asked = view.budgets if view.cost == SEVERAL else view.budget
    return not (asked or view.bits or view.abits)


def clear() -> None:
    """Back to the plan that the frontier of this cost suggests."""
    costs = COSTS if current().cost == SEVERAL else (current().axis,)
    change(**dict.fromkeys(costs))


def reset() -> None:
    """Look at the sample network as it comes."""
    fresh = asdict(View(workload=_first_workload()))
    change(**fresh)


def can_undo() -> bool:
    """Whether a plan was picked before this one."""
    return bool(st.session_state.get("_undo"))


def undo() -> None:
    """Go back to the plan picked before."""
    change(**st.session_state["_undo"].pop())
    st.session_state["_undo"].pop()  # what the change itself has put there


def _write() -> None:
    wanted = encode(current())
    others = {key: value for key, value in st.query_params.items() if key not in NAMES}
    if st.query_params.to_dict() != {**others, **wanted}:
        st.query_params.from_dict({**others, **wanted})


def analysis_run(view: View) -> jobs.RunView | None:
    """The run that made the analysis of a view; None if it came with the network, or is none.

    Of a network that comes without one it is the newest, where none is chosen.

    Raises:
        ValueError: If the network or the run is unknown, or the run is of another network.
    """
    stored = _stored(view)
    if not view.analysis:
        if stored is not None and stored.exists():
            return None
        return next((run for run in list_runs() if is_analysis(run, view.workload)), None)
    run = jobs.view(view.analysis)
    if run.kind != "analyze" or run.workload != view.workload or not networks.runs_here([run]):
        raise ValueError(
            f"analysis must be a run that analyzed {view.workload}, got {view.analysis}: "
            "choose another in the sidebar."
        )
    return run


def analysis_file(view: View) -> Path | None:
    """Where the analysis of a view lies; None if there is none.

    Raises:
        ValueError: If the network or the run is unknown, or the run is of another network.
    """
    if run := analysis_run(view):
        return run.artefact("analysis.json")
    stored = _stored(view)
    return stored if stored is not None and stored.exists() else None


def require_analysis(form_above: bool = False) -> Analysis:
    """The chosen analysis; where there is none, lead to the form that makes one, and stop."""
    view = current()
    try:
        path = analysis_file(view)
        if path is None:
            missing = f"{view.workload} has not been analyzed yet"
            if form_above:
                st.info(f"{missing}: “New analysis”, above, is the way.")
            else:
                st.info(f"{missing}.")
                st.page_link(SENSITIVITY, label="Analyse it", icon=":material/search:")
            st.stop()
        return _analysis(*_content(path))
    except ValueError as error:
        _lead_back(error)


def chosen_analysis() -> Analysis | None:
    """The chosen analysis; None where there is none, or it cannot be read."""
    try:
        path = analysis_file(current())
        return _analysis(*_content(path)) if path else None
    except ValueError:
        return None


def require_study() -> Study:
    """The chosen analysis with its frontier; where there is none, say what to do and stop."""
    analysis = require_analysis()
    if lacks_table(analysis):
        st.info("The times of the layers are not here any more: load the table again.")
        st.page_link(FRONTIER, label="To the table", icon=":material/timeline:")
        st.stop()
    try:
        study = _found(analysis)
    except ValueError as error:
        _lead_back(error)
    if study.refused:
        st.error(f"{study.refused} Until then, nothing is held.")
        st.button("Take all locks and ties away", key="unlimited", on_click=unlimit)
    return study


def unlimit() -> None:
    """Let plans keep to nothing any more."""
    change(**dict.fromkeys(LIMITS, ""))


def held(analysis: Analysis) -> Held:
    """What plans of the view have to keep to."""
    view = current()
    return Held.of(analysis, view.locked, view.alocked, view.tied, view.widths)


def find_study() -> Study | None:
    """The chosen analysis with its frontier; None where there is no analysis yet.

    Over size where the chosen cost lacks something, a table of times say: its page tells of that.
    """
    view = current()
    try:
        path = analysis_file(view)
        if path is None:
            return None
        content = _content(path)
        analysis = _analysis(*content)
        with suppress(ValueError):
            if not lacks_table(analysis):
                return _found(analysis)
        return _study(*content, "size", (), "")
    except ValueError as error:
        _lead_back(error)


def require_plan(study: Study) -> BitPlan:
    """The plan of the view; where there is none, say why, lead to the frontier and stop."""
    try:
        return picked(study)
    except ValueError as error:
        st.error(str(error))
        st.page_link(FRONTIER, label="Pick a plan", icon=":material/timeline:")
        st.stop()


def _found(analysis: Analysis) -> Study:
    """The study of the view; without activations over size, whatever was chosen.

    Raises:
        ValueError: If a latency table lacks what it needs.
    """
    view = current()
    cost = view.axis if analysis.activations else "size"
    file = analysis_file(view)
    assert file is not None  # for the analysis has been read from it
    content = _content(file)
    fixed = _fixed(content, analysis, view, cost)
    return _study(*content, cost, fixed, view.table, held(analysis).on([cost]))


def several(analysis: Analysis) -> bool:
    """Whether plans have to keep to budgets for several costs."""
    return current().cost == SEVERAL and bool(analysis.activations)


def lacks_table(analysis: Analysis) -> bool:
    """Whether times are asked for whose table is not here, or not any more."""
    view = current()
    asked = view.axis == "latency" or (several(analysis) and view.latency is not None)
    return asked and bool(analysis.activations) and latency_table(view) is None


def picked(study: Study) -> BitPlan:
    """The plan of the view.

    Raises:
        ValueError: If several budgets cannot be met at once, or a latency table lacks the bits of
            an opened plan.
    """
    view = current()
    if opened := study.opened(view.bits, view.abits):
        return opened
    if several(study.analysis):
        return study.within(view.budgets)
    return study.plan(getattr(view, study.cost))


def planned(analysis: Analysis) -> tuple[dict[str, int], dict[str, int]]:
    """Bits of weights and of inputs in the picked plan; none where they stay float, or it is none.

    Args:
        analysis: That of the view.
    """
    if lacks_table(analysis):
        return {}, {}
    try:
        plan = picked(_found(analysis))
    except ValueError:  # budgets that cannot be met, a table that lacks times
        return {}, {}
    return plan.weight_bits, plan.activation_bits


def keep_table(name: str, content: bytes) -> str:
    """Keep a latency table while this server runs; its key for the view.

    Raises:
        FormatError: If it is none.
    """
    table = load_upload(name, content, LatencyTable.load)
    tables, key = _tables(), hashlib.sha256(content).hexdigest()[:12]
    tables[key] = replace(table, source=Path(name).name)
    while len(tables) > TABLES:
        del tables[next(iter(tables))]
    return key


def latency_table(view: View) -> LatencyTable | None:
    """The latency table of a view, if it is still here."""
    return _tables().get(view.table)


@st.cache_resource(show_spinner=False)
def _tables() -> dict[str, LatencyTable]:
    return {}


def _lead_back(error: ValueError) -> NoReturn:
    st.error(str(error))
    st.button(f"Back to {_first_workload()}", on_click=reset)
    st.stop()


def _fixed(
    content: tuple[str, str], analysis: Analysis, view: View, cost: str
) -> tuple[tuple[str, int], ...]:
    """Bits of what the cost does not choose: uniform, or as picked over their own cost."""
    side = other_side(cost) if analysis.activations else ""
    if not (side and view.fixed):
        return ()
    inputs = side == "inputs"
    if view.fixed == PLANNED:
        own = "activation_memory" if inputs else "size"
        study = _study(*content, own, (), "", held(analysis).on([own]))
        plan = study.plan(getattr(view, own))
    elif int(view.fixed) in analysis.bit_widths:
        bits = int(view.fixed)
        plan = analysis.uniform(None, bits) if inputs else analysis.uniform(bits)
    else:
        return ()
    return tuple((plan.activation_bits if inputs else plan.weight_bits).items())


def _content(path: Path) -> tuple[str, str]:
    """A file and the digest of what is in it.

    Raises:
        FormatError: If it cannot be read.
    """
    try:
        seen = path.stat()
        return str(path), _digest(path, seen.st_mtime_ns, seen.st_size, seen.st_ino)
    except OSError as error:
        raise FormatError(
            f"{path} must be a saved analysis, but cannot be read: {error}."
        ) from error


@lru_cache(maxsize=STUDIES)
def _digest(path: Path, *_: int) -> str:
    """Of a file that has changed since if any other argument has: it is asked at every click."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@st.cache_resource(max_entries=STUDIES, show_spinner=False)
def _analysis(path: str, digest: str) -> Analysis:  # noqa: ARG001 — the digest is the cache's key
    return Analysis.load(path)


@st.cache_resource(max_entries=STUDIES, show_spinner="Finding the frontier …")
def _study(
    path: str,
    digest: str,
    cost: str,
    fixed: tuple[tuple[str, int], ...],
    table: str,
    limits: Held = NOTHING,
) -> Study:
    if limits:
        return _study(path, digest, cost, fixed, table).keeping(limits)
    latency = _tables().get(table)
    return Study.of(_analysis(path, digest), cost, fixed=dict(fixed), latency=latency)
