"""The neurons as modules: their constants reach the kernel, they keep no state, and what is learnable learns."""

import pytest
import torch
from torch.testing import assert_close

from spikeformers.kernels.lif import lif
from spikeformers.neurons import IF, LIF, MLF, PLIF, Neuron, maker

NEURONS = {"LIF": LIF, "PLIF": PLIF, "IF": IF}


@pytest.fixture
def x():
    return 2 * torch.randn(5, 3, 17, generator=torch.Generator().manual_seed(0))


def test_lif_by_hand():
    """h = 0.75, 1.125, 0.5, 1.0: the second step fires and resets, the fourth reaches the threshold exactly."""
    currents = torch.tensor([1.5, 1.5, 1.0, 1.5])[:, None]
    assert LIF()(currents).flatten().tolist() == [0, 1, 0, 1]
    spikes, v = LIF().run(currents[:3])
    assert v.item() == 0.5 and spikes.shape == (3, 1)


def test_if_by_hand():
    """Without leak the inputs add up: 0.5, 1.0."""
    currents = torch.tensor([0.5, 0.5, 0.75])[:, None]
    assert IF()(currents).flatten().tolist() == [0, 1, 0]
    assert IF().run(currents)[1].item() == 0.75
    assert IF(reset="soft").run(torch.tensor([[1.25]]))[1].item() == 0.25


@pytest.mark.parametrize(
    ("neuron", "constants"),
    [
        (LIF(), {}),
        (LIF(1.5, 0.5), {"tau": 1.5, "v_threshold": 0.5}),
        (LIF(3.0, decay_input=False), {"tau": 3.0, "decay_input": False}),
        (LIF(reset="soft"), {"reset": "soft"}),
        (LIF(surrogate="atan"), {"surrogate": "atan"}),
        (LIF(surrogate="atan", alpha=3.0), {"surrogate": "atan", "alpha": 3.0}),
        (LIF(alpha=2.0), {"alpha": 2.0}),
        (IF(0.75), {"tau": None, "v_threshold": 0.75}),
        (IF(reset="soft", surrogate="triangle"), {"tau": None, "reset": "soft", "surrogate": "triangle"}),
        (PLIF(3.0, decay_input=False), {"tau": 3.0, "decay_input": False}),
    ],
    ids=str,
)
def test_constants_reach_the_kernel(neuron, constants, x):
    results = []
    for run in (neuron.run, lambda x: lif(x, **constants)):
        leaf = x.clone().requires_grad_()
        spikes, v = run(leaf)
        (grad,) = torch.autograd.grad(spikes.sum() + v.sum(), leaf)
        results.append((spikes, v, grad))
    assert results[0][0].any() and not results[0][0].all()
    # PLIF goes through 1 / sigmoid(w), so its tau is the given one up to rounding
    tolerance = 1e-5 if isinstance(neuron, PLIF) else 0
    assert_close(results[0], results[1], rtol=tolerance, atol=tolerance)
    if constants:
        default = lif(x.clone().requires_grad_())
        leaf = x.clone().requires_grad_()
        spikes, v = lif(leaf)
        (grad,) = torch.autograd.grad(spikes.sum() + v.sum(), leaf)
        assert any(not torch.equal(a, b) for a, b in zip(results[0], (*default, grad), strict=True))


