"""MS-ResNet and SEW ResNet: their layers, what their shortcuts carry, what convolutions read. The rest is in test_models.py."""

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import spikeformers
from spikeformers.layers import DropPath
from spikeformers.models.spiking_resnet import MSBlock, SEWBlock, SEWResNet, SpikingResNet
from spikeformers.neurons import LIF, MLF
from spikeformers.training.initial import load_initial

NAMES = ["spiking_resnet18", "sew_resnet18"]
SMALL = dict(dims=(16, 16, 24, 32), num_classes=5)
every_resnet = pytest.mark.parametrize("name", NAMES)


def awake(name, **options):
    """(a small model in float64 whose every layer fires in eval mode, frames [4, 2, 2, H, W] for it: the last map is 3 x 2)"""
    torch.manual_seed(0)
    model = spikeformers.create_model(name, **{**SMALL, **options}).double()
    reduction = model.feature_info[-1]["reduction"]
    x = 2 * torch.rand(4, 2, 2, 3 * reduction, 2 * reduction, dtype=torch.float64)
    return settle(model, x), x


def settle(module, x):
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.constant_(norm.bias, 0.6)
            norm.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    return module.eval()


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@every_resnet
def test_layers_are_those_of_resnet18(name):
    """For ImageNet; MS-ResNet has one shortcut more, for it halves the resolution in the first block instead of pooling."""
    with torch.device("meta"):
        model = spikeformers.create_model(name, stem="imagenet", in_chans=3, num_classes=1000)
        wanted = torchvision.models.resnet18()
    extra = [(64, 64, 1, 1)] if name == "spiking_resnet18" else []
    assert count(model) == count(wanted) + (64 * 64 + 2 * 64 if extra else 0)
    ours, theirs = (
        [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (model, wanted)
    )
    assert sorted(ours) == sorted(theirs + extra)
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    x = torch.empty(1, 3, 224, 224, device="meta")
    assert [features.shape[3] for features in model.forward_intermediates(x)[1]] == [56, 28, 14, 7]
    assert sum(type(module) is LIF for module in model.modules()) == (17 if extra else 20)


@every_resnet
def test_the_small_stem_keeps_the_resolution(name):
    with torch.device("meta"):
        model = spikeformers.create_model(name)
    assert getattr(spikeformers.models.spiking_resnet, name).__doc__.startswith(f"{count(model):,} parameters")
    assert [info["reduction"] for info in model.feature_info] == [1, 2, 4, 8]
    assert model.units() == [5, 4, 4, 4]
    maps = model.forward_intermediates(torch.empty(2, 1, 2, 48, 48, device="meta"))[1]
    assert [tuple(features.shape[2:]) for features in maps] == [(64, 48, 48), (128, 24, 24), (256, 12, 12), (512, 6, 6)]


@torch.no_grad()
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (8, 2)])
def test_ms_block_by_its_equation(channels, stride):
    torch.manual_seed(0)
    x = 2 * torch.randn(3, 2, 8, 7, 6, dtype=torch.float64)
    block = settle(MSBlock(8, channels, stride, LIF, 0.0).double(), x)
    middle = block.conv1(block.lif1(x))
    branch = block.conv2(block.lif2(middle))
    same = channels == 8 and stride == 1
    assert middle.shape[3] == (7 if stride == 1 else 4) and branch.any()
    shortcut = x if same else torch.stack([block.shortcut.bn(block.shortcut.conv(frame)) for frame in x])
    assert_close(block(x), branch + shortcut, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("channels", "stride"), [(8, 1), (16, 1), (8, 2)])
def test_sew_block_by_its_equation(channels, stride):
    torch.manual_seed(0)
    x = torch.randint(0, 4, (3, 2, 8, 7, 6)).double()
    block = settle(SEWBlock(8, channels, stride, LIF, 0.0).double(), x)
    branch = block.lif2(block.conv2(block.lif1(block.conv1(x))))
    same = channels == 8 and stride == 1
    shortcut = x if same else block.shortcut.lif(block.shortcut.conv_bn(x))
    assert_close(block(x), branch + shortcut, rtol=0, atol=0)
    assert branch.any() and block(x).max() == (4 if same else 2)


@torch.no_grad()
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@every_resnet
def test_what_convolutions_read(name, stem):
    """Spikes but for MS-ResNet's shortcuts; integers but for SEW ResNet's second ones, which follow neurons."""
    model, x = awake(name, stem=stem)
    seen = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda m, args, path=path: seen.__setitem__(path, args[0]))
    maps = model.forward_intermediates(x, intermediates_only=True)
    seen.pop("stem.conv")
    for path, read in seen.items():
        spikes = set(read.unique().tolist()) == {0.0, 1.0}
        if name == "spiking_resnet18":
            assert spikes == ("shortcut" not in path), path
        else:
            assert torch.equal(read, read.round()) and read.min() == 0 and (spikes or ".conv2." not in path), path
    if name == "sew_resnet18":
        assert [features.max().item() for features in maps] == [
            3.0
        ] * 4  # a spike, or of the shortcut, and one for each block
    else:
        assert all((features != features.round()).any() for features in maps)
        spikes = 6 * model.pooled(maps[-1])  # the head sees means of spikes over 6 pixels
        assert_close(spikes, spikes.round())


