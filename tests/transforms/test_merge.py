"""Merged models compute what the unmerged ones do, with the same spikes: in float64, where no rounding flips a spike."""

import copy
import typing
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import spikeformers
from spikeformers.layers import ConvBN, PerStep, RepConv, SpikingSelfAttention
from spikeformers.models import _registry
from spikeformers.models.meta_spikeformer import MetaSpikeFormer, SepConv
from spikeformers.models.spiking_resnet import SEWResNet, SpikingResNet
from spikeformers.models.spiking_vgg import SpikingVGG
from spikeformers.models.spikingformer import Spikingformer
from spikeformers.neurons import IF, LIF, PLIF, Neuron
from spikeformers.transforms import merge

SMALL = {  # a new class of models needs a small size here
    MetaSpikeFormer: dict(dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), num_heads=2),
    Spikingformer: dict(embed_dim=32, depth=2, num_heads=2),
    SEWResNet: dict(dims=(16, 16, 32, 32), depths=(1, 1, 2, 1)),
    SpikingResNet: dict(dims=(16, 16, 32, 32), depths=(1, 1, 2, 1)),
    SpikingVGG: dict(width=1 / 8, img_size=(32, 48)),
}
NORMS = nn.modules.batchnorm._BatchNorm
META, SPIKINGFORMER = "meta_spikeformer_cifar", "spikingformer_cifar_2_256"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(module):
    """Batch normalisations with any parameters and statistics, and everything in float64 and eval mode."""
    for bn in module.modules():
        if isinstance(bn, NORMS):
            if bn.affine:
                nn.init.normal_(bn.weight)
                nn.init.normal_(bn.bias)
            if bn.track_running_stats:
                nn.init.normal_(bn.running_mean)
                nn.init.uniform_(bn.running_var, 0.1, 3)
    return module.double().eval()


@torch.no_grad()
def awake(model, x):
    """The model in float64 and eval mode, with random normalisations around the statistics of x under which all layers fire."""
    model.double().train()
    norms = {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}
    for name, bn in norms.items():
        nn.init.normal_(bn.weight, 1, 0.2)
        nn.init.normal_(bn.bias, 1.2 if name.split(".")[-2] in ("q", "k", "v") else 0.4, 0.3)
        bn.momentum = 1.0
    model(x)
    for bn in norms.values():
        bn.running_mean += 0.2 * bn.running_var.sqrt() * torch.randn_like(bn.running_mean)
        bn.running_var *= torch.empty_like(bn.running_var).uniform_(0.7, 1.4)
    for name, parameter in model.named_parameters():
        if name.endswith("log2_threshold"):
            nn.init.uniform_(parameter, 0.5, 3)
    return model.eval()


def small(name, **options):
    """(the registered model in a small size, awake; images that are not square, two to three times the smallest size)"""
    model_class = typing.get_type_hints(_registry._MODELS[name])["return"]
    settings = {"num_classes": 5, "time_steps": 2, **SMALL[model_class], **options}
    model = spikeformers.create_model(name, **settings)
    reduction = model.feature_info[-1]["reduction"]
    x = torch.randn(2, model.in_chans, 2 * reduction, 3 * reduction, dtype=torch.float64)
    return awake(model, x), x


@torch.no_grad()
def spikes_and_logits(model, names, x):
    seen = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, out)
        )
        for name in names
    ]
    logits = model(x)
    for hook in hooks:
        hook.remove()
    return seen, logits


