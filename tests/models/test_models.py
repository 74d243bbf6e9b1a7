"""Every registered model: the timm contract, time, state, gradients, export. A model is tested because it is registered."""

import copy
import pickle
import re
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.data import resolve_data_config
from torch import nn
from torch.testing import assert_close

import spikeformers
from spikeformers.layers import DropPath
from spikeformers.models.meta_spikeformer import ConvBlock, MetaSpikeFormer, TransformerBlock
from spikeformers.models.spiking_resnet import SEWResNet, SpikingResNet
from spikeformers.models.spiking_vgg import SpikingVGG
from spikeformers.models.spikingformer import Spikingformer
from spikeformers.neurons import LIF

# counts of the papers' reference code at its number of classes, less two LayerNorms per block that it never uses
PARAMETERS = {
    "meta_spikeformer_15m": 15_112_208,
    "meta_spikeformer_31m": 31_333_864,
    "meta_spikeformer_55m": 55_350_248,
    "meta_spikeformer_124m": 123_741_160,
    "spikingformer_8_384": 16_828_312 - 12_288,
    "spikingformer_8_512": 29_705_768 - 16_384,
    "spikingformer_8_768": 66_363_208 - 24_576,
    "spikingformer_cifar_2_256": 2_569_002 - 2_048,
    "spikingformer_cifar_4_256": 4_156_202 - 4_096,
    "spikingformer_cifar_2_384": 5_765_818 - 3_072,
    "spikingformer_cifar_4_384": 9_326_266 - 6_144,
    "spikingformer_dvs_2_256": 2_568_971 - 2_048,
}
# published nowhere in this size, so there is no count to agree with
OUR_OWN = {"meta_spikeformer_cifar", "spiking_vgg9", "spiking_resnet18", "sew_resnet18", "spiking_resnet_edge"}
EDGE = {"spiking_resnet_edge"}  # for images of 32 pixels in one time step
CONVOLUTIONAL = {"spiking_vgg9", "spiking_resnet18", "sew_resnet18"}  # made for frames of 48 pixels
WITHOUT_SHORTCUTS = {"spiking_vgg9"}  # so there are no paths to drop
SMALLER = {  # with values
    "spiking_vgg9": {"width": 0.5, "img_size": 32},  # its classifier takes one size of images only
    "spiking_resnet_edge": {
        "tau": 2.0
    },  # with that of one time step nothing is remembered, so the order of frames would not matter
}
WITH_SECOND_HEAD = {
    "meta_spikeformer_15m": 15_473_208,
    "meta_spikeformer_31m": 31_814_864,
    "meta_spikeformer_55m": 55_991_248,
    "meta_spikeformer_124m": 124_702_160,
}
# wider than a model of the same class that is tested by default; their shapes are tested by default all the same
SLOW = {
    "meta_spikeformer_31m",
    "meta_spikeformer_55m",
    "meta_spikeformer_124m",
    "spikingformer_8_512",
    "spikingformer_8_768",
}

# a batch normalisation behind them takes away what they add, and what they scale by: their true gradient is zero
WITHOUT_GRADIENT = [
    r"stem\.conv\.bias",
    r".*\.conv_bn\.conv\.bias",
    r".*\.fc[12]\.conv\.bias",
    r".*\.proj\.conv\.bias",
    r".*\.project_bn\.(weight|bias)",
]

TINY_META = dict(dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), strides=(1, 2, 2, 1, 1), stem_kernel=3, num_heads=2)
TINY_SPIKINGFORMER = dict(embed_dim=32, depth=2, num_heads=2, pools=(False, False, True, True))
TINY_RESNET = dict(dims=(16, 16, 32, 32), depths=(1, 1, 2, 1), in_chans=3)
TINY_VGG = dict(width=1 / 8, img_size=32, in_chans=3)


def small_sizes(model_class, sizes):
    return lambda **kwargs: model_class(**{**sizes, "num_classes": 5, "time_steps": 2, **kwargs})


