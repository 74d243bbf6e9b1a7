"""What a preset makes of counts of operations: rows, their charges and their energy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from ..measure import Constants, Tally
from ..measure.operation import Operation
from ..measure.values import Operand


@dataclass
class Layer:
    """One row of an account. Numbers are per sample, all time steps together.

    Attributes:
        name, type: module path, and operator for people.
        dense: operations if nothing were zero.
        kind: what the input holds: "binary", "ternary", "integer" or "real".
        rate: mean of the input over its values, time steps and samples; None if it is neither measured nor needed.
        rate_per_step: the same for every time step.
        ac, mac: additions and multiplications with addition that are charged.
        steps: how many time steps it runs for.
        shape: of the output, without time and batch.
        additions: those among `ac` that are additions in any network: biases, residual sums, averages.
        trained: dense operations before merging, which is what an ANN would run; `dense` if None.
        synops: those among `ac` that spikes cause in synapses; None if all are.
        possible, bits, synaptic_bits, twin: of the preset `honest`: how many synaptic operations there would be if everything fired; bits
            that are moved, and those that synaptic operations move; multiplications, additions and bits moved of the quantised dense twin.
    """

    name: str
    type: str
    dense: float
    kind: str = "real"
    rate: float | None = None
    rate_per_step: list[float] = field(default_factory=list)
    ac: float = 0.0
    mac: float = 0.0
    steps: int = 1
    shape: tuple[int, ...] = ()
    additions: float = 0.0
    trained: float | None = None
    synops: float | None = None
    possible: float = 0.0
    bits: float = 0.0
    synaptic_bits: float = 0.0
    twin: tuple[float, float, float] | None = None

    @property
    def charged(self) -> str:
        return "MAC" if self.mac else "AC" if self.ac or self.kind != "real" else "free"


@dataclass
class Account:
    """What a preset makes of the counts: layers, and how."""

    preset: str
    switches: dict[str, object]
    formula: str
    notes: tuple[str, ...]
    layers: list[Layer]
    neuron_updates: float
    constants: Constants
    per_bit: float = 0.0  # pJ of a bit that is moved

    @property
    def ac(self) -> float:
        return sum(layer.ac for layer in self.layers)

    @property
    def mac(self) -> float:
        return sum(layer.mac for layer in self.layers)

    @property
    def synops(self) -> float:
        return sum(layer.ac if layer.synops is None else layer.synops for layer in self.layers)

    @property
    def dense(self) -> float:
        return sum(layer.dense for layer in self.layers)

    def energy(self, layer: Layer | None = None) -> float:
        """mJ per sample, of one layer or of all and the neurons."""
        if layer is not None:
            return self.constants.energy(layer.mac, layer.ac) + self.per_bit * layer.bits * 1e-9
        return sum(map(self.energy, self.layers)) + self.constants.neuron * self.neuron_updates * 1e-9

    def ann_energy(self, layer: Layer | None = None) -> float:
        """mJ per sample of the same layers in an ANN: one time step, every product a MAC, nothing merged."""
        if layer is not None and layer.twin is not None:
            macs, additions, bits = layer.twin
            return self.constants.energy(macs, additions) + self.per_bit * bits * 1e-9
        if layer is not None:
            products = layer.dense if layer.trained is None else layer.trained
            return self.constants.energy(products, layer.additions) / layer.steps
        return sum(map(self.ann_energy, self.layers))


@dataclass
class Counts:
    """What the presets work on: the operations of a model, and how often they and its neurons fire.

    Attributes:
        model: where the operations come from.
        operations: in order of execution.
        neuron_rates, neuron_shapes: of every neuron's output by module name.
        time_steps: T of the model; some layers run for fewer.
        assumed: the rate of an operation's operand in an estimate; None if all was measured.
        integers: what products of whole numbers are unless a preset is told otherwise, see `Recorder.integers`.
        tally: what was emitted, added and multiplied; None in an estimate.
    """

    model: nn.Module
    operations: Sequence[Operation]
    neuron_rates: Mapping[str, float]
    neuron_shapes: Mapping[str, tuple[int, ...]]
    time_steps: int
    assumed: Callable[[Operation, Operand], float] | None = None
    integers: str = "mac"
    tally: Tally | None = None

    def rate(self, operation: Operation, operand: Operand) -> float:
        """Mean of what an operand holds, measured or assumed."""
        return operand.rate if self.assumed is None else self.assumed(operation, operand)

    def synops(self, operation: Operation) -> float:
        """Synaptic operations of a sample, one for each threshold and synapse; in an estimate as if the sides were independent."""
        if self.assumed is None:
            return (operation.effective if operation.spike_fed else operation.synops) / operation.samples
        possible = (operation.unpadded or operation.dense) / operation.samples
        return possible * math.prod(self.assumed(operation, operand) for operand in self.spikes(operation))

    @staticmethod
    def spikes(operation: Operation) -> list[Operand]:
        """The sides of a product that hold spikes: single ones, or else whole numbers."""
        single = [operand for operand in operation.data if operand.kind in ("binary", "ternary")]
        if operation.spike_fed:
            return single
        return [operand for operand in operation.data if operand.kind == "integer"]

    @property
    def weighted(self) -> list[Operation]:
        """Convolutions and linear layers."""
        return [operation for operation in self.operations if operation.category in ("convolution", "linear")]

    def within(self, *types: type) -> dict[str, nn.Module]:
        """The modules of these types by name."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, types)}


def row(operation: Operation, dense: float, steps: int | None = None) -> Layer:
    """A row without charges yet.

    Args:
        operation: that was followed.
        dense: its multiplications or additions, for a sample.
        steps: at how many it runs; as it was followed if None.
    """
    operand = next(iter(operation.data), None)
    return Layer(
        operation.module,
        operation.name,
        dense,
        operand.kind if operand else "real",
        operand.rate if operand else None,
        operand.rate_per_step if operand else [],
        steps=operation.steps if steps is None else steps,
        shape=operation.shape,
    )
