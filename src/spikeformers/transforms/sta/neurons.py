"""Signed integrate-and-fire neurons that transmit any function of their input's running mean, and thresholds for them."""
# Shapes: S samples per channel, C channels.

import torch
from torch import Tensor

FRACTIONS = torch.logspace(
    -1.2, 0, 80
)  # of the largest activation: candidates for levels * threshold; no round numbers, or ties abound


def fire(target: Tensor, emitted: Tensor, threshold: Tensor, levels: int, potential: float = 0.5) -> Tensor:
    """How many thresholds a neuron emits in this step: integers from -levels to levels, in float.

    k[t] = clip( floor( (Y[t] - E[t-1]) / threshold + potential ), -levels, levels );  E[t] = E[t-1] + threshold * k[t]

    Y[t] is what it should have emitted by now: the sum of its input for an integrate-and-fire neuron with soft reset, whose
    potential is Y[t] - E[t-1]; t * f(sum / t) for one that transmits f. Whenever nothing is clipped, |Y[t] - E[t]| is at most half
    a threshold (with the default potential), so that E[t] / t is off by at most threshold / (2 t).

    Args:
        target: Y[t], of any shape.
        emitted: E[t-1] / threshold, whole numbers of any dtype.
        threshold: positive, broadcast against the target.
        levels: 1 for ternary spikes, more for bursts.
        potential: initial potential in thresholds; 0.5 rounds, 0 waits for a full threshold.
    """
    return (target / threshold).sub_(emitted).add_(potential).floor_().clamp_(-levels, levels)


@torch.library.custom_op("spikeformers::integrate_and_fire", mutates_args=("total", "counts"))
def integrate_and_fire(
    x: Tensor, total: Tensor, counts: Tensor, threshold: Tensor, levels: int, potential: float
) -> Tensor:
    """`fire` of neurons that transmit the sum of what they receive; total and counts are their state.

    Args:
        x: what comes in this step [...].
        total: what has come before [...], to which it is added.
        counts: thresholds emitted so far [...], to which this step's are added.
        threshold: of their channels, broadcast against [...].
        levels: thresholds that one may emit in a step.
        potential: at the start, in thresholds.

    Returns:
        Thresholds emitted in this step [...], of either sign.
    """
    total += x
    spikes = fire(total, counts, threshold, levels, potential)
    counts += spikes.to(counts.dtype)
    return spikes


@torch.library.custom_op("spikeformers::transmit", mutates_args=("counts",))
def transmit(
    value: Tensor, counts: Tensor, threshold: Tensor, time_steps: int, levels: int, potential: float
) -> Tensor:
    """`fire` of neurons that are told at every step what their mean should be; counts are their state.

    Args:
        value: the mean [...].
        counts: thresholds emitted so far [...], to which this step's are added.
        threshold: of their channels, broadcast against [...].
        time_steps: how many there were, this one included.
        levels: thresholds that one may emit in a step.
        potential: at the start, in thresholds.

    Returns:
        Thresholds emitted in this step [...], of either sign.
    """
    spikes = fire(value * time_steps, counts, threshold, levels, potential)
    counts += spikes.to(counts.dtype)
    return spikes


def fit_threshold(samples: Tensor, time_steps: int, levels: int) -> Tensor:
    """For each channel the threshold whose neurons decode the samples best after `time_steps` steps.

    Least mean squared error of threshold / T * clip(round(x T / threshold), -levels T, levels T) (STA, ICLR 2024, calibration), over
    thresholds of 6 to 100 % of the largest sample, divided by the levels.

    Args:
        samples: activations [S, C].

    Returns:
        Thresholds [C], positive also where nothing was ever active.
    """
    largest = samples.abs().amax(0)
    largest = torch.where(largest > 0, largest, largest.amax().clamp_min(1e-12))
    best, error = largest / levels, torch.full_like(largest, torch.inf)
    for fraction in FRACTIONS.tolist():
        threshold = largest * (fraction / levels)
        unit = threshold / time_steps
        counts = (samples / unit).round_().clamp_(-levels * time_steps, levels * time_steps)
        found = (counts * unit).sub_(samples).square_().mean(0)
        best, error = torch.where(found < error, threshold, best), torch.minimum(found, error)
    return best
