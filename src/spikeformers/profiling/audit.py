"""Whether a network needs nothing but additions: a list of all products that data goes through, and of their operands."""

from dataclasses import asdict, dataclass

from torch import nn

from .._notebook import Table, Tabular
from ..layers import Part
from ..measure import Inputs, Recorder, record
from ..measure.operation import Operation
from ..measure.operators import DOUBLING, PRODUCTS
from .event_driven import network_behind

_ADVICE = {
    "normalisation": (
        "scales by real numbers",
        "fold it into the convolution or linear layer before it, as merge(model) does where a Sequential or a layer of spikeformers says which",
    ),
    "scale": (
        "multiplies by a constant",
        "fold it into the next threshold or the weights; merge(model) does so for attention",
    ),
    "product": ("multiplies two operands of which neither is a spike", "put a spiking neuron in front of one of them"),
    "matmul": ("multiplies two operands of which neither is a spike", "put a spiking neuron in front of one of them"),
    "function": ("is a real-valued function", "replace it by additions, comparisons or a spiking neuron"),
    "neuron": (
        "multiplies to bring its potential up to date",
        "take neurons whose step is additions and constant factors",
    ),
    "escape": ("cannot be followed", "keep values in torch; register constants as buffers of the module"),
}
_FED = {
    "real": (
        "reads real numbers",
        "put a spiking neuron in front of it",
    ),
    "integer": (
        "reads integers, so every value is several additions",
        "let single spikes come: by membrane shortcuts (shortcut='ms'), or levels=1 of a converted network",
    ),
}


@dataclass(frozen=True)
class Finding:
    """An operation that is not plain addition.

    Attributes:
        module: path of the module that computes it.
        operation: the operator for people.
        operands: the sides of the product: kinds of data, "weight" or "number".
        share: of all operations of the network, in [0, 1].
        reason, remedy: why it is no addition, and how to make it one.
    """

    module: str
    operation: str
    operands: tuple[str, ...]
    share: float
    reason: str
    remedy: str

    def __str__(self) -> str:
        where = self.module or "(the model itself)"
        what = f"{self.operation} of {' x '.join(self.operands)}" if self.operands else self.operation
        return f"{where}: {what} ({self.share:.3%}) {self.reason}" + f"; {self.remedy}" * bool(self.remedy)


@dataclass(frozen=True, repr=False)
class Audit(Tabular):
    """What `audit` found.

    Attributes:
        operations: how many operations compute with data.
        offending: those that need multiplications, largest share first.
        allowed: the exceptions that deployment knows how to deal with: layers that read the network's analog input itself, and
            averages, whose constant factor belongs into the next threshold or is dropped before an argmax; bilinear doubling.
        passing: all others, with the kinds of their operands.
        silent: places that read nothing but zeros, so that their inputs were judged by the operators before them.
        samples: how many samples went through.
        outside: modules whose own operators are not looked at: of detectors, what resizes images and reckons with boxes.
    """

    operations: int
    offending: tuple[Finding, ...]
    allowed: tuple[Finding, ...]
    passing: tuple[Finding, ...]
    silent: tuple[str, ...]
    samples: int
    outside: tuple[str, ...] = ()

    @property
    def additions_only(self) -> bool:
        return not self.offending

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        exceptions = ", ".join(dict.fromkeys(f"{f.module or 'model'} ({f.reason})" for f in self.allowed))
        if self.additions_only:
            text = f"additions only in all {self.operations} operations" + f", except {exceptions}" * bool(exceptions)
        else:
            share = sum(finding.share for finding in self.offending)
            part = f"{share:.2%}" if share >= 1e-4 else "less than 0.01%"
            text = f"not additions only: {len(self.offending)} of {self.operations} operations multiply, {part} of the work"
        if self.silent:
            text += f"; {len(self.silent)} read nothing but zeros here and were judged by their place"
        if self.outside:
            text += f"; the geometry of boxes is outside of it ({', '.join(name or 'the model itself' for name in self.outside)})"
        return text

    def __str__(self) -> str:
        groups = (("offending", self.offending), ("allowed", self.allowed))
        return "\n".join([self.verdict] + [f"  {name}: {finding}" for name, found in groups for finding in found])

    def tables(self) -> list[Table]:
        """For a notebook: the verdict, and what is not additions."""
        rows = [
            (
                group,
                finding.module or "(the model itself)",
                finding.operation,
                " x ".join(finding.operands),
                f"{finding.share:.3%}",
                finding.reason,
                finding.remedy,
            )
            for group, found in (("offending", self.offending), ("allowed", self.allowed))
            for finding in found
        ]
        header = ("", "module", "operation", "operands", "share of the work", "reason", "remedy")
        return [Table(rows, header if rows else (), self.verdict)]

    def to_dict(self) -> dict:
        """For JSON."""
        fields = asdict(self)
        return {"additions_only": self.additions_only, "verdict": self.verdict, **fields}


