"""Workloads by name and by file, the words their results carry, and what is said of wrong ones."""

import hashlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

import engine.workloads
from engine.datasets.images import LabelledImages
from engine.models.imagenet import MEAN, STD, network_of
from engine.models.torchvision_names import CLASSIFIERS
from engine.results import FormatError
from engine.workloads import (
    Workload,
    check_workload_name,
    describe_data,
    load_workload,
    load_workload_file,
    name_with,
    stored_analysis,
    workload_names,
)

MAKES_ONE = """
from torch import nn
from engine.workloads import Workload

class Own(nn.Linear):
    pass

def make_workload():
    return Workload(name="mine", model=Own(2, 2), calibration=[], train=[], test=[])

def make_seven():
    return 7

def make_error():
    raise KeyError("images")

def make_exit():
    raise SystemExit(3)
"""


def images(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(2.0 * count).reshape(count, 2), torch.arange(count))


def workload(**given: object) -> Workload:
    fields = {"name": "toy", "model": nn.Linear(2, 2)} | {
        part: images(3) for part in ("calibration", "train", "test")
    }
    return Workload(**(fields | given))


@pytest.fixture
def three_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: lambda name, data, _: (name, data) for name in ("resnet20", "resnet50", "yolo")}
    monkeypatch.setattr(engine.workloads, "_REGISTRY", known)


# --- by name


def test_the_sample_network_is_known():
    assert workload_names()[0] == "resnet20-cifar10"
    assert check_workload_name("resnet20-cifar10") == "resnet20-cifar10"


@pytest.mark.usefixtures("three_known")
def test_a_known_name_is_loaded_with_its_data():
    assert workload_names() == ("resnet20", "resnet50", "yolo")
    assert load_workload("resnet50") == ("resnet50", "sample")
    assert load_workload("yolo", data="full") == ("yolo", "full")


@pytest.mark.usefixtures("three_known")
@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("resnet5", "resnet50, resnet20, yolo"),
        ("yol", "yolo, resnet20, resnet50"),
        ("ResNet20", "resnet20, resnet50, yolo"),
    ],
)
@pytest.mark.parametrize("use", [load_workload, check_workload_name, stored_analysis])
def test_an_unknown_name_lists_the_known_with_the_nearest_first(use, name, listed):
    with pytest.raises(ValueError, match=r"^workload must be one of ") as error:
        use(name)
    assert str(error.value) == f"workload must be one of {listed}, got {name!r}."


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match=r"^data must be one of sample, full, got 'all'\.$"):
        load_workload("resnet20-cifar10", data="all")


def test_the_stored_analysis_lies_beside_the_weights():
    path = stored_analysis("resnet20-cifar10")
    assert path.name == "resnet20-cifar10.analysis.json"
    assert path.parent == Path(__file__).parents[1] / "sample_models"


def test_the_sample_network_is_loaded_with_the_sample():
    loaded = load_workload("resnet20-cifar10")
    assert (loaded.loss, loaded.metric) == ("cross_entropy", "top-1")
    assert loaded.origin == "resnet20-cifar10 --data sample"
    assert [len(part) for part in (loaded.calibration, loaded.train, loaded.test)] == [1000] * 3
    assert not loaded.model.training
    shown, labels = loaded.test[0][0][None], loaded.test.labels[:200]
    assert loaded.model(shown).shape == (1, 10)
    with torch.no_grad():
        right = loaded.model(loaded.test.normalized(loaded.test.images[:200])).argmax(1) == labels
    assert float(right.float().mean()) > 0.8  # trained, and the pixels are as it saw them


# --- what makes a result again


def test_the_command_of_a_known_workload_can_be_typed():
    command = workload(origin="toy --data 'my data'").command(
        "analyze", bit_widths=(2, 4), relative_sem=0.1, weight_range="mse"
    )
    assert shlex.split(command) == [
        *("hawq-viz", "analyze", "toy", "--data", "my data", "--bit-widths", "2", "4"),
        *("--relative-sem", "0.1", "--weight-range", "mse"),
    ]


def test_the_command_of_a_workload_made_in_python_is_a_call():
    command = workload().command("analyze", bit_widths=(2, 4), seed=3)
    assert command == "analyze(Workload(name='toy', …), bit_widths=(2, 4), seed=3)"
    assert workload().command("evaluate") == "evaluate(Workload(name='toy', …))"


# --- by file


