"""What a link, an upload or a damaged run folder may hold: every page answers in a sentence."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from made_up import made_up_activations, made_up_analysis
from made_up_runs import WORKLOAD, opening, training, tuning_run, whole, write_run
from opened import APP
from streamlit.testing.v1 import AppTest
from torch import nn

from engine import jobs
from engine.analysis import COSTS
from engine.jobs.folders import EVENTS, PROCESS, SPEC
from engine.weights import load_weights
from hawq_viz import networks, state
from hawq_viz.view import KNOWN, MOST_LETTERS, View, decode, encode
from hawq_viz.viewmodels.costs import empty_table
from hawq_viz.viewmodels.plans import opened_plan, plan_file

ANALYSIS = made_up_activations(made_up_analysis())
PLAN = ANALYSIS.uniform(4)
PAGES = ("home", "sensitivity", "frontier", "quantize", "runs", "export")
NAMES = [name for name in KNOWN if name != "workload"]
NUMBERS = [*COSTS, "low", "high", "at"]
NOT_HERE = "20260101-000000-analyze-resnet20-cifar10-0000"


@pytest.fixture(scope="module", autouse=True)
def _place(tmp_path_factory):
    """A folder of runs for this file, and an analysis in place of the one that comes along."""
    folder = tmp_path_factory.mktemp("hostile")
    ANALYSIS.save(folder / "stored.analysis.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAWQ_VIZ_RUNS", str(folder / "runs"))
        patch.setattr(state, "stored_analysis", lambda _: folder / "stored.analysis.json")
        patch.setattr(state, "SECONDS_UNSEEN", -1.0)  # every URL is one that was typed
        yield
        Opened.apps.clear()


class Opened:
    """One session a page: what each link finds is the page as it was left, and an own view."""

    apps: dict[str, AppTest] = {}  # noqa: RUF012

    @classmethod
    def at(cls, page: str, parameters: dict[str, str | list[str]]) -> AppTest:
        if page not in cls.apps:
            cls.apps[page] = app = AppTest.from_file(APP, default_timeout=120).run()
            if page != "home":
                app.switch_page(f"../pages/{page}.py")
        app = cls.apps[page]
        app.session_state["_view"] = View(workload=WORKLOAD)
        app.query_params.clear()
        app.query_params.update(parameters)
        return app.run()


def said(app: AppTest) -> str:
    """All that is written on the page."""
    kinds = (app.error, app.warning, app.info, app.success, app.markdown, app.caption, app.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def holds_up(app: AppTest) -> None:
    """See that a page shows no traceback, and leads on."""
    assert not app.exception
    words = said(app)
    assert "Traceback" not in words
    assert "The page failed" not in words
    ways = [button for button in app.main.button if not button.disabled]
    bare = len(app.main.children) == 1
    assert bare or ways or app.main.get("page_link") or app.main.selectbox, "nothing to do next"


# --- links

TEXTS = {
    "empty": "",
    "blank": "   ",
    "zero": "0",
    "negative": "-1",
    "huge": "9" * 400,
    "float": "1e999",
    "nan": "nan",
    "infinite": "-inf",
    "hexadecimal": "0x10",
    "null": "\0",
    "newline": "a\nb\r",
    "replacement": "\ufffd\ufffd",
    "right to left": "\u202eabc",
    "arabic digits": "٣٣٣٣٣٣",
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "path": "../../../../etc/passwd",
    "windows path": "..\\..\\con",
    "url": "file:///etc/passwd",
    "SQL": "' OR 1=1; DROP TABLE runs; --",
    "format": "%s%n{0.__class__}${7*7}",
    "markdown": "![x](http://x) **b** `c` $\\frac$",
    "JSON": '{"__proto__": {}}',
    "long": "x" * 100_000,
    "commas": ",,,,",
    "python": "__import__('os').system('true')",
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_parameter_may_hold_anything(page, text):
    holds_up(Opened.at(page, dict.fromkeys([*NAMES, *NUMBERS], text)))


@pytest.mark.parametrize("name", ["workload", *NAMES, *NUMBERS])
def test_what_is_taken_from_a_link_could_have_been_written(name):
    for text in (*TEXTS.values(), "\ud800"):
        view = decode({name: text})
        assert decode(encode(view)) == view
        assert view == View() or len(text) <= MOST_LETTERS


LINKS = {
    "repeated": {"size": ["1500", "x"], "bits": ["444444", "4"]},
    "unknown parameters": {"__class__": "x", "_view": "x", "page": "../app.py"},
    "budget below all": {"size": "0.000001"},
    "budget above all": {"size": "1e18", "cost": "size"},
    "least of everything": {"cost": "several", **dict.fromkeys(COSTS, "0.000001")},
    "no table": {"cost": "latency", "table": "0123456789ab"},
    "no analysis": {"analysis": NOT_HERE},
    "no run": {"run": NOT_HERE, "overlay": f"{NOT_HERE},{NOT_HERE}"},
    "compared with nothing": {"compare": f"{NOT_HERE},{NOT_HERE}"},
    "a run is its own rival": {"run": NOT_HERE, "overlay": NOT_HERE, "compare": f"{NOT_HERE},x"},
    "no layer": {"layer": "nowhere", "at": "8"},
    "no activation": {"activation": "<b>nowhere</b>", "at": "1"},
    "bits not analyzed": {"bits": "111111", "abits": "1111"},
    "bits of more layers": {"bits": "4" * 1000, "abits": "8" * 1000},
    "locked beyond": {"locked": "9999:4", "alocked": "9999:4"},
    "locked at 1 bit": {"locked": "0:1", "alocked": "0:1"},
    "locked twice": {"locked": "0:4,0:8"},
    "locked everywhere": {"locked": ",".join(f"{i}:2" for i in range(1000))},
    "tied beyond": {"tied": "0-9999"},
    "tied to itself": {"tied": "1-1-1"},
    "tied and locked apart": {"tied": "0-1", "locked": "0:2,1:8"},
    "all tied": {"tied": "-".join(map(str, range(6))), "cost": "bops"},
    "widths not analyzed": {"widths": "1"},
    "one width": {"widths": "3", "locked": "0:8"},
    "pins of another network": {"pins": "44,4444444444,2.2"},
    "pins of float": {"pins": ".8888,444444.8888,444444"},
    "looked at nothing": {"low": "1e18", "high": "1e18"},
    "looked at backwards": {"low": "1500", "high": "10"},
    "everything at once": {
        "cost": "several",
        "size": "1500",
        "locked": "0:8",
        "alocked": "0:8",
        "tied": "1-2",
        "widths": "48",
        "pins": "444444.8888",
        "band": "on",
        "low": "1",
        "high": "2000",
        "sort": "omega",
    },
}


@pytest.mark.parametrize("page", ["frontier", "quantize"])
@pytest.mark.parametrize("parameters", LINKS.values(), ids=LINKS)
def test_a_link_may_ask_for_what_is_not_there(page, parameters):
    holds_up(Opened.at(page, parameters))


@pytest.mark.parametrize("page", ["home", "sensitivity", "runs", "export"])
@pytest.mark.parametrize(
    "link", ["everything at once", "no run", "compared with nothing", "repeated", "no analysis"]
)
def test_so_may_links_to_other_pages(page, link):
    holds_up(Opened.at(page, LINKS[link]))


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "name", ["resnet21-cifar10", "../x", f"{WORKLOAD}@<b>", "retinanet-shapes@../x", "\u202ex"]
)
def test_a_network_that_is_not_known_is_a_sentence(page, name):
    app = Opened.at(page, {"workload": name})
    holds_up(app)


def test_an_analysis_of_another_network_is_a_sentence():
    other = write_run("analyze", {}, ("started", {}), ("finished", {}), workload="retinanet-shapes")
    for page in ("sensitivity", "frontier", "quantize"):
        app = Opened.at(page, {"analysis": other.name})
        holds_up(app)
        assert "must be a run that analyzed" in said(app)
    jobs.delete(other.name)


# --- uploads


def plan_json(**changes: object) -> bytes:
    whole_plan = json.loads(saved_plan())
    return json.dumps({**whole_plan, **changes}).encode()


def saved_plan() -> bytes:
    return plan_file(PLAN)


def plan_bits(bits: object, **more: object) -> bytes:
    return plan_json(weight_bits={**dict.fromkeys(PLAN.weight_bits, bits), **more})


PLANS = {
    "cut": saved_plan()[:100],
    "empty": b"",
    "not JSON": b"PK\x03\x04 not JSON",
    "not text": b"\xff\xfe\x00\x80",
    "a number": b"3",
    "a list": b"[1, 2]",
    "null": b"null",
    "another kind": plan_json(kind="analysis", format="analysis"),
    "another version": plan_json(version=99, format_version=99),
    "another network": plan_json(workload="retinanet-shapes"),
    "no bits": plan_json(weight_bits={}),
    "a list of bits": plan_json(weight_bits=[4, 4]),
    "unknown layers": plan_bits(4, nowhere=4),
    "0 bits": plan_bits(0),
    "9 bits": plan_bits(9),
    "1 bit": plan_bits(1),
    "-4 bits": plan_bits(-4),
    "half a bit": plan_bits(4.5),
    "true bits": plan_bits(True),
    "text for bits": plan_bits("4"),
    "deep": b"[" * 5_000_000,
    "deep and closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "huge number": b'{"weight_bits": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", PLANS.values(), ids=PLANS)
def test_a_plan_that_is_none_is_refused_in_a_sentence(content):
    app = Opened.at("frontier", {})
    app.file_uploader(key="opened").set_value(("mine.json", content, "application/json")).run()
    holds_up(app)
    assert [error.value for error in app.error]
    assert "bits" not in app.query_params


def test_a_plan_without_bits_is_refused_by_name():
    text = "mine.json must be a plan that rounds something, got one without bits."
    with pytest.raises(ValueError, match=f"^{text}$"):
        opened_plan("mine.json", PLANS["no bits"], ANALYSIS)


TABLE = "\n".join(f"{row}1.5" if i else row for i, row in enumerate(empty_table(ANALYSIS).split()))
TABLES = {
    "empty": "",
    "other columns": "a,b\n1,2\n",
    "missing rows": "\n".join(TABLE.splitlines()[:5]),
    "negative": TABLE.replace("1.5", "-1.5"),
    "NaN": TABLE.replace("1.5", "nan"),
    "infinite": TABLE.replace("1.5", "1e999"),
    "text": TABLE.replace("1.5", "fast"),
    "twice": TABLE + "\n" + TABLE.splitlines()[1],
    "half a row": TABLE + "\nfc",
    "nulls": "\0" * 100,
    "not UTF-8": b"layer,w_bits,a_bits,ms\n\xff\xfe,4,4,1\n",
    "huge bits": TABLE.replace(",2,", f",{'9' * 5000},"),
    "huge field": "layer,w_bits,a_bits,ms\n" + "x" * 200_000 + ",4,4,1\n",
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_of_times_that_is_none_is_refused_in_a_sentence(content):
    content = content.encode() if isinstance(content, str) else content
    app = Opened.at("frontier", {"cost": "latency"})
    app.file_uploader(key="latency_file").set_value(("mine.csv", content, "text/csv")).run()
    holds_up(app)
    assert "mine.csv" in "\n".join(x.value for x in app.error)


@pytest.mark.parametrize(
    "name", ["../../escaped.json", "..", ".", "/etc/passwd", "a\0b.json", "x" * 5000]
)
def test_a_file_may_have_any_name(name):
    with pytest.raises(ValueError, match="must"):
        state.keep_table(name, b"nothing")


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.pth", b""),
        ("net.pth", b"garbage"),
        ("net.safetensors", b"\xff" * 64),
        ("../../net.pt", b"garbage"),
        ("a\0b.pth", b"garbage"),
        ("<b>.pth", b"garbage"),
        ("pickle.pth", None),
    ],
)
def test_weights_are_kept_unread_under_a_name_of_ours(name, content, tmp_path):
    trap = tmp_path / "ran"
    content = pickle.dumps(Runs(trap)) if content is None else content
    kept = networks.keep_weights(WORKLOAD, name, content)
    assert networks.weights_of(kept).parent == networks.weights_folder()
    for page in ("sensitivity", "frontier", "quantize"):
        holds_up(Opened.at(page, {"workload": kept}))
    assert not trap.exists()
    networks.weights_of(kept).unlink()


@pytest.mark.parametrize("name", ["net.exe", "net", "", ".pth.", "x" * 5000])
def test_weights_of_other_kinds_are_refused(name):
    with pytest.raises(ValueError, match="weights must be a file that ends in"):
        networks.keep_weights(WORKLOAD, name, b"")


def test_a_pickle_that_would_run_is_refused_by_the_reader(tmp_path):
    trap = tmp_path / "ran"
    (tmp_path / "net.pth").write_bytes(pickle.dumps(Runs(trap)))
    with pytest.raises(ValueError, match="must hold the weights of Linear"):
        load_weights(nn.Linear(1, 1), tmp_path / "net.pth")
    assert not trap.exists()


# --- runs damaged on disk


def cut(file: str):
    def damage(folder: Path) -> None:
        whole_file = (folder / file).read_bytes()
        (folder / file).write_bytes(whole_file[: len(whole_file) // 2])

    return damage


def remove(file: str):
    return lambda folder: (folder / file).unlink()


def write(file: str, content: bytes):
    return lambda folder: (folder / file).write_bytes(content)


def many_lines(folder: Path) -> None:
    rows = [
        {"event": "step"},
        {"event": "step", "step": "x", "steps": [], "loss": None, "epoch": {}, "learning_rate": ""},
        {"event": "measurement", "step": -1, "test": 3, "held_out": None, "best": "no"},
        {"event": "result", "name": "plan", "result": "none"},
        {"event": "result", "name": ["x"], "result": {"value": "high"}},
        {"event": "progress", "done": -5, "total": 0, "note": "<b>"},
        {"event": "reference", "test": [], "held_out": 1},
        {"event": "failed", "error": None},
        {"event": "nothing"},
        7,
        None,
    ]
    with (folder / EVENTS).open("a") as events:
        events.writelines(json.dumps(row) + "\n" for row in rows)
        events.write('{"event": "step", "step": NaN, "time": 1e999}\n')


DAMAGES = {
    "spec cut": cut(SPEC),
    "spec gone": remove(SPEC),
    "spec of another kind": write(SPEC, b'{"kind": "plan"}'),
    "spec deep": write(SPEC, b"[" * 100_000),
    "events cut": cut(EVENTS),
    "events gone": remove(EVENTS),
    "events garbage": write(EVENTS, b"\xff\xfe{}\n[]\n{}\n\n{\n"),
    "events of odd values": many_lines,
    "process garbage": write(PROCESS, b"[]"),
    "process gone": remove(PROCESS),
    "analysis cut": cut("analysis.json"),
    "analysis gone": remove("analysis.json"),
    "traces gone": remove("analysis.safetensors"),
    "traces cut": cut("analysis.safetensors"),
    "log of bytes": write("log.txt", bytes(range(256)) * 100),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_run_may_be_damaged_on_disk(page, damage):
    folder = tuning_run(PLAN, *opening(), *training(40), log="the log")
    analyzed = write_run("analyze", {}, ("started", {}), ("finished", {}))
    for of in (folder, analyzed):
        ANALYSIS.save(of / "analysis.json")
        damage(of)
    sound = tuning_run(PLAN, *whole())
    link = {"run": folder.name, "overlay": sound.name, "compare": f"{folder.name},{sound.name}"}
    of = {"analysis": analyzed.name} if page == "frontier" else {}
    holds_up(Opened.at(page, {**link, **of}))
    remove_all(folder, analyzed, sound)


def remove_all(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder)