def assert_merged(model, x, **choices):
    """The merged model: same spikes of every neuron, same logits, no BN, and the old model as it was."""
    neurons = [name for name, module in model.named_modules() if isinstance(module, Neuron)]
    before = copy.deepcopy(model.state_dict())
    want, logits = spikes_and_logits(model, neurons, x)
    assert all(spikes.any() for spikes in want.values()), "a silent layer proves nothing"
    assert (logits[0] - logits[1]).abs().max() > 1e-3, "the logits do not depend on the input: nothing here could fail"
    merged = merge(model, **choices)
    got, merged_logits = spikes_and_logits(merged, neurons, x)
    assert_close(merged_logits, logits, rtol=0, atol=1e-10)
    for name in neurons:
        assert_close(got[name], want[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert not any(isinstance(module, NORMS) for module in merged.modules())
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert_close(spikes_and_logits(model, [], x)[1], logits, rtol=0, atol=0)
    return merged


every_model = pytest.mark.parametrize("name", spikeformers.list_models())
both_costs = pytest.mark.parametrize("cost", ["cpu", "neuromorphic"])


# whole models


@every_model
def test_spikes_and_logits_stay(name):
    model, x = small(name)
    for cost in ("cpu", "neuromorphic"):
        merged = assert_merged(model, x, cost=cost)
        assert type(merged) is type(model) and not merged.training


def test_a_registered_model_as_it_is():
    model = spikeformers.create_model(SPIKINGFORMER, time_steps=2)
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    assert_merged(awake(model, x), x)


@pytest.mark.parametrize("sdsa", [1, 2, 3, 4])
@pytest.mark.parametrize("name", [META, SPIKINGFORMER])
def test_attention_operators(name, sdsa):
    model, x = small(name, sdsa=sdsa)
    merged = assert_merged(model, x)
    assert not any("threshold" in key for key in merged.state_dict())


@both_costs
@pytest.mark.parametrize("shortcut", ["vs", "sew"])
@pytest.mark.parametrize("name", [META, SPIKINGFORMER])
def test_shortcuts(name, shortcut, cost):
    model, x = small(name, shortcut=shortcut)
    model.head_lif.v_threshold = 0.1  # means of spikes do not reach 1
    assert_merged(model, x, cost=cost)


def test_linear_projections():
    assert_merged(*small(META, qkv="linear"))


@both_costs
def test_two_heads_become_one(cost):
    model, x = small(META, distillation=True)
    merged = assert_merged(model, x, cost=cost)
    assert not merged.distillation and merged.get_classifier() is merged.head
    assert not any("head_kd" in key for key in merged.state_dict())
    assert model.distillation and len(model.get_classifier()) == 2
    features, _ = small(META, distillation=True, num_classes=0)
    assert_close(merge(features)(x), features(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("repconv", [False, True])
@pytest.mark.parametrize("sepconv", [False, True])
@both_costs
def test_choices_overrule_the_cost(cost, repconv, sepconv):
    merged = assert_merged(*small(META), cost=cost, repconv=repconv, sepconv=sepconv)
    sizes = {name: module.kernel_size for name, module in merged.named_modules() if isinstance(module, nn.Conv2d)}
    query, sep_conv = "stages.3.blocks.0.attention.branch.q.", "stages.0.blocks.0.sep_conv.branch."
    rest = (3, 3) if repconv else [(1, 1), (3, 3), (1, 1)]
    got = [size for name, size in sizes.items() if name.startswith(query)]
    assert got == ([rest] if repconv else rest)
    assert (sizes[sep_conv + "project.conv"] == (7, 7)) == sepconv == (sep_conv + "depthwise" not in sizes)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"sdsa": 4}, {"qkv": "linear"}], ids=str)
def test_neuromorphic_convolutions_see_spikes_only(options):
    model, x = small(META, **options)
    merged, analog = merge(model, "neuromorphic"), []
    for name, module in merged.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_pre_hook(
                lambda m, args, name=name: analog.append(name) if ((args[0] != 0) & (args[0] != 1)).any() else None
            )
    merged(x)
    assert analog == ["stem.conv"]


@torch.no_grad()
def test_backbones_stay_backbones():
    model, x = small(META)
    merged = merge(model)
    for got, want in zip(merged.forward_intermediates(x)[1], model.forward_intermediates(x)[1], strict=True):
        assert_close(got, want, rtol=0, atol=1e-10)
    assert_close(merged(x, per_step=True), model(x, per_step=True), rtol=0, atol=1e-10)
    assert merged.feature_info == model.feature_info and merged.get_submodule(merged.default_cfg["first_conv"])
    merged.time_steps = model.time_steps = 3
    assert_close(merged(x), model(x), rtol=0, atol=1e-10)
    merged.reset_classifier(7)
    assert merged(x).shape == (2, 7) and model(x).shape == (2, 5)


@torch.no_grad()
def test_running_statistics_count_whatever_the_mode():
    model, x = small(META)
    logits = model(x)
    merged = merge(model.train())
    assert model.training and not any(module.training for module in merged.modules())
    assert_close(merged(x), logits, rtol=0, atol=1e-10)
    assert_close(
        merged.train()(x), logits, rtol=0, atol=1e-10
    )  # neither dropout nor drop path here, and nothing else differs


@torch.no_grad()
@pytest.mark.parametrize("choices", [{"cost": "cpu"}, {"cost": "neuromorphic"}], ids=str)
def test_merging_twice_changes_nothing(choices):
    model, x = small(META, sdsa=4, distillation=True)
    once = merge(model, **choices)
    twice = merge(once, **choices)
    assert_close(twice.state_dict(), once.state_dict(), rtol=0, atol=0)
    assert_close(twice(x), once(x), rtol=0, atol=0)
    assert str(twice) == str(once) and twice is not once


def test_gradients_of_the_input_stay():
    """Scaled neurons keep the slope of their surrogates."""
    model, x = small(META, sdsa=4)
    weights = torch.randn(2, 5, dtype=torch.float64)
    got, want = (
        torch.autograd.grad((m(images := x.clone().requires_grad_()) * weights).sum(), images)[0]
        for m in (merge(model), model)
    )
    assert want.abs().max() > 1e-3
    assert_close(got, want, rtol=0, atol=1e-9 * want.abs().max().item())


@both_costs
def test_types_and_frozen_parameters_stay(cost):
    model, _ = small(META, distillation=True)
    merged = merge(model.bfloat16().requires_grad_(False), cost)
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in merged.parameters())
    assert all(p.requires_grad for p in merge(small(META, distillation=True)[0], cost).parameters())


