"""Accuracy against time steps and energy of networks that may answer early."""

import pytest
import torch

from spikeformers import profile
from spikeformers.profiling import early_exit_curve
from spikeformers.transforms import average_timestep, shrink, stage_timesteps


def test_curve(spikingformer, images):
    model = shrink(spikingformer(), (4, 2), early_classifiers=True)
    with torch.no_grad():
        model.early["0"].head.weight.mul_(50)  # sure of itself
        labels = model(images).argmax(1)
    sure, never = early_exit_curve(model, [(images[:1], labels[:1]), (images[1:], labels[1:])], (0.0, 1.01))
    assert never.accuracy == 1 and never.exits == (0, 1) and never.time_steps == pytest.approx(average_timestep(model))
    assert sure.exits == (1, 0) and sure.time_steps == pytest.approx(stage_timesteps(model)[0])
    assert sure.energy < never.energy
    model.remove_early_classifiers()
    alone = profile(model, images, merged=False).energy
    assert alone < never.energy < 2 * alone  # the classifier that nobody was sure of costs something


def test_without_early_classifiers(spikingformer, images):
    with pytest.raises(ValueError, match="no early classifiers"):
        early_exit_curve(spikingformer(), [(images, torch.zeros(4, dtype=torch.long))], (0.5,))
