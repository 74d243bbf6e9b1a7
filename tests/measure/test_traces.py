import pytest
import torch
from torch import nn

from spikeformers import create_model
from spikeformers.kernels.lif import lif
from spikeformers.measure import traces
from spikeformers.neurons import LIF, Neuron


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.mix, self.second = LIF(), nn.Linear(6, 6), LIF(reset="soft")

    def forward(self, x):
        return self.second(3 * self.mix(self.first(x)))


def test_spikes_and_potentials_are_those_of_the_run():
    torch.manual_seed(0)
    net, x = Net(), 2 * torch.rand(5, 2, 6)
    with traces(net, potentials=True) as seen:
        out = net(x)
    assert list(seen.spikes) == ["first", "second"] and torch.equal(seen.spikes["second"], out)
    assert seen.spikes["first"].sum() > 0 and not seen.potentials["first"].requires_grad
    current = (3 * net.mix(seen.spikes["first"])).detach()
    for steps in range(1, 6):  # the potential after so many steps
        want = lif(current[:steps], reset="soft")[1]
        torch.testing.assert_close(seen.potentials["second"][steps - 1], want, rtol=0, atol=0)
    assert "second [5, 2, 6]" in repr(seen) and "with potentials" in repr(seen)


def test_layers_are_chosen_and_hooks_removed():
    net, x = Net(), torch.rand(3, 1, 6)
    with traces(net, "sec*") as seen:
        net(x)
    assert list(seen.spikes) == ["second"] and not seen.potentials
    seen.spikes.clear()
    net(x)
    assert not seen.spikes


def test_networks_compute_the_same():
    model = create_model("spiking_resnet_edge", time_steps=2).eval()
    x = torch.rand(1, 3, 32, 32)
    want = model(x)
    with traces(model, ["stages.0*"], potentials=True) as seen:
        assert torch.equal(model(x), want)
    assert seen.spikes and all(spikes.shape[:2] == (2, 1) for spikes in seen.spikes.values())


def test_mistakes_are_named():
    class Own(Neuron):
        def forward(self, x):
            return (x > 0).to(x.dtype)

    with pytest.raises(ValueError, match="no neurons are called third.*first, second"), traces(Net(), "third"):
        pass
    with pytest.raises(ValueError, match="run"), traces(nn.Sequential(Own()), potentials=True):
        pass
    with traces(nn.Sequential(Own())) as seen:
        nn.Sequential(Own())
    assert repr(seen) == "Traces(nothing yet)"
