"""The Export page, run as Streamlit runs it: runs are written, not worked; and its words."""

import json
from dataclasses import replace

import pytest
from made_up import made_up_evaluation
from made_up_runs import WORKLOAD, result, tuning_run, whole, write_run
from opened import open_page, texts
from test_pages import SUMMARY, launched, press, quantize_run, stands_out

from engine.jobs.folders import ONNX, PACKED
from engine.results import (
    KERNELS,
    PLAN_FILE,
    OnnxCheck,
    OnnxExport,
    OnnxLayer,
    PackedFile,
    PackedItem,
)
from hawq_viz.components.export import SCRIPT
from hawq_viz.figures import export as figures
from hawq_viz.viewmodels import export

launched = launched  # a fixture
MEASURED = (result("float", 0.92), result("plan", 0.83), result("uniform", 0.58), ("finished", {}))
FILE = PackedFile(
    promised_bytes=1000.5,
    items=(
        PackedItem("packed weights", "conv1.weight", 401),
        PackedItem("packed weights", "fc.weight", 600),
        PackedItem("scales", ".scales", 104),
        PackedItem("biases", "fc.bias", 40),
        PackedItem("plan", "plan", 300),
        PackedItem("layout", "names", 500),
        PackedItem("container", "padding", 11),
    ),
)
LAYERS = (OnnxLayer("conv1", 8, "INT8", "a"), OnnxLayer("fc", 3, "INT4", "b"))
WRITTEN = OnnxExport(21, 2048, LAYERS)


def checked(refused: str = "") -> OnnxCheck:
    return OnnxCheck(
        runtime="1.32.0",
        onnx=None if refused else made_up_evaluation(0.828, 1000),
        pytorch=made_up_evaluation(0.83, 1000),
        largest_difference=None if refused else 0.25,
        runs_as=dict(zip(("conv1", "fc"), [KERNELS[2]] * 2 if refused else KERNELS, strict=False)),
        refused=refused,
    )


def told(same: bool = True) -> list[tuple[str, dict]]:
    """What a whole export says."""
    found = {
        "packed": {"file": FILE.to_json(), "images": 32, "same": same},
        "onnx": WRITTEN.to_json(),
        "onnx_check": checked().to_json(),
    }
    return [("result", {"name": name, "result": one}) for name, one in found.items()]


def export_run(of: str, *events: tuple[str, dict], **more):
    folder = write_run("export", {"of": of, "data": "sample"}, ("started", {}), *events, **more)
    for name in (PACKED, ONNX, PLAN_FILE):
        (folder / name).write_bytes(b"1" * 2048)
    return folder


def downloads(app) -> dict[str, bool]:
    """Labels of the download buttons, and whether they can be pressed."""
    protos = [element.proto for element in app.get("download_button")]
    return {proto.label: not proto.disabled for proto in protos}


@pytest.mark.usefixtures("runs")
class TestExportPage:
    def test_without_a_quantized_network_it_leads_to_where_one_is_made(self):
        tuning_run(SUMMARY.plan, ("cancelled", {}))
        app = open_page("export")
        assert not app.exception
        assert texts(app.info) == "No quantized network is here to be taken away yet."
        assert [link.proto.label for link in app.get("page_link")] == ["Quantize one"]

    def test_one_button_has_the_files_made(self, launched):
        run = quantize_run(*MEASURED)
        app = open_page("export")
        assert not app.exception
        assert stands_out(app) == ["Make the files"]
        assert "press “Make the files”" in texts(app.info)
        assert downloads(app) == {
            "Packed": False,
            "ONNX": False,
            "Plan": False,
            "Loader": True,
            "Report": True,
        }
        press(app, "Make the files")
        assert launched == [("export", WORKLOAD, {"of": run.name, "data": "sample"})]
        assert app.query_params["run"] == run.name

    def test_while_they_are_made_it_says_how_far(self):
        run = quantize_run(*MEASURED)
        progress = ("progress", {"done": 100, "total": 400, "note": "images"})
        export_run(run.name, told()[0], progress, alive=True)
        app = open_page("export")
        assert not app.exception
        (bar,) = app.get("progress")
        assert bar.proto.text.startswith("images: 100 of 400")
        assert "Cancel" in [button.label for button in app.button]
        assert "What the bytes are" in texts(app.subheader)

    def test_finished_it_shows_what_the_files_are_worth(self):
        run = quantize_run(*MEASURED)
        export_run(run.name, *told(), ("finished", {}))
        app = open_page("export", run=run.name)
        assert not app.exception
        assert texts(app.success).endswith("1 of 2 layers run as integer kernels.")
        assert downloads(app) == {
            "Packed (2 KiB)": True,
            "ONNX (2 KiB)": True,
            "Plan (2 KiB)": True,
            "Loader": True,
            "Report": True,
        }
        sizes, layers = (table.value for table in app.dataframe)
        assert sizes["what"][0] == "promised"
        assert list(layers["runs as"]) == ["integer kernel", "dequantized float"]
        assert texts(app.caption).count("4-bit containers") == 1
        assert "set session.x64quantprecision to 1" in texts(app.caption)
        drawn = [c.proto.json for c in app.get("bidi_component") if c.proto.json]
        assert export.sizes_alt(FILE) in [json.loads(one)["alt"] for one in drawn]
        assert stands_out(app) == []
        assert "Make them again" in [button.label for button in app.button]

    @pytest.mark.parametrize(
        ("event", "says"),
        [
            (("failed", {"error": "dataset must hold images."}), "dataset must hold images."),
            (("cancelled", {}), "Cancelled."),
            (("started", {}), "The worker ended without a word"),  # crashed
        ],
    )
    def test_ended_early_it_can_be_resumed(self, event, says):
        run = quantize_run(*MEASURED)
        export_run(run.name, event)
        app = open_page("export")
        assert not app.exception
        assert says in texts(app.error) + texts(app.warning)
        assert stands_out(app) == ["Resume"]

    def test_another_network_can_be_chosen(self):
        first = tuning_run(SUMMARY.plan, *whole())
        second = quantize_run(*MEASURED)
        app = open_page("export", run=first.name)
        assert app.selectbox(key="exported").value == first.name
        app.selectbox(key="exported").set_value(second.name).run()
        assert app.query_params["run"] == second.name

    def test_a_refused_launch_is_one_sentence(self, monkeypatch):
        def refuse(*_, **__):
            raise ValueError("the folder of runs must be writable, but it is not.")

        quantize_run(*MEASURED)
        monkeypatch.setattr("engine.jobs.launch", refuse)
        app = open_page("export")
        press(app, "Make the files")
        assert texts(app.error) == "the folder of runs must be writable, but it is not."

    def test_the_loader_is_here(self):
        assert "def load_packed(path, model)" in SCRIPT.read_text()