@torch.no_grad()
def test_single_precision_is_rounded_once():
    """Float32 parameters are those of a float64 merge, rounded."""
    model, _ = small(META)
    model.float()
    exact = merge(copy.deepcopy(model).double(), "neuromorphic").state_dict()
    for name, value in merge(model, "neuromorphic").state_dict().items():
        assert_close(value, exact[name].float(), rtol=1e-6, atol=0)


@torch.no_grad()
def test_cpus_get_channels_last_and_others_keep_the_format():
    model, x = small(META)
    stem = "stem.conv.weight"
    channels_last = torch.channels_last
    assert merge(model).state_dict()[stem].is_contiguous(memory_format=channels_last)
    assert not merge(model, "neuromorphic").state_dict()[stem].is_contiguous(memory_format=channels_last)
    other = copy.deepcopy(model).to(memory_format=channels_last)
    assert_close(merge(other, "neuromorphic")(x.to(memory_format=channels_last)), model(x), rtol=0, atol=1e-10)


def test_merged_models_can_be_exported():
    model, x = small(SPIKINGFORMER, sdsa=4, depth=1)
    merged = merge(model)
    with torch.no_grad():
        assert_close(torch.export.export(merged, (x,)).module()(x), model(x), rtol=0, atol=1e-10)


def test_merged_models_are_not_saved_under_the_unmerged_name(tmp_path):
    model, x = small(META)
    with pytest.raises(ValueError, match="save the unmerged model, and merge after loading"):
        spikeformers.save_model(merge(model), tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    spikeformers.save_model(model, tmp_path / "model.safetensors")
    loaded = merge(spikeformers.create_model(checkpoint=tmp_path / "model.safetensors").double())
    with torch.no_grad():
        assert_close(loaded(x), model(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("cost", ["gpu", "", None])
def test_unknown_costs(cost):
    with pytest.raises(ValueError, match=f"cost must be one of cpu, neuromorphic, not {cost!r}"):
        merge(nn.Identity(), cost)


# layers, each by its formula


@torch.no_grad()
@pytest.mark.parametrize("repconv", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7)], ids=str)
def test_rep_conv(size, repconv):
    """The border included, where the unmerged layer pads with what its first BN makes of zero."""
    layer = randomise(RepConv(6))
    x = torch.randn(2, 3, 6, *size, dtype=torch.float64)
    merged = merge(layer, repconv=repconv)
    assert_close(merged(x), layer(x), rtol=0, atol=1e-12)
    assert sum(isinstance(m, nn.Conv2d) for m in merged.modules()) == (1 if repconv else 3)
    biases = [name for name, _ in merged.named_parameters() if name.endswith("bias")]
    assert biases == (["conv.bias"] if repconv else ["project.bias"])


@torch.no_grad()
@pytest.mark.parametrize("sepconv", [False, True])
@pytest.mark.parametrize("size", [(2, 3), (9, 8)], ids=str)
def test_sep_conv(size, sepconv):
    layer = randomise(SepConv(4, LIF))
    x = 2 * (torch.rand(3, 2, 4, *size, dtype=torch.float64) > 0.5).double()
    assert_close(merge(layer, sepconv=sepconv)(x), layer(x), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"kernel_size": 3, "stride": 2, "bias": True}, {"kernel_size": 3, "groups": 2}], ids=str
)
def test_conv_bn(options):
    layer = randomise(ConvBN(4, 6, **options))
    x = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)
    merged = merge(layer)
    assert isinstance(merged, PerStep) and list(merged.state_dict()) == ["conv.weight", "conv.bias"]
    assert_close(merged(x), layer(x), rtol=0, atol=1e-12)


