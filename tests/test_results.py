"""Records come back as they were saved; files that are something else say so in one sentence."""

import json
import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.results import (
    BitPlan,
    Evaluation,
    FormatError,
    Provenance,
    TraceEstimate,
    check_bits,
    metric_text,
    read_json,
    wilson_interval,
    write_json,
)

PROVENANCE = Provenance(0, "2 images", "ab12", "hawq-viz analyze x", {"python": "3.11"}, "2024")
PLAN = BitPlan("toy", {"a": 8, "b": 2}, size_bytes=12.5, omega=0.25, made_by={"cost": "size"})
EVALUATION = Evaluation("top1", 0.5, (0.4, 0.6), 100, 1.5, 0.1, PROVENANCE)

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(max_size=8)
bits = st.integers(1, 8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
provenances = st.builds(
    Provenance, st.integers(), names, names, names, st.dictionaries(names, names, max_size=2), names
)
plans = st.builds(
    BitPlan,
    workload=names,
    weight_bits=st.dictionaries(names, bits, max_size=4),
    size_bytes=finite,
    omega=finite,
    made_by=st.dictionaries(names, json_values, max_size=3),
    activation_bits=st.dictionaries(names, bits, max_size=2),
)
evaluations = st.builds(
    Evaluation,
    metric=names,
    value=finite,
    interval=st.tuples(finite, finite),
    samples=st.integers(0),
    loss=finite,
    loss_sem=finite,
    provenance=provenances,
)


# --- round trips


@given(st.one_of(plans, evaluations))
def test_records_come_back(record):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new folder" / "record.json"
        record.save(path)
        assert type(record).load(path) == record
        assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_layers_keep_their_order(tmp_path):
    plan = replace(PLAN, weight_bits={"z": 2, "a": 3, "m": 4})
    plan.save(tmp_path / "plan.json")
    assert list(BitPlan.load(tmp_path / "plan.json").weight_bits) == ["z", "a", "m"]


def test_plan_file(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == {
        "kind": "plan",
        "version": 1,
        "workload": "toy",
        "weight_bits": {"a": 8, "b": 2},
        "size_bytes": 12.5,
        "omega": 0.25,
        "made_by": {"cost": "size"},
        "activation_bits": {},
        "quantizer": {},
        "costs": {},
    }


@given(st.dictionaries(names.filter(lambda x: x not in ("kind", "version")), json_values))
def test_json_comes_back(fields):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        write_json(path, "thing", fields)
        assert read_json(path, "thing") == fields


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "plan.json"
    PLAN.save(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(PLAN, omega=math.nan).save(path)
    assert BitPlan.load(path) == PLAN
    assert list(tmp_path.iterdir()) == [path]


def test_evaluation_to_json_and_back():
    fields = json.loads(json.dumps(EVALUATION.to_json()))
    assert Evaluation.from_json(fields) == EVALUATION


def test_provenance_says_versions_and_when():
    made = Provenance(1, "data", "fingerprint", "command")
    assert made.versions["numpy"] == np.__version__
    assert {"python", "torch", "torchvision", "hawq-viz"} <= made.versions.keys()
    assert datetime.fromisoformat(made.created).tzinfo is not None


# --- wrong files


@pytest.fixture
def path(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def sentence_of(load, path):
    with pytest.raises(FormatError) as caught:
        load(path)
    assert isinstance(caught.value, ValueError)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence.replace(str(path), "FILE")


def test_missing_file(tmp_path):
    path = tmp_path / "none.json"
    assert sentence_of(BitPlan.load, path) == (
        "FILE must be a saved plan, but cannot be read: "
        "[Errno 2] No such file or directory: 'FILE'."
    )


def test_folder_in_place_of_a_file(tmp_path):
    assert "but cannot be read: [Errno 21] Is a directory" in sentence_of(BitPlan.load, tmp_path)


def test_binary_file(path):
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert sentence_of(BitPlan.load, path).startswith(
        "FILE must be a saved plan, but cannot be read: 'utf-8' codec can't decode byte 0x89"
    )


def test_cut_file(path):
    whole = path.read_text()
    for length in range(len(whole.rstrip())):
        path.write_text(whole[:length])
        assert sentence_of(BitPlan.load, path).startswith(
            "FILE must be a saved plan, but is not whole JSON ("
        )
    assert sentence_of(BitPlan.load, path).endswith("): save it again.")


def test_no_json(path):
    path.write_text("layer,bits\n")
    assert sentence_of(BitPlan.load, path) == (
        "FILE must be a saved plan, but is not whole JSON "
        "(Expecting value: line 1 column 1 (char 0)): save it again."
    )


@pytest.mark.parametrize("text", ["[1, 2]", "3", "{}", '{"kind": null}'])
def test_other_json(path, text):
    path.write_text(text)
    assert sentence_of(BitPlan.load, path) == "FILE must be a saved plan, got another file."


def test_other_kind(path):
    assert sentence_of(Evaluation.load, path) == "FILE must be a saved evaluation, got plan."


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_other_version(path, version):
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": version}))
    assert sentence_of(BitPlan.load, path) == (
        f"FILE must have format version 1, got {version}: make the plan again with this release."
    )


def change(path, **fields):
    document = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not ...}))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"omega": ...}, "missing 1 required positional argument: 'omega'"),
        ({"surprise": 1}, "got an unexpected keyword argument 'surprise'"),
        ({"weight_bits": [8]}, "'list' object has no attribute 'items'"),
        (
            {"weight_bits": {"a": 9}},
            "weight_bits['a'] must be a whole number of bits in 1…8, got 9.",
        ),
    ],
)
def test_wrong_fields(path, fields, why):
    change(path, **fields)
    sentence = sentence_of(BitPlan.load, path)
    assert sentence.startswith("FILE must hold every field of a saved plan, but ")
    assert why in sentence
    assert sentence.endswith(": save it again.")


