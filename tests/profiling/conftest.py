"""Small spiking models whose every layer fires, and inputs for them."""

import pytest
import torch
from torch import nn

from spikeformers.models.meta_spikeformer import MetaSpikeFormer
from spikeformers.models.spikingformer import Spikingformer

META = dict(dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), strides=(1, 2, 2, 1, 1), stem_kernel=3, num_heads=2, num_classes=5)
SPIKINGFORMER = dict(embed_dim=32, depth=2, num_heads=2, pools=(False, False, True, True), num_classes=5)


@pytest.fixture(scope="module", autouse=True)
def threads(one_thread):
    """All tests here run with one."""


def awake(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The model in eval mode with the statistics of x and shifts that let every layer of neurons fire."""
    for name, norm in model.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            attends = any(f".{side}." in name for side in "qkv") and not name.endswith(("expand_bn", "project_bn"))
            nn.init.constant_(norm.bias, 2.0 if attends else 0.6)  # attention between few tokens needs many spikes
    with torch.no_grad():
        for _ in range(3):  # RepConv's border is made of the running statistics
            model.train()(x)
    return model.eval()


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def meta(images):
    def make(**kwargs):
        torch.manual_seed(0)
        return awake(MetaSpikeFormer(**{**META, "time_steps": 2, **kwargs}), images)

    return make


@pytest.fixture
def spikingformer(images):
    def make(**kwargs):
        torch.manual_seed(0)
        return awake(Spikingformer(**{**SPIKINGFORMER, "time_steps": 2, **kwargs}), images)

    return make
