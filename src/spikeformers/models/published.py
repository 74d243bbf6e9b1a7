"""Weights that others published: their names translated to ours, and what does not match said aloud."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from ._backbone import spiking_backbone
from ._checkpoint import save_model
from ._reading import bad_values, opened, read_state_dict
from ._registry import create_model, list_models, list_tasks
from .meta_spikeformer import MetaSpikeFormer
from .spikingformer import Spikingformer

UNUSED = ""  # the translation of a published parameter that the published forward pass never reads

# (pattern of a published name, our name); matched whole, the first that matches counts
_META_SPIKEFORMER = [
    (r"downsample1_1\.encode_(conv|bn)\.(\w+)", r"stem.\1.\2"),
    (r"downsample1_2\.encode_(conv|bn)\.(\w+)", r"stages.1.downsample.conv_bn.\1.\2"),
    (r"downsample([234])\.encode_(conv|bn)\.(\w+)", r"stages.\1.downsample.conv_bn.\2.\3"),
    (r"ConvBlock1_1\.(\d+)\.(.+)", r"stages.0.blocks.\1.\2"),
    (r"ConvBlock1_2\.(\d+)\.(.+)", r"stages.1.blocks.\1.\2"),
    (r"ConvBlock2_1\.0\.(.+)", r"stages.2.blocks.0.\1"),
    (r"ConvBlock2_2\.0\.(.+)", r"stages.2.blocks.1.\1"),
    (r"block([34])\.(\d+)\.(.+)", r"stages.\1.blocks.\2.\3"),
    (r"(head|head_kd)\.(weight|bias)", r"\1.\2"),
]
_META_SPIKEFORMER_BLOCK = [
    (r"Conv\.pwconv1\.(\w+)", r"sep_conv.branch.expand.conv.\1"),
    (r"Conv\.bn1\.(\w+)", r"sep_conv.branch.expand.bn.\1"),
    (r"Conv\.dwconv\.(\w+)", r"sep_conv.branch.depthwise.\1"),
    (r"Conv\.pwconv2\.(\w+)", r"sep_conv.branch.project.conv.\1"),
    (r"Conv\.bn2\.(\w+)", r"sep_conv.branch.project.bn.\1"),
    (r"(conv|bn)([12])\.(\w+)", r"channel_conv.branch.fc\2.\1.\3"),
    (r"attn\.(q|k|v|proj)_conv\.0\.body\.0\.(\w+)", r"attention.branch.\1.expand.\2"),
    (r"attn\.(q|k|v|proj)_conv\.0\.body\.1\.bn\.(\w+)", r"attention.branch.\1.expand_bn.\2"),
    (r"attn\.(q|k|v|proj)_conv\.0\.body\.2\.0\.(\w+)", r"attention.branch.\1.depthwise.\2"),
    (r"attn\.(q|k|v|proj)_conv\.0\.body\.2\.1\.(\w+)", r"attention.branch.\1.project.\2"),
    (r"attn\.(q|k|v|proj)_conv\.0\.body\.2\.2\.(\w+)", r"attention.branch.\1.project_bn.\2"),
    (r"attn\.(q|k|v|proj)_conv\.1\.(\w+)", r"attention.branch.\1.bn.\2"),
    (r"mlp\.fc([12])_(conv|bn)\.(\w+)", r"mlp.branch.fc\1.\2.\3"),
]
_SPIKINGFORMER = [
    (r"patch_embed\.proj_(conv|bn)\.(\w+)", r"stem.\1.\2"),
    (r"patch_embed\.block0_(conv|bn)\.(\w+)", r"stem.\1.\2"),
    (r"patch_embed\.(?:proj|block)1_(conv|bn)\.(\w+)", r"tokenizer.0.conv_bn.\1.\2"),
    (r"patch_embed\.(?:proj|block)2_(conv|bn)\.(\w+)", r"tokenizer.1.conv_bn.\1.\2"),
    (r"patch_embed\.(?:proj|block)3_(conv|bn)\.(\w+)", r"tokenizer.2.conv_bn.\1.\2"),
    (r"patch_embed\.(?:proj|block)4_(conv|bn)\.(\w+)", r"tokenizer.3.conv_bn.\1.\2"),
    # names of older checkpoints
    (r"patch_embed\.proj_(conv|bn)1\.(\w+)", r"tokenizer.0.conv_bn.\1.\2"),
    (r"patch_embed\.proj_(conv|bn)2\.(\w+)", r"tokenizer.1.conv_bn.\1.\2"),
    (r"patch_embed\.proj_(conv|bn)3\.(\w+)", r"tokenizer.2.conv_bn.\1.\2"),
    (r"patch_embed\.rpe_(conv|bn)\.(\w+)", r"tokenizer.3.conv_bn.\1.\2"),
    (r"block\.\d+\.norm[12]\.(weight|bias)", UNUSED),
    (r"block\.(\d+)\.attn\.(q|k|v|proj)_(conv|bn)\.(\w+)", r"stages.\1.attention.branch.\2.\3.\4"),
    (r"block\.(\d+)\.mlp\.(?:mlp|fc)([12])_(conv|bn)\.(\w+)", r"stages.\1.mlp.branch.fc\2.\3.\4"),
    (r"head\.(weight|bias)", r"head.\1"),
]

# detectors and segmentation networks, as mmdetection and mmsegmentation name their modules; names behind "backbone." are above
_DENSE = [
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"backbone.neck.lateral.\1.layer.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", r"backbone.neck.output.\1.layer.\2"),
    (r"rpn_head\.rpn_conv\.(\w+)", r"rpn.head.conv.layer.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", r"rpn.head.cls_logits.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", r"rpn.head.bbox_pred.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.0\.(\w+)", r"roi_heads.box_head.fc6.layer.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.1\.(\w+)", r"roi_heads.box_head.fc7.layer.\1"),
    (r"roi_head\.bbox_head\.fc_cls\.(\w+)", r"roi_heads.box_predictor.cls_score.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(\w+)", r"roi_heads.box_predictor.bbox_pred.\1"),
    (r"roi_head\.mask_head\.convs\.(\d+)\.conv\.(\w+)", r"roi_heads.mask_head.convs.\1.layer.\2"),
    (r"roi_head\.mask_head\.upsample\.(\w+)", r"roi_heads.mask_predictor.upsample.layer.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(\w+)", r"roi_heads.mask_predictor.mask_logits.\1"),
    # every second place of a scale head is a doubling of the map's size
    *(
        (rf"decode_head\.scale_heads\.(\d+)\.{2 * i}\.(conv|bn)\.(\w+)", rf"head.scales.\1.{i}.conv_bn.\2.\3")
        for i in range(5)
    ),
    (r"decode_head\.conv_seg\.(\w+)", r"head.classifier.\1"),
    (r"auxiliary_head\..+", UNUSED),
]
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

# neurons and groups of layers, which no state dict names
_NEURONS = {
    Spikingformer: [
        (r"block\.(\d+)\.attn\.(q|k|v|attn)_lif", r"stages.\1.attention.branch.\2_lif"),
        (r"block\.(\d+)\.attn\.proj_lif", r"stages.\1.attention.lif"),
        (r"block\.(\d+)\.mlp\.(?:mlp|fc)1_lif", r"stages.\1.mlp.lif"),
        (r"block\.(\d+)\.mlp\.(?:mlp|fc)2_lif", r"stages.\1.mlp.branch.lif"),
    ],
    MetaSpikeFormer: [
        (r"block([34])\.(\d+)\.attn\.head_lif", r"stages.\1.blocks.\2.attention.lif"),
        (r"block([34])\.(\d+)\.attn\.(q|k|v|attn)_lif", r"stages.\1.blocks.\2.attention.branch.\3_lif"),
        (r"block([34])\.(\d+)\.attn\.(q|k|v|proj)_conv", r"stages.\1.blocks.\2.attention.branch.\3"),
        (r"block([34])\.(\d+)\.mlp\.fc1_lif", r"stages.\1.blocks.\2.mlp.lif"),
        (r"block([34])\.(\d+)\.mlp\.fc2_lif", r"stages.\1.blocks.\2.mlp.branch.lif"),
        ("lif", "head_lif"),
    ],
}


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
        ours = name if name in own else _translate(model, name)
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
            value = _background_first(ours, value)
        if target.ndim == 4 and value.ndim == 3:  # a 1x1 convolution, published in one dimension
            value = value[..., None]
        if target.shape == value.shape:
            pairs[name] = target, value
        else:
            rows = " with rows for the background" if ours != name and _background_rows(ours) else ""
            report.mismatched.append(f"{name} is {list(value.shape)}{rows}, the model has {list(target.shape)}")
    report.missing = sorted(missing)
    return pairs


def import_checkpoint(
    checkpoint: str | os.PathLike, out: str | os.PathLike, architecture: str | None = None, ema: bool | None = None, **kwargs
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
    if f"{prefix}head.weight" in published and published[f"{prefix}head.weight"].ndim == 2 and published[f"{prefix}head.weight"].numel():
        sizes["num_classes"] = published[f"{prefix}head.weight"].shape[0]
    if f"{prefix}head_kd.weight" in published:
        sizes["distillation"] = True
    for name in ("downsample1_1.encode_conv.weight", "patch_embed.proj_conv.weight", "patch_embed.block0_conv.weight"):
        if prefix + name in published and published[prefix + name].ndim == 4 and published[prefix + name].numel():
            sizes["in_chans"] = published[prefix + name].shape[1]
    return sizes


def _dense_sizes(published: Mapping[str, Tensor]) -> dict[str, int]:
    """Options of a detector or segmentation network that its weights reveal; none if they are a classifier's."""
    ours = {_first_match(_DENSE, name) or name: value for name, value in published.items()}
    return {option: ours[name].shape[axis] for name, option, axis in _DENSE_SIZES if name in ours and ours[name].ndim > axis and ours[name].numel()}


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