def test_wrong_fields_of_an_evaluation(path):
    EVALUATION.save(path)
    change(path, interval=...)
    assert sentence_of(Evaluation.load, path) == (
        "FILE must hold every field of a saved evaluation, but 'interval': save it again."
    )


def test_other_errors_pass_through(path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(BitPlan, "__post_init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        BitPlan.load(path)


# --- bits


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_that_are_allowed(bits):
    assert check_bits(bits, "bits") == bits


@pytest.mark.parametrize("bits", [0, 9, -1, 4.0, "4", True, None])
def test_bits_that_are_not(bits):
    with pytest.raises(ValueError, match="whole number") as caught:
        check_bits(bits, "bit_widths")
    assert str(caught.value) == f"bit_widths must be a whole number of bits in 1…8, got {bits!r}."


@pytest.mark.parametrize("field", ["weight_bits", "activation_bits"])
def test_plans_check_their_bits(field):
    with pytest.raises(ValueError, match="bits in") as caught:
        replace(PLAN, **{field: {"conv1": 16}})
    assert str(caught.value) == (f"{field}['conv1'] must be a whole number of bits in 1…8, got 16.")


@pytest.mark.parametrize(
    ("bits", "summary"),
    [([8, 4, 4, 4, 2], "8 4×3 2"), ([3], "3"), ([], ""), ([2, 2, 8, 2], "2×2 8 2")],
)
def test_plan_summary(bits, summary):
    weight_bits = {f"layer{i}": b for i, b in enumerate(bits)}
    assert replace(PLAN, weight_bits=weight_bits).summary == summary


# --- intervals


@given(finite.map(lambda x: x % 100), st.floats(1e-6, 100), st.integers(2, 500))
def test_trace_interval_is_student_t(mean, sem, samples):
    estimate = TraceEstimate(mean, sem, samples, exact=True)
    expected = stats.t.interval(0.95, samples - 1, loc=mean, scale=sem)
    assert estimate.interval == pytest.approx(expected)


def test_trace_interval_of_a_known_case():
    """95 % quantile of Student's t with 4 degrees of freedom: 2.776."""
    low, high = TraceEstimate(10.0, 1.0, 5, exact=False).interval
    assert (low, high) == pytest.approx((10 - 2.776, 10 + 2.776), abs=5e-4)


@pytest.mark.parametrize("samples", [0, 1])
def test_one_sample_says_nothing_of_the_error(samples):
    assert TraceEstimate(1.0, 0.0, samples, exact=True).interval == (-math.inf, math.inf)


def test_relative_sem():
    assert TraceEstimate(-2.0, 0.5, 9, exact=True).relative_sem == 0.25
    assert TraceEstimate(0.0, 0.5, 9, exact=True).relative_sem == math.inf


@pytest.mark.parametrize(
    ("metric", "text"), [("top-1", "61.23%"), ("mAP", "mAP@[.5:.95] 61.23%"), ("", "61.23%")]
)
def test_a_metric_says_what_it_is_where_it_is_no_share_of_right_images(metric, text):
    assert metric_text(metric, 0.61234, digits=2) == text


@pytest.mark.parametrize(
    ("mean", "for_omega", "floored"), [(2.0, 2.0, False), (0.1, 0.5, True), (-3.0, 0.5, True)]
)
def test_omega_takes_at_least_the_error(mean, for_omega, floored):
    estimate = TraceEstimate(mean, 0.5, 9, exact=True)
    assert (estimate.for_omega, estimate.floored) == (for_omega, floored)


@pytest.mark.parametrize(
    ("successes", "samples", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_as_published(successes, samples, interval):
    """Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I."""
    assert wilson_interval(successes, samples) == pytest.approx(interval, abs=5e-5)


counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_interval_ends_where_the_score_test_does(count):
    """At its ends p: |share - p| = z · √(p(1 - p) / n)."""
    successes, samples = count
    share, low_high = successes / samples, wilson_interval(successes, samples)
    for end in low_high:
        deviation = 1.959964 * math.sqrt(end * (1 - end) / samples)
        assert abs(share - end) == pytest.approx(deviation, rel=1e-5, abs=1e-8)
    assert 0 <= low_high[0] <= share <= low_high[1] <= 1
    expected = stats.binomtest(successes, samples).proportion_ci(method="wilson")
    assert low_high == pytest.approx((expected.low, expected.high), abs=1e-12)
