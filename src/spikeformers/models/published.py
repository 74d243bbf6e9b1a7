"""Weights that others published: copied into our models, and a report of everything that does not match."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from ._backbone import spiking_backbone
from ._published_names import DENSE, UNUSED, background_first, background_rows, first_match, translate
from ._reading import read_state_dict
from ._registry import create_model, list_models, list_tasks
from ._saving import save_model
from ._state_dict import bad_values, opened
from .meta_spikeformer import MetaSpikeFormer
from .spikingformer import Spikingformer

# (one of our parameters, option that its shape reveals, axis)
_DENSE_SIZES = [
    ("roi_heads.box_predictor.cls_score.weight", "num_classes", 0),
    ("head.classifier.weight", "num_classes", 0),
    ("head.classifier.weight", "head_width", 1),
    ("backbone.neck.lateral.0.layer.weight", "width", 0),
]

_DETECTOR_NOTE = (
    "a published detector needs fine-tuning here: it placed anchors and regions as if its last two levels had strides 32 and "
    "64, which are 16 and 32; its RoIAlign was shifted by half a pixel (aligned) and took more samples of larger regions; and "
    "its mask head, if it has one, had no shortcuts"
)


@dataclass
class LoadReport:
    """What `load_published` did, by published name.

    Attributes:
        loaded: how many tensors were copied.
        unused: published parameters that the published forward pass never reads, left out.
        missing: our parameters that the checkpoint does not hold.
        unexpected: published parameters that this model has no place for.
        mismatched: parameters whose shapes differ, with both shapes.
        invalid: parameters that hold no weights, such as quantised ones or values that are not finite, and why.
        notes: what else a careful user wants to know.
        not_in_weights: settings that change the outputs and that no weight reveals, with the values the model has.
    """

    loaded: int = 0
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_in_weights: dict[str, object] = field(default_factory=dict)

    def by_kind(self) -> dict[str, list[str]]:
        """Everything that does not match."""
        return {
            "in the model only": self.missing,
            "in the checkpoint only": self.unexpected,
            "shape": self.mismatched,
            "no weights": self.invalid,
        }

    def problems(self) -> list[str]:
        """One line for everything that does not match."""
        return [f"{kind}: {name}" for kind, names in self.by_kind().items() for name in names]

    def __str__(self) -> str:
        lines = [f"{self.loaded} tensors loaded, {len(self.unused)} unused ones left out"]
        lines += self.notes
        if self.not_in_weights:
            settings = ", ".join(f"{name}={value}" for name, value in self.not_in_weights.items())
            lines.append(f"not held by the weights, so taken from the model (check them): {settings}")
        return "\n".join(lines + self.problems())


def load_published(
    model: nn.Module, checkpoint: str | os.PathLike | Mapping[str, object], strict: bool = True, ema: bool | None = None
) -> LoadReport:
    """Copies published weights into a model made by `create_model`.

    Understands the names of Spike-driven Transformer V2 (with or without the distillation head) and of Spikingformer
    (ImageNet, CIFAR and event variants, current and older names), and our own names; wrapped or not, as trainers, torch.compile,
    data parallelism and averaging leave them ("model", "state_dict", `module.`, `_orig_mod.`, `n_averaged`). Nothing is unpickled
    but tensors and plain data.

    The weights do not reveal the number of time steps, of attention heads, tau or CML pooling: the report lists the values
    that the model has. A distillation head in the checkpoint is unmistakable: a Meta-SpikeFormer without one gets it.

    Detectors and segmentation networks with spiking heads take the names of OpenMMLab's modules around those backbones: Mask and
    Faster R-CNN of mmdetection from 2.0 on, whose background class is the last and here the first (rows are reordered), and FPN
    with FPNHead of mmsegmentation. The names follow the documented structure of these modules; no released file could be tried.
    mmengine's own files hold Python objects beside the weights: save their "state_dict" alone.

    Args:
        model: the model to fill; its dtype is kept.
        checkpoint: path of a .pth, .pt, .ckpt or .safetensors file, of the .index.json (or its folder) of one in several files, or a
            state dict.
        strict: raise if anything does not match; otherwise load what does and leave the rest to the report.
        ema: whether to take weights that were averaged over training (True) or the last ones (False) where a checkpoint holds both;
            None takes averaged ones if there are any. The report says what was taken.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: the file cannot be read safely, holds quantised weights or values that are not finite, or not what `ema` asks for; the model is of no published family, a classifier's weights are given for a
            detector or segmentation network, or (strict) something does not match; the model is as before then.
    """
    if not isinstance(checkpoint, Mapping):
        with _naming(checkpoint):
            return load_published(model, read_state_dict(checkpoint), strict, ema)
    published, notes, left_out = opened(checkpoint, ema, lenient=True)
    report = LoadReport(not_in_weights=_not_in_weights(model), notes=notes)
    if left_out:
        report.notes.append(f"left out, since most names say that they are not the network's: {_some(left_out)}")
    body = spiking_backbone(model)
    dense = body is not model
    if dense and not _is_dense(model, published):
        raise ValueError(
            f"none of these weights is one of a detector or segmentation network, and the model is a {type(model).__name__}: "
            "load a classifier's into its backbone, load_published(model.backbone.body, checkpoint, strict=False), or give "
            "them to a recipe as model.weights"
        )
    # a backbone without classes cannot use one
    single = model if isinstance(model, MetaSpikeFormer) and model.num_classes > 0 and not model.distillation else None
    given_head = single if "head_kd.weight" in published else None
    if given_head is not None:
        given_head.add_distillation_head()
        report.notes.append(
            "the checkpoint has a distillation head, so the model got one: in eval mode it answers the mean of both"
        )
    old = "backbone.patch_embed.rpe_conv.weight" if dense else "patch_embed.rpe_conv.weight"
    if isinstance(body, Spikingformer) and old in published:
        report.notes.append(
            "these names are those of older Spikingformer checkpoints and of Spikformer's, which would load and answer nonsense: "
            "make sure that this is a Spikingformer"
        )
    if dense and "rpn_head.rpn_conv.weight" in published:
        report.notes.append(_DETECTOR_NOTE)
    pairs = _match(model, published, report)
    for name, (target, value) in list(pairs.items()):
        if wrong := bad_values({name: value}, {name: target}):
            report.invalid += wrong
            del pairs[name]
    report.loaded = len(pairs)
    if strict and report.problems():
        if given_head is not None:
            given_head.remove_distillation_head()
        raise ValueError(_advice(model, published, report))
    with torch.no_grad():
        for target, value in pairs.values():
            target.copy_(value)
    return report


@contextlib.contextmanager
def _naming(path: str | os.PathLike) -> Iterator[None]:
    """Inside, errors name the file."""
    try:
        yield
    except ValueError as error:
        raise (error if str(path) in str(error) else ValueError(f"{path}: {error}")) from None


def _match(model: nn.Module, published: Mapping[str, Tensor], report: LoadReport) -> dict[str, tuple[Tensor, Tensor]]:
    """By published name, pairs of our tensors and the values to copy into them; what finds no partner goes into the report."""
    own, pairs, taken = model.state_dict(), {}, {}
    missing = {name for name in own if not name.endswith("num_batches_tracked")}
    for name, value in published.items():
        ours = name if name in own else translate(model, name)
        if ours == UNUSED:
            report.unused.append(name)
            continue
        if ours not in own and name.startswith("early."):  # classifiers that only our training needs
            report.unused.append(name)
            continue
        if ours not in own:
            report.unexpected.append(name)
            continue
        if ours in taken:
            report.unexpected.append(f"{name} (the same parameter as {taken[ours]})")
            continue
        taken[ours] = name
        missing.discard(ours)
        target = own[ours]
        if value.layout != torch.strided:
            report.invalid.append(f"{name} is sparse")
            continue
        if ours != name and value.ndim == target.ndim:
            value = background_first(ours, value)
        if target.ndim == 4 and value.ndim == 3:  # a 1x1 convolution, published in one dimension
            value = value[..., None]
        if target.shape == value.shape:
            pairs[name] = target, value
        else:
            rows = " with rows for the background" if ours != name and background_rows(ours) else ""
            report.mismatched.append(f"{name} is {list(value.shape)}{rows}, the model has {list(target.shape)}")
    report.missing = sorted(missing)
    return pairs


def import_checkpoint(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    architecture: str | None = None,
    ema: bool | None = None,
    **kwargs,
) -> LoadReport:
    """Converts published weights for good: OUT.safetensors with OUT.json beside it, for `create_model(checkpoint=OUT)`.

    num_classes, in_chans and distillation are read off the shapes of the weights unless given, and so is the architecture of a
    classifier if exactly one fits; what the weights do not reveal (time steps, heads, tau) comes from the architecture's defaults
    and `kwargs`. The report names all of it. Detectors and segmentation networks are one of `list_tasks()` with a `backbone`;
    width and head_width are read off their weights too.

    Args:
        checkpoint: the published file, as for `load_published`.
        out: the .safetensors file.
        architecture: the model's name, or None if the weights say.
        ema: whether averaged weights are taken, as for `load_published`.
        kwargs: options of the model.

    Raises:
        ValueError: as `load_published` and `create_model`; several architectures fit, or none.
    """
    with _naming(checkpoint):
        content = read_state_dict(checkpoint)
        published = opened(content, ema, lenient=True)[0]
        is_task, dense = architecture in list_tasks(), _dense_sizes(published)
        if dense and not is_task:
            raise ValueError(
                "these are the weights of a detector or segmentation network: name it and its backbone "
                f"(--model NAME --backbone NAME; networks are {', '.join(list_tasks())})"
            )
        options = {**(dense if is_task else _sizes(published)), **kwargs}
        if dense and (in_chans := _sizes(published, "backbone.").get("in_chans")):
            options["backbone_kwargs"] = {"in_chans": in_chans, **options.get("backbone_kwargs", {})}
        name = architecture or _architecture_of(published, options)
        model = create_model(name, **options)
        report = load_published(model, content, ema=ema)
        if architecture is None:
            report.notes.insert(0, f"the shapes of the weights fit {name} and no other model")
    save_model(model, out)
    return report


def _some(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _sizes(published: Mapping[str, Tensor], prefix: str = "") -> dict[str, int | bool]:
    """Options of a classifier that its published weights reveal."""
    sizes = {}
    if (
        f"{prefix}head.weight" in published
        and published[f"{prefix}head.weight"].ndim == 2
        and published[f"{prefix}head.weight"].numel()
    ):
        sizes["num_classes"] = published[f"{prefix}head.weight"].shape[0]
    if f"{prefix}head_kd.weight" in published:
        sizes["distillation"] = True
    for name in ("downsample1_1.encode_conv.weight", "patch_embed.proj_conv.weight", "patch_embed.block0_conv.weight"):
        if prefix + name in published and published[prefix + name].ndim == 4 and published[prefix + name].numel():
            sizes["in_chans"] = published[prefix + name].shape[1]
    return sizes


def _dense_sizes(published: Mapping[str, Tensor]) -> dict[str, int]:
    """Options of a detector or segmentation network that its weights reveal; none if they are a classifier's."""
    ours = {first_match(DENSE, name) or name: value for name, value in published.items()}
    return {
        option: ours[name].shape[axis]
        for name, option, axis in _DENSE_SIZES
        if name in ours and ours[name].ndim > axis and ours[name].numel()
    }


