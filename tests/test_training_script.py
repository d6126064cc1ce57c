"""The script that trains the sample networks: cut anywhere, it goes on as if nothing was."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.datasets.shapes import Shapes
from engine.workloads import load_workload

NAME = "retinanet-shapes"
RECIPE = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "weight_decay": 1e-2}
RECIPE |= {"momentum": 0.9, "warmup_epochs": 1, "more_epochs": 0, "more_learning_rate": 0.0}


@pytest.fixture
def script(monkeypatch):
    path = Path(__file__).parents[1] / "sample_models" / "train.py"
    spec = importlib.util.spec_from_file_location("sample_models_train", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    few = Shapes("train", 16), Shapes("test", 8)
    monkeypatch.setattr(module, "shapes_of", lambda _: few)
    return module


def test_a_training_that_was_cut_ends_as_one_that_was_not(script, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    script.train(NAME, RECIPE, 3, whole, "python train.py")

    replace = script.os.replace

    def replace_and_cut(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(script.os, "replace", replace_and_cut)
    with pytest.raises(KeyboardInterrupt):
        script.train(NAME, RECIPE, 3, cut, "python train.py")
    assert not (cut / f"{NAME}.safetensors").exists()
    monkeypatch.setattr(script.os, "replace", replace)
    script.train(NAME, RECIPE, 3, cut, "python train.py")

    one, two = (load_file(folder / f"{NAME}.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], two[name]) for name in one)
    card = json.loads((cut / f"{NAME}.json").read_text())
    assert (card["metric"], card["samples"], card["seed"]) == ("mAP", 8, 3)
    assert [row["epoch"] for row in card["log_tail"]] == [1, 2]
    assert card["value"] == card["log_tail"][-1]["test_mAP"]
    assert card["recipe"]["optimizer"] == "AdamW"


def test_another_recipe_does_not_go_on_from_a_checkpoint(script, tmp_path):
    script.train(NAME, {**RECIPE, "epochs": 1}, 0, tmp_path, "")
    with pytest.raises(SystemExit, match="is of another recipe or seed: delete it to start anew"):
        script.train(NAME, RECIPE, 0, tmp_path, "")


def test_the_rate_rises_to_its_peak_and_falls_to_zero(script):
    recipe = RECIPE | {"epochs": 10, "learning_rate": 0.1}
    rates = [script.learning_rate(step, 10, recipe) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert rates[10] == 0.1
    assert rates[55] == pytest.approx(0.05)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-4


def test_a_second_cosine_falls_from_its_own_peak(script):
    recipe = RECIPE | {"epochs": 10, "more_epochs": 5, "more_learning_rate": 0.04}
    rates = [script.learning_rate(step, 10, recipe) for step in range(150)]
    assert rates[100] == 0.04
    assert rates[125] == pytest.approx(0.02)
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_second_cosine_goes_on_from_the_first_and_nothing_else_does(script, tmp_path):
    once = {**RECIPE, "epochs": 1, "warmup_epochs": 0}
    twice = {**once, "more_epochs": 1, "more_learning_rate": 1e-4}
    script.train(NAME, once, 0, tmp_path, "")
    first = json.loads((tmp_path / f"{NAME}.json").read_text())
    script.train(NAME, twice, 0, tmp_path, "")
    both = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert both["log_tail"][0] == first["log_tail"][0]
    assert [row["epoch"] for row in both["log_tail"]] == [1, 2]
    assert both["recipe"]["schedule"] == first["recipe"]["schedule"] + ", then another"
    for other in (once, {**twice, "more_learning_rate": 1e-3}):
        with pytest.raises(SystemExit, match="is of another recipe or seed"):
            script.train(NAME, other, 0, tmp_path, "")


@pytest.mark.parametrize(
    ("given", "got"),
    [(["--more-epochs", "3"], "3 and 0.0"), (["--more-learning-rate", "0.1"], "0 and 0.1")],
)
def test_a_second_cosine_needs_its_length_and_its_peak(script, monkeypatch, capsys, given, got):
    monkeypatch.setattr(script.sys, "argv", ["train.py", NAME, *given])
    with pytest.raises(SystemExit):
        script.main()
    said = "--more-epochs and --more-learning-rate must be given together, both above 0, got "
    assert f"{said}{got}." in capsys.readouterr().err


def test_a_teacher_has_its_share_of_the_loss(script):
    recipe = {"teacher": "resnet20-cifar10", "teacher_share": 0.7, "temperature": 4.0}
    teacher = script.Teacher(recipe, fused=False)
    generator = torch.Generator().manual_seed(0)
    images, logits = (
        torch.randn(shape, generator=generator) for shape in ((5, 3, 32, 32), (5, 10))
    )
    answers = load_workload("resnet20-cifar10").model(images).detach()
    taught = torch.softmax(answers.double() / 4, 1)
    apart = taught * (taught.log() - torch.log_softmax(logits.double() / 4, 1))
    expected = 0.3 * 2.0 + 0.7 * 16 * float(apart.sum(1).mean())
    blended = teacher.blended(torch.tensor(2.0), logits, images)
    assert float(blended) == pytest.approx(expected, rel=1e-5)
    assert not blended.requires_grad


def test_a_teacher_needs_its_share_and_temperature(script, monkeypatch, capsys):
    given = ["--teacher", "resnet20-cifar10", "--temperature", "4"]
    monkeypatch.setattr(script.sys, "argv", ["train.py", NAME, *given])
    with pytest.raises(SystemExit):
        script.main()
    said = "--teacher, --teacher-share and --temperature must be given together, got "
    assert f"{said}resnet20-cifar10, None and 4.0." in " ".join(capsys.readouterr().err.split())


def test_the_first_epochs_see_smaller_images(script):
    recipe = RECIPE | {"smaller": [(16, 2), (24, 1)]}
    sizes = [script.image_size(epoch, recipe) for epoch in range(5)]
    assert sizes == [16, 16, 24, None, None]
    assert script.image_size(0, RECIPE) is None
    images = torch.arange(2 * 3 * 32 * 32.0).reshape(2, 3, 32, 32)
    assert script.smaller(images, None) is images
    assert script.smaller(images, 16).shape == (2, 3, 16, 16)
    assert script.smaller(images, 16).mean() == pytest.approx(float(images.mean()))


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        *(
            ("inception-cifar10", text, f"argument --smaller: invalid sizes value: '{text}'")
            for text in ("16", "0:3", "16:0", "a:b")
        ),
        (NAME, "16:3", f"--smaller must be of a classifier, got {NAME}."),
    ],
)
def test_only_a_classifier_sees_smaller_images(script, monkeypatch, capsys, name, given, said):
    monkeypatch.setattr(script.sys, "argv", ["train.py", name, "--smaller", given])
    with pytest.raises(SystemExit):
        script.main()
    assert said in " ".join(capsys.readouterr().err.split())
