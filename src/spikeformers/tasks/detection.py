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
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from .._arguments import Count, Positive, check_argument, checked
from .._ranges import Range
from ..layers.merging import MergeChoices, joined
from ..models._backbone import SpikingBackbone
from ..models._registry import register_task
from ..models.network import configure
from .detection_heads import (
    FloatBoxPredictor,
    FloatRPNHead,
    SpikingBoxHead,
    SpikingBoxPredictor,
    SpikingMaskHead,
    SpikingMaskPredictor,
    SpikingRPNHead,
)
from .pyramid import (
    DenseModel,
    Maps,
    SpikingFPN,
    body_of,
    check_heads,
    check_stages,
    check_whole,
    last_of_each_stride,
    neuron_of,
)
from .regions import SIZES, Anchors, Resizing, TemporalRoIAlign, anchors_of

OURS = {
    "backbone", "num_classes", "kwargs", "rpn_anchor_generator", "rpn_head", "box_roi_pool", "box_head", "box_predictor", "mask_roi_pool",
    "mask_head", "mask_predictor",
}  # fmt: skip
"""Arguments of torchvision's detectors that are made here."""


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
    """Modules whose own operators resize images and compute boxes. Those are no layers, so profiles and audits count none of them but
    RoIAlign."""

    @property
    def wants(self) -> dict:
        """Images with values in [0, 1], whole, which the detector itself normalises and resizes."""
        return {"mean": (0.0,) * self.in_chans, "std": (1.0,) * self.in_chans, "crop_pct": 1.0}

    def describe_input(self, known) -> None:
        """Takes the classes' names from a run's data; sizes are options of the detector, which normalises images itself."""
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
        """Images that are equally large once they are resized and padded are answered together, so that attention sees no other padding."""
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
        """Joins the box head's last linear layer with each of the two that read its potentials, so that both read spikes."""
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
    spiking, masks = heads == "spiking", kind is SpikingMaskRCNN
    readout = readout or ("logits" if spiking else "neck")
    check_heads(heads, readout)
    _check_sizes(width, num_classes, anchor_sizes, options)
    _check_options(options, masks)
    body, made = body_of(backbone, backbone_kwargs, time_steps)
    stages = check_stages(body, _usual_stages(body) if stages is None else stages)
    channels = [body.feature_info[i]["num_chs"] for i in stages]
    strides = [body.feature_info[i]["reduction"] for i in stages]
    neuron = neuron_of(body, tau)
    anchors = anchors_of(len(stages) + 1, anchor_sizes)
    rpn_anchors = Anchors(anchors, ((0.5, 1.0, 2.0),) * len(anchors))
    per_place = rpn_anchors.num_anchors_per_location()[0]
    if spiking:
        neck = SpikingFPN(channels, width, neuron, pool=True, norm=norm)
        parts = _spiking_heads(width, per_place, num_classes, masks, neuron, norm)
    else:
        neck = FeaturePyramidNetwork(channels, width, LastLevelMaxPool())
        parts = _float_heads(width, per_place, num_classes, masks)
    parts["box_roi_pool"] = TemporalRoIAlign(strides, 7)
    if masks:
        parts["mask_roi_pool"] = TemporalRoIAlign(strides, 14)
    defaults = {**_normalisation(body), "size_divisible": max(32, *strides)}
    maps = Maps(body, stages, neck, width, readout, keep_time=spiking)
    model = kind(maps, rpn_anchor_generator=rpn_anchors, **parts, **{**defaults, **options})
    theirs = model.transform
    settings = {
        name: getattr(theirs, name)
        for name in ("image_mean", "image_std", "size_divisible", "fixed_size", "_skip_resize")
    }
    model.transform = Resizing(theirs.min_size, theirs.max_size, **settings)
    model.num_classes = num_classes
    if made:
        given = {"num_classes": num_classes, "heads": heads, "readout": readout, "stages": stages, "width": width}
        given |= {"anchor_sizes": list(anchor_sizes), "tau": tau, "norm": norm}
        configure(model, "mask_rcnn" if masks else "faster_rcnn", {**made, **given, **options})
    return model


def _check_sizes(width: int, num_classes: int, anchor_sizes: Sequence[int], options: dict) -> None:
    check_whole("width", width)
    check_whole("num_classes (which counts the background)", num_classes, 2)
    for name in ("min_size", "max_size", "anchor_sizes"):
        value = anchor_sizes if name == "anchor_sizes" else options.get(name, 1)
        for side in value if isinstance(value, Sequence) and value and not isinstance(value, str) else [value]:
            check_whole(name, side)


def _check_options(options: dict, masks: bool) -> None:
    """Refuses options that torchvision's detectors do not have, or values that do not fit them."""
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


def _usual_stages(body: SpikingBackbone) -> list[int]:
    """Those with a stride of 4 or more; of more than four the last of each stride."""
    fine = [i for i, info in enumerate(body.feature_info) if info["reduction"] >= 4] or [len(body.stages) - 1]
    return fine if len(fine) <= 4 else last_of_each_stride(body, 4)


def _spiking_heads(
    width: int, per_place: int, num_classes: int, masks: bool, neuron, norm: bool
) -> dict[str, nn.Module]:
    parts = {
        "rpn_head": SpikingRPNHead(width, per_place, neuron),
        "box_head": SpikingBoxHead(width, neuron, norm=norm),
        "box_predictor": SpikingBoxPredictor(1024, num_classes),
    }
    if masks:
        parts["mask_head"] = SpikingMaskHead(width, neuron, norm=norm)
        parts["mask_predictor"] = SpikingMaskPredictor(width, num_classes, neuron, norm=norm)
    return parts


def _float_heads(width: int, per_place: int, num_classes: int, masks: bool) -> dict[str, nn.Module]:
    parts = {
        "rpn_head": FloatRPNHead(width, per_place),
        "box_head": TwoMLPHead(width * 7**2, 1024),
        "box_predictor": FloatBoxPredictor(1024, num_classes),
    }
    if masks:
        parts["mask_head"] = MaskRCNNHeads(width, (width,) * 4, 1)
        parts["mask_predictor"] = MaskRCNNPredictor(width, width, num_classes)
    return parts


def _normalisation(body: SpikingBackbone) -> dict[str, Sequence[float]]:
    """Of images what the backbone says of them, or ImageNet's; none for events, whatever their number of frames."""
    if body.in_chans != 3:
        return {"image_mean": [0.0], "image_std": [1.0]}
    if len(body.pretrained_cfg["mean"]) != 3:
        return {"image_mean": IMAGENET_DEFAULT_MEAN, "image_std": IMAGENET_DEFAULT_STD}
    return {"image_mean": body.pretrained_cfg["mean"], "image_std": body.pretrained_cfg["std"]}


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
