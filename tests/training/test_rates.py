"""The penalty on firing rates."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.neurons import LIF
from spikeformers.training.rates import rate_penalty, rates_of
from spikeformers.training.recipe import Recipe, Training

from .test_classifier import module_of


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
    losses = {}
    for weight in (0.0, 2.0):
        module = module_of(config, rate_penalty=weight, rate_target=0.05)
        torch.manual_seed(0)
        module.mixup, x, labels = None, torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 1, 0])
        module.model.load_state_dict(losses.setdefault("weights", copy.deepcopy(module.model.state_dict())))
        module.model.eval()  # without dropped paths
        losses[weight] = module.training_step((x, labels), 0)
        with rates_of(module.model) as rates:
            module.model(x)
    assert rate_penalty(rates, 0.05) > 0.01
    assert_close(losses[2.0], losses[0.0] + 2.0 * rate_penalty(rates, 0.05))


def test_a_penalised_network_fires_less(config, tmp_path):
    from spikeformers.training.run import train

    config["training"] |= {"epochs": 6, "lr": 0.02, "mixup": 0.0}
    rates = []
    for weight in (0.0, 30.0):
        config["training"]["rate_penalty"] = weight
        rates.append(train(Recipe.from_dict(config), tmp_path / str(weight))["firing_rate"])
    assert rates[1] < 0.7 * rates[0]


@pytest.mark.parametrize("options", [{"rate_penalty": -1.0}, {"rate_target": 1.5}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match=f"training.{next(iter(options))} is"):
        Training(**options)
