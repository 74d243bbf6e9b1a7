"""What each operation of a network did: its products, additions and spikes, step by step."""
# Shapes: T time steps, B batch, C channels.

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .counting import all_reached, by_step, fan_out, met, reached
from .knowledge import Knowledge
from .networks import place
from .operation import Operation
from .operators import DOUBLING, MEASURED
from .values import Operand


class Ledger:
    """Operations and neurons of the forward passes so far, with what is counted of them.

    Args:
        known: what is known of the tensors that they read.
        maps_of: of how many samples of the first batch firing rates are kept per pixel.

    Attributes:
        operations: in order of their first appearance, by module, number among those of its name in one pass, and name.
        neurons: what each emitted, by name.
        neuron_shapes: of what they emit, without time and batch.
        maps: firing rates of the first samples [maps_of, H, W], by neuron.
    """

    def __init__(self, known: Knowledge, maps_of: int = 0):
        self.known, self.maps_of = known, maps_of
        self.operations: dict[tuple, Operation] = {}
        self.neurons: dict[str, Operand] = {}
        self.neuron_shapes: dict[str, tuple[int, ...]] = {}
        self.maps: dict[str, Tensor] = {}
        self.done: dict[int, int] = {}  # how often each operation was in this pass
        self.started: dict[
            tuple[str, str], int
        ] = {}  # the number of the last operation of a module and name in this pass or step
        self.fan_outs: dict[tuple, Tensor] = {}

    def begin_pass(self) -> None:
        """A new forward pass begins."""
        self.done.clear()
        self.started.clear()

    def begin_step(self) -> None:
        """A network that is called for every time step is called once more."""
        self.started.clear()

    def begin(self, module: str, name: str, category: str, operands: Sequence) -> Operation:
        """Notes that an operation happens once more.

        Args:
            module: path of the innermost module that runs.
            name, category: see `Operation`.
            operands: tensors [...] or numbers.
        """
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

    def scaling(self, module: str, x: Tensor, where: str) -> None:
        """A factor inside another operator, applied to x [...]: the result holds more than spikes.

        Args:
            module: path of the innermost module that runs.
            x: what is scaled.
            where: the argument that is the factor, for people.
        """
        operation = self.begin(module, f"scaling ({where})", "scale", [x, 0.5])
        for operand in operation.data:
            operand.kind = "real"
        self._spread(operation, "dense", x.numel(), x)
        operation.samples += self.known.batch

    def _count(self, operation: Operation, what: str, by_step: Tensor | Sequence[float]) -> None:
        operation.count(what, by_step.tolist() if isinstance(by_step, Tensor) else by_step, self.known.step)

    def _spread(self, operation: Operation, what: str, number: float, like: Tensor) -> None:
        """Counts a number, equally shared by the time steps of a tensor."""
        steps = self.known.steps(like, self.known.values(like).steps)
        self._count(operation, what, [number / steps] * steps)

    def finish(self, operation: Operation, name: str, args, out) -> None:
        """Counts what an operator did.

        Args:
            operation: that it is.
            name: of the operator.
            args: what it was called with.
            out: what it returned.
        """
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
                self._spread(
                    operation,
                    "additions",
                    3 * first.numel() if doubles else args[0].numel(),
                    first if doubles else args[0],
                )
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

    def _levels_of(self, sides: Sequence) -> int | None:
        """The place of the side of a product that holds whole numbers of spikes, preferably one that a neuron emitted. None if either side
        holds single spikes, or none holds whole numbers."""
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

    def count_levels(self, operation: Operation, left, right) -> None:
        """The synaptic operations of a product element by element, counted before it may overwrite a side.

        Args:
            operation: the product.
            left, right: its sides, tensors [...] or numbers.
        """
        sides = [side for side in (left, right) if isinstance(side, Tensor)]
        values = [self.known.values(side) for side in sides]
        if any(side.is_meta for side in sides) or all(known.kind in (None, "real") for known in values):
            return
        data = [place for place, known in enumerate(values) if known.data]
        factors = [side for side, known in zip(sides, values, strict=True) if not known.data]
        if len(data) == 1 and all(self.known.is_full(side) and side.ndim <= sides[data[0]].ndim for side in factors):
            spikes, known = sides[data[0]], values[data[0]]
            fits = all(
                a in (1, b) for side in factors for a, b in zip(side.shape[::-1], spikes.shape[::-1], strict=False)
            )
            if fits and known.levels is not None:
                self._count(operation, "synops", known.levels)  # every value meets one factor that is not zero
                return
        levels = self._levels_of(sides)
        sizes = [side.abs() if place == levels else side != 0 for place, side in enumerate(sides)]
        size = sizes[0] * sizes[1] if len(sizes) > 1 else sizes[0]
        self._count(
            operation,
            "synops",
            by_step(size, self.known.steps(size, max(known.steps for known in values if known.data))),
        )

    def _count_elements(self, operation: Operation, out: Tensor) -> None:
        self._spread(operation, "dense", out.numel(), out)
        if out.is_meta or not operation.spike_fed:
            self._spread(operation, "effective", out.numel(), out)
        else:
            self._count(operation, "effective", by_step(out != 0, self.known.steps(out, self.known.values(out).steps)))