def test_the_users_file_makes_a_workload(tmp_path):
    file = tmp_path / "my own.py"
    file.write_text(MAKES_ONE)
    loaded = load_workload_file(f"{file}:make_workload")
    assert loaded.name == "mine"
    assert type(loaded.model).__name__ == "Own"


def test_the_users_file_takes_no_modules_place(tmp_path):
    file = tmp_path / "json.py"
    file.write_text(MAKES_ONE)
    before = sys.modules["json"]
    load_workload_file(f"{file}:make_workload")
    assert sys.modules["json"] is before


@pytest.mark.parametrize("spec", ["my.py", "my.py:", ":make_workload", ""])
def test_a_spec_of_another_form_is_refused(spec):
    text = f"workload file must be given as FILE.py:FUNCTION, got {spec!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        load_workload_file(spec)


@pytest.mark.parametrize("name", ["missing.py", "text.txt", "folder.py"])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "text.txt").write_text(MAKES_ONE)
    (tmp_path / "folder.py").mkdir()
    text = f"{tmp_path / name} must be a Python file with make_workload(), but is none."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_workload_file(f"{tmp_path / name}:make_workload")


def test_a_file_that_does_not_run_is_refused(tmp_path):
    file = tmp_path / "fails.py"
    file.write_text("1 / 0")
    text = f"{file} must run as Python, but ZeroDivisionError('division by zero')."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_workload_file(f"{file}:make_workload")


def test_a_file_without_the_function_is_refused(tmp_path):
    file = tmp_path / "other.py"
    file.write_text(MAKES_ONE)
    text = f"{file} must define make_it(), but does not."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_workload_file(f"{file}:make_it")


def test_a_function_that_returns_something_else_is_refused(tmp_path):
    file = tmp_path / "seven.py"
    file.write_text(MAKES_ONE)
    text = f"make_seven() of {file} must return an engine.Workload, got int."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        load_workload_file(f"{file}:make_seven")


@pytest.mark.parametrize(
    ("function", "error"), [("make_error", "KeyError('images')"), ("make_exit", "SystemExit(3)")]
)
def test_what_a_function_raises_is_one_sentence(tmp_path, function, error):
    file = tmp_path / "raises.py"
    file.write_text(MAKES_ONE)
    text = f"{function}() of {file} must return an engine.Workload, but {error}."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_workload_file(f"{file}:{function}")


# --- torchvision's


def test_the_names_are_torchvisions_own():
    listed = set(torchvision.models.list_models(module=torchvision.models))
    assert set(CLASSIFIERS) <= listed  # a newer torchvision may have more
    assert list(CLASSIFIERS) == sorted(set(CLASSIFIERS))


@pytest.mark.parametrize(
    ("name", "resize", "crop", "bicubic", "ignored"),
    [
        ("resnet18", 256, 224, False, ""),
        ("efficientnet_b3", 320, 300, True, ""),
        ("googlenet", 256, 224, False, "aux"),
        ("inception_v3", 342, 299, False, "AuxLogits."),
    ],
)
def test_images_are_made_as_the_weights_want_them(name, resize, crop, bicubic, ignored):
    network = network_of(f"torchvision/{name}")
    made = network.preprocessing
    assert (made.resize, made.crop, made.bicubic) == (resize, crop, bicubic)
    assert network.ignored == ignored
    assert network.url.startswith("https://download.pytorch.org/models/")
    assert made.mean == ((0.5,) * 3 if ignored else (0.485, 0.456, 0.406))


def test_torchvisions_networks_see_what_they_saw_in_training():
    name = "torchvision/googlenet"  # scales its normalized images itself
    torch.manual_seed(0)
    own = torchvision.models.googlenet(aux_logits=False, init_weights=False, transform_input=True)
    model = network_of(name).build()
    model.load_state_dict(own.state_dict())
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    with torch.no_grad():
        expected = own.eval()((pixels - mean) / std)
        assert torch.allclose(model.eval()((pixels - 0.5) / 0.5), expected, atol=1e-5)


