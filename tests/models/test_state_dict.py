"""The state dict inside checkpoints of trainers."""

import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch
import torch.nn.utils.prune
from torch.testing import assert_close

import spikeformers
from spikeformers.models import import_checkpoint, load_published, save_model

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


def theirs(**given):
    return tiny(**given).state_dict()


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefixes",
    [
        ("_orig_mod.",),
        ("module.",),
        ("_orig_mod.", "module."),
        ("module.", "_orig_mod.", "model."),
        ("model.", "module.", "_orig_mod."),
    ],
    ids=str,
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
        lambda raw, mean: {
            "model_state": raw,
            "swa_model": {**prefixed("module.", mean), "n_averaged": torch.tensor(3)},
        },
        lambda raw, mean: {"model": raw, "averaged_model": mean},
        lambda raw, mean: {"model": raw, "ema_weights": mean},
        lambda raw, mean: {"model": raw, "shadow_params": mean},
        lambda raw, mean: {"student": raw, "teacher": prefixed("module.", mean)},
    ],
    ids=[
        "model_ema",
        "state_dict_ema",
        "ema.module",
        "names",
        "shadow",
        "swa_model",
        "averaged_model",
        "ema_weights",
        "shadow_params",
        "teacher",
    ],
)
def test_averaged_or_last_weights_can_be_chosen_and_are_said(build):
    raw, mean = theirs(), {name: value + 1 for name, value in theirs().items()}
    content = build(raw, mean)
    for ema, want, words in (
        (None, mean, "averages over training"),
        (True, mean, "averages over training"),
        (False, raw, "not averaged"),
    ):
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
    counted = {
        f"{place}{name}": torch.zeros(1)
        for place in ("", "head.", "blocks.0.")
        for name in ("total_ops", "total_params")
    }
    report = load_published(tiny(), {"model": {**prefixed("module.", theirs()), **prefixed("module.", counted)}})
    assert report.problems() == [] and "6 counters of a profiler" in str(report)


def test_a_trainers_own_weights_are_left_out_and_said():
    content = {"state_dict": {**prefixed("model.", theirs()), "criterion.weight": torch.ones(10)}}
    report = load_published(tiny(), content)
    assert "left out" in str(report) and "criterion.weight" in str(report)


def test_names_of_the_checkpoint_are_shown_beside_the_models():
    with pytest.raises(ValueError) as error:
        load_published(tiny(), prefixed("student.backbone.", theirs()))
    assert "in the checkpoint only: student.backbone." in str(error.value) and "in the model only: head.weight" in str(
        error.value
    )


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


class Repeated:
    """A tensor of a few bytes that claims to be large."""

    def __init__(self, *size):
        self.size = size

    def __reduce_ex__(self, protocol):
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.ones(1).untyped_storage(), dtype=torch.float32, _internal=True
        )
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, (0,) * len(self.size), False, OrderedDict())


def test_small_files_that_stand_for_gigabytes(tmp_path):
    torch.save({**theirs(), "head.weight": Repeated(10**9, 16)}, tmp_path / "repeated.pth")
    with zipfile.ZipFile(tmp_path / "zeros.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    for file, words in (("repeated.pth", "claims 16,000,000,000 values"), ("zeros.pth", "compressed archive")):
        for read in (
            lambda path: load_published(tiny(), path),
            lambda path: import_checkpoint(path, tmp_path / "o.safetensors"),
        ):
            with pytest.raises(ValueError, match=words):
                read(tmp_path / file)
