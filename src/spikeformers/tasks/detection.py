"""Faster and Mask R-CNN (Ren et al., NeurIPS 2015; He et al., ICCV 2017) of torchvision around spiking backbones.

The heads are those of Yao et al., ICLR 2024: every layer but the last ones of the box head is LIF - layer, without normalisation unless it is asked for,
time steps are kept up to the logits and averaged there, and proposals follow from the averages. Different from what was
published: anchors and regions are placed by the true strides of the maps, batches may hold any number of images of any sizes,
and the mask head's convolutions add to a membrane potential, without which its neurons fall silent.
"""
# Shapes: T time steps, B images, C channels, H W pixels, R regions of all images, K classes with the background, A anchors per place.

import difflib
import inspect
import math
from collections.abc import Sequence
from typing import Annotated

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from .._arguments import Count, Positive, check_argument, checked
from .._ranges import Range
from ..layers.merging import MergeChoices, joined
from ..models._backbone import SpikingBackbone
from ..models._registry import register_task
from ..models.network import configure
from .pyramid import (
    DenseModel,
    Maps,
    SpikingFPN,
    body_of,
    check_heads,
    check_stages,
    check_whole,
    drawn,
    last_of_each_stride,
    neuron_of,
    spike_layer,
)

SIZES = (32, 64, 128, 256, 512)
"""Sides of the anchors in pixels, from the first level of the pyramid to the last; those of the papers."""

OURS = (
    *(
        "backbone",
        "num_classes",
        "kwargs",
        "rpn_anchor_generator",
        "rpn_head",
        "box_roi_pool",
        "box_head",
        "box_predictor",
    ),
    *("mask_roi_pool", "mask_head", "mask_predictor"),
)
"""Arguments of torchvision's detectors that are made here."""