def test_an_unknown_name_of_torchvision_lists_the_nearest():
    text = (
        "workload must name one of torchvision's classification networks, got "
        "'torchvision/resnet19': the nearest are torchvision/resnet18, "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        check_workload_name("torchvision/resnet19")


# --- with weights of one's own


@pytest.fixture
def weights(tmp_path):
    """Of the sample network, with another last layer."""
    stored = load_file(engine.workloads.SAMPLE_MODELS / "resnet20-cifar10.safetensors")
    stored["fc.bias"] = torch.arange(10.0)
    save_file(stored, tmp_path / "own weights.safetensors")
    return tmp_path / "own weights.safetensors"


def test_weights_of_ones_own_are_loaded_and_named(weights):
    loaded = load_workload("resnet20-cifar10", weights=weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    assert loaded.name == f"resnet20-cifar10@{digest}"
    assert torch.equal(loaded.model.fc.bias, torch.arange(10.0))
    assert shlex.split(loaded.origin) == [
        *("resnet20-cifar10", "--data", "sample", "--weights", str(weights)),
    ]
    assert load_workload(loaded.name, weights=weights).name == loaded.name
    assert load_workload("resnet20-cifar10").name == "resnet20-cifar10"
    assert not stored_analysis(loaded.name).exists()


def test_torchvisions_networks_take_weights_of_ones_own(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1().eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    loaded = load_workload("torchvision/squeezenet1_1", weights=tmp_path / "w.pth")
    assert loaded.name.startswith("torchvision/squeezenet1_1@")
    image = loaded.test[0][0][None]
    assert image.shape == (1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded.model(image), model(image))


def test_weights_that_do_not_fit_name_what_differs(tmp_path):
    save_file({"fc.weight": torch.zeros(10, 64), "x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match=r"names are missing \(.*, .*, .*, …\) and 1 name is un"):
        load_workload("resnet20-cifar10", weights=tmp_path / "w.safetensors")


def test_weights_that_hold_more_than_tensors_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(FormatError, match="and nothing else, for other objects could run code"):
        load_workload("resnet20-cifar10", weights=tmp_path / "w.pth")


def test_weights_that_have_changed_are_refused(weights):
    name = name_with("resnet20-cifar10", weights)
    weights.write_bytes(weights.read_bytes() + b" ")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    text = (
        f"{weights} must be the weights of {name}, but has changed since: its fingerprint is "
        f"{digest}."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        load_workload(name, weights=weights)


def test_weights_that_are_not_there_are_named(tmp_path):
    text = f"{tmp_path / 'w.pth'} must be a file of weights, but No such file or directory."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        name_with("resnet20-cifar10", tmp_path / "w.pth")


def test_a_name_of_weights_needs_their_file():
    name = "resnet20-cifar10@0123456789ab"
    text = f"weights must be given for {name}, got none: name the file of that fingerprint."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        load_workload(name)


@pytest.mark.parametrize("digest", ["", "0123", "../../etc/pass", "0123456789AB"])
def test_a_fingerprint_of_another_form_is_refused(digest):
    text = (
        "workload must have 12 hexadecimal digits after @, the fingerprint of its weights, "
        f"got 'resnet20-cifar10@{digest}'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_workload_name(f"resnet20-cifar10@{digest}")


# --- which data


def test_a_datasets_own_name_and_fingerprint_are_taken():
    pixels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    data = LabelledImages(pixels, torch.arange(4), (0.5,) * 3, (0.5,) * 3, "four black images")
    assert describe_data(data) == ("four black images", data.fingerprint)


def test_other_datasets_are_named_by_class_and_size():
    name, fingerprint = describe_data(images(3))
    assert name == "TensorDataset, 3 images"
    assert re.fullmatch("[0-9a-f]{16}", fingerprint)
    assert describe_data(images(3)) == (name, fingerprint)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_a_fingerprint_changes_with_images_labels_and_size(count):
    data = images(count)
    _, fingerprint = describe_data(data)
    assert describe_data(images(count + 1))[1] != fingerprint
    changed = TensorDataset(data.tensors[0].clone(), data.tensors[1])
    changed.tensors[0][0, 0] += 1
    assert describe_data(changed)[1] != fingerprint
    changed = TensorDataset(data.tensors[0], data.tensors[1].clone())
    changed.tensors[1][0] += 1
    assert describe_data(changed)[1] != fingerprint


def test_a_fingerprint_changes_with_every_number_of_a_target():
    data = TensorDataset(torch.zeros(3, 2), torch.rand(3, 300, 5))  # more than repr shows
    changed = TensorDataset(data.tensors[0], data.tensors[1].clone())
    changed.tensors[1][0, 150, 2] += 1e-6
    assert describe_data(changed)[1] != describe_data(data)[1]


def test_a_fingerprint_reads_few_images():
    class Counting(TensorDataset):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    describe_data(Counting(torch.zeros(1000, 2), torch.zeros(1000)))
    assert 50 <= Counting.reads <= 64


def test_a_dataset_without_images_is_refused():
    with pytest.raises(ValueError, match=r"^dataset must hold at least one image, got 0 images\.$"):
        describe_data(images(0))
