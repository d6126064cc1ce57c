"""What the pages say of fine-tuning, from made-up numbers."""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import made_up_runs
import pytest
from made_up import made_up_analysis

from engine.corrections import CORRECTIONS
from engine.placements import SUMS
from engine.recipe import Recipe
from engine.rounding import ROUNDINGS
from hawq_viz.viewmodels import training
from hawq_viz.viewmodels.measured import ROUNDING
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_analysis()
PLAN = Study.of(ANALYSIS).plan(None)


def tuning(events=None, state="finished", plan=PLAN, **options) -> SimpleNamespace:
    """What is read of a fine-tuning run, without one on disk."""
    rows = [
        {"event": event, **fields}
        for event, fields in (made_up_runs.whole() if events is None else events)
    ]
    return SimpleNamespace(
        id="20260101-000000-finetune-made-up-0000",
        folder=Path("nowhere"),
        kind="finetune",
        state=state,
        title="",
        options={**training.finetune_options(plan, "quick", "sample"), **options},
        results={row["name"]: row["result"] for row in rows if row["event"] == "result"},
        latest=lambda event: tuple(row for row in rows if row["event"] == event),
    )


def test_a_recipe_tells_only_what_it_changes():
    assert training.finetune_options(PLAN, "quick", "full", {"epochs": 9}) == {
        "plan": asdict(PLAN),
        "data": "full",
        "recipe": "quick",
        "epochs": 1,
    }
    assert training.finetune_options(PLAN, "full", "sample")["epochs"] == 3
    custom = {"optimizer": "adamw", "learning_rate": 0.002, "seed": 4, "batch_size": None}
    told = training.finetune_options(PLAN, "custom", "sample", custom)
    assert told.keys() == {"plan", "data", "recipe", "optimizer", "learning_rate", "seed"}


def test_a_custom_recipe_that_cannot_be_is_the_engines_sentence():
    with pytest.raises(ValueError, match=r"^learning_rate must be above 0, got -1.0"):
        training.finetune_options(PLAN, "custom", "sample", {"learning_rate": -1.0})


def test_a_custom_recipe_can_set_what_the_engine_takes_and_says_what_is_usual():
    names = {*training.CHOICES, *training.NUMBERS}
    assert names - {"seed"} <= set(Recipe.__dataclass_fields__)
    assert set(training.WHOLE) <= set(training.NUMBERS)
    assert training.usual("optimizer") == Recipe().optimizer
    assert float(training.usual("batch_size")) == Recipe().batch_size
    assert training.usual("seed") == "0"
    assert all(training.usual(name) not in ("", "None") for name in names)


def test_the_table_has_float_once_and_each_run_before_and_after():
    uniform = ANALYSIS.uniform(3)
    table = training.training_table(
        [tuning(), tuning(made_up_runs.whole(0.85), plan=uniform)], ANALYSIS.parameters
    )
    low, high = min(PLAN.weight_bits.values()), max(PLAN.weight_bits.values())
    assert list(table["network"]) == [
        "float32",
        f"{low}–{high} bits, post-training",
        f"{low}–{high} bits, fine-tuned",
        "uniform 3 bits, post-training",
        "uniform 3 bits, fine-tuned",
    ]
    assert list(table["top-1 (%)"]) == pytest.approx([92.1, 58.6, 91.4, 58.6, 85.0])
    assert table["size (KiB)"][0] == pytest.approx(4 * ANALYSIS.parameters / 1024)
    assert table["size (KiB)"][4] == pytest.approx(uniform.size_bytes / 1024)
    assert (table["95 % from"] < table["top-1 (%)"]).all()
    assert (table["to"] > table["top-1 (%)"]).all()


def test_a_detectors_metric_is_named_in_full():
    run = tuning()
    for name in ("float", "plan", "finetuned"):
        run.results[name]["metric"] = "mAP"
    table = training.training_table([run], ANALYSIS.parameters)
    assert "mAP@[.5:.95] (%)" in table
    says = training.training_verdict(run)
    assert says.startswith("Fine-tuned, the plan reaches mAP@[.5:.95] 91.4%: 0.7 ± 2.4 po")
    assert training.accuracy_alt([training.course(run)]).startswith("mAP@[.5:.95] against training")


