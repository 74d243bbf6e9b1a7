"""Event-driven networks compute what the merged ones do, with the same spikes: in float64, where no rounding flips a spike."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from spikeformers import convert, create_model, event_driven, merge, shrink
from spikeformers.kernels import spike_conv
from spikeformers.layers import ConvBN
from spikeformers.neurons import IF, LIF, PLIF, Neuron
from spikeformers.profiling import audit
from spikeformers.transforms.event_driven import EventDriven
from spikeformers.transforms.event_driven.calibration import Calibration, limit

pytestmark = pytest.mark.skipif(spike_conv.native.load()[0] is None, reason="the native kernels are not built")
META = dict(dims=(16, 24, 40, 72), depths=(1, 1, 1, 1, 1), num_heads=2)
SPIKINGFORMER = dict(embed_dim=72, depth=1, num_heads=2)
RESNET = dict(dims=(16, 24, 32, 72), depths=(1, 1, 2, 1), in_chans=3)
VGG = dict(width=1 / 4, in_chans=3, img_size=16)
NETWORKS = {
    "meta": ("meta_spikeformer_cifar", META),
    "meta sdsa 1": ("meta_spikeformer_cifar", {**META, "sdsa": 1}),
    "meta sdsa 2": ("meta_spikeformer_cifar", {**META, "sdsa": 2}),
    "meta sdsa 4": ("meta_spikeformer_cifar", {**META, "sdsa": 4}),
    "meta linear": ("meta_spikeformer_cifar", {**META, "qkv": "linear"}),
    "meta vs": ("meta_spikeformer_cifar", {**META, "shortcut": "vs"}),
    "meta sew": ("meta_spikeformer_cifar", {**META, "shortcut": "sew"}),
    "meta distilled": ("meta_spikeformer_cifar", {**META, "distillation": True}),
    "spikingformer": ("spikingformer_cifar_2_256", SPIKINGFORMER),
    "spikingformer cml": ("spikingformer_cifar_2_256", {**SPIKINGFORMER, "cml": True}),
    "resnet": ("spiking_resnet18", RESNET),
    "sew resnet": ("sew_resnet18", RESNET),
    "vgg, mean pooling": ("spiking_vgg9", VGG),
    "vgg, multi-level": ("spiking_vgg9", {**VGG, "neuron": "mlf"}),
}


def awake(network, dtype=torch.float64, time_steps=2, **options):
    """A small network whose layers fire, and images for it."""
    torch.manual_seed(0)
    model = create_model(network, time_steps=time_steps, num_classes=5, **options)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.2)
                nn.init.normal_(module.bias, 1.2 if name.split(".")[-2] in ("q", "k", "v") else 0.6, 0.3)
                module.momentum = 1.0
        model.train()(x)
    return model.to(dtype).eval(), x.to(dtype)


@torch.no_grad()
def spikes_of(model, x):
    """What each of the model's neurons fires, by name, and its logits."""
    seen = {}
    hooks = [
        module.register_forward_hook(lambda module, args, out, name=name: seen.__setitem__(name, out))
        for name, module in model.named_modules()
        if isinstance(module, Neuron)
    ]
    logits = model(x)
    for hook in hooks:
        hook.remove()
    return seen, logits


def fired(driven):
    """The same of an event-driven network's last run."""
    plan = driven._last
    return {
        neurons.name: spike_conv.unpack(neurons.fires.packed, next(driven.merged.parameters()).dtype)
        for neurons in plan.neurons
    }


