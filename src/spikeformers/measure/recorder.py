"""Follows data through a network, operator by operator: what is multiplied with what, and how much of it is zero.

Everything below modules is seen, functional calls too, since torch announces every operator to the `Recorder`. What a tensor
holds is looked up in its values, not in its name: a convolution is fed with spikes if every number it reads is 0 or 1.
"""
# Shapes: T time steps, B batch, C channels; N rows of any layout with T * B in front.

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from ..kernels.lif import Dynamics
from ..layers.hooks import listening
from ..models.network import Configured
from ..neurons import Neuron
from .counting import all_reached, by_step, fan_out, met, reached
from .inputs import Inputs, batches_of, device_of, first_tensor, is_mask, samples_of
from .knowledge import Knowledge
from .networks import Stepped, place
from .operation import Operation
from .operators import (
    ADDITIONS,
    AVERAGES,
    COMPARISONS,
    CONVOLUTIONS,
    DOUBLING,
    FRESH,
    MATMULS,
    MEASURED,
    MOVES,
    NEURONS,
    NORMALISATIONS,
    SAME,
    SCALINGS,
    TURNED,
    computes_after_all,
)
from .tally import Tally
from .values import Operand, Values

LEAVING = {  # how values leave torch, or come in, without an operator
    Tensor.numpy: "numpy()",
    Tensor.tolist: "tolist()",
    Tensor.__array__: "numpy()",
    Tensor.__dlpack__: "DLPack",
    Tensor.data_ptr: "data_ptr()",
    Tensor.untyped_storage: "its storage",
    # of the class, data is a descriptor, which torch annotates as a tensor
    Tensor.data.__set__: "its data attribute",  # pyright: ignore[reportAttributeAccessIssue]
    Tensor.data.__get__: "its data attribute",  # pyright: ignore[reportAttributeAccessIssue]
}


