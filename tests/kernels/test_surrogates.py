import math

import pytest
import torch
from torch import autograd
from torch.testing import assert_close

from spikeformers import create_model, merge
from spikeformers.kernels.lif import SURROGATES, Dynamics, lif, native, register_surrogate
from spikeformers.neurons import LIF


def test_equations():
    """Against the formulas as the literature has them, at single points."""
    z, alpha = torch.tensor([-0.3, 0.0, 0.2], dtype=torch.float64), 1.7
    slope = lambda name: SURROGATES[name].slope(z, alpha)  # noqa: E731
    assert_close(slope("erf"), alpha / math.sqrt(math.pi) * torch.exp(-((alpha * z) ** 2)))
    assert_close(slope("softsign"), 1 / (2 * alpha * (1 / alpha + z.abs()) ** 2))
    assert_close(slope("exponential"), alpha / 2 * torch.exp(-alpha * z.abs()))


def test_the_fast_kernel_knows_all_of_them():
    assert tuple(SURROGATES)[: len(native.SURROGATES)] == native.SURROGATES
    assert len(native.SURROGATES) >= 7


def test_functions_give_the_gradient_and_kernels_the_spikes():
    def straight_through(u):
        return torch.ones_like(u)

    x = torch.randn(4, 50, requires_grad=True)
    spikes, v = lif(x, surrogate=straight_through)
    assert torch.equal(spikes, lif(x)[0])
    (grad,) = autograd.grad(spikes.sum(), x)
    # with a slope of 1 everywhere and no path through the reset, each spike hands on 1 / tau and decays where nothing fired
    expected, carried = torch.zeros_like(grad), torch.zeros(50)
    for t in reversed(range(4)):
        h_grad = 1 + torch.where(spikes[t] > 0, 0.0, carried)
        expected[t], carried = h_grad / 2, h_grad / 2
    assert_close(grad, expected)


def test_alpha_widens_functions_as_it_does_names():
    def bump(u):
        return 1 / (2 * (1 + u.abs()) ** 2)

    x = torch.randn(3, 40, requires_grad=True)
    for alpha in (1.0, 3.0):
        own, known = (autograd.grad(lif(x, surrogate=s, alpha=alpha)[0].sum(), x)[0] for s in (bump, "softsign"))
        assert_close(own, known)


def test_a_function_is_registered_once():
    def mine(u):
        return torch.ones_like(u)

    first, second = LIF(surrogate=mine), LIF(surrogate=mine)
    assert first.surrogate == second.surrogate == "mine"

    def mine(u):  # another function of the same name
        return torch.zeros_like(u)

    assert LIF(surrogate=mine).surrogate == "mine#2"


def test_models_take_registered_names_and_merge_scales_them():
    register_surrogate("half_bump", lambda u: 0.5 * (u.abs() < 1).to(u.dtype), alpha=2.0)
    model = create_model("spiking_resnet_edge", surrogate="half_bump")
    neurons = [module for module in model.modules() if isinstance(module, LIF)]
    assert neurons and all((n.surrogate, n.alpha) == ("half_bump", 2.0) for n in neurons)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert any(p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "stages" in name)
    merge(model.eval())
    assert Dynamics(surrogate="half_bump").scaled(0.5).alpha == 1.0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must be one of sigmoid, .*softsign.*register_surrogate"):
        LIF(surrogate="relu")
    with pytest.raises(ValueError, match="already"):
        register_surrogate("sigmoid", torch.sigmoid)
    with pytest.raises(ValueError, match="each element"):
        register_surrogate("total", lambda u: u.sum())
    with pytest.raises(ValueError, match="must be one of .*half_of_it"):
        create_model("spiking_resnet_edge", surrogate="half_of_it")
