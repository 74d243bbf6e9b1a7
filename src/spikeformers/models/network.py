"""What the rest may rely on of a network that `create_model` made, whichever it is."""
# Shapes: T time steps, B batch, C channels, H W pixels.

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..layers import Part


class Configured:
    """A network that can be written down and made again: a backbone, or a task's network around one. What is here is usual.

    Attributes:
        config: what makes it again, its architecture and the options of that, which `configure` writes; missing where nothing does.
        in_chans: channels of its input.
        num_classes: of its answer.
        outside: modules whose own operators are no layers but geometry of boxes or resizing of images: what follows data leaves them out.
        any_size: whether it takes images of different sizes, one after the other.
    """

    config: dict[str, Any]
    in_chans: int
    num_classes: int
    outside: tuple[str, ...] = ()
    any_size: bool = False

    def describe_input(self, known: Mapping[str, object]) -> None:
        """Makes its `pretrained_cfg`, as timm reads it, say what is known of the input and the classes."""


def configure(model: nn.Module, architecture: str, options: Mapping[str, object]) -> None:
    """Writes down in a network's `config` what makes it again.

    Args:
        model: the network.
        architecture: the name by which `create_model` knows it.
        options: all of them.
    """
    vars(model)["config"] = {"architecture": architecture, **options}


def reconfigure(model: nn.Module, **changes: object) -> None:
    """Notes options that were changed, where a `config` is; those who hold the old one keep it."""
    if "config" in vars(model):
        vars(model)["config"] = {**vars(model)["config"], **changes}


def unconfigure(model: nn.Module) -> None:
    """Takes `config` away, for it no longer describes the network."""
    vars(model).pop("config", None)


class Network(Configured, Part):
    """A spiking classifier or backbone over time: a `Configured` one whose state starts from rest in every call.

    Attributes:
        time_steps: T, how often a static image is shown; of several numbers the first.
        schedule: T of every stage, once they differ; otherwise None.
        pretrained_cfg: timm's description of the input and the classes.
        distillation: whether there is a second classifier, for distillation.
    """

    time_steps: int
    schedule: list[int] | None
    pretrained_cfg: dict[str, Any]
    distillation: bool

    @abstractmethod
    def forward(self, x: Tensor, per_step: bool = False) -> Any:
        """Images [B, C, H, W] or a sequence [T, B, C, H, W] -> logits [B, classes], or those of each step [T, B, classes] `per_step`."""

    @abstractmethod
    def set_schedule(self, schedule: list[int], temporal: str = "softmax") -> None:
        """Gives every stage its number of time steps."""
