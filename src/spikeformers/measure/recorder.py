"""Follows data through a network, operator by operator: what is multiplied with what, and how much of it is zero.

Everything below modules is seen, functional calls too, since torch announces every operator to the `Recorder`. What a tensor
holds is looked up in its values, not in its name: a convolution is fed with spikes if every number it reads is 0 or 1.
"""
# Shapes: T time steps, B batch, C channels; N rows of any layout with T * B in front.

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from ..layers.hooks import listening
from ..models.network import Configured
from ..neurons import Neuron
from .inputs import Inputs, batches_of, device_of, first_tensor, is_mask, samples_of
from .knowledge import Knowledge
from .ledger import Ledger
from .networks import Stepped, place
from .recognition import recognise
from .tally import Tally
from .values import Values

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
        self.whole = {
            x for x in model.modules() if isinstance(x, Neuron) and not x.in_kernel and x.arithmetic() is not None
        }
        self.within = 0  # such neurons
        self.names = {module: name for name, module in model.named_modules()}
        self.stepped = {
            module.model for module in self.names if isinstance(module, Stepped)
        }  # called once for each time step
        self.outputs: dict[str, tuple[int, ...]] = {}
        self.maps_of = maps_of
        self.samples = 0
        self.model = model
        self.tensors = [*model.parameters(), *model.buffers(), *_plain_tensors(model)]
        self.known = Knowledge(self.tensors)
        self.ledger = Ledger(self.known, maps_of)
        self.operations, self.neurons = self.ledger.operations, self.ledger.neurons
        self.neuron_shapes, self.maps = self.ledger.neuron_shapes, self.ledger.maps
        self.length, self.sample_shape, self.busy = None, (), False
        self.stack: list[str] = [""]

    @contextmanager
    def recording(self, *args: Any, **kwargs: Any) -> Iterator["Recorder"]:
        """Inside, one forward pass on these arguments is followed: x, [B, ...] or [T, B, C, H, W], is their first tensor, see `Batch.x`.

        Raises:
            ValueError: there is no x, it has another shape or number of time steps than the inputs before, or holds NaN or infinity.
        """
        x = first_tensor(args, kwargs)
        if x is None:
            raise ValueError("there is no tensor among the network's arguments; give a batch [B, ...]")
        masks = [
            tensor
            for name, tensor in kwargs.items()
            if isinstance(tensor, Tensor) and is_mask(name) and tensor is not x
        ]
        inputs = [
            tensor
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor) and not any(tensor is m for m in masks)
        ]
        self._accept(x)
        self.ledger.begin_pass()
        self.known.written.clear()
        self.within = 0
        self.stack[:] = [""]
        hooks = []
        for module, name in self.names.items():
            if module in self.stepped:
                hooks.append(module.register_forward_pre_hook(self._begin_step))
            hooks.append(
                module.register_forward_pre_hook(listening(lambda module, args, name=name: self._enter(module, name)))
            )
            hooks.append(module.register_forward_hook(self._leave, always_call=True))
        for tensor in inputs:
            values = Values(True, self.length or 1)
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

    def _accept(self, x: Tensor) -> None:
        """Takes x, [B, ...] or [T, B, C, H, W], as the input of the next pass, if it can be counted together with those before."""
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
        self.length, self.known.batch, self.known.step = length, samples_of(x), 0

    def run(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Follows one forward pass on these arguments, whose tensors are [B, ...] or [T, B, C, H, W]. Returns the model's answer in a list;
        a network that runs step by step has an answer after each step."""
        with self.recording(*args, **kwargs):
            return (
                list(self.model.answers(*args, **kwargs))
                if isinstance(self.model, Stepped)
                else [self.model(*args, **kwargs)]
            )

    @property
    def integers(self) -> str:
        """How products of whole numbers are charged, see `Operation.charged`: as additions where neurons emit several thresholds, or
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
        self.ledger.begin_step()

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
        if torch.is_inference_mode_enabled():  # in which composite operators arrive whole
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
                self.ledger.finish(
                    self.ledger.begin(self.stack[-1], "membrane potential", "function", [tensor]), name, args, tensor
                )
        data = any(self.known.values(tensor).data for tensor in inputs)
        counted = data and (not self._passed_over or name == "roi_align")  # which interpolates feature maps
        operation = recognise(self.ledger, self.stack[-1], function, args, kwargs) if counted else None
        self.busy = True
        try:
            out = function(*args, **kwargs)
        finally:
            self.busy = False
        self.known.hand_on(namespace, name, args, inputs, out, data, self.stack[-1], self._passed_over)
        if operation is not None:
            self.ledger.finish(operation, name, args, out)
        return out

    def leaving(self, x: Tensor, how: str) -> None:
        """Values of x [...] leave torch past its operators, or come in."""
        if not self.busy and self.known.values(x).data and not self._passed_over:
            self._escape(f"values touched through {how}", x)

    def _escape(self, what: str, x: Tensor) -> None:
        self.known.note(x, Values(True))
        with _disable_current_modes():
            operation = self.ledger.begin(self.stack[-1], what, "escape", [x])
        operation.samples += self.known.batch

    def _count_own_neurons(self, module: Neuron, spikes: Tensor) -> None:
        """Counts neurons whose operators were passed over by what they emitted."""
        self.known.note_emitted(spikes, place() or self.stack[-1])
        with _disable_current_modes():
            operation = self.ledger.begin(self.stack[-1], "neuron", "neuron", [])
            operation.arithmetic = module.arithmetic() or operation.arithmetic
            self.ledger.finish(operation, "lif", (), spikes)


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