def _first_match(rules: list[tuple[str, str]], name: str) -> str | None:
    for pattern, ours in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    return None


def _is_dense(model: nn.Module, published: Mapping[str, Tensor]) -> bool:
    """Whether any name can be one of a detector or segmentation network, published or our own."""
    own = model.state_dict()
    return any(name in own or name.startswith("backbone.") or _first_match(_DENSE, name) for name in published)


def _background_rows(ours: str) -> int:
    """How many rows of our parameter belong to the background, are never read, and have none to match in mmdetection."""
    layer = ours.rpartition(".")[0]
    return {"roi_heads.box_predictor.bbox_pred": 4, "roi_heads.mask_predictor.mask_logits": 1}.get(layer, 0)


def _background_first(ours: str, value: Tensor) -> Tensor:
    """Rows of mmdetection's classes, the background last or not there at all, in torchvision's order: the background first."""
    if ours.startswith("roi_heads.box_predictor.cls_score."):
        return value.roll(1, 0)
    if rows := _background_rows(ours):
        return torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
    return value


def _translate(model: nn.Module, name: str) -> str | None:
    """Our name for a published one; UNUSED, or None if there is none."""
    body = spiking_backbone(model)
    if body is model:
        return _translate_backbone(model, name)
    if not name.startswith("backbone."):
        return _first_match(_DENSE, name)
    name = name.removeprefix("backbone.")
    if re.fullmatch(r"(head|head_kd)\.(weight|bias)", name):
        return UNUSED
    ours = _translate_backbone(body, name)
    return f"backbone.body.{ours}" if ours else ours


