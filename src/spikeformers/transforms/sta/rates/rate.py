"""A tensor that stands for a sequence of spikes."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from .run import Run


RUNNING: ContextVar["Run"] = ContextVar("run")
"""The state of the network that is running."""


@dataclass(frozen=True)
class Kind:
    """Properties of a `Rate`.

    Attributes:
        spikes: a neuron emitted it, and it was only moved since.
        analog: it follows from the network's input without a neuron in between: products read it as it is.
        constant: it is the same at every step.
        axes: along which the channels lie; None if that is unknown. Found at calibration alone, from what functions say (the channels of a
            linear layer are its result's last axis) and from where they are moved, never from a position: an axis of samples or
            tokens, whose number may change, is none.
        factors: whole numbers and thresholds whose product it is, of spikes in the form "spikes".
        total: for the weights of a softmax, which are sent as exponentials: the mean of their sum, which divides the weighted result.
    """

    spikes: bool = False
    analog: bool = False
    constant: bool = False
    axes: tuple[int, ...] | None = None
    factors: tuple[Tensor, Tensor] | None = None
    total: Tensor | None = None


class Rate(Tensor):
    """A tensor that stands for a sequence of spikes. `bare` is the tensor that it was made of, with which everything is computed."""

    kind: Kind
    bare: Tensor

    @staticmethod
    def of(x: Tensor, kind: Kind) -> "Rate":
        rate = x.as_subclass(Rate)
        rate.kind, rate.bare = kind, x
        return rate

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        run = RUNNING.get(None)
        if run is None:
            return super().__torch_function__(func, types, args, kwargs or {})
        return run.call(func, args, kwargs or {})


def plain(tree: Any) -> Any:
    """The tree with tensors instead of rates."""
    return tree_map(bare, tree)


def bare(x: Tensor) -> Tensor:
    """A rate [...] as the tensor that it was made of; other tensors as they are."""
    return x.bare if isinstance(x, Rate) else x


def is_rate(x: Any) -> bool:
    """Whether it varies: integers, such as tokens and what follows from them, are constants."""
    return isinstance(x, Rate) and bare(x).is_floating_point()
