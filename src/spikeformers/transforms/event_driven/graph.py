"""What torch.export finds in a network, and what its nodes are."""
# Shapes: T time steps, B batch, C channels, H W pixels, N tokens.

import contextlib
import io

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...layers.hooks import computed

aten = torch.ops.aten
LIF = torch.ops.spikeformers.lif.default
SAME_VALUES = (
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.reshape.default,
    aten.view.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
)
ALIASES = (
    *SAME_VALUES,
    aten.to.dtype,
    aten.to.device,
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
)
MAKES_NEW = (aten.conv2d.default, aten.linear.default, aten.matmul.default, aten.mean.dim, aten.sum.dim_IntList)
NOTHING = (aten._assert_tensor_metadata.default, aten.promote_types.default)


def shape_of(node: fx.Node) -> torch.Size:
    """The shape of what a node gives; that of a number where it is no tensor."""
    value = node.meta["val"]
    return value.shape if isinstance(value, Tensor) else torch.Size()


def swapped(node: fx.Node) -> fx.Node | None:
    """What the node is with its last two of four axes swapped; None if it is nothing of that kind."""
    if (
        node.target is aten.transpose.int
        and len(shape_of(node)) == 4
        and {axis % 4 for axis in node.args[1:]} == {2, 3}
    ):
        return node.args[0]
    if node.target is aten.permute.default and [axis % 4 for axis in node.args[1]] == [0, 1, 3, 2]:
        return node.args[0]
    return None


def repeatable(node: fx.Node) -> bool:
    """Whether it gives the same again and again."""
    return torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())


def passes(node: fx.Node, of) -> bool:
    """Whether the node is `of` with at most its outer axes changed."""
    if node.target not in ALIASES or not isinstance(of, fx.Node):
        return False
    a, b = node.meta.get("val"), of.meta.get("val")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.dtype != b.dtype or a.device != b.device:
        return False
    if node.target is aten.dropout.default and node.args[2]:
        return False
    maps = a.ndim in (4, 5) and b.ndim in (4, 5) and a.shape[-3:] == b.shape[-3:] and a.numel() == b.numel()
    return a.shape == b.shape or maps


def is_map(node: fx.Node, shape: tuple[int, ...]) -> bool:
    """Whether a node gives a map of this shape [T, B, C, H, W], or the same with T and B joined."""
    return tuple(shape_of(node)) in (shape, (shape[0] * shape[1], *shape[2:]))


def map_shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of the map that a map, vectors or tokens are; what else there is keeps its own."""
    shape = tuple(shape_of(node))
    if len(shape) == 4:
        t, b, n, c = shape
        return t, b, c, n, 1
    return (*shape, 1, 1) if len(shape) == 3 else shape


def conv_args(node: fx.Node):
    """x, weight, bias, stride, padding, dilation, groups"""
    defaults = (None, None, None, [1, 1], [0, 0], [1, 1], 1)
    return (*node.args, *defaults[len(node.args) :])


def operation_of(weight: Tensor, groups: int) -> str:
    """The name of a convolution by its weight [C', C / groups, kh, kw], for people."""
    size = "x".join(map(str, weight.shape[2:]))
    return f"depthwise {size}" if groups != 1 else size


def module_name(node: fx.Node) -> str:
    """The name of the module that the node comes from."""
    stack = node.meta.get("nn_module_stack") or {}
    return next((path.removeprefix("model").removeprefix(".") for path, _ in reversed(stack.values())), "") or node.name


class _PerStep(nn.Module):
    """The model, asked for logits of every step."""

    def __init__(self, model: nn.Module, per_step: bool):
        super().__init__()
        self.model, self.options = model, {"per_step": True} if per_step else {}

    def forward(self, x: Tensor) -> Tensor:
        # attributes that hooks compute from parameters become part of the graph, and are put back in the module afterwards
        kept = [
            (vars(module), name) for module in self.model.modules() for name in computed(module) if name in vars(module)
        ]
        kept = [(attributes, name, attributes[name]) for attributes, name in kept]
        try:
            return self.model(x, **self.options)
        finally:
            for attributes, name, value in kept:
                attributes[name] = value


@contextlib.contextmanager
def _without_listeners(model: nn.Module):
    """Inside, hooks that only listen are off, so that their work does not become part of a plan."""
    kept = [(module, module._forward_pre_hooks, module._forward_hooks) for module in model.modules()]
    for module, before, after in kept:
        module._forward_pre_hooks, module._forward_hooks = (
            type(hooks)((key, hook) for key, hook in hooks.items() if not getattr(hook, "listens", False))
            for hooks in (before, after)
        )
    try:
        yield
    finally:
        for module, before, after in kept:
            module._forward_pre_hooks, module._forward_hooks = before, after


class Opaque(Exception):
    """torch.export does not see through a model."""


SHAPES_KEPT = 4096
"""Operators with shapes whose results torch remembers from exports, about 3 KiB each; it would keep those of every input shape for good."""


def export(model: nn.Module, x: Tensor, per_step: bool = False) -> torch.export.ExportedProgram:
    """The model's operations on an input of x's shape, [B, C, H, W] or [T, B, C, H, W].

    Args:
        model: in eval mode.
        x: an input.
        per_step: whether it is to answer at each step.

    Raises:
        ValueError: as the model itself.
        Opaque: torch.export cannot see through the model or a part of it, or it does not give one tensor.
    """
    try:
        with (
            torch.no_grad(),
            _without_listeners(model),
            contextlib.redirect_stderr(io.StringIO()),
        ):  # of a failure it prints the graph
            exported = torch.export.export(_PerStep(model, per_step), (x,), strict=False)
            if FakeTensorMode.cache_info().size > SHAPES_KEPT:
                FakeTensorMode.cache_clear()
    except ValueError as error:
        with torch.no_grad():
            model(x, **({"per_step": True} if per_step else {}))  # raises the model's own
        raise Opaque(
            f"torch.export does not see through this {type(model).__name__}: {str(error).strip().splitlines()[0]}"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise Opaque(f"torch.export does not see through this {type(model).__name__}: {reason[0]}") from error
    for node in exported.graph.nodes:
        if node.op == "get_attr" or isinstance(
            node.target, torch._ops.HigherOrderOperator
        ):  # autocast, cond, another mode of gradients
            raise Opaque(
                f"this {type(model).__name__} holds a part that torch.export leaves as it is ({node.target}), which event-driven plans cannot follow"
            )
        if getattr(getattr(node.target, "_schema", None), "is_mutable", False):
            raise Opaque(
                f"this {type(model).__name__} changes tensors in place ({node.target}), which event-driven plans cannot follow"
            )
    outputs = exported.graph_signature.user_outputs
    if len(outputs) != 1 or exported.graph_signature.buffers_to_mutate:
        raise Opaque(
            f"event-driven models have one result and no state of their own; this {type(model).__name__} has {len(outputs)} results"
        )
    return exported
