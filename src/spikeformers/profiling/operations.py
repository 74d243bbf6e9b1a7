"""Follows data through a network, operator by operator: what is multiplied with what, and how much of it is zero.

Everything below modules is seen, functional calls too, since torch announces every operator to the `Recorder`. What a tensor
holds is looked up in its values, not in its name: a convolution is fed with spikes if every number it reads is 0 or 1.
"""
# Shapes: T time steps, B batch, C channels; N rows of any layout with T * B in front.

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from ..transforms.event_driven import EventDriven, EventDrivenConverted
from ..transforms.sta import Converted, approximators

KINDS = ("binary", "ternary", "integer", "real")
"""What the values of an operand are, each kind holding those before it: {0, 1}; {-1, 0, 1}; integers; anything."""

PRODUCTS = ("convolution", "linear", "matmul", "product", "scale", "normalisation")
"""Categories of operations that multiply."""
MEASURED = ("convolution", "linear", "matmul", "product", "scale")
"""Categories whose operands decide whether the multiplication is one, so that their values are looked at."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAME = _words("view _unsafe_view _reshape_alias unsqueeze squeeze contiguous clone detach alias")
_TURNED = _words("transpose permute t movedim")
_MOVES = _words(
    "expand slice select cat stack split split_with_sizes unbind chunk index gather index_select constant_pad_nd repeat "
    "repeat_interleave roll flip rot90 as_strided copy copy_ fill fill_ zero zero_ upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d im2col unfold pixel_shuffle pixel_unshuffle channel_shuffle reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d scatter scatter_ masked_fill masked_fill_ where tril triu diagonal embedding "
    "_to_copy lift lift_fresh index_put index_put_ masked_select resize_ set_"
)
_FRESH = _words(
    "new_zeros new_ones new_empty new_empty_strided new_full empty_like zeros_like ones_like full_like rand_like randn_like"
)
_YES_OR_NO = _words("eq ne lt le gt ge logical_and logical_or logical_not logical_xor any all isnan isinf isfinite")
_COMPARISONS = _YES_OR_NO | _words(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d max min "
    "amax amin aminmax relu relu_ clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ hardtanh hardtanh_ maximum minimum "
    "bitwise_and bitwise_or bitwise_not bitwise_xor sign abs argmax argmin topk sort "
    "round round_ floor floor_ ceil ceil_ trunc heaviside nonzero threshold threshold_"
)
_ADDITIONS = _words("add add_ sub sub_ rsub sum cumsum neg neg_ index_add index_add_ scatter_add scatter_add_")
_AVERAGES = _words(
    "mean avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d"
)
_CONVOLUTIONS = _words("convolution _convolution convolution_overrideable")
_MATMULS = _words("mm bmm mv dot vdot addmm addmv baddbmm addbmm linear")
_SCALINGS = _words("mul mul_ div div_")
_NORMALISATIONS = _words(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm batch_norm"
)

DOUBLING = "bilinear doubling"
"""Interpolation to twice the height and width: its weights are 1/16, 3/16 and 9/16, and 1/4, 3/4 and 1 at borders."""

_NEURONS = _words("lif integrate_and_fire transmit")

_LEAVING = {  # how values leave torch, or come in, without an operator
    Tensor.numpy: "numpy()",
    Tensor.tolist: "tolist()",
    Tensor.__array__: "numpy()",
    Tensor.__dlpack__: "DLPack",
    Tensor.data_ptr: "data_ptr()",
    Tensor.untyped_storage: "its storage",
    Tensor.data.__set__: "its data attribute",
    Tensor.data.__get__: "its data attribute",
}


class Values:
    """What is known of a tensor's values; tensors that hold the same ones in the same order share one of these.

    Attributes:
        data: whether they depend on the network's input; weights, constants and what is made of them do not. None if nobody knows.
        steps: T, over which the leading axis runs slowest.
        kind: one of KINDS, None until it is wanted.
        active: how many are not zero at each time step [T].
        levels: sum of their absolute values [T]; of real values how many are not zero.
        counts: how many are not zero at each pixel [T, pixels].
        expected: the kind that follows from the operators alone, which counts where all values are zero.
        neuron: name of the neuron that emitted them, "" for others.
        given: whether they are the network's input, moved about at most.
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
        "given",
        "potential",
        "version",
    )

    def __init__(self, data: bool | None, steps: int = 1, expected: str = "real"):
        self.data, self.steps, self.expected = data, steps, expected
        self.neuron, self.given, self.potential = "", False, False
        self.forget()

    def forget(self) -> None:
        """What was measured no longer holds."""
        self.kind = self.active = self.levels = self.counts = self.version = None


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def kind_of(x: Tensor) -> str:
    """The narrowest of KINDS that holds every value of x."""
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
    return max(kinds, key=KINDS.index)


