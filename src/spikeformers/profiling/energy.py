"""Energy of a forward pass, estimated from counts of operations: the conventions of the papers, as one accounting each.

All numbers are estimates, not measurements. The constants are those of `measure.constants`.
"""

from collections.abc import Callable

from ..measure import Constants
from ..measure.constants import FLOAT_ADD, FLOAT_MAC
from .account import Account, Counts, Layer
from .conventions import meta_spikeformer, spikingformer
from .exact import exact
from .honest import costs, honest

NOTES = (
    "An estimate from counts of operations, not a measurement.",
    "Memory traffic and the updates of membrane potentials are outside of it.",
)
WITH_NEURONS = "Memory traffic is outside of it; every update of a neuron costs {} pJ."


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
    if "integers" in choices and "integers" not in switches:
        settings["integers"] = counts.integers
    make, formula, notes = PRESETS[preset]
    updates = sum(
        operation.dense / operation.samples for operation in counts.operations if operation.category == "neuron"
    )
    layers = make(counts, **settings)
    usual, per_bit = costs(**settings) if preset == "honest" else (Constants(), 0.0)
    constants = constants or usual
    general = (NOTES[0], WITH_NEURONS.format(constants.neuron)) if constants.neuron else NOTES
    if per_bit:
        general = NOTES[:1]
    if per_bit or constants != usual:
        general = (
            *general,
            f"Constants: {constants.mac:g} pJ a MAC, {constants.ac:g} pJ an AC"
            + f", {per_bit:.4g} pJ a bit" * bool(per_bit)
            + ".",
        )
    return Account(preset, settings, formula, (*general, *notes), layers, updates, constants, per_bit)


PRESETS: dict[str, tuple[Callable[..., list[Layer]], str, tuple[str, ...]]] = {
    "exact": (
        exact,
        f"E = {FLOAT_MAC} pJ * MAC + {FLOAT_ADD} pJ * AC over every operator that the audit saw. A product with a spike costs one AC where both "
        "sides are not zero (zero padding never fires), and as many where neurons emit several thresholds at once; any other product costs "
        "one MAC; biases, residual sums and averages cost one AC each.",
        (),
    ),
    "spikingformer": (
        spikingformer,
        f"E = {FLOAT_MAC} pJ * MAC + {FLOAT_ADD} pJ * (sum of dense * r over spike-fed convolutions and linear layers + sum over blocks of "
        "T * h * N * (D/h)^2 * (min(r_k, r_v) + r_q)). MAC: the first convolution, T times, and layers that read no spikes, such as the "
        "head. Biases are part of dense.",
        ("Normalisation, pooling, neurons, scaling and residual sums are not counted.",),
    ),
    "meta_spikeformer": (
        meta_spikeformer,
        f"E = {FLOAT_MAC} pJ * FL_1 + {FLOAT_ADD} pJ * (T * sum of FL * r over convolutions and linear layers + T * N * D^2/h * (min(r_k, r_v) + r_q) per "
        "attention). FL: operations of one time step without biases.",
        (
            "Normalisation is folded; pooling, neurons and residual sums are not counted.",
            "No script of the paper was published; which convolutions it merged is inferred from its figures (switches repconv, sepconv).",
        ),
    ),
    "honest": (
        honest,
        "E = e_MAC * MAC + e_AC * AC + e_bit * bits moved. Weights and activations have `bits` bits; a spike 1, a potential 16. A synaptic "
        "operation reads a weight and, event by event, reads and writes a potential; a neuron reads and writes its potential at every step "
        "and writes a bit. The ANN is the quantised dense twin, which reads a weight and an activation for every product.",
        (
            "Constants of Horowitz, ISSCC 2014 (45 nm); nothing is used twice but what lies in a register, on either side.",
            "Merge the network first: what it multiplies is charged as it stands.",
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
    "honest": {
        "bits": (8, 4, 16),
        "memory": ("8KB", "32KB", "1MB", "dram"),
        "potentials": ("event", "step"),
        "integers": ("mac", "levels"),
    },
}
"""By preset: its switches and their values, the default first; of `integers` it is "levels" where neurons emit several thresholds, or
thresholds of either sign."""
