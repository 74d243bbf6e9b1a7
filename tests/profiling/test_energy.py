"""Energy by the papers' conventions: published figures from published rates, and one layer by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import spikeformers
from spikeformers import estimate, merge, profile
from spikeformers.neurons import LIF
from spikeformers.profiling import Constants

LOGS = json.loads((Path(__file__).parent / "published_logs.json").read_text())


@pytest.mark.parametrize("name", LOGS)
def test_published_energy_follows_from_published_rates(name):
    log = LOGS[name]
    model = spikeformers.create_model(log["model"], **log["options"])
    found = estimate(model, (3, 224, 224), log["rates"], "spikingformer")
    assert found.energy == pytest.approx(log["mJ"], rel=1e-8)
    assert found.chosen.ac / 1e9 == pytest.approx(log["G_AC"], rel=1e-8)
    assert found.chosen.mac / 1e9 == pytest.approx(log["G_MAC"], rel=1e-12)


def test_layers_of_spikingformer_8_512():
    """Counts and additions of single layers, from the logged run."""
    model = spikeformers.create_model("spikingformer_8_512")
    layers = {
        layer.name: layer for layer in estimate(model, (3, 224, 224), LOGS["8-512"]["rates"], "spikingformer").layers
    }
    stem, first, head = layers["stem.conv"], layers["tokenizer.0.conv_bn.conv"], layers["head"]
    assert (stem.dense, stem.mac, stem.ac) == (346_816_512, 346_816_512, 0)  # T times, though it runs once
    assert (first.dense, first.mac) == (3_699_376_128, 0)
    assert first.ac == pytest.approx(955_595_337, abs=1)
    assert (head.dense, head.mac) == (513_000, 513_000)  # once: the time mean comes before
    dense = {"q.conv": 205_520_896, "proj.conv": 205_922_304}
    assert all(layers[f"stages.0.attention.branch.{name}"].dense == count for name, count in dense.items())
    assert layers["stages.0.mlp.branch.fc1.conv"].dense == 823_689_216
    assert layers["stages.0.mlp.branch.fc2.conv"].dense == 822_484_992
    attention = layers["stages.0.attention.branch"]
    assert attention.dense == 2 * 25_690_112 and attention.ac == pytest.approx(5_358_067, abs=1)
    assert sum(
        layer.dense
        for name, layer in layers.items()
        if name != "stages.0.attention.branch" and layer.type[:4] != "SDSA"
    ) == pytest.approx(33.044420e9, abs=1000)


# dense G-ops of one step at 224: RepConv as trained, merged, and SepConv merged too; first convolution; attention; strict MACs of SepConv
META = {
    "meta_spikeformer_15m": (6.381446, 9.945987, 14.799813, 0.059007, 0.031968, 0.102760),
    "meta_spikeformer_31m": (13.861973, 21.223244, 32.203358, 0.088510, 0.065931, 0.231211),
    "meta_spikeformer_55m": (24.580821, 37.677761, 57.250415, 0.118014, 0.117211, 0.411042),
}


@pytest.mark.parametrize("name", META)
def test_dense_operations_of_meta_spikeformer(name):
    found = estimate(spikeformers.create_model(name, time_steps=1), (3, 224, 224), {"": 0.2}, "meta_spikeformer")

    def parts(**switches):
        layers = found.account("meta_spikeformer", **switches).layers
        attention = sum(layer.dense for layer in layers if layer.type.startswith("SDSA"))
        inner = sum(layer.dense for layer in layers[1:] if layer.name != "head") - attention
        return inner / 1e9, layers[0].dense / 1e9, attention / 1e9, layers

    trained, repconv, both, first, attention, pointwise = META[name]
    assert parts(repconv="trained", sepconv="trained")[:3] == pytest.approx((trained, first, attention), abs=1e-6)
    assert parts(repconv="merged", sepconv="trained")[0] == pytest.approx(repconv, abs=1e-6)
    assert parts()[0] == pytest.approx(both, abs=1e-6)
    strict = parts(repconv="trained", sepconv="trained", strict=True)[3]
    macs = [layer.mac for layer in strict if layer.name.endswith("sep_conv.branch.project.conv")]
    assert sum(macs) / 1e9 == pytest.approx(pointwise, abs=1e-6)


def test_one_repconv_of_55m():
    """Merging wins below a rate of 0.65 although there are 4.5 times as many operations."""
    model = spikeformers.create_model("meta_spikeformer_55m", time_steps=1)
    found = estimate(model, (3, 224, 224), {"": 0.2}, "meta_spikeformer")
    name = "stages.3.blocks.0.attention.branch.q"

    def rows(**switches):
        made = found.account("meta_spikeformer", **switches)
        return [(layer.dense, made.energy(layer)) for layer in made.layers if f"{layer.name}.".startswith(f"{name}.")]

    ((dense, energy),) = rows()
    assert dense == 462_422_016 and energy == pytest.approx(0.0832, abs=1e-4)
    strict = rows(repconv="trained", strict=True)
    assert [dense for dense, _ in strict] == [51_380_224, 903_168, 51_380_224]
    assert sum(energy for _, energy in strict) == pytest.approx(0.2498, abs=1e-4)
    loose = rows(repconv="trained")
    assert sum(energy for _, energy in loose) == pytest.approx(sum(d for d, _ in strict) * 0.2 * 0.9e-9)


def test_switches_of_meta_spikeformer():
    model = spikeformers.create_model("meta_spikeformer_15m", time_steps=4)
    rates = {"": 0.2, "stages.3.blocks.0.attention.branch.k_lif": 0.1}
    found = estimate(model, (3, 224, 224), rates, "meta_spikeformer")
    once, always = found.account("meta_spikeformer"), found.account("meta_spikeformer", first_conv_steps="T")
    assert always.mac == 4 * once.mac and always.ac == once.ac
    per_head, full = (
        next(layer for layer in found.account("meta_spikeformer", attention=how).layers if layer.type == "SDSA-3")
        for how in ("per_head", "full")
    )
    assert per_head.ac == pytest.approx(4 * 196 * 256**2 / 8 * (0.1 + 0.2))
    assert full.ac == pytest.approx(4 * 196 * 256**2 * (0.2 + 0.1 + 0.2))


def test_attention_of_masks():
    """SDSA-1 adds as often as keys and values coincide: T N D R."""
    model = spikeformers.create_model("spikingformer_cifar_2_256", sdsa=1)
    found = estimate(model, (3, 32, 32), {"": 0.2}, "meta_spikeformer")
    (first, _) = (layer for layer in found.layers if layer.type == "SDSA-1")
    assert first.ac == pytest.approx(4 * 64 * 256 * 0.2 * 0.2)


def test_merging_first_gives_the_same_account(meta, images):
    """The convention of merged convolutions, applied to the trained network and to the merged one."""
    model = meta().double()
    counted = profile(model, images.double(), "meta_spikeformer", merged=False)
    merged = profile(merge(model, "neuromorphic"), images.double(), "meta_spikeformer", merged=False)
    folded = profile(merge(model, "cpu"), images.double(), "meta_spikeformer", merged=False)
    assert counted.energy == pytest.approx(merged.energy, rel=1e-9) == pytest.approx(folded.energy, rel=1e-9)
    trained = counted.account("meta_spikeformer", repconv="trained", sepconv="trained")
    assert folded.account("meta_spikeformer", repconv="trained", sepconv="trained").energy() == pytest.approx(
        trained.energy()
    )
    assert [layer.name for layer in counted.layers if layer.mac] == ["stem.conv"]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif, self.conv, self.mix = LIF(tau=1.0), nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 1, bias=False)

    def forward(self, x):
        spikes = self.lif(x).flatten(0, 1)
        return self.mix(self.conv(spikes)).unflatten(0, x.shape[:2]).mean((0, 3, 4))


def test_exact_energy_by_hand():
    """Two steps of 2 x 4 x 4 values of which one fires, at a corner of the second step."""
    frames = torch.zeros(2, 1, 2, 4, 4)
    frames[1, 0, 0, 0, 0] = 1
    model = Tiny()
    found = profile(model, frames, merged=False, maps=0)
    conv, mix, mean = found.layers
    assert (conv.dense, conv.mac) == (2 * 16 * 9 * 2 * 4, 0)
    assert conv.ac == 4 * 4 + 2 * 16 * 4  # the corner reaches 4 places of 4 channels; a bias for each output
    assert (mix.mac, mix.ac) == (2 * 16 * 4 * 3, 0)  # reads real numbers
    assert mean.ac == 2 * 3 * 16
    assert found.energy == pytest.approx((4.6 * mix.mac + 0.9 * (conv.ac + mean.ac)) * 1e-9)
    additions = 16 * 4 + mean.ac  # biases of one step, and the average
    assert found.chosen.ann_energy() == pytest.approx(4.6e-9 * (16 * 9 * 2 * 4 + 16 * 4 * 3) + 0.9e-9 * additions)
    dearer = found.account("exact", Constants(mac=1.0, ac=0.0, neuron=10.0))
    assert dearer.energy() == pytest.approx((mix.mac + 10 * 2 * 2 * 16) * 1e-9)


def test_the_ann_is_the_network_as_it_was_trained(meta, images):
    """No ANN would run merged kernels, so merging does not change what is compared with; nor does an ANN gain from itself."""
    found = profile(meta(), images, "meta_spikeformer", merged=False)
    trained = found.account("meta_spikeformer", repconv="trained", sepconv="trained")
    assert found.chosen.dense > trained.dense and found.chosen.ann_energy() == pytest.approx(trained.ann_energy())
    plain = profile(nn.Conv2d(3, 4, 3), images, merged=False)
    assert plain.energy == pytest.approx(plain.chosen.ann_energy())


def test_what_neurons_cost_is_said(meta, images):
    found = profile(meta(), images, merged=False, constants=Constants(mac=3.2, neuron=0.1))
    assert any("0.1 pJ" in note for note in found.chosen.notes) and any("3.2 pJ" in note for note in found.chosen.notes)
    with pytest.raises(ValueError, match="-1 pJ"):
        Constants(mac=-1)


def test_integers_are_levels_on_request(spikingformer, images):
    found = profile(spikingformer(shortcut="sew"), images, merged=False)
    name = "stages.1.mlp.branch.fc1.conv"
    plain, levels = (
        next(layer for layer in found.account("exact", integers=how).layers if layer.name == name)
        for how in ("mac", "levels")
    )
    assert plain.kind == "integer" and plain.mac == plain.dense
    assert levels.mac == 0 and levels.ac == pytest.approx(levels.dense * levels.rate + plain.ac)


def test_mistakes_are_named():
    model = spikeformers.create_model("spikingformer_cifar_2_256")
    for arguments, message in [
        (
            dict(preset="exakt", rates={"": 0.1}),
            "unknown preset 'exakt'; choose one of exact, spikingformer, meta_spikeformer",
        ),
        (
            dict(preset="meta_spikeformer", rates={"": 0.1}, repconv="fused"),
            "repconv must be one of 'merged', 'trained', not 'fused'",
        ),
        (dict(preset="spikingformer", rates={"": 0.1}, repconv="merged"), "has no switch 'repconv'"),
        (dict(preset="spikingformer", rates={"": 12.5}), "divide percentages by 100"),
        (
            dict(preset="spikingformer", rates={"": 0.1, "tokenizer.0.conv": 0.1}),
            "no module of the model; did you mean tokenizer.0.conv_bn",
        ),
        (dict(preset="spikingformer", rates={"tokenizer": 0.1}), "firing rate of stages.0.attention.branch.q.conv"),
    ]:
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            estimate(model, (3, 32, 32), **arguments)
    with pytest.raises(ValueError, match="input_shape"):
        estimate(model, (32, 32), {"": 0.1})
