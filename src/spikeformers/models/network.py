"""What the rest may rely on of a network that `create_model` made, whichever it is."""
# Shapes: T time steps, B batch, C channels, H W pixels.

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn


class Configured(Protocol):
    """A network that can be written down and made again: a backbone, or a task's network around one.

    Attributes:
        config: what makes it again: its architecture and the options of that.
        in_chans: channels of its input.
        num_classes: of its answer.
    """

    config: dict[str, Any]
    in_chans: int
    num_classes: int

    def describe_input(self, known: Mapping[str, object]) -> None:
        """Makes its `pretrained_cfg`, as timm reads it, say what is known of the input and the classes."""
        ...


class Network(nn.Module):
    """A spiking classifier or backbone over time: a `Configured` one whose state starts from rest in every call.

    Attributes:
        time_steps: T, how often a static image is shown; of several numbers the first.
        schedule: T of every stage, once they differ; otherwise None.
        config: what makes it again.
        pretrained_cfg: timm's description of the input and the classes.
        in_chans: channels of the input.
        num_classes: 0 of a network that answers features.
        distillation: whether there is a second classifier, for distillation.
    """

    time_steps: int
    schedule: list[int] | None
    config: dict[str, Any]
    pretrained_cfg: dict[str, Any]
    in_chans: int
    num_classes: int
    distillation: bool

    @abstractmethod
    def forward(self, x: Tensor, per_step: bool = False) -> Any:
        """Images [B, C, H, W] or a sequence [T, B, C, H, W] -> logits [B, classes], or those of each step [T, B, classes] `per_step`."""

    @abstractmethod
    def set_schedule(self, schedule: list[int], temporal: str = "softmax") -> None:
        """Gives every stage its number of time steps."""

    @abstractmethod
    def describe_input(self, known: Mapping[str, object]) -> None:
        """Makes `pretrained_cfg` say what is known of the input and the classes."""
