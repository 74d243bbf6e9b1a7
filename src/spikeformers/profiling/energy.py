"""Energy of a forward pass, estimated from counts of operations: the conventions of the papers, as one accounting each.

All numbers are estimates for 45 nm hardware, not measurements: a multiplication with addition (MAC) costs 4.6 pJ, an addition
(AC) 0.9 pJ (Horowitz, ISSCC 2014). Memory traffic and membrane updates lie outside all of them.
"""
# Symbols: T time steps, N = H*W tokens, D channels, h heads, r firing rates of inputs.

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from ..layers import PerStep, RepConv, SpikingSelfAttention
from ..models.meta_spikeformer import SepConv
from .operations import PRODUCTS, Operand, Operation

NOTES = (
    "An estimate from counts of operations, not a measurement.",
    "Memory traffic and the updates of membrane potentials are outside of it.",
)
WITH_NEURONS = "Memory traffic is outside of it; every update of a neuron costs {} pJ."


@dataclass(frozen=True)
class Constants:
    """Energy per operation in pJ: of a multiplication with addition, of an addition, and of one neuron's update at one time
    step, which all published figures leave out. The defaults are those of 32-bit floats at 45 nm."""

    mac: float = 4.6
    ac: float = 0.9
    neuron: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not value >= 0:
                raise ValueError(f"the energy of {name} is {value} pJ; give 0 or more")


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

    @property
    def ac(self) -> float:
        return sum(layer.ac for layer in self.layers)

    @property
    def mac(self) -> float:
        return sum(layer.mac for layer in self.layers)

    @property
    def dense(self) -> float:
        return sum(layer.dense for layer in self.layers)

    def energy(self, layer: Layer | None = None) -> float:
        """mJ per sample, of one layer or of all and the neurons."""
        if layer is not None:
            return (self.constants.mac * layer.mac + self.constants.ac * layer.ac) * 1e-9
        return sum(map(self.energy, self.layers)) + self.constants.neuron * self.neuron_updates * 1e-9

    def ann_energy(self, layer: Layer | None = None) -> float:
        """mJ per sample of the same layers in an ANN: one time step, every product a MAC, nothing merged."""
        if layer is not None:
            products = layer.dense if layer.trained is None else layer.trained
            return (self.constants.mac * products + self.constants.ac * layer.additions) / layer.steps * 1e-9
        return sum(map(self.ann_energy, self.layers))


@dataclass
class Counts:
    """What the presets work on: the operations of a model, and how often they and its neurons fire.

    Attributes:
        model: where the operations come from.
        operations: in order of execution.
        neuron_rates, neuron_shapes: of every neuron's output by module name.
        time_steps: T of the model; some layers run for fewer.
        given: the rate of an operation's operand in an estimate; None if all was measured.
    """

    model: nn.Module
    operations: Sequence[Operation]
    neuron_rates: Mapping[str, float]
    neuron_shapes: Mapping[str, tuple[int, ...]]
    time_steps: int
    given: Callable[[Operation, Operand], float] | None = None

    def rate(self, operation: Operation, operand: Operand) -> float:
        """Mean of what an operand holds, measured or given."""
        return operand.rate if self.given is None else self.given(operation, operand)

    def effective(self, operation: Operation) -> float:
        """Products of a sample of which both sides are not zero; in an estimate as if the sides were independent."""
        if self.given is None:
            return operation.effective / operation.samples
        spikes = [operand for operand in operation.data if operand.kind in ("binary", "ternary")]
        possible = (operation.unpadded or operation.dense) / operation.samples
        return possible * math.prod(self.given(operation, operand) for operand in spikes)

    @property
    def weighted(self) -> list[Operation]:
        """Convolutions and linear layers."""
        return [operation for operation in self.operations if operation.category in ("convolution", "linear")]

    def within(self, *types: type) -> dict[str, nn.Module]:
        """The modules of these types by name."""
        return {name: module for name, module in self.model.named_modules() if isinstance(module, types)}


def account(counts: Counts, preset: str, constants: Constants | None = None, **switches) -> Account:
    """The energy by one of PRESETS.

    Args:
        switches: of the preset, see SWITCHES and docs/energy.md.

    Raises:
        ValueError: no such preset, switch or value, or a firing rate is missing.
    """
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    choices = SWITCHES[preset]
    for name, value in switches.items():
        if name not in choices:
            raise ValueError(f"the preset {preset} has no switch {name!r}; it has {', '.join(choices) or 'none'}")
        if value not in choices[name]:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices[name]))}, not {value!r}")
    settings = {name: switches.get(name, values[0]) for name, values in choices.items()}
    make, formula, notes = PRESETS[preset]
    updates = sum(
        operation.dense / operation.samples for operation in counts.operations if operation.category == "neuron"
    )
    layers = make(counts, **settings)
    constants = constants or Constants()
    general = (NOTES[0], WITH_NEURONS.format(constants.neuron)) if constants.neuron else NOTES
    if constants != Constants():
        general = (*general, f"Constants: {constants.mac} pJ a MAC, {constants.ac} pJ an AC.")
    return Account(preset, settings, formula, (*general, *notes), layers, updates, constants)


