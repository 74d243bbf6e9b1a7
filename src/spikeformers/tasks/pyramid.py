"""What dense tasks share: maps of a backbone's stages, a spiking feature pyramid network, and layers that read spikes."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._arguments import check_argument
from .._options import shown
from .._ranges import Range
from ..layers import Part, per_step
from ..layers.merging import MergeChoices
from ..models import create_model
from ..models._backbone import SpikingBackbone
from ..models.network import Configured, reconfigure, unconfigure
from ..neurons import LIF

HEADS = ("spiking", "float")
READOUTS = ("neck", "logits")
RATE = 0.2
"""Firing rate that the initial weights of layers behind neurons are made for."""


class SpikeLayer(nn.Module):
    """LIF, then a convolution or linear layer, at every time step: the order of all layers of the dense heads (Yao et al., ICLR 2024).

    Args:
        layer: stateless, from [N, ...] to [N, ...].
        neuron: the spiking neuron in front of it.
    """

    def __init__(self, layer: nn.Module, neuron: nn.Module):
        super().__init__()
        self.lif = neuron
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Potentials [T, N, ...] -> [T, N, ...]"""
        return per_step(self.layer, self.lif(x))


def drawn(layer: nn.Module, std: float) -> nn.Module:
    """Draws normal weights with which a layer whose inputs fire at RATE has outputs of this standard deviation; its bias is zero.

    For last layers `std` is that of logits. Much below one, training is slow: through small weights little comes back to the
    spikes that they read, and they have a long way to go.
    """
    fan_in = layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        fan_in = layer.weight.shape[0] * layer.weight[0, 0].numel() // math.prod(layer.stride)
    nn.init.normal_(layer.weight, std=std / math.sqrt(fan_in * RATE))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def spike_layer(layer: nn.Module, neuron: Callable[[], nn.Module], norm: bool = False) -> SpikeLayer:
    """LIF - layer, or LIF - layer - batch normalisation, with initial weights that make the next neurons fire.

    The outputs' standard deviation is tau * v_threshold: what a neuron at rest has to read in one step to fire. About 16 % of
    them do. torch's own initial weights are made for rectified units; behind neurons without normalisation their potentials are
    several times too small, and activity dies out within two layers.

    Args:
        layer: linear or a convolution; its weights are drawn anew.
        neuron: makes the LIF.
        norm: whether a batch normalisation follows.
    """
    lif = neuron()
    reach = getattr(lif, "tau", 1.0) * getattr(lif, "v_threshold", 1.0)
    drawn(layer, reach)
    if norm:
        linear = isinstance(layer, nn.Linear)
        bn = nn.BatchNorm1d(layer.out_features) if linear else nn.BatchNorm2d(layer.out_channels)
        nn.init.constant_(bn.weight, reach)
        layer = nn.Sequential(layer, bn)
    return SpikeLayer(layer, lif)


