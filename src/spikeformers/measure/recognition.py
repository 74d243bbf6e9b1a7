"""Which operation an operator of torch is: a layer, a function, a sum, or nothing that costs anything."""

from functools import partial

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..kernels.lif import Dynamics
from .ledger import Ledger
from .operation import Operation
from .operators import (
    ADDITIONS,
    AVERAGES,
    COMPARISONS,
    CONVOLUTIONS,
    DOUBLING,
    FRESH,
    MATMULS,
    MOVES,
    NEURONS,
    NORMALISATIONS,
    SAME,
    SCALINGS,
    TURNED,
    computes_after_all,
)


def recognise(ledger: Ledger, module: str, function, args, kwargs) -> Operation | None:
    """The operation that an operator on data is, its operands measured; None if it only moves or compares values.

    Args:
        ledger: where it is noted.
        module: path of the innermost module that runs.
        function: the operator's overload.
        args, kwargs: what it is called with.
    """
    namespace, _, name = function._schema.name.partition("::")
    known, begin = ledger.known, partial(ledger.begin, module)
    plain = name.removesuffix("_")
    if namespace != "aten":
        if namespace == "spikeformers" and name in NEURONS:
            operation = begin("neuron", "neuron", [])
            if name == "lif":
                operation.arithmetic = Dynamics.restored(args[2:-1]).arithmetic
            return operation
        return begin(f"{namespace}::{name}", "function", _tensors(args, kwargs))
    if computes_after_all(function, plain, args, kwargs):
        return begin(plain.strip("_"), "function", _tensors(args, kwargs))
    if {name, plain} & (SAME | TURNED | MOVES | FRESH | COMPARISONS):
        return None
    if name in CONVOLUTIONS:
        size = "x".join(map(str, args[1].shape[2:]))
        depthwise = args[8] > 1 and args[8] == args[0].shape[1]
        return begin(f"{'depthwise ' * depthwise}convolution {size}", "convolution", args[:2])
    if name in MATMULS:
        sides = args[1:3] if name.startswith(("add", "badd")) else args[:2]
        weights = [side for side in sides if known.values(side).data is False]
        operation = begin(*(("linear", "linear") if weights else ("matmul", "matmul")), sides)
        for factor, scaled in (("alpha", sides[0]), ("beta", args[0])):
            if kwargs.get(factor, 1) not in (1, -1) and (factor == "alpha" or known.values(scaled).data):
                ledger.scaling(module, scaled, f"{factor} of {name}")
        return operation
    if name in SCALINGS:
        left, right = args[:2]
        if any(not isinstance(side, Tensor) and side in (1, -1) for side in (left, right)):
            return None
        divides = plain == "div" and isinstance(right, Tensor) and known.values(right).data
        if divides or kwargs.get("rounding_mode"):
            return begin("division", "function", [left, right])
        both = all(isinstance(side, Tensor) and known.values(side).data for side in (left, right))
        operation = begin(*(("product", "product") if both else ("scaling", "scale")), [left, right])
        ledger.count_levels(operation, left, right)
        return operation
    if name in NORMALISATIONS:
        return begin("batch normalisation", "normalisation", args[:1])
    if (
        name == "upsample_bilinear2d"
        and not args[2]
        and [2 * side for side in args[0].shape[2:]] == list(args[1] or [])
    ):
        return begin(DOUBLING, "average", args[:1])
    if name in AVERAGES:
        return begin("average", "average", args[:1])
    if plain in ADDITIONS or name in ADDITIONS:
        place = {"rsub": 0, "index_add": 3}.get(plain, 1)  # of what alpha scales
        scaled = args[place] if len(args) > place else None
        factor = kwargs.get("alpha", args[2] if plain == "rsub" and len(args) > 2 else 1)
        if factor not in (1, -1) and isinstance(scaled, Tensor) and known.values(scaled).data:
            ledger.scaling(module, scaled, f"alpha of {plain}")
        return begin("sum", "addition", [])
    if name == "_local_scalar_dense":
        return begin("value read by Python", "escape", args[:1])
    return begin(plain.strip("_"), "function", _tensors(args, kwargs))


def _tensors(args, kwargs) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