def _layer(operation: Operation, dense: float, steps: int | None = None) -> Layer:
    """A row without charges yet."""
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


def _charge(counts: Counts, operation: Operation, layer: Layer, integers: str = "mac") -> Layer:
    """AC = dense * r for spikes, MAC = dense for the rest."""
    if layer.kind in ("binary", "ternary") or (layer.kind == "integer" and integers == "levels"):
        layer.rate = counts.rate(operation, operation.data[0])
        layer.ac = layer.dense * layer.rate
    else:
        layer.mac = layer.dense
    return layer


def _spikingformer(counts: Counts) -> list[Layer]:
    layers = []
    for place, operation in enumerate(counts.weighted):
        dense = (operation.dense + operation.biases) / operation.samples
        repeats = counts.time_steps / operation.steps if place == 0 else 1
        steps = counts.time_steps if place == 0 else operation.steps
        layers.append(_charge(counts, operation, _layer(operation, dense * repeats, steps)))
    return layers + _attention(counts, "per_head")


def _meta_spikeformer(
    counts: Counts, repconv: str, sepconv: str, first_conv_steps: int | str, attention: str, strict: bool, integers: str
) -> list[Layer]:
    layers, seen, wholes = [], {}, {}
    chains = {name: module for name, module in counts.model.named_modules() if _is_chain(module)}
    convention = {True: sepconv, False: repconv}
    merged = {name: module for name, module in chains.items() if convention[isinstance(module, SepConv)] == "merged"}
    for place, operation in enumerate(counts.weighted):
        dense = operation.dense / operation.samples
        layer = _layer(operation, dense)
        parent = next((name for name in chains if f"{operation.module}.".startswith(f"{name}.")), None)
        if place == 0 and layer.kind in ("real", "integer"):  # of a sequence it reads every frame anyway
            repeats = counts.time_steps // operation.steps if first_conv_steps == "T" else 1
            layer.mac = layer.dense = dense * repeats
            layer.steps = operation.steps * repeats
        elif parent in merged and (whole := _merged(merged[parent], parent, operation, layer)) is not None:
            if whole.dense:
                whole.trained = dense
                wholes[parent] = _charge(counts, operation, whole, integers)
                layers.append(whole)
            else:
                wholes[parent].trained += dense
            continue
        elif layer.kind == "real" and parent in seen and not strict:
            layer.rate, layer.ac = seen[parent], dense * seen[parent]
        else:
            _charge(counts, operation, layer, integers)
            if not layer.mac and parent:
                seen[parent] = layer.rate
        layers.append(layer)
    return layers + _attention(counts, attention)


def _is_chain(module: nn.Module) -> bool:
    """Whether convolutions follow each other without a neuron in between: RepConv, also with its normalisations folded, and
    the last two of SepConv, unless they are one already."""
    return isinstance(module, (RepConv, SepConv, PerStep)) and isinstance(getattr(module, "depthwise", None), nn.Conv2d)


def _merged(module: nn.Module, name: str, operation: Operation, layer: Layer) -> Layer | None:
    """The row of the one convolution that re-parameterisation makes of several, in the place of the first of them; without
    operations for the others; None for what is not part of it."""
    part = operation.module[len(name) + 1 :]
    depthwise = module.depthwise
    if isinstance(module, SepConv):
        parts, channels = ("depthwise", "project.conv"), module.project.conv.out_channels
    else:
        parts, channels = ("expand", "depthwise", "project", ""), module.project.out_channels
    if part not in parts:
        return None
    if part != parts[0]:
        return Layer(name, "", 0.0)
    height, width = depthwise.kernel_size
    layer.name, layer.type = name, f"convolution {height}x{width}, merged"
    layer.shape = (channels, *layer.shape[1:])
    layer.dense = float(height * width * depthwise.in_channels * math.prod(layer.shape) * layer.steps)
    return layer


