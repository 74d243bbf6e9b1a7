"""Which way each layer is faster on this machine, measured at the density that real inputs cause."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .plan import DrivenLayer, Plan

ROUNDS = 6
TYPICAL = 0.1  # the density to measure at where there are no spikes at all


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        whole: the chains of convolutions that are faster as one.
        limits: by layer, the density up to which it is faster event-driven.
        milliseconds: by layer: event-driven without spikes and with those of the calibration, and dense.
    """

    whole: frozenset[str]
    limits: dict[str, float]
    milliseconds: dict[str, tuple[float, float, float]]

    def apply(self, plan: Plan) -> None:
        """Makes a plan follow them; for a shape other than the calibration's too."""
        for layer in plan.layers:
            layer.limit, layer.milliseconds = self.limits.get(layer.name), self.milliseconds.get(layer.name)


def calibrate(build: Callable[..., Plan], x: Tensor) -> Calibration:
    """Measures all layers in both ways, and all chains in both forms, on input x, [B, C, H, W] or [T, B, C, H, W].

    Times are taken within whole passes, where a layer finds the caches as the one before it has left them.
    """
    split = build(frozenset())
    chains = frozenset(chain for chain in split.marks if chain)
    whole = frozenset()
    if chains:
        joined = build(chains)
        apart, one = _by_chain(split, x), _by_chain(joined, x)
        whole = frozenset(chain for chain in chains if one.get(chain, float("inf")) < apart[chain])
        del joined
    plan = build(whole) if whole else split
    dense, _ = _passes(plan, x, "dense")
    event, env = _passes(plan, x, "event")  # the last one leaves its spikes
    limits, milliseconds = {}, {}
    for step, event_ms, dense_ms in zip(plan.steps, event, dense, strict=True):
        if isinstance(step, DrivenLayer):
            density, silent = _silent(step, env)
            if not step.source.density:  # in the passes there were no spikes either
                event_ms /= silent
            limits[step.name] = limit(density, silent * event_ms, event_ms, dense_ms)
            milliseconds[step.name] = silent * event_ms, event_ms, dense_ms
    return Calibration(whole, limits, milliseconds)


def limit(density: float, silent_ms: float, event_ms: float, dense_ms: float) -> float:
    """The density up to which a layer is faster event-driven, if its time is a straight line through the times without spikes and at
    `density`. Where the time hardly depends on the density, the layer is always faster, or never.

    Args:
        density: share of ones that was measured at.
        silent_ms: time without any spike.
        event_ms: time at that density.
        dense_ms: time of the dense layer.
    """
    if event_ms - silent_ms < 0.1 * event_ms:
        return float("inf") if event_ms <= dense_ms else 0.0
    return max(0.0, (dense_ms - silent_ms) / (event_ms - silent_ms) * density)


def _passes(plan: Plan, x: Tensor, way: str) -> tuple[list[float], list]:
    """For every step the least milliseconds over some passes in which all layers run "event" or "dense", and the tensors that torch made in
    the last pass."""
    carry_out = [getattr(step, way) if isinstance(step, DrivenLayer) else step for step in plan.steps]
    times: list[list[float]] = [[] for _ in carry_out]
    for turn in range(ROUNDS):
        env = [None] * plan.slots
        env[0] = x
        for step, found in zip(carry_out, times, strict=True):
            start = time.perf_counter()
            step(env)
            if turn:  # the first fills caches
                found.append(1e3 * (time.perf_counter() - start))
    return [min(found) for found in times], env


def _by_chain(plan: Plan, x: Tensor) -> dict[str, float]:
    """Milliseconds of the steps of each chain, layers in their faster way."""
    found: dict[str, float] = {}
    for chain, *both in zip(plan.marks, *(_passes(plan, x, way)[0] for way in ("event", "dense")), strict=True):
        if chain:
            found[chain] = found.get(chain, 0.0) + min(both)
    return found


def _silent(layer: DrivenLayer, env: list) -> tuple[float, float]:
    """The density of the layer's input, and the share of its event-driven time that it takes without any spike. The rest is proportional
    to the density."""
    words = layer.source.packed.words
    kept, density = words.clone(), layer.source.packed.density
    if density == 0:
        density = TYPICAL
        channels = torch.arange(words.shape[-1] * 64) < layer.source.packed.channels
        fired = (torch.rand(*words.shape, 64) < density) & channels.view(words.shape[-1], 64)
        words.copy_((fired.long() << torch.arange(64)).sum(-1))
    event = least_ms(lambda: layer.event(env))
    words.zero_()
    silent = least_ms(lambda: layer.event(env))
    words.copy_(kept)
    layer.event(env)  # what comes behind sees real spikes
    return density, min(1.0, silent / event)


def least_ms(work: Callable[[], object]) -> float:
    """The least milliseconds of several repetitions, to leave out the time that other programs take."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times[1:])
