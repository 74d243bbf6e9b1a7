"""Accuracy against time steps and energy of networks that may answer early."""

import pytest
import torch
from torch import nn

from spikeformers import create_model, profile
from spikeformers.profiling import early_exit_curve
from spikeformers.transforms import average_timestep, early_exit, shrink, stage_timesteps


@pytest.fixture
def shrunk(spikingformer):
    def make(early_classifiers=True, certainty=50):
        model = shrink(spikingformer(), (4, 2), early_classifiers=early_classifiers)
        with torch.no_grad():
            for name, weight in model.early.named_parameters():
                if name.endswith("head.weight"):
                    weight.mul_(certainty)
        return model

    return make


def test_curve(shrunk, images):
    model = shrunk()
    with torch.no_grad():
        labels = model(images).argmax(1)
    sure, without = early_exit_curve(model, [(images[:1], labels[:1]), (images[1:], labels[1:])], (0.0,))
    assert sure.exits == (1, 0) and sure.time_steps == pytest.approx(stage_timesteps(model)[0])
    assert without.confidence is None and without.accuracy == 1 and without.exits == (0, 1)
    assert without.time_steps == pytest.approx(average_timestep(model))
    model.remove_early_classifiers()
    assert without.energy == pytest.approx(profile(model, images, merged=False).energy)


def test_classifiers_that_nobody_is_sure_of_cost_something(shrunk, images):
    unsure, without = early_exit_curve(shrunk(certainty=1), [(images, torch.zeros(4, dtype=torch.long))], (1.0,))
    assert unsure.exits == without.exits == (0, 1)
    assert without.energy < unsure.energy < 2 * without.energy


@pytest.mark.parametrize("preset", ["exact", "spikingformer", "meta_spikeformer"])
def test_points_are_what_early_exit_answers(shrunk, images, preset):
    model, labels = shrunk(), torch.tensor([0, 1, 2, -1])  # the last is padding
    confidences = (0.3, 0.6, 0.9)
    for confidence, point in zip(
        confidences, early_exit_curve(model, [(images, labels)], confidences, preset), strict=False
    ):
        logits, left = early_exit(model, images, confidence)
        assert point.accuracy == pytest.approx(float((logits.argmax(1) == labels)[:3].double().mean()))
        assert point.exits == pytest.approx([float((left[:3] == stage).double().mean()) for stage in (0, 1)])


@pytest.mark.parametrize("early_classifiers", [True, "shared"])
def test_who_leaves_first_does_not_pay_for_what_follows(early_classifiers):
    torch.manual_seed(0)
    model = create_model("spiking_vgg9", width=0.125, num_classes=5, in_chans=3, schedule=[4, 3, 2, 1], img_size=16)
    model.add_early_classifiers(shared=early_classifiers == "shared")
    data = [(torch.rand(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))]
    first, *_ = early_exit_curve(model, data, (0.0,))
    assert first.exits == (1, 0, 0, 0)
    assert first.energy == pytest.approx(profile(UpToTheFirstExit(model), data, merged=False).energy)


class UpToTheFirstExit(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.early["0"](self.model.enter_stage(0, self.model.embed(x)))


def test_what_cannot_be_judged_is_said(shrunk, spikingformer, images):
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(ValueError, match="no early classifiers"):
        early_exit_curve(spikingformer(), [(images, labels)], (0.5,))
    for confidences in ((), (50, 90)):
        with pytest.raises(ValueError, match="not a percentage"):
            early_exit_curve(shrunk(), [(images, labels)], confidences)
    with pytest.raises(ValueError, match="needs labels"):
        early_exit_curve(shrunk(), [images])
