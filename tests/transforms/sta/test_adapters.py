"""What adapters do to modules of each ecosystem: the same, with as many neurons as there are functions."""

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import adapts, convert
from spikeformers.transforms.sta.rates.extensions import ADAPTERS

SHIPPED = dict(ADAPTERS)


def made(name):
    place, _, name = name.rpartition(".")
    kind = getattr(pytest.importorskip(place), name)
    module = kind(6) if "Norm" in name else kind()
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return module.double().eval()


@pytest.mark.parametrize("name", SHIPPED)
def test_an_adapter_does_what_its_module_does(name):
    torch.manual_seed(0)
    module, x = made(name), 3 * torch.randn(50, 6, dtype=torch.float64)
    tolerance = 1e-6 if "Norm" in name else 1e-9  # those of Hugging Face compute in float32
    with torch.no_grad():
        assert_close(SHIPPED[name](module, x), module(x), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("spiking", ["hybrid", "full"])
def test_it_becomes_one_neuron(name, spiking):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 6), made(name).float(), nn.Linear(6, 3)).eval()
    x = torch.randn(64, 6)
    converted = convert(network, x, 64, spiking=spiking)
    state = converted.start()
    with torch.no_grad():
        answer = list(converted.steps(x, state=state))[-1]
        assert (answer - network(x)).norm() < 0.02 * network(x).norm()
    assert len([place for place in state.counts if place.startswith("1:")]) == 1


class Doubled(nn.Module):
    def forward(self, x):
        return torch.erf(x) + torch.erf(x)


def test_users_adapt_their_classes():
    network, x = nn.Sequential(nn.Linear(4, 4), Doubled()).eval(), torch.randn(8, 4)
    try:
        adapts(Doubled)(lambda module, x: 2 * F.softsign(x))
        assert_close(convert(network, x, 256)(x), 2 * F.softsign(network[0](x)), atol=0.02, rtol=0)
    finally:
        ADAPTERS.pop(f"{Doubled.__module__}.{Doubled.__qualname__}")
    assert_close(network(x), 2 * torch.erf(network[0](x)))  # the network itself is left as it was


def test_every_name_is_there():
    pytest.importorskip("transformers")
    for name in SHIPPED:
        place, _, kind = name.rpartition(".")
        assert hasattr(importlib.import_module(place), kind), name