TRANSFORMERS = {
    "meta": small_sizes(MetaSpikeFormer, TINY_META),
    "spikingformer": small_sizes(Spikingformer, TINY_SPIKINGFORMER),
}
ANY_IMAGE_SIZE = {
    **TRANSFORMERS,
    "resnet": small_sizes(SpikingResNet, TINY_RESNET),
    "sew": small_sizes(SEWResNet, TINY_RESNET),
}
TINY = {**ANY_IMAGE_SIZE, "vgg": small_sizes(SpikingVGG, TINY_VGG)}


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def awake(model, x):
    """The model in eval mode, with normalisations like those of a trained one: statistics of x, and shifts that let all
    layers fire. A fresh model's last layers are silent in eval mode, so it would agree with anything; so would attention
    between a handful of tokens, unless their queries, keys and values fire often."""
    generator = torch.Generator().manual_seed(1)
    for name, bn in model.named_modules():
        if isinstance(bn, nn.BatchNorm2d):
            attention = re.search(r"\.[qkv]\.bn$", name)
            nn.init.normal_(bn.weight, 1, 0.1, generator=generator)
            nn.init.normal_(bn.bias, 1.2 if attention else 0.3, 0.3, generator=generator)
            bn.momentum = None  # take the statistics of the next batch as they are
    with torch.no_grad():
        model.train()(x)
    for bn in batch_norms(model):
        bn.momentum = 0.1
    return model.eval()


def images_for(model, batch=2, dtype=torch.float64):
    """Random images, of the size that the model was made for or twice the smallest that it takes."""
    size = getattr(model, "img_size", [2 * model.feature_info[-1]["reduction"]] * 2)
    return torch.randn(batch, model.in_chans, *size, generator=torch.Generator().manual_seed(0), dtype=dtype)


def tiny(family, **kwargs):
    """(small awake model in float64, images for it)"""
    torch.manual_seed(0)
    model = TINY[family](**kwargs).double()
    x = images_for(model)
    return awake(model, x), x


def on_meta(name, **kwargs):
    """The model without memory, and images of the size it was published for."""
    with torch.device("meta"):
        model = spikeformers.create_model(name, **kwargs)
        side = resolve_data_config(model=model)["input_size"][-1]
        return model, torch.empty(2, model.in_chans, side, side)


def gradients(model, x, seed=0):
    """Loss with random weights on the logits of the train mode, and the gradients of all parameters by name."""
    model.zero_grad()
    torch.manual_seed(seed)
    logits = model.train()(x)
    logits.backward(torch.randn(logits.shape, generator=torch.Generator().manual_seed(2), dtype=logits.dtype))
    return logits, {name: parameter.grad for name, parameter in model.named_parameters()}


every_model = pytest.mark.parametrize("name", spikeformers.list_models())


# shapes and counts, of all models at full size: on the meta device they cost nothing


@every_model
def test_logits_have_the_papers_shapes(name):
    model, x = on_meta(name, num_classes=7, time_steps=2)
    sequence = x.expand(3, *x.shape)
    for mode in (True, False):
        model.train(mode)
        assert model(x).shape == (2, 7)
        assert model(x, per_step=True).shape == (2, 2, 7)
        assert model(sequence).shape == (2, 7)
        assert model(sequence, per_step=True).shape == (3, 2, 7)