def _summed(a: list[float], b: list[float]) -> list[float]:
    """Step by step; only the totals if one of them was not resolved in time."""
    if not a or not b:
        return a or b
    return [x + y for x, y in zip(a, b, strict=True)] if len(a) == len(b) else [sum(a) + sum(b)]


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
    given: bool = False  # the network's input itself

    def add(self, other: "Operand") -> None:
        self.kind = widest((self.kind, other.kind))
        self.active, self.levels = _summed(self.active, other.active), _summed(self.levels, other.levels)
        self.given = self.given and other.given
        self.size += other.size

    @property
    def rate(self) -> float | None:
        """Mean of the absolute values, for spikes the share of ones; of real values the share that is not zero. None if nothing was
        measured."""
        return sum(self.levels) / self.size if self.size and self.levels else None

    @property
    def rate_per_step(self) -> list[float]:
        return [level * len(self.levels) / self.size for level in self.levels] if self.size else []


@dataclass
class Operation:
    """One place where the network computes. Numbers are sums over all samples and time steps.

    Attributes:
        module: path of the innermost module, "" for the model itself.
        name: the operator for people, such as "convolution 3x3".
        category: one of PRODUCTS, "addition", "average", "neuron", "function" (a real function, or an operator that is not known) or
            "escape" (a value that comes from or goes to where it cannot be followed).
        index: how many operations of this name the module has begun before, in one forward pass.
        operands: the sides of a product, or the tensors of a function.
        dense: products if every value counts, without bias; for functions and normalisations one per output.
        unpadded: products if every value counts but the zeros of the padding.
        effective: products of which both sides are not zero.
        additions: additions outside of products: residual sums, averages.
        biases: additions of biases.
        steps: time steps that the operation runs for, 1 if its input does not depend on time.
        shape: of the output, without time and batch.
        samples: how many.
    """

    module: str
    name: str
    category: str
    index: int
    operands: list[Operand] = field(default_factory=list)
    dense: float = 0.0
    unpadded: float = 0.0
    effective: float = 0.0
    additions: float = 0.0
    biases: float = 0.0
    steps: int = 1
    shape: tuple[int, ...] = ()
    samples: int = 0

    @property
    def data(self) -> list[Operand]:
        return [operand for operand in self.operands if operand.role == "data"]

    @property
    def spike_fed(self) -> bool:
        """Whether no multiplication is needed: one side of every product is 0 or 1 (or -1)."""
        return any(operand.kind in ("binary", "ternary") for operand in self.operands if operand.role != "number")


