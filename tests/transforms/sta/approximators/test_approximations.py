"""The table of approximations, and networks that run by it."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import convert
from spikeformers.transforms.sta.approximators import approximations


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def relative(got, want):
    """Of vectors along the last axis, the largest."""
    return float(((got - want).norm(dim=-1) / want.norm(dim=-1)).max())


class Everything(nn.Module):
    """Functions as networks call them, by name, on positive x [B, C, H, W]."""

    calls = {
        "softmax": lambda x: F.softmax(x, 1),
        "softmax of a method": lambda x: x.softmax(-1),
        "layer_norm": nn.LayerNorm(6),
        "rms_norm": nn.RMSNorm(6),
        "group_norm": nn.GroupNorm(2, 4),
        "normalize": lambda x: F.normalize(x, dim=-1),
        "gelu": nn.GELU(),
        "tanh-GELU": nn.GELU("tanh"),
        "silu": nn.SiLU(inplace=True),
        "sigmoid": lambda x: x.sigmoid(),
        "tanh": nn.Tanh(),
        "hardswish": nn.Hardswish(),
        "exp": torch.exp,
        "reciprocal": lambda x: x.reciprocal(),
        "rsqrt": torch.rsqrt,
        "sqrt": torch.sqrt,
        "div": lambda x: x[:, :1] / x,
        "1 / x": lambda x: 1 / x,
        "pow": lambda x: x**2 + torch.pow(x, exponent=3) + x.pow(-0.5) + x**0.5,
        "square": torch.square,
        "norm": lambda x: x.norm(p=2, dim=(2, 3), keepdim=True),
        "relu6": nn.ReLU6(),
        "leaky_relu": nn.LeakyReLU(0.1),
        "clamp": lambda x: x.clamp(min=0.5, max=0.7),
        "max_pool2d": nn.MaxPool2d(2),
        "amax": lambda x: x.amax((2, 3)),
        "maximum": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    }

    def __init__(self, name):
        super().__init__()
        self.call = self.calls[name]

    def forward(self, x):
        return self.call(x + 0)


@pytest.mark.parametrize("name", Everything.calls)
@torch.no_grad()
def test_full_conversion_knows_every_function(name):
    x = torch.rand(4, 4, 6, 6, dtype=torch.double) + 0.2
    model = Everything(name)
    converted = convert(model.double().eval(), x, time_steps=32, spiking="full")
    exact = model(x)
    unquantised = converted.start()
    unquantised.thresholds = None
    got = converted.step(unquantised, x)
    assert (got - exact).norm() < 5e-3 * exact.norm()
    assert not unquantised.islands
    assert (converted(x) - exact).norm() < 2e-2 * exact.norm()


def test_unsupported_arguments_name_the_place():
    table, x = approximations(), torch.rand(3)
    for name, arguments, keywords in [
        ("pow", (x, 1.7), {}),
        ("div", (x, x), dict(rounding_mode="floor")),
        ("normalize", (x,), dict(p=1.0, dim=0)),
    ]:
        with pytest.raises(ValueError, match="blocks.3:here"):
            table[name]("blocks.3:here", None, arguments, keywords)
    with pytest.raises(ValueError, match="ranges are for"):
        approximations({"softmax": 3.0})


@torch.no_grad()
def test_a_vision_transformer_in_full_mode_answers_as_in_hybrid_mode():
    model = (
        timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=10).double().eval()
    )
    for parameter in model.parameters():
        parameter.mul_(2)  # not close to linear
    x = torch.randn(4, 3, 32, 32, dtype=torch.double)
    hybrid, full = (convert(model, x, 16, spiking=mode) for mode in ("hybrid", "full"))
    answers = []
    for converted in (hybrid, full):
        state = converted.start()
        state.thresholds = None
        answers.append(converted.step(state, x))
    assert_close(answers[0], model(x))
    assert relative(answers[1], answers[0]) < 0.01
    error, other = ((converted(x) - model(x)).norm() for converted in (hybrid, full))
    assert abs(float(other - error)) < 0.02 * model(x).norm()
