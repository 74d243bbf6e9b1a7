"""Models to disk: what is written, and what nobody could read back."""

import pytest
import safetensors.torch
import torch
import torch.nn.utils.prune
from torch import nn
from torch.testing import assert_close

import spikeformers
from spikeformers.models import save_model
from spikeformers.training.parallel import synchronise_norms

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


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
    assert_close(
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(),
        model.state_dict(),
        rtol=0,
        atol=0,
    )


def test_wrappers_inside_are_taken_off(tmp_path):
    model, plain = tiny(), tiny()
    model.stages[0] = torch.compile(model.stages[0], backend="eager")
    save_model(model, tmp_path / "m.safetensors")
    assert_close(
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(),
        plain.state_dict(),
        rtol=0,
        atol=0,
    )


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
    assert_close(
        spikeformers.create_model(checkpoint=tmp_path / "m.safetensors").state_dict(),
        model.state_dict(),
        rtol=0,
        atol=0,
    )
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
    monkeypatch.setattr(
        safetensors.torch, "save", lambda state, metadata=None: real({k: v + 1 for k, v in state.items()}, metadata)
    )
    with pytest.raises(OSError, match="reads back with other values"):
        save_model(tiny(), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())