@every_model
def test_parameter_count_is_the_papers(name):
    model, _ = on_meta(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert name in OUR_OWN or count == PARAMETERS[name]
    if name in WITH_SECOND_HEAD:
        model, _ = on_meta(name, distillation=True)
        assert sum(parameter.numel() for parameter in model.parameters()) == WITH_SECOND_HEAD[name]


def test_docstrings_give_the_parameter_count():
    for name, count in PARAMETERS.items():
        family = spikeformers.models.meta_spikeformer if name.startswith("meta") else spikeformers.models.spikingformer
        assert getattr(family, name).__doc__.startswith(f"{count:,} parameters"), name


@every_model
def test_feature_info_describes_the_intermediates(name):
    model, x = on_meta(name, time_steps=3)
    final, maps = model.forward_intermediates(x)
    side = x.shape[-1]
    assert len(maps) == len(model.feature_info) == len(model.stages)
    for features, info in zip(maps, model.feature_info, strict=True):
        assert features.shape == (3, 2, info["num_chs"], side // info["reduction"], side // info["reduction"])
        assert model.get_submodule(info["module"]) is not None
    assert final.shape == maps[-1].shape == model.forward_features(x).shape
    assert model.num_features == model.pooled(final).shape[2]


@every_model
def test_published_input_sizes_are_those_of_the_papers(name):
    model, x = on_meta(name)
    expected = (
        (2, 128)
        if "dvs" in name
        else (3, 32)
        if "cifar" in name or name in EDGE
        else (2, 48)
        if name in CONVOLUTIONAL
        else (3, 224)
    )
    assert (x.shape[1], x.shape[2]) == expected
    assert model.forward_features(x).shape[-2:] == model.pretrained_cfg["pool_size"]
    assert model.time_steps == (16 if "dvs" in name else 5 if name in CONVOLUTIONAL else 1 if name in EDGE else 4)
    assert {m.tau for m in model.modules() if isinstance(m, LIF)} == {
        1.5 if "dvs" in name else 1.0 if name in EDGE else 2.0
    }
    thresholds = [(path, m.v_threshold) for path, m in model.named_modules() if isinstance(m, LIF)]
    assert all(threshold == (0.5 if path.endswith("attn_lif") else 1.0) for path, threshold in thresholds)


@every_model
def test_timm_creates_it_and_its_feature_extractor(name):
    assert timm.is_model(name)
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=5, **({} if name in WITHOUT_SHORTCUTS else {"drop_path_rate": 0.1}))
        extractor = timm.create_model(name, features_only=True)
        last = timm.create_model(name, features_only=True, out_indices=[1])
    _, x = on_meta(name)
    assert model(x).shape == (2, 5)
    infos = model.feature_info
    assert (
        extractor.feature_info.channels()
        == [info["num_chs"] for info in infos][-len(extractor.feature_info.channels()) :]
    )
    assert [f.shape[2] for f in extractor(x)] == extractor.feature_info.channels()
    assert [f.shape[2] for f in last(x)] == [infos[1]["num_chs"]]
    assert last.feature_info.reduction() == [infos[1]["reduction"]]


@every_model
def test_the_classifier_can_be_replaced_and_left_out(name):
    model, x = on_meta(name, num_classes=0)
    assert model(x).shape == (2, model.num_features)
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.num_features)
    model, x = on_meta(name)
    with torch.device("meta"):
        model.reset_classifier(11)
    assert model(x).shape == (2, 11) and model.num_classes == 11
    assert model.get_classifier().out_features == 11
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)


@every_model
def test_parameter_groups_of_timm_cover_all_parameters(name):
    model, _ = on_meta(name)
    groups = timm.models.group_parameters(model, model.group_matcher())
    assert sorted(sum(groups.values(), [])) == sorted(dict(model.named_parameters()))
    assert len(groups) > len(model.stages)


# values, in float64: another order of summation must not flip a spike


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in spikeformers.list_models()
    ],
)
def subject(request):
    """One model at a time, awake and in eval mode, with images and its logits for them. Tests must not change it."""
    torch.manual_seed(0)
    model = spikeformers.create_model(
        request.param, num_classes=5, time_steps=2, **SMALLER.get(request.param, {})
    ).double()
    x = images_for(model)
    awake(model, x)
    with torch.no_grad():
        logits = model(x)
    assert (logits[0] - logits[1]).abs().max() > 1e-3, "the logits do not depend on the input: nothing below could fail"
    return SimpleNamespace(name=request.param, model=model, x=x, logits=logits)


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batchmates(subject):
    alone = torch.cat([subject.model(image[None]) for image in subject.x])
    assert_close(
        alone, subject.logits, rtol=0, atol=1e-9
    )  # not bit-equal: the matrix products' blocks depend on the batch