class SpikingFPN(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017) of LIF - convolution layers (Yao et al., ICLR 2024).

    A 1x1 convolution per map, sums from the last map to the first (nearest neighbours where sizes differ; maps of equal size
    are added as they are), and a 3x3 convolution per sum.

    Args:
        in_channels: of each map, in the backbone's order.
        out_channels: of every output.
        neuron: makes the spiking neurons.
        pool: one more output, every second place of the last one.
        norm: batch normalisation behind every convolution; there is none in the published networks.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        neuron: Callable[[], nn.Module],
        pool: bool = False,
        norm: bool = False,
    ):
        super().__init__()
        self.pool = pool

        def layer(channels: int, size: int) -> SpikeLayer:
            return spike_layer(nn.Conv2d(channels, out_channels, size, padding=size // 2), neuron, norm)

        self.lateral = nn.ModuleList(layer(channels, 1) for channels in in_channels)
        self.output = nn.ModuleList(layer(out_channels, 3) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> OrderedDict[str, Tensor]:
        """Maps [T, B, C_i, H_i, W_i] -> {"0": [T, B, C, H_0, W_0], "1": ...}, with `pool` also "pool"."""
        sums = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + resized(sums[i], sums[i - 1].shape[-2:])
        outputs = OrderedDict((str(i), layer(x)) for i, (layer, x) in enumerate(zip(self.output, sums, strict=True)))
        if self.pool:
            outputs["pool"] = outputs[str(len(sums) - 1)][..., ::2, ::2]
        return outputs


def resized(x: Tensor, size: Sequence[int], mode: str = "nearest") -> Tensor:
    """Maps [T, B, C, H, W] at another size (height, width), at every time step.

    Args:
        x: the maps.
        size: height and width.
        mode: of torch's interpolate.
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    smooth = {} if mode == "nearest" else {"align_corners": False}
    return per_step(lambda x: functional.interpolate(x, size=tuple(size), mode=mode, **smooth), x)


class Maps(nn.Module):
    """A spiking backbone without its head, as maps of some of its stages on the same number of time steps, and a neck on them.

    Args:
        body: the backbone.
        stages: indices of the stages whose maps are taken, ascending.
        neck: from the list of maps to a dict of maps.
        out_channels: of the neck's maps; torchvision asks for it.
        readout: "neck", the maps are averaged over time before the neck; "logits", the neck sees every time step.
        keep_time: whether averaged maps keep a time axis of length 1.
    """

    def __init__(
        self,
        body: SpikingBackbone,
        stages: Sequence[int],
        neck: nn.Module,
        out_channels: int,
        readout: str,
        keep_time: bool = True,
    ):
        super().__init__()
        self.stages = list(stages)
        body.prune_intermediate_layers(self.stages)
        self.body, self.neck = body, neck
        self.out_channels, self.readout, self.keep_time = out_channels, readout, keep_time
        self.frames: int | None = None

    @contextmanager
    def showing(self, frames: int | None) -> Iterator[None]:
        """Inside, inputs [B, T * C, H, W] hold so many frames each, which is how torchvision's detectors hand sequences on; None: none do."""
        self.frames = frames
        try:
            yield
        finally:
            self.frames = None

    def maps(self, x: Tensor) -> list[Tensor]:
        """[B, C, H, W], [T, B, C, H, W] or, inside `showing`, [B, T * C, H, W] -> maps [T, B, C_i, H_i, W_i]."""
        if self.frames is not None:
            x = x.unflatten(1, (self.frames, self.body.in_chans)).transpose(0, 1)
        maps = self.body.forward_intermediates(x, self.stages, intermediates_only=True)
        if self.readout == "neck":
            return [found.mean(0, keepdim=True) for found in maps]
        return in_step(maps)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """An input as for `maps` -> the neck's maps [T, B, C, H_i, W_i], or [B, C, H_i, W_i] without `keep_time`."""
        maps = self.maps(x)
        if self.keep_time:
            return self.neck(maps)
        return self.neck(OrderedDict((str(i), found[0]) for i, found in enumerate(maps)))

    def extra_repr(self) -> str:
        return f"stages={self.stages}, readout={self.readout!r}"


def in_step(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps [T_i, ...] of stages whose time steps shrink, all with the fewest: each keeps the means of as many spans of its steps."""
    fewest = min(len(found) for found in maps)

    def spans(found: Tensor) -> Tensor:
        bounds = [(i * len(found) // fewest, -(-(i + 1) * len(found) // fewest)) for i in range(fewest)]
        return torch.stack([found[start:end].mean(0) for start, end in bounds])

    return [found if len(found) == fewest else spans(found) for found in maps]


class DenseModel(Configured, Part):
    """What detectors and segmentation networks have in common with backbones, whose places are taken from `backbone.body`.

    `config` holds the arguments with which `create_model` makes the same network again.
    """

    any_size = True

    @property
    def body(self) -> SpikingBackbone:
        return self.backbone.body

    @property
    def in_chans(self) -> int:
        return self.body.in_chans

    @property
    def time_steps(self) -> int:
        """T, how often an image is shown."""
        return self.body.time_steps

    @time_steps.setter
    def time_steps(self, steps: int) -> None:
        self.body.time_steps = steps
        reconfigure(self, time_steps=steps)

    @property
    def schedule(self) -> list[int] | None:
        """Time steps of every stage, once they differ."""
        return self.body.schedule

    @property
    def feature_info(self) -> list[dict]:
        return [{**info, "module": f"backbone.body.{info['module']}"} for info in self.body.feature_info]

    @property
    def pretrained_cfg(self) -> dict:
        return {
            **self.body.pretrained_cfg,
            **self.wants,
            "input_size": (self.in_chans, *self.input_size),
            "num_classes": self.num_classes,
            **getattr(self, "known", {}),
        }

    @property
    def wants(self) -> dict:
        """Of `pretrained_cfg`, what is different from the backbone's."""
        return {}

    def describe_input(self, known: Mapping[str, object]) -> None:
        """Makes `pretrained_cfg`, timm's description of the input, say what is known."""
        self.known = {**getattr(self, "known", {}), **known}

    def merged(self, choices: MergeChoices) -> nn.Module:
        """Itself: no configuration describes the weights any more."""
        unconfigure(self)
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the backbone's stages in the backward pass instead of keeping their activations."""
        self.body.set_grad_checkpointing(enable)


def body_of(
    backbone: str | SpikingBackbone, options: dict | None, time_steps: int | None
) -> tuple[SpikingBackbone, dict]:
    """A backbone by name or a copy of one, without classifier, and the part of the configuration that describes it.

    Args:
        backbone: a name of `list_models()`, or a network.
        options: of a backbone by name.
        time_steps: T of a backbone by name, if not its own.

    Raises:
        ValueError: it is neither, or an option does not exist.
    """
    options = {**(options or {}), **({} if time_steps is None else {"time_steps": time_steps})}
    if isinstance(backbone, SpikingBackbone):
        if options:
            raise ValueError(
                f"{', '.join(options)}: options of a backbone belong to its name; this one is made already"
            )
        body = copy.deepcopy(backbone)
        body.reset_classifier(0)
        made = getattr(body, "config", {})
    elif isinstance(backbone, str):
        body = create_model(backbone, **{"num_classes": 0, **options})
        made = body.config
    else:
        raise ValueError(
            f"backbone must be a name of list_models() or a backbone made by create_model, not {type(backbone).__name__}"
        )
    made = {**made, "num_classes": 0, "distillation": False} if "distillation" in made else {**made, "num_classes": 0}
    body.remove_early_classifiers()
    if body.distillation:
        body.remove_distillation_head()
    name, steps = made.pop("architecture", None), made.pop("time_steps", None)
    return body, {"backbone": name, "backbone_kwargs": made, "time_steps": steps} if name else {}


def check_heads(heads: str, readout: str) -> None:
    """Refuses what are no heads or no readout, and those that do not go together.

    Raises:
        ValueError: they do not exist, or float heads are to be read over time.
    """
    for name, value, choices in (("heads", heads, HEADS), ("readout", readout, READOUTS)):
        if value not in choices:
            raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")
    if heads == "float" and readout != "neck":
        raise ValueError("float heads know no time: they need readout='neck', the mean over time in front of them")


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Refuses an option `name` that is no whole number.

    Args:
        name: of the option.
        value: what was given.
        least: the smallest allowed.

    Raises:
        ValueError: it is none, or too small.
    """
    try:
        check_argument(name, value, Annotated[int, Range(least)])
    except ValueError:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {shown(value)}") from None


def last_of_each_stride(body: SpikingBackbone, least: int = 1) -> list[int]:
    """Indices of the stages that are the last with their stride, of those with a stride of `least` or more."""
    strides = {info["reduction"]: i for i, info in enumerate(body.feature_info) if info["reduction"] >= least}
    return sorted(strides.values())


def check_stages(body: SpikingBackbone, stages: Sequence[int]) -> list[int]:
    """The indices of stages, ascending and not negative.

    Raises:
        ValueError: there are none, or there is no such stage.
    """
    count = len(body.stages)
    try:
        check_argument("stages", stages, Sequence[Annotated[int, Range(-count, count - 1)]])
        fits = len(stages) > 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"stages must be indices of the backbone's {count} stages, 0 to {count - 1}, not {shown(stages)}"
        )
    return sorted({i % count for i in stages})


def neuron_of(body: SpikingBackbone, tau: float | None) -> Callable[[], nn.Module]:
    """What makes the neurons of a head: LIF with the backbone's time constant, unless `tau` is given, and slope of the surrogate."""
    tau = getattr(body, "tau", 2.0) if tau is None else tau
    return lambda: LIF(tau, alpha=getattr(body, "alpha", 4.0))
