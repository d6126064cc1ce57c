"""RetinaNet with ResNet50 on COCO: torchvision's network, and what it and the paper's weigh."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet50
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from engine import analyze, load_workload
from engine.detection import Anchors, DetectionLoss
from engine.models.retinanet import COCO_ANCHORS, published_name, retinanet_resnet50
from engine.results import FormatError
from engine.workloads import Workload

NAME = "retinanet-resnet50-coco"
MIB = 2**20
HEIGHT, WIDTH = 64, 96


def theirs(p6_from: int = 256, classes: int = 91) -> RetinaNet:
    """Torchvision's, as it is once COCO's weights are loaded."""
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    for module in body.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    extra = LastLevelP6P7(p6_from, 256)
    backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=extra)
    return RetinaNet(backbone, classes, detections_per_img=100).eval()


@pytest.fixture(scope="module")
def published() -> RetinaNet:
    """With weights drawn at random, statistics too, and scores so far apart that none are equal."""
    torch.manual_seed(0)
    network = theirs()
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.2, 0.6)
            module.bias.uniform_(-0.1, 0.1)
    last = network.head.classification_head.cls_logits
    nn.init.zeros_(last.bias)
    with torch.no_grad():
        features = list(network.backbone(torch.randn(1, 3, HEIGHT, WIDTH)).values())
        last.weight /= network.head(features)["cls_logits"].std()
    return network


def file_of(network: RetinaNet) -> OrderedDict[str, Tensor]:
    """Its weights under the names of the published file, where a head's layers stood in turn."""
    return OrderedDict((older_name(name), value) for name, value in network.state_dict().items())


def older_name(name: str) -> str:
    for i in range(4):
        name = name.replace(f"_head.conv.{i}.0.", f"_head.conv.{2 * i}.")
    return name


# --- the network


def test_names_of_the_published_file_are_found():
    with torch.device("meta"):
        ours, named = retinanet_resnet50().state_dict(), file_of(theirs())
    assert sum(".conv.6." in name for name in named) == 4
    found = {published_name(name): value.shape for name, value in named.items()}
    own = {k: v.shape for k, v in ours.items() if not k.endswith("num_batches_tracked")}
    assert found == own
    assert {published_name(name) for name in own} == set(own)


def test_the_users_weights_make_torchvisions_network(weights_folder, published):
    """The same raw outputs, and the same boxes of them."""
    torch.save(file_of(published), weights_folder / f"{NAME}.pth")
    loaded = load_workload(NAME)
    assert (loaded.metric, loaded.origin) == ("mAP", f"{NAME} --data sample")
    assert loaded.loss.anchors == COCO_ANCHORS
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        features = list(published.backbone(image).values())
        raw = published.head(features)
        outputs = loaded.model(image)
    expected = torch.cat([raw["cls_logits"], raw["bbox_regression"]], 2)
    torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())
    (anchors,) = published.anchor_generator(ImageList(image, [(HEIGHT, WIDTH)]), features)
    own = Anchors(COCO_ANCHORS.sizes, COCO_ANCHORS.strides, HEIGHT, WIDTH)
    assert torch.equal(own.boxes, anchors)
    counts = [9 * x.shape[2] * x.shape[3] for x in features]
    (there,) = published.postprocess_detections(
        {name: list(value.split(counts, 1)) for name, value in raw.items()},
        [list(anchors.split(counts))],
        [(HEIGHT, WIDTH)],
    )
    (here,) = DetectionLoss(own).detections(expected)
    assert len(here.boxes) == 100
    torch.testing.assert_close(here.boxes, there["boxes"])
    torch.testing.assert_close(here.scores, there["scores"])
    assert torch.equal(here.classes, there["labels"])


def test_without_coco_the_pictures_are_made_and_say_so(weights_folder, published):
    torch.save(file_of(published), weights_folder / f"{NAME}.pth")
    loaded = load_workload(NAME)
    assert loaded.calibration.name.endswith(
        "enlarged to 320×320, which are not COCO; the boxes are what the float network itself "
        "finds with a score of 0.5 or more"
    )
    image, target = loaded.test[0]
    assert (image.shape, target.shape) == ((3, 320, 320), (100, 5))
    (found,) = loaded.loss.detections(loaded.model(image[None]))
    sure = found.scores >= 0.5
    there = target[target[:, 0] >= 0]
    assert torch.equal(there[:, 1:], found.boxes[sure])
    assert torch.equal(there[:, 0].long(), found.classes[sure])
    assert loaded.test.fingerprint != loaded.calibration.fingerprint
    assert torch.equal(loaded.test[0][1], target)


