"""What the recorder sees: kinds of values, rates, products, and where they happen."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import spikeformers
from spikeformers.measure import following, record
from spikeformers.measure.counting import fan_out
from spikeformers.measure.values import kind_of
from spikeformers.neurons import LIF


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 1.0, 1.0], "binary"),
        ([0.0, 0.0], "binary"),
        ([-1.0, 0.0, 1.0], "ternary"),
        ([0.0, 2.0], "integer"),
        ([-3.0, 1.0], "integer"),
        ([0.0, 0.5], "real"),  # two values, but no spikes
        ([0.0, 1e-30, 1.0], "real"),
        ([0.0, float("nan")], "real"),
        ([0.0, float("inf")], "real"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_kind_of_values(values, kind, dtype):
    assert kind_of(torch.tensor(values, dtype=dtype)) == kind


def test_kind_is_decided_by_every_value():
    spikes = torch.ones(3, 100, 100)
    assert kind_of(spikes) == "binary"
    spikes[-1, -1, -1] = 0.5
    assert kind_of(spikes) == "real"
    assert kind_of(spikes.bool()) == "binary" and kind_of(torch.tensor([0, 3])) == "integer"


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_fan_out_is_the_gradient_of_a_sum(kernel, stride, padding, dilation, transposed):
    x = torch.ones(1, 1, 11, requires_grad=True)
    if dilation * (kernel - 1) + 1 > 11 + 2 * padding:
        return
    convolve = F.conv_transpose1d if transposed else F.conv1d
    y = convolve(x, torch.ones(1, 1, kernel), stride=stride, padding=padding, dilation=dilation)
    (want,) = torch.autograd.grad(y.sum(), x)
    assert fan_out(11, y.shape[2], kernel, stride, padding, dilation, transposed).tolist() == want[0, 0].tolist()


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


def test_rates_weigh_batches_by_their_samples(spikingformer, images):
    model = spikingformer()
    whole, parts = record(model, [images]), record(model, [images[:1], images[1:]])
    assert parts.samples == 4
    for name, operand in whole.neurons.items():
        assert operand.rate == pytest.approx(parts.neurons[name].rate, rel=1e-12)
        assert operand.rate_per_step == pytest.approx(parts.neurons[name].rate_per_step)
        assert 0 < operand.rate < 1, name
    for a, b in zip(whole.operations.values(), parts.operations.values(), strict=True):
        assert (a.module, a.dense, a.effective) == (b.module, b.dense, b.effective)


def test_rates_are_those_of_inputs_behind_the_pooling(spikingformer, images):
    """Max pooling raises the rate: what counts is what the convolution reads."""
    model = spikingformer()
    seen = {}
    model.tokenizer[2].conv_bn.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    recorder = record(model, [images])
    convolution = operation(recorder, "tokenizer.2.conv_bn.conv")
    assert convolution.data[0].rate == pytest.approx(seen["x"].mean().item())
    assert convolution.data[0].rate > recorder.neurons["tokenizer.2.lif"].rate
    assert convolution.data[0].rate_per_step == pytest.approx(seen["x"].mean((1, 2, 3, 4)).tolist())


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


def test_static_images_pass_the_stem_once(meta, images):
    recorder = record(meta(time_steps=3), [images])
    steps = {o.module: o.steps for o in recorder.operations.values() if o.category in ("convolution", "linear")}
    assert steps.pop("stem.conv") == 1
    assert set(steps.values()) == {3}


def test_a_model_is_left_as_it_was(meta, images):
    model = meta().train()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(module._forward_hooks) for module in model.modules()]
    record(model, [images])
    assert model.training and [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(vars(tensor) for tensor in [*model.parameters(), images])


def test_results_are_those_of_the_model(meta, images):
    model = meta()
    with following(model) as recorder:
        (output,) = recorder.run(images)
    with torch.no_grad():
        assert torch.equal(output, model(images))


def test_time_is_found_however_frames_are_made(images):
    """The stem runs once, what follows for T steps, whatever the batch and the layout."""

    class Tokens(nn.Module):
        def __init__(self, spread):
            super().__init__()
            self.stem, self.lif, self.mix, self.spread = nn.Conv2d(3, 4, 4, 4), LIF(tau=1.0), nn.Linear(4, 6), spread

        def forward(self, x):
            tokens = self.stem(x).flatten(2).transpose(1, 2)  # [B, N, C]
            return self.mix(self.lif(self.spread(tokens))).mean((0, 2))

    for spread in (
        lambda x: x.expand(5, *x.shape),
        lambda x: x.unsqueeze(0).repeat(5, 1, 1, 1),
        lambda x: torch.stack([x] * 5),
        lambda x: torch.cat([x[None]] * 5),
    ):
        for batches in ([images], [images[:3], images[3:]], [images[:1], images[1:]]):
            recorder = record(Tokens(spread), batches)
            steps = {o.module: o.steps for o in recorder.operations.values() if o.module}
            assert steps == {"stem": 1, "lif": 5, "mix": 5}
            assert operation(recorder, "mix").dense == 5 * 4 * 12 * 4 * 6 and recorder.neuron_shapes["lif"] == (12, 4)
            assert len(operation(recorder, "mix").data[0].rate_per_step) == 5


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


@pytest.mark.parametrize("wrap", ["inference", "half"])
def test_unusual_modes(spikingformer, images, wrap):
    model = spikingformer()
    if wrap == "half":
        found = record(model.bfloat16(), [images.bfloat16()])
    else:
        model.forward = torch.inference_mode()(model.forward)
        found = record(model, [images])
    plain = record(spikingformer(), [images])
    names = [(o.module, o.category, o.dense) for o in plain.operations.values() if o.dense]
    assert [(o.module, o.category, o.dense) for o in found.operations.values() if o.dense] == names


def test_lengths_are_not_mixed(meta):
    with pytest.raises(ValueError, match="of 2 and of 4 time steps"):
        record(meta(), [torch.rand(2, 1, 3, 16, 12), torch.rand(4, 1, 3, 16, 12)])


def test_nothing_to_follow():
    with pytest.raises(ValueError, match="no inputs"):
        record(nn.Linear(2, 2), [])


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
            module.register_forward_hook(lambda module, args, out, path=path: pixels.__setitem__(path, out[0, 0, 0].numel()))
    recorder = record(model, [x])
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(x)
    ours = sum(o.dense for o in recorder.operations.values() if o.category in ("convolution", "linear", "matmul"))
    borders = sum(BORDERS["RepConv"](model.get_submodule(path), count) for path, count in pixels.items())
    assert ours + borders == flops.get_total_flops() / 2
    assert ours > 1e6
