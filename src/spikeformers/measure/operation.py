"""One place where a network computes, and what is charged for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..kernels.lif import Arithmetic
from .operators import PRODUCTS
from .values import Operand, summed

CHARGES = ("synops", "macs", "additions", "functions")
"""What an operation may be charged for: the columns of a `Tally` that are no emissions."""


@dataclass
class Operation:
    """Numbers are sums over all samples and time steps; `counted` has them step by step.

    Attributes:
        module: path of the innermost module, "" for the model itself.
        name: the operator for people, such as "convolution 3x3".
        category: one of PRODUCTS, "addition", "average", "neuron", "function" (a real function, or an operator that is not known) or
            "escape" (a value that comes from or goes to where it cannot be followed).
        index: how many operations of this name the module has begun before, in one forward pass.
        operands: the sides of a product, or the tensors of a function.
        steps: time steps that the operation runs for, 1 if its input does not depend on time.
        shape: of the output, without time and batch.
        samples: how many.
        arithmetic: of neurons, what one is charged for a time step.
        counted: at each time step, by name: `dense`, products if every value counts, without bias, and for functions and normalisations
            one per output; `unpadded`, products if every value counts but the zeros of the padding; `effective`, products of which both
            sides are not zero; `synops`, the same with a value of k on the side of the spikes counting as |k|; `additions` outside of
            products (residual sums, averages); `biases`, additions of biases.
    """

    module: str
    name: str
    category: str
    index: int
    operands: list[Operand] = field(default_factory=list)
    steps: int = 1
    shape: tuple[int, ...] = ()
    samples: int = 0
    arithmetic: Arithmetic = Arithmetic()
    counted: dict[str, list[float]] = field(default_factory=dict)

    def count(self, what: str, numbers: Sequence[float], step: int = 0) -> None:
        """Adds numbers of consecutive time steps.

        Args:
            step: of the first, where a network is called for every step; 0 if it is not.
        """
        numbers = [0.0] * (step - 1) + list(map(float, numbers))
        self.counted[what] = summed(self.counted.get(what, []), numbers, padded=step > 0)

    def _sum(self, what):
        return sum(self.counted.get(what, ()))

    @property
    def dense(self) -> float:
        return self._sum("dense")

    @property
    def unpadded(self) -> float:
        return self._sum("unpadded")

    @property
    def effective(self) -> float:
        return self._sum("effective")

    @property
    def synops(self) -> float:
        return self._sum("synops")

    @property
    def additions(self) -> float:
        return self._sum("additions")

    @property
    def biases(self) -> float:
        return self._sum("biases")

    @property
    def data(self) -> list[Operand]:
        return [operand for operand in self.operands if operand.role == "data"]

    @property
    def spike_fed(self) -> bool:
        """Whether no multiplication is needed: one side of every product is 0 or 1 (or -1)."""
        return any(operand.kind in ("binary", "ternary") for operand in self.operands if operand.role != "number")

    @property
    def place(self) -> str:
        """A name for people and tables."""
        return f"{self.module or '(the model itself)'}: {self.name}" + f" {self.index + 1}" * bool(self.index)

    def adds(self, integers: str) -> bool:
        """Whether a product is charged as additions, since one side holds spikes, or whole numbers that count as so many thresholds
        ("levels")."""
        if self.category not in PRODUCTS or self.category == "normalisation":
            return False
        return self.spike_fed or (integers == "levels" and any(operand.kind == "integer" for operand in self.data))

    def charged(self, integers: str) -> dict[str, list[float]]:
        """What it costs at each time step, by CHARGES.

        Args:
            integers: how products of whole numbers are charged: as multiplications ("mac"), or as so many additions ("levels").
        """
        found = {"additions": summed(self.counted.get("additions", []), self.counted.get("biases", []), padded=True)}
        dense = self.counted.get("dense", [])
        if self.category == "function":
            found["functions"] = dense
        elif self.adds(integers):
            caused = "additions" if self.category == "scale" else "synops"  # a factor is no synapse
            found[caused] = self.counted.get("effective" if self.spike_fed else "synops", [])
        elif self.category in PRODUCTS:
            found["macs"] = dense
        return {name: numbers for name, numbers in found.items() if numbers}
