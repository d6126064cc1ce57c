"""Bring weights of one's own into a known network."""

import streamlit as st

from engine.models.torchvision_names import PREFIX
from hawq_viz import networks, state

FORM = "weights_form"
MOST = 500  # MB of weights; those of a ResNet152 are 230
REFUSED = "_weights_refused"


def weights_form() -> None:
    """A popover: which network, and the file of its weights."""
    with (
        st.popover(
            "Your own weights",
            icon=":material/upload:",
            width="stretch",
            key=FORM,
            on_change="rerun",  # so that it can be closed
        ),
        st.form("weights", border=False),
    ):
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
        if refused := st.session_state.pop(REFUSED, None):
            st.error(refused)


def _use() -> None:
    chosen = st.session_state
    network, file = chosen["weights_network"], chosen["weights_file"]
    try:
        if file is not None:
            network = networks.keep_weights(network, file.name, file.getvalue())
    except ValueError as error:
        chosen[REFUSED] = str(error)
    else:
        chosen[FORM] = False
        state.change(workload=network)
