"""What was emitted, added and multiplied: sums by place and time step, by hand."""

import json

import pytest
import torch

from spikeformers.measure import Constants, Tally


@pytest.fixture
def tally():
    """Two samples: four neurons over two steps, and a layer behind them that has run for one step more."""
    made = Tally(2)
    made.add("lif", emitted=[1, 3], thresholds=[2, 6], places=[8, 8])
    made.add("conv", synops=[20, 60, 4], additions=[10, 10, 10])
    made.add("conv", 1, macs=[5], functions=[1])
    return made


def test_by_hand(tally):
    assert tally.firing_rate == 4 / 16 and tally.thresholds_per_step == 8 / 16
    assert tally.firing_rates == {"lif": 0.25} and tally.firing_rates_per_step == {"lif": [1 / 8, 3 / 8]}
    assert tally.per_step("synops") == [10, 30, 2] and tally.per_step("macs") == [0, 2.5, 0] and tally.time_steps == 3
    assert tally.per_sample("additions") == 15 and tally.total("functions") == 1
    assert tally.so_far("emitted", "places") == [1 / 8, 4 / 16, 4 / 16]
    assert tally.energy(Constants(mac=10, ac=1)) == pytest.approx((10 * 3 + 42 + 15) * 1e-9)
    assert Tally().firing_rate is None and Tally().firing_rates == {}


def test_batches_and_processes_add_up(tally):
    other = Tally(1)
    other.add("lif", emitted=[4], thresholds=[4], places=[4])  # a shorter run
    other.add("head", macs=[7])
    both = tally + other
    assert both.samples == 3 and both.firing_rates_per_step == {"lif": [5 / 12, 3 / 8]} and both.total("macs") == 12
    assert tally.total("macs") == 5, "what was added up has changed"
    twice = Tally.from_tensor(tally.to_tensor() + tally.to_tensor(), tally.layout)  # as all_reduce does
    assert twice == tally + tally != tally
    assert Tally.from_dict(json.loads(json.dumps(both.to_dict()))) == both


def test_sums_are_exact_in_double():
    made = Tally(1)
    for _ in range(3):
        made.add("conv", synops=torch.tensor([2.0**40 + 1], dtype=torch.float64))
    assert made.total("synops") == 3 * (2**40 + 1)
