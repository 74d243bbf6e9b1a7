"""What tasks share: schedules, groups of the optimiser, frozen norms, starting weights and losses that are no numbers."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spikeformers import create_model, save_model
from spikeformers.models._backbone import spiking_backbone
from spikeformers.training.initial import load_initial
from spikeformers.training.learner import lr_factor, parameter_groups
from spikeformers.training.recipe import Recipe, Training
from spikeformers.training.run import _module

BODY = {"dims": [8, 16, 24, 32], "depths": [1, 0, 1, 1, 0], "num_heads": 2}


def dense(name="semantic_fpn", **options):
    options = {"num_classes": 3, "width": 16, "time_steps": 1, **options}
    return create_model(name, backbone="meta_spikeformer_cifar", backbone_kwargs=dict(BODY), **options)


def factors(training, steps):
    return [lr_factor(step, 4, training, 16) for step in range(steps)]


def test_poly_falls_along_a_power():
    training = Training(epochs=5, lr=2.0, min_lr=0.2, schedule="poly", poly_power=2.0, warmup_steps=4, warmup_lr=0.5)
    got = factors(training, 21)
    assert got[:4] == pytest.approx([0.25 + 0.75 * (step + 1) / 5 for step in range(4)])
    assert got[4] == 1.0 and got[20] == pytest.approx(0.1)
    assert got[12] == pytest.approx(0.1 + 0.9 * 0.5**2)
    line = factors(Training(epochs=5, lr=1.0, min_lr=0.0, schedule="poly"), 21)
    assert line == pytest.approx([1 - step / 20 for step in range(21)])


def test_steps_fall_where_they_are_told_to():
    training = Training(epochs=4, lr=1.0, schedule="step", decay_at=[2, 2.5], decay_rate=0.1)
    assert factors(training, 16) == pytest.approx([1.0] * 8 + [0.1] * 2 + [0.01] * 6)


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_heads_and_neck_have_learning_rates_of_their_own(layer_decay):
    model = dense()
    groups = parameter_groups(model, Training(head_lr=3.0, neck_lr=1.5, layer_decay=layer_decay, weight_decay=0.1))
    scale = {id(p): group.get("lr_scale", 1.0) for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    of_body = []
    for name, p in model.named_parameters():
        assert decay[id(p)] == (0.1 if p.ndim > 1 else 0.0), name
        if name.startswith("backbone.body."):
            of_body.append(scale[id(p)])
        else:
            assert scale[id(p)] == (1.5 if name.startswith("backbone.neck.") else 3.0), name
    assert max(of_body) == 1.0 and (min(of_body) < 0.2) == (layer_decay < 1)
    assert groups[-1].get("lr_scale", 1.0) == 1.0  # the one that the table of epochs shows


@pytest.fixture
def digits():
    return {
        "model": {"name": "meta_spikeformer_cifar", "kwargs": {**BODY, "time_steps": 1}},
        "data": {"name": "digits", "img_size": 16, "batch_size": 8},
        "training": {"epochs": 1},
    }


@pytest.mark.parametrize(("frozen", "epoch", "keeps"), [(None, 3, False), (0, 0, True), (2, 1, False), (2, 2, True)])
def test_frozen_norms_keep_their_statistics(digits, monkeypatch, frozen, epoch, keeps):
    digits["training"] = {"epochs": 4, "freeze_norms": frozen}
    module = _module(Recipe.from_dict(digits), processes=1)
    monkeypatch.setattr(type(module), "current_epoch", epoch)
    before = {name: value.clone() for name, value in module.model.named_buffers() if "running_" in name}
    module.on_train_epoch_start()
    module.training_step((torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long)), 0).backward()
    kept = [torch.equal(module.model.get_buffer(name), value) for name, value in before.items()]
    assert len(kept) > 10 and (all(kept) if keeps else sum(kept) < len(kept) / 2)
    norm = next(m for m in module.model.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.weight.grad is not None and module.model.training


def test_a_loss_that_is_no_number_is_named(digits):
    digits["training"]["precision"] = "16-mixed"
    module = _module(Recipe.from_dict(digits), processes=1)
    fine, broken = torch.randn(4, 3, 16, 16), torch.full((4, 3, 16, 16), torch.nan)
    labels = torch.zeros(4, dtype=torch.long)
    module.objective.loss = lambda model, batch, epoch: (batch[0].mean(), torch.ones(3))
    for index, x in enumerate((broken, fine, broken)):  # steps lost to half precision
        module.training_step((x, labels), index)
        module.must_be_finite()
    module.training_step((fine, labels), 2)
    for index in range(3, 8):
        module.must_be_finite()
        module.training_step((broken, labels), index)
    with pytest.raises(
        ValueError, match=r"not a finite number since step 4 \(epoch 1, batch 4\); .*clip_grad such as 1"
    ):
        module.must_be_finite()


def test_losses_are_lost_across_epochs(digits, monkeypatch):
    """Epochs may be shorter than what half precision may lose in a row."""
    digits["training"] |= {"precision": "16-mixed", "epochs": 9}
    digits["data"]["batch_size"] = 700  # two batches
    module = _module(Recipe.from_dict(digits), processes=1)
    module.objective.loss = lambda model, batch, epoch: (torch.tensor(torch.nan), torch.ones(3))
    for number in range(5):
        module.must_be_finite()
        monkeypatch.setattr(type(module), "current_epoch", 3 + (number + 1) // 2)
        if number % 2:
            module.on_train_epoch_start()
        module.training_step(None, (number + 1) % 2)
    with pytest.raises(ValueError, match=r"since step 8 \(epoch 4, batch 2\)"):
        module.must_be_finite()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_nothing_may_be_lost_where_no_step_is_skipped(digits, precision):
    digits["training"]["precision"] = precision
    module = _module(Recipe.from_dict(digits), processes=1)
    module.objective.loss = lambda model, batch, epoch: (torch.tensor(torch.inf), torch.ones(3))
    module.training_step(None, 0)
    with pytest.raises(ValueError, match="since step 1"):
        module.must_be_finite()


@pytest.mark.parametrize("name", ["semantic_fpn", "mask_rcnn"])
def test_a_dense_model_starts_from_a_classifier(tmp_path, name):
    classifier = create_model("meta_spikeformer_cifar", **BODY, num_classes=7, time_steps=4)
    save_model(classifier, tmp_path / "weights.safetensors")
    model = dense(name)
    heads = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("backbone.body.")}
    load_initial(model, tmp_path / "weights.safetensors")
    body, source = spiking_backbone(model).state_dict(), classifier.state_dict()
    assert len(body) > 20 and all(torch.equal(value, source[key]) for key, value in body.items())
    assert all(torch.equal(value, heads[key]) for key, value in model.state_dict().items() if key in heads)


@pytest.mark.parametrize("name", ["semantic_fpn", "mask_rcnn"])
def test_a_dense_model_starts_from_one_for_other_classes(tmp_path, name):
    source, model = dense(name, num_classes=5), dense(name, time_steps=2)
    save_model(source, tmp_path / "weights.safetensors")
    before, theirs = {key: value.clone() for key, value in model.state_dict().items()}, source.state_dict()
    load_initial(model, tmp_path / "weights.safetensors")
    kept = [key for key, value in model.state_dict().items() if value.shape != theirs[key].shape]
    assert kept and all(("classifier" in key or "predictor" in key) for key in kept)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in kept else theirs[key]), key


@pytest.mark.parametrize("depths", [[2, 0, 1, 1, 0], [1, 0, 1, 3, 0], [1, 0, 1, 0, 0]], ids=str)
def test_weights_of_a_backbone_of_another_depth_are_refused(tmp_path, depths):
    """Such as a longer one, whose further blocks would be left over."""
    save_model(create_model("meta_spikeformer_cifar", **{**BODY, "depths": depths}), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"do not fit the model: \d+ parameters .*, such as stages\."):
        load_initial(dense(), tmp_path / "weights.safetensors")


def published_name(name):
    """Of a parameter of Spikingformer."""
    for ours, theirs in (
        (r"stem\.", "patch_embed.proj_"),
        (r"tokenizer\.(\d)\.conv_bn\.", lambda found: f"patch_embed.proj{int(found[1]) + 1}_"),
        (r"stages\.(\d)\.attention\.branch\.(\w+)\.", r"block.\1.attn.\2_"),
        (r"stages\.(\d)\.mlp\.branch\.fc(\d)\.", r"block.\1.mlp.mlp\2_"),
    ):
        name = re.sub(f"^{ours}", theirs, name)
    return name


@pytest.mark.parametrize("published", [True, False])
def test_what_only_classifies_is_left_over(tmp_path, published):
    """The head, and the stages behind the last one that is read."""
    body = {"embed_dim": 16, "depth": 3, "num_heads": 2}
    classifier = create_model("spikingformer_8_384", **body, num_classes=7)
    source = classifier.state_dict()
    content = {published_name(name) if published else name: value for name, value in source.items()}
    assert not published or not any(name.startswith("stages") for name in content)
    options = {"backbone": "spikingformer_8_384", "backbone_kwargs": body, "width": 16, "num_classes": 3}
    model = create_model("semantic_fpn", **options, stages=[0, 1])
    save_file(content, tmp_path / "weights.safetensors")
    load_initial(model, tmp_path / "weights.safetensors")
    own = spiking_backbone(model).state_dict()
    assert any(name.startswith("stages.1") for name in own) and not any(name.startswith("stages.2") for name in own)
    assert all(torch.equal(value, source[name]) for name, value in own.items())
    left_over, missing = {**content, "block.1.unknown.weight": torch.zeros(1)}, dict(content)
    del missing["block.1.attn.q_conv.weight" if published else "stages.1.attention.branch.q.conv.weight"]
    for changed in (left_over, missing):
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(ValueError, match="1 parameters are missing, left over"):
            load_initial(model, tmp_path / "changed.safetensors")


def test_weights_of_another_backbone_are_refused(tmp_path):
    other = create_model("meta_spikeformer_cifar", **{**BODY, "dims": [8, 16, 24, 40]}, num_classes=7)
    save_model(other, tmp_path / "weights.safetensors")
    with pytest.raises(
        ValueError,
        match="do not fit the model: .* parameters are missing, left over or of another shape, such as stages",
    ):
        load_initial(dense(), tmp_path / "weights.safetensors")
    detector = dense("mask_rcnn")
    save_model(detector, tmp_path / "detector.safetensors")
    with pytest.raises(ValueError):
        load_initial(dense(), tmp_path / "detector.safetensors")


@pytest.mark.parametrize("long", [{"warmup_epochs": 20.0}, {"warmup_steps": 500}, {"warmup_epochs": 2.0}])
def test_a_warm_up_that_is_too_long_takes_half_of_the_run(long):
    training = Training(epochs=2, lr=1.0, min_lr=0.0, **long)
    rates = [lr_factor(step, 10, training, 1) for step in range(20)]
    assert max(rates) == rates[10] == 1 and rates[0] == pytest.approx(1 / 11) and rates[19] < 0.1
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_a_long_recipe_can_be_tried_for_an_epoch(digits):
    digits["training"] |= {"epochs": 1, "warmup_epochs": 20.0}
    with pytest.warns(UserWarning, match="longer than all 1 epochs"):
        _module(Recipe.from_dict(digits), processes=1)