def test_weights_out_of_reach_are_one_sentence(weights_folder):
    url = RetinaNet_ResNet50_FPN_Weights.COCO_V1.url
    with pytest.raises(FormatError) as error:
        load_workload(NAME)
    assert str(error.value) == (
        f"weights of {NAME} could not be fetched (no route to host): put {url} into "
        f"{weights_folder}, or "
        "another state dict of torchvision's retinanet_resnet50_fpn as "
        f"{NAME}.safetensors or {NAME}.pth."
    )


@pytest.mark.usefixtures("weights_folder")
def test_a_folder_out_of_reach_is_said_before_weights_are_fetched():
    with pytest.raises(FormatError, match="HAWQ_VIZ_COCO must name a folder with COCO's val2017/"):
        load_workload(NAME, "full")


# --- sizes


def parameters_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def weights_of(network: nn.Module) -> int:
    return sum(module.weight.numel() for module in convolutions(network))


def test_torchvisions_weights_are_129_7_mib():
    """Batch norms in it are fixed, and no parameters: 34 014 999 are what torchvision counts."""
    with torch.device("meta"):
        ours, network = retinanet_resnet50(), theirs()
    assert parameters_of(network) == RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert weights_of(ours) == weights_of(network) == 34_010_048
    assert len(convolutions(ours)) == 71
    assert round(weights_of(ours) * 32 / 8 / MIB, 1) == 129.7
    assert round(weights_of(ours) * 4 / 8 / MIB, 2) == 16.22


def test_the_published_145_mib_are_another_pyramid_and_fewer_classes():
    """P6 made of C5, as first published, COCO's 80 classes, and batch norms counted in."""
    with torch.device("meta"):
        torchvisions, first = theirs(), theirs(p6_from=2048, classes=80)
        norms = [m for m in resnet50().modules() if isinstance(m, nn.BatchNorm2d)]
    size = parameters_of(torchvisions)
    pyramid = 3 * 3 * 256 * (2048 - 256)
    classes = (91 - 80) * 9 * (3 * 3 * 256 + 1)
    assert parameters_of(first) == size + pyramid - classes
    channels = sum(norm.num_features for norm in norms)
    factors = statistics = 2 * channels
    parts = [size, pyramid, -classes, factors, statistics]
    assert [round(part * 4 / MIB, 2) for part in parts] == [129.76, 15.75, -0.87, 0.2, 0.2]
    whole = sum(parts) * 4 / MIB
    assert round(whole, 2) == 145.04
    assert round(whole / 8, 2) == 18.13  # the paper's uniform 4 bits


# --- a plan


@pytest.fixture(scope="module")
def analyzed():
    """An untrained network whose batch norms have seen some images, on two of 64 × 64."""
    torch.manual_seed(0)
    network = retinanet_resnet50()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 64, 64))
    target = torch.tensor([[[3.0, 8, 8, 40, 40]], [[17.0, 20, 10, 60, 50]]])
    data = TensorDataset(torch.randn(2, 3, 64, 64), target)
    loss = DetectionLoss(Anchors(COCO_ANCHORS.sizes, COCO_ANCHORS.strides, 64, 64))
    found = Workload("retinanet", network.eval(), data, data, data, loss, "mAP")
    return analyze(found, bit_widths=(2, 3, 4, 8), weight_range="min_max", activations=False)


def test_every_layer_is_found_and_its_trace_exact(analyzed):
    assert analyzed.exact
    assert analyzed.parameters == 34_010_048
    assert len(analyzed.layers) == 71
    assert any(layer.trace.mean != 0 for layer in analyzed.layers)


def test_a_plan_of_the_published_share_of_4_bits_exists(analyzed):
    """17.90 of 18.13 MiB there, 16.01 of 16.22 here, at bit widths of which none alone has it."""
    uniform = analyzed.uniform(4)
    budget = 17.90 / 18.13 * uniform.size_bytes
    plan = analyzed.frontier().within(budget)
    assert round(budget / MIB, 2) == 16.01
    assert 0.999 * budget < plan.size_bytes <= budget
    assert len(set(plan.weight_bits.values())) > 1
    assert plan.omega < uniform.omega
