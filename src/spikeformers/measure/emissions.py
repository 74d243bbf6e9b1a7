"""What the neurons of a network emit while it runs, whoever runs it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..layers.hooks import listening
from ..neurons import Neuron
from .networks import SelfCounting, Stepped
from .tally import Tally, exact


@contextmanager
def emissions(model: nn.Module) -> Iterator[Callable[..., Tally]]:
    """Counts what every neuron emits inside the block; yields a function that returns the tally so far, by the modules' names, and takes
    the number of samples, which neurons do not know.

    Does not wait for the device until it is asked.
    """
    found, counted, handles = {}, Tally(), []

    def counter(name):
        @listening
        def hook(module, inputs, output):
            emitted = output.detach().reshape(len(output), -1) if output.numel() else output.new_zeros(len(output), 1)
            thresholds = emitted.abs().sum(1, dtype=exact(output.device))
            amounts = torch.stack([emitted.count_nonzero(1).to(thresholds.dtype), thresholds])
            before, places = found.get(name, (0, 0))
            found[name] = _added(before, amounts), places + output.numel()

        return hook

    @listening
    def self_counted(module, inputs, output):
        nonlocal counted
        counted += module.tally()

    def watched(tally):
        nonlocal counted
        counted += tally

    stands_for = [
        f"{name}.merged.".removeprefix(".") for name, x in model.named_modules() if isinstance(x, SelfCounting)
    ]
    for name, module in model.named_modules():
        for prefix in stands_for:
            name = name.removeprefix(prefix)
        if isinstance(module, Stepped):
            handles.append(module.watch(watched))
        elif isinstance(module, SelfCounting):
            handles.append(module.register_forward_hook(self_counted))
        elif isinstance(module, Neuron):
            handles.append(module.register_forward_hook(counter(name)))

    def tally(samples: int | None = None) -> Tally:
        both = Tally() + counted
        both.samples = both.samples if samples is None else samples
        for name, (amounts, places) in found.items():
            steps = amounts.shape[1]
            emitted, thresholds = amounts.cpu()
            both.add(name, emitted=emitted, thresholds=thresholds, places=[places / steps] * steps)
        return both

    try:
        yield tally
    finally:
        for handle in handles:
            handle.remove()


def _added(before: Tensor | int, amounts: Tensor) -> Tensor:
    """Sums [2, T]; where a module has run for different numbers of steps, those that are missing are zero."""
    if isinstance(before, int):
        return amounts
    longer, shorter = (before, amounts) if before.shape[1] >= amounts.shape[1] else (amounts, before)
    longer = longer.clone()
    longer[:, : shorter.shape[1]] += shorter
    return longer
