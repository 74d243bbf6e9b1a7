"""What hangs at modules is honoured or named by whoever takes modules apart."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.testing import assert_close

from spikeformers import convert, create_model, merge, shrink
from spikeformers.layers import ConvBN, RepConv, TimestepShrink
from spikeformers.layers.hooks import all_changes, changes_of, computed, copied

SMALL = dict(dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), num_heads=2)


def doubled(module, args, output):
    return 2 * output


def moved(module, args):
    return (args[0] + 1,)


def listener(module, args, output=None):
    return None


listener.listens = True


def awake(model):
    """In eval mode, with statistics that are not those of a new network."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, std=0.3)
    return model.double().eval()


def sequential():
    return awake(
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5)
        )
    )


def patch_forward(module):
    inner = module.forward
    module.forward = lambda x: inner(x) * 3


HANGS = {
    "forward hook": lambda module: module.register_forward_hook(doubled),
    "forward pre-hook": lambda module: module.register_forward_pre_hook(moved),
    "forward method": patch_forward,
}


@torch.no_grad()
@pytest.mark.parametrize("what", HANGS)
@pytest.mark.parametrize("at", ["0", "1", "4", "5"])
def test_merge_leaves_what_has_hooks_as_it_is_and_says_so(what, at):
    model, x = sequential(), torch.randn(3, 3, 6, 6, dtype=torch.float64)
    HANGS[what](model.get_submodule(at))
    with pytest.warns(UserWarning, match=rf"not merged.*{at}: .*{what}"):
        merged = merge(model)
    assert_close(merged(x), model(x), rtol=0, atol=1e-10)
    assert sum(isinstance(layer, nn.Identity) for layer in merged) == 1  # the other pair


@torch.no_grad()
@pytest.mark.parametrize("part", ["stem.conv", "stem.bn", "stem", "the depthwise one of a RepConv", "head"])
@pytest.mark.parametrize("what", ["forward hook", "forward pre-hook"])
def test_backbones_with_hooks(part, what):
    model = awake(create_model("meta_spikeformer_cifar", num_classes=5, **SMALL))
    names = dict(model.named_modules())
    name = (
        part
        if part in names
        else next(name for name, module in names.items() if isinstance(module, RepConv)) + ".depthwise"
    )
    HANGS[what](names[name])
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    if part == "head":
        merged = merge(model)
    else:
        with pytest.warns(UserWarning, match=f"not merged.*{what}"):
            merged = merge(model)
    assert_close(merged(x, per_step=True), model(x, per_step=True), rtol=0, atol=1e-8)


@torch.no_grad()
@pytest.mark.filterwarnings("error")
def test_listeners_are_in_nobodys_way():
    model = sequential()
    for layer in model:
        layer.register_forward_hook(listener)
        layer.register_forward_pre_hook(listener)
    assert all_changes(model) == []
    assert sum(isinstance(layer, nn.Identity) for layer in merge(model)) == 2


def test_hooks_have_names():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(doubled)
    layer.register_forward_hook(functools.partial(doubled))
    prune.random_unstructured(layer, "weight", 0.5)
    assert changes_of(layer) == ["forward hook doubled", "forward hook partial"]
    assert computed(layer) == ["weight"]
    assert all_changes(nn.Sequential(layer))[0] == "0: forward hook doubled"
    handle = nn.modules.module.register_module_forward_hook(doubled)
    try:
        assert "hook of all modules doubled" in all_changes(nn.Linear(2, 2))
    finally:
        handle.remove()


@pytest.mark.parametrize("change", [copied, merge, lambda model: convert(model, torch.rand(3, 3, 6, 6).double()).model])
def test_weights_that_hooks_left_behind_are_copied(change):
    """torch's own deepcopy refuses them."""
    model, x = sequential(), torch.randn(3, 3, 6, 6, dtype=torch.float64)
    prune.random_unstructured(model[0], "weight", 0.5)
    model(x).sum().backward()
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    with torch.no_grad():
        made = change(model)
        assert_close(made(x), model(x), rtol=0, atol=1e-10)
        model.load_state_dict({name: value + 0.1 for name, value in model.state_dict().items()})
        assert (
            not torch.equal(change(model)[0].weight, made[0].weight) or change is not copied
        )  # not what the last call left


def test_what_cannot_be_copied_is_named(tmp_path):
    model = nn.Linear(2, 2)
    with (tmp_path / "log").open("w") as model.log, pytest.raises(ValueError, match="this Linear cannot be copied"):
        merge(model)


def test_merged_convolutions_have_weights_of_their_own():
    layer = ConvBN(3, 4)
    prune.random_unstructured(layer.conv, "weight", 0.5)
    with pytest.raises(ValueError, match=r"prune\.remove"):
        merge(layer)


@torch.no_grad()
@pytest.mark.parametrize("what", ["forward hook", "forward pre-hook"])
@pytest.mark.parametrize("part", ["conv", "bn"])
def test_shrunk_networks_call_what_has_hooks(part, what):
    layer = awake(ConvBN(3, 4, 3))
    HANGS[what](getattr(layer, part))
    shrinking, x = TimestepShrink(4, 2).double(), torch.randn(4, 2, 3, 5, 5, dtype=torch.float64)
    nn.init.normal_(shrinking.scores.weight)
    assert_close(layer(shrinking(x, made=False)), layer(shrinking(x)), rtol=0, atol=1e-10)


def test_shrink_keeps_hooks():
    model = create_model("meta_spikeformer_cifar", num_classes=5, **SMALL).eval()
    prune.random_unstructured(model.stem.conv, "weight", 0.5)
    model(torch.randn(1, 3, 32, 32)).sum()
    shrunk = shrink(model, (4, 2, 2, 1, 1)[: len(model.stages)])
    assert computed(shrunk.stem.conv) == ["weight"]


@torch.no_grad()
def test_rep_conv_sees_hooks_of_its_depthwise_convolution():
    layer, x = awake(RepConv(4)), torch.randn(2, 1, 4, 5, 5, dtype=torch.float64)
    plain = layer(x)
    handle = layer.depthwise.register_forward_hook(lambda module, args, output: output)
    assert_close(layer(x), plain, rtol=0, atol=1e-12)
    handle.remove()
    layer.depthwise.register_forward_hook(doubled)
    assert not torch.allclose(layer(x), plain)
    pruned = awake(RepConv(4))
    prune.random_unstructured(pruned.depthwise, "weight", 0.5)
    pruned.depthwise.weight_orig.mul_(2)
    changed = pruned(x)
    prune.remove(pruned.depthwise, "weight")
    assert_close(changed, pruned(x), rtol=0, atol=1e-12)