class SpikingRPNHead(nn.Module):
    """Region proposal network: LIF - 3x3 convolution, then LIF and one 1x1 convolution each for objectness and box, averaged over time.

    Args:
        channels: of the pyramid's maps.
        num_anchors: A, per place.
        neuron: makes the spiking neurons.
    """

    def __init__(self, channels: int, num_anchors: int, neuron):
        super().__init__()
        self.conv = spike_layer(nn.Conv2d(channels, channels, 3, padding=1), neuron)
        self.lif = neuron()
        self.cls_logits = drawn(nn.Conv2d(channels, num_anchors, 1), 0.3)
        self.bbox_pred = drawn(nn.Conv2d(channels, 4 * num_anchors, 1), 0.1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps [T, B, C, H_i, W_i] -> logits of objectness [B, A, H_i, W_i] and box deltas [B, 4 A, H_i, W_i]."""
        logits, deltas = [], []
        for x in maps:
            spikes = self.lif(self.conv(x))
            logits.append(_averaged(self.cls_logits, spikes))
            deltas.append(_averaged(self.bbox_pred, spikes))
        return logits, deltas


class TemporalRoIAlign(MultiScaleRoIAlign):
    """RoIAlign at every time step, with strides that are given, not guessed from sizes.

    Regions of side s go to the level floor(log2(s / (14 * first stride))), limited to those that there are: with strides 4, 8, 16, 16
    to the levels of 56, 112, 224 and 448 pixels, as is usual for strides 4 to 32 (Lin et al., CVPR 2017, Eq. 1).

    Args:
        strides: of the maps, in pixels of the image; the maps are called "0", "1", ...
        output_size: height and width of a region.
    """

    def __init__(self, strides: Sequence[int], output_size: int):
        super().__init__([str(i) for i in range(len(strides))], output_size, sampling_ratio=2)
        self.strides = list(strides)
        self.scales = [1 / stride for stride in strides]
        self.map_levels = LevelMapper(0, len(strides) - 1, canonical_scale=14 * strides[0], canonical_level=0)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Maps [T, B, C, H_i, W_i] and boxes [R_b, 4] of B images -> [T, R, C, size, size]; maps without time give [R, C, size, size]."""
        first = x["0"]
        if first.ndim == 4:
            return super().forward(x, boxes, image_shapes)
        steps = len(first)
        flat = {name: maps.flatten(0, 1) for name, maps in x.items()}
        return super().forward(flat, boxes * steps, image_shapes * steps).unflatten(0, (steps, sum(map(len, boxes))))


class SpikingBoxHead(nn.Module):
    """Two times LIF - linear layer, over what RoIAlign found.

    Args:
        channels: of the feature maps.
        neuron: makes the LIFs.
        size: height and width of what RoIAlign gives.
        width: of both layers.
        norm: whether batch normalisations follow.
    """

    def __init__(self, channels: int, neuron, size: int = 7, width: int = 1024, norm: bool = False):
        super().__init__()
        self.fc6 = spike_layer(nn.Linear(channels * size**2, width), neuron, norm)
        self.fc7 = spike_layer(nn.Linear(width, width), neuron, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Regions [T, R, C, 7, 7] -> potentials [T, R, width]"""
        return self.fc7(self.fc6(x.flatten(2)))


class SpikingBoxPredictor(nn.Module):
    """Linear layers on analog potentials, as published, averaged over time. `merge` makes one of them and the layer before."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.cls_score = _quiet(nn.Linear(width, num_classes), 0.01)
        self.bbox_pred = _quiet(nn.Linear(width, 4 * num_classes), 0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, R, width] -> logits [R, K] and box deltas [R, 4 K]"""
        return _averaged(self.cls_score, x), _averaged(self.bbox_pred, x)


class SpikingMaskHead(nn.Module):
    """Convolutions U + conv(LIF(U)), 3x3. The published ones have no shortcut, and from the third on their neurons never fire.

    Args:
        channels: of the feature maps.
        neuron: makes the LIFs.
        depth: how many convolutions.
        norm: whether batch normalisations follow.
    """

    def __init__(self, channels: int, neuron, depth: int = 4, norm: bool = False):
        super().__init__()
        convs = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        self.convs = nn.ModuleList(spike_layer(conv, neuron, norm) for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        """Regions [T, R, C, 14, 14] -> potentials of the same shape"""
        for conv in self.convs:
            x = x + conv(x)
        return x


class SpikingMaskPredictor(nn.Module):
    """LIF - transposed convolution 2x2, LIF - 1x1 convolution, averaged over time.

    Args:
        channels: of the feature maps.
        num_classes: K, with the background.
        neuron: makes the LIFs.
        norm: whether a batch normalisation follows the first layer.
    """

    def __init__(self, channels: int, num_classes: int, neuron, norm: bool = False):
        super().__init__()
        self.upsample = spike_layer(nn.ConvTranspose2d(channels, channels, 2, 2), neuron, norm)
        self.lif = neuron()
        self.mask_logits = drawn(nn.Conv2d(channels, num_classes, 1), 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """[T, R, C, 14, 14] -> logits [R, K, 28, 28]"""
        return _averaged(self.mask_logits, self.lif(self.upsample(x)))


def _averaged(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer at every time step of [T, N, ...], averaged over time; never in half precision, which is too coarse for boxes."""
    return precise(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])).mean(0)


def precise(x: Tensor) -> Tensor:
    """x [...] at least in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Anchors(AnchorGenerator):
    """torchvision's, in the images' precision: under autocast maps are in half, whose numbers above 256 are two pixels apart."""

    def forward(self, image_list, feature_maps: list[Tensor]) -> list[Tensor]:
        return super().forward(
            image_list,
            [found.new_empty((), dtype=image_list.tensors.dtype).expand(found.shape) for found in feature_maps],
        )


class FloatRPNHead(RPNHead):
    """torchvision's; its answers are never in half precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [precise(found) for found in logits], [precise(found) for found in deltas]


