"""Neurons of one's own, with dynamics that no kernel has, wherever neurons go: one by an equation, one in plain PyTorch."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import spikeformers
from spikeformers import neurons
from spikeformers.kernels.lif import INTEGRATIONS, Arithmetic, Dynamics, Integration, native, reference
from spikeformers.layers import SpikingSelfAttention
from spikeformers.measure import emissions, record
from spikeformers.neurons import LIF, Neuron

pytestmark = pytest.mark.usefixtures("one_thread", "kinds")


class Quadratic(Integration):
    """h = v + (v * v + x) / tau"""

    homogeneous = False
    arithmetic = Arithmetic(additions=2, multiplications=1)

    def charge(self, x, v, tau):
        return v + (v * v + x) / tau

    def back(self, grad, x, v, tau):
        return grad / tau, grad + 2 * v * grad / tau

    def back_to_tau(self, grad, x, v, tau):
        return -((grad * ((v * v + x) / tau)).sum() / tau)


class QIF(Neuron):
    """Quadratic integrate-and-fire: all that a neuron with an equation of its own has to say."""

    def __init__(self, tau: float = 2.0, v_threshold: float = 1.0, **kwargs):
        super().__init__(v_threshold, integration="quadratic", tau=tau, **kwargs)


class Adaptive(Neuron):
    """Its threshold rises with every spike: another state, so no kernel, and PyTorch does."""

    def __init__(self, v_threshold: float = 1.0, rise: float = 0.5, **kwargs):
        super().__init__(v_threshold, integration="perfect", **kwargs)
        self.rise = rise

    def forward(self, x):
        v = risen = torch.zeros_like(x[0])
        spikes = []
        for current in x:
            v = v + current
            fires = reference._Step.apply(v - risen, torch.full((), self.v_threshold).to(x), self.constants)
            v, risen = v * (1 - fires.detach()), risen + self.rise * fires.detach()
            spikes.append(fires)
        return torch.stack(spikes)

    def arithmetic(self):
        return Arithmetic(additions=2)


class Doubled(LIF):
    """It says nothing of what it computes, so that profiles look."""

    def forward(self, x):
        return super().forward(2 * x.abs().sqrt())


@pytest.fixture
def kinds(monkeypatch):
    """Both, known by name."""
    monkeypatch.setitem(INTEGRATIONS, "quadratic", Quadratic())
    monkeypatch.setitem(neurons.KINDS, "qif", QIF)
    monkeypatch.setitem(neurons.KINDS, "adaptive", Adaptive)


@pytest.fixture(params=["qif", "adaptive"])
def network(request):
    """A network of such neurons, awake, and its input."""
    torch.manual_seed(0)
    model = spikeformers.create_model(
        "spiking_resnet18", neuron=request.param, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), time_steps=3, num_classes=4
    ).double()
    x = torch.rand(3, 2, 2, 16, 16, dtype=torch.float64)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
        nn.init.constant_(norm.bias, 0.6)
    model.train()(x)
    return model.eval(), x


def own(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Neuron)}


def test_by_hand():
    """h = 0.5, then 0.5 + (0.25 + 1) / 2 = 1.125, which fires."""
    assert QIF()(torch.tensor([[1.0], [1.0], [1.0]])).flatten().tolist() == [0, 1, 0]
    assert Adaptive()(torch.ones(4, 1)).flatten().tolist() == [1, 0, 1, 0]


def test_the_derivatives_of_an_equation():
    x = torch.rand(4, 30, dtype=torch.float64, requires_grad=True)
    tau = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    dynamics = Dynamics("quadratic", tau)
    assert not native.supports(x, dynamics)
    got = torch.autograd.grad(neurons.run(x, None, dynamics)[1].sum(), (x, tau))
    want = torch.autograd.grad(reference.composed(x, None, dynamics)[1].sum(), (x, tau))
    assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_training_step(network):
    model, x = network
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert sum(bool(p.grad.any()) for p in model.parameters()) > len(list(model.parameters())) / 2


def test_profiles_count_them_as_neurons(network):
    model, x = network
    found = spikeformers.profile(model, x)
    kind = next(iter(own(model).values()))
    with emissions(model) as emitted:
        model(x)
    assert_close(found.rates_per_step, emitted().firing_rates_per_step)
    rows = {row["name"]: row for row in found.to_dict()["neurons"]}
    assert rows.keys() == own(model).keys() and any(row["rate"] for row in rows.values())
    for row in rows.values():
        updates = 3 * torch.Size(row["shape"]).numel()
        assert [row["additions"], row["multiplications"]] == [updates * times for times in kind.arithmetic()]
    honest = {layer.name: layer for layer in found.account("honest").layers if layer.type == "neuron"}
    assert [(layer.ac, layer.mac) for layer in honest.values()] == [
        (row["additions"], row["multiplications"]) for row in rows.values()
    ]
    assert found.counts.time_steps == 3 and {layer.steps for layer in honest.values()} == {3}


def test_audits_look_at_what_they_say(network):
    model, x = network
    found = spikeformers.audit(spikeformers.merge(model, "neuromorphic"), x)
    neuron_findings = [finding for finding in found.offending if finding.operation == "neuron"]
    multiplies = next(iter(own(model).values())).arithmetic().multiplications > 0
    assert len(neuron_findings) == multiplies * len(own(model))
    assert not any(finding.module in own(model) for finding in (*found.allowed, *found.passing))


def test_neurons_that_say_nothing_are_looked_into():
    model = nn.Sequential(Doubled(), nn.Flatten(2), nn.Linear(6, 2))
    found = spikeformers.audit(model, torch.rand(3, 2, 1, 2, 3))
    assert {finding.operation for finding in found.offending if finding.module == "0"} == {"sqrt", "scaling"}
    assert Doubled().arithmetic() is None and Doubled().behind_scale(0.5) is None
    recorded = record(model, torch.rand(3, 2, 1, 2, 3))
    assert list(recorded.neurons) == ["0"]


def test_merging_keeps_their_spikes(network):
    model, x = network
    merged = spikeformers.merge(model)
    rates = []
    for some in (model, merged):
        with emissions(some) as emitted:
            logits = some(x)
        rates.append((logits, emitted().firing_rates))
    assert_close(*rates, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())


@pytest.mark.parametrize("kind", [QIF, Adaptive, LIF])
def test_the_scale_of_attention_goes_where_dynamics_allow(kind):
    """Of a quadratic neuron no threshold makes up for a smaller input."""
    layer = SpikingSelfAttention(8, 2, lambda channels: nn.Identity(), lambda th: kind(v_threshold=th))
    x = 8 * torch.rand(3, 2, 8, 3, 4)
    merged = spikeformers.merge(layer)
    assert merged.scaled == (kind is not LIF)
    assert_close(merged(x), layer(x), rtol=0, atol=0)


def test_the_event_driven_network_leaves_them_to_torch(network):
    model, x = network
    driven = spikeformers.event_driven(copy.deepcopy(model), x)
    assert_close(driven(x), model(x), rtol=1e-9, atol=1e-9)
    if driven.live and type(next(iter(own(model).values()))) is QIF:
        with pytest.raises(ValueError, match="cannot be streamed.*" + next(iter(own(model)))):
            driven.stream(x[0])
