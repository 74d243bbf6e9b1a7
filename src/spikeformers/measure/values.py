"""What tensors hold: the kind of their values, how many are not zero, and where they come from."""
# Shapes: T time steps, B batch, C channels.

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

KINDS = ("binary", "ternary", "integer", "real")
"""What the values of an operand are, each kind holding those before it: {0, 1}; {-1, 0, 1}; integers; anything."""


class Values:
    """What is known of a tensor's values; tensors that hold the same ones in the same order share one of these.

    Args:
        data, steps, expected: as below; what is measured is not known yet.

    Attributes:
        data: whether they depend on the network's input; weights, constants and what is made of them do not. None if nobody knows.
        steps: T, over which the leading axis runs slowest.
        kind: one of KINDS, None until it is wanted.
        active: how many are not zero at each time step [T].
        levels: sum of their absolute values [T]; of real values how many are not zero.
        counts: how many are not zero at each pixel [T, pixels].
        expected: the kind that follows from the operators alone, which counts where all values are zero.
        neuron: name of the neuron that emitted them, "" for others.
        is_input: whether they are the network's input, moved about at most.
        potential: whether they are membrane potentials after the last step, which only neurons may read for nothing.
        version: of the tensor when it was measured.
    """

    __slots__ = (
        "data",
        "steps",
        "kind",
        "active",
        "levels",
        "counts",
        "expected",
        "neuron",
        "is_input",
        "potential",
        "version",
    )
    kind: str | None
    active: Tensor | None
    levels: Tensor | None
    counts: Tensor | None
    version: int | None

    def __init__(self, data: bool | None, steps: int = 1, expected: str = "real"):
        self.data, self.steps, self.expected = data, steps, expected
        self.neuron, self.is_input, self.potential = "", False, False
        self.forget()

    def forget(self) -> None:
        """Forgets what was measured."""
        self.kind = self.active = self.levels = self.counts = self.version = None


def version(x: Tensor) -> int:
    """How often a tensor [...] was written into; 0 for inference tensors, for which torch does not count."""
    return 0 if x.is_inference() else x._version


def kind_of(x: Tensor) -> str:
    """The narrowest of KINDS that holds every value of x [...]."""
    if x.dtype == torch.bool or x.numel() == 0:
        return "binary"
    if x.is_complex():
        return "real"
    if x.is_floating_point():
        probe = (x[:1] if x.ndim else x).flatten()[:4096]  # the first of a batch tells most analog tensors apart
        if not torch.equal(probe, probe.round()):
            return "real"
        if torch.equal(x * x, x) and math.isfinite(x.sum(dtype=torch.float32)):  # infinity is its own square
            return "binary"
    low, high = map(float, x.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        return "real"
    if x.is_floating_point() and not bool((x == x.round()).all()):
        return "real"
    return "integer" if low < -1 or high > 1 else "ternary" if low < 0 else "binary"


def widest(kinds: Sequence[str]) -> str:
    """The kind among these that holds all the others."""
    return max(kinds, key=KINDS.index)


def turned(values: Values) -> Values:
    """The same values in another arrangement, so that counts of pixels no longer hold."""
    new = copy.copy(values)
    new.counts = None
    return new


def summed(a: list[float], b: list[float], padded: bool = False) -> list[float]:
    """Step by step. Of different lengths only the totals, as one of them was not resolved in time, unless they are `padded`.

    Args:
        a, b: numbers of consecutive steps; an empty list for none.
        padded: whether the shorter ended earlier.
    """
    if not a or not b:
        return a or b
    if len(a) != len(b) and not padded:
        return [sum(a) + sum(b)]
    return [x + y for x, y in zip_longest(a, b, fillvalue=0.0)]


@dataclass
class Operand:
    """One side of a product. Per time step, summed over all samples: `active`, how many values are not zero, `levels`, the sum of
    their absolute values (of real ones how many are not zero); `size` counts all values of all steps."""

    role: str  # "data", "weight" (anything that does not depend on the input), or "number"
    kind: str = "binary"
    neuron: str = ""
    active: list[float] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    size: int = 0
    is_input: bool = False  # the network's input itself
    stepped: bool = False  # the network was called for every time step, of which this is the last in the lists

    def add(self, other: "Operand") -> None:
        """Adds what another call of the same operation has read."""
        self.kind = widest((self.kind, other.kind))
        self.active = summed(self.active, other.active, other.stepped)
        self.levels = summed(self.levels, other.levels, other.stepped)
        self.is_input = self.is_input and other.is_input
        self.size += other.size

    @property
    def rate(self) -> float | None:
        """Mean of the absolute values, for spikes the share of ones; of real values the share that is not zero. None if nothing was
        measured."""
        return sum(self.levels) / self.size if self.size and self.levels else None

    @property
    def firing_rate(self) -> float | None:
        """Share of the values that are not zero."""
        return sum(self.active) / self.size if self.size and self.active else None

    @property
    def rate_per_step(self) -> list[float]:
        return [level * len(self.levels) / self.size for level in self.levels] if self.size else []