def _translate_backbone(model: nn.Module, name: str) -> str | None:
    if isinstance(model, Spikingformer):
        return _first_match(_SPIKINGFORMER, name)
    if not isinstance(model, MetaSpikeFormer):
        raise ValueError(f"no published naming scheme is known for {type(model).__name__}")
    ours = _first_match(_META_SPIKEFORMER, name)
    block = re.fullmatch(r"(stages\.\d\.blocks\.\d+\.)(.+)", ours or "")
    if block is None:
        return ours
    inner = _first_match(_META_SPIKEFORMER_BLOCK, block[2])
    return None if inner is None else block[1] + inner


def module_name(model: nn.Module, name: str) -> str | None:
    """Our name for a module of the published code, as its logs write it; None if there is none.

    Neurons are known as well as layers: they have no weights, so state dicts do not name them.
    """
    if not isinstance(model, (Spikingformer, MetaSpikeFormer)):
        return None
    ours = _first_match(_NEURONS[type(model)], name)
    if ours is None:
        parameter = _translate(model, f"{name}.weight")
        ours = parameter.removesuffix(".weight") if parameter else None
    return ours


def _not_in_weights(model: nn.Module) -> dict[str, object]:
    names = ("time_steps", "num_heads", "tau", "cml", "pools", "strides")
    body = spiking_backbone(model)
    found = {name: getattr(body, name) for name in names if hasattr(body, name)}
    return found if body is model else {**found, "readout": cast(nn.Module, model.backbone).readout}


def _advice(model: nn.Module, published: Mapping[str, Tensor], report: LoadReport) -> str:
    """The error message: what does not match, and what to do in the cases that have a name."""
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
