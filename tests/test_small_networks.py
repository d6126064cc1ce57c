"""The small networks of the families that HAWQ-V2 quantizes: what they are made of."""

import pytest
import torch

from engine.activations import find_activations
from engine.layers import find_layers
from engine.models.inception_cifar import inception_cifar
from engine.models.squeezenext import squeezenext_cifar
from engine.traces import average_traces

NETWORKS = {squeezenext_cifar: 41, inception_cifar: 61}  # layers


@pytest.mark.parametrize("build", NETWORKS)
def test_every_layer_and_its_input_can_be_quantized_and_is_piecewise_linear(build):
    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(2, 3, 32, 32)
    layers, activations = find_layers(model, images), find_activations(model, images)
    assert len(layers) == NETWORKS[build]
    assert {layer.calls for layer in layers} == {1}
    assert activations.skipped == {}
    assert model(images).shape == (2, 10)
    batch = images, torch.zeros(2, dtype=torch.long)
    assert average_traces(model, [batch], generator=torch.Generator()).exact


def test_inception_has_the_five_kinds_of_block_side_by_side():
    model = inception_cifar().eval()
    kinds = {tuple(layer.shape[2:]) for layer in find_layers(model, torch.zeros(1, 3, 32, 32))}
    assert {(1, 1), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)} <= kinds
    sizes = []
    for part in (model.reduction1, model.reduction2, model.reduction3, model.split):
        part.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    model(torch.zeros(1, 3, 32, 32))
    assert sizes == [(96, 16, 16), (240, 8, 8), (384, 4, 4), (448, 4, 4)]
