"""The networks that the dashboard offers, where their files lie, and what is refused."""

import hashlib
import re

import pytest
from live import SLEEPS, asleep, workload_file
from opened import open_page, texts

from engine import jobs
from engine.results import FormatError
from engine.workloads import workload_names
from hawq_viz import networks
from hawq_viz.viewmodels import checklist

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:12]


@pytest.fixture
def own(monkeypatch, tmp_path) -> str:
    spec = workload_file(tmp_path, SLEEPS, "my")
    monkeypatch.setenv(networks.OWN_FILE, spec)
    return spec


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


# --- the operator's own


def test_without_a_file_the_known_networks_are_offered(monkeypatch):
    monkeypatch.delenv(networks.OWN_FILE, raising=False)
    assert networks.network_names() == workload_names()
    assert networks.own_name() is None


@pytest.mark.usefixtures("own")
def test_the_operators_own_comes_first():
    assert networks.network_names() == ("my.py:make", *workload_names())
    assert networks.is_own("my.py:make")


def test_its_runs_name_the_file(own):
    run = jobs.view(networks.launch("analyze", "my.py:make", {"data": "sample", "seed": 1}))
    asleep(run.id)
    jobs.cancel(run.id)
    assert (run.workload, run.workload_file, run.options) == ("my.py:make", own, {"seed": 1})
    assert [one.id for one in networks.runs_here(jobs.list_runs())] == [run.id]


@pytest.mark.usefixtures("own")
def test_runs_of_another_file_of_that_name_are_not_its_own(monkeypatch, tmp_path):
    run_id = networks.launch("analyze", "my.py:make", {})
    asleep(run_id)
    jobs.cancel(run_id)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(networks.OWN_FILE, workload_file(tmp_path / "other", SLEEPS, "my"))
    assert networks.own_name() == "my.py:make"
    assert networks.runs_here(jobs.list_runs()) == []


@pytest.mark.usefixtures("own")
def test_the_page_offers_it_and_says_what_to_do():
    app = open_page()
    assert not app.exception
    assert app.selectbox(key="workload").value == "my.py:make"
    assert texts(app.info) == "my.py:make has not been analyzed yet."


@pytest.mark.usefixtures("own")
def test_a_link_cannot_choose_a_file():
    app = open_page(workload="/etc/other.py:make")
    assert not app.exception
    assert texts(app.error).startswith("workload must be one of ")


# --- uploaded weights


def test_uploads_are_kept_by_fingerprint(folder):
    name = networks.keep_weights("torchvision/resnet18", "my net.pth", CONTENT)
    assert name == f"torchvision/resnet18@{DIGEST}"
    assert networks.weights_of(name).read_bytes() == CONTENT
    assert networks.weights_of(name).is_relative_to(folder)
    assert networks.network_names()[-1] == name
    assert networks.keep_weights(name, "again.pth", CONTENT) == name


def test_runs_of_uploads_name_the_file(monkeypatch):
    asked = []
    monkeypatch.setattr(jobs, "launch", lambda *a, **k: asked.append((a, k)) or "id")
    name = networks.keep_weights("resnet20-cifar10", "w.safetensors", CONTENT)
    assert networks.launch("analyze", name, {"seed": 1}) == "id"
    assert asked == [(("analyze", name, {"seed": 1}), {"weights": networks.weights_of(name)})]


def test_other_kinds_of_files_are_refused():
    text = (
        "weights must be a file that ends in .safetensors, .pth, .pt, got 'net.pkl': save a state "
        "dict as safetensors."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        networks.keep_weights("resnet20-cifar10", "net.pkl", CONTENT)


@pytest.mark.parametrize("name", ["../../etc", "resnet20-cifar10/../x", "torchvision/../x"])
def test_weights_lead_nowhere_else(name):
    with pytest.raises(ValueError, match=r"^workload must "):
        networks.keep_weights(name, "w.pth", CONTENT)
    with pytest.raises(ValueError, match=r"^workload must "):
        networks.weights_of(f"{name}@{DIGEST}")


def test_weights_that_are_gone_say_what_to_do(folder):
    name = f"resnet20-cifar10@{DIGEST}"
    text = (
        f"the weights of {name} must be in {folder / 'weights'}, but are not: upload them again "
        "under “Your own weights”."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        networks.weights_of(name)


def test_a_folder_that_cannot_be_written_is_named(folder):
    folder.write_text("")
    said = rf"^the folder of weights, {folder}/weights, must be writable, but .*HAWQ_VIZ_RUNS\.$"
    with pytest.raises(FormatError, match=said):
        networks.keep_weights("resnet20-cifar10", "w.pth", CONTENT)


def test_what_else_lies_there_is_passed_over(folder):
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "other@1.pth").write_bytes(b"")
    assert networks.network_names() == workload_names()


def test_a_network_with_uploaded_weights_is_not_offered_the_published_analysis():
    name = networks.keep_weights("resnet20-cifar10", "w.pth", CONTENT)
    app = open_page(workload=name)
    assert not app.exception
    assert app.selectbox(key="workload").value == name
    assert texts(app.info) == f"{name} has not been analyzed yet."


# --- what was found of a network


class Run:
    def __init__(self, **results):
        self.results = results


def test_findings_are_paragraphs_that_show_as_they_are():
    told = [{"severity": "problem", "subject": "a_b*", "sentence": "No <b>."}, {"severity": "x"}]
    assert checklist.findings(Run(checklist={"findings": told})) == [
        ":material/warning: **a\\_b\\***  \nNo \\<b\\>."
    ]
    assert checklist.findings(Run(checklist={"findings": []})) == []
    for nothing in (None, Run(), Run(checklist={}), Run(checklist={"findings": 3})):
        assert checklist.findings(nothing) is None


def test_the_heading_counts_them():
    assert checklist.title([]) == "What to know of this network: nothing found"
    assert checklist.title(["a"]) == "What to know of this network: 1 finding"
    assert checklist.title(["a", "b"]) == "What to know of this network: 2 findings"