class TestWords:
    def test_every_byte_has_its_line(self):
        table = export.packed_table(FILE)
        assert list(table["what"]) == [
            "promised",
            "packed weights",
            "scales",
            "biases",
            "plan",
            "layout",
            "container",
            "the file",
        ]
        assert list(table["bytes"]) == [1000, 1001, 104, 40, 300, 500, 11, 1956]
        assert table["bytes"][1:-1].sum() == FILE.file_bytes
        assert table["why"].iloc[-1] == "956 bytes, 95.5%, more than promised"

    def test_sizes_in_words(self):
        assert export.packed_says(FILE) == (
            "The packed weights take 1.0 KiB, 1.0 KiB were promised; the whole file 1.9 KiB."
        )
        whole = PackedFile(401.0, FILE.items[:1])
        assert export.packed_says(whole).startswith("The packed weights take 0.4 KiB, as promised;")
        assert export.sizes_alt(FILE) == (
            "Promised 1,000 bytes; in the file packed weights 1,001, scales 104, biases 40, plan "
            "300, layout 500, container 11."
        )

    def test_what_onnx_runtime_makes_of_it(self):
        assert export.onnx_says(checked()) == (
            "In ONNX Runtime 1.32.0 it reaches top-1 82.80% on 1,000 test images, -0.20 points "
            "against 83.00% in PyTorch; no output is more than 0.25 apart. 1 of 2 layers run as "
            "integer kernels."
        )
        assert export.onnx_says(checked("no kernel for it")) == (
            "ONNX Runtime 1.32.0 does not run it: no kernel for it."
        )
        table = export.onnx_table(WRITTEN, None)
        assert table.to_dict("list") == {
            "layer": ["conv1", "fc"],
            "bits": [8, 3],
            "container": ["INT8", "INT4"],
            "runs as": ["not known yet", "not known yet"],
        }

    def test_what_to_know_before_it_is_used_elsewhere(self):
        whole = OnnxExport(21, 2048, LAYERS[:1])
        assert export.onnx_notes(WRITTEN, checked()) == [export.PADDED, export.SATURATION]
        assert export.onnx_notes(whole, checked()) == [export.SATURATION]
        assert export.onnx_notes(whole, checked("no kernel for it")) == []
        assert export.onnx_notes(whole, None) == []
        shared = replace(checked(), exact_sums=False)
        assert export.onnx_notes(whole, shared) == [export.SATURATED]

    @pytest.mark.usefixtures("runs")
    def test_verdicts(self):
        from engine.jobs import view

        good = view(export_run("x", *told(), ("finished", {})).name)
        assert "Loaded again, its outputs on 32 test images are the same bit for bit. In ONNX" in (
            export.verdict(good)
        )
        refused = ("result", {"name": "onnx", "result": {"refused": "model must be another."}})
        bad = view(export_run("x", told(same=False)[0], refused, ("finished", {})).name)
        assert export.verdict(bad).endswith(
            "on 32 test images DIFFER. No ONNX file: model must be another."
        )
        assert export.onnx_of(bad) == (None, None)

    def test_the_chart_has_the_promise_and_every_part(self):
        figure = figures.sizes(FILE)
        assert [bar.name for bar in figure.data[1:]] == [
            kind for kind, count in FILE.by_kind.items() if count
        ]
        assert figure.data[0].x[0] == pytest.approx(1000.5 / 1024)
        assert sum(bar.x[0] for bar in figure.data[1:]) == pytest.approx(1956 / 1024)
        assert set(figures.COLOURS) == set(FILE.by_kind)
        assert set(export.KINDS) == set(FILE.by_kind)