def _attention(counts: Counts, convention: str) -> list[Layer]:
    """The rows of attention between spikes, by formula."""
    layers = []
    for name, module in counts.within(SpikingSelfAttention).items():
        places = [operation for operation in counts.operations if operation.module == f"{name}.q_lif"]
        if not places:
            continue
        channels, height, width = counts.neuron_shapes[f"{name}.q_lif"]
        tokens, steps = height * width, places[0].steps
        if module.operator <= 2:
            inside = [o for o in counts.operations if o.module == name and o.category in ("product", "matmul")]
            dense = float(steps * tokens * channels)
            rate = (
                counts.effective(inside[0]) / dense if module.operator == 1 else _neuron_rate(counts, f"{name}.q_lif")
            )
            charged = dense * rate
        else:
            q, k, v = (_neuron_rate(counts, f"{name}.{z}_lif") for z in "qkv")
            per_head = channels // module.num_heads if convention == "per_head" else channels
            base = float(steps * tokens * channels * per_head)
            rate = min(k, v) + q if convention == "per_head" else q + k + v
            dense, charged = 2 * base, base * rate
            rate /= 2 if convention == "per_head" else 3
        layers.append(
            Layer(
                name,
                f"SDSA-{module.operator}",
                dense,
                "binary",
                rate,
                [],
                charged,
                0.0,
                steps,
                (channels, height, width),
            )
        )
    return layers


def _neuron_rate(counts: Counts, name: str) -> float:
    if counts.neuron_rates.get(name) is None:
        raise ValueError(
            f"the firing rate of {name} is missing; the attention term of this preset needs q_lif, k_lif and v_lif"
        )
    return counts.neuron_rates[name]


def _exact(counts: Counts, integers: str) -> list[Layer]:
    layers = []
    for operation in counts.operations:
        samples = operation.samples
        additions = (operation.additions + operation.biases) / samples
        if operation.category in ("addition", "average"):
            layer = _layer(operation, 0.0)
            layer.ac = layer.additions = additions
        elif operation.category in (*PRODUCTS, "function"):
            layer = _layer(operation, operation.dense / samples)
            layer.ac = layer.additions = additions
            if operation.category in ("normalisation", "function") or not operation.spike_fed:
                if integers == "levels" and layer.kind == "integer" and operation.category in ("convolution", "linear"):
                    layer.ac += layer.dense * counts.rate(operation, operation.data[0])
                else:
                    layer.mac = layer.dense
            else:
                layer.ac += counts.effective(operation)
                spikes = [operand for operand in operation.data if operand.kind in ("binary", "ternary")]
                if spikes:  # otherwise a constant mask
                    layer.kind, layer.rate = spikes[0].kind, counts.rate(operation, spikes[0])
        else:
            continue
        layers.append(layer)
    return layers


PRESETS: dict[str, tuple[Callable[..., list[Layer]], str, tuple[str, ...]]] = {
    "exact": (
        _exact,
        "E = 4.6 pJ * MAC + 0.9 pJ * AC over every operator that the audit saw. A product with a spike costs one AC where both sides are not "
        "zero (zero padding never fires), any other product one MAC; biases, residual sums and averages cost one AC each.",
        (),
    ),
    "spikingformer": (
        _spikingformer,
        "E = 4.6 pJ * MAC + 0.9 pJ * (sum of dense * r over spike-fed convolutions and linear layers + sum over blocks of "
        "T * h * N * (D/h)^2 * (min(r_k, r_v) + r_q)). MAC: the first convolution, T times, and layers that read no spikes, such as the "
        "head. Biases are part of dense.",
        ("Normalisation, pooling, neurons, scaling and residual sums are not counted.",),
    ),
    "meta_spikeformer": (
        _meta_spikeformer,
        "E = 4.6 pJ * FL_1 + 0.9 pJ * (T * sum of FL * r over convolutions and linear layers + T * N * D^2/h * (min(r_k, r_v) + r_q) per "
        "attention). FL: operations of one time step without biases.",
        (
            "Normalisation is folded; pooling, neurons and residual sums are not counted.",
            "No script of the paper was published; which convolutions it merged is inferred from its figures (switches repconv, sepconv).",
        ),
    ),
}
"""By name: the function that makes rows, the formula, and notes."""

SWITCHES: dict[str, dict[str, tuple]] = {
    "exact": {"integers": ("mac", "levels")},
    "spikingformer": {},
    "meta_spikeformer": {
        "repconv": ("merged", "trained"),
        "sepconv": ("merged", "trained"),
        "first_conv_steps": (1, "T"),
        "attention": ("per_head", "full"),
        "strict": (False, True),
        "integers": ("mac", "levels"),
    },
}
"""By preset: its switches and their values, the default first."""
