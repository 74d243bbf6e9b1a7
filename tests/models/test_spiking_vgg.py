"""Spiking VGG-9: its layers and what flows between them, its one size of images, its neurons. The rest is in test_models.py."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import spikeformers
from spikeformers.kernels.lif import lif
from spikeformers.layers import ConvBN
from spikeformers.models.spiking_vgg import SpikingVGG
from spikeformers.neurons import LIF, MLF
from spikeformers.training.initial import load_initial

SMALL = dict(width=1 / 8, img_size=32, num_classes=5)


def awake(**options):
    """(a small model in float64 whose every layer fires in eval mode, frames [4, 2, 2, 32, 32] for it)"""
    torch.manual_seed(0)
    model = spikeformers.create_model("spiking_vgg9", **{**SMALL, **options}).double()
    x = 2 * torch.rand(4, 2, 2, *model.img_size, dtype=torch.float64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.6)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


def inputs_of(model, x):
    """What every convolution and the classifier read, by name."""
    seen, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            hooks.append(module.register_forward_pre_hook(lambda m, args, name=name: seen.__setitem__(name, args[0])))
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_layers_are_those_of_the_specification():
    """64-128-P-256-256-P-512-512-P-512-512-P-FC on 48 pixels."""
    with torch.device("meta"):
        model = spikeformers.create_model("spiking_vgg9")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert all(conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.bias is None for conv in convolutions)
    assert model.head.in_features == 4608 and model.head.out_features == 10 and convolutions[0].in_channels == 2
    count = sum(parameter.numel() for parameter in model.parameters())
    assert spikeformers.models.spiking_vgg.spiking_vgg9.__doc__.startswith(f"{count:,} parameters")
    pairs = [(2, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    assert count == sum(9 * a * b + 2 * b for a, b in pairs) + 4608 * 10 + 10
    assert [info["reduction"] for info in model.feature_info] == [2, 4, 8, 16]
    assert model.units() == [2, 2, 2, 2]


@torch.no_grad()
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_logits_are_those_of_the_equations(pool):
    model, x = awake(pool=pool)
    state = model.state_dict()

    def conv_bn(x, name):
        y = F.conv2d(x.flatten(0, 1), state[f"{name}.conv.weight"], padding=1)
        gain, shift, mean, variance = (
            state[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        y = (y - mean[:, None, None]) / torch.sqrt(variance + 1e-5)[:, None, None] * gain[:, None, None] + shift[
            :, None, None
        ]
        return y.unflatten(0, x.shape[:2])

    pooling = F.avg_pool2d if pool == "avg" else F.max_pool2d
    y = conv_bn(x, "stem")
    for stage in range(4):
        y = lif(y if stage == 0 else conv_bn(y, f"stages.{stage}.conv1"))[0]
        y = lif(conv_bn(y, f"stages.{stage}.conv2"))[0]
        y = torch.stack([pooling(frame, 2) for frame in y])
    wanted = torch.stack([F.linear(frame.flatten(1), state["head.weight"], state["head.bias"]) for frame in y])
    assert wanted.std(1).max() > 1e-3 and y.any()
    assert_close(model(x, per_step=True), wanted, rtol=0, atol=1e-9)
    assert_close(model(x), wanted.mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("pool", "levels"), [("avg", {0.0, 0.25, 0.5, 0.75, 1.0}), ("max", {0.0, 1.0})])
def test_pooling_decides_what_convolutions_read(pool, levels):
    seen = inputs_of(*awake(pool=pool))
    behind_pooling = {name for name in seen if name.endswith("conv1.conv")}
    assert len(behind_pooling) == 3 and len(seen) == 9
    for name, read in seen.items():
        values = set(read.unique().tolist())
        if name in behind_pooling:
            assert values == levels
        elif name not in ("stem.conv", "head"):
            assert values == {0.0, 1.0}


def test_stages_end_with_their_pooling_and_begin_with_a_convolution():
    """So that a shrunk sequence meets something linear, which is computed once."""
    model, x = awake()
    assert all(isinstance(stage[0], ConvBN) for stage in model.stages[1:])
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert [features.shape[2:] for features in maps] == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 2, 2)]


@pytest.mark.parametrize(
    ("width", "channels"), [(0.5, [32, 64, 128, 256]), (0.1, [8, 16, 24, 48]), (0.01, [8, 8, 8, 8])]
)
def test_width_multiplies_channels(width, channels):
    with torch.device("meta"):
        model = SpikingVGG(width=width)
    convolutions = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sorted(set(convolutions)) == sorted(set(channels))
    assert model.feature_info[-1]["num_chs"] == convolutions[-1] and model(
        torch.empty(1, 2, 48, 48, device="meta")
    ).shape == (1, 10)


@torch.no_grad()
def test_the_classifier_is_made_for_one_size_of_images():
    model = SpikingVGG(width=1 / 8, img_size=(32, 48)).eval()
    assert model.num_features == 64 * 2 * 3 and model(torch.rand(3, 2, 2, 32, 48)).shape == (2, 10)
    other = torch.rand(3, 2, 2, 48, 32)
    message = r"made for images of 32 x 48, whose last map is 2 x 3, and got one of 3 x 2; .*img_size="
    with pytest.raises(ValueError, match=message):
        model(other)
    assert model.forward_intermediates(other)[0].shape == (3, 2, 64, 3, 2)
    model.reset_classifier(0)
    assert model(other).shape == (2, 64 * 3 * 2)
    with pytest.raises(ValueError, match="reduces it 16-fold"):
        model(torch.rand(2, 2, 8, 48))


def test_constants_reach_all_neurons():
    model = SpikingVGG(**SMALL, tau=3.0, decay_input=False, surrogate="sigmoid")
    neurons = [module for module in model.modules() if isinstance(module, LIF)]
    assert len(neurons) == 8
    assert {(n.tau, n.decay_input, n.surrogate, n.alpha, n.v_threshold) for n in neurons} == {
        (3.0, False, "sigmoid", 4.0, 1.0)
    }
    default = next(module for module in SpikingVGG(**SMALL).modules() if isinstance(module, LIF))
    assert (default.tau, default.decay_input, default.surrogate, default.alpha) == (2.0, True, "rectangle", 1.0)


def test_multi_level_neurons():
    model, x = awake(neuron="mlf", tau=4 / 3, decay_input=False, pool="max")
    assert sum(isinstance(module, MLF) for module in model.modules()) == 8
    seen = inputs_of(model, x)
    for name, read in seen.items():
        if name not in ("stem.conv", "head"):
            assert set(read.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}, name
    model.train()(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in model.parameters())
    merged = spikeformers.merge(model.eval())
    with torch.no_grad():
        assert_close(merged(x), model(x), rtol=0, atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    rates = spikeformers.profile(model, x).rates_per_step
    assert len(rates) == 24 and all(0 <= rate <= 1 for steps in rates.values() for rate in steps)
    first = [sum(rates[f"stages.0.lif1.levels.{level}"]) for level in range(3)]
    assert first[0] > first[1] > first[2] > 0


@torch.no_grad()
def test_saved_with_its_size_and_neurons(tmp_path):
    options = dict(img_size=(32, 48), neuron="mlf", tau=1.5, decay_input=False, surrogate="triangle", pool="max")
    model, x = awake(**options)
    model.float()
    spikeformers.save_model(model, tmp_path / "model.safetensors")
    again = spikeformers.create_model(checkpoint=tmp_path / "model.safetensors").eval()
    assert again.config == model.config | {"img_size": [32, 48]}
    assert_close(again(x.float()), model(x.float()), rtol=0, atol=0)
    fresh = spikeformers.create_model("spiking_vgg9", **{**SMALL, **options, "time_steps": 3}).eval()
    report = load_initial(fresh, tmp_path / "model.safetensors")
    assert not report.problems() and report.not_in_weights["tau"] == 1.5
    assert_close(fresh(x.float()), model(x.float()), rtol=0, atol=0)
    with pytest.raises(ValueError, match="do not fit the model"):
        load_initial(spikeformers.create_model("spiking_vgg9", width=1 / 4), tmp_path / "model.safetensors")


def test_it_compiles_as_one_graph():
    model, x = awake(neuron="mlf")
    torch._dynamo.reset()
    got = torch.compile(model, fullgraph=True, backend="eager")(x)
    assert_close(got, model(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, "pool must be one of avg, max, not 'mean'"),
        ({"neuron": "plif"}, "neuron must be one of lif, mlf, not 'plif'"),
        ({"surrogate": "step"}, "surrogate must be one of sigmoid"),
        ({"width": 0.0}, "width must be positive, not 0.0"),
        ({"img_size": (48, 15)}, r"img_size must be at least 16 for four poolings, not \(48, 15\)"),
        ({"tau": 0.5}, "tau must be at least 1 time step"),
    ],
    ids=str,
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        spikeformers.create_model("spiking_vgg9", **options)
