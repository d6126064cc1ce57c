"""What the tests of the report tell of: an analysis and a plan of it, both made up."""

from pathlib import Path

import pytest
from made_up import made_up_activations, made_up_analysis

import hawq_viz.report

ANALYSIS = made_up_activations(made_up_analysis())
PLAN = ANALYSIS.frontier("bops").within(ANALYSIS.uniform(4, 4).costs["bops"])


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The analysis in place of the one that comes along."""
    path = tmp_path / "stored.analysis.json"
    ANALYSIS.save(path)
    monkeypatch.setattr(hawq_viz.report, "stored_analysis", lambda _: path)
    return path
