"""What every spiking backbone shares: time, the timm contract and the classification head. The papers' files hold the rest."""

import itertools
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .._arguments import Count, Index, Share, Steps, check_argument, checked, shown
from ..layers import ConvBN, Part, PerStep, Redistributed, RepConv, TimestepShrink, check_temporal, compact_spikes
from ..layers.merging import MergeChoices, averaged
from .early import EarlyClassifiers
from .network import Network, reconfigure, unconfigure


@contextmanager
def _statistics_kept(module: nn.Module):
    """Batch normalisations leave their running statistics alone: a recomputed pass must not count, nor shift RepConv's border."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counters = [norm.num_batches_tracked for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, counter in zip(norms, momenta, counters, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def spiking_backbone(model: nn.Module) -> nn.Module:
    """The backbone inside a detector or segmentation network; a classifier is one itself."""
    return getattr(getattr(model, "backbone", None), "body", model)


class SpikingBackbone(Network):
    """A spiking vision backbone: stem, stages and head, with timm's interface and the time axis in front.

    Subclasses build `stem` (stateless layers applied to the analog input), `stages` (a ModuleList), `feature_info` (one entry
    per stage: num_chs, reduction, module) and then call `build_head`.

    Inputs are static images [B, C, H, W], shown `time_steps` times, or sequences [T, B, C, H, W]. The stem sees a static
    image once. State starts from rest in every call.

    Args:
        in_chans: channels C of the input.
        time_steps: T, how often a static image is shown.
        global_pool: "avg", or "" for the map that is not pooled; see `reset_classifier`.
    """

    stem: nn.Module
    stages: nn.ModuleList
    feature_info: list[dict[str, Any]]
    head: nn.Module
    head_kd: nn.Module

    @checked
    def __init__(self, in_chans: Count, time_steps: Steps, global_pool: str = "avg"):
        super().__init__()
        self.in_chans = in_chans
        self.global_pool = global_pool
        self.time_steps = time_steps
        self.grad_checkpointing = False
        self.keep_compact_spikes = True
        self.schedule: list[int] | None = None  # time steps of every stage, once they differ
        self.shrinks = nn.ModuleDict()  # by the index of the stage behind
        self.early = EarlyClassifiers()

    @checked
    def build_head(
        self, num_features: Count, num_classes: Index, drop_rate: Share, head_lif: nn.Module, distillation: bool = False
    ) -> None:
        """The classifier on pooled features, and a second one of the same shape for distillation."""
        self.num_features = self.head_hidden_size = num_features
        self.head_lif = head_lif
        self.head_drop = nn.Dropout(drop_rate)
        self.distillation = distillation
        self.reset_classifier(num_classes, self.global_pool)

    @checked
    def reset_classifier(self, num_classes: Index, global_pool: str | None = None) -> None:
        """Replaces the classifier, and that for distillation if there is one.

        Args:
            num_classes: 0 leaves features: what the classifier would read, or with a global_pool of "" the last stage's map.
            global_pool: "avg", the pooling that the papers' heads have, or "", none, which only a model without classes can do;
                None for what it was, and for "avg" where there are classes.

        Raises:
            ValueError: another pooling, or classes without pooling.
        """
        if global_pool is None:
            global_pool = "avg" if num_classes else self.global_pool
        if global_pool not in ("avg", ""):
            raise ValueError(
                f"global_pool must be 'avg', or '' with num_classes=0 for the map that is not pooled, not {global_pool!r}: the "
                "published heads have no other"
            )
        if num_classes and not global_pool:
            raise ValueError(
                f"global_pool='' leaves the map unpooled, which no classifier reads: it needs num_classes=0, not {num_classes}"
            )
        self.num_classes, self.global_pool = num_classes, global_pool
        self.head = self._classifier(num_classes)
        if self.distillation:
            self.head_kd = self._classifier(num_classes)
        self.early = self.early.anew(self)

    def _classifier(self, num_classes: int) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        like = next(self.parameters())
        head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    def describe_input(self, known: Mapping[str, object]) -> None:
        """Makes `pretrained_cfg`, timm's description of the input, say what is known; without knowing, images of other channels than the
        architecture's have its mean values."""
        cfg = self.pretrained_cfg
        channels, *size = cfg["input_size"]
        size = getattr(self, "img_size", size)
        if channels != self.in_chans:
            cfg |= {name: (sum(cfg[name]) / len(cfg[name]),) * self.in_chans for name in ("mean", "std")}
        cfg |= {"input_size": (self.in_chans, *size), "num_classes": self.num_classes, **known}

    def add_distillation_head(self) -> None:
        """Gives the model the second classifier that it would have had with distillation=True."""
        self.distillation = True
        self.head_kd = self._classifier(self.num_classes)

    def remove_distillation_head(self) -> None:
        """Takes the second classifier away."""
        self.distillation = False
        del self.head_kd

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier, or both where there is one for distillation."""
        return (self.head, self.head_kd) if self.distillation else self.head

    def merged(self, choices: MergeChoices) -> nn.Module:
        """Of two classifiers one, and no early ones; no `config` describes the weights any more."""
        unconfigure(self)
        self.remove_early_classifiers()
        if self.distillation and choices.free(self.head, self.head_kd):
            if self.num_classes > 0:
                self.head = averaged(cast(nn.Linear, self.head), cast(nn.Linear, self.head_kd))
            self.remove_distillation_head()
        return self

    def set_distilled_training(self, enable: bool = True) -> None:
        """timm's switch; in train mode both heads always answer.

        Raises:
            ValueError: it is to be enabled and there is no distillation head.
        """
        if enable and not self.distillation:
            raise ValueError("this model has no distillation head; create it with distillation=True")

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]  a decorator, too
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every stage in the backward pass instead of keeping its activations.

        A forward pass must be followed by its backward pass before the next one in train mode: the padding of RepConv is
        recomputed from the running statistics of that moment. Under torch.compile, which decides itself what to keep, the
        switch has no effect.
        """
        self.grad_checkpointing = enable

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]  a decorator, too
    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay should leave alone; 1-d ones are exempt by custom."""
        return set()

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]  a decorator, too
    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's parameter groups for layer-wise learning rates: the stem, then every block (or stage), last the head."""
        inside = [] if coarse else [(r"^stages\.(\d+)\.downsample", (-1,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^(?:stem|tokenizer)", "blocks": [*inside, (r"^stages\.(\d+)", None)]}

    def set_schedule(self, schedule: Sequence[int], temporal: str = "softmax") -> None:
        """Gives every stage its number of time steps, which never grow: a `TimestepShrink` where they shrink.

        Args:
            schedule: T of each stage, as many as `stages`; an input needs the first number of frames.
            temporal: kind of `TimestepShrink`.

        Raises:
            ValueError: it does not fit the stages, or time steps grow.
        """
        try:
            steps = list(cast(Sequence[int], check_argument("schedule", schedule, Sequence[int])))
        except ValueError:
            raise ValueError(
                f"a schedule is a list of whole numbers, one for each stage, such as [8, 6, 4, 2], not {shown(schedule)}"
            ) from None
        check_temporal(temporal)
        schedule = steps
        stages = ", ".join(
            f"{info['module']} ({units} layers)" for info, units in zip(self.feature_info, self.units(), strict=True)
        )
        if len(schedule) != len(self.stages):
            raise ValueError(
                f"the schedule {schedule} has {len(schedule)} numbers of time steps and this model {len(self.stages)} stages: {stages}; "
                "give one for each stage, equal ones where nothing shrinks"
            )
        if any(a < b for a, b in itertools.pairwise(schedule)) or min(schedule) < 1:
            raise ValueError(
                f"time steps must be at least 1 and cannot grow, as in {schedule}; the stages are {stages}"
            )
        like = next(self.parameters())
        self.schedule, self.time_steps = schedule, schedule[0]
        reconfigure(self, time_steps=schedule[0], schedule=schedule, temporal=temporal)
        self.shrinks = nn.ModuleDict(
            {
                str(i): TimestepShrink(schedule[i - 1], schedule[i], temporal)
                for i in range(1, len(schedule))
                if schedule[i] < schedule[i - 1]
            }
        ).to(like.device, like.dtype)

    def units(self) -> list[int]:
        """For every stage, how many convolutions with their neurons it holds; the first counts what comes before it too. Shortcuts
        do not count.

        A RepConv is one, and so are SepConv's convolutions without a neuron in between.
        """
        prefixes = [f"{info['module']}." for info in self.feature_info]
        counts = [0] * len(self.stages)
        for name, module in self.named_modules():
            if isinstance(module, (ConvBN, RepConv, PerStep)) and not {"shortcut", "early"} & set(name.split(".")):
                counts[next((i for i, prefix in enumerate(prefixes) if name.startswith(prefix)), 0)] += 1
        return counts

    def add_early_classifiers(self, shared: bool = False) -> None:
        """A classifier behind every stage but the last, which answers in train mode only: see `early.EarlyClassifiers`.

        Args:
            shared: one for all stages; otherwise one for each.

        Raises:
            ValueError: the model has no classes, or only one stage.
        """
        self.early = EarlyClassifiers.of(self, shared)

    def remove_early_classifiers(self) -> None:
        """Takes the early classifiers away; nothing else changes."""
        self.early = EarlyClassifiers()

    def sequence(self, x: Tensor) -> Tensor:
        """The input as [T, B, C, H, W], with T = 1 for a static image, checked.

        Raises:
            ValueError: other axes, types, channels, or images that the model reduces to nothing.
        """
        if x.ndim not in (4, 5):
            raise ValueError(
                f"expected images [B, C, H, W] or a sequence [T, B, C, H, W], not {tuple(x.shape)}; "
                "a single image needs a batch axis: x[None]"
            )
        if not x.is_floating_point() or x.shape[0] == 0:
            raise ValueError(
                f"expected normalised floating-point images, at least one, not {tuple(x.shape)} of {x.dtype}; "
                "convert with x.float() / 255 and normalise as model.pretrained_cfg says"
            )
        *_, channels, height, width = x.shape
        if channels != self.in_chans:
            raise ValueError(
                f"the input {tuple(x.shape)} has {channels} channels and this model takes {self.in_chans}; "
                f"create the model with in_chans={channels}, or check that channels come before height and width"
            )
        smallest = max(info["reduction"] for info in self.feature_info)
        if min(height, width) < smallest:
            raise ValueError(
                f"the image is {height} x {width} and this model reduces it {smallest}-fold; "
                f"resize it to at least {smallest} x {smallest}, or use a model for smaller images"
            )
        return x if x.ndim == 5 else x[None]

    def embed(self, x: Tensor) -> Tensor:
        """Input -> what the first stage takes, [T, B, C, H, W]. A static image passes the stem once."""
        steps = self.time_steps if x.ndim == 4 else x.shape[0]
        return self.stem(self.sequence(x)).expand(steps, -1, -1, -1, -1)

    def enter_stage(self, index: int, x: Tensor) -> Tensor:
        """Stage `index` on x [T, B, C, H, W], with fewer time steps where the schedule says so: [T', B, C', H', W']."""
        stage = self.stages[index]
        if str(index) not in self.shrinks:
            return self._stage(stage, x)
        first = stage
        while type(first) is nn.Sequential and len(first):
            first = first[0]
        once = isinstance(first, Part) and first.takes_redistributed
        return self._stage(stage, self.shrinks[str(index)](x, made=not once))

    def _stage(self, stage: nn.Module, x: Tensor | Redistributed) -> Tensor:
        if self.grad_checkpointing and self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return checkpoint(
                stage, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(stage))
            )
        return stage(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, C, H, W] or [T, B, C, H, W] -> the last stage's map [T, B, C', H', W']."""
        with compact_spikes() if self.keep_compact_spikes else nullcontext():
            x = self.embed(x)
            for index in range(len(self.stages)):
                x = self.enter_stage(index, x)
        return x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps of chosen stages, each [T, B, C, H, W] with its time axis.

        Args:
            x: as for forward.
            indices: which stages: a list of indices, the last n, or None for all.
            norm: accepted for timm; there is no final norm.
            stop_early: do not run the stages behind the last one asked for.
            output_fmt: "NCHW", channels before pixels; nothing else.
            intermediates_only: return only the list.

        Returns:
            The list of maps, or (the last map, the list).

        Raises:
            ValueError: another output_fmt.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW' (with a time axis in front), not {output_fmt!r}")
        wanted, last = feature_take_indices(len(self.stages), indices)
        maps = []
        with compact_spikes() if self.keep_compact_spikes else nullcontext():
            x = self.embed(x)
            for i in range(len(self.stages)):
                if stop_early and i > last:
                    break
                x = self.enter_stage(i, x)
                if i in wanted:
                    maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages behind the last one asked for, and the head; returns the indices taken.

        Args:
            indices: which stages: a list of indices, or the last n.
            prune_norm: accepted for timm; there is no final norm.
            prune_head: whether the classifier goes, too.
        """
        wanted, last = feature_take_indices(len(self.stages), indices)
        self.stages, self.feature_info = self.stages[: last + 1], self.feature_info[: last + 1]
        self.shrinks = nn.ModuleDict({index: module for index, module in self.shrinks.items() if int(index) <= last})
        self.early = self.early.before(last)
        self.schedule = self.schedule and self.schedule[: last + 1]
        if prune_head:
            self.reset_classifier(0)
        return wanted

    def last_map(self, x: Tensor) -> Tensor:
        """The last stage's map [T, B, C, H, W] -> what is pooled, of the same shape."""
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """[T, B, C, H, W] -> what the head sees of a map, [T, B, num_features]: the mean over pixels."""
        return self.last_map(x).mean((3, 4))

    def forward_head(self, x: Tensor, pre_logits: bool = False, per_step: bool = False):
        """The last stage's map [T, B, C, H, W] -> logits.

        Args:
            x: feature map with its time axis.
            pre_logits: return the pooled features [B, C] (or [T, B, C]) that the classifier reads.
            per_step: keep the time axis instead of averaging over it.

        Returns:
            Logits [B, classes] or [T, B, classes]; with a distillation head a pair of them in train mode and their mean in
            eval mode. With a global_pool of "" the map that would be pooled, [B, C, H, W] or [T, B, C, H, W].
        """
        if not self.global_pool:
            x = self.last_map(x)
            return x if per_step else x.mean(0)
        x = self.pooled(x)
        if isinstance(self.head_lif, nn.Identity) and not per_step:
            x = x.mean(0, keepdim=True)  # nothing fires any more, so the classifier need not run T times
        x = self.head_drop(self.head_lif(x))
        heads = [nn.Identity()] if pre_logits else [self.head, self.head_kd] if self.distillation else [self.head]
        logits = [head(x) if per_step else head(x).mean(0) for head in heads]
        if len(logits) == 1:
            return logits[0]
        return tuple(logits) if self.training else (logits[0] + logits[1]) / 2

    def forward(self, x: Tensor, per_step: bool = False):
        """Static images [B, C, H, W] or a sequence [T, B, C, H, W] -> logits [B, classes], or [T, B, classes] `per_step`.

        In train mode with early classifiers: a pair of that and the list of their logits, in the order of the stages.
        """
        if self.training and self.early:
            return self.early(self, x, per_step)
        return self.forward_head(self.forward_features(x), per_step=per_step)