NEURONS = {
    "lif": partial(LIF, 2.0),
    "tau 1.5, soft": partial(LIF, 1.5, reset="soft"),
    "full input": partial(LIF, 3.0, decay_input=False, surrogate="atan"),
    "full input, soft": partial(LIF, 3.0, decay_input=False, reset="soft", surrogate="triangle"),
    "plif": partial(PLIF, 2.5),
    "if": IF,
    "if, soft": partial(IF, reset="soft", surrogate="rectangle"),
}


@pytest.mark.parametrize("operator", [3, 4])
@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
def test_scales_become_thresholds(neuron, operator):
    """LIF(a x, th) = LIF(x, th / a), spikes and gradient, with either reset and any leak."""
    layer = SpikingSelfAttention(
        8, 2, lambda channels: nn.Identity(), lambda th: neuron(th) if th == 0.5 else LIF(2.0), operator=operator
    )
    if operator == 4:
        nn.init.uniform_(layer.log2_threshold, 0.5, 3.5)
    layer.double()
    x = (
        4 * torch.rand(6, 8, 8, 3, 4, dtype=torch.float64) * torch.linspace(0.5, 1, 8)[:, None, None, None]
    )  # some are quiet
    weights = torch.randn_like(x)
    results = []
    for attention in (merge(layer), layer):
        inputs = x.clone().requires_grad_()
        spikes = attention(inputs)
        results.append((spikes, *torch.autograd.grad((spikes * weights).sum(), inputs)))
    assert 0.02 < results[1][0].mean() < 0.98 and results[1][1].abs().max() > 1e-3
    assert_close(results[0][0], results[1][0], rtol=0, atol=0)
    assert_close(results[0][1], results[1][1], rtol=1e-9, atol=1e-12)


def test_thresholds_in_counts():
    def layer(operator):
        return SpikingSelfAttention(8, 2, lambda channels: nn.Identity(), lambda th: LIF(2.0, th), operator=operator)

    assert merge(layer(3)).attn_lif.v_threshold == 4.0
    four = layer(4)
    four.log2_threshold.data = torch.tensor([1.0, 5.0])
    assert [neuron.v_threshold for neuron in merge(four).attn_lif] == [2.0, 32.0]
    assert merge(layer(1)).attn_lif.v_threshold == merge(layer(2)).attn_lif.v_threshold == 0.5
    assert layer(3).attn_lif.v_threshold == 0.5


def test_neurons_that_are_not_ours_keep_the_scale():
    class Step(nn.Module):
        def forward(self, x):
            return (x >= 0.5).to(x.dtype)

    layer = SpikingSelfAttention(8, 2, lambda channels: nn.Identity(), lambda th: Step())
    x = torch.rand(2, 2, 8, 3, 4)
    assert 0 < layer(x).mean() < 1
    assert_close(merge(layer)(x), layer(x), rtol=0, atol=0)


# sequences of any model

