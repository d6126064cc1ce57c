"""A view in a URL comes back from it, and nothing else gets in."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from engine.analysis import COSTS
from hawq_viz import state
from hawq_viz.view import MOST_PINS, PLANNED, SEVERAL, SORTS, View, decode, encode
from hawq_viz.viewmodels.run_table import KINDS, STATES

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}", fullmatch=True)
identifiers = st.one_of(st.just(""), names)
opened = st.one_of(st.just(""), st.from_regex(r"[1-8]{1,60}", fullmatch=True))
sizes = st.one_of(st.none(), st.floats(min_value=0.125, max_value=1e15))


overlays = st.lists(names, max_size=5).map(",".join)


places = st.integers(0, 9999).map(str)
locks = st.dictionaries(places, st.integers(1, 8), max_size=4).map(
    lambda held: ",".join(f"{place}:{bits}" for place, bits in held.items())
)
pins = st.tuples(opened, opened).filter(any).map(lambda x: f"{x[0]}.{x[1]}" if x[1] else x[0])
views = st.builds(
    View,
    workload=identifiers,
    analysis=identifiers,
    cost=st.sampled_from(("", *COSTS, SEVERAL)),
    **dict.fromkeys(COSTS, sizes),
    fixed=st.sampled_from(("", "2", "8", PLANNED)),
    table=st.one_of(st.just(""), st.from_regex(r"[0-9a-f]{12}", fullmatch=True)),
    run=identifiers,
    overlay=overlays,
    bits=opened,
    abits=opened,
    activation=st.one_of(st.just(""), st.sampled_from(("conv<1>", "layer1.0 é/ü", "a&b=c"))),
    at=st.one_of(st.none(), st.integers(1, 8)),
    layer=st.one_of(st.just(""), st.sampled_from(("conv<1>", "layer1.0 é/ü", "a&b=c"))),
    sort=st.sampled_from(("", *SORTS)),
    locked=locks,
    alocked=locks,
    tied=st.lists(st.lists(places, min_size=1, max_size=4).map("-".join), max_size=3).map(",".join),
    widths=st.sets(st.sampled_from("12345678")).map(lambda widths: "".join(sorted(widths))),
    pins=st.lists(pins, max_size=MOST_PINS).map(",".join),
    low=sizes,
    high=sizes,
    band=st.sampled_from(("", "on")),
    compare=st.lists(names, min_size=2, max_size=2).map(",".join),
    network=identifiers,
    find=st.one_of(st.just(""), st.sampled_from(("seed 3", "<b> & é=?", "4 bits"))),
    kind=st.sampled_from(("", *KINDS)),
    state=st.sampled_from(("", *STATES)),
)


@given(views)
def test_a_view_comes_back_from_its_url(view):
    parameters = encode(view)
    assert all(isinstance(value, str) and value for value in parameters.values())
    assert decode(parameters) == view


def test_one_view_as_people_see_it():
    view = View("resnet20-cifar10", size=135424.0, run="20260101-120000-quantize-resnet20-00ff")
    assert encode(view) == {
        "workload": "resnet20-cifar10",
        "size": "135424",
        "run": "20260101-120000-quantize-resnet20-00ff",
    }


@pytest.mark.parametrize("size", ["", "large", "nan", "inf", "-3", "0", "1e999", "1e300", "5e-324"])
def test_a_size_that_is_none_is_passed_over(size):
    assert decode({"size": size}).size is None


@pytest.mark.parametrize("run", ["../../etc/passwd", "a/b", ".hidden", "<b>", "x" * 200, "a b"])
def test_what_could_not_be_an_identifier_is_passed_over(run):
    assert decode({"run": run, "analysis": run}) == View()


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\nb"])
def test_what_could_not_be_a_network_is_passed_over(name):
    assert decode({"workload": name}) == View()


@pytest.mark.parametrize("bits", ["0", "9", "4x", "44 ", "4" * 1001])
def test_what_could_not_be_bits_is_passed_over(bits):
    assert decode({"bits": bits}) == View()


@pytest.mark.parametrize("overlay", ["a,,b", "a,../b", ",", "a,b,c,d,e,f", "a b"])
def test_what_could_not_be_an_overlay_is_passed_over(overlay):
    assert decode({"overlay": overlay}) == View()


def test_the_watched_run_is_not_drawn_over_itself():
    assert View(run="a", overlay="b,a,c").overlaid == ("b", "c")
    assert View().overlaid == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cost", "money"),
        ("fixed", "9"),
        ("fixed", "plans"),
        ("table", "../etc"),
        ("abits", "0"),
        ("activation", "x" * 201),
        ("activation", "a\nb"),
        ("at", "0"),
        ("at", "44"),
        ("bops", "-1"),
        ("latency", "nan"),
    ],
)
def test_what_no_view_could_have_written_is_passed_over(name, text):
    assert decode({name: text}) == View()


def test_a_view_knows_its_axis_and_its_budgets():
    assert (View().axis, View(size=3.0).budget) == ("size", 3.0)
    several = View(cost=SEVERAL, size=100.0, bops=7.0)
    assert (several.axis, several.budget) == ("bops", 7.0)
    assert several.budgets == {"size": 100.0, "bops": 7.0}


def test_parameters_of_others_are_passed_over():
    assert decode({"embed": "true"}) == View()


def slow_page() -> None:
    """A page whose script takes five seconds of a clock that does not run by itself."""
    import streamlit as st

    from hawq_viz import state

    state.restore()
    st.button("another", on_click=state.change, kwargs={"workload": "retinanet-shapes"})
    st.text(state.current().workload)
    state.time.pass_by(5.0)
    state.ran()


def test_a_url_the_browser_sends_before_it_sees_ours_is_not_taken(monkeypatch):
    clock = [0.0]

    def pass_by(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(state, "time", SimpleNamespace(monotonic=lambda: clock[0], pass_by=pass_by))
    app = AppTest.from_function(slow_page)
    old = {"workload": "resnet20-cifar10"}
    app.query_params.update(old)
    app.run()
    app.button[0].click().run()
    assert app.text[0].value == "retinanet-shapes"
    app.query_params.clear()
    app.query_params.update(old)
    app.run()  # asked for while the script ran
    assert app.text[0].value == "retinanet-shapes"
    pass_by(2.0)
    app.query_params.update(old)
    app.run()  # the browser's button Back
    assert app.text[0].value == "resnet20-cifar10"
