"""The dense ResNets of CIFAR: sizes as published, option A's shortcut by hand."""

import pytest
import timm
import torch
from torch.testing import assert_close

from spikeformers.models.cifar_resnet import BasicBlock


@pytest.mark.parametrize("layers, parameters", [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_sizes_are_those_of_the_paper(layers, parameters):
    model = timm.create_model(f"cifar_resnet{layers}")
    assert sum(p.numel() for p in model.parameters()) == parameters
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == layers  # the classifier is the last layer
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_shortcut_takes_every_second_pixel_and_pads_channels():
    block = BasicBlock(4, 8, 2).eval()
    with torch.no_grad():
        block.bn2.weight.zero_()  # nothing but the shortcut is left
    x = torch.rand(1, 4, 6, 6)
    y = block(x)
    assert_close(y[:, 2:6], x[:, :, ::2, ::2])
    assert y[:, :2].abs().sum() == y[:, 6:].abs().sum() == 0


def test_other_classes_and_channels():
    assert timm.create_model("cifar_resnet20", num_classes=7, in_chans=1)(torch.zeros(1, 1, 32, 32)).shape == (1, 7)
    assert timm.create_model("cifar_resnet20", num_classes=0)(torch.zeros(1, 3, 32, 32)).shape == (1, 64)
