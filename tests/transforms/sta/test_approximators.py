"""Approximators are the functions that they stand for, at any scale, and networks of rectified units alone."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from spikeformers.transforms.sta import approximators as approximated, convert
from spikeformers.transforms.sta.approximators import approximations
from spikeformers.transforms.sta.approximators.elementary import activation, mantissa
from spikeformers.transforms.sta.approximators.fitting import Approximator, fit, synthetic

DTYPES = torch.float32, torch.float64
SCALES = [1e-4, 1e-2, 1.0, 1e2, 1e4]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class LargestResult(TorchDispatchMode):
    """The number of values in the largest tensor that was made."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.values = max([self.values, *(x.numel() for x in [result] if isinstance(x, torch.Tensor))])
        return result


def relative(got, want):
    """Of vectors along the last axis, the largest."""
    return float(((got - want).norm(dim=-1) / want.norm(dim=-1)).max())


# networks


def test_approximator_equals_its_two_layers_whatever_the_weights():
    w1 = torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 1.0])  # units that look right, left, and two that are constant
    b1 = torch.tensor([0.3, 1.0, -1.0, 2.0, -2.0, 0.3])
    network = Approximator(w1, b1, torch.tensor([1.0, 0.7, -3.0, 0.5, 9.0, 0.2]), torch.tensor(0.25))
    x = torch.linspace(-5, 5, 1001, dtype=torch.double).reshape(7, 11, 13)
    assert_close(network(x), network.network(x))
    by_hand = F.relu(x + 0.3) * 1.2 + 0.7 * F.relu(1 - 2 * x) - 3 * F.relu(x / 2 - 1) + 1.25
    assert_close(network(x), by_hand)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", approximated.ACTIVATIONS)
def test_fitted_activation_equals_its_two_layers(name, dtype):
    network = activation(name, approximated.ACTIVATIONS[name].reach).approximator
    x = torch.linspace(-30, 30, 4001, dtype=dtype)
    assert network.hidden <= 64
    assert network(x).dtype == dtype
    assert_close(
        network(x),
        network.network(x),
        rtol=1e-5 if dtype == torch.float32 else 1e-10,
        atol=2e-5 if dtype == torch.float32 else 1e-10,
    )


def test_mantissas_have_the_published_sizes_at_most_and_equal_their_two_layers():
    for name, units in {"exp": 32, "reciprocal": 64, "rsqrt": 8}.items():
        network = mantissa(name).approximator
        x = torch.linspace(*approximated.MANTISSAS[name][1:3], 1001, dtype=torch.double)
        assert network.hidden <= units
        assert_close(network(x), network.network(x))


