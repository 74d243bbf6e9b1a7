"""Fitted networks of rectified units."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from spikeformers.transforms.sta import approximators as approximated
from spikeformers.transforms.sta.approximators.elementary import activation, mantissa
from spikeformers.transforms.sta.approximators.fitting import PART, Approximator, fit, synthetic

DTYPES = torch.float32, torch.float64


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
    x = torch.randn(3 * PART // 2)
    approximated.gelu(x)  # fits
    with LargestResult() as largest:
        approximated.gelu(x)
    assert largest.values == len(x)


def test_not_a_number_stays_so():
    y = approximated.gelu(torch.tensor([1.0, torch.nan, -1.0]))
    assert y.isnan().tolist() == [False, True, False]


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
