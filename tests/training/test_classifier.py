"""The learning rate, the optimiser's groups and the counting, by hand."""

import pytest
import torch

from spikeformers.data import TestSet, TrainingSet
from spikeformers.models import create_model
from spikeformers.training.classifier import Classifier, count, lr_factor
from spikeformers.training.recipe import Training


def test_learning_rate_rises_then_falls_along_a_cosine():
    training = Training(epochs=10, lr=2.0, min_lr=0.5, warmup_epochs=2)
    factors = [lr_factor(step, 4, training, 64) for step in range(41)]  # 8 steps of rise, 32 of fall
    assert factors[0] == pytest.approx(1 / 9) and factors[7] == pytest.approx(8 / 9)
    assert factors[8] == 1.0
    assert factors[24] == pytest.approx(0.25 + 0.75 / 2)
    assert factors[40] == pytest.approx(0.25)
    assert factors[8:] == sorted(factors[8:], reverse=True)


def test_weight_decay_spares_biases_and_norms(recipe):
    model = create_model(recipe.model.name, in_chans=1, num_classes=2, **recipe.model.kwargs)
    module = Classifier(model, recipe, TrainingSet(recipe.data, 0), TestSet(recipe.data))
    groups = module.configure_optimizers()["optimizer"].param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        name: 0.05 if p.ndim > 1 else 0.0 for name, p in model.named_parameters()
    }


def test_counting():
    sums = torch.zeros(3)
    count(sums, torch.tensor(0.5), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0]]), torch.tensor([0, 0, 0]))
    count(sums, torch.tensor(2.0), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert sums.tolist() == [3.5, 2.0, 4.0]