@pytest.mark.parametrize("name", NEURONS)
def test_every_call_starts_from_rest(name, x):
    neuron = NEURONS[name]()
    first = neuron(x)
    neuron(10 * x)
    assert_close(neuron(x), first, rtol=0, atol=0)
    assert set(first.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", NEURONS)
def test_run_continues_from_a_given_state(name, x):
    neuron = NEURONS[name]()
    with torch.no_grad():
        spikes, v = neuron.run(x)
        first, v2 = neuron.run(x[:2])
        second, v5 = neuron.run(x[2:], v2)
    assert v2.any()
    assert_close((torch.cat([first, second]), v5), (spikes, v), rtol=0, atol=0)
    assert_close(neuron(x).detach(), spikes, rtol=0, atol=0)


def test_gradient_reaches_the_initial_state(x):
    v = torch.full(x.shape[1:], 0.5, requires_grad=True)
    LIF().run(x, v)[0].sum().backward()
    assert v.grad.all()


@pytest.mark.parametrize("name", NEURONS)
def test_no_state_is_kept(name, x):
    neuron = NEURONS[name]()
    before = {key for key in vars(neuron)}
    neuron(x)
    neuron.run(x)
    assert list(neuron.buffers()) == [] and set(vars(neuron)) == before
    assert list(neuron.state_dict()) == (["w"] if name == "PLIF" else [])


@pytest.mark.parametrize("tau", [1.25, 2.0, 5.0])
def test_plif_starts_at_the_given_tau(tau, x):
    neuron = PLIF(tau)
    assert neuron.time_constant().item() == pytest.approx(tau)
    assert 1 / torch.sigmoid(neuron.w).item() == pytest.approx(tau)
    assert (neuron(x) != LIF(tau)(x)).float().mean() < 0.01  # the threshold is met or missed within rounding


def test_plif_learns_its_tau():
    """Asked for a higher firing rate on constant input, it leaks less per step of integration: 1 / tau grows."""
    x = torch.full((4, 100), 1.2)
    neuron = PLIF(4.0)
    optimiser = torch.optim.SGD(neuron.parameters(), lr=1.0)
    assert neuron(x).mean() < 0.3
    for _ in range(50):
        optimiser.zero_grad()
        (0.5 - neuron(x).mean()).square().backward()
        optimiser.step()
    assert neuron.time_constant() < 3.5 and neuron(x).mean() == 0.5


def test_mlf_by_hand():
    """u = 0.25 u (1 - s) + x. Level 1 fires at every step; level 2 gathers 1.5, 1.875; level 3 gathers 1.5, 1.875, 1.96875."""
    currents = torch.tensor([1.5, 1.5, 1.5])[:, None]
    neuron = MLF()
    assert neuron(currents).flatten().tolist() == [1, 2, 1]
    sums, states = neuron.run(currents)
    assert sums.flatten().tolist() == [1, 2, 1]
    assert [v.item() for v in states] == pytest.approx([0.0, 1.5, 1.96875])
    assert neuron(torch.tensor([[3.0]])).item() == 3
    assert [(level.tau, level.v_threshold) for level in neuron.levels] == [(4 / 3, 0.6), (4 / 3, 1.6), (4 / 3, 2.6)]


def test_mlf_is_the_sum_of_its_levels(x):
    neuron = MLF(1.5, (0.5, 1.0), decay_input=True, surrogate="atan", alpha=3.0, reset="soft")
    levels = [LIF(1.5, threshold, surrogate="atan", alpha=3.0, reset="soft") for threshold in (0.5, 1.0)]
    results = []
    for run in (neuron, lambda x: levels[0](x) + levels[1](x)):
        leaf = x.clone().requires_grad_()
        sums = run(leaf)
        results.append((sums, *torch.autograd.grad((sums * x).sum(), leaf)))
    assert_close(results[0], results[1], rtol=0, atol=0)
    assert set(results[0][0].unique().tolist()) == {0.0, 1.0, 2.0} and results[0][1].any()


def test_mlf_surrogate_has_width_one_around_every_threshold():
    x = torch.tensor([[0.05, 0.2, 1.05, 1.2, 2.05, 2.2, 3.0, 3.2]], requires_grad=True)
    MLF()(x).sum().backward()
    assert x.grad.flatten().tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


def test_mlf_starts_from_rest_and_continues_from_a_state(x):
    neuron = MLF()
    first = neuron(x)
    assert_close(neuron(x), first, rtol=0, atol=0)
    before, states = neuron.run(x[:2])
    assert_close(torch.cat([before, neuron.run(x[2:], states)[0]]), first, rtol=0, atol=0)
    assert not neuron.state_dict() and set(first.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_mlf_hooks_see_every_level(x):
    neuron, rates = MLF(), {}
    for name, module in neuron.named_modules():
        if isinstance(module, Neuron):
            module.register_forward_hook(
                lambda m, args, spikes, name=name: rates.__setitem__(name, spikes.mean().item())
            )
    mean = neuron(x).mean().item()
    assert rates.keys() == {"levels.0", "levels.1", "levels.2"} and all(0 < rate < 1 for rate in rates.values())
    assert sum(rates.values()) == pytest.approx(mean)


def test_a_maker_makes_neurons_with_constants():
    make = maker("lif", tau=3.0, decay_input=False, surrogate="triangle")
    assert type(make()) is LIF and make() is not make()
    assert (make().tau, make().decay_input, make().surrogate) == (3.0, False, "triangle")
    levels = maker("mlf", tau=1.5, decay_input=True, surrogate="sigmoid")().levels
    assert {(level.tau, level.decay_input, level.surrogate) for level in levels} == {(1.5, True, "sigmoid")}


def test_a_hook_sees_the_firing_rate(x):
    rates = []
    neuron = LIF()
    neuron.register_forward_hook(lambda module, args, spikes: rates.append(spikes.mean().item()))
    spikes = torch.nn.Sequential(neuron)(x)
    assert rates == [spikes.mean().item()] and 0 < rates[0] < 1


def test_repr_shows_the_constants():
    assert (
        "tau=1.5" in repr(LIF(1.5))
        and "v_threshold=0.5" in repr(IF(0.5))
        and "surrogate='atan'" in repr(IF(surrogate="atan"))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(surrogate="step"), "surrogate must be one of sigmoid, atan, rectangle, triangle, .* not 'step'"),
        (lambda: PLIF(1.0), "initial tau of a PLIF must be above 1 time step, not 1.0"),
        (lambda: LIF(0.5)(torch.zeros(2, 2)), "tau must be at least 1 time step"),
        (lambda: LIF(reset="none")(torch.zeros(2, 2)), "reset must be 'hard' or 'soft', not 'none'"),
        (lambda: LIF(v_threshold=0.0)(torch.zeros(2, 2)), "v_threshold must be positive, not 0.0"),
        (lambda: MLF(thresholds=()), "thresholds needs at least one value"),
        (lambda: maker("glif", tau=2.0), "neuron must be one of lif, mlf, not 'glif'"),
        (lambda: LIF(alpha=-1.0)(torch.zeros(2, 2)), "alpha must be positive, not -1.0"),
        (lambda: LIF()(torch.tensor(1.0)), r"x must be a floating-point tensor \[T, ...\]"),
        (lambda: LIF().run(torch.zeros(2, 3), torch.zeros(2)), r"without the time axis, \(3,\), not \(2,\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_maker_leaves_what_is_none_to_the_kind():
    lif, mlf = (maker(kind, tau=None, decay_input=None)() for kind in ("lif", "mlf"))
    assert (lif.tau, lif.decay_input) == (2.0, True)
    assert {(level.tau, level.decay_input) for level in mlf.levels} == {(4 / 3, False)}


@pytest.mark.parametrize("tau", [3.0, None])
def test_a_subclass_says_its_time_constant(tau):
    class Own(LIF):
        def time_constant(self):
            return tau

    x = 2 * torch.rand(4, 20)
    assert torch.equal(Own(tau=2.0)(x), lif(x, tau=tau)[0])
