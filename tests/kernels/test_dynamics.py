"""What a neuron does, as one object: its words, its numbers, and what it says of itself."""

import math

import pytest
import torch
from torch.testing import assert_close

from spikeformers.kernels.lif import INTEGRATIONS, Dynamics, Integration, native, run

EVERY = [
    Dynamics(integration, 1.5, 0.75, reset, surrogate)
    for integration, reset, surrogate in [
        ("leaky", "hard", "sigmoid"),
        ("leaky_full_input", "soft", "atan"),
        ("perfect", "hard", "rectangle"),
        ("leaky", "soft", "triangle"),
    ]
]


@pytest.mark.parametrize("dynamics", EVERY, ids=str)
def test_an_operation_of_torch_gets_numbers_and_gives_the_same_back(dynamics):
    assert Dynamics.restored(dynamics.flat()) == dynamics
    assert all(isinstance(value, (int, float)) for value in dynamics.flat()[1:])


def test_a_learnt_tau_stays_a_tensor():
    tau = torch.tensor(1.75)
    flat = Dynamics(tau=tau).flat()
    assert flat[0] is tau and Dynamics.restored(flat).tau is tau and Dynamics(tau=tau).learnt


def test_of_leaks_or_does_not():
    assert Dynamics.of(None).integration == "perfect" and Dynamics.of(None).time_constant is None
    assert Dynamics.of(3.0).integration == "leaky" and Dynamics.of(3.0).time_constant == 3.0
    assert Dynamics.of(3.0, decay_input=False).integration == "leaky_full_input"


@pytest.mark.parametrize("dynamics", EVERY, ids=str)
def test_scaled_by_its_equation(dynamics):
    x = torch.rand(5, 200, dtype=torch.float64)
    assert_close(run(x, None, dynamics.scaled(0.25))[0], run(0.25 * x, None, dynamics)[0], rtol=0, atol=0)
    assert dynamics.scaled(0.25).alpha == 0.25 * dynamics.alpha


@pytest.mark.parametrize("dynamics", EVERY, ids=str)
def test_who_gets_nothing_stays_at_rest(dynamics):
    spikes, v = run(torch.zeros(4, 3), None, dynamics)
    assert dynamics.silent_at_rest and not spikes.any() and not v.any()


def test_a_drive_of_its_own_wakes_a_neuron(monkeypatch):
    class Driven(Integration):
        homogeneous = False

        def charge(self, x, v, tau):
            return v + x + 0.5

    monkeypatch.setitem(INTEGRATIONS, "driven", Driven())
    driven = Dynamics("driven")
    assert not driven.silent_at_rest and driven.scaled(2.0) is None
    assert run(torch.zeros(4, 1), None, driven)[0].flatten().tolist() == [0, 1, 0, 1]
    assert not native.supports(torch.zeros(1, 1), driven)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"integration": "quartic"}, "integration must be one of leaky, leaky_full_input, perfect.*, not 'quartic'"),
        ({"tau": 0.5}, "tau must be at least 1 time step"),
        ({"tau": torch.ones(2)}, r"0-d tensor of floating-point numbers, not \(2,\)"),
        ({"v_threshold": 0.0}, "v_threshold must be positive, not 0.0"),
        ({"reset": "none"}, "reset must be 'hard' or 'soft', not 'none'"),
        ({"surrogate": "step"}, "surrogate must be one of sigmoid, atan, rectangle, triangle, .* not 'step'"),
        ({"alpha": math.inf}, "alpha must be positive and finite, not inf"),
    ],
)
def test_errors(constants, message):
    with pytest.raises(ValueError, match=message):
        Dynamics(**constants)


def test_numbers_that_nothing_has():
    with pytest.raises(ValueError, match="no integration number 99"):
        Dynamics.restored((None, 2.0, 99, 1.0, False, 0, 4.0))
