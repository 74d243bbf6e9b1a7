"""Operations and memory traffic, beside those of the same network without spikes at the same number of bits."""
# Symbols: b bits of a weight or activation, p bits of a membrane potential, S synaptic operations.

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..measure.constants import MEMORIES, Constants, of_integers
from ..measure.operators import PRODUCTS
from .account import Counts, Layer, row

if TYPE_CHECKING:
    from .account import Account

POTENTIAL = 16
"""Bits of a membrane potential, and of what is summed up outside of synapses."""
SPIKE = {"binary": 1, "ternary": 2}
"""Bits of a value that was emitted; whole numbers take those of an activation."""


def honest(counts: Counts, bits: int, memory: str, potentials: str, integers: str) -> list[Layer]:
    """A row for each operation and each layer of neurons, with the bits that it moves and what its twin does.

    Every synaptic operation reads a weight of b bits; where events are worked off one by one ("event") it reads and writes a potential
    too, where a layer is gone through once a step ("step") its sums stay in registers. Maps of spikes are read once by each layer, with a
    bit for each neuron and step. Neurons read and write their potential and write their spikes. Multiplications read a weight and an
    activation of b bits, functions and normalisations read and write p bits, other additions read p bits.

    The twin runs once: every product of a layer with weights or of attention is a multiplication of two numbers of b bits, its results are
    written with b bits. Factors and normalisations are folded into its weights.

    Args:
        counts: what was followed.
        bits: b, of weights and activations.
        memory: where they lie, one of `constants.MEMORIES`, by which `account` charges the bits.
        potentials: "event" or "step", as above.
        integers: what becomes of products of whole numbers, see `Operation.charged`.
    """
    layers = []
    for operation in counts.operations:
        if operation.category not in (*PRODUCTS, "function", "addition", "average", "neuron"):
            continue
        samples, steps = operation.samples, operation.steps
        dense, additions = operation.dense / samples, operation.additions / samples
        written = bits * math.prod(operation.shape)
        layer = row(operation, dense)
        layer.synops = 0.0
        layer.ac = layer.additions = additions + operation.biases / samples
        layer.bits = POTENTIAL * additions
        macs, sums, moved = 0.0, layer.additions / steps, bits * additions / steps  # of the twin
        if operation.category in ("convolution", "linear", "matmul", "product"):
            macs, moved = dense / steps, moved + 2 * bits * dense / steps + written
        elif operation.category == "function":
            macs, moved = dense / steps, moved + 2 * bits * dense / steps
        layer.twin = macs, sums, moved
        if operation.category == "neuron":
            layer.ac, layer.mac = (dense * times for times in operation.arithmetic)
            layer.dense, layer.bits = 0.0, dense * (2 * POTENTIAL + 1)
        elif operation.adds(integers):
            spikes, caused = counts.spikes(operation), counts.synops(operation)
            layer.ac += caused
            if operation.category == "scale":  # a factor is read, but is no synapse
                layer.bits += bits * caused
            else:
                layer.synops, layer.possible = caused, (operation.unpadded or operation.dense) / samples
                layer.synaptic_bits = caused * (bits + (2 * POTENTIAL if potentials == "event" else 0))
            layer.bits += (
                layer.synaptic_bits + sum(SPIKE.get(side.kind, bits) * side.size for side in spikes[:1]) / samples
            )
            if spikes:
                layer.kind, layer.rate = spikes[0].kind, counts.rate(operation, spikes[0])
        elif operation.category in ("function", "normalisation"):
            layer.mac, layer.bits = dense, layer.bits + 2 * POTENTIAL * dense
        elif operation.category in PRODUCTS:
            layer.mac, layer.bits = dense, layer.bits + 2 * bits * dense + written * steps
        layers.append(layer)
    return layers


def costs(bits: int, memory: str, **_) -> tuple[Constants, float]:
    """What operations and a moved bit cost, by the switches."""
    return of_integers(bits), MEMORIES[memory]


@dataclass(frozen=True)
class BreakEven:
    """Beside which firing rate the twin takes as much.

    Attributes:
        energy, twin: mJ of a sample, spiking and of the quantised dense twin.
        memory: the part of the former that is spent on moving bits.
        rate: mean thresholds per value and step that layers read, without zero padding.
        equal: the rate at which the two take as much, everything that does not depend on it being as it is; None if that alone takes more.
    """

    energy: float
    twin: float
    memory: float
    rate: float | None
    equal: float | None

    @classmethod
    def of(cls, account: Account) -> BreakEven:
        """From an account by the preset `honest`."""
        layers = account.layers
        synops, possible = account.synops, sum(layer.possible for layer in layers)
        moving = sum(layer.synaptic_bits for layer in layers)
        varying = account.constants.energy(0, synops) + account.per_bit * moving * 1e-9
        energy, twin = account.energy(), account.ann_energy()
        rate = synops / possible if possible else None
        left = twin - (energy - varying)
        equal = rate * left / varying if rate and varying and left > 0 else None
        return cls(energy, twin, account.per_bit * sum(layer.bits for layer in layers) * 1e-9, rate, equal)

    def as_text(self, bits: int) -> str:
        """A line for the terminal."""
        times = self.energy / self.twin if self.twin else math.inf
        words = (
            f"{self.energy:.4g} mJ with memory traffic ({self.memory / self.energy:.0%} of it), " if self.energy else ""
        )
        words += f"{times:.2f} times its dense twin of {bits} bits ({self.twin:.4g} mJ)"
        if self.rate is None:
            return words
        if self.equal is None:
            return words + f"; more at any firing rate (here {self.rate:.1%} of what layers read)"
        return words + f"; as much where layers read {self.equal:.1%} spikes (here {self.rate:.1%})"
