"""What it costs a network in training to fire."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..layers.hooks import listening
from ..neurons import Neuron


@contextmanager
def rates_of(model: nn.Module) -> Iterator[list[Tensor]]:
    """Inside, the model's passes add to the list each layer's firing rate [], through which gradients flow."""
    rates: list[Tensor] = []
    handles = [
        module.register_forward_hook(
            listening(lambda _, inputs, spikes: rates.append(spikes.mean(dtype=torch.float32)))
        )
        for module in model.modules()
        if isinstance(module, Neuron)
    ]
    try:
        yield rates
    finally:
        for handle in handles:
            handle.remove()


def rate_penalty(rates: list[Tensor], target: float) -> Tensor:
    """By how much the firing rates [] of layers exceed the target, averaged over layers; those below count nothing."""
    return (torch.stack(rates) - target).relu().mean()
