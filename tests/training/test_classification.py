"""The learning rate, the optimiser's groups, the losses and the counting, by hand."""

import math
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
from timm.data import Mixup
from torch.testing import assert_close

from spikeformers.data import TestSet, TrainingSet
from spikeformers.evaluation import load_trained
from spikeformers.models import create_model
from spikeformers.training.classification import (
    class_weights,
    classification_loss,
    counted,
    distillation_loss,
    mix,
    one_hot,
)
from spikeformers.training.learner import Learner, lr_factor, peak_lr
from spikeformers.training.recipe import Recipe, Training
from spikeformers.training.run import train
from spikeformers.training.teacher import teacher_of


def test_learning_rate_rises_then_falls_along_a_cosine():
    training = Training(epochs=10, lr=2.0, min_lr=0.5, warmup_epochs=2)
    factors = [lr_factor(step, 4, training, 64) for step in range(41)]  # 8 steps of rise, 32 of fall
    assert factors[0] == pytest.approx(1 / 9) and factors[7] == pytest.approx(8 / 9)
    assert factors[8] == 1.0
    assert factors[24] == pytest.approx(0.25 + 0.75 / 2)
    assert factors[40] == pytest.approx(0.25)
    assert factors[8:] == sorted(factors[8:], reverse=True)


def test_warm_up_and_cool_down_have_their_own_rates():
    training = Training(epochs=2, lr=1.0, min_lr=0.1, warmup_lr=0.5, warmup_epochs=1, cooldown_epochs=1)
    factors = [lr_factor(step, 4, training, 64) for step in range(12)]
    assert factors[:4] == pytest.approx([0.6, 0.7, 0.8, 0.9]) and factors[4] == 1.0
    assert factors[8:] == pytest.approx([0.1] * 4)


def test_the_learning_rate_follows_the_batch_size():
    training = Training(epochs=2, lr=6e-4, lr_batch_size=256, min_lr=1e-6)
    assert peak_lr(training, 1024) == pytest.approx(2.4e-3) and peak_lr(training, 64) == pytest.approx(1.5e-4)
    assert peak_lr(Training(lr=6e-4), 1024) == 6e-4
    last = lr_factor(8, 4, training, 1024) * peak_lr(training, 1024)
    assert last == pytest.approx(1e-6)  # the lowest rate is not scaled


def test_the_learning_rate_falls_in_steps():
    training = Training(epochs=7, lr=2.0, warmup_epochs=1, schedule="step", decay_epochs=3, decay_rate=0.1)
    factors = [lr_factor(step, 4, training, 64) for step in range(28)]
    assert factors[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert factors[4:] == pytest.approx([1.0] * 8 + [0.1] * 12 + [0.01] * 4)


def module_of(config, **training):
    config["training"] |= training
    recipe = Recipe.from_dict(config)
    model = create_model(recipe.model.name, in_chans=1, num_classes=2, **recipe.model.kwargs)
    return Learner(model, recipe, TrainingSet(recipe.data, 0), TestSet(recipe.data))


def test_layers_far_from_the_head_learn_more_slowly(config):
    module = module_of(config, layer_decay=0.5, lr=0.01, warmup_epochs=0)
    optimizer = module.configure_optimizers()["optimizer"]
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: rates[id(p)] for name, p in module.model.named_parameters()}
    assert named["head.weight"] == pytest.approx(0.01)
    assert named["stages.0.mlp.branch.fc1.conv.weight"] == pytest.approx(0.005)
    assert named["stem.conv.weight"] < named["stages.0.mlp.branch.fc1.conv.weight"]


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_early_classifiers_add_their_weighted_losses(config, weight):
    config["model"] = {"name": "spiking_vgg9", "kwargs": {"width": 0.125, "img_size": 16}}
    module = module_of(config, early_weight=weight)
    module.model.add_early_classifiers()
    torch.manual_seed(0)
    x, labels = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 1, 0])
    module.objective.mixup, module.train = None, module.model.train()
    loss = module.training_step((x, labels), 0)
    logits, early = module.model(x)
    targets = one_hot(labels, 2, module.recipe.training.label_smoothing)
    losses = [classification_loss(answer, targets, module.recipe.training) for answer in (logits, *early)]
    assert len(early) >= 1 and all(value > 0.1 for value in losses)
    assert_close(loss, losses[0] + weight * sum(losses[1:]))


@pytest.mark.parametrize("optimizer", ["lamb", "adamw", "sgd"])
def test_optimizers_of_timm(config, optimizer):
    options = {"trust_clip": True} if optimizer == "lamb" else {}
    module = module_of(config, optimizer=optimizer, optimizer_kwargs=options)
    made = module.configure_optimizers()["optimizer"]
    assert optimizer in type(made).__name__.lower() and made.param_groups[0].get("trust_clip", False) == bool(options)


