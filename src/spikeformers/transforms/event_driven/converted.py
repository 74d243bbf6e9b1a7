"""Event-driven inference of networks that `convert` made: layers add weights where signed spikes are."""
# Shapes: B batch, C channels, H W pixels.

import copy
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...kernels import spike_conv
from ...kernels.spike_conv import Weight
from ..sta.converted import Converted, logits_of
from ..sta.rates import Run
from .calibration import least_ms, limit
from .plan import PRECISIONS
from .report import LayerReport, report

STEPS = 4  # before a calibration measures: in the first ones neurons fire otherwise than later


class Seen:
    """A tensor [...] as it was once, to tell whether it has changed.

    Parameters count how often they were changed. What is computed anew in every pass is compared with a copy.
    """

    def __init__(self, x: Tensor | None):
        counts = isinstance(x, nn.Parameter) and not x.is_inference()
        self.x, self.version = x if counts or x is None else x.detach().clone(), x._version if counts else None

    def same(self, x: Tensor | None) -> bool:
        """Whether x [...] is the tensor that was seen, unchanged."""
        if x is None or self.x is None:
            return x is self.x
        if self.version is not None:
            return x is self.x and x._version == self.version
        return x.shape == self.x.shape and torch.equal(x, self.x)


@dataclass
class SignedLayer:
    """A linear layer or convolution of signed spikes, in two forms with the same result but for rounding.

    Attributes:
        name: its place in the network, see `Run.place`.
        weight: with the thresholds multiplied into it, for spikes of either sign.
        dense: the same for torch, [C', C] or [C', C, kh, kw].
        limit, milliseconds, way: as those of `plan.DrivenLayer`.
        density: thresholds emitted per neuron, in the last step.
    """

    name: str
    weight: Weight
    dense: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    limit: float | None = None
    milliseconds: tuple[float, float, float] | None = None
    way: str = "event-driven"
    density: float = 0.0

    @property
    def operation(self) -> str:
        return "linear" if self.dense.ndim == 2 else "x".join(map(str, self.dense.shape[2:]))

    def __call__(self, counts: Tensor, levels: int) -> Tensor:
        """counts [..., C] or [B, C, H, W], whole numbers of either sign -> what the layer makes of them times the thresholds."""
        linear = self.dense.ndim == 2
        x = counts.reshape(1, 1, -1, counts.shape[-1]).movedim(3, 2)[..., None] if linear else counts[None]
        packed, units = spike_conv.pack_signed(x, levels)
        self.density = units / counts.numel()
        if self.limit is not None and self.density > self.limit:
            self.way = "dense"
            return self.in_torch(counts)
        self.way = "event-driven"
        out = spike_conv.spike_conv(packed, self.weight, self.bias, stride=self.stride, padding=self.padding)[0]
        return out.movedim(2, 4).reshape(*counts.shape[:-1], -1) if linear else out[0]

    def in_torch(self, counts: Tensor) -> Tensor:
        """The same of counts [B, ...] by torch's own operation."""
        if self.dense.ndim == 2:
            return functional.linear(counts, self.dense, self.bias)
        return functional.conv2d(counts, self.dense, self.bias, self.stride, self.padding)

    def calibrate(self, counts: Tensor, levels: int) -> tuple[float, tuple[float, float, float]] | None:
        """Measures both ways on these counts [B, ...]; sets and returns the limit and the times. None without any spike."""
        if not counts.any():
            return None
        silence = torch.zeros_like(counts)
        self.limit = -1.0
        dense = least_ms(lambda: self(counts, levels))
        self.limit = None
        silent, event = least_ms(lambda: self(silence, levels)), least_ms(lambda: self(counts, levels))
        self.milliseconds = silent, event, dense
        self.limit = limit(self.density, silent, event, dense)
        return self.limit, self.milliseconds


@dataclass
class ConvertedStream:
    """What a stream of frames has left behind.

    Attributes:
        run: the state of the network.
        frames: how many there were.
        milliseconds: what the last one took.
    """

    run: Run = field(repr=False)
    frames: int = 0
    milliseconds: float = 0.0

    def clone(self) -> "ConvertedStream":
        """A copy from which a stream can go on another way."""
        run = copy.deepcopy(replace(self.run, carry_out=None))
        run.carry_out = self.run.carry_out
        return ConvertedStream(run, self.frames, self.milliseconds)


