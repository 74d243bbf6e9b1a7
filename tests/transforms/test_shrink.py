"""Networks whose stages run for fewer and fewer time steps, and their early classifiers."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers import create_model, merge, profile, save_model
from spikeformers.models.meta_spikeformer import MetaSpikeFormer
from spikeformers.models.spikingformer import Spikingformer
from spikeformers.neurons import Neuron
from spikeformers.transforms import average_timestep, early_exit, shrink, stage_timesteps

META = dict(
    dims=(16, 16, 32, 32), depths=(1, 1, 1, 1, 1), strides=(1, 2, 2, 1, 1), stem_kernel=3, num_heads=2, num_classes=5
)
SPIKINGFORMER = dict(embed_dim=32, depth=2, num_heads=2, pools=(False, False, True, True), num_classes=5)
SMALL = {
    "meta": (lambda: MetaSpikeFormer(**META), (6, 5, 4, 2, 2)),
    "spikingformer": (lambda: Spikingformer(**SPIKINGFORMER), (4, 2)),
    "vgg": (lambda: create_model("spiking_vgg9", width=0.125, in_chans=3, img_size=16, num_classes=5), (8, 6, 4, 2)),
    "resnet": (lambda: create_model("spiking_resnet18", dims=(8, 16, 32, 64), in_chans=3, num_classes=5), (9, 5, 3, 2)),
    "sew": (lambda: create_model("sew_resnet18", dims=(8, 16, 32, 64), in_chans=3, num_classes=5), (6, 4, 3, 2)),
}


@pytest.fixture(params=SMALL)
def small(request):
    """A small unshrunk network whose neurons fire, its schedule, and event frames for it."""
    make, schedule = SMALL[request.param]
    torch.manual_seed(0)
    model, x = make(), torch.rand(schedule[0], 3, 3, 16, 16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.5)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x), model(x)
    return model.eval(), schedule, x


def scattered(model):
    """With scores that are not uniform."""
    for shrunk in model.shrinks.values():
        nn.init.normal_(shrunk.scores.weight, std=2.0)
    return model


def steps_of_neurons(model, x):
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            module.register_forward_hook(lambda module, args, out, name=name: seen.__setitem__(name, out.shape[0]))
    with torch.no_grad():
        model(x)
    return seen


def test_every_stage_has_its_time_steps(small):
    model, schedule, x = small
    shrunk = shrink(model, schedule)
    seen = steps_of_neurons(shrunk, x)
    for info, steps in zip(shrunk.feature_info, schedule, strict=True):
        assert {count for name, count in seen.items() if name.startswith(f"{info['module']}.")} == {steps}
    assert [len(found) for found in shrunk.forward_intermediates(x, intermediates_only=True)] == list(schedule)
    with torch.no_grad():
        assert shrunk(x, per_step=True).shape == (schedule[-1], 3, 5)
        assert_close(shrunk(x), shrunk(x, per_step=True).mean(0))
        assert shrunk(x[0]).shape == (3, 5)  # a static image is shown as often as the first stage wants


def test_the_old_model_is_left_alone(small):
    model, schedule, x = small
    before, weights = model(x), copy.deepcopy(model.state_dict())
    shrunk = shrink(model, schedule, early_classifiers=True)
    assert model.schedule is None and not model.early and torch.equal(model(x), before)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, weights[key]) for key, value in shrunk.state_dict().items() if key in weights)


def test_a_schedule_without_shrinking_changes_nothing(small):
    model, schedule, x = small
    same = shrink(model, [schedule[0]] * len(schedule))
    assert not same.shrinks and torch.equal(same(x), model(x))


def test_samples_do_not_see_their_batchmates(small):
    model, schedule, x = small
    shrunk = scattered(shrink(model, schedule)).double()
    with torch.no_grad():
        assert_close(shrunk(x.double())[1:2], shrunk(x[:, 1:2].double()))


def test_early_classifiers_answer_in_training_only(small):
    model, schedule, x = small
    for kind in (True, "shared"):
        shrunk = shrink(model, schedule, early_classifiers=kind)
        plain = copy.deepcopy(shrunk)
        plain.remove_early_classifiers()
        assert torch.equal(shrunk(x), plain(x))
        logits, early = copy.deepcopy(shrunk).train()(x)
        assert logits.shape == (3, 5) and [answer.shape for answer in early] == [(3, 5)] * (len(schedule) - 1)
        heads = {id(module) for name, module in shrunk.early.named_modules() if name.endswith("head")}
        assert len(heads) == (1 if kind == "shared" else len(schedule) - 1)


def test_early_classifiers_take_the_neurons_of_the_network():
    model = create_model("spiking_vgg9", width=0.125, img_size=16, neuron="mlf")
    assert len(shrink(model, (4, 3, 2, 1), early_classifiers=True).early["0"].lif.levels) == 3


def test_an_early_classifier_by_its_equation(small):
    """Logits = linear(mean over pixels of spikes of BN(convolution 3x3, stride 2)), at every time step."""
    model, schedule, x = small
    shrunk = shrink(model, schedule, early_classifiers=True)
    early, found = shrunk.early["0"], shrunk.forward_intermediates(x, [0], intermediates_only=True)[0]
    conv, bn, head = early.conv_bn.conv, early.conv_bn.bn, early.head
    current = torch.stack([bn(nn.functional.conv2d(frame, conv.weight, stride=2, padding=1)) for frame in found])
    potential, spikes = torch.zeros_like(current[0]), []
    for frame in current:
        potential = potential + (frame - potential) / 2
        spikes.append((potential >= early.lif.v_threshold).to(frame.dtype))
        potential = potential * (1 - spikes[-1])
    assert_close(early(found), torch.stack([head(frame.mean((2, 3))) for frame in spikes]))


def test_other_classes_need_other_early_classifiers(small):
    model, schedule, x = small
    for kind in (True, "shared"):
        shrunk = shrink(model, schedule, early_classifiers=kind)
        shrunk.reset_classifier(7)
        logits, early = shrunk.train()(x)
        assert logits.shape == (3, 7) and {answer.shape for answer in early} == {(3, 7)}
        shrunk.reset_classifier(0)
        assert not shrunk.early
        with pytest.raises(ValueError, match="need classes"):
            shrunk.add_early_classifiers()


def test_a_pruned_model_keeps_what_its_stages_need(small):
    model, schedule, x = small
    shrunk = scattered(shrink(model, schedule, early_classifiers=True))
    whole = shrunk.forward_intermediates(x, intermediates_only=True)
    shrunk.prune_intermediate_layers([0])
    assert shrunk.schedule == [schedule[0]] and not shrunk.shrinks and not shrunk.early
    assert torch.equal(shrunk.forward_features(x), whole[0]) and average_timestep(shrunk) == schedule[0]


def test_every_stage_is_called_as_a_module(small):
    """Hooks, checkpointing and FSDP rely on it."""
    model, schedule, x = small
    shrunk, called = shrink(model, schedule), []
    for info in shrunk.feature_info:
        shrunk.get_submodule(info["module"]).register_forward_hook(
            lambda module, args, out, name=info["module"]: called.append(name)
        )
    shrunk(x)
    assert called == [info["module"] for info in shrunk.feature_info]
    assert len(profile(shrunk, [(x, torch.arange(3))], merged=False).accuracy_per_step) == schedule[-1]


def test_checkpointing_changes_neither_gradients_nor_statistics(small):
    model, schedule, x = small
    kept = scattered(shrink(model, schedule, early_classifiers=True)).train()
    again = copy.deepcopy(kept)
    again.set_grad_checkpointing()
    for one in (kept, again):
        logits, early = one(x)
        sum(answer.square().sum() for answer in (logits, *early)).backward()
    for (name, a), b in zip(kept.named_parameters(), again.parameters(), strict=True):
        assert_close(b.grad, a.grad, msg=name)
    for key, value in kept.state_dict().items():
        assert_close(again.state_dict()[key], value)


@pytest.mark.parametrize("name", ["spiking_resnet18", "sew_resnet18"])
def test_convolutions_behind_shrinking_are_computed_once_in_resnets(name):
    model = create_model(name, dims=(8, 16, 16, 32), in_chans=2, num_classes=5)
    found = profile(shrink(model, (6, 4, 3, 2)), torch.rand(6, 2, 2, 16, 16).round(), merged=False)
    steps = {
        operation.module: operation.steps
        for operation in found.counts.operations
        if operation.category == "convolution"
    }
    once = (
        ["stages.1.blocks.0.shortcut"]
        if name == "spiking_resnet18"
        else ["stages.1.blocks.0.conv1", "stages.1.blocks.0.shortcut"]
    )
    for place in once:
        assert {count for module, count in steps.items() if module.startswith(place)} == {1}


def test_losses_of_early_classifiers_reach_the_stages_before(small):
    model, schedule, x = small
    shrunk = shrink(model, schedule, early_classifiers=True).train()
    _, early = shrunk(x)
    nn.functional.cross_entropy(early[0], torch.arange(3)).backward()
    assert all(parameter.grad is None for parameter in shrunk.stages[1].parameters())
    assert any(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in shrunk.stages[0].parameters()
    )
    assert all(parameter.grad is not None for parameter in shrunk.early["0"].parameters())


def test_sure_samples_leave_early(small):
    model, schedule, x = small
    shrunk = shrink(model, schedule, early_classifiers=True)
    shrunk.early["0"].conv_bn.bn.bias.data.fill_(1.0)
    with torch.no_grad():
        shrunk.early["0"].head.weight.normal_()
        logits, exits = early_exit(shrunk, x, confidence=2.0)
        assert torch.equal(logits, shrunk(x)) and exits.tolist() == [len(schedule) - 1] * 3
        maps = shrunk.forward_intermediates(x, intermediates_only=True)
        first = shrunk.early["0"](maps[0]).mean(0)
        logits, exits = early_exit(shrunk, x, confidence=0.0)
        assert torch.equal(logits, first) and exits.tolist() == [0, 0, 0]
        bound = first.softmax(1).amax(1).sort().values[1].item()  # two of three are sure at once
        logits, exits = early_exit(shrunk.train(), x, confidence=bound)
    assert (exits == 0).sum() == 2 and shrunk.training
    assert_close(logits[exits == 0], first[exits == 0])
    with pytest.raises(ValueError, match="no early classifiers"):
        early_exit(model, x, 0.5)


def test_what_stages_cost(small):
    model, schedule, _ = small
    spent = stage_timesteps(shrink(model, schedule))
    assert spent == sorted(spent) and spent[-1] == pytest.approx(average_timestep(shrink(model, schedule)))


def test_early_classifiers_are_in_no_saved_or_merged_model(tmp_path):
    model = create_model("spikingformer_cifar_2_256", embed_dim=32, num_heads=2)
    shrunk = shrink(model, (4, 2), early_classifiers=True).eval()
    scattered(shrunk)
    save_model(shrunk, tmp_path / "shrunk.safetensors")
    again = create_model(checkpoint=tmp_path / "shrunk.safetensors").eval()
    x = torch.rand(2, 3, 32, 32)
    assert again.schedule == [4, 2] and not again.early and torch.equal(again(x), shrunk(x))
    merged = merge(shrunk)
    assert not merged.early and merged.schedule == [4, 2]
    assert_close(merge(shrunk.double())(x.double()), shrunk(x.double()), rtol=0, atol=1e-10)


def test_the_profile_knows_how_long_layers_run(small):
    model, schedule, x = small
    found = profile(scattered(shrink(model, schedule)), x, merged=False)
    steps = {
        operation.module: operation.steps for operation in found.counts.operations if operation.category == "neuron"
    }
    for info, count in zip(model.feature_info, schedule, strict=True):
        assert {steps[name] for name in steps if name.startswith(f"{info['module']}.")} == {count}
    assert all(len(rates) == steps[name] for name, rates in found.rates_per_step.items())


def test_the_layer_behind_is_a_mac_once():
    model = create_model("spiking_vgg9", width=0.125, img_size=16, num_classes=5)
    found = profile(shrink(model, (8, 6, 4, 2)), torch.rand(8, 2, 2, 16, 16).round(), "meta_spikeformer", merged=False)
    macs = {layer.name: layer for layer in found.layers if layer.mac}
    behind = [name for name in macs if name.startswith(("stages.1.conv1", "stages.2.conv1", "stages.3.conv1"))]
    assert len(behind) == 3 and all(macs[name].steps == 1 for name in behind)
    assert macs[behind[0]].mac == 16 * 32 * 9 * 8 * 8  # 16 channels of 8 x 8 pixels to 32 channels, whatever T
    assert not found.audit.additions_only
    assert set(behind) <= {finding.module for finding in found.audit.offending}


@pytest.mark.parametrize(
    ("name", "schedule", "average"),
    [
        ("spiking_vgg9", (8, 6, 4, 2), 5),
        ("spiking_vgg9", (12, 9, 7, 4), 8),
        ("spiking_resnet18", (9, 5, 3, 2), 5),
    ],
)
def test_average_timestep(name, schedule, average):
    model = create_model(name, time_steps=7)
    assert average_timestep(model) == 7
    assert average_timestep(shrink(model, schedule)) == average


def test_schedules_that_do_not_fit(small):
    model, schedule, _ = small
    with pytest.raises(
        ValueError,
        match=rf"has 7 numbers of time steps and this model {len(schedule)} stages: stages\.0 \(\d+ layers\)",
    ):
        shrink(model, [7] * 7)
    with pytest.raises(ValueError, match="cannot grow"):
        shrink(model, [2] * (len(schedule) - 1) + [3])
    for strange in (5, "8642", [8.0] * len(schedule)):
        with pytest.raises(ValueError, match="a schedule is a list of whole numbers"):
            shrink(model, strange)
    with pytest.raises(ValueError, match="temporal must be one of"):
        shrink(model, [schedule[0]] * len(schedule), temporal="nonsense")
    with pytest.raises(ValueError, match="begins with 8 time steps, not with time_steps=3"):
        create_model("spiking_vgg9", time_steps=3, schedule=[8, 6, 4, 2])
    with pytest.raises(ValueError, match="'shared'"):
        shrink(model, schedule, early_classifiers="all")
    with pytest.raises(ValueError, match="declares no stages"):
        shrink(nn.Linear(2, 2), (2, 1))
    with pytest.raises(ValueError, match=f"shrinks {schedule[0]} time steps here"):
        shrink(model, schedule)(torch.rand(schedule[0] + 1, 1, 3, 16, 16))