class FloatBoxPredictor(FastRCNNPredictor):
    """torchvision's; its answers are never in half precision."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = super().forward(x)
        return precise(logits), precise(deltas)


def _quiet(layer: nn.Module, std: float) -> nn.Module:
    """A last layer: normal weights, so small that training starts without an opinion, and no bias."""
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


class Resizing(GeneralizedRCNNTransform):
    """torchvision's, but of a strip much longer than max_size times its width at least one pixel is left.

    Raises:
        ValueError: an image without pixels.
    """

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        height, width = image.shape[-2:]
        if not height or not width:
            raise ValueError(f"an image of {width}x{height} pixels has nothing to look at")
        scale = self.max_size / max(height, width)
        if self.fixed_size is not None or min(height, width) * scale >= 1:
            return super().resize(image, target)
        size = [max(1, int(side * scale)) for side in (height, width)]
        image = interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
        if target is not None:
            target = {**target, "boxes": resize_boxes(target["boxes"], (height, width), size)}
            if "masks" in target:
                target["masks"] = interpolate(target["masks"][:, None].float(), size)[:, 0].byte()
        return image, target


class _Detector(DenseModel):
    """What Faster and Mask R-CNN share beyond torchvision's."""

    outside = (
        "",
        "transform",
        "rpn",
        "rpn.anchor_generator",
        "roi_heads",
        "roi_heads.box_roi_pool",
        "roi_heads.mask_roi_pool",
    )
    """Modules whose own operators resize images and reckon with boxes, which are no layers: profiles and audits leave them out,
    RoIAlign aside."""

    @property
    def wants(self) -> dict:
        """Images with values in [0, 1], whole, which the detector itself normalises and resizes."""
        return {"mean": (0.0,) * self.in_chans, "std": (1.0,) * self.in_chans, "crop_pct": 1.0}

    def describe_input(self, known) -> None:
        """Of a run's data the classes' names: sizes are the detector's options, and it normalises images itself."""
        super().describe_input({name: value for name, value in known.items() if name == "label_names"})

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width at which the backbone sees a wide image."""
        return self._divisible((self.transform.min_size[-1], self.transform.max_size))

    def forward(self, images: Sequence[Tensor], targets: list[dict[str, Tensor]] | None = None):
        """As torchvision's detectors.

        Args:
            images: [C, H, W] each with values in [0, 1], of any sizes; or frames of events [T, C, H, W], all with the same T. A
                tensor [B, C, H, W] or [T, B, C, H, W] stands for its images.
            targets: in train mode, for each image boxes [N, 4] (x1, y1, x2, y2 in pixels), labels [N] (from 1; 0 is the
                background) and for Mask R-CNN masks [N, H, W].

        Returns:
            In train mode a dict of losses; in eval mode for each image boxes [N, 4], labels [N], scores [N] and, for Mask
            R-CNN, masks [N, 1, H, W] in [0, 1]. Of a tensor on the meta device, whose regions nobody can know, logits of a
            made-up number of them: to count operations.

        Raises:
            ValueError: number of channels, time steps or dtype do not fit, or a label is no class.
        """
        if isinstance(images, Tensor) and images.ndim == 5:  # [T, B, C, H, W]
            images = images.transpose(0, 1)
        if isinstance(images, Tensor) and images.is_meta:
            return self._on_paper(images)
        images = list(images)
        self._check(images, targets)
        frames = len(images[0]) if images[0].ndim == 4 else None
        images = [image.flatten(0, -3) for image in images]
        with self.backbone.showing(frames):
            return super().forward(images, targets) if self.training else self._detect(images)

    def _detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Together go images that are equally large once they are resized and padded; attention would see more padding than that."""
        answers = {}
        padded = [self._padded(image) for image in images]
        for shape in dict.fromkeys(padded):
            places = [i for i, own in enumerate(padded) if own == shape]
            answers |= dict(zip(places, super().forward([images[i] for i in places]), strict=True))
        return [answers[i] for i in range(len(images))]

    def _padded(self, image: Tensor) -> tuple[int, ...]:
        """Height and width at which the backbone sees an image."""
        resized, _ = self.transform.resize(torch.empty_like(image, device="meta"), None)
        return self._divisible(resized.shape[1:])

    def _divisible(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Sides in pixels after padding."""
        divisor = self.transform.size_divisible
        return tuple(math.ceil(side / divisor) * divisor for side in sides)

    def _check(self, images: list[Tensor], targets) -> None:
        shapes = [tuple(image.shape) for image in images]
        if not images or any(len(shape) not in (3, 4) or shape[-3] != self.in_chans for shape in shapes):
            raise ValueError(
                f"expected images [{self.in_chans}, H, W] or frames of events [T, {self.in_chans}, H, W], at least one, not {shapes}"
            )
        if len({shape[:-3] for shape in shapes}) > 1:
            raise ValueError(f"the images of a batch must have the same number of time steps, not those of {shapes}")
        if not all(image.is_floating_point() for image in images):
            raise ValueError(
                f"expected images of floating-point values in [0, 1], not {images[0].dtype}; divide by 255"
            )
        if self.training:
            self._check_targets(images, targets)

    def _check_targets(self, images: list[Tensor], targets) -> None:
        if targets is None or len(targets) != len(images):
            raise ValueError(
                f"in train mode each of the {len(images)} images needs a target, a dict; call eval() for answers"
            )
        wanted = ["boxes", "labels"] + ["masks"] * self.roi_heads.has_mask()
        for image, target in zip(images, targets, strict=True):
            shapes = {name: tuple(target[name].shape) for name in wanted if name in target}
            count = shapes.get("labels", (0,))[0]
            expected = {"boxes": (count, 4), "labels": (count,), "masks": (count, *image.shape[-2:])}
            if shapes != {name: expected[name] for name in wanted}:
                fit = {name: expected[name] for name in wanted}
                raise ValueError(f"the target of an image of {tuple(image.shape)} must hold {fit}, not {shapes}")
            labels = target["labels"]
            if count and (int(labels.min()) < 1 or int(labels.max()) >= self.num_classes):
                raise ValueError(
                    f"labels must be 1 to {self.num_classes - 1}, since 0 is the background and num_classes is {self.num_classes}; "
                    f"these are {labels.unique().tolist()}"
                )

    def merged(self, choices: MergeChoices) -> nn.Module:
        """Makes one linear layer that reads spikes of the box head's last one and each of the two that read its potentials."""
        super().merged(choices)
        head, predictor = self.roi_heads.box_head, self.roi_heads.box_predictor
        if not (isinstance(head, SpikingBoxHead) and isinstance(predictor, SpikingBoxPredictor)):
            return self
        last = [layer for layer in head.fc7.layer.modules() if not isinstance(layer, (nn.Sequential, nn.Identity))]
        if [type(layer) for layer in last] == [nn.Linear]:
            for name in ("cls_score", "bbox_pred"):
                setattr(predictor, name, joined(last[0], getattr(predictor, name)))
            head.fc7.layer = nn.Identity()
        return self

    def _on_paper(self, images: Tensor) -> list[Tensor]:
        """Images [B, C, H, W] -> what the heads answer if every image has as many regions and detections as are allowed."""
        with self.backbone.showing(images.shape[1] if images.ndim == 5 else None):
            maps = self.backbone(images.flatten(1, -3))
        answers = list(self.rpn.head(list(maps.values())))
        level = maps["0"] if maps["0"].ndim == 5 else maps["0"][None]
        steps, batch = level.shape[:2]

        def regions(count: int, size: int) -> Tensor:
            found = roi_align(level.flatten(0, 1), images.new_empty(steps * batch * count, 5), size, sampling_ratio=2)
            found = found.unflatten(0, (steps, batch * count))
            return found if maps["0"].ndim == 5 else found[0]

        heads = self.roi_heads
        answers += heads.box_predictor(heads.box_head(regions(self.rpn.post_nms_top_n(), 7)))
        if heads.has_mask():
            answers.append(heads.mask_predictor(heads.mask_head(regions(heads.detections_per_img, 14))))
        return answers


class SpikingFasterRCNN(_Detector, FasterRCNN):
    """See `faster_rcnn`."""


class SpikingMaskRCNN(_Detector, MaskRCNN):
    """See `mask_rcnn`."""


def anchors_of(levels: int, sizes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """For each level of a pyramid the sides of its anchors, ascending: one where there are as many levels as sizes, several that
    overlap where there are fewer levels, so that none is left out; all levels have as many, since they share one head."""
    many = math.ceil(len(sizes) / levels)
    last = len(sizes) - many
    return tuple(
        tuple(sizes[start : start + many]) for start in (round(i * last / max(1, levels - 1)) for i in range(levels))
    )


def _detector(
    kind: type,
    backbone: str | SpikingBackbone,
    time_steps: int | None,
    backbone_kwargs: dict | None,
    options: dict,
    *,
    num_classes: int,
    heads: str,
    readout: str | None,
    stages: Sequence[int] | None,
    width: int,
    anchor_sizes: Sequence[int],
    tau: float | None,
    norm: bool,
):
    spiking = heads == "spiking"
    readout = readout or ("logits" if spiking else "neck")
    check_heads(heads, readout)
    masks = kind is SpikingMaskRCNN
    check_whole("width", width)
    check_whole("num_classes (which counts the background)", num_classes, 2)
    for name in ("min_size", "max_size", "anchor_sizes"):
        value = anchor_sizes if name == "anchor_sizes" else options.get(name, 1)
        for side in value if isinstance(value, Sequence) and value and not isinstance(value, str) else [value]:
            check_whole(name, side)
    theirs = [
        name for name in inspect.signature(MaskRCNN).parameters if name not in OURS and (masks or "mask" not in name)
    ]
    if unknown := [name for name in options if name not in theirs]:
        known = [name for name in inspect.signature(mask_rcnn).parameters if name != "options"] + theirs
        close = difflib.get_close_matches(unknown[0], known, 3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"detectors have no option {', '.join(unknown)}; {hint}")
    for name, value in options.items():
        _check_option(name, value)
    body, made = body_of(backbone, backbone_kwargs, time_steps)
    if stages is None:
        fine = [i for i, info in enumerate(body.feature_info) if info["reduction"] >= 4] or [len(body.stages) - 1]
        stages = fine if len(fine) <= 4 else last_of_each_stride(body, 4)
    stages = check_stages(body, stages)
    channels = [body.feature_info[i]["num_chs"] for i in stages]
    strides = [body.feature_info[i]["reduction"] for i in stages]
    neuron = neuron_of(body, tau)
    anchors = anchors_of(len(stages) + 1, anchor_sizes)
    rpn_anchors = Anchors(anchors, ((0.5, 1.0, 2.0),) * len(anchors))
    per_place = rpn_anchors.num_anchors_per_location()[0]
    if spiking:
        neck = SpikingFPN(channels, width, neuron, pool=True, norm=norm)
        parts = {
            "rpn_head": SpikingRPNHead(width, per_place, neuron),
            "box_head": SpikingBoxHead(width, neuron, norm=norm),
            "box_predictor": SpikingBoxPredictor(1024, num_classes),
        }
        if masks:
            parts |= {
                "mask_head": SpikingMaskHead(width, neuron, norm=norm),
                "mask_predictor": SpikingMaskPredictor(width, num_classes, neuron, norm=norm),
            }
    else:
        neck = FeaturePyramidNetwork(channels, width, LastLevelMaxPool())
        parts = {
            "rpn_head": FloatRPNHead(width, per_place),
            "box_head": TwoMLPHead(width * 7**2, 1024),
            "box_predictor": FloatBoxPredictor(1024, num_classes),
        }
        if masks:
            parts |= {
                "mask_head": MaskRCNNHeads(width, (width,) * 4, 1),
                "mask_predictor": MaskRCNNPredictor(width, width, num_classes),
            }
    parts["box_roi_pool"] = TemporalRoIAlign(strides, 7)
    if masks:
        parts["mask_roi_pool"] = TemporalRoIAlign(strides, 14)
    normal = {"image_mean": [0.0], "image_std": [1.0]}  # of events, whatever their number of frames
    if body.in_chans == 3:
        own = len(body.pretrained_cfg["mean"]) == 3
        normal = {
            "image_mean": body.pretrained_cfg["mean"] if own else IMAGENET_DEFAULT_MEAN,
            "image_std": body.pretrained_cfg["std"] if own else IMAGENET_DEFAULT_STD,
        }
    defaults = {**normal, "size_divisible": max(32, *strides)}
    maps = Maps(body, stages, neck, width, readout, keep_time=spiking)
    model = kind(maps, rpn_anchor_generator=rpn_anchors, **parts, **{**defaults, **options})
    theirs = model.transform
    settings = {name: getattr(theirs, name) for name in ("image_mean", "image_std", "size_divisible", "fixed_size", "_skip_resize")}
    model.transform = Resizing(theirs.min_size, theirs.max_size, **settings)
    model.num_classes = num_classes
    if made:
        given = {"num_classes": num_classes, "heads": heads, "readout": readout, "stages": stages, "width": width}
        given |= {"anchor_sizes": list(anchor_sizes), "tau": tau, "norm": norm}
        configure(model, "mask_rcnn" if masks else "faster_rcnn", {**made, **given, **options})
    return model


def _check_option(name: str, value: object) -> None:
    """torchvision checks nothing: an option of theirs must be of its default's type, and not negative.

    Raises:
        ValueError: it is not.
    """
    default = {**inspect.signature(FasterRCNN).parameters, **inspect.signature(MaskRCNN).parameters}[name].default
    if name == "image_mean":
        check_argument(name, value, Sequence[float] | None)
    elif name == "image_std":
        check_argument(name, value, Sequence[Positive] | None)
    elif name == "bbox_reg_weights":
        check_argument(name, value, tuple[Positive, Positive, Positive, Positive] | None)
    elif isinstance(default, bool):
        check_argument(name, value, bool)
    elif isinstance(default, float):
        check_argument(name, value, Annotated[float, Range(0)])
    elif isinstance(default, int) and name not in ("min_size", "max_size"):
        check_argument(name, value, Count)


@register_task
@checked
def mask_rcnn(
    backbone: str | SpikingBackbone,
    num_classes: int = 91,
    heads: str = "spiking",
    readout: str | None = None,
    stages: Sequence[int] | None = None,
    width: int = 256,
    anchor_sizes: Sequence[int] = SIZES,
    tau: float | None = None,
    norm: bool = False,
    time_steps: int | None = None,
    backbone_kwargs: dict | None = None,
    **options,
) -> SpikingMaskRCNN:
    """Mask R-CNN with a spiking backbone: boxes and masks of objects.

    Args:
        backbone: a name of `list_models()`, or a model of it, of which a copy is taken.
        num_classes: with the background, which is class 0.
        heads: "spiking", or "float": torchvision's own, behind the mean over time.
        readout: "logits", every time step goes through the heads and their logits are averaged; or "neck", the maps are averaged
            before the pyramid, and the heads see one step. By default the former for spiking heads.
        stages: indices of the stages that the pyramid reads; by default those with a stride of 4 or more, of more than four the last
            of each stride. Meta-SpikeFormer: strides 4, 8, 16, 16.
        width: channels of the pyramid and its heads.
        anchor_sizes: sides of the anchors in pixels of the resized image, ascending; with five levels one each.
        tau: membrane time constant of the heads, in time steps; by default the backbone's.
        norm: batch normalisation behind the layers of pyramid, box and mask head, as in torchvision's second version; the published
            heads have none. `merge` folds it away.
        time_steps: T, how often an image is shown; by default the backbone's own.
        backbone_kwargs: further options of the backbone, given by name.
        options: of torchvision's MaskRCNN, such as min_size and max_size (sides in pixels that images are resized to; several min_size
            are drawn from in training), box_detections_per_img, box_score_thresh, rpn_post_nms_top_n_test.

    Raises:
        ValueError: an option or a stage does not exist.
    """
    return _detector(SpikingMaskRCNN, **locals())


@register_task
@checked
def faster_rcnn(
    backbone: str | SpikingBackbone,
    num_classes: int = 91,
    heads: str = "spiking",
    readout: str | None = None,
    stages: Sequence[int] | None = None,
    width: int = 256,
    anchor_sizes: Sequence[int] = SIZES,
    tau: float | None = None,
    norm: bool = False,
    time_steps: int | None = None,
    backbone_kwargs: dict | None = None,
    **options,
) -> SpikingFasterRCNN:
    """Faster R-CNN with a spiking backbone: boxes of objects.

    Args:
        backbone, num_classes, heads, readout, stages, width, anchor_sizes, tau, norm, time_steps, backbone_kwargs,
            options: as for `mask_rcnn`.
    """
    return _detector(SpikingFasterRCNN, **locals())