class EventDrivenConverted(Converted):
    """A converted network for inference on a CPU, made by `event_driven`. It is used like the network that it was made of.

    In every step linear layers and ungrouped convolutions add rows of weights, into which the thresholds have been multiplied, where
    signed spikes are; layers that are denser than their limit run in torch. Neurons, products of attention and functions are the
    converted network's own, in the form "spikes". Modules and parameters are shared with it.

    Attributes:
        merged: the converted network, which this one equals where the compiled kernels are missing.
        precision: of the weights of event-driven layers.
        limits: found at calibration, and the times behind them: see `SignedLayer`.
    """

    def __init__(self, converted: Converted, precision: str = "float32"):
        nn.Module.__init__(self)
        for name, value in converted.__dict__.items():  # the hooks of conversion are on the modules already
            self.__dict__[name] = copy.copy(value) if isinstance(value, dict) else value
        self._watchers = OrderedDict()
        self.__dict__["merged"] = converted  # not a module of this one, which has the same
        self.precision = precision
        self.limits: dict[str, tuple[float, tuple[float, float, float]]] = {}
        self._layers: dict[str, tuple[list[Seen], SignedLayer | None]] = {}
        self._measures = False

    @property
    def live(self) -> bool:
        """Whether the compiled kernels are there."""
        return spike_conv.native.load()[0] is not None

    def start(self, form: str = "spikes", time_steps: int | None = None, counting: bool = False, **options) -> Run:
        """A new state, for `step`; always in the form "spikes" where the compiled kernels are there.

        Args:
            form, time_steps, counting, options: as for `Converted.start`.
        """
        run = super().start(form, time_steps, counting, **options)
        if self.live:
            run.form, run.carry_out = "spikes", self._carry_out
        return run

    def forward(self, *args, per_step: bool = False, **kwargs) -> Any:
        """What the converted network returns; see `Converted.forward`."""
        if any(isinstance(x, Tensor) and not x.numel() for x in (*args, *kwargs.values())):
            return self.merged(*args, per_step=per_step, **kwargs)
        return super().forward(*args, per_step=per_step, **kwargs)

    def _carry_out(
        self, place: str, name: str, counts: Tensor, scale: Tensor, weight: Tensor, bias: Tensor | None, options: dict
    ) -> Tensor | None:
        """A layer of whole numbers, their thresholds being `scale` [C]; None where the kernels do not know it."""
        known = weight.ndim == 2 if name == "linear" else name == "conv2d" and counts.ndim == 4
        if not known or not counts.numel() or weight.dtype not in spike_conv.native.DTYPES:
            return None
        made_of = weight, bias, scale
        before, layer = self._layers.get(place, (None, None))
        if before is None or not all(seen.same(x) for seen, x in zip(before, made_of, strict=True)):
            layer = self._prepared(place, scale, weight, bias, options)
            self._layers[place] = [Seen(x) for x in made_of], layer
        if layer is None:
            return None
        if self._measures and (found := layer.calibrate(counts, self.levels)):
            self.limits[place] = found
        return layer(counts, self.levels)

    def _prepared(self, place, scale, weight, bias, options) -> SignedLayer | None:
        padding = options.get("padding", 0)
        dilation = options.get("dilation", 1)
        if isinstance(padding, str) or options.get("groups", 1) != 1 or dilation not in (1, (1,), (1, 1), [1], [1, 1]):
            return None
        if 2 * (-(-weight.shape[1] // 64) * 64) * weight[0, 0].numel() > spike_conv.MOST_ROWS:
            return None
        scaled = weight.detach() * scale.view(-1, *[1] * (weight.ndim - 2))
        made = spike_conv.signed(scaled if scaled.ndim == 4 else scaled[..., None, None])
        prepared = spike_conv.prepare(made, precision=PRECISIONS[self.precision])
        dense = prepared.dense[:, : weight.shape[1]].reshape(weight.shape).contiguous()
        bias = None if bias is None else bias.detach().contiguous()
        found = self.limits.get(place, (None, None))
        return SignedLayer(place, prepared, dense, bias, _pair(options.get("stride", 1)), _pair(padding), *found)

    @torch.no_grad()
    def calibrate(self, *args, **kwargs) -> None:
        """Measures from which density on each layer is faster dense, on one batch of inputs."""
        state, last = self.start(), min(STEPS, self.time_steps)
        try:
            for t in range(1, last + 1):
                self._measures = t == last
                self.step(state, *args, constant=True, **kwargs)
        finally:
            self._measures = False

    def layers(self) -> list[LayerReport]:
        """How each layer ran in the last step, in the order of their first calls. Empty before the first step."""
        return [report(layer, layer.density) for _, layer in self._layers.values() if layer is not None]

    def memory(self) -> dict[str, int]:
        """Bytes of the weights prepared for layers, in both forms; nothing else is kept between steps but the state."""
        layers = [layer for _, layer in self._layers.values() if layer is not None]
        return {"buffers": 0, "weights": sum(layer.weight.tiles.numel() + layer.dense.nbytes for layer in layers)}

    def stream(self, frame: Tensor, state: ConvertedStream | None = None, **kwargs) -> tuple[Tensor, ConvertedStream]:
        """One frame: the logits so far and the state, which is brought up to date in place and says how long this frame took.

        Args:
            frame: [B, C, H, W], or whatever the network takes; it may differ from frame to frame.
            state: what the last frame returned, or None for the first.
        """
        started = time.perf_counter()
        state = state or ConvertedStream(self.start())
        logits = logits_of(self.step(state.run, frame, **kwargs))
        state.frames += 1
        state.milliseconds = 1e3 * (time.perf_counter() - started)
        return logits, state

    def __getstate__(self) -> dict[str, Any]:
        """Without what was prepared, which is made again when needed."""
        return {**super().__getstate__(), "_layers": {}}


def _pair(x) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else tuple(x) if len(x) == 2 else (x[0], x[0])
