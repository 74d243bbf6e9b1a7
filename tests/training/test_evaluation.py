"""Firing rates by hand."""

import torch
from torch import nn

from spikeformers.neurons import IF, LIF
from spikeformers.training.evaluation import firing_rates


def test_firing_rates_are_spikes_per_neuron_and_step():
    model = nn.Sequential(IF(1.0), nn.Identity(), LIF(2.0, 1.0))
    with firing_rates(model) as rates:
        model(torch.tensor([[1.0, 0.0], [1.0, 0.5]]))  # IF: 1 0, 1 0; LIF: 0 0, 0 0 (h is 0.5, then 0.75)
        assert rates() == {"0": 0.5, "2": 0.0}
        model(torch.tensor([[1.0, 0.6], [1.0, 0.6]]))  # IF: 1 0, 1 1
        assert rates() == {"0": 0.625, "2": 0.0}
    model(torch.ones(2, 2))
    assert rates() == {"0": 0.625, "2": 0.0}
