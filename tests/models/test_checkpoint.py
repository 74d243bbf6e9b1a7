"""Models on disk: what is written can be read, says how its input is made, and damaged or hostile files are named and do nothing."""

import io
import json
import os
import random
import resource
import time
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.utils.prune
from timm.data import resolve_model_data_config
from torch import nn
from torch.testing import assert_close

import spikeformers
from spikeformers.models import import_checkpoint, load_published, save_model
from spikeformers.training.parallel import synchronise_norms

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


# what is written can be read


class Parallel(nn.Module):
    """Wraps a model as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        lambda model: Parallel(torch.compile(model, backend="eager")),
        lambda model: torch.compile(Parallel(model), backend="eager"),
        torch.optim.swa_utils.AveragedModel,
    ],
    ids=["compiled", "DDP of compiled", "compiled DDP", "averaged"],
)
def test_wrappers_are_taken_off(wrap, tmp_path):
    model = tiny()
    save_model(wrap(model), tmp_path / "m.safetensors")
    assert_close(spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(), model.state_dict(), rtol=0, atol=0)


def test_wrappers_inside_are_taken_off(tmp_path):
    model, plain = tiny(), tiny()
    model.stages[0] = torch.compile(model.stages[0], backend="eager")
    save_model(model, tmp_path / "m.safetensors")
    assert_close(spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(), plain.state_dict(), rtol=0, atol=0)


def other_head(model):
    model.head = nn.Linear(model.num_features, 5)


def deep_head(model):
    model.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(model.num_features, 10))


def pruned(model):
    torch.nn.utils.prune.l1_unstructured(model.stem.conv, "weight", 0.5)


def parametrised(model):
    nn.utils.parametrizations.weight_norm(model.stem.conv)


def hooked(model):
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.stem.conv)


def slower_neurons(model):
    model.tokenizer[0].lif.tau = 3.0


def silent_head(model):
    model.head_lif = nn.ReLU()


def lost(model):
    model.head.weight.data[0, 0] = float("nan")


def other_eps(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1


def listened(model):
    model.head.register_forward_hook(lambda module, inputs, output: 2 * output)


def replaced_forward(model):
    model.head.forward = lambda x: x


class Doubled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


class DoubledNorm(nn.BatchNorm2d):
    def forward(self, input):
        return 2 * super().forward(input)


def other_linear(model):
    model.head.__class__ = Doubled


def other_norm(model):
    next(module for module in model.modules() if type(module) is nn.BatchNorm2d).__class__ = DoubledNorm


def fewer_stages(model):
    model.prune_intermediate_layers([0], prune_head=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_head, r"head.weight: \[5, 16\] in the model, \[10, 16\] in the configuration.*reset_classifier"),
        (deep_head, r"head.1.weight: \[10, 16\] in the model, missing in the configuration.*reset_classifier"),
        (pruned, r"stem.conv.weight_mask.*prune.remove"),
        (parametrised, "stem.conv.parametrizations.*remove_parametrizations"),
        (hooked, "stem.conv.weight_g.*remove_weight_norm"),
        (slower_neurons, r"tokenizer.0.lif: LIF\(tau=3.0.*\(tau=2.0"),
        (silent_head, "head_lif: ReLU in the model, Identity in the configuration"),
        (lost, "head.weight has 1 values of 160 that are NaN or infinite"),
        (other_eps, "BatchNorm2d with eps=0.1 in the model, eps=1e-05 in the configuration"),
        (listened, "head: forward hook .*lambda"),
        (replaced_forward, "head: its forward method, which was replaced"),
        (other_linear, "head: Doubled in the model, Linear in the configuration"),
        (other_norm, "DoubledNorm in the model, BatchNorm2d in the configuration"),
        (fewer_stages, "stages.1.attention.*: missing in the model"),
    ],
)
def test_a_model_that_nobody_could_read_back_is_not_written(change, message, tmp_path):
    model = tiny(depth=2)
    save_model(model, tmp_path / "m.safetensors")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    change(model)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        save_model(model, tmp_path / "m.safetensors")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_does_not_change_the_model_is_no_hindrance(tmp_path):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(tiny())
    model.compile(backend="eager")
    for module in model.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.momentum = 0.5
    save_model(model, tmp_path / "m.safetensors")
    assert_close(spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(), model.state_dict(), rtol=0, atol=0)
    save_model(synchronise_norms(tiny()), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="a model is saved, made by create_model, not"):
        save_model(torch.relu, tmp_path / "m.safetensors")


def test_what_methods_change_is_written(tmp_path):
    model = tiny(depth=2)
    model.reset_classifier(3)
    model.time_steps = 7
    model.set_schedule([4, 2])
    model.eval()
    model.half()
    state = torch.random.get_rng_state()
    save_model(model, tmp_path / "m.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)
    again = spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")
    assert (again.num_classes, again.schedule) == (3, [4, 2]) and again.head.weight.dtype == torch.float32
    assert_close(again.head.weight.half(), model.head.weight)
    model.float().reset_classifier(0, "")
    save_model(model, tmp_path / "map.safetensors")
    assert spikeformers.create_model(checkpoint=tmp_path / "map.safetensors").global_pool == ""


def test_a_disk_that_changes_what_is_written_is_noticed(tmp_path, monkeypatch):
    real = safetensors.torch.save
    monkeypatch.setattr(safetensors.torch, "save", lambda state, metadata=None: real({k: v + 1 for k, v in state.items()}, metadata))
    with pytest.raises(OSError, match="reads back with other values"):
        save_model(tiny(), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# what a checkpoint knows of its input is what the model says

DIGITS = {"name": "digits", "img_size": 16, "channels": 1, "mean": [0.3], "std": [0.4], "crop_pct": 0.9, "interpolation": "bilinear"}
EVENTS = {"name": "nmnist", "time_steps": 4, "split_by": "number", "img_size": None, "sensor": [40, 30]}


def saved(path, model, data, classes=None):
    save_model(model, path, {"spikeformers": json.dumps({"data": data, "classes": classes})})
    return spikeformers.create_model(checkpoint=path)


def test_a_run_of_images_is_what_timm_resolves(tmp_path):
    names = [f"digit {i}" for i in range(10)]
    model = saved(tmp_path / "digits.safetensors", tiny(in_chans=1), DIGITS, names)
    want = {"input_size": (1, 16, 16), "mean": (0.3,), "std": (0.4,), "crop_pct": 0.9, "interpolation": "bilinear", "crop_mode": "center"}
    assert resolve_model_data_config(model) == want and model.pretrained_cfg["label_names"] == tuple(names)
    save_model(model, tmp_path / "again.safetensors")
    again = spikeformers.create_model(checkpoint=tmp_path / "again.safetensors")
    assert resolve_model_data_config(again) == want and again.pretrained_cfg["label_names"] == tuple(names)
    detector = spikeformers.create_model("semantic_fpn", backbone=again, num_classes=3)
    assert resolve_model_data_config(detector)["mean"] == (0.3,)


def test_a_run_of_events_is_what_timm_resolves(tmp_path):
    found = resolve_model_data_config(saved(tmp_path / "events.safetensors", tiny(in_chans=2), EVENTS))
    assert (found["input_size"], found["mean"], found["std"], found["crop_pct"]) == ((2, 30, 40), (0, 0), (1, 1), 1.0)


def test_dense_runs_are_what_timm_resolves(tmp_path):
    small = {"backbone": "spikingformer_cifar_2_256", "backbone_kwargs": {**TINY, "num_classes": 0}, "num_classes": 3, "width": 8}
    data = {"name": "masks", "img_size": 96, "size": [128, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    segmenter = saved(tmp_path / "s.safetensors", spikeformers.create_model("semantic_fpn", **small), data, ["a", "b", "c"])
    found = resolve_model_data_config(segmenter)
    assert (found["input_size"], found["mean"]) == ((3, 96, 96), (0.1, 0.2, 0.3))
    assert segmenter.pretrained_cfg["label_names"] == ("a", "b", "c")
    detector = spikeformers.create_model("faster_rcnn", **small, min_size=64, max_size=96)
    detector = saved(tmp_path / "d.safetensors", detector, {"name": "coco", "masks": True}, ["a", "b"])
    found = resolve_model_data_config(detector)  # it normalises and resizes by itself
    assert (found["input_size"], found["mean"], found["std"]) == ((3, 64, 96), (0, 0, 0), (1, 1, 1))
    assert detector.pretrained_cfg["label_names"] == ("a", "b")


def test_a_model_of_other_channels_says_so():
    assert resolve_model_data_config(tiny(in_chans=1))["input_size"] == (1, 32, 32) and len(tiny(in_chans=1).pretrained_cfg["mean"]) == 1
    model = timm.create_model("spiking_vgg9", width=0.125, img_size=(32, 64), in_chans=3)
    assert resolve_model_data_config(model)["input_size"] == (3, 32, 64)
    assert resolve_model_data_config(tiny())["input_size"] == (3, 32, 32)


# checkpoints as people have them


def theirs(**given):
    return tiny(**given).state_dict()


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefixes", [("_orig_mod.",), ("module.",), ("_orig_mod.", "module."), ("module.", "_orig_mod.", "model."), ("model.", "module.", "_orig_mod.")], ids=str
)
@pytest.mark.parametrize("container", [None, "model", "state_dict", "model_state_dict"])
def test_prefixes_of_wrappers(prefixes, container):
    state = theirs()
    wrapped = prefixed("".join(prefixes), state)
    content = {container: wrapped, "epoch": 3, "optimizer": {"state": {0: torch.zeros(3)}}} if container else wrapped
    assert load_published(tiny(), content).loaded == len(state)


def test_compiled_parts_inside():
    state = {name.replace("stages.0.", "stages.0._orig_mod."): value for name, value in theirs().items()}
    assert load_published(tiny(), state).problems() == []


def test_averaged_models_are_said():
    report = load_published(tiny(), {**prefixed("module.", theirs()), "n_averaged": torch.tensor(5)})
    assert "these weights are the average of 5 models" in str(report)


@pytest.mark.parametrize(
    "build",
    [
        lambda raw, mean: {"model": raw, "model_ema": mean},
        lambda raw, mean: {"state_dict": raw, "state_dict_ema": prefixed("module.", mean)},
        lambda raw, mean: {"net": raw, "ema": {"module": mean, "decay": 0.9}},
        lambda raw, mean: {"state_dict": {**prefixed("model.", raw), **prefixed("ema.module.", mean)}},
        lambda raw, mean: {"model": raw, "ema": {"shadow": mean, "decay": torch.tensor(0.9)}},
        lambda raw, mean: {"model_state": raw, "swa_model": {**prefixed("module.", mean), "n_averaged": torch.tensor(3)}},
        lambda raw, mean: {"model": raw, "averaged_model": mean},
        lambda raw, mean: {"model": raw, "ema_weights": mean},
        lambda raw, mean: {"model": raw, "shadow_params": mean},
        lambda raw, mean: {"student": raw, "teacher": prefixed("module.", mean)},
    ],
    ids=["model_ema", "state_dict_ema", "ema.module", "names", "shadow", "swa_model", "averaged_model", "ema_weights", "shadow_params", "teacher"],
)
def test_averaged_or_last_weights_can_be_chosen_and_are_said(build):
    raw, mean = theirs(), {name: value + 1 for name, value in theirs().items()}
    content = build(raw, mean)
    for ema, want, words in ((None, mean, "averages over training"), (True, mean, "averages over training"), (False, raw, "not averaged")):
        model = tiny()
        report = load_published(model, content, ema=ema)
        assert words in str(report) and report.problems() == []
        assert_close(model.head.weight.detach(), want["head.weight"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="no averaged weights, which ema=True asks for"):
        load_published(tiny(), {"model": raw}, ema=True)


def test_averages_without_names_are_said():
    content = {"model": theirs(), "ema": {"decay": 0.9, "shadow_params": list(theirs().values())}}
    assert "not averaged: averages over training in it are a list" in str(load_published(tiny(), content))
    with pytest.raises(ValueError, match="no averaged weights by name"):
        load_published(tiny(), content, ema=True)


def test_a_teacher_of_another_shape_is_not_taken():
    report = load_published(tiny(), {"student": theirs(), "teacher": {"layer.weight": torch.ones(2, 2)}})
    assert report.problems() == [] and "the student's; the teacher beside it is another network" in str(report)


def test_counters_of_a_profiler_are_left_out():
    counted = {f"{place}{name}": torch.zeros(1) for place in ("", "head.", "blocks.0.") for name in ("total_ops", "total_params")}
    report = load_published(tiny(), {"model": {**prefixed("module.", theirs()), **prefixed("module.", counted)}})
    assert report.problems() == [] and "6 counters of a profiler" in str(report)


def test_a_trainers_own_weights_are_left_out_and_said():
    content = {"state_dict": {**prefixed("model.", theirs()), "criterion.weight": torch.ones(10)}}
    report = load_published(tiny(), content)
    assert "left out" in str(report) and "criterion.weight" in str(report)


def test_names_of_the_checkpoint_are_shown_beside_the_models():
    with pytest.raises(ValueError) as error:
        load_published(tiny(), prefixed("student.backbone.", theirs()))
    assert "in the checkpoint only: student.backbone." in str(error.value) and "in the model only: head.weight" in str(error.value)


def test_numbers_of_numpy_are_plain_data(tmp_path):
    extra = {"metric": np.float64(77.2), "best": np.int32(3), "flag": np.bool_(True), "rng": np.random.get_state(), "array": np.zeros((2, 3), "f4")}
    torch.save({"state_dict": theirs(), **extra}, tmp_path / "numpy.pth")
    assert load_published(tiny(), tmp_path / "numpy.pth").problems() == []
    content = spikeformers.models._reading.read_state_dict(tmp_path / "numpy.pth")
    assert (content["metric"], content["best"], content["flag"]) == (77.2, 3, True)
    assert "numpy" not in str(torch.serialization.get_safe_globals())


class History:
    """An object of a trainer."""


def test_the_object_that_is_refused_is_named(tmp_path):
    torch.save({"state_dict": theirs(), "history": History()}, tmp_path / "object.pth")
    with pytest.raises(ValueError) as error:
        load_published(tiny(), tmp_path / "object.pth")
    text = str(error.value)
    assert "object.pth" in text and "test_checkpoint.History" in text
    assert "\x1b" not in text and "weights_only" not in text and "\n" not in text


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><title>Quota exceeded</title></html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (POINTER, "a pointer of Git LFS"),
        (b'{"error": "Repository not found"}', "the answer of a server"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "gzip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
    ],
    ids=["page", "upper case", "pointer", "server", "empty", "gzip", "hdf5"],
)
def test_files_that_are_something_else_are_named(content, words, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps({"architecture": "spikingformer_cifar_2_256", **TINY}))
    readers = [lambda: load_published(tiny(), path), lambda: import_checkpoint(path, tmp_path / "out.safetensors")]
    for read in readers + [lambda: spikeformers.create_model(checkpoint=path)] * (suffix == ".safetensors"):
        with pytest.raises(ValueError, match=f"{path.name}.*{words}|{path.name} {words}"):
            read()


def test_checkpoints_in_several_files(tmp_path):
    state = theirs()
    names = sorted(state)
    halves = {"model-00001-of-00002": names[: len(names) // 2], "model-00002-of-00002": names[len(names) // 2 :]}
    for kind in ("safetensors", "bin"):
        folder = tmp_path / kind
        folder.mkdir()
        for part, own in halves.items():
            write = safetensors.torch.save_file if kind == "safetensors" else torch.save
            write({name: state[name] for name in own}, folder / f"{part}.{kind}")
        index = {"metadata": {}, "weight_map": {name: f"{part}.{kind}" for part, own in halves.items() for name in own}}
        (folder / f"model.{kind}.index.json").write_text(json.dumps(index))
        for path in (folder, folder / f"model.{kind}.index.json"):
            assert load_published(tiny(), path).loaded == len(state)
        with pytest.raises(ValueError, match="part 1 of 2 .* give the folder, or the .index.json"):
            load_published(tiny(), folder / f"model-00001-of-00002.{kind}")
    (folder / "model-00002-of-00002.bin").unlink()
    with pytest.raises(ValueError, match="not beside it: model-00002-of-00002.bin"):
        load_published(tiny(), folder)
    index["weight_map"]["head.bias"] = "../safetensors/model-00001-of-00002.safetensors"
    (folder / "model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is no file beside it"):
        load_published(tiny(), folder)


def test_half_precision_is_loaded_and_what_is_no_weight_named(tmp_path):
    state, path = theirs(), tmp_path / "m.safetensors"
    save_model(tiny(), path)
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    safetensors.torch.save_file(half, path)
    model = spikeformers.create_model(checkpoint=path)
    assert model.head.weight.dtype == torch.float32
    assert_close(model.head.weight.detach(), half["head.weight"].float(), rtol=0, atol=0)
    assert load_published(tiny(), path).problems() == []
    weight = state["head.weight"]
    nan = weight.clone()
    nan[0, :3] = float("nan")
    for value, words in (
        (weight.to(torch.float8_e4m3fn), "head.weight is of float8_e4m3fn"),
        (weight.to(torch.int8), "head.weight is of int8"),
        (nan, "head.weight has 3 values of 160 that are NaN or infinite"),
    ):
        safetensors.torch.save_file({**state, "head.weight": value}, path)
        for read in (lambda: spikeformers.create_model(checkpoint=path), lambda: load_published(tiny(), path)):
            with pytest.raises(ValueError, match=words):
                read()
        report = load_published(tiny(), path, strict=False)
        assert report.loaded == len(state) - 1 and words in str(report)


# hostile files


class Repeated:
    """A tensor of a few bytes that claims to be large."""

    def __init__(self, *size):
        self.size = size

    def __reduce_ex__(self, protocol):
        storage = torch.storage.TypedStorage(wrap_storage=torch.ones(1).untyped_storage(), dtype=torch.float32, _internal=True)
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, (0,) * len(self.size), False, OrderedDict())


def test_small_files_that_stand_for_gigabytes(tmp_path):
    torch.save({**theirs(), "head.weight": Repeated(10**9, 16)}, tmp_path / "repeated.pth")
    with zipfile.ZipFile(tmp_path / "zeros.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    for file, words in (("repeated.pth", "claims 16,000,000,000 values"), ("zeros.pth", "compressed archive")):
        for read in (lambda path: load_published(tiny(), path), lambda path: import_checkpoint(path, tmp_path / "o.safetensors")):
            with pytest.raises(ValueError, match=words):
                read(tmp_path / file)


HOSTILE = [
    ({"embed_dim": 10**9}, "no model can be made|in the file"),
    ({"embed_dim": 8 * 10**30}, "embed_dim must be at most"),
    ({"depth": 10**6}, "it says 1,000,000 blocks"),
    ({"time_steps": 10**9}, "time_steps must be at most 10,000"),
    ({"num_heads": "2"}, "num_heads must be a whole number, not '2'"),
    ({"pools": {"a": 1}}, "pools must be a list"),
    ({"tau": float("nan")}, "tau must be a finite number"),
    ({"schedule": [10**4, 1]}, "schedule"),
    ({"colour": 1}, "no option 'colour'"),
    ({"pretrained": True}, "has the entries pretrained"),
    ({"checkpoint": "/etc/passwd"}, "has the entries checkpoint"),
    ({"architecture": ["mask_rcnn"]}, "names no architecture"),
    ({"architecture": "hf-hub:someone/model"}, "unknown model"),
    ({"architecture": "mask_rcnn", "backbone": "hf-hub:someone/model"}, "m.json"),
    ({"architecture": "semantic_fpn", "backbone": "spiking_vgg9", "backbone_kwargs": {"checkpoint": "x"}}, "m.json"),
    ({"pretrained_cfg": {"mean": "none"}}, "mean must be a list of numbers"),
    ({"pretrained_cfg": {"input_size": [3, 10**9, 10**9]}}, "input_size"),
    ({"pretrained_cfg": [1]}, "pretrained_cfg must be a dictionary"),
]


@pytest.mark.parametrize(("change", "words"), HOSTILE, ids=str)
def test_hostile_configurations_are_named(change, words, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors")
    config = json.loads((tmp_path / "m.json").read_text())
    (tmp_path / "m.json").write_text(json.dumps({**config, **change}))
    start = time.monotonic()
    with pytest.raises(ValueError, match=words) as error:
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")
    assert str(tmp_path / "m") in str(error.value)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "1" * 10**5, "null", "\xff\xfe", '{"architecture": "\\ud800"}'], ids=range(6))
def test_hostile_json_is_named(text, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"m\.(json|safetensors)"):
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "metadata",
    ["[1]", "{", '{"data": 3}', '{"classes": 5}', '{"data": {"img_size": "x"}}', '{"data": {"img_size": 9, "channels": 1, "mean": [1]}}', "[" * 10**5],
    ids=range(7),
)
def test_hostile_metadata_is_named(metadata, tmp_path):
    save_model(tiny(), tmp_path / "m.safetensors", {"spikeformers": metadata})
    with pytest.raises(ValueError, match="m.safetensors"):
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors")


# 700 mutated files


def bytes_changed(content, draw):
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8])):
        place = draw.randrange(min(len(content), draw.choice([64, 4096, len(content)])))
        kind = draw.randrange(4)
        if kind == 0:
            content[place] = draw.randrange(256)
        elif kind == 1:
            content[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del content[place : place + draw.choice([1, 8, 100])]
        else:
            content[place:place] = bytes(draw.randrange(256) for _ in range(draw.choice([1, 8])))
        if not content:
            break
    return bytes(content[: draw.randrange(len(content) + 1)] if draw.random() < 0.1 else content)


VALUES = [None, True, 0, -1, 2.5, 10**9, 10**40, 1e308, float("nan"), "x", "", [], [1, "a"], {}, {"a": [1]}, [[[]]], "../../x", "hf-hub:a/b", [0] * 1000]


def json_changed(content, draw):
    content = json.loads(json.dumps(content))
    for _ in range(draw.choice([1, 1, 2, 3])):
        inside, key = content, None
        while isinstance(inside, (dict, list)) and len(inside):
            holder = inside
            key = draw.choice(list(inside)) if isinstance(inside, dict) else draw.randrange(len(inside))
            inside = inside[key]
            if draw.random() < 0.5:
                break
        if key is None:
            continue
        change = draw.randrange(4)
        if change == 0 and isinstance(holder, dict):
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[str(draw.choice(["pretrained", "checkpoint", "schedule", "temporal", "backbone", "zzz"]))] = draw.choice(VALUES)
        else:
            holder[key] = draw.choice(VALUES)
    return content


def header_changed(content, draw):
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json_changed(json.loads(content[8 : 8 + length]), draw)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def pickle_changed(content, draw):
    """The pickle inside an archive of torch.save, changed; its check sums fit."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, bytes_changed(data, draw) if info.filename.endswith("data.pkl") else data)
    return out.getvalue()


