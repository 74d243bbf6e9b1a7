"""The penalty on firing rates."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.neurons import LIF
from spikeformers.training.rates import rate_penalty, rates_of
from spikeformers.training.recipe import Training

from .test_classification import module_of


def test_rates_by_hand():
    model = nn.Sequential(LIF(1.0), nn.Identity(), LIF(1.0))
    x = torch.tensor([[0.0, 1.0, 2.0, 0.5]], requires_grad=True)
    with rates_of(model) as rates:
        model(x)
    assert [rate.item() for rate in rates] == [0.5, 0.5]
    model(x)
    assert len(rates) == 2  # outside nothing is counted
    assert rate_penalty([torch.tensor(0.5), torch.tensor(0.1)], 0.2).item() == pytest.approx(0.15)
    rate_penalty(rates, 0.0).backward()
    assert (x.grad > 0).all()  # less input, fewer spikes


def test_the_penalty_is_added_to_the_loss(config):
    config["model"]["kwargs"]["drop_path_rate"] = 0.0
    x, labels, losses = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 1, 0]), []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        module = module_of(config, rate_penalty=weight, rate_target=0.02)
        module.objective.mixup = None
        losses.append(module.training_step((x, labels), 0))
    with rates_of(module.model) as rates:
        module.model(x)
    assert rate_penalty(rates, 0.02) > 0.005
    assert_close(losses[1], losses[0] + 2.0 * rate_penalty(rates, 0.02))


def test_a_penalised_network_fires_less(config):
    rates = []
    for weight in (0.0, 30.0):
        torch.manual_seed(0)
        module = module_of(config, rate_penalty=weight)
        module.objective.mixup, optimizer = None, torch.optim.Adam(module.parameters(), 0.01)
        for _ in range(15):
            x = torch.rand(8, 1, 16, 16)
            module.training_step((x, (x.mean((1, 2, 3)) > 0.5).long()), 0).backward()
            optimizer.step()
            optimizer.zero_grad()
        with rates_of(module.model) as found, torch.no_grad():
            module.model(torch.rand(8, 1, 16, 16))
        rates.append(torch.stack(found).mean().item())
    assert 0 < rates[1] < 0.7 * rates[0]


@pytest.mark.parametrize("options", [{"rate_penalty": -1.0}, {"rate_target": 1.5}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match=f"training.{next(iter(options))} is"):
        Training(**options)