class Recorder(TorchDispatchMode):
    """Sees every operator of a model's forward passes; `operations` has them in order of their first appearance.

    Args:
        model: the model that will be called, with or without values: on the meta device kinds follow from the operators alone.
        maps_of: of how many samples of the first batch firing rates are kept per pixel.

    Raises:
        ValueError: model is no module, or one of its modules is scripted.
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
        self.outside = frozenset(model.outside if isinstance(model, Configured) else ())
        self.varied = isinstance(model, Configured) and model.any_size
        # neurons with an equation of their own that say what they compute: their operators are part of them
        self.whole = {x for x in model.modules() if isinstance(x, Neuron) and not x.in_kernel and x.arithmetic() is not None}
        self.within = 0  # such neurons
        self.names = {module: name for name, module in model.named_modules()}
        self.stepped = {module.model for module in self.names if isinstance(module, Stepped)}  # which run once for each time step
        self.done: dict[int, int] = {}  # how often each operation was in this pass
        self.operations: dict[tuple, Operation] = {}
        self.neurons: dict[str, Operand] = {}
        self.neuron_shapes: dict[str, tuple[int, ...]] = {}
        self.maps: dict[str, Tensor] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.maps_of = maps_of
        self.samples = 0
        self.model = model
        self.tensors = [*model.parameters(), *model.buffers(), *_plain_tensors(model)]
        self.known = Knowledge(self.tensors)
        self.length, self.sample_shape, self.busy = None, (), False
        self.stack: list[str] = [""]
        self.started: dict[tuple[str, str], int] = {}
        self.fan_outs: dict[tuple, Tensor] = {}

    @contextmanager
    def recording(self, *args: Any, **kwargs: Any) -> Iterator["Recorder"]:
        """Inside, one forward pass on these arguments is followed: x, [B, ...] or [T, B, C, H, W], is their first tensor, see `Batch.x`.

        Raises:
            ValueError: there is no x, it has another shape or number of time steps than the inputs before, or holds NaN or infinity.
        """
        x = first_tensor(args, kwargs)
        if x is None:
            raise ValueError("there is no tensor among the network's arguments; give a batch [B, ...]")
        masks = [tensor for name, tensor in kwargs.items() if isinstance(tensor, Tensor) and is_mask(name) and tensor is not x]
        inputs = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor) and not any(tensor is m for m in masks)]
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
        self.length, self.known.batch = length, samples_of(x)
        self.known.step = 0
        self.done.clear()
        self.started.clear()
        self.known.written.clear()
        self.within = 0
        self.stack[:] = [""]
        hooks = []
        for module, name in self.names.items():
            if module in self.stepped:
                hooks.append(module.register_forward_pre_hook(self._begin_step))
            hooks.append(module.register_forward_pre_hook(listening(lambda module, args, name=name: self._enter(module, name))))
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        for tensor in inputs:
            values = Values(True, length or 1)
            values.is_input = True
            self.known.note(tensor, values)
        for tensor in masks:
            self.known.note(tensor, Values(False))
        try:
            with torch.inference_mode(False), torch.no_grad(), _Leaving(self), self:
                yield self
            self.samples += self.known.batch
        finally:
            for hook in hooks:
                hook.remove()
            for tensor in (*inputs, *masks, *self.tensors):  # buffers may have been written into
                self.known.forget(tensor)

    def run(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Follows one forward pass on these arguments, of which tensors are [B, ...] or [T, B, C, H, W]: what the model answers, or a network that runs
        step by step after each step."""
        with self.recording(*args, **kwargs):
            return list(self.model.answers(*args, **kwargs)) if isinstance(self.model, Stepped) else [self.model(*args, **kwargs)]

    @property
    def integers(self) -> str:
        """What becomes of products of whole numbers, see `Operation.charged`: additions where neurons emit several thresholds, or
        thresholds of either sign."""
        return "levels" if any(operand.kind in ("ternary", "integer") for operand in self.neurons.values()) else "mac"

    def tally(self, integers: str | None = None) -> Tally:
        """What was emitted, added and multiplied so far."""
        tally = Tally(self.samples)
        for name, operand in self.neurons.items():
            steps = max(1, len(operand.active))
            tally.add(name, emitted=operand.active, thresholds=operand.levels, places=[operand.size / steps] * steps)
        for operation in self.operations.values():
            tally.add(operation.place, **operation.charged(integers or self.integers))
        return tally

    @listening
    def _begin_step(self, module, args):
        self.known.step += 1
        self.started.clear()

    def _enter(self, module, name: str) -> None:
        self.stack.append(name)
        self.within += module in self.whole

    @property
    def _passed_over(self) -> bool:
        """Whether the operators that run now are no layers, or part of a neuron that says itself what it computes."""
        return self.within > 0 or self.stack[-1] in self.outside

    @listening
    def _leave(self, module, args, output):
        if module in self.whole:
            self.within -= 1
            if not self.within and isinstance(output, Tensor) and self.known.values(output).data:
                self._count_own_neurons(module, output)
        name = self.stack.pop()
        if isinstance(output, Tensor):
            values = self.known.values(output)
            timed = output.ndim > 1 and tuple(output.shape[:2]) == (values.steps, self.known.batch)
            self.outputs[name] = tuple(output.shape[2 if timed else 1 :])
        if not name and name not in self.outside:
            for tensor in tree_leaves(output):
                if not isinstance(tensor, Tensor) or id(tensor) in self.known.constants:
                    continue
                if not self.known.values(tensor).data:
                    self._escape("output that does not follow from the input", tensor)
                elif self.known.values(tensor).potential:
                    self._escape("membrane potential as an output", tensor)

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
            values = self.known.values(tensor)
            if values.data is None and self._passed_over:
                values.data = False  # anchors, sizes
            if values.data is None and name not in ("lift_fresh", "detach", "alias"):
                self._escape("tensor made by Python or NumPy", tensor)
            if values.potential and namespace == "aten" and not self.within:
                values.potential = False
                self._finish(self._operation("membrane potential", "function", [tensor]), name, args, kwargs, tensor)
        data = any(self.known.values(tensor).data for tensor in inputs)
        counted = data and (not self._passed_over or name == "roi_align")  # which interpolates feature maps
        operation = self._begin(function, namespace, name, args, kwargs) if counted else None
        self.busy = True
        try:
            out = function(*args, **kwargs)
        finally:
            self.busy = False
        self.known.hand_on(namespace, name, args, inputs, out, data, self.stack[-1], self._passed_over)
        if operation is not None:
            self._finish(operation, name, args, kwargs, out)
        return out

    def leaving(self, x: Tensor, how: str) -> None:
        """Values of x [...] leave torch past its operators, or come in."""
        if not self.busy and self.known.values(x).data and not self._passed_over:
            self._escape(f"values touched through {how}", x)

    # From operators to operations

    def _begin(self, function, namespace: str, name: str, args, kwargs) -> Operation | None:
        """The operation that an operator on data is, its operands measured; None if it only moves or compares values."""
        plain = name.removesuffix("_")
        if namespace != "aten":
            if namespace == "spikeformers" and name in NEURONS:
                operation = self._operation("neuron", "neuron", [])
                if name == "lif":
                    operation.arithmetic = Dynamics.restored(args[2:-1]).arithmetic
                return operation
            return self._operation(f"{namespace}::{name}", "function", self._tensors(args, kwargs))
        if computes_after_all(function, plain, args, kwargs):
            return self._operation(plain.strip("_"), "function", self._tensors(args, kwargs))
        if {name, plain} & (SAME | TURNED | MOVES | FRESH | COMPARISONS):
            return None
        if name in CONVOLUTIONS:
            size = "x".join(map(str, args[1].shape[2:]))
            depthwise = args[8] > 1 and args[8] == args[0].shape[1]
            return self._operation(f"{'depthwise ' * depthwise}convolution {size}", "convolution", args[:2])
        if name in MATMULS:
            sides = args[1:3] if name.startswith(("add", "badd")) else args[:2]
            weights = [side for side in sides if self.known.values(side).data is False]
            operation = self._operation(*(("linear", "linear") if weights else ("matmul", "matmul")), sides)
            for factor, scaled in (("alpha", sides[0]), ("beta", args[0])):
                if kwargs.get(factor, 1) not in (1, -1) and (factor == "alpha" or self.known.values(scaled).data):
                    self._scaling(scaled, f"{factor} of {name}")
            return operation
        if name in SCALINGS:
            left, right = args[:2]
            if any(not isinstance(side, Tensor) and side in (1, -1) for side in (left, right)):
                return None
            divides = plain == "div" and isinstance(right, Tensor) and self.known.values(right).data
            if divides or kwargs.get("rounding_mode"):
                return self._operation("division", "function", [left, right])
            both = all(isinstance(side, Tensor) and self.known.values(side).data for side in (left, right))
            operation = self._operation(*(("product", "product") if both else ("scaling", "scale")), [left, right])
            self._count_levels(operation, left, right)
            return operation
        if name in NORMALISATIONS:
            return self._operation("batch normalisation", "normalisation", args[:1])
        if name == "upsample_bilinear2d" and not args[2] and [2 * side for side in args[0].shape[2:]] == list(args[1] or []):
            return self._operation(DOUBLING, "average", args[:1])
        if name in AVERAGES:
            return self._operation("average", "average", args[:1])
        if plain in ADDITIONS or name in ADDITIONS:
            place = {"rsub": 0, "index_add": 3}.get(plain, 1)  # of what alpha scales
            scaled = args[place] if len(args) > place else None
            factor = kwargs.get("alpha", args[2] if plain == "rsub" and len(args) > 2 else 1)
            if factor not in (1, -1) and isinstance(scaled, Tensor) and self.known.values(scaled).data:
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
            read = [self.known.operand(operand) for operand in operands]
        else:
            read = [
                Operand("data" if self.known.values(operand).data else "weight", "real")
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
        self._spread(operation, "dense", x.numel(), x)
        operation.samples += self.known.batch

    def _escape(self, what: str, x: Tensor) -> None:
        self.known.note(x, Values(True))
        with _disable_current_modes():
            operation = self._operation(what, "escape", [x])
        operation.samples += self.known.batch

    # Counting

    def _count(self, operation: Operation, what: str, by_step: Tensor | Sequence[float]) -> None:
        operation.count(what, by_step.tolist() if isinstance(by_step, Tensor) else by_step, self.known.step)

    def _spread(self, operation: Operation, what: str, number: float, like: Tensor) -> None:
        """Counts a number of which every time step of a tensor has its equal share."""
        steps = self.known.steps(like, self.known.values(like).steps)
        self._count(operation, what, [number / steps] * steps)

    def _finish(self, operation: Operation, name: str, args, kwargs, out) -> None:
        """Counts what the operator did."""
        times = self.done[id(operation)] = self.done.get(id(operation), 0) + 1
        operation.samples += self.known.batch if times == 1 else 0
        first = next((leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)), None)
        if operation.category == "escape" or first is None:
            return
        lif = operation.category == "neuron" and not self.known.step
        steps = first.shape[0] if lif else self.known.values(first).steps
        timed = first.ndim > 1 and tuple(first.shape[:2]) == (steps, self.known.batch)
        operation.shape = tuple(first.shape[2 if timed else 1 :])
        fewer = max(1, first.shape[0] // self.known.batch) if first.ndim else 1
        operation.steps = times * (steps if lif or self.known.steps(first, steps) == steps else fewer)
        match operation.category:
            case "convolution":
                self._count_convolution(operation, args, first)
            case "linear" | "matmul":
                self._count_matmul(operation, name, args, first)
            case "product" | "scale":
                self._count_elements(operation, first)
            case "normalisation" | "function":
                self._spread(operation, "dense", first.numel(), first)
                self._spread(operation, "effective", first.numel(), first)
            case "average":  # doubling is a + 2 a + b along one axis, for half the places, and then along the other
                doubles = operation.name == DOUBLING
                self._spread(operation, "additions", 3 * first.numel() if doubles else args[0].numel(), first if doubles else args[0])
            case "addition":
                summed = args[0] if name in ("sum", "cumsum") else first
                self._spread(operation, "additions", summed.numel(), summed)
            case "neuron":
                self._spread(operation, "dense", first.numel(), first)
                self._count_spikes(first, operation)

    def _count_spikes(self, spikes: Tensor, operation: Operation) -> None:
        """The firing rate of a neuron; its output is measured here once for all who read it."""
        name = operation.module if not self.known.step else place() or f"{operation.module}:{operation.index}"
        operand = self.known.operand(spikes)
        if name in self.neurons:
            self.neurons[name].add(operand)
        else:
            self.neurons[name] = operand
            self.neuron_shapes[name] = tuple(spikes.shape[1 if self.known.step else 2 :])
            if self.maps_of and spikes.ndim == 5 and not spikes.is_meta:
                self.maps[name] = spikes[:, : self.maps_of].mean((0, 2), dtype=torch.float32).cpu()

    def _count_own_neurons(self, module: Neuron, spikes: Tensor) -> None:
        """Neurons whose operators were passed over, by what they emitted."""
        self.known.note_emitted(spikes, place() or self.stack[-1])
        with _disable_current_modes():
            operation = self._operation("neuron", "neuron", [])
            operation.arithmetic = module.arithmetic() or operation.arithmetic
            self._finish(operation, "lif", (), {}, spikes)

    def _levels_of(self, sides: Sequence) -> int | None:
        """Which side of a product holds the spikes, if those may be several thresholds: the first of whole numbers, rather one that a
        neuron emitted. None if spikes are single, or there are none."""
        found = [(i, self.known.values(side)) for i, side in enumerate(sides) if isinstance(side, Tensor)]
        kinds = [(i, values) for i, values in found if values.data and values.kind is not None]
        if any(values.kind in ("binary", "ternary") for _, values in kinds):
            return None
        whole = [(not values.neuron, i) for i, values in kinds if values.kind == "integer"]
        return min(whole)[1] if whole else None

    def _count_convolution(self, operation: Operation, args, out: Tensor) -> None:
        x, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
        self._spread(operation, "dense", (x if transposed else out).numel() * weight[0].numel(), out)
        if bias is not None:
            self._spread(operation, "biases", out.numel(), out)
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
        unpadded = all_reached(x, fans, channels)
        self._spread(operation, "unpadded", unpadded, x)
        values = self.known.values(x)
        steps = self.known.steps(x, values.steps)
        if x.is_meta or not values.data:
            self._spread(operation, "effective", unpadded, x)
            return
        levels = self._levels_of((x, weight))
        sparse = self.known.values(weight).data or not self.known.is_full(weight)

        def products(size: Tensor | None) -> Tensor:
            """[T], if values of x count as much as this, or as 1 where they are not 0."""
            if sparse:
                sizes = (x != 0).to(torch.float32) if size is None else size, (weight != 0).to(torch.float32)
                return by_step(torch.ops.aten.convolution(*sizes, None, *args[3:9]), steps)
            counts = values.counts  # of another arrangement, they have another shape, or there are none
            if size is not None or counts is None or counts.shape[1:] != x.shape[2:] or len(counts) != steps:
                size = x != 0 if size is None else size
                counts = size.unflatten(0, (steps, -1)).sum((1, 2), dtype=torch.float64)
            return reached(counts, fans, channels)

        self._count(operation, "effective", products(None))
        self._count(operation, "synops", products(x.abs().float() if levels == 0 else None))

    def _count_matmul(self, operation: Operation, name: str, args, out: Tensor) -> None:
        biased = name.startswith(("add", "badd"))
        left, right = args[1:3] if biased else args[:2]
        levels = None if out.is_meta else self._levels_of((left, right))
        if name == "linear":
            right = right.t()
            biased = len(args) > 2 and args[2] is not None
        products = left.numel() * (right.shape[-1] if right.ndim > 1 else 1)
        self._spread(operation, "dense", products, out)
        self._spread(operation, "unpadded", products, out)
        if biased:
            self._spread(operation, "biases", out.numel(), out)
        if out.is_meta:
            self._spread(operation, "effective", products, out)
            return
        steps = self.known.steps(out, self.known.values(out).steps)
        ones = [side != 0 for side in (left, right)]
        effective = met(ones[0], ones[1], steps).tolist()
        self._count(operation, "effective", effective)
        if levels is not None:
            ones[levels] = (left, right)[levels].abs()
            effective = met(ones[0], ones[1], steps).tolist()
        self._count(operation, "synops", effective)

    def _count_levels(self, operation: Operation, left, right) -> None:
        """The synaptic operations of a product element by element, counted before it may overwrite a side."""
        sides = [side for side in (left, right) if isinstance(side, Tensor)]
        values = [self.known.values(side) for side in sides]
        if any(side.is_meta for side in sides) or all(known.kind in (None, "real") for known in values):
            return
        data = [place for place, known in enumerate(values) if known.data]
        factors = [side for side, known in zip(sides, values, strict=True) if not known.data]
        if len(data) == 1 and all(self.known.is_full(side) and side.ndim <= sides[data[0]].ndim for side in factors):
            spikes, known = sides[data[0]], values[data[0]]
            fits = all(a in (1, b) for side in factors for a, b in zip(side.shape[::-1], spikes.shape[::-1], strict=False))
            if fits and known.levels is not None:
                self._count(operation, "synops", known.levels)  # every value meets one factor that is not zero
                return
        levels = self._levels_of(sides)
        sizes = [side.abs() if place == levels else side != 0 for place, side in enumerate(sides)]
        size = sizes[0] * sizes[1] if len(sizes) > 1 else sizes[0]
        self._count(operation, "synops", by_step(size, self.known.steps(size, max(known.steps for known in values if known.data))))

    def _count_elements(self, operation: Operation, out: Tensor) -> None:
        self._spread(operation, "dense", out.numel(), out)
        if out.is_meta or not operation.spike_fed:
            self._spread(operation, "effective", out.numel(), out)
        else:
            self._count(operation, "effective", by_step(out != 0, self.known.steps(out, self.known.values(out).steps)))

class _Leaving(TorchFunctionMode):
    """Tells the recorder of values that go past torch's operators."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function, types, args=(), kwargs=None):
        how = LEAVING.get(function)
        if how is not None:
            for x in args[:2]:
                if isinstance(x, Tensor):
                    self.recorder.leaving(x, how)
        return function(*args, **(kwargs or {}))


@contextmanager
def following(model: nn.Module, maps_of: int = 0) -> Iterator[Recorder]:
    """A recorder of the model, which inside the block is in eval mode; see `Recorder.run`. The model's mode is kept.

    Raises:
        ValueError: nothing was followed inside.
    """
    recorder = Recorder(model, maps_of)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield recorder
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not recorder.samples:
        raise ValueError(
            "there are no inputs to follow; give a tensor [B, C, H, W] or [T, B, C, H, W], or batches of them"
        )


def record(model: nn.Module, data: Inputs, maps_of: int = 0) -> Recorder:
    """Sends data in any form of `batches_of` through the model in eval mode and follows them; the model's mode is kept.

    Args:
        model: the network.
        inputs: batches.
        maps_of: of how many samples of the first batch firing rates are kept per pixel.

    Raises:
        ValueError: there are no inputs.
    """
    with following(model, maps_of) as recorder:
        for batch in batches_of(data, model):
            batch = batch.to(device_of(model))
            recorder.run(*batch.args, **batch.kwargs)
    return recorder


def _plain_tensors(model: nn.Module) -> list[Tensor]:
    """Tensors that modules hold without having registered them."""
    held = [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return held + [x for module in model.modules() if isinstance(module, Stepped) for x in module.constants()]
