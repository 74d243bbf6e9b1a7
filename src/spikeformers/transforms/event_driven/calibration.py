"""Which way each layer is faster on this machine, measured at the density that real inputs cause."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .plan import Layer, Plan

ROUNDS = 5
TYPICAL = 0.1  # the density to measure at where there are no spikes at all


@dataclass(frozen=True)
class Choices:
    """What a calibration found.

    Attributes:
        whole: the chains of convolutions that are faster as one.
        limits: by layer, up to which density it is faster event-driven.
        milliseconds: by layer: event-driven without spikes and with those of the calibration, and dense.
        ratios: by layer that reads pooled spikes, how much denser they are than before pooling.
    """

    whole: frozenset[str]
    limits: dict[str, float]
    milliseconds: dict[str, tuple[float, float, float]]
    ratios: dict[str, float]

    def apply(self, plan: Plan) -> None:
        """Makes a plan follow them; for a shape other than the calibration's too."""
        for layer in plan.layers:
            layer.limit, layer.milliseconds = self.limits.get(layer.name), self.milliseconds.get(layer.name)
            layer.source.ratio = self.ratios.get(layer.name, layer.source.ratio)


def calibrate(build: Callable[..., Plan], x: Tensor) -> Choices:
    """Measures all layers in both ways, and all chains in both forms, on input x."""
    split = build(frozenset())
    chains = frozenset(chain for chain in split.marks if chain)
    whole = frozenset()
    if chains:
        joined = build(chains)
        apart, one = _by_chain(split, x), _by_chain(joined, x)
        whole = frozenset(chain for chain in chains if one.get(chain, float("inf")) < apart[chain])
        del joined
    plan = build(whole) if whole else split
    plan.run(x)
    limits, milliseconds, ratios = {}, {}, {}
    env = _environment(plan, x)
    for layer in plan.layers:
        if layer.source.of is not None and layer.source.of.density:
            ratios[layer.name] = layer.source.packed.density / layer.source.of.density
            layer.source.ratio = ratios[layer.name]
        limits[layer.name], milliseconds[layer.name] = _limit(layer, env)
    return Choices(whole, limits, milliseconds, ratios)


def _environment(plan: Plan, x: Tensor) -> list:
    env = [None] * plan.slots
    env[0] = x
    for step in plan.steps:
        step(env)
    return env


def _by_chain(plan: Plan, x: Tensor) -> dict[str, float]:
    """Milliseconds of the steps of each chain, layers in their faster way."""
    env = _environment(plan, x)
    found: dict[str, float] = {}
    for step, chain in zip(plan.steps, plan.marks, strict=True):
        if chain:
            ways = (step.event, step.dense) if isinstance(step, Layer) else (step,)
            found[chain] = found.get(chain, 0.0) + min(_time(way, env) for way in ways)
    return found


def _limit(layer: Layer, env: list) -> tuple[float, tuple[float, float, float]]:
    """The density up to which the layer is faster event-driven, its time being a line in the density."""
    words = layer.source.packed.words
    kept, density = words.clone(), layer.source.packed.density
    if density == 0:
        density = TYPICAL
        channels = torch.arange(words.shape[-1] * 64) < layer.source.packed.channels
        fired = (torch.rand(*words.shape, 64) < density) & channels.view(words.shape[-1], 64)
        words.copy_((fired.long() << torch.arange(64)).sum(-1))
    event, dense = _time(layer.event, env), _time(layer.dense, env)
    words.zero_()
    empty = min(event, _time(layer.event, env))
    words.copy_(kept)
    layer.event(env)  # what comes behind sees real spikes
    slope = (event - empty) / density
    limit = (dense - empty) / slope if slope > 0 else float("inf")
    return max(0.0, limit), (empty, event, dense)


def _time(step: Callable[[list], None], env: list) -> float:
    """Median milliseconds; steps leave the environment as it is but for their own results."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        step(env)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])
