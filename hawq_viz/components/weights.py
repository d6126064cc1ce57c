"""Choose a network and its images, or bring weights of one's own into a known network."""

import streamlit as st

from engine.models.torchvision_names import PREFIX
from engine.workloads import OWN_WEIGHTS
from hawq_viz import networks, state
from hawq_viz.components.analyze import DATA
from hawq_viz.components.launch import TYPED
from hawq_viz.components.runs import REFUSED
from hawq_viz.viewmodels import workloads

CHOOSER = "chooser"
MOST = 500  # MB of weights; those of a ResNet152 are 230


def choose_network(label: str) -> None:
    """A popover: one of the networks that are here, its images, or weights of one's own."""
    with st.popover(label, width="stretch", key=CHOOSER, on_change="rerun"):  # can be closed
        known, images, own = st.tabs(["Networks", "Images", "Your own weights"])
        with known:
            _known()
        with images:
            _images()
        with own, st.form("weights", border=False):
            _own()


def _known() -> None:
    view, names = state.current(), state.networks_listed()
    key = f"chosen_{view.workload}"  # a list that grew by an upload would tell of the old choice
    st.session_state[key] = view.workload if view.workload in names else None
    st.radio(
        "Network",
        names,
        captions=[f"{workloads.called(name)} {workloads.does(name)}" for name in names],
        key=key,
        on_change=_choose,
        args=(key,),
    )


def _images() -> None:
    view = state.current()
    st.session_state["chosen_data"] = view.data or "sample"
    st.radio(
        "Images that runs start on",
        list(DATA),
        format_func=DATA.get,
        key="chosen_data",
        disabled=networks.is_own(view.workload),  # it brings its own
        on_change=_choose_data,
    )


def _choose(key: str) -> None:
    st.session_state[CHOOSER] = False
    state.change(workload=st.session_state[key])


def _choose_data() -> None:
    data = st.session_state["chosen_data"]
    st.session_state.get("_typed", {}).pop(TYPED + "data", None)  # what a form was told before
    state.change(data="" if data == "sample" else data)


def _own() -> None:
    st.selectbox(
        "Network they fit",
        networks.architectures(),
        key="weights_network",
        help=f"Type a few letters to find one; those after “{PREFIX}” are torchvision's.",
    )
    st.file_uploader(
        "Weights: safetensors, or a state dict",
        networks.SUFFIXES,
        key="weights_file",
        max_upload_size=MOST,
        help="They are read as tensors and nothing else. Without a file, the published ones.",
    )
    st.form_submit_button("Use them", on_click=_use, width="stretch")


def _use() -> None:
    chosen = st.session_state
    network, file = chosen["weights_network"], chosen["weights_file"]
    chosen[CHOOSER] = False
    try:
        if file is not None:
            network = networks.keep_weights(network, file.name, file.getvalue())
    except ValueError as error:
        chosen[REFUSED] = str(error)
    else:
        state.change(workload=network)


def delete_weights() -> None:
    """Delete the weights that are looked at, after one more question; nothing if they are known."""
    name = state.current().workload
    if OWN_WEIGHTS not in name:
        return
    with st.popover("Delete these weights", icon=":material/delete:"):
        st.markdown(
            "Delete the file of these weights? Runs made with them stay, but cannot go on. "
            "This cannot be undone."
        )
        st.button("Delete for good", key="delete_weights", on_click=_delete, args=(name,))


def _delete(name: str) -> None:
    try:
        networks.delete_weights(name)
    except ValueError as error:
        st.session_state[REFUSED] = str(error)
    else:
        state.reset()