def test_the_verdict_compares_with_float_rounding_and_what_is_drawn_over_it():
    says = training.training_verdict(tuning())
    assert says == (
        "Fine-tuned, the plan reaches 91.4%: 0.7 ± 2.4 points below float32, 32.8 ± 3.5 points "
        "above rounding alone (95 % intervals, as of independent images: too wide). "
        "A difference within its ± is not certain: more test images would tell."
    )
    far = tuning(made_up_runs.whole(0.85), plan=ANALYSIS.uniform(3), seed=2)
    near = tuning(made_up_runs.whole(0.92), plan=ANALYSIS.uniform(4))
    says = training.training_verdict(tuning(), [far, near])
    assert (
        "rounding alone, 6.4 ± 2.8 points above uniform 3 bits, "
        "0.6 ± 2.4 points below uniform 4 bits (95 %"
    ) in says
    again = tuning(made_up_runs.whole(0.85), seed=2)
    assert says[:60] in training.training_verdict(tuning(), [again])
    assert "bits · quick · seed 2 (95 %" in training.training_verdict(tuning(), [again])
    cut = tuning(made_up_runs.opening(), state="running")
    assert training.training_verdict(tuning(), [cut]) == training.training_verdict(tuning())


def test_what_was_done_names_recipe_seed_steps_and_command():
    run = tuning(recipe="custom", optimizer="adamw", batch_size=64, epochs=2.0, seed=5)
    assert training.done(run) == {
        "Recipe": "Custom, optimizer adamw, batch size 64",
        "Epochs": "2",
        "Images": "sample",
        "Seed": "5",
        "Steps": "390, 6 a second",
        "Best step": "390, by the held-back images",
        "Stopped because": "all steps were done",
        "Time taken": "65 s",
        "Command": "hawq-viz analyze made-up",
    }
    diverged = tuning([*made_up_runs.opening(), *made_up_runs.ending(why="diverged")])
    assert training.done(diverged)["Stopped because"] == "the loss diverged"
    says = training.training_verdict(diverged)
    assert says.endswith("The loss diverged, so step 390 was kept: try a lower learning rate.")
    assert training.images_sentence(run) == "On all 1,000 test images: made-up images."


def test_charts_in_words_and_tables():
    told = [*made_up_runs.opening(), *made_up_runs.training(39)]
    course = training.course(tuning(told))
    words = training.accuracy_alt([course])
    last = course.measurements[-1]["test"]
    assert f"quick · seed 0: from 58.6% at step 0 to {last['value']:.1%}" in words
    assert words.endswith("at step 39; float32: 92.1%.")
    table = training.measurement_table([course])
    assert list(table["step"]) == [0, 39]
    assert list(table["test images (%)"]) == pytest.approx([58.6, 100 * last["value"]])
    losses = training.loss_table([course, course])
    assert len(losses) == 78
    assert "at step 1, " in training.loss_alt([course])
    empty = training.course(tuning([]))
    assert "nothing measured yet" in training.accuracy_alt([empty])
    assert training.loss_alt([empty]) == "Training loss against steps. No step yet."
    assert len(training.measurement_table([empty])) == len(training.loss_table([empty])) == 0


def test_the_table_of_a_long_loss_is_short():
    told = list(made_up_runs.training(5000, steps=5000))
    course = training.course(tuning(told))
    table = training.loss_table([course])
    assert len(table) <= training.LOSS_ROWS
    assert table["step"].iloc[-1] == 5000


def test_the_ways_to_round_are_the_engines():
    known = {name: tuple(words) for name, (_, words) in ROUNDING.items()}
    assert known == {"rounding": ROUNDINGS, "correction": CORRECTIONS, "sums": SUMS}