@torch.no_grad()
def test_sew_pools_the_first_spikes_for_imagenet():
    model, x = awake("sew_resnet18", stem="imagenet")
    spikes = model.stages[0].spikes
    potentials = model.embed(x)
    wanted = torch.stack([nn.functional.max_pool2d(frame, 3, 2, 1) for frame in spikes.lif(potentials)])
    assert 0 < wanted.mean() < 1
    assert_close(spikes(potentials), wanted, rtol=0, atol=0)


def test_stochastic_depth_drops_branches():
    model = SpikingResNet(**SMALL, drop_path_rate=0.4)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.4 * i / 7 for i in range(8)])
    block = MSBlock(8, 8, 1, LIF, 0.5).train()
    x = torch.randn(2, 64, 8, 4, 4)
    dropped = (block(x) == x).flatten(2).all(2)
    assert torch.equal(dropped[0], dropped[1]) and 0.2 < dropped[0].float().mean() < 0.8


@every_resnet
def test_multi_level_neurons(name):
    model, x = awake(name, neuron="mlf", tau=4 / 3, decay_input=False, depths=(1, 1, 1, 1))
    assert sum(isinstance(module, MLF) for module in model.modules()) == (9 if name == "spiking_resnet18" else 12)
    model.train()(x).square().sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in model.parameters())
    merged = spikeformers.merge(model.eval())
    with torch.no_grad():
        assert_close(merged(x), model(x), rtol=0, atol=1e-10)


@every_resnet
def test_constants_reach_all_neurons(name):
    model = spikeformers.create_model(name, **SMALL, tau=3.0, decay_input=False, surrogate="sigmoid")
    constants = {(n.tau, n.decay_input, n.surrogate) for n in model.modules() if isinstance(n, LIF)}
    assert constants == {(3.0, False, "sigmoid")}
    default = spikeformers.create_model(name, **SMALL)
    assert {(n.tau, n.decay_input, n.surrogate) for n in default.modules() if isinstance(n, LIF)} == {
        (2.0, True, "rectangle")
    }


@torch.no_grad()
@every_resnet
def test_saved_with_its_sizes(name, tmp_path):
    options = dict(depths=(1, 2, 1, 1), tau=1.5, surrogate="atan")
    model, x = awake(name, **options)
    model.float()
    path = tmp_path / "model.safetensors"
    spikeformers.save_model(model, path)
    again = spikeformers.create_model(checkpoint=path).eval()
    assert_close(again(x.float()), model(x.float()), rtol=0, atol=0)
    fresh = spikeformers.create_model(name, **{**SMALL, **options, "num_classes": 3})
    report = load_initial(fresh, path)
    assert all(problem.startswith("shape: head.") for problem in report.problems())
    assert_close(fresh.eval().forward_features(x.float()), model.forward_features(x.float()), rtol=0, atol=0)
    other = spikeformers.create_model(NAMES[1 - NAMES.index(name)], **SMALL)
    with pytest.raises(ValueError):
        load_initial(other, path)


@every_resnet
def test_it_compiles_as_one_graph(name):
    model, x = awake(name, depths=(1, 1, 1, 1))
    torch._dynamo.reset()
    got = torch.compile(model, fullgraph=True, backend="eager")(x)
    assert_close(got, model(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("model_class", [SpikingResNet, SEWResNet])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (16, 32, 64)}, r"dims needs 4 values of at least 1, one per stage, not \(16, 32, 64\)"),
        ({"depths": (1, 1, 0, 1)}, r"depths must be a list of whole numbers, each at least 1, not \(1, 1, 0, 1\)"),
        ({"stem": "cifar"}, "stem must be one of small, imagenet, not 'cifar'"),
        ({"neuron": "if"}, "neuron must be one of lif, mlf, not 'if'"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be"),
    ],
    ids=str,
)
def test_bad_options(model_class, options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        model_class(**options)


def test_shortcuts_around_every_convolution():
    """The same weights as with one around two; by hand: every convolution adds to the potential before it."""
    model, x = awake("spiking_resnet18", shortcuts="conv")
    block = model.stages[1].blocks[0]
    u = torch.randn(2, 3, 16, 8, 8, dtype=torch.float64)
    inner = block.shortcut(u) + block.conv1(block.lif1(u))
    assert torch.equal(block(u), inner + block.conv2(block.lif2(inner)))
    plain, _ = awake("spiking_resnet18")
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(x), model(x))


def test_wrong_shortcuts():
    with pytest.raises(ValueError, match="shortcuts must be 'block' or 'conv', not 'none'"):
        spikeformers.create_model("spiking_resnet18", shortcuts="none")
    with pytest.raises(ValueError, match="SEW ResNet adds spikes"):
        spikeformers.create_model("sew_resnet18", shortcuts="conv")


def test_the_size_for_small_devices():
    model = spikeformers.create_model("spiking_resnet_edge")
    operations = 0

    def add(module, inputs, output):
        nonlocal operations
        operations += output[0].numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(add)
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert (count(model), round(operations / 1e6)) == (1_499_802, 65)
    assert spikeformers.models.spiking_resnet.spiking_resnet_edge.__doc__.startswith(f"{count(model):,} parameters")
