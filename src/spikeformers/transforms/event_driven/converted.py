"""Event-driven inference of networks that `convert` made: layers add weights where signed spikes are."""
# Shapes: B batch, C channels, H W pixels, M tokens of the whole batch.

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...kernels import spike_conv
from ...kernels.spike_conv import Packed, Weight
from ..sta.convert import Converted, logits_of
from ..sta.rates import Run
from .calibration import ROUNDS, limit
from .plan import LayerReport

STEPS = 4  # that a calibration runs before it measures: the first ones fire otherwise than those behind


@dataclass
class SignedLayer:
    """A linear layer or convolution of signed spikes, in two forms with the same result but for rounding.

    Attributes:
        weight: with the thresholds multiplied into it, for spikes of either sign.
        dense: the same for torch, [C', C] or [C', C, kh, kw].
        made_of: what tells whether the weights are still those that it was made of.
    """

    name: str
    weight: Weight
    dense: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    made_of: tuple
    limit: float | None = None
    milliseconds: tuple[float, float, float] | None = None
    way: str = "event-driven"
    density: float = 0.0
    calls: dict[tuple, tuple] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        return "linear" if self.dense.ndim == 2 else "x".join(map(str, self.dense.shape[2:]))

    def __call__(self, counts: Tensor, levels: int) -> Tensor:
        """counts [..., C] or [B, C, H, W], whole numbers of either sign -> what the layer makes of them times the thresholds."""
        x = counts.reshape(1, 1, -1, counts.shape[-1]).movedim(3, 2)[..., None] if self.dense.ndim == 2 else counts[None]
        packed, units = spike_conv.pack_signed(x, levels)
        self.density = units / max(1, counts.numel())
        if self.limit is not None and self.density > self.limit:
            self.way = "dense"
            return self.in_torch(counts)
        self.way = "event-driven"
        out = self.event(packed)
        return out.movedim(2, 4).reshape(*counts.shape[:-1], -1) if self.dense.ndim == 2 else out[0]

    def event(self, packed: Packed) -> Tensor:
        return spike_conv.spike_conv(packed, self.weight, self.bias, stride=self.stride, padding=self.padding)[0]

    def in_torch(self, counts: Tensor) -> Tensor:
        if self.dense.ndim == 2:
            return functional.linear(counts, self.dense, self.bias)
        return functional.conv2d(counts, self.dense, self.bias, self.stride, self.padding)


class EventDrivenConverted(nn.Module):
    """A converted network for inference on a CPU, made by `event_driven`. It is called like the network that it was made of.

    Every step, linear layers and convolutions of one group add rows of weights, into which the thresholds have been multiplied, where
    signed spikes are; a layer that is denser than its limit runs in torch. Neurons, products of attention and functions are the
    converted network's own, in the form in which layers read spikes.

    Attributes:
        merged: the converted network; where the compiled kernels are missing it runs in its place.
        limits, milliseconds: by layer, found at calibration.
    """

    def __init__(self, converted: Converted, precision: torch.dtype | None, precision_name: str):
        super().__init__()
        self.merged, self.precision = converted, precision_name
        self.limits: dict[str, float] = {}
        self.milliseconds: dict[str, tuple[float, float, float]] = {}
        self._rows = precision
        self._layers: dict[tuple, SignedLayer] = {}
        self._last: list[SignedLayer] = []
        self._lock = threading.RLock()

    @property
    def live(self) -> bool:
        """Whether the compiled kernels are there."""
        return spike_conv.native.load()[0] is not None

    @property
    def num_classes(self) -> int | None:
        return self.merged.num_classes

    @torch.no_grad()
    def forward(self, *args, per_step: bool = False, **kwargs) -> Any:
        """What the converted network returns after its time steps of a constant input; see `Converted.forward`."""
        if not self.live:
            return self.merged(*args, per_step=per_step, **kwargs)
        with self._alone():
            steps = self.merged.steps(*args, time_steps=time_steps, state=self.start(time_steps), **kwargs)