class Recorder(TorchDispatchMode):
    """Sees every operator of a model's forward passes; `operations` has them in order of their first appearance.

    Args:
        model: the model that will be called, with or without values: on the meta device kinds follow from the operators alone.
        maps_of: of how many samples of the first batch firing rates are kept per pixel.
    """

    def __init__(self, model: nn.Module, maps_of: int = 0):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(f"expected a model (torch.nn.Module), not {type(model).__name__}")
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise ValueError(
                    f"{name or 'the model'} is scripted, so it cannot be followed; give the module that it was made of"
                )
        # modules whose own operators are no layers: geometry of boxes, resizing of images (tasks' networks name them)
        self.outside = frozenset(getattr(model, "outside", ()))
        self.varied = hasattr(model, "outside")  # such networks take images of any size
        self.names = {module: name for name, module in model.named_modules()}
        self.stepped = {module.model for module in self.names if isinstance(module, Converted)}  # which run once for each time step
        self.step, self.done = 0, {}  # time steps begun, and how often each operation was, in this pass
        self.operations: dict[tuple, Operation] = {}
        self.neurons: dict[str, Operand] = {}
        self.neuron_shapes: dict[str, tuple[int, ...]] = {}
        self.maps: dict[str, Tensor] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.maps_of = maps_of
        self.samples = 0
        self.model = model
        self.tensors = [*model.parameters(), *model.buffers(), *_plain_tensors(model)]
        self.constants = set(map(id, self.tensors))
        self.batch, self.length, self.sample_shape, self.busy = 0, None, (), False
        self.stack: list[str] = [""]
        self.started: dict[tuple[str, str], int] = {}
        self.written: list[Tensor] = []  # constants that data was written into
        self.fan_outs: dict[tuple, Tensor] = {}
        self.full_weights: dict[tuple, bool] = {}

    @contextmanager
    def recording(self, x: Tensor) -> Iterator["Recorder"]:
        """Inside, one forward pass on x, [B, ...] or [T, B, C, H, W], is followed.

        Raises:
            ValueError: x has another number of time steps than the inputs before.
        """
        length, shape = x.shape[0] if x.ndim == 5 else None, tuple(x.shape[2 if x.ndim == 5 else 1 :])
        if self.samples and shape != self.sample_shape and not self.varied:
            raise ValueError(
                f"inputs {list(self.sample_shape)} and {list(shape)} cannot be counted together; profile them one by one"
            )
        if not x.is_meta and x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError("the input holds NaN or infinity, so rates would mean nothing; look at the data")
        self.sample_shape = shape
        if self.samples and length != self.length:
            raise ValueError(
                f"inputs of {self.length} and of {length} time steps cannot be counted together; profile them one by one"
            )
        self.length, self.batch = length, x.shape[1] if x.ndim == 5 else x.shape[0]
        self.step = 0
        self.done.clear()
        self.started.clear()
        self.written.clear()
        self.stack[:] = [""]
        hooks = []
        for module, name in self.names.items():
            if module in self.stepped:
                hooks.append(module.register_forward_pre_hook(self._begin_step))
            hooks.append(module.register_forward_pre_hook(self._entering(name)))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        x._spike_values = Values(True, length or 1)
        x._spike_values.given = True
        try:
            with torch.inference_mode(False), torch.no_grad(), _Leaving(self), self:
                yield self
            self.samples += self.batch
        finally:
            for hook in hooks:
                hook.remove()
            for tensor in (x, *self.tensors):  # buffers may have been written into
                if hasattr(tensor, "_spike_values"):
                    del tensor._spike_values

    # These hooks listen: see layers.hooks.

    def _entering(self, name):
        def enter(module, args):
            self.stack.append(name)

        enter.listens = True
        return enter

    def _begin_step(self, module, args):
        self.step += 1
        self.started.clear()

    _begin_step.listens = True

    def _leave(self, module, args, output):
        name = self.stack.pop()
        if isinstance(output, Tensor):
            values = self._values(output)
            timed = output.ndim > 1 and tuple(output.shape[:2]) == (values.steps, self.batch)
            self.outputs[name] = tuple(output.shape[2 if timed else 1 :])
        if not name and name not in self.outside:
            for tensor in tree_leaves(output):
                if not isinstance(tensor, Tensor) or id(tensor) in self.constants:
                    continue
                if not self._values(tensor).data:
                    self._escape("output that does not follow from the input", tensor)
                elif self._values(tensor).potential:
                    self._escape("membrane potential as an output", tensor)

    _leave.listens = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there, operators arrive that are made of others
            with self:
                parts = function.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        namespace, _, name = function._schema.name.partition("::")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            values = self._values(tensor)
            if values.data is None and self.stack[-1] in self.outside:
                values.data = False  # anchors, sizes
            if values.data is None and name not in ("lift_fresh", "detach", "alias"):
                self._escape("tensor made by Python or NumPy", tensor)
            if values.potential and namespace == "aten":
                values.potential = False
                self._finish(self._operation("membrane potential", "function", [tensor]), name, args, kwargs, tensor)
        data = any(self._values(tensor).data for tensor in inputs)
        counted = data and (self.stack[-1] not in self.outside or name == "roi_align")  # which interpolates feature maps
        operation = self._begin(function, namespace, name, args, kwargs) if counted else None
        self.busy = True
        try:
            out = function(*args, **kwargs)
        finally:
            self.busy = False
        self._hand_on(function, namespace, name, args, kwargs, inputs, out, data)
        if operation is not None:
            self._finish(operation, name, args, kwargs, out)
        return out

    def leaving(self, x: Tensor, how: str) -> None:
        """Values leave torch past its operators, or come in."""
        if not self.busy and self._values(x).data and self.stack[-1] not in self.outside:
            self._escape(f"values touched through {how}", x)

    # What is known of tensors

    def _values(self, x: Tensor) -> Values:
        values = getattr(x, "_spike_values", None)
        if values is not None:
            if values.data is False and self.written and self._shares_storage(x):
                values.data = True
            if values.version not in (None, _version(x)):  # written into since
                values.forget()
            return values
        if id(x) in self.constants:
            return Values(False)
        return Values(None)

    def _shares_storage(self, x: Tensor) -> bool:
        return any(x.untyped_storage()._cdata == other.untyped_storage()._cdata for other in self.written)

    def _measure(self, x: Tensor, values: Values) -> None:
        """Fills in kind, counts and levels."""
        if x.is_meta:
            values.kind = values.expected
        if values.kind is not None:
            return
        values.kind = kind_of(x)
        steps = self._steps(x, values.steps)
        rows = x.unflatten(0, (steps, -1)) if x.ndim else x.reshape(1, 1)
        pixels = rows.ndim - (4 if x.ndim == 5 and steps == x.shape[0] else 3)  # [T, B, (B,) C, pixels]
        over = tuple(range(1, rows.ndim - max(pixels, 0)))
        nonzero = rows if values.kind == "binary" and x.is_floating_point() else (rows != 0).float()
        summed = math.prod(rows.shape[axis] for axis in over)
        values.counts = nonzero.sum(over, dtype=torch.float64 if summed > 2**24 else torch.float32).double()
        values.active = values.levels = values.counts.view(steps, -1).sum(1)
        if values.kind in ("ternary", "integer"):
            values.levels = rows.abs().sum(over, dtype=torch.float32).double().view(steps, -1).sum(1)
        if not values.levels.any():
            values.kind = values.expected
        values.version = _version(x)

    def _steps(self, x: Tensor, steps: int) -> int:
        """T if the leading axis of x can run over T time steps: [T, B, ...] or [T * B * something, ...]; 1 if it cannot."""
        leads = x.ndim > 1 and tuple(x.shape[:2]) == (steps, self.batch)
        return steps if leads or (x.ndim and x.shape[0] % (steps * self.batch) == 0) else 1

    def _operand(self, x) -> Operand:
        """What a product reads: a tensor, measured if it is data, or a number."""
        if not isinstance(x, Tensor):
            return Operand("number", "real" if float(x) != int(x) else "integer" if abs(x) > 1 else "binary")
        values = self._values(x)
        if values.data is False:  # a gain of 1.0 may be another after training, so only the type can excuse a constant
            return Operand("weight", "real" if x.is_floating_point() or x.is_complex() else kind_of(x))
        self._measure(x, values)
        operand = Operand("data", values.kind, values.neuron, size=x.numel(), given=values.given)
        if values.levels is not None:
            before = [0.0] * max(0, self.step - 1)
            operand.active, operand.levels = before + values.active.tolist(), before + values.levels.tolist()
        return operand

    def _is_full(self, weight: Tensor) -> bool:
        """Whether a weight has no zeros."""
        key = (id(weight), _version(weight))
        if key not in self.full_weights:
            full = bool((weight != 0).all())
            if id(weight) not in self.constants:  # its id will be used again
                return full
            self.full_weights[key] = full
        return self.full_weights[key]

    # From operators to operations

    def _begin(self, function, namespace: str, name: str, args, kwargs) -> Operation | None:
        """The operation that an operator on data is, its operands measured; None if it only moves or compares values."""
        plain = name.removesuffix("_")
        if namespace != "aten":
            if namespace == "spikeformers" and name in _NEURONS:
                return self._operation("neuron", "neuron", [])
            return self._operation(f"{namespace}::{name}", "function", self._tensors(args, kwargs))
        if _computes_after_all(function, plain, args, kwargs):
            return self._operation(plain.strip("_"), "function", self._tensors(args, kwargs))
        if {name, plain} & (_SAME | _TURNED | _MOVES | _FRESH | _COMPARISONS):
            return None
        if name in _CONVOLUTIONS:
            size = "x".join(map(str, args[1].shape[2:]))
            depthwise = args[8] > 1 and args[8] == args[0].shape[1]
            return self._operation(f"{'depthwise ' * depthwise}convolution {size}", "convolution", args[:2])
        if name in _MATMULS:
            sides = args[1:3] if name.startswith(("add", "badd")) else args[:2]
            weights = [side for side in sides if self._values(side).data is False]
            operation = self._operation(*(("linear", "linear") if weights else ("matmul", "matmul")), sides)
            for factor, scaled in (("alpha", sides[0]), ("beta", args[0])):
                if kwargs.get(factor, 1) not in (1, -1) and (factor == "alpha" or self._values(scaled).data):
                    self._scaling(scaled, f"{factor} of {name}")
            return operation
        if name in _SCALINGS:
            left, right = args[:2]
            if any(not isinstance(side, Tensor) and side in (1, -1) for side in (left, right)):
                return None
            divides = plain == "div" and isinstance(right, Tensor) and self._values(right).data
            if divides or kwargs.get("rounding_mode"):
                return self._operation("division", "function", [left, right])
            both = all(isinstance(side, Tensor) and self._values(side).data for side in (left, right))
            return self._operation(*(("product", "product") if both else ("scaling", "scale")), [left, right])
        if name in _NORMALISATIONS:
            return self._operation("batch normalisation", "normalisation", args[:1])
        if name == "upsample_bilinear2d" and not args[2] and [2 * side for side in args[0].shape[2:]] == list(args[1] or []):
            return self._operation(DOUBLING, "average", args[:1])
        if name in _AVERAGES:
            return self._operation("average", "average", args[:1])
        if plain in _ADDITIONS or name in _ADDITIONS:
            place = {"rsub": 0, "index_add": 3}.get(plain, 1)  # of what alpha scales
            scaled = args[place] if len(args) > place else None
            factor = kwargs.get("alpha", args[2] if plain == "rsub" and len(args) > 2 else 1)
            if factor not in (1, -1) and isinstance(scaled, Tensor) and self._values(scaled).data:
                self._scaling(scaled, f"alpha of {plain}")
            return self._operation("sum", "addition", [])
        if name == "_local_scalar_dense":
            return self._operation("value read by Python", "escape", args[:1])
        return self._operation(plain.strip("_"), "function", self._tensors(args, kwargs))

    @staticmethod
    def _tensors(args, kwargs) -> list[Tensor]:
        return [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]

    def _operation(self, name: str, category: str, operands: Sequence) -> Operation:
        """Notes that the operation happens once more, with these operands."""
        module = self.stack[-1]
        index = self.started[module, name] = self.started.get((module, name), -1) + 1
        if category in MEASURED:
            read = [self._operand(operand) for operand in operands]
        else:
            read = [
                Operand("data" if self._values(operand).data else "weight", "real")
                for operand in operands
                if isinstance(operand, Tensor)
            ]
        key = module, index, name
        if key not in self.operations:
            self.operations[key] = Operation(module, name, category, index, read)
        else:
            for known, new in zip(self.operations[key].operands, read, strict=True):
                known.add(new)
        return self.operations[key]

    def _scaling(self, x: Tensor, where: str) -> None:
        """A factor inside another operator: whatever it is applied to, the result holds more than spikes."""
        operation = self._operation(f"scaling ({where})", "scale", [x, 0.5])
        for operand in operation.data:
            operand.kind = "real"
        operation.dense += x.numel()
        operation.samples += self.batch

    def _escape(self, what: str, x: Tensor) -> None:
        x._spike_values = Values(True)
        with _disable_current_modes():
            operation = self._operation(what, "escape", [x])
        operation.samples += self.batch

    def _finish(self, operation: Operation, name: str, args, kwargs, out) -> None:
        """Counts what the operator did."""
        times = self.done[id(operation)] = self.done.get(id(operation), 0) + 1
        operation.samples += self.batch if times == 1 else 0
        first = next((leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), None)
        if operation.category == "escape" or first is None:
            return
        lif = operation.category == "neuron" and not self.step
        steps = first.shape[0] if lif else self._values(first).steps
        timed = first.ndim > 1 and tuple(first.shape[:2]) == (steps, self.batch)
        operation.shape = tuple(first.shape[2 if timed else 1 :])
        fewer = max(1, first.shape[0] // self.batch) if first.ndim else 1
        operation.steps = times * (steps if lif or self._steps(first, steps) == steps else fewer)
        match operation.category:
            case "convolution":
                self._count_convolution(operation, args, first)
            case "linear" | "matmul":
                self._count_matmul(operation, name, args, first)
            case "product" | "scale" | "normalisation" | "function":
                operation.dense += first.numel()
                operation.effective += (
                    first.numel() if first.is_meta or not operation.spike_fed else int(first.count_nonzero())
                )
            case "average":  # doubling is a + 2 a + b along one axis, for half the places, and then along the other
                operation.additions += 3 * first.numel() if operation.name == DOUBLING else args[0].numel()
            case "addition":
                operation.additions += args[0].numel() if name in ("sum", "cumsum") else first.numel()
            case "neuron":
                operation.dense += first.numel()
                self._count_spikes(first, operation)

    def _count_spikes(self, spikes: Tensor, operation: Operation) -> None:
        """The firing rate of a neuron; its output is measured here once for all who read it."""
        name = operation.module if not self.step else f"{operation.module}:{operation.index}"
        operand = self._operand(spikes)
        if name in self.neurons:
            self.neurons[name].add(operand)
        else:
            self.neurons[name] = operand
            self.neuron_shapes[name] = tuple(spikes.shape[1 if self.step else 2 :])
            if self.maps_of and spikes.ndim == 5 and not spikes.is_meta:
                self.maps[name] = spikes[:, : self.maps_of].mean((0, 2), dtype=torch.float32).cpu()

    def _count_convolution(self, operation: Operation, args, out: Tensor) -> None:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
        operation.dense += (x if transposed else out).numel() * weight[0].numel()
        if bias is not None:
            operation.biases += out.numel()
        fans = []  # along each axis, how many products each place takes part in
        for axis, size in enumerate(x.shape[2:]):
            key = (
                size,
                out.shape[2 + axis],
                weight.shape[2 + axis],
                stride[axis],
                padding[axis],
                dilation[axis],
                transposed,
            )
            if key not in self.fan_outs:
                self.fan_outs[key] = fan_out(*key)
            fans.append(self.fan_outs[key])
        channels = weight.shape[1] if transposed else weight.shape[0] // groups  # of the output, for one of the input
        unpadded = x.shape[0] * x.shape[1] * channels * math.prod(float(fan.sum()) for fan in fans)
        operation.unpadded += unpadded
        values = self._values(x)
        if x.is_meta or not values.data:
            operation.effective += unpadded
        elif self._values(weight).data or not self._is_full(weight):
            ones = [(z != 0).to(torch.float32) for z in (x, weight)]
            operation.effective += float(torch.ops.aten.convolution(*ones, None, *args[3:9]).sum(dtype=torch.float64))
        else:
            counts = values.counts  # of another arrangement, they have another shape, or there are none
            if counts is None or counts.shape[1:] != x.shape[2:]:
                counts = (x != 0).sum((0, 1), dtype=torch.float64)[None]
            counts = counts.sum(0)
            for fan in fans:
                counts = torch.tensordot(fan.to(counts.device), counts, dims=([0], [0]))
            operation.effective += float(counts) * channels

    def _count_matmul(self, operation: Operation, name: str, args, out: Tensor) -> None:
        biased = name.startswith(("add", "badd"))
        left, right = args[1:3] if biased else args[:2]
        if name == "linear":
            right = right.t()
            biased = len(args) > 2 and args[2] is not None
        products = left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
        operation.dense += products
        operation.unpadded += products
        if biased:
            operation.biases += out.numel()
        if out.is_meta:
            operation.effective += products
            return
        rows = _active(left, -2) if left.ndim > 1 else (left != 0).double()
        columns = _active(right, -1) if right.ndim > 1 else (right != 0).double()
        if name == "linear" and rows.ndim > 1:
            rows = rows.flatten(0, -2).sum(0)
        operation.effective += float((rows * columns).sum())

    # Handing on what is known

    def _hand_on(self, function, namespace, name, args, kwargs, inputs, out, data: bool) -> None:
        sources = [self._values(tensor) for tensor in inputs]
        steps = max([values.steps for values in sources if values.data], default=1)
        leaves = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in leaves:
            first = inputs[0] if inputs else None
            mutated = any(tensor is other for other in inputs)
            if mutated and data and self._values(tensor).data is False:
                self.written.append(tensor)
            known = sources[0] if sources else None
            if name in (_SAME | _TURNED) and tensor.numel() == first.numel() and tensor.dtype == first.dtype:
                tensor._spike_values = known if known.data is None or name in _SAME else _turned(known)
                continue
            new = Values(data and name not in _FRESH, 1, _kind_after(namespace, name, sources))
            if name in ("lift_fresh", "lift", "detach", "alias") and known is not None and known.data is None:
                new.data = None
            new.steps = self._steps_after(namespace, name, args, inputs, tensor, steps)
            moved = [values for values in sources if values.data] if name in _MOVES else []
            if moved:
                new.neuron = moved[0].neuron if len(moved) == 1 else ""
                new.given = all(values.given for values in moved)
            if self.stack[-1] in self.outside and data:  # a resized image is still the input
                new.given = all(values.given for values in sources if values.data)
            if namespace == "spikeformers":
                new.neuron, new.potential = self.stack[-1], tensor is not leaves[0]
            tensor._spike_values = new

    def _steps_after(self, namespace, name, args, inputs, out: Tensor, steps: int) -> int:
        """T of an output. Neurons have it in front; so have maps [T, B, C, H, W], and frames that are made from one [B, ...] by
        repeating, stacking or joining. T is lost where the leading axis no longer fits it."""
        if out.ndim < 2 or out.shape[1] != self.batch:
            return self._steps(out, steps)
        if name == "lif" or out.ndim == 5:
            return out.shape[0]
        first = inputs[0]
        if name in ("expand", "repeat", "cat", "stack") and steps == 1:
            grown = out.ndim == first.ndim + 1 and out.shape[1:] == first.shape
            joined = out.ndim == first.ndim and first.shape[0] == 1 and out.shape[1:] == first.shape[1:]
            if grown or joined:
                return out.shape[0]
        return self._steps(out, steps)


class _Leaving(TorchFunctionMode):
    """Tells the recorder of values that go past torch's operators."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function, types, args=(), kwargs=None):
        how = _LEAVING.get(function)
        if how is not None:
            for x in args[:2]:
                if isinstance(x, Tensor):
                    self.recorder.leaving(x, how)
        return function(*args, **(kwargs or {}))


def _turned(values: Values) -> Values:
    """The same values in another arrangement: what is known of pixels is no longer."""
    turned = copy.copy(values)
    turned.counts = None
    return turned


def _computes_after_all(function, name: str, args, kwargs) -> bool:
    """Whether an overload or argument makes arithmetic of an operator that moves or compares, or a factor of an average's own."""
    overload = function._overloadname
    return (
        (name == "scatter" and ("reduce" in overload or kwargs.get("reduce") is not None))
        or (name == "round" and "decimals" in overload)
        or (name == "view" and overload == "dtype")
        or (name.startswith("avg_pool") and _given(args, kwargs, 6, "divisor_override") is not None)
    )


def _given(args, kwargs, place: int, name: str):
    return args[place] if len(args) > place else kwargs.get(name)


def batches_of(data: Tensor | Iterable, model: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Pairs of inputs and labels (None without), from one batch x, one pair (x, labels), or batches of either kind; for networks that
    take images of any size also from single images [C, H, W].

    Raises:
        ValueError: there is something else in it.
    """
    pair = isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    if isinstance(data, Tensor) or (
        pair and data[1].ndim == 1 and not data[1].is_floating_point() and data[0].ndim > 1
    ):
        data = [data]
    if data is None or isinstance(data, (str, dict)):
        raise ValueError(
            f"expected a batch or batches of inputs, not {type(data).__name__}; give a tensor, or a DataLoader"
        )
    for batch in data:
        x, labels = (*batch, None)[:2] if isinstance(batch, (tuple, list)) and batch else (batch, None)
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise ValueError(
                f"expected batches of tensors [B, ...] or of pairs (tensor, labels), not {type(x).__name__}"
            )
        yield x[None] if x.ndim == 3 and hasattr(model, "outside") else x, labels


def record(
    model: nn.Module, inputs: Iterable[Tensor], maps_of: int = 0, then: Callable[[list], None] = lambda outputs: None
) -> Recorder:
    """Sends inputs, each [B, ...] or [T, B, C, H, W], through the model in eval mode and follows them; the model's mode is kept.
    What comes out is given to `then` in a list: one answer, or of a converted network that after every step. Those run in the form
    "spikes".

    Of an event-driven network that one is followed that it was made of.

    Raises:
        ValueError: there are no inputs.
    """
    model = model.merged if isinstance(model, (EventDriven, EventDrivenConverted)) else model
    recorder = Recorder(model, maps_of)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for x in inputs:
            with recorder.recording(x):
                outputs = list(model.steps(x, form="spikes")) if isinstance(model, Converted) else [model(x)]
            then(outputs)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not recorder.samples:
        raise ValueError(
            "there are no inputs to follow; give a tensor [B, C, H, W] or [T, B, C, H, W], or batches of them"
        )
    return recorder


def _plain_tensors(model: nn.Module) -> list[Tensor]:
    """Tensors that modules hold without having registered them."""
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    thresholds = [module.thresholds for module in model.modules() if isinstance(module, Converted)]
    return held + tree_leaves(thresholds) + approximators.tables()


def _active(x: Tensor, axis: int) -> Tensor:
    return (x != 0).sum(axis, dtype=torch.float64)


def _kind_after(namespace: str, name: str, sources: Sequence[Values]) -> str:
    """The kind that an operator's output has for certain, whatever the values."""
    if namespace == "spikeformers":
        return "binary"
    kinds = [values.kind or values.expected for values in sources if values.data]
    plain = name.removesuffix("_")
    if plain in _YES_OR_NO:
        return "binary"
    if plain == "sign":
        return "ternary"
    if (
        plain in _COMPARISONS
        and "pool" not in plain
        and plain not in ("amax", "max", "relu", "maximum", "minimum", "amin", "min")
    ):
        return "real"
    if plain in _COMPARISONS or name in _SAME or name in _TURNED or name in _MOVES:
        return widest(kinds or ["real"])
    if plain == "mul" and kinds == ["binary", "binary"]:
        return "binary"
    if plain in _ADDITIONS or (plain == "mul" and len(sources) == 2) or name in ("mm", "bmm"):
        return "integer" if kinds and len(kinds) == len(sources) and "real" not in kinds else "real"
    return "real"


def fan_out(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, transposed: bool) -> Tensor:
    """How many products each of `size` input places along one axis takes part in, per channel of the output: fewer at borders."""
    places, taps = torch.arange(size)[:, None], torch.arange(kernel)[None] * dilation
    if transposed:
        reached = places * stride - padding + taps
        return ((reached >= 0) & (reached < out)).sum(1).double()
    reached = places + padding - taps
    return ((reached % stride == 0) & (reached >= 0) & (reached < out * stride)).sum(1).double()