def audit(model: nn.Module, inputs: Inputs) -> Audit:
    """Follows data through a model in eval mode, and says which of its operations are not additions.

    An operation is additions only if one side of each of its products is 0 or 1 (or -1): a spike selects the other side, and
    nothing is multiplied. Sums, comparisons, pooling by maximum, spiking neurons (but those whose `arithmetic` has
    multiplications) and moving values about are additions or less. Everything else counts: convolutions, linear layers and matrix products of real or integer operands, products and
    scalings, normalisations, real functions, and operators or values that cannot be followed. Functional calls are seen like
    modules. What an operand holds is looked up in its values, over all inputs.

    Args:
        model: any model; it is left as it was.
        inputs: in any form of `measure.batches_of`; labels are not looked at.

    Raises:
        ValueError: there are no inputs, or what is given cannot be followed.
    """
    return judge(record(network_behind(model), inputs))


def judge(recorder: Recorder) -> Audit:
    """The audit of what a recorder saw."""
    counted = [o for o in recorder.operations.values() if o.category != "neuron" or o.arithmetic.multiplications]
    everything = sum(operation.dense + operation.additions + operation.biases for operation in counted) or 1
    chains = [name for name, module in recorder.model.named_modules() if isinstance(module, Part) and module.chain]
    offending, allowed, passing, silent = [], [], [], []
    for operation in counted:
        finding = _finding(
            operation, everything, any(f"{operation.module}.".startswith(f"{chain}.") for chain in chains)
        )
        if operation.category == "average":
            allowed.append(finding)
        elif operation.category in (*PRODUCTS, "function", "escape", "neuron") and not _adds(operation):
            (allowed if _reads_the_input(operation) else offending).append(finding)
        else:
            passing.append(finding)
        if any(operand.levels and not any(operand.levels) for operand in operation.data):
            silent.append(operation.module)
    by_share = sorted(offending, key=lambda finding: -finding.share)
    operations = sum(operation.category not in ("escape",) for operation in counted)
    return Audit(
        operations,
        tuple(by_share),
        tuple(allowed),
        tuple(passing),
        tuple(dict.fromkeys(silent)),
        recorder.samples,
        tuple(sorted(recorder.outside)),
    )


def _reads_the_input(operation: Operation) -> bool:
    """Whether it is a first layer: a convolution or linear layer with weights on the network's input itself."""
    return operation.category in ("convolution", "linear") and len(operation.data) == 1 and operation.data[0].is_input


def _adds(operation: Operation) -> bool:
    return operation.spike_fed and operation.category not in ("normalisation", "function", "escape", "neuron")


def _finding(operation: Operation, everything: float, mergeable: bool) -> Finding:
    operands = tuple(operand.kind if operand.role == "data" else operand.role for operand in operation.operands)
    if operation.name == DOUBLING:
        reason, remedy = "sums of neighbours with weights of sixteenths: additions and shifts", ""
    elif operation.category == "average":
        reason, remedy = "an average: additions and one constant factor", "fold the factor into the next threshold"
    elif _adds(operation) or operation.category == "addition":
        reason, remedy = "additions only", ""
    elif _reads_the_input(operation):
        reason, remedy = (
            "the analog input of the first layer",
            "give the network spikes if the hardware takes nothing else",
        )
    elif operation.category in ("convolution", "linear"):
        reason, remedy = _FED["integer" if operation.data and operation.data[0].kind == "integer" else "real"]
    else:
        reason, remedy = _ADVICE.get(operation.category, ("", ""))
    if mergeable and operation.category == "convolution" and operation.data and operation.data[0].kind == "real":
        remedy = "merge it with the convolution before it: merge(model, 'neuromorphic')"
    share = (operation.dense + operation.additions + operation.biases) / everything
    return Finding(operation.module, operation.name, operands, share, reason, remedy)