def assert_same(driven, model, x):
    want, logits = spikes_of(merge(model, "cpu"), x)
    assert_close(driven(x), logits, rtol=0, atol=1e-10)
    for layer in driven._last.layers:
        assert layer.source.density == pytest.approx(layer.source.packed.density)
    got = fired(driven)
    assert set(got) <= set(want) and len(got) > len(want) // 2
    assert sum(spikes.any().item() for spikes in want.values()) > 0.8 * len(want), "silent layers prove nothing"
    deep = list(want.values())[-4:]
    assert any((spikes[:, 0] != spikes[:, 1]).any() for spikes in deep), (
        "nothing depends on the input: nothing here could fail"
    )
    for name, spikes in got.items():
        assert_close(
            spikes.reshape(want[name].shape), want[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("network", NETWORKS)
def test_spikes_and_logits_stay(network):
    name, options = NETWORKS[network]
    model, x = awake(name, **options)
    driven = event_driven(model)
    assert_same(driven, model, x)
    assert all(layer.way == "event-driven" for layer in driven.layers())
    sequence = torch.randn(3, 1, *x.shape[1:], dtype=x.dtype)
    with torch.no_grad():
        assert_close(driven(sequence, per_step=True), merge(model)(sequence, per_step=True), rtol=0, atol=1e-10)


@pytest.mark.parametrize("network", ["meta", "spikingformer", "sew resnet", "vgg, mean pooling"])
def test_dense_layers_give_the_same(network):
    name, options = NETWORKS[network]
    model, x = awake(name, **options)
    driven = event_driven(model)
    driven.choices = Calibration(frozenset(), {name: 0.0 for name, _ in driven.merged.named_modules()}, {})
    assert_same(driven, model, x)
    active = [layer for layer in driven.layers() if layer.density > 0]
    assert len(active) > 3 and all(layer.way == "dense" for layer in active)


def test_convolutions_in_a_row_can_be_one():
    model, x = awake("meta_spikeformer_cifar", **META)
    driven = event_driven(model)
    chains = {layer.chain for layer in driven.plan(x).layers if layer.chain}
    # RepConvs for q, k, v and the output of two blocks, and the end of SepConvs of three
    assert len(chains) == 2 * 4 + 3
    driven = event_driven(model)
    driven.choices = Calibration(frozenset(chains), {}, {})
    assert_same(driven, model, x)
    assert {layer.name for layer in driven.layers()} >= chains
    assert not any("expand" in name and "attention" in name for name in (layer.name for layer in driven.layers()))


def test_a_shrunk_network():
    model, _ = awake("sew_resnet18", **RESNET)
    for temporal in ("softmax", "sum"):
        shrunk = shrink(model, (4, 3, 3, 2), temporal=temporal)
        assert_same(event_driven(shrunk), shrunk, torch.randn(4, 2, 3, 16, 16, dtype=torch.float64))


def test_calibration_chooses_and_changes_nothing():
    model, x = awake("meta_spikeformer_cifar", **META)
    driven = event_driven(model, x)
    assert_same(driven, model, x)
    names = [layer.name for layer in driven.layers()]
    assert set(driven.choices.limits) == set(names)
    assert all(layer.limit >= 0 and layer.event_ms > 0 and layer.dense_ms > 0 for layer in driven.layers())
    larger = torch.randn(3, 3, 24, 16, dtype=x.dtype)
    assert_same(driven, model, larger)
    assert [layer.name for layer in driven.layers()] == names


def test_density_decides_in_every_run():
    model, x = awake("meta_spikeformer_cifar", **META)
    driven = event_driven(model)
    driven(x)
    first = driven.layers()[0]
    driven.choices = Calibration(frozenset(), {first.name: first.density / 2}, {})
    driven._plans.clear()
    driven(x)
    assert driven.layers()[0].way == "dense"
    with torch.no_grad():
        quiet = torch.stack([x[0].new_full(x[0].shape, value) for value in (-4, -2, -1, 0, 1, 2, 4)])
        quiet = min(
            quiet,
            key=lambda image: (
                merge(model).stages[0].blocks[0].sep_conv.lif(driven.merged.stem(image[None, None])).sum()
            ),
        )
    driven(torch.stack([quiet, quiet]))
    silent = driven.layers()[0]
    assert silent.density < first.density / 2, "the input does not silence the first layer"
    assert silent.way == "event-driven"
    assert_same(driven, model, x)


def test_single_precision_is_close_and_names_are_modules():
    model, x = awake("meta_spikeformer_cifar", torch.float32, **META)
    driven = event_driven(model, x)
    merged = merge(model, "cpu")
    want, logits = spikes_of(merged, x)
    assert_close(driven(x), logits, rtol=0, atol=0.05)
    rates = driven.firing_rates()
    modules = dict(merged.named_modules())
    assert all(isinstance(modules[name], Neuron) for name in rates)
    for name, rate in rates.items():
        assert math.isclose(rate, want[name].mean().item(), abs_tol=0.01)
    assert all(isinstance(modules[layer.name], (nn.Conv2d, nn.Linear)) for layer in driven.layers())
    densities = {layer.name: layer.density for layer in driven.layers()}
    assert math.isclose(densities["stages.1.downsample.conv_bn.conv"], rates["stages.1.downsample.lif"], abs_tol=1e-12)
    memory = driven.memory()
    assert memory["buffers"] > 0 and memory["weights"] > 0


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_rounded_weights(precision):
    """Event-driven and dense layers compute with the same rounded weights, and these are near the given ones."""
    model, x = awake("spikingformer_cifar_2_256", torch.float32, **SPIKINGFORMER)
    driven, dense = event_driven(model, precision=precision), event_driven(model, precision=precision)
    dense.choices = Calibration(frozenset(), {name: 0.0 for name, _ in dense.merged.named_modules()}, {})
    exact = event_driven(model)(x)
    rounded = driven(x)
    assert_close(dense(x), rounded, rtol=0, atol=1e-3)
    assert 1e-6 < (rounded - exact).abs().max() < exact.abs().max()
    assert driven.memory()["weights"] < 0.6 * event_driven_weights(model, x)


def event_driven_weights(model, x):
    driven = event_driven(model)
    driven(x)
    return driven.memory()["weights"]


@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("time_steps", [1, 5, 16])
def test_batches_and_time_steps(batch, time_steps):
    model, _ = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    x = torch.randn(time_steps, batch, 3, 8, 8, dtype=torch.float64)
    driven = event_driven(model)
    with torch.no_grad():
        assert_close(driven(x), merge(model)(x), rtol=0, atol=1e-10)
        assert_close(driven(x[:, :1]), driven(x)[:1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_silence_and_saturation(value):
    model, x = awake("meta_spikeformer_cifar", **META)
    x = torch.full_like(x, value)
    with torch.no_grad():
        assert_close(event_driven(model)(x), merge(model)(x), rtol=1e-9, atol=1e-9)


def test_inputs_in_any_layout():
    model, x = awake("meta_spikeformer_cifar", **META)
    driven = event_driven(model)
    want = driven(x)
    wide = torch.randn(2, 3, 16, 33, dtype=x.dtype)
    wide[..., 1::2] = x
    for same in (
        x.to(memory_format=torch.channels_last),
        wide[..., 1::2],
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert_close(driven(same), want, rtol=0, atol=1e-12)
    assert len(driven._plans) == 1


@pytest.mark.parametrize(
    "neuron",
    [IF(0.7), PLIF(1.7), LIF(1.5, decay_input=False), LIF(3.0, 0.8, reset="soft")],
    ids=lambda neuron: type(neuron).__name__,
)
def test_all_kinds_of_neurons(neuron):
    model, x = awake("meta_spikeformer_cifar", **META)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, LIF):
                setattr(parent, name, copy.deepcopy(neuron).to(x.dtype))
    assert_same(event_driven(model), model, x)


def test_hooks_are_honoured_and_named():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    driven = event_driven(model)
    want = driven(x)
    hook = driven.merged.stages[0].register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.warns(UserWarning, match="stages.0: forward hook"):
        got = driven(x)
    assert_close(got, driven.merged(x), rtol=0, atol=0)
    assert not torch.equal(got, want)
    with pytest.raises(ValueError, match="stages.0: forward hook"):
        driven.stream(x)
    hook.remove()
    assert_close(driven(x), want, rtol=0, atol=0)


def test_hooks_that_listen_do_not_become_part_of_plans():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    driven = event_driven(model)
    calls = []

    def listener(module, args, out):
        calls.append(float(out.sum()))

    listener.listens = True
    driven.merged.stages[0].register_forward_hook(listener)
    assert_close(driven(x), event_driven(model)(x), rtol=0, atol=1e-12)
    assert calls == [] and driven.layers()
    driven.merged(x)
    assert len(calls) == 1


WEIGHT_HOOKS = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "prune": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "prune twice": lambda layer: [prune.random_unstructured(layer, name, 0.3) for name in ("weight", "weight", "bias")],
    "parametrized weight_norm": nn.utils.parametrizations.weight_norm,
    "parametrized spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", WEIGHT_HOOKS)
def test_weights_that_hooks_compute_follow_new_parameters(kind):
    torch.manual_seed(0)
    model = Small().double().eval()
    for layer in (model.b, model.head):
        WEIGHT_HOOKS[kind](layer)
    x = 4 * torch.randn(4, 2, 3, 8, 8, dtype=torch.float64)
    with torch.enable_grad():
        model(x).sum()  # leaves weights behind that have a gradient
    driven = event_driven(model, x)
    assert_close(driven(x), model(x), rtol=0, atol=1e-9)
    assert [layer.name for layer in driven.layers()] == ["b"]
    state = {name: value + torch.randn_like(value) for name, value in driven.merged.state_dict().items()}
    driven.merged.load_state_dict(state)
    model.load_state_dict(state)
    assert_close(driven(x), model(x), rtol=0, atol=1e-9)


class Small(nn.Module):
    """A convolution of spikes, and a linear layer of their means; `part` says what else is in the forward pass."""

    def __init__(self, part=None):
        super().__init__()
        self.part = part
        self.a, self.lif, self.b = nn.Conv2d(3, 16, 3, padding=1), LIF(), nn.Conv2d(16, 24, 3, padding=1)
        self.out, self.head = LIF(), nn.Linear(24, 5)

    def forward(self, x, per_step=False):
        step = lambda layer, z: layer(z.flatten(0, 1)).unflatten(0, z.shape[:2])  # noqa: E731
        y = self.out(step(self.b, self.lif(step(self.a, x)))).mean((3, 4))
        if self.part == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = self.head(y.float()).to(x.dtype)
        elif self.part == "cond":
            y = torch.cond(y.sum() > 0, lambda z: self.head(z), lambda z: -self.head(z), (y,))
        elif self.part == "gradients":
            with torch.enable_grad():
                y = self.head(y)
        else:
            y = self.head(y)
        return y if per_step else y.mean(0)


@pytest.mark.parametrize("part", ["autocast", "cond", "gradients"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_parts_that_export_leaves_as_they_are_run_merged(part, calibrated):
    torch.manual_seed(0)
    model, x = Small(part).eval(), 4 * torch.randn(2, 2, 3, 8, 8)
    with pytest.warns(UserWarning, match="runs in its place"), torch.no_grad():
        driven = event_driven(model, x if calibrated else None)
        assert_close(driven(x), driven.merged(x), rtol=0, atol=0)
    with pytest.raises(ValueError, match="Small"):
        event_driven(model).stream(x[0])


def test_results_do_not_depend_on_threads():
    model, x = awake("meta_spikeformer_cifar", torch.float32, **META)
    driven = event_driven(model)
    want = driven(x)
    torch.set_num_threads(3)
    try:
        assert_close(driven(x), want, rtol=0, atol=1e-6)
    finally:
        torch.set_num_threads(1)


# streams


@pytest.mark.parametrize("network", ["meta", "spikingformer", "meta sew", "sew resnet", "vgg, mean pooling"])
def test_a_stream_gives_what_the_whole_sequence_gives(network):
    name, options = NETWORKS[network]
    model, _ = awake(name, **options)
    driven = event_driven(model)
    frames = torch.randn(5, 2, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        steps = merge(model)(frames, per_step=True)
    state = None
    for t, frame in enumerate(frames):
        logits, state = driven.stream(frame, state)
        assert_close(logits, steps[: t + 1].mean(0), rtol=0, atol=1e-10)
        assert state.frames == t + 1 and state.milliseconds > 0
    assert steps.std(0).max() > 1e-3, "all steps alike: a stream without memory would pass"


def test_streams_do_not_mix():
    model, _ = awake("meta_spikeformer_cifar", **META)
    driven = event_driven(model)
    first, second = torch.randn(2, 3, 1, 3, 16, 16, dtype=torch.float64)
    _, one = driven.stream(first[0])
    kept = one.clone()
    _, other = driven.stream(second[0])
    driven(first)  # a whole sequence starts from rest and leaves streams alone
    after_one, _ = driven.stream(first[1], one)
    after_other, _ = driven.stream(second[1], other)
    after_kept, kept = driven.stream(first[1], kept)
    with torch.no_grad():
        assert_close(after_one, merge(model)(first[:2]), rtol=0, atol=1e-10)
        assert_close(after_other, merge(model)(second[:2]), rtol=0, atol=1e-10)
    assert_close(after_kept, after_one, rtol=0, atol=0)
    assert kept.frames == 2


def test_what_cannot_be_streamed():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    driven = event_driven(model)
    with pytest.raises(ValueError, match="one frame"):
        driven.stream(x[None])
    _, state = driven.stream(x)
    with pytest.raises(ValueError, match="another shape"):
        driven.stream(x[:1], state)
    model, x = awake("sew_resnet18", **RESNET)
    with pytest.raises(ValueError, match=r"shrink from stage to stage here \(\[4, 3, 3, 2\]\)"):
        event_driven(shrink(model, (4, 3, 3, 2))).stream(x)


# what can go wrong


def test_without_kernels_the_merged_network_runs(monkeypatch):
    model, x = awake("meta_spikeformer_cifar", **META)
    monkeypatch.setattr(spike_conv.native, "load", lambda: (None, "not built"))
    driven = event_driven(model, x)
    with torch.no_grad():
        assert_close(driven(x), merge(model, "cpu")(x), rtol=0, atol=0)
    assert driven.layers() == [] and not driven.live
    with pytest.raises(ValueError, match="compiled kernels"):
        driven.stream(x)


class DataDependent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = ConvBN(3, 4, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def test_a_network_that_cannot_be_seen_through_runs_as_it_is():
    model = DataDependent().eval()
    driven, x = event_driven(model), torch.rand(2, 1, 3, 8, 8)
    with pytest.warns(UserWarning, match="does not see through this DataDependent"), torch.no_grad():
        assert_close(driven(x), merge(model)(x))
    assert driven.layers() == []


def test_errors():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, int8, not 'int4'"):
        event_driven(model, precision="int4")
    with pytest.raises(ValueError, match="'int8' is for float32 models; this one is float64"):
        event_driven(model, precision="int8")
    with pytest.raises(ValueError, match="expected a model, not str"):
        event_driven("spikingformer")
    with pytest.raises(ValueError, match="float32 or float64 on the CPU, not torch.float16"):
        event_driven(model.half())
    with pytest.raises(ValueError, match=r"x.to\('cpu', torch.float64\)"):
        event_driven(model.double())(x.float())
    with pytest.raises(ValueError, match="1 channels and this model takes 3"):
        event_driven(model)(x[:, :1])


def test_copies_and_pickles_make_their_plans_again():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    driven = event_driven(model, x)
    want = driven(x)
    for other in (copy.deepcopy(driven), pickle.loads(pickle.dumps(driven))):
        assert isinstance(other, EventDriven) and other.choices == driven.choices
        assert_close(other(x), want, rtol=0, atol=1e-10)
    assert_close(driven(x), want, rtol=0, atol=1e-10)


# networks of strangers, whose operations are to be followed rightly or left to torch


class Stranger(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif, self.lif2 = LIF(), LIF()
        self.conv, self.pointwise = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1)
        self.grouped, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Linear(8 * 16, 3)
        self.offset = nn.Parameter(torch.ones(1))

    def convolved(self, x, conv=None):
        return (conv or self.conv)(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Scaled(Stranger):
    def forward(self, x):
        return torch.add(torch.relu(self.convolved(self.lif(x))), x, alpha=3.0)


class WithoutMemory(Stranger):
    def forward(self, x):
        return self.pointwise(self.lif2(self.conv(self.lif(x).flatten(0, 1)).unsqueeze(0))[0])


class Flattened(Stranger):
    def forward(self, x):
        return self.head(self.lif2(self.convolved(self.lif(x)).flatten(2)))


class HeadsAsAxis(Stranger):
    def forward(self, x):
        a = self.convolved(self.lif(x))
        heads = (a + x).reshape(*a.shape[:2], 2, 4, 16)
        return self.lif2(a.reshape(*a.shape[:2], 2, 4, 16)) + heads + heads.roll(1, 0)


class InPlace(Stranger):
    def forward(self, x):
        a = self.convolved(self.lif(x))
        b = a * 2
        a[:, :, 0] = 0
        return a + b


class Groups(Stranger):
    def forward(self, x):
        return self.grouped(nn.functional.conv2d(self.lif(x).flatten(0, 1), self.pointwise.weight))


class Mixed(Stranger):
    def forward(self, x):
        a = self.convolved(self.lif(x.float()).to(x.dtype))
        return a + (a > 0)


class ComputedWeight(Stranger):
    def forward(self, x):
        spikes = self.lif(x).flatten(0, 1)
        twice = nn.functional.conv2d(spikes, 2 * self.conv.weight, self.offset.expand(8), padding=1)
        twice = twice + nn.functional.conv2d(spikes, self.pointwise.weight, x.mean((0, 1, 3, 4)))
        return twice + nn.functional.conv2d(spikes, self.conv.weight - 1, padding=1)


class Shared(Stranger):
    def forward(self, x):
        a = self.convolved(self.lif(x))
        return self.convolved(self.lif(a + self.convolved(self.lif(-a))), self.pointwise)


class Tokens(Stranger):
    """Linear layers over tokens [T, B, N, C] and vectors [T, B, C], with a shortcut."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(8, 24), nn.Linear(24, 8, bias=False), nn.Linear(8, 3)
        self.lif3 = LIF()

    def forward(self, x):
        x = x.flatten(3).transpose(2, 3)
        x = x + self.second(self.lif2(self.first(self.lif(x))))
        return self.out(self.lif3(x.mean(2) * 4))


class TokensThatAreMaps(Stranger):
    """Spikes of tokens that are read as maps, and of maps that are read as tokens."""

    def __init__(self):
        super().__init__()
        self.mix, self.inner = nn.Linear(16, 16), nn.Linear(8, 8)

    def forward(self, x):
        tokens = self.mix(self.lif(x.flatten(3)))
        maps = self.convolved(self.lif2(tokens).unflatten(3, x.shape[3:]))
        return self.inner(self.lif(maps).flatten(3).transpose(2, 3)) + self.mix(tokens).transpose(2, 3)


class ChannelsLast(Stranger):
    """Linear layers over maps [T, B, H, W, C], whose sizes are those of channels first too."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        x = x[:, :, :4]
        return self.inner(self.lif2(self.inner(self.lif(x)))) + self.inner(self.lif(x.movedim(2, 4)))


class Unbatched(Stranger):
    """Convolutions and pooling of [T, C, H, W]."""

    def forward(self, x):
        x = self.conv(self.lif(x[:, 0].repeat(1, 1, 2, 2)))
        x = 8 * self.pointwise(self.lif2(8 * x))
        return nn.functional.avg_pool2d(self.lif(x), 2) + nn.functional.max_pool2d(self.lif(x), 2)


class Mistakable(Stranger):
    """Tokens whose number is that of their channels, with axes added."""

    def __init__(self):
        super().__init__()
        self.square = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        spikes = self.lif(x.flatten(3)[..., :8])
        maps = self.square(spikes.unsqueeze(-1).flatten(0, 1)) + self.square(spikes.reshape(-1, 8, 8, 1))
        return maps.unflatten(0, x.shape[:2]) + spikes.unsqueeze(-1) + spikes.unsqueeze(-1)


class Vectors(Stranger):
    """Vectors read by a linear layer, and as maps of one pixel; without a batch, as a map without channels."""

    def forward(self, x):
        spikes = self.lif(4 * x.mean((3, 4)))
        pixels = self.pointwise(spikes[..., None, None].flatten(0, 1))
        single = nn.functional.max_pool2d(self.lif(x[:, 0, 0]), 2)
        return self.pointwise(spikes.reshape(-1, 8, 1, 1)) + pixels + single.sum()


class MapsToTokensAndBack(Stranger):
    """As vision transformers do: neurons on a map, linear layers on its tokens, neurons on those, convolutions on the map again."""

    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)

    def forward(self, x):
        tokens = self.qkv(self.lif(x).flatten(3).transpose(-1, -2))
        tokens = self.proj(self.lif2(3 * tokens))
        spikes = self.lif(4 * tokens)
        maps = self.convolved(spikes.permute(0, 1, 3, 2).unflatten(3, (4, 4)))
        return maps + self.convolved(spikes.transpose(2, 3).reshape(x.shape), self.pointwise) + self.lif(x)


class Pooled(Stranger):
    def forward(self, x):
        spikes = self.lif(x).flatten(0, 1)
        return self.conv(nn.functional.max_pool2d(spikes, 2)) + self.conv(nn.functional.avg_pool2d(spikes, 2))


@pytest.mark.parametrize("network", Stranger.__subclasses__(), ids=lambda network: network.__name__)
@pytest.mark.filterwarnings("ignore:.*the merged network runs in its place")
def test_networks_of_strangers(network):
    torch.manual_seed(0)
    model, inputs = network().double().eval(), 3 * torch.randn(2, 4, 2, 8, 4, 4, dtype=torch.float64)
    driven = event_driven(model, inputs[0])
    for x in inputs:
        with torch.no_grad():
            want = merge(model, "cpu")(x)
        assert want.std() > 1e-3
        assert_close(driven(x), want, rtol=0, atol=1e-10)


def test_linear_layers_read_spikes():
    torch.manual_seed(0)
    model, x = Tokens().double().eval(), 3 * torch.randn(4, 2, 8, 4, 4, dtype=torch.float64)
    driven = event_driven(model)
    driven(x)
    assert [(layer.name, layer.operation, layer.way) for layer in driven.layers()] == [
        (name, "linear", "event-driven") for name in ("first", "second", "out")
    ]
    names = [getattr(step, "name", "") for step in driven._last.steps]
    assert names == ["", "", "", "first", "second", "", "", "", "out"], "the shortcut is part of a layer"
    driven.choices = Calibration(frozenset(), dict.fromkeys(("first", "second", "out"), 0.0), {})
    driven._forget()
    with torch.no_grad():
        assert_close(driven(x), model(x), rtol=0, atol=1e-10)
    assert {layer.way for layer in driven.layers()} == {"dense"}


def test_tokens_of_a_map_are_read_as_bits():
    torch.manual_seed(0)
    driven = event_driven(MapsToTokensAndBack().double().eval())
    driven(3 * torch.randn(4, 2, 8, 4, 4, dtype=torch.float64))
    assert {layer.name for layer in driven.layers()} == {"qkv", "proj", "conv", "pointwise"}


def test_modes_of_torch_do_not_change_results():
    model, x = awake("sew_resnet18", torch.float32, **RESNET)
    driven = event_driven(model)
    with torch.inference_mode():
        first = driven(x)
    with torch.autocast("cpu", torch.bfloat16):
        second = driven(x)
    assert_close(first.clone(), second, rtol=0, atol=0)
    assert_close(driven(x), second, rtol=0, atol=0)


def test_threads_of_a_program_wait_for_each_other():
    model, x = awake("meta_spikeformer_cifar", torch.float32, **META)
    inputs = [x, x.flip(0), -x, x.roll(3, 2)]
    driven = event_driven(model)
    want = [driven(x) for x in inputs]
    assert (want[0] != want[2]).any()
    with ThreadPoolExecutor(4) as pool:
        for turn in range(5):
            for got, right in zip(pool.map(driven, inputs), want, strict=True):
                assert_close(got, right, rtol=0, atol=0, msg=lambda text, turn=turn: f"turn {turn}: {text}")


def test_new_weights_are_seen():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    driven = event_driven(model)
    before = driven(x)
    other = merge(model, "cpu")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
        want = other(x)
    assert (want - before).abs().max() > 1e-6
    driven.merged.load_state_dict(other.state_dict())
    assert_close(driven(x), want, rtol=0, atol=1e-10)
    driven.float()
    assert driven(x.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("density", "silent", "event", "dense", "expected"),
    [
        (0.1, 1.0, 2.0, 5.0, 0.4),
        (0.1, 1.0, 2.0, 1.5, 0.05),
        (0.1, 1.0, 2.0, 0.5, 0.0),
        (0.1, 2.0, 2.0, 1.0, 0.0),
        (0.1, 2.0, 2.0, 3.0, math.inf),
    ],
)
def test_limits_follow_from_times(density, silent, event, dense, expected):
    assert limit(density, silent, event, dense) == pytest.approx(expected)


def test_states_of_another_type_are_refused():
    model, x = awake("spikingformer_cifar_2_256", **SPIKINGFORMER)
    _, state = event_driven(model).stream(x)
    with pytest.raises(ValueError, match="another shape or type"):
        event_driven(model.float()).stream(x.float(), state)


# converted networks


class Classifier(nn.Module):
    """Convolutions with and without what the kernels know, tokens, attention, vectors."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 72, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(72, 72, 3, padding=1, groups=72)
        self.norm, self.qkv, self.head = nn.LayerNorm(72), nn.Linear(72, 3 * 72), nn.Linear(72, 5)

    def forward(self, x):
        x = torch.relu(self.conv(torch.relu(self.stem(x))))
        x = torch.relu(self.grouped(x)).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + torch.softmax(q @ k.transpose(1, 2) / 8, -1) @ v
        return self.head(self.norm(x).mean(1))


def converted(levels=4, dtype=torch.float64):
    torch.manual_seed(0)
    model, x = Classifier().to(dtype).eval(), torch.randn(3, 3, 8, 8, dtype=dtype)
    return convert(model, x, time_steps=6, levels=levels), x


@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("way", ["event-driven", "dense"])
def test_converted_networks_answer_the_same(levels, way):
    network, x = converted(levels)
    driven = event_driven(network)
    if way == "dense":
        driven.limits = dict.fromkeys(("conv:conv2d", "qkv:linear", "head:linear"), (0.0, (0.0, 0.0, 0.0)))
    want = network(x, per_step=True)
    assert want.std() > 1e-3 and want.diff(dim=0).std() > 1e-3
    assert_close(driven(x, per_step=True), want, rtol=0, atol=1e-9)
    assert [(layer.name, layer.operation, layer.way) for layer in driven.layers()] == [
        ("conv:conv2d", "3x3", way), ("qkv:linear", "linear", way), ("head:linear", "linear", way)
    ]  # fmt: skip
    assert all(0.01 < layer.density < levels for layer in driven.layers())


def test_converted_networks_calibrate_and_follow_new_weights():
    network, x = converted(dtype=torch.float32)
    driven = event_driven(network, x)
    assert set(driven.limits) == {"conv:conv2d", "qkv:linear", "head:linear"}
    driven(x)
    for layer in driven.layers():
        assert layer.event_ms > 0 and layer.dense_ms > 0
        assert layer.way == ("dense" if layer.density > layer.limit else "event-driven")
    head = driven._layers["head:linear"][1]
    before = head.limit
    assert head.calibrate(torch.zeros(3, 72), 4) is None and head.limit == before, "silence says nothing about density"
    network, x = converted()
    driven = event_driven(network)
    before = driven(x)
    with torch.no_grad():
        network.model.head.weight.mul_(-2)
        assert_close(driven(x), network(x), rtol=0, atol=1e-9)
    assert (driven(x) - before).abs().max() > 0.1


def test_converted_networks_stream_and_copy():
    network, x = converted()
    driven = event_driven(network)
    state, reference = None, network.start()
    for frame in (x, x.flip(0), 0.5 * x):
        logits, state = driven.stream(frame, state)
        with torch.no_grad():
            assert_close(logits, network.step(reference, frame), rtol=0, atol=1e-9)
    assert state.frames == 3 and state.milliseconds > 0
    kept = state.clone()
    driven.stream(x, state)
    again, kept = driven.stream(0.5 * x, kept)
    with torch.no_grad():
        assert_close(again, network.step(reference, 0.5 * x), rtol=0, atol=1e-9)
    assert kept.frames == 4 and kept.run.carry_out == state.run.carry_out, "a copy of the state is none of the network"
    assert_close(copy.deepcopy(driven)(x), driven(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("precision", "step"), [("bfloat16", 2**-7), ("int8", 1 / 127)])
def test_converted_networks_with_rounded_weights(precision, step):
    network, x = converted(dtype=torch.float32)
    driven, exact = event_driven(network, precision=precision), event_driven(network)
    for each in (driven, exact):
        each(x)
    layers = {name: layer for name, (_, layer) in driven._layers.items() if layer}
    assert len(layers) == 3
    for name, layer in layers.items():
        weight = exact._layers[name][1].dense.flatten(1)
        off = (layer.dense.flatten(1) - weight).abs().amax(1) / weight.abs().amax(1)
        assert 0 < off.max() <= 0.501 * step
        counts = torch.randint(-3, 4, (2, weight.shape[1] // layer.dense[0, 0].numel(), *layer.dense.shape[2:])).float()
        assert_close(layer(counts, 3), layer.in_torch(counts), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="float64"):
        event_driven(converted()[0], precision=precision)


class Standardised(nn.Conv2d):
    """Its weight is computed in every pass."""

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, padding=1)


def test_converted_networks_with_computed_weights():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.ReLU(), Standardised(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 5)
    )
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    network = convert(model.double().eval(), x, time_steps=4)
    driven = event_driven(network)
    for _ in range(3):
        network.load_state_dict({name: torch.randn_like(value) / 8 for name, value in network.state_dict().items()})
        assert_close(driven(x), network(x), rtol=0, atol=1e-9)
        with torch.inference_mode():
            assert_close(driven(x), network(x), rtol=0, atol=1e-9)


def test_converted_networks_leave_the_original_as_it_is():
    network, x = converted()
    driven = event_driven(event_driven(network))
    assert driven.merged is network
    calls = []
    driven.register_forward_hook(lambda *_: calls.append(1))
    driven.register_buffer("extra", torch.zeros(1))
    network(x)
    assert not calls and "extra" not in dict(network.named_buffers())
    driven(x)
    assert calls
    assert driven(x[:0]).shape == (0, 5) and driven(x[:1]).shape == (1, 5)
    with pytest.raises(ValueError, match="form"):
        driven.start("nonsense")


class Odd(nn.Module):
    """What the kernels do not know: a weight that is a vector, a single image."""

    def __init__(self):
        super().__init__()
        self.conv, self.vector = nn.Conv2d(3, 3, 1), nn.Parameter(torch.randn(3))

    def forward(self, x):
        x = torch.relu(self.conv(x))
        single = torch.relu(self.conv(x[0]))
        return nn.functional.linear(torch.relu(single.flatten(1).mean(1)), self.vector).reshape(1, 1) + x.mean((2, 3))


def test_converted_networks_leave_what_the_kernels_do_not_know():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    network = convert(Odd().double().eval(), x, time_steps=4)
    assert_close(event_driven(network)(x), network(x), rtol=0, atol=1e-9)


def test_converted_networks_take_named_inputs():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Classifier()

        def forward(self, pixel_values):
            return self.inner(pixel_values)

    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    network = convert(Named().eval(), {"pixel_values": x}, time_steps=4)
    driven = event_driven(network, {"pixel_values": x})
    assert driven.limits and driven(pixel_values=x).shape == (2, 5)
    with pytest.raises(ValueError, match="float64"):
        event_driven(network, {"pixel_values": x.double()})


def test_an_audit_follows_the_network_behind_it():
    network, x = converted(dtype=torch.float32)
    model, images = awake("meta_spikeformer_cifar", torch.float32, **META)
    for original, inputs in ((network, x), (merge(model, "cpu"), images)):
        want, found = audit(original, inputs), audit(event_driven(original), inputs)
        assert str(found) == str(want) and want.additions_only == found.additions_only


@torch.no_grad()
def test_shapes_that_were_seen_once_are_not_remembered_for_good(monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    import spikeformers
    from spikeformers.transforms.event_driven import graph

    monkeypatch.setattr(graph, "SHAPES_KEPT", 0)
    model = spikeformers.create_model("spikingformer_cifar_2_256", embed_dim=16, depth=1, num_heads=2, time_steps=1)
    graph.export(spikeformers.merge(model.eval()), torch.zeros(1, 3, 8, 12))
    assert FakeTensorMode.cache_info().size == 0
