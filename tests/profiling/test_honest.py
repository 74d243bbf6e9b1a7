"""Energy with memory traffic beside the quantised dense twin, by hand."""

import pytest
import torch
from torch import nn

from spikeformers import estimate, profile
from spikeformers.measure.constants import MEMORIES, Constants, of_integers
from spikeformers.neurons import LIF
from spikeformers.profiling.honest import BreakEven
from spikeformers.profiling.page import page


class Layer(nn.Module):
    """Two steps of 16 neurons, and a layer without bias that reads their spikes."""

    def __init__(self):
        super().__init__()
        self.lif, self.layer = LIF(tau=1.0), nn.Linear(16, 8, bias=False)

    def forward(self, x):
        return self.layer(self.lif(x)).mean(0)


@pytest.fixture
def frames():
    """One sample [T, B, 16], as an image of one pixel each: five spikes in two steps."""
    x = torch.zeros(2, 1, 16)
    x[0, 0, :2] = x[1, 0, 5:8] = 1
    return x


@pytest.fixture
def measured(frames):
    model = Layer()
    model.forward = lambda x: model.layer(model.lif(x[..., 0, 0])).mean(0)
    return profile(model, frames[..., None, None], "honest", merged=False, maps=0)


def test_constants():
    """Horowitz, ISSCC 2014: 8-bit integers are multiplied for 0.2 pJ, added in 32 bits for 0.1; 64 bits from 8 KB for 10 pJ."""
    assert of_integers(8) == Constants(0.3, 0.1) and of_integers(4).mac == pytest.approx(0.05 + 0.1)
    assert MEMORIES["8KB"] == 10 / 64 and MEMORIES["dram"] > 100 * MEMORIES["8KB"]


def test_operations_and_bits_by_hand(measured):
    rows = {row.name or row.type: row for row in measured.layers}
    lif, layer, mean = rows["lif"], rows["layer"], rows["average"]
    assert lif.ac == 32 and lif.bits == 32 * (16 + 16 + 1)
    assert layer.synops == layer.ac == 5 * 8 and layer.possible == 2 * 16 * 8
    assert layer.bits == 5 * 8 * (8 + 16 + 16) + 32  # a weight, and a potential to and fro, for each; the map of spikes
    assert mean.ac == 2 * 8 and mean.bits == 16 * 16
    bit = 10 / 64
    assert measured.energy == pytest.approx((0.1 * (32 + 40 + 16) + bit * (lif.bits + layer.bits + mean.bits)) * 1e-9)
    twin = (
        0.3 * 128 + bit * (2 * 8 * 128 + 8 * 8) + (0.1 * 16 + bit * 8 * 16)
    )  # the layer once; the average, which has one step
    assert measured.chosen.ann_energy() == pytest.approx(twin * 1e-9)


def test_at_the_break_even_rate_both_cost_the_same(frames):
    """More layers behind the same neurons cost the spikes nothing but synapses, so the rate can be met."""
    model = Layer()
    model.layer = nn.Linear(16, 4096, bias=False)
    model.forward = lambda x: model.layer(model.lif(x[..., 0, 0])).mean((0, 2))[:, None]
    found = BreakEven.of(profile(model, frames[..., None, None], "honest", merged=False, maps=0).chosen)
    assert found.rate == 5 / 32 and 0 < found.equal < 1
    fixed = _silent(model, frames)
    assert fixed + found.equal / found.rate * (found.energy - fixed) == pytest.approx(found.twin)


def _silent(model, frames):
    return BreakEven.of(profile(model, 0 * frames[..., None, None], "honest", merged=False, maps=0).chosen).energy


def test_the_rate_that_the_literature_finds(meta, images):
    """Yan et al. (arXiv 2409.08290): below 5.7 to 6.4 % for T from 5 to 10; a synapse alone breaks even at 0.44 spikes per sample."""
    found = estimate(meta(time_steps=7), (3, 16, 12), 0.2, "honest").chosen
    bit, one = found.per_bit, found.constants
    spikes = (one.mac + 16 * bit) / (one.ac + 40 * bit)
    assert spikes == pytest.approx(0.441, abs=1e-3) and 0.055 < spikes / 7 < 0.064
    assert 0.15 < spikes < 1.38  # Dampfhoffer et al. (2023), spikes per synapse and inference
    cheaper = estimate(meta(time_steps=7), (3, 16, 12), 0.2, "honest", potentials="step").chosen
    assert cheaper.energy() < found.energy() and cheaper.ann_energy() == pytest.approx(found.ann_energy())


def test_it_is_in_every_report(meta, images):
    found = profile(meta(), images, merged=False)
    assert found.honest.energy == pytest.approx(found.account("honest").energy())
    assert "times its dense twin of 8 bits" in str(found)
    report = found.to_dict()["honest"]
    assert report["twin"] == found.honest.twin and report["bits"] == 8
    assert (
        next(row for row in found.to_dict()["presets"] if row["preset"] == "honest")["energy_mj"] == found.honest.energy
    )
    assert "With memory traffic" in page([found.to_dict()]) and "With memory traffic" not in page(
        [{**found.to_dict(), "honest": None}]
    )
    narrow = profile(meta(), images, "honest", bits=4, merged=False)
    assert narrow.to_dict()["honest"]["bits"] == 4 and narrow.honest.twin < found.honest.twin
