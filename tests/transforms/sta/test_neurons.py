"""Neurons that transmit a mean: by hand, their error, and their thresholds."""

import pytest
import torch
from torch.testing import assert_close

from spikeformers.transforms.sta.neurons import fire, fit_threshold


def test_by_hand():
    """Target 0.6 t, threshold 1: rounding gives 1, 1, 2, 2, 3 in all."""
    sent, emitted = torch.zeros(1), []
    for t in range(1, 6):
        k = fire(torch.tensor([0.6 * t]), sent, torch.tensor([1.0]), 1)
        sent, emitted = sent + k, [*emitted, int(k)]
    assert emitted == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(("potential", "first"), [(0.0, 0), (0.5, 1), (0.9, 1)])
def test_initial_potential(potential, first):
    assert fire(torch.tensor([0.6]), torch.zeros(1), torch.tensor([1.0]), 4, potential).item() == first


def test_bursts_of_either_sign_and_no_more():
    assert fire(torch.tensor([9.0, -9.0, 2.2]), torch.zeros(3), torch.tensor([1.0]), 4).tolist() == [4, -4, 2]


@pytest.mark.parametrize("levels", [1, 4])
def test_error_is_half_a_threshold_over_t_and_saturation_is_made_good(levels):
    torch.manual_seed(0)
    values, threshold, sent = torch.rand(500, dtype=torch.float64) * 2 - 1, torch.tensor(1.0 / levels), torch.zeros(500)
    for t in range(1, 40):
        target = 5 * values if t == 1 else t * values  # far beyond reach at first
        sent = sent + fire(target, sent, threshold, levels)
        if t > 12:
            assert ((sent * threshold - target).abs() <= threshold / 2 + 1e-9).all()


def test_thresholds_are_the_best_of_all():
    torch.manual_seed(0)
    samples = torch.cat([torch.randn(400, 2) * torch.tensor([1.0, 10.0]), torch.tensor([[30.0, 300.0]])])
    for time_steps, levels in ((1, 1), (4, 2), (32, 4)):
        found = fit_threshold(samples, time_steps, levels)
        assert_close(found[1], 10 * found[0], rtol=0.2, atol=0)

        def error(threshold, time_steps=time_steps, levels=levels):
            unit = threshold / time_steps
            return (
                ((samples / unit).round().clamp(-levels * time_steps, levels * time_steps) * unit - samples)
                .square()
                .mean(0)
            )

        best = error(found)
        for factor in (0.5, 0.8, 1.25, 2.0):
            assert (error(found * factor) > 0.95 * best).all()


def test_longer_runs_clip_less():
    torch.manual_seed(0)
    samples = torch.randn(2000, 1)
    short, long = (fit_threshold(samples, T, 1).item() for T in (1, 64))
    assert short < long <= samples.abs().max()


def test_silent_channels_have_a_threshold():
    found = fit_threshold(torch.tensor([[0.0, 1.0], [0.0, 0.5]]), 8, 1)
    assert (found > 0).all() and (fit_threshold(torch.zeros(3, 2), 8, 1) > 0).all()
