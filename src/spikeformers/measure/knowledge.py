"""What is known of the tensors in a forward pass: their values, where they come from, and where their time axis is."""
# Shapes: T time steps, B batch.

import math
from collections.abc import Iterable, MutableMapping, Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from .networks import place
from .operators import FRESH, MOVES, SAME, TURNED, kind_after
from .values import Operand, Values, kind_of, turned, version


class Knowledge:
    """Looks up what tensors hold, and hands it on from operator to operator.

    Args:
        constants: tensors [...] that do not depend on the network's input.

    Attributes:
        batch: of the input.
        step: of a network that is called for every time step, how many have begun.
        written: constants that data was written into.
    """

    def __init__(self, constants: Iterable[Tensor]):
        self.constants = set(map(id, constants))
        self.notes: MutableMapping[Tensor, Values] = WeakTensorKeyDictionary()  # for as long as the tensors live
        self.batch, self.step = 0, 0
        self.written: list[Tensor] = []
        self.full_weights: dict[tuple, bool] = {}

    def values(self, x: Tensor) -> Values:
        """The `Values` of a tensor [...]; what was measured is forgotten if the tensor was written into since."""
        values = self.notes.get(x)
        if values is not None:
            if values.data is False and self.written and self._shares_storage(x):
                values.data = True
            if values.version not in (None, version(x)):  # written into since
                values.forget()
            return values
        if id(x) in self.constants:
            return Values(False)
        return Values(None)

    def note(self, x: Tensor, values: Values) -> None:
        """Notes what is known of the values of a tensor [...]."""
        self.notes[x] = values

    def forget(self, x: Tensor) -> None:
        """What was noted of a tensor [...] no longer holds."""
        self.notes.pop(x, None)

    def note_emitted(self, x: Tensor, neuron: str) -> None:
        """Notes that neurons have emitted a tensor [T, ...] of spikes.

        Args:
            neuron: their name.
        """
        steps = x.shape[0] if x.ndim > 1 and x.shape[1] == self.batch else self.steps(x, x.shape[0])
        values = Values(True, steps, "binary")
        values.neuron = neuron
        self.note(x, values)

    def _shares_storage(self, x: Tensor) -> bool:
        return any(x.untyped_storage()._cdata == other.untyped_storage()._cdata for other in self.written)

    def measure(self, x: Tensor, values: Values) -> None:
        """Fills in kind, counts and levels of x [...], unless they are known."""
        if x.is_meta:
            values.kind = values.expected
        if values.kind is not None:
            return
        values.kind = kind_of(x)
        steps = self.steps(x, values.steps)
        rows = x.unflatten(0, (steps, -1)) if x.ndim else x.reshape(1, 1)
        pixels = rows.ndim - (4 if x.ndim == 5 and steps == x.shape[0] else 3)  # [T, B, (B,) C, pixels]
        over = tuple(range(1, rows.ndim - max(pixels, 0)))
        nonzero = rows if values.kind == "binary" and x.is_floating_point() else (rows != 0).float()
        summed = math.prod(rows.shape[axis] for axis in over)
        values.counts = nonzero.sum(over, dtype=torch.float64 if summed > 2**24 else torch.float32).double()
        values.active = values.levels = values.counts.view(steps, -1).sum(1)
        if values.kind in ("ternary", "integer"):
            values.levels = rows.abs().sum(over, dtype=torch.float64).view(steps, -1).sum(1)
        if not values.levels.any():
            values.kind = values.expected
        values.version = version(x)

    def steps(self, x: Tensor, steps: int) -> int:
        """T if the leading axis of x can run over T time steps: [T, B, ...] or [T * B * something, ...]; 1 if it cannot."""
        leads = x.ndim > 1 and tuple(x.shape[:2]) == (steps, self.batch)
        return steps if leads or (x.ndim and x.shape[0] % (steps * self.batch) == 0) else 1

    def operand(self, x) -> Operand:
        """What a product reads: a tensor, measured if it is data, or a number."""
        if not isinstance(x, Tensor):
            return Operand("number", "real" if float(x) != int(x) else "integer" if abs(x) > 1 else "binary")
        values = self.values(x)
        if values.data is False:  # a gain of 1.0 may be another after training, so only the type can excuse a constant
            return Operand("weight", "real" if x.is_floating_point() or x.is_complex() else kind_of(x))
        self.measure(x, values)
        assert values.kind is not None, "it was measured"
        operand = Operand(
            "data", values.kind, values.neuron, size=x.numel(), is_input=values.is_input, stepped=self.step > 0
        )
        if values.levels is not None and values.active is not None:
            before = [0.0] * max(0, self.step - 1)
            operand.active, operand.levels = before + values.active.tolist(), before + values.levels.tolist()
        return operand

    def is_full(self, weight: Tensor) -> bool:
        """Whether a weight [...] has no zeros."""
        key = (id(weight), version(weight))
        if key not in self.full_weights:
            full = bool((weight != 0).all())
            if id(weight) not in self.constants:  # its id will be used again
                return full
            self.full_weights[key] = full
        return self.full_weights[key]

    def hand_on(
        self, namespace: str, name: str, args, inputs: Sequence[Tensor], out, data: bool, module: str, outside: bool
    ) -> None:
        """Notes at what an operator returned, tensors [...], what follows from its inputs.

        Args:
            namespace, name: of the operator.
            args: its arguments by position.
            inputs: the tensors among all arguments.
            out: what it returned.
            data: whether any input depends on the network's.
            module: name of the module that runs.
            outside: whether that module's operators are no layers.
        """
        sources = [self.values(tensor) for tensor in inputs]
        steps = max([values.steps for values in sources if values.data], default=1)
        leaves = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in leaves:
            first = inputs[0] if inputs else None
            mutated = any(tensor is other for other in inputs)
            if mutated and data and self.values(tensor).data is False:
                self.written.append(tensor)
            known = sources[0] if sources else None
            same = first is not None and tensor.numel() == first.numel() and tensor.dtype == first.dtype
            if known is not None and same and name in (SAME | TURNED):
                self.note(tensor, known if known.data is None or name in SAME else turned(known))
                continue
            new = Values(data and name not in FRESH, 1, kind_after(namespace, name, sources))
            if name in ("lift_fresh", "lift", "detach", "alias") and known is not None and known.data is None:
                new.data = None
            new.steps = self._steps_after(namespace, name, args, inputs, tensor, steps)
            moved = [values for values in sources if values.data] if name in MOVES else []
            if moved:
                new.neuron = moved[0].neuron if len(moved) == 1 else ""
                new.is_input = all(values.is_input for values in moved)
            if outside and data:  # a resized image is still the input
                new.is_input = all(values.is_input for values in sources if values.data)
            if namespace == "spikeformers":
                new.neuron, new.potential = place() or module, tensor is not leaves[0]
            self.note(tensor, new)

    def _steps_after(self, namespace, name, args, inputs, out: Tensor, steps: int) -> int:
        """T of an output. Neurons have it in front; so have maps [T, B, C, H, W], and frames that are made from one [B, ...] by
        repeating, stacking or joining. T is lost where the leading axis no longer fits it."""
        if out.ndim < 2 or out.shape[1] != self.batch:
            return self.steps(out, steps)
        if name == "lif" or out.ndim == 5:
            return out.shape[0]
        first = inputs[0]
        if name in ("expand", "repeat", "cat", "stack") and steps == 1:
            grown = out.ndim == first.ndim + 1 and out.shape[1:] == first.shape
            joined = out.ndim == first.ndim and first.shape[0] == 1 and out.shape[1:] == first.shape[1:]
            if grown or joined:
                return out.shape[0]
        return self.steps(out, steps)
