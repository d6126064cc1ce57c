"""`hawq-viz report`: what it prints, writes and refuses."""

import json
import re

import pytest
from made_up import LAYERS, made_up_analysis
from made_up_runs import result, tuning_run, whole, write_run
from reported import ANALYSIS, PLAN
from reported import stored as stored  # a fixture

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