def _architecture_of(published: Mapping[str, Tensor], options: dict) -> str:
    """The one registered classifier that the weights fit."""
    fitting = []
    for name in list_models():
        with torch.device("meta"), contextlib.suppress(ValueError):  # an option that this model does not have
            report = LoadReport()
            _match(create_model(name, **options), published, report)
            fitting += [] if report.problems() else [name]
    if len(fitting) == 1:
        return fitting[0]
    found = f"these fit the weights: {', '.join(fitting)}" if fitting else "none fits the weights as it is"
    raise ValueError(f"which model? {found}; name it (--model NAME, spikeformers list shows all)")


def _is_dense(model: nn.Module, published: Mapping[str, Tensor]) -> bool:
    """Whether any name can be one of a detector or segmentation network, published or our own."""
    own = model.state_dict()
    return any(name in own or name.startswith("backbone.") or first_match(DENSE, name) for name in published)


def _not_in_weights(model: nn.Module) -> dict[str, object]:
    names = ("time_steps", "num_heads", "tau", "cml", "pools", "strides")
    body = spiking_backbone(model)
    found = {name: getattr(body, name) for name in names if hasattr(body, name)}
    return found if body is model else {**found, "readout": cast(nn.Module, model.backbone).readout}


def _advice(model: nn.Module, published: Mapping[str, Tensor], report: LoadReport) -> str:
    """The error message: what does not match, and how to mend it where that is known."""
    hints = _dense_hints(model, published) if spiking_backbone(model) is not model else _hints(model, published)
    kinds = report.by_kind()
    each = 20 // max(1, sum(bool(names) for names in kinds.values()))  # so that no kind hides another
    shown = []
    for kind, names in kinds.items():
        shown += [f"{kind}: {name}" for name in names[:each]]
        shown += [f"and {len(names) - each} more {kind}"] * (len(names) > each)
    return "\n  ".join([f"the checkpoint does not fit this {type(model).__name__}:", *shown, *hints])


def _hints(model: nn.Module, published: Mapping[str, Tensor]) -> list[str]:
    hints = []
    if _dense_sizes(published):
        hints.append(
            "these are the weights of a detector or segmentation network: load them into one, such as "
            "create_model('mask_rcnn', backbone=NAME)"
        )
    classes = _sizes(published).get("num_classes", model.num_classes)
    if classes != model.num_classes:
        hints.append(f"the checkpoint has {classes} classes: create the model with num_classes={classes}")
    if "head_kd.weight" not in published and model.distillation:
        hints.append("the checkpoint has no distillation head: load with strict=False to leave the model's as it is")
    return hints


def _dense_hints(model: nn.Module, published: Mapping[str, Tensor]) -> list[str]:
    hints, config = [], getattr(model, "config", {})
    counted = "; classes count the background" if hasattr(model, "rpn") else ""
    for option, size in _dense_sizes(published).items():
        if config.get(option, size) != size:
            hints.append(
                f"create the model with {option}={size}, as the checkpoint has it{counted * (option == 'num_classes')}"
            )
    if config.get("heads") == "float":
        hints.append("only networks with heads='spiking' have published names")
    return hints
