"""Follows data through a network, operator by operator: what is multiplied with what, and how much of it is zero.

Everything below modules is seen, functional calls too, since torch announces every operator to the `Recorder`. What a tensor
holds is looked up in its values, not in its name: a convolution is fed with spikes if every number it reads is 0 or 1.
"""
# Shapes: T time steps, B batch, C channels; N rows of any layout with T * B in front.

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

KINDS = ("binary", "ternary", "integer", "real")
"""What the values of an operand are, each kind holding those before it: {0, 1}; {-1, 0, 1}; integers; anything."""

PRODUCTS = ("convolution", "linear", "matmul", "product", "scale", "normalisation")
"""Categories of operations that multiply."""
MEASURED = ("convolution", "linear", "matmul", "product", "scale")
"""Categories whose operands decide whether the multiplication is one, so that their values are looked at."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAME = _words("view _unsafe_view _reshape_alias unsqueeze squeeze transpose permute t contiguous clone detach alias")
_MOVES = _words(
    "expand slice select cat stack split split_with_sizes unbind chunk index gather index_select constant_pad_nd repeat "
    "repeat_interleave roll flip rot90 as_strided copy copy_ fill fill_ zero zero_ arange eye scalar_tensor linspace randn rand uniform_ "
    "normal_ bernoulli_ randperm empty empty_strided zeros ones full upsample_nearest1d upsample_nearest2d upsample_nearest3d im2col unfold pixel_shuffle pixel_unshuffle channel_shuffle "
    "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d scatter scatter_ masked_fill masked_fill_ where tril triu "
    "diagonal embedding _to_copy lift lift_fresh movedim index_put index_put_ masked_select resize_ set_"
)
_FRESH = _words(
    "new_zeros new_ones new_empty new_empty_strided new_full empty_like zeros_like ones_like full_like rand_like randn_like"
)
_COMPARISONS = _words(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d max min "
    "amax amin aminmax relu relu_ clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ hardtanh hardtanh_ maximum minimum eq ne lt le gt ge "
    "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor any all sign abs argmax argmin topk sort "
    "round round_ floor floor_ ceil ceil_ trunc heaviside isnan isinf isfinite nonzero threshold threshold_"
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


class Values:
    """What is known of a tensor's values; tensors that hold the same ones in another arrangement share one of these.

    Attributes:
        data: whether they depend on the network's input; weights, constants and what is made of them do not. None if nobody knows.
        steps: T, over which the leading axis runs slowest.
        kind: one of KINDS, None until it is wanted.
        counts: how many are not zero [T, ...], with the pixels' axes behind T if there are any.
        levels: sum of their absolute values [T]; of real values how many are not zero.
        expected: the kind that follows from the operators alone, which counts where all values are zero.
        neuron: name of the neuron that emitted them, "" for others.
        version: of the tensor when it was measured.
    """

    __slots__ = ("data", "steps", "kind", "counts", "levels", "expected", "neuron", "version")

    def __init__(self, data: bool | None, steps: int = 1, expected: str = "real", neuron: str = ""):
        self.data, self.steps, self.expected, self.neuron = data, steps, expected, neuron
        self.kind = self.counts = self.levels = self.version = None


def kind_of(x: Tensor) -> str:
    """The narrowest of KINDS that holds every value of x."""
    if x.dtype == torch.bool or x.numel() == 0:
        return "binary"
    if x.is_complex():
        return "real"
    if x.is_floating_point():
        probe = x[:1].flatten()[:4096]  # the first of a batch tells most analog tensors apart
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

    def add(self, other: "Operand") -> None:
        self.kind = widest((self.kind, other.kind))
        self.active = [a + b for a, b in zip(self.active, other.active, strict=True)] if self.active else other.active
        self.levels = [a + b for a, b in zip(self.levels, other.levels, strict=True)] if self.levels else other.levels
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
        index: how many operations this module has begun before, in one forward pass.
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
        self.names = {module: name for name, module in model.named_modules()}
        self.operations: dict[tuple, Operation] = {}
        self.neurons: dict[str, Operand] = {}
        self.neuron_shapes: dict[str, tuple[int, ...]] = {}
        self.maps: dict[str, Tensor] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.maps_of = maps_of
        self.samples = 0
        self.model = model
        self.constants = {id(tensor) for tensor in [*model.parameters(), *model.buffers(), *_plain_tensors(model)]}
        self.stack: list[str] = [""]
        self.started: dict[str, int] = {}
        self.written: list[Tensor] = []  # constants that data was written into
        self.fan_outs: dict[tuple, Tensor] = {}
        self.full_weights: dict[tuple, bool] = {}

    @contextmanager
    def recording(self, x: Tensor) -> Iterator["Recorder"]:
        """Inside, one forward pass on x, [B, ...] or [T, B, C, H, W], is followed."""
        self.batch = x.shape[1] if x.ndim == 5 else x.shape[0]
        self.started.clear()
        self.stack[:] = [""]
        hooks = []
        for module, name in self.names.items():
            hooks.append(module.register_forward_pre_hook(lambda module, args, name=name: self.stack.append(name)))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        x._spike_values = Values(True, x.shape[0] if x.ndim == 5 else 1)
        try:
            with torch.no_grad(), self:
                yield self
            self.samples += self.batch
        finally:
            for hook in hooks:
                hook.remove()
            del x._spike_values

    def _leave(self, module, args, output):
        name = self.stack.pop()
        if isinstance(output, Tensor):
            values = self._values(output)
            lead = 2 if output.ndim in (3, 5) and output.shape[:2].numel() == values.steps * self.batch else 1
            self.outputs[name] = tuple(output.shape[lead:])
            if not name and values.data is None:
                self._escape("output", output)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name
        namespace, _, name = name.partition("::")
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            if self._values(tensor).data is None and name not in ("lift_fresh", "detach", "alias"):
                self._escape("a tensor", tensor)
        data = any(self._values(tensor).data for tensor in inputs)
        operation = self._begin(namespace, name, args, kwargs) if data else None
        out = function(*args, **kwargs)
        self._hand_on(function, namespace, name, args, kwargs, inputs, out, data)
        if operation is not None:
            self._finish(operation, name, args, kwargs, out)
        return out

    # What is known of tensors

    def _values(self, x: Tensor) -> Values:
        values = getattr(x, "_spike_values", None)
        if values is not None:
            if values.data is False and self.written and self._shares_storage(x):
                values.data = True
            if values.version not in (None, x._version):  # written into since
                values.kind = values.counts = values.levels = values.version = None
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
        steps = values.steps if x.ndim and x.shape[0] % values.steps == 0 else 1
        rows = x.unflatten(0, (steps, -1)) if x.ndim else x.reshape(1, 1)
        pixels = rows.ndim - (4 if x.ndim == 5 and steps == x.shape[0] else 3)  # [T, B, (B,) C, pixels]
        over = tuple(range(1, rows.ndim - max(pixels, 0)))
        active = rows if values.kind == "binary" and x.is_floating_point() else (rows != 0).float()
        summed = math.prod(rows.shape[axis] for axis in over)
        values.counts = active.sum(over, dtype=torch.float64 if summed > 2**24 else torch.float32).double()
        if values.kind in ("binary", "real"):
            values.levels = values.counts.view(steps, -1).sum(1)
        else:
            values.levels = rows.abs().sum(over, dtype=torch.float32).double().view(steps, -1).sum(1)
        if not values.levels.any():
            values.kind = values.expected
        values.version = x._version

    def _operand(self, x) -> Operand:
        """What a product reads: a tensor, measured if it is data, or a number."""
        if not isinstance(x, Tensor):
            return Operand("number", "real" if float(x) != int(x) else "integer" if abs(x) > 1 else "binary")
        values = self._values(x)
        if values.data is False:  # a gain of 1.0 may be another after training, so only the type can excuse a constant
            return Operand("weight", "real" if x.is_floating_point() or x.is_complex() else kind_of(x))
        self._measure(x, values)
        operand = Operand("data", values.kind, values.neuron)
        if values.levels is not None:
            counts = values.counts.view(len(values.counts), -1).sum(1)
            operand.active, operand.levels = counts.tolist(), values.levels.tolist()
        operand.size = x.numel()
        return operand

    def _is_full(self, weight: Tensor) -> bool:
        """Whether a weight has no zeros."""
        key = (id(weight), weight._version)
        if key not in self.full_weights:
            full = bool((weight != 0).all())
            if id(weight) not in self.constants:  # its id will be used again
                return full
            self.full_weights[key] = full
        return self.full_weights[key]

    # From operators to operations

    def _begin(self, namespace: str, name: str, args, kwargs) -> Operation | None:
        """The operation that an operator on data is, its operands measured; None if it only moves or compares values."""
        plain = name.removesuffix("_") if name not in ("zero_",) else name
        if namespace != "aten":
            if (namespace, name) == ("spikeformers", "lif"):
                return self._operation("neuron", "neuron", [])
            return self._operation(f"{namespace}::{name}", "function", self._tensors(args, kwargs))
        if (
            name in _SAME
            or name in _MOVES
            or name in _FRESH
            or name in _COMPARISONS
            or plain in _SAME
            or plain in _COMPARISONS
        ):
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
                if kwargs.get(factor, 1) not in (1, -1) and self._values(scaled).data:
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
        if name in _AVERAGES:
            return self._operation("average", "average", args[:1])
        if plain in _ADDITIONS or name in _ADDITIONS:
            factor = kwargs.get("alpha", args[2] if plain == "rsub" and len(args) > 2 else 1)
            if factor not in (1, -1):
                self._scaling(args[1] if isinstance(args[1], Tensor) else args[0], f"alpha of {plain}")
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
        index = self.started[module] = self.started.get(module, -1) + 1
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
        operation = self._operation(f"scaling ({where})", "scale", [x, 0.5])
        operation.dense += x.numel()
        operation.samples += self.batch

    def _escape(self, what: str, x: Tensor) -> None:
        x._spike_values = Values(True)
        with _disable_current_modes():
            operation = self._operation(f"{what} made by Python or NumPy", "escape", [x])
        operation.samples += self.batch

    def _finish(self, operation: Operation, name: str, args, kwargs, out) -> None:
        """Counts what the operator did."""
        operation.samples += self.batch
        if operation.category == "escape":
            return
        first = out if isinstance(out, Tensor) else out[0]
        lead = first.shape[0] if first.ndim else 1
        steps = self._values(first).steps
        time_and_batch = (
            first.ndim > 1 and first.shape[0] == steps and first.shape[1] == self.batch and first.ndim in (3, 5)
        )
        operation.shape = tuple(first.shape[2:] if time_and_batch else first.shape[1:])
        operation.steps = steps if lead % (steps * self.batch) == 0 or time_and_batch else max(1, lead // self.batch)
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
            case "average":
                operation.additions += args[0].numel()
            case "addition":
                operation.additions += args[0].numel() if name in ("sum", "cumsum") else first.numel()
            case "neuron":
                operation.dense += first.numel()
                self._count_spikes(first)

    def _count_spikes(self, spikes: Tensor) -> None:
        """The firing rate of a neuron; its output is measured here once for all who read it."""
        name = self.stack[-1]
        operand = self._operand(spikes)
        if name in self.neurons:
            self.neurons[name].add(operand)
        else:
            self.neurons[name] = operand
            self.neuron_shapes[name] = tuple(spikes.shape[2:])
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
            counts = values.counts
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
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor):
                continue
            first = inputs[0] if inputs else None
            mutated = any(tensor is other for other in inputs)
            if mutated and data and self._values(tensor).data is False:
                self.written.append(tensor)
            if name in _SAME and first is not None and tensor.numel() == first.numel() and tensor.dtype == first.dtype:
                shared = sources[0]
                tensor._spike_values = shared if shared.data is not None else Values(None)
                continue
            kind = _kind_after(namespace, name, sources)
            new = Values(
                data and name not in _FRESH, self._steps_of(namespace, name, args, kwargs, inputs, tensor, steps), kind
            )
            if name in ("lift_fresh", "lift", "detach", "alias") and sources and sources[0].data is None:
                new.data = None
            if name == "_to_copy" and tensor.is_floating_point():
                new.neuron = sources[0].neuron
            if namespace == "spikeformers":
                new.neuron = self.stack[-1]
            tensor._spike_values = new

    def _steps_of(self, namespace, name, args, kwargs, inputs, out: Tensor, steps: int) -> int:
        """T of an output: neurons have it in front; an axis 0 that comes, goes or grows changes it."""
        if namespace == "spikeformers" or (name == "stack" and (args[1] if len(args) > 1 else 0) == 0):
            return out.shape[0] if out.ndim else 1
        if name == "expand" and out.ndim == args[0].ndim and out.shape[0] != args[0].shape[0]:
            return out.shape[0]
        first = inputs[0] if inputs else None
        if name in ("mean", "sum") and first is not None and first.shape[0] == steps:
            dims = args[1] if len(args) > 1 else kwargs.get("dim")
            if dims is None or 0 in dims or -first.ndim in dims:
                return 1
        if name in ("select", "unbind") and (args[1] if len(args) > 1 else 0) == 0 and first.shape[0] == steps:
            return 1
        return steps


def record(
    model: nn.Module, inputs: Iterable[Tensor], maps_of: int = 0, then: Callable[[object], None] = lambda output: None
) -> Recorder:
    """Sends inputs, each [B, ...] or [T, B, C, H, W], through the model in eval mode and follows them; the model's mode is kept.
    What comes out is given to `then`.

    Raises:
        ValueError: there are no inputs.
    """
    recorder = Recorder(model, maps_of)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for x in inputs:
            with recorder.recording(x):
                output = model(x)
            then(output)
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
    return [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]


def _active(x: Tensor, axis: int) -> Tensor:
    return (x != 0).sum(axis, dtype=torch.float64)


def _kind_after(namespace: str, name: str, sources: Sequence[Values]) -> str:
    """The kind that an operator's output has for certain, whatever the values."""
    if namespace == "spikeformers":
        return "binary"
    kinds = [values.kind or values.expected for values in sources if values.data]
    plain = name.removesuffix("_")
    if (
        name in ("max_pool2d_with_indices", "amax", "max", "max_pool2d", "relu", "_to_copy")
        or name in _SAME
        or name in _MOVES
    ):
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