def test_options_that_an_optimizer_does_not_take(config):
    with pytest.raises(ValueError, match="adamw does not take training.optimizer_kwargs {'trust': 1}"):
        module_of(config, optimizer="adamw", optimizer_kwargs={"trust": 1}).configure_optimizers()


def test_weight_decay_spares_biases_and_norms(recipe):
    model = create_model(recipe.model.name, in_chans=1, num_classes=2, **recipe.model.kwargs)
    module = Learner(model, recipe, TrainingSet(recipe.data, 0), TestSet(recipe.data))
    groups = module.configure_optimizers()["optimizer"].param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        name: 0.05 if p.ndim > 1 else 0.0 for name, p in model.named_parameters()
    }


def test_counting():
    sums = counted(torch.tensor(0.5), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0, 0]))
    sums += counted(torch.tensor(2.0), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert sums.tolist() == [3.5, 2.0, 4.0]


def test_smoothed_labels():
    assert_close(
        one_hot(torch.tensor([1, 0]), 4, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    )


def test_cross_entropy_is_that_of_the_mean_and_tet_the_mean_of_those():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])  # T = 2, B = 1
    targets = torch.tensor([[1.0, 0.0]])
    first, second = math.log(1 + math.exp(-2)), math.log(2)
    assert classification_loss(logits.mean(0), targets, Training()).item() == pytest.approx(math.log(1 + math.exp(-1)))
    tet = Training(loss="tet", tet_lambda=0.1, tet_mean=1.0)
    # squared distances to 1: 1, 1, 1, 1
    assert classification_loss(logits, targets, tet).item() == pytest.approx(0.9 * (first + second) / 2 + 0.1)


def test_distillation_losses():
    logits, taught = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert distillation_loss(logits, taught, Training()).item() == pytest.approx(math.log(1 + math.exp(1)))
    soft = Training(distillation="soft", distillation_tau=2.0)
    p, q = torch.tensor([0.0, 1.0]).softmax(0), torch.tensor([0.5, 0.0]).softmax(0)
    by_hand = (p * (p / q).log()).sum().item() * 4 / 2
    assert distillation_loss(logits, taught, soft).item() == pytest.approx(by_hand, rel=1e-5)
    steps = torch.stack([2 * logits, 0 * logits])  # [T, B, classes]: the mean over time is what is compared
    assert distillation_loss(steps, taught, soft).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"mixup_alpha": 1.0}, {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}], ids=["mixup", "cutmix"]
)
def test_all_time_steps_are_mixed_alike(options):
    x = torch.arange(2 * 4.0).view(2, 4, 1, 1, 1).expand(2, 4, 2, 6, 6).contiguous()  # value 4 t + b everywhere
    mixed, targets = mix(Mixup(**options, label_smoothing=0.0, num_classes=4), x.clone(), torch.arange(4))
    assert mixed.shape == x.shape and targets.shape == (4, 4)
    assert_close(targets.sum(1), torch.ones(4))
    for b in range(4):
        share = targets[b, b]
        for t in range(2):
            assert_close(mixed[t, b].mean(), share * x[t, b].mean() + (1 - share) * x[t, 3 - b].mean())
    assert_close(mixed[1] - mixed[0], torch.full((4, 2, 6, 6), 4.0))


