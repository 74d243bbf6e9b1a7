"""What single neurons do over time: their spikes and membrane potentials, kept for plots."""
# Shapes: T time steps, B batch.

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..layers.hooks import listening
from ..neurons import Neuron


@dataclass
class Traces:
    """Of each layer of neurons by its module's name, on the CPU, of the latest run.

    Attributes:
        spikes: what it emitted [T, B, ...].
        potentials: after each time step, so after the reset [T, B, ...]; {} unless they were asked for.
    """

    spikes: dict[str, Tensor] = field(default_factory=dict)
    potentials: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(spikes.shape)}" for name, spikes in self.spikes.items())
        return f"Traces({shapes or 'nothing yet'}{', with potentials' * bool(self.potentials)})"


@contextmanager
def traces(model: nn.Module, layers: str | Sequence[str] = "*", *, potentials: bool = False) -> Iterator[Traces]:
    """Keeps what neurons do while the model runs inside the block; the model computes the same as without.

    Args:
        model: any model with `Neuron` modules.
        layers: names of neurons, or patterns such as "stages.0.*".
        potentials: whether to keep membrane potentials too, for which neurons run a second time, step by step.

    Raises:
        ValueError: there are no such neurons, or potentials are asked of neurons that do not give theirs away (whose class has a `forward`
            but no `run`).
    """
    patterns = [layers] if isinstance(layers, str) else list(layers)
    neurons = {name: module for name, module in model.named_modules() if isinstance(module, Neuron)}
    chosen = {
        name: module
        for name, module in neurons.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not chosen:
        known = ", ".join(list(neurons)[:5]) + ", ..." * (len(neurons) > 5)
        raise ValueError(
            f"no neurons are called {' or '.join(patterns)}; this {type(model).__name__} has {known or 'none'}"
        )
    closed = [
        name
        for name, module in chosen.items()
        if type(module).forward is not Neuron.forward and type(module).run is Neuron.run
    ]
    if potentials and closed:
        raise ValueError(
            f"{closed[0]} has a forward of its own and no run(x, v) -> (spikes, v), which would give its potential away"
        )
    found = Traces()

    def listener(name):
        @listening
        @torch.no_grad()
        def hook(module, inputs, output):
            found.spikes[name] = output.detach().cpu()
            if potentials:
                found.potentials[name] = _potentials(module, inputs[0]).cpu()

        return hook

    handles = [module.register_forward_hook(listener(name)) for name, module in chosen.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _potentials(neuron: Neuron, x: Tensor) -> Tensor:
    """After each step [T, ...], from rest."""
    v, kept = None, []
    for current in x.split(1):
        _, v = neuron.run(current, v)
        kept.append(v)
    return torch.stack(kept)
