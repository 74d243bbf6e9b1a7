"""Spikes kept as booleans: the same gradients from fewer bytes, and nothing but spikes touched."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers import create_model
from spikeformers.kernels.lif import is_emitted
from spikeformers.layers import compact_spikes, memory, per_step
from spikeformers.neurons import LIF


@pytest.fixture
def kept(monkeypatch):
    """What `compact_spikes` made of every tensor that was kept: the tensor itself, or a tuple that begins with booleans."""
    record, pack = [], memory._pack
    monkeypatch.setattr(memory, "_pack", lambda tensor: record.append(pack(tensor)) or record[-1])
    return record


def currents(*shape):
    return (2 * torch.randn(shape)).requires_grad_()


@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_of_a_convolution_are_the_same(kept, channels_last):
    torch.manual_seed(0)
    x = currents(3, 2, 4, 6, 6)
    conv, grad = nn.Conv2d(4, 5, 3, padding=1), torch.randn(3, 2, 5, 6, 6)

    def run():
        current = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 2)) if channels_last else x
        return torch.autograd.grad(per_step(conv, LIF()(current)), (x, *conv.parameters()), grad)

    want = run()
    assert not kept
    with compact_spikes():
        got = run()
    assert_close(got, want, rtol=0, atol=0)
    assert sum(isinstance(entry, tuple) for entry in kept) == 1


def test_all_keepers_of_the_same_spikes_share_one_copy(kept):
    with compact_spikes():
        spikes = LIF()(currents(3, 2, 4, 6, 6))
        loss = sum(per_step(nn.Conv2d(4, 4, 1), spikes).sum() for _ in range(3))
    packed = [entry[0] for entry in kept if isinstance(entry, tuple)]
    assert len(packed) == 3 and all(entry is packed[0] for entry in packed) and packed[0].dtype == torch.bool
    loss.backward()


def test_tensors_that_are_not_spikes_are_kept_as_they_are(kept):
    x = currents(3, 2, 4)
    with compact_spikes():
        v = LIF().run(x)[1]
        spikes = LIF()(x)
        (v * v).sum().backward(retain_graph=True)
        (x * x).sum()
        F.relu(spikes * 2).pow(2).sum().backward()
    shapes = [entry[0].shape for entry in kept if isinstance(entry, tuple)]
    assert not shapes


def test_spikes_changed_in_place_are_kept_as_they_are(kept):
    weight = torch.randn(4, requires_grad=True)
    with compact_spikes():
        spikes = LIF()(currents(3, 2, 4))
        spikes *= 3
        (spikes * weight).sum().backward()
    assert not any(isinstance(entry, tuple) for entry in kept)
    assert_close(weight.grad, spikes.detach().sum((0, 1)))


@pytest.mark.parametrize("name", ["meta_spikeformer_cifar", "spikingformer_cifar_2_256"])
def test_a_model_trains_alike_with_and_without(name, kept, monkeypatch):
    torch.manual_seed(0)
    model, images = create_model(name, time_steps=2).train(), torch.randn(2, 3, 16, 16)

    def gradients():
        network = copy.deepcopy(model)
        network(images).pow(2).sum().backward()
        return {key: p.grad for key, p in network.named_parameters() if p.grad is not None}

    got = gradients()
    assert sum(isinstance(entry, tuple) for entry in kept) >= 10
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # switches it off
    kept.clear()
    want = gradients()
    assert not kept
    assert_close(got, want, rtol=0, atol=0)


def test_nothing_is_done_without_gradients(kept):
    with torch.no_grad(), compact_spikes():
        LIF()(currents(2, 3))
    assert not kept


def test_spikes_are_known_by_their_neuron_and_not_by_the_name_of_its_node(kept):
    """What only looks like it, another operation's output of the same values, is kept as it is."""
    weight = torch.randn(4, requires_grad=True)
    with compact_spikes():
        spikes = LIF()(currents(3, 2, 4))
        (spikes.clone() * weight).sum().backward(retain_graph=True)
        assert not any(isinstance(entry, tuple) for entry in kept)
        (spikes[1:] * weight).sum().backward()
    assert is_emitted(spikes) and not is_emitted(spikes.detach())
    assert sum(isinstance(entry, tuple) for entry in kept) == 1
