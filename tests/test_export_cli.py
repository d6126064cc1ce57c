"""`hawq-viz export` and `hawq-viz report`: what they print, write and refuse."""

import json
import re
import shutil
from dataclasses import asdict

import pytest
from made_up import LAYERS, made_up_analysis
from made_up_runs import WORKLOAD, result, tuning_run, whole, write_run
from reported import ANALYSIS, PLAN
from reported import stored as stored  # a fixture

from engine import load_workload, packed_sizes, quantize, save_quantized
from engine.analysis import Analysis
from engine.results import BitPlan, OnnxCheck, OnnxExport, PackedFile
from engine.workloads import stored_analysis
from hawq_viz import cli
from hawq_viz.viewmodels import measured
from hawq_viz.viewmodels.plans import summarize


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def rounded() -> str:
    options = measured.quantize_options(summarize(ANALYSIS, PLAN), "sample")
    found = (result("float", 0.92), result("plan", 0.83))
    return write_run("quantize", options, ("started", {}), *found, ("finished", {})).name


@pytest.mark.usefixtures("runs", "stored")
class TestReport:
    def test_it_is_written(self, capsys, tmp_path):
        out = tmp_path / "new" / "report.html"
        code, said, _ = run(capsys, "report", rounded(), "--out", out)
        assert code == 0
        assert re.fullmatch(rf"saved {out} \(\d\.\d MiB\), which needs nothing else\n", said)
        assert "How sensitive the weights are" in out.read_text()

    def test_in_json_and_without_its_analysis(self, capsys, tmp_path, stored):
        stored.unlink()
        name, out = tuning_run(PLAN, *whole()).name, tmp_path / "report.html"
        code, said, _ = run(capsys, "report", name, "--out", out, "--json")
        found = json.loads(said)
        assert code == 0
        assert found == {"out": str(out), "bytes": out.stat().st_size, "with_analysis": False}
        said = run(capsys, "report", name, "--out", out)[1]
        assert "without the plan's analysis, which is not here" in said

    def test_an_analysis_may_be_named(self, capsys, tmp_path, stored):
        kept = tmp_path / "kept.json"
        ANALYSIS.save(kept)
        stored.unlink()
        line = ("report", rounded(), "--out", tmp_path / "report.html", "--analysis", kept)
        assert json.loads(run(capsys, *line, "--json")[1])["with_analysis"] is True

    def test_what_cannot_be_is_refused(self, capsys, tmp_path):
        name, kept = rounded(), tmp_path / "kept.json"
        made_up_analysis("other", LAYERS[:3]).save(kept)
        code, _, said = run(capsys, "report", name, "--out", "report.txt")
        assert (code, said) == (
            2,
            "hawq-viz: --out must be a file that ends in .html, got 'report.txt'.\n",
        )
        line = ("--out", tmp_path / "report.html", "--analysis", kept)
        code, _, said = run(capsys, "report", name, *line)
        assert code == 2
        assert "--analysis must be of the plan's network, got one of other: " in said
        analyzed = write_run("analyze", {}, ("finished", {})).name
        code, _, said = run(capsys, "report", analyzed, *line)
        assert code == 2
        assert f"--analysis must come with the run of a plan, got {analyzed} with it." in said
        code, _, said = run(capsys, "report", "nope", "--out", tmp_path / "report.html")
        assert code == 2
        assert "run must be the id of one in " in said


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A folder as `hawq-viz quantize --out` writes it, and the plan in it."""
    analysis = Analysis.load(stored_analysis(WORKLOAD))
    folder, plan = tmp_path_factory.mktemp("made") / "net", analysis.frontier().within(100_000)
    model = quantize(load_workload(WORKLOAD), plan)
    save_quantized(model, folder)
    return folder, plan


class TestExport:
    def test_packed(self, capsys, tmp_path, quantized):
        (folder, plan), out = quantized, tmp_path / "new" / "net.packed.safetensors"
        line = ("export", folder, "--format", "packed", "--out", out, "--check")
        code, said, _ = run(capsys, *line)
        assert code == 0
        assert f"promised       {plan.size_bytes:>13,.0f} bytes  the plan: Σ n · b / 8\n" in said
        assert f"the file       {out.stat().st_size:>13,} bytes  " in said
        assert "loaded again, its outputs on 32 test images are the same bit for bit\n" in said
        sidecar = tmp_path / "new" / "net.packed.plan.json"
        assert said.endswith(f"saved {out}, and its plan in {sidecar}\n")
        found = json.loads(run(capsys, *line, "--json")[1])
        file = PackedFile.from_json(found["packed"])
        assert file == packed_sizes(out)
        assert (found["same"], found["images"], found["out"]) == (True, 32, str(out))
        assert BitPlan.load(sidecar).weight_bits == plan.weight_bits

    def test_the_plan_beside_it_makes_the_network_again(self, capsys, tmp_path, quantized):
        folder, _ = quantized
        for name in ("first", "again"):
            out = tmp_path / f"{name}.safetensors"
            assert run(capsys, "export", folder, "--format", "packed", "--out", out)[0] == 0
            folder = tmp_path / "made again"
            line = ("--plan", tmp_path / "first.plan.json", "--out", folder, "--max-images", 1)
            assert run(capsys, "quantize", WORKLOAD, *line)[0] == 0
        first, again = (tmp_path / f"{name}.safetensors" for name in ("first", "again"))
        assert first.read_bytes() == again.read_bytes()

    def test_onnx(self, capsys, tmp_path, quantized):
        folder, plan = shutil.copytree(quantized[0], tmp_path / "net"), quantized[1]
        line, out = ("export", folder, "--format", "onnx"), folder / "network.onnx"
        code, said, _ = run(capsys, *line)
        assert code == 0
        assert f"conv1                {plan.weight_bits['conv1']} bits in INT8\n" in said
        assert "Weights of 1 to 3 bits are stored in 4-bit containers, for ONNX Runtime" in said
        assert f"opset 21, {out.stat().st_size:,} bytes\n" in said
        code, said, _ = run(capsys, *line, "--check", "--max-images", 20)
        assert " bits in INT8, dequantized float\n" in said
        assert "of 22 layers run as integer kernels.\n" in said
        found = json.loads(run(capsys, *line, "--check", "--max-images", 20, "--json")[1])
        assert OnnxCheck.from_json(found["check"]).pytorch.samples == 20
        assert OnnxExport.from_json(found["onnx"]).file_bytes == out.stat().st_size

    @pytest.mark.usefixtures("runs")
    def test_a_run_is_named_by_its_id(self, capsys, tmp_path, quantized):
        folder, plan = quantized
        options = {"plan": asdict(plan), "data": "sample"}
        made = write_run("quantize", options, ("started", {}), ("finished", {}))
        shutil.copytree(folder, made / "quantized")
        out = tmp_path / "net.safetensors"
        line = ("export", made.name, "--format", "packed", "--out", out, "--json")
        code, said, _ = run(capsys, *line)
        assert code == 0
        assert json.loads(said)["plan"] == str(tmp_path / "net.plan.json")

    @pytest.mark.usefixtures("runs")
    def test_what_cannot_be_is_refused(self, capsys, tmp_path, quantized):
        folder, _ = quantized
        code, _, said = run(capsys, "export", folder, "--format", "onnx", "--out", "net.pb")
        assert (code, said) == (
            2,
            "hawq-viz: --out must be a file that ends in .onnx for --format onnx, got 'net.pb'.\n",
        )
        line = ("--format", "packed", "--out", tmp_path / "net.safetensors")
        code, _, said = run(capsys, "export", folder, *line, "--max-images", 3)
        assert (code, said) == (
            2,
            "hawq-viz: --max-images must come with --format onnx --check, got neither or one.\n",
        )
        code, _, said = run(capsys, "export", "nope", *line)
        assert code == 2
        assert "run must be the id of one in " in said
        code, _, said = run(capsys, "export", tmp_path, *line)
        assert code == 1
        assert f"{tmp_path / 'plan.json'} must be a saved plan, but cannot be read" in said
