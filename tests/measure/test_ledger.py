"""What is counted of each operation: products, biases, coincidences, against sums by hand and torch's own counts."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import spikeformers
from spikeformers.measure import record
from spikeformers.neurons import LIF


class Layers(nn.Module):
    """Spikes of given frames, and one layer that reads them at every time step."""

    def __init__(self, layer):
        super().__init__()
        self.lif, self.layer = LIF(tau=1.0), layer  # with tau 1 what is at least 1 fires

    def forward(self, x):
        return self.layer(self.lif(x).flatten(0, 1)).unflatten(0, x.shape[:2]).mean(0)


def operation(recorder, module):
    (found,) = [o for o in recorder.operations.values() if o.module == module and o.category != "addition"]
    return found


def test_a_convolution_worked_by_hand():
    """2 time steps, 1 sample, 1 channel of 3 x 3; a 3 x 3 kernel with bias to 2 channels, padding 1."""
    frames = torch.zeros(2, 1, 1, 3, 3)
    frames[0, 0, 0, 1, 1] = 1  # the centre reaches all 9 outputs of both channels
    frames[1, 0, 0, 0, 0] = 1  # a corner reaches 4
    frames[1, 0, 0, 0, 1] = 1  # the middle of a side reaches 6
    recorder = record(Layers(nn.Conv2d(1, 2, 3, padding=1)), [frames])
    convolution = operation(recorder, "layer")
    assert convolution.name == "convolution 3x3" and convolution.steps == 2 and convolution.shape == (2, 3, 3)
    assert convolution.dense == 2 * 9 * 9 * 2
    assert convolution.biases == 2 * 9 * 2
    assert convolution.unpadded == 2 * 2 * (9 + 4 * 6 + 4 * 4)  # the centre, the sides and the corners, twice
    assert convolution.effective == 2 * (9 + 4 + 6)
    data, weight = convolution.operands
    assert (data.role, data.kind, weight.role) == ("data", "binary", "weight")
    assert data.rate == 3 / 18 and data.rate_per_step == [1 / 9, 2 / 9]
    assert recorder.neurons["lif"].rate == 3 / 18


LAYERS = {
    "stride": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "groups": nn.Conv2d(4, 8, 3, groups=2, bias=False),
    "depthwise": nn.Conv2d(4, 4, 5, padding=2, groups=4),
    "dilation": nn.Conv2d(4, 2, 3, dilation=2, padding=(2, 1)),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed groups": nn.ConvTranspose2d(4, 6, 2, groups=2),
    "linear": nn.Sequential(nn.Flatten(), nn.Linear(4 * 7 * 5, 3)),
}


@pytest.mark.parametrize("pruned", [False, True], ids=["full", "pruned"])
@pytest.mark.parametrize("name", LAYERS)
def test_effective_products_are_those_of_ones(name, pruned):
    """A layer whose weights are 1 where they are not 0, applied to spikes, counts its products."""
    layer = copy.deepcopy(LAYERS[name])
    weighted = layer[1] if name == "linear" else layer
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if pruned:
            weighted.weight *= torch.rand(weighted.weight.shape, generator=generator) < 0.5
        ones = copy.deepcopy(layer)
        counting = ones[1] if name == "linear" else ones
        counting.weight.copy_((weighted.weight != 0).float())
        counting.bias = None
        spikes = (torch.rand(3, 2, 4, 7, 5, generator=generator) < 0.3).float()
        want = ones(spikes.flatten(0, 1)).sum().item()
    convolution = operation(record(Layers(layer), [spikes]), "layer.1" if name == "linear" else "layer")
    assert convolution.effective == want
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        layer(spikes.flatten(0, 1))
    assert convolution.dense == flops.get_total_flops() / 2


def test_attention_counts_coincidences(spikingformer, images):
    """K^T V adds where a key and a value fire together; Q adds a row of counts for each spike."""
    model = spikingformer(depth=1)
    seen = {}
    for name in ("q_lif", "k_lif", "v_lif"):
        module = getattr(model.stages[0].attention.branch, name)
        module.register_forward_hook(lambda module, args, out, name=name: seen.__setitem__(name, out))
    recorder = record(model, [images])
    first, second = (o for o in recorder.operations.values() if o.category == "matmul")
    q, k, v = (seen[name].flatten(3).unflatten(2, (2, 16)) for name in ("q_lif", "k_lif", "v_lif"))
    tokens = q.shape[-1]
    assert tokens < 16  # so that K^T Q is computed first
    pairs = torch.einsum("tbhdn,tbhdm->tbhnm", k, q)
    assert first.effective == pairs.sum().item()
    assert second.effective == torch.einsum("tbhdn,tbhnm->tbhdm", v, (pairs != 0).float()).sum().item()
    assert first.dense == second.dense == 2 * 4 * 2 * 16 * tokens**2


def test_turned_maps_are_counted_anew():
    """An asymmetric kernel reaches elsewhere on a transposed map."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.layer = LIF(tau=1.0), nn.Conv2d(1, 1, (1, 5), padding=(0, 2), bias=False)

        def forward(self, x):
            spikes = self.lif(x[None])[0]
            return self.layer(spikes.transpose(2, 3))

    x = torch.zeros(1, 1, 6, 6)
    x[:, :, 0] = 1  # a row at the border becomes a column there: 3 places each
    assert operation(record(Turned(), [x]), "layer").effective == 6 * 3


# RepConv's border is a convolution of constants, once a pass: torch counts it, we do not
BORDERS = {"RepConv": lambda module, pixels: 9 * module.expand.in_channels * pixels}


@pytest.mark.parametrize("name", spikeformers.list_models())
def test_dense_operations_agree_with_torch(name):
    model = spikeformers.create_model(name).to("meta").eval()
    size = model.pretrained_cfg["input_size"]
    x = torch.empty((2, 2, *size) if size[0] == 2 else (2, *size), device="meta")
    pixels = {}
    for path, module in model.named_modules():
        if type(module).__name__ in BORDERS:
            module.register_forward_hook(
                lambda module, args, out, path=path: pixels.__setitem__(path, out[0, 0, 0].numel())
            )
    recorder = record(model, [x])
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(x)
    ours = sum(o.dense for o in recorder.operations.values() if o.category in ("convolution", "linear", "matmul"))
    borders = sum(BORDERS["RepConv"](model.get_submodule(path), count) for path, count in pixels.items())
    assert ours + borders == flops.get_total_flops() / 2
    assert ours > 1e6
