"""What neurons emit, by hand."""

import torch
from torch import nn

from spikeformers.measure import emissions
from spikeformers.neurons import IF, LIF


def test_firing_rates_are_spikes_per_neuron_and_step():
    model = nn.Sequential(IF(1.0), nn.Identity(), LIF(2.0, 1.0))
    with emissions(model) as tally:
        model(torch.tensor([[1.0, 0.0], [1.0, 0.5]]))  # IF: 1 0, 1 0; LIF: 0 0, 0 0 (h is 0.5, then 0.75)
        assert tally().firing_rates == {"0": 0.5, "2": 0.0} and tally().firing_rate == 0.25
        model(torch.tensor([[1.0, 0.6], [1.0, 0.6]]))  # IF: 1 0, 1 1
        assert tally().firing_rates == {"0": 0.625, "2": 0.0}
        assert tally().firing_rates_per_step == {"0": [0.5, 0.75], "2": [0.0, 0.0]}
    model(torch.ones(2, 2))
    assert tally().firing_rates == {"0": 0.625, "2": 0.0}