@torch.no_grad()
def test_a_call_leaves_nothing_behind(subject):
    subject.model(torch.randn_like(subject.x))
    assert_close(subject.model(subject.x), subject.logits, rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_static_image_is_a_sequence_of_copies(subject):
    sequence = subject.x.expand(2, *subject.x.shape)
    assert_close(subject.model(sequence), subject.logits, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_stem_sees_a_static_image_once(subject):
    seen = []
    handle = subject.model.stem.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
    subject.model(subject.x)
    subject.model(subject.x.expand(3, *subject.x.shape))
    handle.remove()
    assert seen == [1, 3]


@torch.no_grad()
def test_steps_are_causal_and_averaged(subject):
    model = subject.model
    steps = model(subject.x, per_step=True)
    assert_close(steps.mean(0), subject.logits, rtol=0, atol=1e-9)
    first = model(subject.x[None])
    assert_close(first, steps[0], rtol=0, atol=1e-9)
    assert (first - subject.logits).abs().max() > 1e-6, "the number of time steps changes nothing"


@torch.no_grad()
def test_frames_in_another_order_give_another_result(subject):
    frames = torch.stack([subject.x, subject.x.flip(0)])
    assert (subject.model(frames) - subject.model(frames.flip(0))).abs().max() > 1e-6


@torch.no_grad()
def test_forward_is_features_then_head(subject):
    model = subject.model
    features = model.forward_features(subject.x)
    assert_close(model.forward_head(features), subject.logits, rtol=0, atol=1e-9)
    pooled = model.forward_head(features, pre_logits=True)
    assert_close(model.get_classifier()(pooled), subject.logits, rtol=0, atol=1e-9)
    assert model.forward_head(features, pre_logits=True, per_step=True).shape == (2, *pooled.shape)


@torch.no_grad()
def test_intermediates_are_those_of_the_forward_pass(subject):
    model = subject.model
    outputs, handles = {}, []
    for i, stage in enumerate(model.stages):
        handles.append(stage.register_forward_hook(lambda m, a, output, i=i: outputs.__setitem__(i, output)))
    final, maps = model.forward_intermediates(subject.x)
    seen = dict(outputs)
    outputs.clear()
    first = model.forward_intermediates(subject.x, indices=[0], stop_early=True, intermediates_only=True)
    for handle in handles:
        handle.remove()
    for i, features in enumerate(maps):
        assert_close(features, seen[i], rtol=0, atol=0)
    assert_close(model.forward_head(final), subject.logits, rtol=0, atol=1e-9)
    assert list(outputs) == [0] and len(first) == 1
    assert_close(first[0], maps[0], rtol=0, atol=1e-9)


@torch.no_grad()
def test_pruned_to_a_stage_it_gives_that_stages_map(subject):
    wanted = subject.model.forward_intermediates(subject.x, indices=[1], intermediates_only=True)[0]
    model = copy.deepcopy(subject.model)
    model.prune_intermediate_layers([1])
    assert len(model.stages) == 2
    assert_close(model.forward_features(subject.x), wanted, rtol=0, atol=1e-9)


def test_the_gradient_reaches_every_parameter_that_should_have_one(subject):
    _, grads = gradients(copy.deepcopy(subject.model), subject.x)
    zero = [name for name in grads if any(re.fullmatch(pattern, name) for pattern in WITHOUT_GRADIENT)]
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    sizes = {name: grad.abs().max().item() for name, grad in grads.items()}
    typical = sorted(sizes.values())[len(sizes) // 2]
    unreached = {name: size for name, size in sizes.items() if name not in zero and size < 1e-4 * typical}
    reached = {name: size for name, size in sizes.items() if name in zero and size > 1e-4 * typical}
    assert not unreached
    assert not reached, "these have a gradient after all, so they do not belong on the list of exceptions"


def test_checkpointing_changes_neither_gradients_nor_statistics(subject):
    plain, checkpointed = copy.deepcopy(subject.model), copy.deepcopy(subject.model)
    checkpointed.set_grad_checkpointing()
    x = 2 * subject.x.flip(2)  # other statistics than the running ones, which RepConv pads with
    logits, grads = gradients(plain, x)
    other_logits, other_grads = gradients(checkpointed, x)
    assert_close(other_logits, logits, rtol=0, atol=1e-9)
    for name, grad in grads.items():
        assert_close(other_grads[name], grad, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
    assert_close(dict(checkpointed.named_buffers()), dict(plain.named_buffers()), rtol=0, atol=1e-9)


def test_drop_path_acts_in_train_mode_only(subject):
    if subject.name in WITHOUT_SHORTCUTS:
        pytest.skip("no shortcuts, hence no paths to drop")
    options = SMALLER.get(subject.name, {})
    model = spikeformers.create_model(subject.name, num_classes=5, time_steps=2, drop_path_rate=0.5, **options).double()
    model.load_state_dict(subject.model.state_dict())
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates[0] == 0 and rates[-1] == 0.5 and rates == sorted(rates)
    with torch.no_grad():
        assert_close(model.eval()(subject.x), subject.logits, rtol=0, atol=1e-9)
        model.train()
        drawn = []
        for seed in range(8):
            model.load_state_dict(subject.model.state_dict())
            torch.manual_seed(seed)
            drawn.append(model(subject.x))
            if len(drawn) > 1 and (drawn[-1] - drawn[0]).abs().max() > 1e-3:
                return
    pytest.fail("eight draws of dropped paths gave the same logits")


def test_exported_program_equals_the_model(subject):
    with torch.no_grad():
        program = torch.export.export(subject.model, (subject.x,))
        assert_close(program.module()(subject.x), subject.logits, rtol=0, atol=1e-9)
        other = subject.x.flip(0)
        assert_close(program.module()(other), subject.logits.flip(0), rtol=0, atol=1e-9)


@torch.no_grad()
def test_copies_and_pickles_give_the_same_logits(subject):
    restored = pickle.loads(pickle.dumps(subject.model))
    assert_close(copy.deepcopy(subject.model)(subject.x), subject.logits, rtol=0, atol=1e-9)
    assert_close(restored(subject.x), subject.logits, rtol=0, atol=1e-9)
    assert restored.config == subject.model.config


def test_the_state_dict_holds_weights_and_statistics_only(subject):
    model = subject.model
    buffers = {name.rsplit(".", 1)[1] for name, _ in model.named_buffers()}
    assert buffers == {"running_mean", "running_var", "num_batches_tracked"}
    assert model.state_dict().keys() == dict(model.named_parameters()).keys() | dict(model.named_buffers()).keys()
    assert not any("lif" in name for name in model.state_dict())


def test_autocast_trains_in_bfloat16(subject):
    model = copy.deepcopy(subject.model).float().train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(subject.x.float())
    logits.float().square().mean().backward()
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters())
    assert max(p.grad.abs().max() for p in model.parameters()) > 0


@torch.no_grad()
def test_a_bfloat16_model_gives_bfloat16_logits(subject):
    logits = copy.deepcopy(subject.model).bfloat16()(subject.x.bfloat16())
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


# one small size per family


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_compiles_as_one_graph(family, mode):
    model, x = tiny(family, **({"depth": 1} if family == "spikingformer" else {"depths": (0, 0, 1, 1, 0)}))
    eager, compiled = copy.deepcopy(model), model
    for m in (eager, compiled):
        m.train(mode == "train")
    torch._dynamo.reset()
    run = torch.compile(compiled, fullgraph=True)
    got, want = run(x), eager(x)
    assert_close(got, want, rtol=0, atol=1e-9)
    got.square().sum().backward()
    want.square().sum().backward()
    other = dict(compiled.named_parameters())
    for name, parameter in eager.named_parameters():
        assert_close(
            other[name].grad, parameter.grad, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert_close(dict(compiled.named_buffers()), dict(eager.named_buffers()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("sdsa", [1, 2, 3, 4])
def test_attention_operators(family, sdsa):
    model, x = tiny(family, sdsa=sdsa)
    _, grads = gradients(model, x)
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    thresholds = [grad for name, grad in grads.items() if name.endswith("log2_threshold")]
    assert bool(thresholds) == (sdsa == 4) and all(grad.abs().min() > 0 for grad in thresholds)
    assert any(".branch.v." in name for name in grads) == (sdsa != 2)


@torch.no_grad()
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_attention_operators_differ(family):
    model, x = tiny(family, sdsa=4)
    state = model.state_dict()
    logits = {}
    for sdsa in (1, 2, 3, 4):
        other = TINY[family](sdsa=sdsa).double().eval()
        other.load_state_dict({key: value for key, value in state.items() if key in other.state_dict()})
        logits[sdsa] = other(x)
    assert_close(logits[4], logits[3], rtol=0, atol=0)  # a threshold of 4 counts is where SDSA-4 starts
    assert len({tuple(logits[sdsa].flatten().tolist()) for sdsa in (1, 2, 3)}) == 3


@torch.no_grad()
@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("shortcut", ["ms", "vs", "sew"])
def test_shortcuts_carry_what_they_say(family, shortcut):
    deep = dict(depths=(2, 2, 2, 2, 2)) if family == "meta" else dict(depth=4)
    model, x = tiny(family, shortcut=shortcut, **deep)
    maps = model.forward_intermediates(x, intermediates_only=True)
    stream = torch.cat([features.flatten() for features in maps])
    assert all(features.any() for features in maps), "a silent stage proves nothing"
    if shortcut == "ms":
        assert (stream != stream.round()).any()
    elif shortcut == "vs":
        assert set(stream.unique().tolist()) == {0.0, 1.0}
    else:
        assert (stream == stream.round()).all() and stream.min() >= 0 and stream.max() >= 2


@torch.no_grad()
@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("shortcut", ["ms", "vs"])
def test_convolutions_behind_the_stem_see_spikes(family, shortcut):
    """Within the limits of the paper: SepConv's last convolution and RepConv's inner ones follow a convolution directly."""
    model, x = tiny(family, shortcut=shortcut)
    analog = []

    def check(name):
        def hook(module, args):
            if not ((args[0] == 0) | (args[0] == 1)).all():
                analog.append(name)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(check(name))
    model(x)
    inner = r"stem\.conv|.*sep_conv\.branch\.project\.conv|.*attention\.branch\.(q|k|v|proj)\.(depthwise|project)"
    assert "stem.conv" in analog
    assert [name for name in analog if not re.fullmatch(inner, name)] == []


@pytest.mark.parametrize("family", TRANSFORMERS)
@pytest.mark.parametrize("shortcut", ["vs", "sew"])
def test_other_shortcuts_train(family, shortcut):
    model, x = tiny(family, shortcut=shortcut)
    _, grads = gradients(model, x)
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert grads["stem.conv.weight"].any()


def test_meta_blocks_of_one_kind_and_linear_projections():
    for kind, block in (("conv", ConvBlock), ("transformer", TransformerBlock)):
        model, x = tiny("meta", blocks=(kind,) * 5)
        assert all(isinstance(b, block) for stage in model.stages for b in stage.blocks)
        assert model(x).isfinite().all()
    model, x = tiny("meta", qkv="linear")
    assert model.stages[4].blocks[0].attention.branch.q.conv.kernel_size == (1, 1)
    assert not any("depthwise" in name and "attention" in name for name, _ in model.named_modules())
    _, grads = gradients(model, x)
    assert all(grad is not None for grad in grads.values())


@pytest.mark.parametrize("tau", [1.5, 3.0])
@pytest.mark.parametrize("family", TINY)
def test_tau_reaches_every_neuron(family, tau):
    model, _ = tiny(family, tau=tau)
    neurons = [module for module in model.modules() if isinstance(module, LIF)]
    assert neurons and all(neuron.tau == tau for neuron in neurons)


def test_distillation_answers_with_a_pair_in_training_and_the_mean_afterwards():
    model, x = tiny("meta", distillation=True)
    with torch.no_grad():
        logits, features = model(x), model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        head, head_kd = model.get_classifier()
        assert_close(logits, (head(pooled) + head_kd(pooled)) / 2, rtol=0, atol=1e-9)
        assert model(x, per_step=True).shape == (2, 2, 5)
    model.train()
    model.set_distilled_training()
    first, second = model(x)
    assert first.shape == second.shape == (2, 5) and (first - second).abs().max() > 1e-3
    assert [steps.shape for steps in model(x, per_step=True)] == [(2, 2, 5)] * 2
    (first.sum() + second.sum()).backward()
    assert model.head.weight.grad.any() and model.head_kd.weight.grad.any()
    model.reset_classifier(3)
    assert [head.out_features for head in model.get_classifier()] == [3, 3]
    with pytest.raises(ValueError, match="distillation=True"):
        TINY["meta"]().set_distilled_training()


@torch.no_grad()
def test_cml_pools_potentials_before_they_fire():
    model, x = tiny("spikingformer")
    cml = TINY["spikingformer"](cml=True).double().eval()
    cml.load_state_dict(model.state_dict())  # the same parameters: the weights do not reveal the switch
    assert (cml(x) - model(x)).abs().max() > 1e-6
    layer, plain = cml.tokenizer[2], model.tokenizer[2]
    u = torch.randn(2, 3, 16, 8, 8, dtype=torch.float64)
    pooled = nn.functional.max_pool2d(u.flatten(0, 1), 3, 2, 1).unflatten(0, (2, 3))
    assert_close(layer(u), layer.conv_bn(layer.lif(pooled)))
    spikes = nn.functional.max_pool2d(plain.lif(u).flatten(0, 1), 3, 2, 1).unflatten(0, (2, 3))
    assert_close(plain(u), plain.conv_bn(spikes))


@torch.no_grad()
@pytest.mark.parametrize("pools", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 1)], ids=str)
def test_pools_set_the_reduction(pools):
    model = TINY["spikingformer"](pools=pools).eval()
    reduction = 2 ** sum(pools)
    assert model.feature_info[-1]["reduction"] == reduction
    x = torch.randn(1, 3, 4 * reduction, 2 * reduction)
    assert model.forward_features(x).shape == (2, 1, 32, 4, 2)


@torch.no_grad()
@pytest.mark.parametrize("family", ANY_IMAGE_SIZE)
def test_images_need_not_be_square(family):
    """A transposed image through transposed kernels gives the same logits: height and width are never confused."""
    model, _ = tiny(family)
    x = torch.randn(2, 3, 24, 16, dtype=torch.float64)
    logits = model(x)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.copy_(module.weight.transpose(2, 3).clone())
    assert_close(model(x.transpose(2, 3)), logits, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("family", ANY_IMAGE_SIZE)
def test_channels_last_images_and_odd_sizes(family):
    model, x = tiny(family)
    logits = model(x)
    assert_close(model(x.contiguous(memory_format=torch.channels_last)), logits, rtol=0, atol=1e-9)
    assert model(torch.randn(1, 3, 13, 9, dtype=torch.float64)).isfinite().all()


def test_dropout_before_the_classifier():
    model, x = tiny("spikingformer", drop_rate=0.5)
    features = model.forward_features(x)
    assert_close(model.forward_head(features), model.forward_head(features))
    model.train()
    torch.manual_seed(0)
    assert (model.forward_head(features) - model.forward_head(features)).abs().max() > 1e-6


# errors that say what to do


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spikingformer_8", {}, r"unknown model 'spikingformer_8'; did you mean .*spikingformer_8_384"),
        ("mobilenet", {}, "unknown model 'mobilenet' .*spikeformers list"),
        (None, {}, "needs a name"),
        ("spikingformer_cifar_2_256", {"depht": 3}, "no option 'depht'; it has .*depth"),
        (
            "spikingformer_cifar_2_256",
            {"num_heads": 12},
            r"num_heads=12 does not divide the 256 channels.*\[1, 2, 4, 8",
        ),
        ("meta_spikeformer_15m", {"num_heads": 7}, r"num_heads=7 does not divide the 256 channels"),
        ("meta_spikeformer_15m", {"num_heads": 0}, "num_heads=0"),
        ("spikingformer_cifar_2_256", {"sdsa": 5}, "sdsa must be one of 1, 2, 3, 4, not 5"),
        ("spikingformer_cifar_2_256", {"shortcut": "res"}, "shortcut must be one of ms, vs, sew, not 'res'"),
        ("spikingformer_cifar_2_256", {"embed_dim": 100}, "multiple of 8.*not 100"),
        ("spikingformer_cifar_2_256", {"pools": (True, True)}, "pools needs 4 values.*not 2"),
        ("spikingformer_cifar_2_256", {"time_steps": 0}, "time_steps must be at least 1, not 0"),
        ("spikingformer_cifar_2_256", {"drop_path_rate": 1.0}, "drop_path_rate must be below 1, not 1.0"),
        ("meta_spikeformer_15m", {"qkv": "conv"}, "qkv must be one of repconv, linear, not 'conv'"),
        ("meta_spikeformer_15m", {"blocks": ("conv",) * 4 + ("mlp",)}, "blocks must be one of conv, transformer"),
        ("meta_spikeformer_15m", {"blocks": ("conv",) * 4}, "blocks needs 5 values.*not 4"),
        ("meta_spikeformer_15m", {"dims": (64, 128, 256)}, "dims needs 4 values.*not 3"),
        ("meta_spikeformer_15m", {"depths": (1, 1)}, "depths needs 5 values.*not 2"),
        ("meta_spikeformer_15m", {"strides": (2, 2, 2, 2)}, "strides needs 5 values.*not 4"),
    ],
    ids=str,
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        spikeformers.create_model(name, **options)


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), r"x\[None\]"),
        ((1, 1, 1, 3, 32, 32), r"\[T, B, C, H, W\], not \(1, 1, 1, 3, 32, 32\)"),
        ((2, 1, 32, 32), "1 channels and this model takes 3; create the model with in_chans=1"),
        ((2, 32, 32, 3), "channels come before height and width"),
        ((2, 3, 32, 3), r"32 x 3 and this model reduces it (\d+)-fold; resize it to at least \1 x \1"),
    ],
    ids=str,
)
def test_bad_inputs(family, shape, message):
    model = TINY[family]()
    for call in (model, model.forward_features, model.forward_intermediates):
        with pytest.raises(ValueError, match=message):
            call(torch.zeros(shape))


def test_bad_calls():
    model = TINY["meta"]()
    with pytest.raises(ValueError, match="global_pool must be 'avg', or '' .*not 'max'"):
        model.reset_classifier(3, "max")
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW'"):
        model.forward_intermediates(torch.zeros(1, 3, 8, 8), output_fmt="NLC")


def test_list_models_filters_by_pattern():
    assert spikeformers.list_models("meta_*") == [n for n in spikeformers.list_models() if n.startswith("meta_")]
    assert spikeformers.list_models() == sorted(PARAMETERS.keys() | OUR_OWN)
    assert spikeformers.list_models("vgg*") == []
