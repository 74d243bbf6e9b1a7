"""Published weights: every name consumed, every value where it belongs, and errors that say what does not match."""

import argparse
import importlib.util
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.testing import assert_close

import spikeformers
from spikeformers.models import import_checkpoint

SHARED = Path(__file__).parents[2].parent / "shared"
STATISTICS = {"weight": "c", "bias": "c", "running_mean": "c", "running_var": "c", "num_batches_tracked": ""}


# the names and shapes of published files, as their authors' code makes them


def batch_norm(name, channels):
    return {f"{name}.{key}": [channels] if kind else [] for key, kind in STATISTICS.items()}


def meta_spikeformer_shapes(dims, classes=1000, distillation=False, in_chans=3, depths=(6, 2)):
    """Spike-driven Transformer V2."""
    d0, d1, d2, d3 = dims
    shapes = {}
    downsamples = [
        ("1_1", in_chans, d0 // 2, 7),
        ("1_2", d0 // 2, d0, 3),
        ("2", d0, d1, 3),
        ("3", d1, d2, 3),
        ("4", d2, d3, 3),
    ]
    for name, cin, cout, kernel in downsamples:
        shapes[f"downsample{name}.encode_conv.weight"] = [cout, cin, kernel, kernel]
        shapes[f"downsample{name}.encode_conv.bias"] = [cout]
        shapes |= batch_norm(f"downsample{name}.encode_bn", cout)
    for name, c in [("1_1", d0 // 2), ("1_2", d0), ("2_1", d1), ("2_2", d1)]:
        block = f"ConvBlock{name}.0"
        shapes[f"{block}.Conv.pwconv1.weight"] = [2 * c, c, 1, 1]
        shapes |= batch_norm(f"{block}.Conv.bn1", 2 * c)
        shapes[f"{block}.Conv.dwconv.weight"] = [2 * c, 1, 7, 7]
        shapes[f"{block}.Conv.pwconv2.weight"] = [c, 2 * c, 1, 1]
        shapes |= batch_norm(f"{block}.Conv.bn2", c)
        shapes[f"{block}.conv1.weight"] = [4 * c, c, 3, 3]
        shapes |= batch_norm(f"{block}.bn1", 4 * c)
        shapes[f"{block}.conv2.weight"] = [c, 4 * c, 3, 3]
        shapes |= batch_norm(f"{block}.bn2", c)
    for stage, depth, c in [(3, depths[0], d2), (4, depths[1], d3)]:
        for i in range(depth):
            block = f"block{stage}.{i}"
            for layer in ("q", "k", "v", "proj"):
                conv = f"{block}.attn.{layer}_conv"
                shapes[f"{conv}.0.body.0.weight"] = [c, c, 1, 1]
                shapes |= batch_norm(f"{conv}.0.body.1.bn", c)
                shapes[f"{conv}.0.body.2.0.weight"] = [c, 1, 3, 3]
                shapes[f"{conv}.0.body.2.1.weight"] = [c, c, 1, 1]
                shapes |= batch_norm(f"{conv}.0.body.2.2", c)
                shapes |= batch_norm(f"{conv}.1", c)
            for layer, cin, cout in [("fc1", c, 4 * c), ("fc2", 4 * c, c)]:
                shapes[f"{block}.mlp.{layer}_conv.weight"] = [cout, cin, 1]
                shapes[f"{block}.mlp.{layer}_conv.bias"] = [cout]
                shapes |= batch_norm(f"{block}.mlp.{layer}_bn", cout)
    for head in ["head"] + ["head_kd"] * distillation:
        shapes |= {f"{head}.weight": [classes, d3], f"{head}.bias": [classes]}
    return shapes


def spikingformer_shapes(dim, depth, classes, tokenizer="proj", in_chans=3):
    """Spikingformer; the tokenizer's names are "proj" for ImageNet and event cameras, "block" for CIFAR, or "old"."""
    names = {
        "proj": ["proj_{}"] + [f"proj{i}_{{}}" for i in range(1, 5)],
        "block": [f"block{i}_{{}}" for i in range(5)],
        "old": ["proj_{}", "proj_{}1", "proj_{}2", "proj_{}3", "rpe_{}"],
    }[tokenizer]
    mlp = "fc" if tokenizer == "old" else "mlp"
    shapes = {}
    widths = [in_chans, dim // 8, dim // 4, dim // 2, dim, dim]
    for name, cin, cout in zip(names, widths, widths[1:], strict=False):
        shapes["patch_embed." + name.format("conv") + ".weight"] = [cout, cin, 3, 3]
        shapes |= batch_norm("patch_embed." + name.format("bn"), cout)
    for i in range(depth):
        block = f"block.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": [dim], f"{block}.{norm}.bias": [dim]}
        for layer in ("q", "k", "v", "proj"):
            shapes[f"{block}.attn.{layer}_conv.weight"] = [dim, dim, 1]
            shapes |= batch_norm(f"{block}.attn.{layer}_bn", dim)
        shapes[f"{block}.attn.proj_conv.bias"] = [dim]
        for layer, cin, cout in [(f"{mlp}1", dim, 4 * dim), (f"{mlp}2", 4 * dim, dim)]:
            shapes[f"{block}.mlp.{layer}_conv.weight"] = [cout, cin, 1, 1]
            shapes[f"{block}.mlp.{layer}_conv.bias"] = [cout]
            shapes |= batch_norm(f"{block}.mlp.{layer}_bn", cout)
    return shapes | {"head.weight": [classes, dim], "head.bias": [classes]}


def filled(shapes, seed=0):
    """A state dict with a different value everywhere: variances positive, counters whole."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            values = torch.tensor(len(state))
        elif key.endswith("running_var"):
            values = 0.5 + values.square()
        state[key] = values
    return state


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return spikeformers.create_model(name, **kwargs)


PUBLISHED = {
    "meta_spikeformer_15m": ("meta_spikeformer_15m", {}, meta_spikeformer_shapes((64, 128, 256, 360)), 825),
    "meta_spikeformer_55m_kd": (
        "meta_spikeformer_55m",
        {"distillation": True},
        meta_spikeformer_shapes((128, 256, 512, 640), distillation=True),
        827,
    ),
    "spikingformer_imagenet_8_512": ("spikingformer_8_512", {}, spikingformer_shapes(512, 8, 1000), 376),
    "spikingformer_cifar10_4_384": (
        "spikingformer_cifar_4_384",
        {},
        spikingformer_shapes(384, 4, 10, tokenizer="block"),
        204,
    ),
    "spikingformer_cifar100_4_256": (
        "spikingformer_cifar_4_256",
        {"num_classes": 100},
        spikingformer_shapes(256, 4, 100, tokenizer="block"),
        204,
    ),
    "spikingformer_cifar10_cml": ("spikingformer_cifar_4_384", {"cml": True}, spikingformer_shapes(384, 4, 10), 204),
    "spikingformer_dvs_2_256": ("spikingformer_dvs_2_256", {}, spikingformer_shapes(256, 2, 11, in_chans=2), 118),
    "spikingformer_old_names": (
        "spikingformer_8_384",
        {},
        spikingformer_shapes(384, 8, 1000, tokenizer="old"),
        376,
    ),
}


def assert_all_consumed(model, shapes):
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    report = spikeformers.load_published(model, state)
    norms = [key for key in shapes if re.search(r"^block\.\d+\.norm[12]\.", key)]
    assert report.problems() == []
    assert report.unused == norms
    assert report.loaded == len(shapes) - len(norms) == len(model.state_dict())


@pytest.mark.parametrize("published", PUBLISHED)
def test_every_published_name_is_consumed_and_none_of_ours_is_missing(published):
    name, options, shapes, entries = PUBLISHED[published]
    assert len(shapes) == entries
    assert_all_consumed(on_meta(name, **options), shapes)


FILES = {
    "sdtv2_15m": ("meta_spikeformer_15m", {}),
    "sdtv2_31m": ("meta_spikeformer_31m", {}),
    "sdtv2_55m_kd": ("meta_spikeformer_55m", {"distillation": True}),
    "spikingformer_imagenet_8_512": ("spikingformer_8_512", {}),
    "spikingformer_cifar10_4_384": ("spikingformer_cifar_4_384", {}),
    "spikingformer_cifar100_4_256": ("spikingformer_cifar_4_256", {"num_classes": 100}),
    "spikingformer_dvs128_2_256": ("spikingformer_dvs_2_256", {}),
}


@pytest.mark.parametrize("file", FILES)
def test_the_lists_of_published_names_agree(file):
    """The same against lists taken from the authors' code, where they are at hand."""
    path = SHARED / "specs" / "state_dicts" / f"{file}.json"
    if not path.is_file():
        pytest.skip("the lists of published names are not part of the repository")
    facts = json.loads(path.read_text())
    name, options = FILES[file]
    model = on_meta(name, **options)
    assert_all_consumed(model, facts["keys"])
    unused = sum(shape[0] for key, shape in facts["keys"].items() if ".norm" in key)
    assert sum(p.numel() for p in model.parameters()) == facts["params"] - unused
    mine = {"sdtv2_15m": "meta_spikeformer_15m", "sdtv2_55m_kd": "meta_spikeformer_55m_kd"}.get(file)
    if mine:
        assert PUBLISHED[mine][2] == facts["keys"], "the shapes that the other tests make up are not the published ones"


GOLDEN = {"sdtv2_15m": "meta_spikeformer_15m", "spikingformer_cifar10_4_384": "spikingformer_cifar_4_384"}


@pytest.mark.parametrize("file", GOLDEN)
def test_logits_agree_with_the_authors_code(file):
    script, data = SHARED / "golden" / "check_golden.py", SHARED / "golden" / f"{file}.npz"
    if not (script.is_file() and data.is_file()):
        pytest.skip("the authors' logits are not part of the repository")
    spec = importlib.util.spec_from_file_location("check_golden", script)
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    assert golden.difference(data, GOLDEN[file]) < 1e-9


# small models of both families, and published files that fit them

META = dict(dims=(16, 24, 32, 48), depths=(1, 1, 2, 2, 1), num_heads=4, num_classes=5, time_steps=2)
META_SHAPES = meta_spikeformer_shapes(META["dims"], classes=5, depths=(2, 1))
SPIKINGFORMER = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5, time_steps=2)
SPIKINGFORMER_SHAPES = spikingformer_shapes(32, 2, 5)
SMALL = {
    "meta": ("meta_spikeformer_15m", META, META_SHAPES),
    "spikingformer": ("spikingformer_8_384", SPIKINGFORMER, SPIKINGFORMER_SHAPES),
}

# published name -> ours, written out once more, for each kind of parameter
PLACES = {
    "meta": {
        "downsample1_1.encode_conv.weight": "stem.conv.weight",
        "downsample1_2.encode_bn.running_mean": "stages.1.downsample.conv_bn.bn.running_mean",
        "downsample2.encode_conv.bias": "stages.2.downsample.conv_bn.conv.bias",
        "downsample4.encode_conv.weight": "stages.4.downsample.conv_bn.conv.weight",
        "ConvBlock1_1.0.Conv.pwconv1.weight": "stages.0.blocks.0.sep_conv.branch.expand.conv.weight",
        "ConvBlock1_2.0.Conv.bn1.bias": "stages.1.blocks.0.sep_conv.branch.expand.bn.bias",
        "ConvBlock2_1.0.Conv.dwconv.weight": "stages.2.blocks.0.sep_conv.branch.depthwise.weight",
        "ConvBlock2_2.0.Conv.pwconv2.weight": "stages.2.blocks.1.sep_conv.branch.project.conv.weight",
        "ConvBlock2_2.0.Conv.bn2.running_var": "stages.2.blocks.1.sep_conv.branch.project.bn.running_var",
        "ConvBlock2_1.0.conv1.weight": "stages.2.blocks.0.channel_conv.branch.fc1.conv.weight",
        "ConvBlock2_2.0.bn2.weight": "stages.2.blocks.1.channel_conv.branch.fc2.bn.weight",
        "block3.1.attn.q_conv.0.body.0.weight": "stages.3.blocks.1.attention.branch.q.expand.weight",
        "block3.0.attn.k_conv.0.body.1.bn.bias": "stages.3.blocks.0.attention.branch.k.expand_bn.bias",
        "block3.1.attn.v_conv.0.body.2.0.weight": "stages.3.blocks.1.attention.branch.v.depthwise.weight",
        "block4.0.attn.proj_conv.0.body.2.1.weight": "stages.4.blocks.0.attention.branch.proj.project.weight",
        "block4.0.attn.q_conv.0.body.2.2.weight": "stages.4.blocks.0.attention.branch.q.project_bn.weight",
        "block4.0.attn.k_conv.1.running_mean": "stages.4.blocks.0.attention.branch.k.bn.running_mean",
        "block3.1.mlp.fc1_conv.weight": "stages.3.blocks.1.mlp.branch.fc1.conv.weight",
        "block3.1.mlp.fc2_conv.bias": "stages.3.blocks.1.mlp.branch.fc2.conv.bias",
        "block4.0.mlp.fc2_bn.num_batches_tracked": "stages.4.blocks.0.mlp.branch.fc2.bn.num_batches_tracked",
        "head.weight": "head.weight",
        "head.bias": "head.bias",
    },
    "spikingformer": {
        "patch_embed.proj_conv.weight": "stem.conv.weight",
        "patch_embed.proj_bn.running_var": "stem.bn.running_var",
        "patch_embed.proj1_conv.weight": "tokenizer.0.conv_bn.conv.weight",
        "patch_embed.proj2_bn.bias": "tokenizer.1.conv_bn.bn.bias",
        "patch_embed.proj3_bn.weight": "tokenizer.2.conv_bn.bn.weight",
        "patch_embed.proj4_conv.weight": "tokenizer.3.conv_bn.conv.weight",
        "block.0.attn.q_conv.weight": "stages.0.attention.branch.q.conv.weight",
        "block.1.attn.k_bn.running_mean": "stages.1.attention.branch.k.bn.running_mean",
        "block.1.attn.v_conv.weight": "stages.1.attention.branch.v.conv.weight",
        "block.1.attn.proj_conv.bias": "stages.1.attention.branch.proj.conv.bias",
        "block.0.mlp.mlp1_conv.weight": "stages.0.mlp.branch.fc1.conv.weight",
        "block.1.mlp.mlp2_bn.weight": "stages.1.mlp.branch.fc2.bn.weight",
        "head.weight": "head.weight",
    },
}


def small(family, **kwargs):
    """(model, a published state dict that fits it)"""
    name, options, shapes = SMALL[family]
    return spikeformers.create_model(name, **{**options, **kwargs}), filled(shapes)


@pytest.mark.parametrize("family", SMALL)
def test_values_land_where_they_belong(family):
    model, published = small(family)
    spikeformers.load_published(model, published)
    own = model.state_dict()
    for theirs, ours in PLACES[family].items():
        assert_close(own[ours], published[theirs].reshape(own[ours].shape), rtol=0, atol=0, msg=f"{theirs} -> {ours}")
    # all the rest: each published tensor is somewhere, and nothing of the initialisation is left
    sums = sorted(value.double().sum().item() for value in own.values())
    used = [value for name, value in published.items() if not re.search(r"\.norm[12]\.", name)]
    assert sums == pytest.approx(sorted(value.double().sum().item() for value in used), abs=1e-6)


def test_old_names_are_the_same_model():
    shapes = spikingformer_shapes(32, 2, 5, tokenizer="old")
    first, published = small("spikingformer")
    second, _ = small("spikingformer")
    assert len(shapes) == len(published)
    spikeformers.load_published(first, published)
    spikeformers.load_published(second, dict(zip(shapes, published.values(), strict=True)))
    assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_cifar_names_are_the_same_model():
    shapes = spikingformer_shapes(32, 2, 5, tokenizer="block")
    first, published = small("spikingformer")
    second, _ = small("spikingformer")
    spikeformers.load_published(first, published)
    spikeformers.load_published(second, dict(zip(shapes, published.values(), strict=True)))
    assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("family", SMALL)
def test_the_models_dtype_is_kept(family):
    model, published = small(family)
    spikeformers.load_published(model.double(), published)
    assert model.head.weight.dtype == torch.float64
    assert_close(model.head.weight, published["head.weight"].double(), rtol=0, atol=0)


# files and wrappers


def loaded_head(checkpoint, **kwargs):
    model, _ = small("meta", **kwargs)
    report = spikeformers.load_published(model, checkpoint)
    return model.state_dict()["head.weight"], report


def test_wrapped_files(tmp_path):
    _, published = small("meta")
    want = published["head.weight"]
    parallel = {f"module.{key}": value for key, value in published.items()}
    trainer = argparse.Namespace(lr=2.4e-3, model="metaspikformer_8_512", output_dir=None)
    wrappers = {
        "bare.pth": published,
        "model.pth": {"model": published, "epoch": 199, "args": trainer, "optimizer": {"state": {}}},
        "module.pth": {"state_dict": parallel, "epoch": 3},
        "both.tar": {"model": parallel},
    }
    for file, content in wrappers.items():
        torch.save(content, tmp_path / file)
        assert_close(loaded_head(tmp_path / file)[0], want, rtol=0, atol=0)
        assert_close(loaded_head(str(tmp_path / file))[0], want, rtol=0, atol=0)
    safetensors.torch.save_file(published, tmp_path / "weights.safetensors")
    assert_close(loaded_head(tmp_path / "weights.safetensors")[0], want, rtol=0, atol=0)
    assert_close(loaded_head({"model": parallel})[0], want, rtol=0, atol=0)


def test_our_own_names_are_understood_too(tmp_path):
    model, published = small("spikingformer")
    spikeformers.load_published(model, published)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    other, _ = small("spikingformer")
    assert spikeformers.load_published(other, tmp_path / "own.pt").problems() == []
    assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


class Malicious:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "it ran"
    _, published = small("meta")
    torch.save({"model": published, "extra": Malicious(trace)}, tmp_path / "zip.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"model": Malicious(trace)}, protocol=2))
    for file in ("zip.pth", "pickle.pth"):
        with pytest.raises(
            ValueError, match=rf"{file} cannot be read as weights alone: .* Python object getattr.*Where you trust"
        ):
            loaded_head(tmp_path / file)
        assert not trace.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert trace.exists(), "the file is harmless, so it proves nothing"


def test_files_that_are_no_checkpoints(tmp_path):
    _, published = small("meta")
    torch.save(published, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("404: not found")
    (tmp_path / "cut.safetensors").write_bytes(safetensors.torch.save(published)[:1000])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty_dict.pth")
    for file, message in {
        "truncated.pth": "truncated.pth is cut off or damaged",
        "empty.pth": "empty.pth is empty",
        "text.pth": "text.pth is no checkpoint .*; it begins with '404: not found'",
        "cut.safetensors": "cut.safetensors is damaged, or cut off",
        "list.pth": "holds a list, not a state dict",
        "empty_dict.pth": "no tensors in the checkpoint; its entries are epoch",
        "absent.pth": "there is no checkpoint .*absent.pth",
    }.items():
        with pytest.raises(ValueError, match=message):
            loaded_head(tmp_path / file)


# what does not fit


def error_of(model, published):
    with pytest.raises(ValueError) as error:
        spikeformers.load_published(model, published)
    return str(error.value)


def test_errors_say_what_to_do():
    model, published = small("meta", num_classes=7)
    message = error_of(model, published)
    assert "shape: head.weight is [5, 48], the model has [7, 48]" in message
    assert "the checkpoint has 5 classes: create the model with num_classes=5" in message

    model, published = small("meta", distillation=True)
    message = error_of(model, published)
    assert "in the model only: head_kd.weight" in message and "strict=False" in message

    model, published = small("spikingformer")
    message = error_of(model, {key: value for key, value in published.items() if key != "block.1.attn.q_bn.bias"})
    assert "in the model only: stages.1.attention.branch.q.bn.bias" in message

    message = error_of(model, {**published, "block.0.attn.extra": torch.zeros(1)})
    assert "in the checkpoint only: block.0.attn.extra" in message

    model, _ = small("spikingformer", embed_dim=64)
    message = error_of(model, published)
    assert "shape: patch_embed.proj_conv.weight is [4, 3, 3, 3], the model has [8, 3, 3, 3]" in message
    assert re.search(r"and \d+ more", message) and message.count("\n") < 30


def test_a_distillation_head_in_the_checkpoint_is_adopted_and_said(tmp_path):
    model, _ = small("meta")
    published = filled(meta_spikeformer_shapes(META["dims"], classes=5, depths=(2, 1), distillation=True))
    report = spikeformers.load_published(model.double(), published)
    assert "distillation head" in str(report) and model.head_kd.weight.dtype == torch.float64
    assert_close(model.head_kd.weight.float(), published["head_kd.weight"], rtol=0, atol=0)
    spikeformers.save_model(model, tmp_path / "two_heads.safetensors")
    assert spikeformers.create_model(checkpoint=tmp_path / "two_heads.safetensors").distillation


def test_a_model_stays_as_it_was_when_the_checkpoint_does_not_fit():
    model, _ = small("meta")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    published = filled(meta_spikeformer_shapes(META["dims"], classes=5, depths=(2, 1), distillation=True))
    del published["head.bias"]
    error_of(model, published)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_names_that_spikformer_shares_are_pointed_out():
    model, published = small("spikingformer")
    assert "Spikformer" not in str(spikeformers.load_published(model, published))
    old = {key.replace("proj4_", "rpe_"): value for key, value in published.items()}
    assert "make sure that this is a Spikingformer" in str(spikeformers.load_published(model, old))


def test_weights_of_the_other_family_do_not_fit():
    meta, meta_weights = small("meta")
    spikingformer, spikingformer_weights = small("spikingformer")
    assert "does not fit this MetaSpikeFormer" in error_of(meta, spikingformer_weights)
    assert "does not fit this Spikingformer" in error_of(spikingformer, meta_weights)
    with pytest.raises(ValueError, match="no published naming scheme is known for Linear"):
        spikeformers.load_published(torch.nn.Linear(2, 2), meta_weights)


def test_not_strict_loads_what_fits_and_reports_the_rest():
    model, published = small("meta", num_classes=7)
    before = model.head.weight.clone()
    del published["block3.0.mlp.fc1_bn.bias"]
    published["surplus.weight"] = torch.zeros(3)
    report = spikeformers.load_published(model, published, strict=False)
    assert report.missing == ["stages.3.blocks.0.mlp.branch.fc1.bn.bias"]
    assert report.unexpected == ["surplus.weight"]
    assert len(report.mismatched) == 2 and "head.weight is [5, 48], the model has [7, 48]" in report.mismatched
    assert report.loaded == len(model.state_dict()) - 3
    assert_close(model.head.weight, before, rtol=0, atol=0)
    assert_close(model.stem.conv.weight.detach(), published["downsample1_1.encode_conv.weight"], rtol=0, atol=0)
    text = str(report)
    assert f"{report.loaded} tensors loaded" in text
    for line in report.problems():
        assert line in text


@pytest.mark.parametrize("family", SMALL)
def test_a_failed_strict_load_leaves_the_model_alone(family):
    model, published = small(family, num_classes=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    error_of(model, published)
    assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_the_report_names_what_no_weight_reveals():
    model, published = small("spikingformer", num_heads=8, time_steps=6, tau=1.5, cml=True)
    report = spikeformers.load_published(model, published)
    assert {"time_steps": 6, "num_heads": 8, "tau": 1.5, "cml": True}.items() <= report.not_in_weights.items()
    assert re.search(r"check them\): time_steps=6, num_heads=8, tau=1.5, cml=True", str(report))
    model, published = small("meta")
    report = spikeformers.load_published(model, published)
    assert {"time_steps": 2, "num_heads": 4}.items() <= report.not_in_weights.items()


# for good


@pytest.mark.parametrize("family", SMALL)
def test_import_then_create_gives_the_same_model(family, tmp_path):
    model, published = small(family)
    name, options, _ = SMALL[family]
    torch.save({"model": published}, tmp_path / "theirs.pth")
    given = {key: value for key, value in options.items() if key != "num_classes"}  # the weights reveal it
    report = import_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", name, **given)
    assert report.problems() == [] and report.not_in_weights["num_heads"] == 4
    spikeformers.load_published(model, published)
    created = spikeformers.create_model(checkpoint=tmp_path / "ours.safetensors")
    assert created.num_classes == 5 and created.time_steps == 2
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = model.eval()(x)
        assert_close(created.eval()(x), want, rtol=0, atol=0)
        assert_close(
            spikeformers.create_model(name, checkpoint=tmp_path / "ours.safetensors").eval()(x), want, rtol=0, atol=0
        )
        longer = spikeformers.create_model(checkpoint=str(tmp_path / "ours.safetensors"), time_steps=3).eval()
        assert longer.time_steps == 3 and longer(x, per_step=True).shape == (3, 2, 5)


def test_import_reads_channels_and_second_head_off_the_weights(tmp_path):
    shapes = meta_spikeformer_shapes(META["dims"], classes=5, depths=(2, 1), distillation=True, in_chans=2)
    torch.save(filled(shapes), tmp_path / "theirs.pth")
    given = {key: value for key, value in META.items() if key != "num_classes"}
    import_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "meta_spikeformer_15m", **given)
    model = spikeformers.create_model(checkpoint=tmp_path / "ours.safetensors")
    assert model.in_chans == 2 and model.distillation and model.num_classes == 5


def test_a_failed_import_writes_nothing(tmp_path):
    _, published = small("meta")
    torch.save(published, tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="does not fit this MetaSpikeFormer"):
        import_checkpoint(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", "meta_spikeformer_cifar")
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.pth"]


def test_saving_writes_weights_and_configuration(tmp_path):
    model, published = small("spikingformer")
    spikeformers.load_published(model, published)
    model.reset_classifier(9)
    spikeformers.save_model(model, tmp_path / "new" / "model.safetensors")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["model.json", "model.safetensors"]
    config = json.loads((tmp_path / "new" / "model.json").read_text())
    assert config["architecture"] == "spikingformer_8_384"
    assert (config["num_classes"], config["time_steps"], config["embed_dim"], config["num_heads"]) == (9, 2, 32, 4)
    again = spikeformers.create_model(checkpoint=tmp_path / "new" / "model.safetensors")
    assert again.num_classes == 9
    assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    spikeformers.save_model(again, tmp_path / "twice.safetensors")
    assert json.loads((tmp_path / "twice.json").read_text()) == config


def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    model, published = small("spikingformer")
    spikeformers.save_model(model, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    spikeformers.load_published(model, published)

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        spikeformers.save_model(model, path)
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    spikeformers.save_model(model, path)
    assert path.read_bytes() != before["model.safetensors"]


def test_checkpoint_errors(tmp_path):
    path = tmp_path / "model.safetensors"
    model, _ = small("spikingformer")
    with pytest.raises(ValueError, match="must end in .safetensors, not 'model.pth'"):
        spikeformers.save_model(model, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="carries no configuration; make it with create_model"):
        spikeformers.save_model(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="published weights are converted with: spikeformers import"):
        spikeformers.create_model(checkpoint=tmp_path / "theirs.pth")
    with pytest.raises(ValueError, match="there is no file .*model.safetensors"):
        spikeformers.create_model(checkpoint=path)
    spikeformers.save_model(model, path)
    with pytest.raises(ValueError, match="holds a spikingformer_8_384, not a meta_spikeformer_15m"):
        spikeformers.create_model("meta_spikeformer_15m", checkpoint=path)
    with pytest.raises(ValueError, match=r"does not fit .*\n.*head.bias: \[5\] in the file, \[6\] in the model"):
        spikeformers.create_model(checkpoint=path, num_classes=6)
    with pytest.raises(ValueError, match="no option 'colour'"):
        spikeformers.create_model(checkpoint=path, colour="red")
    configuration = path.with_suffix(".json")
    configuration.write_text("{}")
    with pytest.raises(ValueError, match="names no architecture"):
        spikeformers.create_model(checkpoint=path)
    configuration.write_text("{broken")
    with pytest.raises(ValueError, match=r"\.json .*damaged"):
        spikeformers.create_model(checkpoint=path)
    configuration.unlink()
    with pytest.raises(ValueError, match="there is no file .*model.json"):
        spikeformers.create_model(checkpoint=path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    model, _ = small("spikingformer")
    spikeformers.save_model(model, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="model.safetensors"):
        spikeformers.create_model(checkpoint=path)


def test_import_finds_the_only_model_that_fits_and_says_so(tmp_path):
    torch.save(filled(spikingformer_shapes(384, 2, 7, tokenizer="block")), tmp_path / "cifar.pth")
    report = import_checkpoint(tmp_path / "cifar.pth", tmp_path / "cifar.safetensors", time_steps=2)
    assert "fit spikingformer_cifar_2_384 and no other model" in str(report)
    model = spikeformers.create_model(checkpoint=tmp_path / "cifar.safetensors")
    assert (model.num_classes, model.time_steps, model.num_heads) == (7, 2, 12)


def test_import_asks_where_several_models_fit_or_none(tmp_path):
    torch.save(filled(spikingformer_shapes(256, 2, 11, in_chans=2)), tmp_path / "dvs.pth")
    with pytest.raises(ValueError, match="spikingformer_cifar_2_256, spikingformer_dvs_2_256; name it"):
        import_checkpoint(tmp_path / "dvs.pth", tmp_path / "out.safetensors")
    torch.save(filled(spikingformer_shapes(32, 2, 5)), tmp_path / "none.pth")
    with pytest.raises(ValueError, match="none fits"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