@pytest.fixture
def teacher(tmp_path):
    """A tiny model of timm for two classes, and the file of its weights."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return model, path


def test_a_teacher_comes_from_a_file(teacher):
    model, path = teacher
    training = Training(teacher="test_resnet", teacher_weights=str(path))
    loaded, x = teacher_of(training, 2), torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(x), model.eval()(x)) and not any(p.requires_grad for p in loaded.parameters())
    for options, message in (
        ({"teacher": "no_such_model"}, "cannot load the teacher no_such_model .*give a model of timm"),
        ({"teacher_weights": "none.safetensors"}, "cannot load the teacher test_resnet .*its safetensors file"),
    ):
        with pytest.raises(ValueError, match=message):
            teacher_of(replace(training, **options), 2)
    with pytest.raises(ValueError, match="cannot load the teacher"):
        teacher_of(training, 3)  # the file answers 2 classes


def test_a_student_learns_what_its_teacher_says(config, teacher, tmp_path):
    """A teacher that always answers "left" is believed by the head for distillation."""
    model, path = teacher
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([5.0, -5.0]))
    safetensors.torch.save_file(model.state_dict(), path)
    kwargs = {
        "dims": [16, 16, 16, 16],
        "depths": [1, 0, 0, 1, 0],
        "strides": [2, 1, 2, 1, 1],
        "num_heads": 2,
        "time_steps": 2,
    }
    config["model"] = {"name": "meta_spikeformer_cifar", "kwargs": kwargs | {"distillation": True}}
    config["data"] |= {"channels": 3, "mean": [0.4] * 3, "std": [0.2] * 3}
    config["training"] = {"epochs": 8, "lr": 0.01, "teacher": "test_resnet", "teacher_weights": str(path)}
    config["training"] |= {"distillation_alpha": 0.9}
    recipe = Recipe.from_dict(config)
    train(recipe, tmp_path / "run")
    student = load_trained(tmp_path / "run" / "last.ckpt").model.train()
    assert not any(
        "teacher" in name for name in torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    )
    x = torch.stack([image for image, _ in TestSet(recipe.data)])
    _, distilled = student(x)
    assert (distilled.argmax(1) == 0).all()


def test_mixing_ends_at_its_epoch(config, tmp_path, monkeypatch):
    mixed = []
    monkeypatch.setattr(
        "spikeformers.training.classification.mix", lambda mixup, x, y: mixed.append(1) or mix(mixup, x, y)
    )
    config["training"] |= {"mixup": 0.5, "mixup_off_epoch": 1, "epochs": 2}
    train(Recipe.from_dict(config), tmp_path)
    assert len(mixed) == 5  # the steps of the first epoch


def test_the_average_of_the_weights_is_tested_and_exported(config, tmp_path):
    config["training"] |= {"ema": 0.5, "epochs": 1}
    train(Recipe.from_dict(config), tmp_path)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    exported = safetensors.torch.load_file(tmp_path / "best.safetensors")
    assert torch.equal(exported["head.weight"], saved["ema.module.head.weight"])
    assert not torch.equal(exported["head.weight"], saved["model.head.weight"])


def test_accumulated_gradients_make_the_same_step(config, tmp_path):
    """Without batch statistics, which differ between a batch and its parts; in float64 no spike flips by rounding."""
    config["training"] = {"epochs": 1, "optimizer": "sgd", "lr": 0.1, "precision": "64-true"}
    config["data"]["batch_size"] = 20
    config["model"]["kwargs"] |= {"drop_path_rate": 0.0}
    weights = []
    for accumulate in (1, 4):
        config["training"]["accumulate"] = accumulate
        recipe, folder = Recipe.from_dict(config), tmp_path / str(accumulate)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.BatchNorm2d, "train", lambda self, mode=True: torch.nn.Module.train(self, False))
            train(recipe, folder)
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 1
        weights.append(checkpoint["state_dict"])
    assert_close(weights[1], weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("switch", ["checkpointing", "compile", pytest.param("inductor", marks=pytest.mark.slow)])
def test_switches_of_speed_and_memory_leave_the_result(config, tmp_path, monkeypatch, switch):
    """Compiled with the graphs run as they are, which takes seconds, and in the slow test by torch's own compiler."""
    config["training"] |= {"epochs": 1, "precision": "64-true"}
    train(Recipe.from_dict(config), tmp_path / "plain")
    compiled, compile_ = [], torch.nn.Module.compile
    backend = {"backend": "eager"} if switch == "compile" else {}
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self) or compile_(self, **backend))
    config["training"]["checkpointing" if switch == "checkpointing" else "compile"] = True
    train(Recipe.from_dict(config), tmp_path / "switched")
    assert len(compiled) == (switch != "checkpointing")
    plain, switched = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("plain", "switched"))
    assert_close(switched["state_dict"], plain["state_dict"], rtol=0, atol=1e-6)


def test_class_weights_by_hand():
    logits, weights = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]]), torch.tensor([2.0, 0.5])
    targets = one_hot(torch.tensor([0, 0, 1]), 2, smoothing=0.0)
    entropies = [math.log(1 + math.exp(difference)) for difference in (1.0, -2.0, -3.0)]
    wanted = (2 * entropies[0] + 2 * entropies[1] + 0.5 * entropies[2]) / 3
    assert classification_loss(logits, targets, Training(), weights).item() == pytest.approx(wanted)
    tet = Training(loss="tet", tet_lambda=0.0)
    assert classification_loss(logits.repeat(2, 1, 1), targets, tet, weights).item() == pytest.approx(wanted)


def test_balanced_weights_and_wrong_ones(config):
    class Samples:
        classes, indices = ["a", "b", "c"], [0, 1, 2, 3]

        class source:
            labels = [0, 0, 0, 1, 2]

    assert class_weights(Training(), Samples) is None
    assert class_weights(Training(class_weights="balanced"), Samples).tolist() == pytest.approx([4 / 9, 4 / 3, 0.0])
    assert class_weights(Training(class_weights=[1, 2, 0.5]), Samples).tolist() == [1, 2, 0.5]
    with pytest.raises(ValueError, match="class_weights has 2 numbers, and the data have 3 classes"):
        class_weights(Training(class_weights=[1, 2]), Samples)
    with pytest.raises(ValueError, match="training.class_weights is"):
        Training(class_weights=[-1.0, 2.0])
    module = module_of(config, class_weights=[1.0, 3.0])
    module.objective.start(torch.device("cpu"))
    x, labels = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 1, 0])
    module.objective.mixup = None
    assert module.training_step((x, labels), 0).isfinite()