FOLDED = {
    "linear": ([nn.Linear(4, 6), nn.BatchNorm1d(6)], (5, 4)),
    "conv 1d": ([nn.Conv1d(4, 6, 3, bias=False), nn.BatchNorm1d(6)], (2, 4, 9)),
    "conv 2d": ([nn.Conv2d(4, 6, 3, 2, 1, 2, 2, padding_mode="circular"), nn.BatchNorm2d(6)], (2, 4, 9, 8)),
    "conv 3d": ([nn.Conv3d(4, 6, 3, groups=2), nn.BatchNorm3d(6)], (2, 4, 4, 5, 6)),
    "transposed 1d": ([nn.ConvTranspose1d(4, 6, 3, 2), nn.BatchNorm1d(6)], (2, 4, 9)),
    "transposed 2d": ([nn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.BatchNorm2d(6)], (2, 4, 5, 6)),
    "transposed 3d": ([nn.ConvTranspose3d(4, 6, 2, bias=False), nn.BatchNorm3d(6)], (2, 4, 3, 4, 5)),
    "synchronised": ([nn.Conv2d(4, 6, 1), nn.SyncBatchNorm(6)], (2, 4, 5, 6)),
    "not affine": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, affine=False)], (2, 4, 5, 6)),
    "another eps": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, eps=0.5)], (2, 4, 5, 6)),
    "twice": ([nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.Identity(), nn.BatchNorm2d(6), nn.ReLU()], (2, 4, 5, 6)),
    "nested": ([nn.ReLU(), nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)), nn.ReLU()], (2, 4, 5, 6)),
}


@torch.no_grad()
@pytest.mark.parametrize(("layers", "shape"), FOLDED.values(), ids=FOLDED)
def test_normalisations_go_into_the_layer_in_front(layers, shape):
    model = randomise(copy.deepcopy(nn.Sequential(*layers)))
    x = torch.randn(shape, dtype=torch.float64)
    merged = merge(model)
    assert not any(isinstance(module, NORMS) for module in merged.modules()) and len(merged) == len(model)
    assert_close(merged(x), model(x), rtol=0, atol=1e-12)


class Doubled(nn.Sequential):
    def forward(self, x):
        return self[1](2 + self[0](x))


class Squared(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) ** 2


KEPT = {
    "activation between": [nn.Conv2d(4, 6, 1), nn.ReLU(), nn.BatchNorm2d(6)],
    "first": [nn.BatchNorm2d(4), nn.Conv2d(4, 6, 1)],
    "statistics of the batch": [nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)],
    "another convolution": [Squared(4, 6, 1), nn.BatchNorm2d(6)],
    "another order": Doubled(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6)),
    "computed weights": [nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 1)), nn.BatchNorm2d(6)],
    "another axis": [nn.Linear(6, 8), nn.BatchNorm2d(4)],
}


@torch.no_grad()
@pytest.mark.parametrize("layers", KEPT.values(), ids=KEPT)
def test_other_normalisations_stay(layers):
    model = randomise(copy.deepcopy(layers if isinstance(layers, nn.Sequential) else nn.Sequential(*layers)))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    merged = merge(model)
    assert any(isinstance(module, NORMS) for module in merged.modules())
    assert_close(merged(x), model(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_shared_layers():
    """One convolution in front of two normalisations is folded twice, a layer that is used twice once."""
    conv = nn.Conv2d(4, 4, 3, padding=1)
    model = randomise(nn.Sequential(conv, nn.BatchNorm2d(4), nn.Sequential(conv, nn.BatchNorm2d(4))))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    assert_close(merge(model)(x), model(x), rtol=0, atol=1e-12)

    layer, attention = RepConv(4), SpikingSelfAttention(4, 2, lambda channels: nn.Identity(), lambda th: LIF(2.0, th))
    merged = merge(nn.Sequential(layer, attention, layer, attention))
    assert merged[0] is merged[2] and merged[1] is merged[3] and merged[1].attn_lif.v_threshold == 4.0


@torch.no_grad()
def test_nothing_to_merge():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    merged = merge(model)
    assert merged is not model and merged[0] is not model[0]
    assert_close(merged.state_dict(), model.state_dict(), rtol=0, atol=0)
    x = torch.randn(2, 4)
    assert_close(F.relu(F.linear(x, model[0].weight, model[0].bias)), merged(x), rtol=0, atol=0)