def test_hidden_units_are_never_held_for_every_value():
    x = torch.randn(3 * approximated.PART // 2)
    approximated.gelu(x)  # fits
    with LargestResult() as largest:
        approximated.gelu(x)
    assert largest.values == len(x)


def test_not_a_number_stays_so():
    y = approximated.gelu(torch.tensor([1.0, torch.nan, -1.0]))
    assert y.isnan().tolist() == [False, True, False]


# fitting


def test_fit_is_deterministic_and_reports_its_errors():
    for method in ("least_squares", "adam"):
        first, second = (fit(torch.sin, 0, 3, 12, method=method, steps=50, seed=3) for _ in range(2))
        assert torch.equal(first.approximator.w2, second.approximator.w2)
        x = torch.linspace(0, 3, 4321, dtype=torch.double)
        error = first.approximator(x) - x.sin()
        assert float(error.abs().max()) == pytest.approx(first.max_error, rel=0.05)
        assert float(error.square().mean().sqrt()) == pytest.approx(first.rms_error, rel=0.05)


def test_error_falls_with_the_square_of_the_number_of_units():
    errors = [fit(F.gelu, -6, 6, hidden).max_error for hidden in (8, 16, 32, 64)]
    assert all(3 < a / b < 6 for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_training_improves_on_evenly_spaced_knots(loss):
    def error(steps):
        return fit(F.gelu, -6, 6, 8, method="adam", loss=loss, steps=steps).rms_error

    assert error(300) < 0.5 * error(1)


def test_samples_decide_where_a_fit_is_good():
    samples = synthetic(-8, 8, mean=2.0, sd=0.3)
    assert len(samples) == 1 << 13
    assert 8 < samples.max() <= 8.8 and -8.8 <= samples.min() < -8
    near = torch.linspace(1.7, 2.3, 1000, dtype=torch.double)
    plain, aimed = (fit(torch.sin, -8, 8, 12, x).approximator(near) - near.sin() for x in (None, samples))
    assert aimed.square().mean() < plain.square().mean()


def test_tails_are_kept_exactly():
    network = fit(F.gelu, -4, 4, 16, tails=(0, 4, 1)).approximator
    x = torch.tensor([-1e4, -5.0, -4.0, 4.0, 5.0, 1e4], dtype=torch.double)
    assert_close(network(x), F.relu(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(low=1, high=1), "low must be below"),
        (dict(hidden=1), "at least 2"),
        (dict(method="sgd"), "method"),
        (dict(loss="l1"), "loss"),
        (dict(method="adam", tails=(0, 1, 1)), "tails"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_fit_says_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        fit(torch.sin, **dict(low=0, high=1, hidden=8) | options)


# functions


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "name, exact",
    [
        ("gelu", F.gelu),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("silu", F.silu),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("hardswish", F.hardswish),
    ],
)
def test_activations(name, exact, dtype):
    x = torch.cat([torch.linspace(-20, 20, 20001, dtype=dtype), torch.tensor([-1e4, 1e4], dtype=dtype)])
    assert_close(getattr(approximated, name)(x), exact(x), rtol=1e-6, atol=5e-4)


@pytest.mark.parametrize("reach", [0.0, 24.5, 1e6])
def test_a_wider_range_is_no_less_accurate(reach):
    x = torch.linspace(-70, 70, 40001)
    assert_close(approximated.gelu(x, reach=reach), F.gelu(x), rtol=1e-6, atol=5e-4)
    assert_close(approximated.gelu(x, "tanh", reach=reach), F.gelu(x, approximate="tanh"), rtol=1e-6, atol=5e-4)
    assert_close(approximated.sigmoid(x, reach=reach), x.sigmoid(), rtol=1e-6, atol=5e-4)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_of_any_scale(dtype):
    x = torch.logspace(-30, 30, 5001, dtype=dtype)
    close = partial(assert_close, atol=0)
    close(approximated.reciprocal(x), 1 / x, rtol=3e-5)
    close(approximated.reciprocal(-x), -1 / x, rtol=3e-5)
    close(approximated.divide(3.0, x), 3 / x, rtol=3e-5)
    close(approximated.rsqrt(x), x.rsqrt(), rtol=2e-3)
    close(approximated.sqrt(x), x.sqrt(), rtol=2e-3)
    z = torch.linspace(-85, 85, 5001, dtype=dtype)
    close(approximated.exp(z), z.exp(), rtol=5e-5)


def test_edges():
    zero = torch.tensor([0.0, -0.0])
    assert approximated.reciprocal(zero).tolist() == [torch.inf, -torch.inf]
    assert approximated.rsqrt(zero).tolist() == [torch.inf, torch.inf]
    assert approximated.sqrt(torch.tensor([0.0, -1e-3])).abs().max() < 1e-15
    assert approximated.exp(torch.tensor([-torch.inf, -1e30, 1e30])).tolist() == [0, 0, torch.inf]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sd", [0.5, 1, 2, 4, 1e3])
def test_softmax(sd, dtype):
    x = sd * torch.randn(2, 100, 197, dtype=dtype)
    for dim in (-1, 1):
        error = (approximated.softmax(x, dim) - x.softmax(dim)).abs().sum(dim)
        assert error.max() < 1e-3


def test_softmax_of_masked_rows():
    x = 4 * torch.randn(3, 197)
    x[0, 5:] = -torch.inf
    x[1] = -torch.inf
    x[2, 7:] = torch.finfo(x.dtype).min
    weights = approximated.softmax(x)
    assert weights[1].abs().max() == 0
    for row, keys in ((0, 5), (2, 7)):
        assert weights[row, keys:].abs().max() == 0
        assert_close(weights[row, :keys], x[row, :keys].softmax(-1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variance", SCALES)
def test_normalisations(variance, dtype):
    x = variance**0.5 * (torch.randn(4, 6, 5, 8, dtype=dtype) + 3)
    weight, bias = torch.randn(2, 5, 8, dtype=dtype)
    assert relative(approximated.layer_norm(x, (5, 8), weight), F.layer_norm(x, (5, 8), weight)) < 0.01
    assert_close(
        approximated.layer_norm(x, (5, 8), weight, bias), F.layer_norm(x, (5, 8), weight, bias), rtol=0.01, atol=0.01
    )
    assert relative(approximated.rms_norm(x, (8,), weight[0], 1e-6), F.rms_norm(x, (8,), weight[0], 1e-6)) < 0.01
    assert relative(approximated.rms_norm(x, 8), F.rms_norm(x, (8,))) < 0.01
    assert relative(approximated.normalize(x, dim=-1), F.normalize(x, dim=-1)) < 0.01
    assert relative(approximated.norm(x, 2, (1, 2)), x.norm(2, (1, 2))) < 0.01
    scale, shift = torch.randn(2, 6, dtype=dtype)
    for groups in (1, 2, 6):
        got, want = (f(x, groups, scale, shift) for f in (approximated.group_norm, F.group_norm))
        assert_close(got, want, rtol=0.01, atol=0.01)


def test_normalisations_of_zeros_are_zeros():
    x = torch.zeros(2, 8)
    assert approximated.layer_norm(x, (8,)).abs().max() == 0
    assert approximated.rms_norm(x, (8,)).abs().max() == 0
    assert approximated.normalize(x).abs().max() == 0


# the table


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