@pytest.mark.slow
def test_mutated_checkpoints_are_read_or_named(tmp_path, monkeypatch):
    """Nothing but a ValueError with the file's name, in less than 10 seconds and 1 GiB, and no file but those that are asked for."""
    draw, outcomes = random.Random(0), Counter()
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    detector = spikeformers.create_model("faster_rcnn", backbone="spikingformer_cifar_2_256", backbone_kwargs=TINY, num_classes=3, width=4)
    models = {"m": tiny(), "d": detector}
    known = {"m": {"data": {**DIGITS, "channels": 3, "mean": [0.1] * 3, "std": [1] * 3}, "classes": [str(i) for i in range(10)]}, "d": {"data": None, "classes": ["a", "b"]}}
    files = {}
    for name, model in models.items():
        save_model(model, folder / f"{name}.safetensors", {"spikeformers": json.dumps(known[name])})
        files[name] = (folder / f"{name}.safetensors").read_bytes(), json.loads((folder / f"{name}.json").read_text())
    state = {"model": theirs(), "epoch": 3, "metric": np.float64(3)}
    archive, old = io.BytesIO(), io.BytesIO()
    torch.save(state, archive)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = tiny()
    for i in range(700):
        name = "d" if i % 10 == 9 else "m"
        weights, config = files[name]
        kind = ["header", "bytes", "json", "json text", "metadata", "pickle", "archive", "old pickle"][i % 8]
        text = json.dumps(config)
        if kind == "header":
            weights = header_changed(weights, draw)
        elif kind == "bytes":
            weights = bytes_changed(weights, draw)
        elif kind == "json":
            text = json.dumps(json_changed(config, draw))
        elif kind == "json text":
            text = bytes_changed(text.encode(), draw).decode("latin-1")
        elif kind == "metadata":
            length = int.from_bytes(weights[:8], "little")
            header = json.loads(weights[8 : 8 + length])
            header["__metadata__"]["spikeformers"] = json.dumps(json_changed(known[name], draw))
            header = json.dumps(header).encode()
            weights = len(header).to_bytes(8, "little") + header + weights[8 + length :]
        path = folder / f"{name}.safetensors"
        if kind in ("pickle", "archive", "old pickle"):
            path = folder / "theirs.pth"
            content = {"pickle": archive, "archive": archive, "old pickle": old}[kind].getvalue()
            path.write_bytes(pickle_changed(content, draw) if kind == "pickle" else bytes_changed(content, draw))
            readers = {"load": lambda path=path: load_published(model, path), "import": lambda path=path: import_checkpoint(path, tmp_path / "out" / "o.safetensors", "spikingformer_cifar_2_256", **TINY)}
        else:
            path.write_bytes(weights)
            path.with_suffix(".json").write_bytes(text.encode("latin-1", "replace"))
            readers = {"create": lambda path=path: spikeformers.create_model(checkpoint=path)}
            if name == "m" and kind in ("header", "bytes"):
                readers["load"] = lambda path=path: load_published(model, path)
        for reader, read in readers.items():
            start = time.monotonic()
            try:
                read()
                outcomes[kind, reader, "read"] += 1
            except ValueError as error:
                outcomes[kind, reader, "named"] += 1
                assert str(path) in str(error) or str(path.with_suffix(".json")) in str(error), (i, kind, reader, str(error))
                assert len(str(error)) < 5000 and "\x1b" not in str(error) and "weights_only" not in str(error), str(error)
            assert time.monotonic() - start < 10, (i, kind, reader)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(*sorted(outcomes.items()), f"{grown / 1024:.0f} MiB", sep="\n")
    assert grown < 2**20
    assert {p.name for p in folder.iterdir()} == {"m.safetensors", "m.json", "d.safetensors", "d.json", "theirs.pth"}
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "out"} and not os.path.lexists(Path("x"))
    assert min(outcomes[kind, "create", "named"] for kind in ("header", "json", "json text", "metadata")) > 10
