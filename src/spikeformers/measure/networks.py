"""What the rest may rely on of networks that do not simply run all time steps at once."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .tally import Tally

_PLACE: ContextVar[str | None] = ContextVar("place", default=None)


class Stepped(nn.Module):
    """A network that runs step by step, as `transforms.convert` makes them.

    Attributes:
        model: the module that is called once for every time step.
    """

    model: nn.Module

    @abstractmethod
    def answers(self, *args, **kwargs) -> Iterator[Any]:
        """What it returns to these arguments after each step, its layers reading the spikes of that step."""

    @abstractmethod
    def constants(self) -> list[Tensor]:
        """Tensors [...] that it computes with besides its parameters and buffers."""

    @abstractmethod
    def watch(self, watcher: Callable[[Tally], None]) -> RemovableHandle:
        """Calls a function with what the neurons emitted in every batch that has run to its end."""


class SelfCounting(nn.Module):
    """A network whose neurons are no modules that run, and that counts them itself.

    Attributes:
        merged: the network that it stands for, which runs where this one cannot, and whose names its neurons have.
    """

    merged: nn.Module

    @abstractmethod
    def tally(self) -> Tally:
        """What its neurons emitted in the last run, by the names of their modules; nothing if `merged` has run."""


@contextmanager
def named(place: str) -> Iterator[None]:
    """Neurons that run inside are counted under this name, not that of the module."""
    token = _PLACE.set(place)
    try:
        yield
    finally:
        _PLACE.reset(token)


def place() -> str | None:
    """The name that `named` has given."""
    return _PLACE.get()
