"""Names of published parameters and modules, translated to ours."""

import re

import torch
from torch import Tensor, nn

from ._backbone import spiking_backbone
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
DENSE = [
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


def first_match(rules: list[tuple[str, str]], name: str) -> str | None:
    """Our name by the first rule whose pattern matches the whole of a published one; None if there is none."""
    for pattern, ours in rules:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(ours)
    return None


def background_rows(ours: str) -> int:
    """How many rows of our parameter belong to the background; they are never read, and mmdetection has none of them."""
    layer = ours.rpartition(".")[0]
    return {"roi_heads.box_predictor.bbox_pred": 4, "roi_heads.mask_predictor.mask_logits": 1}.get(layer, 0)


def background_first(ours: str, value: Tensor) -> Tensor:
    """mmdetection's rows [...], whose background is the last or missing, in torchvision's order, whose background is the first."""
    if ours.startswith("roi_heads.box_predictor.cls_score."):
        return value.roll(1, 0)
    if rows := background_rows(ours):
        return torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
    return value


def translate(model: nn.Module, name: str) -> str | None:
    """Our name for a published one; UNUSED, or None if there is none."""
    body = spiking_backbone(model)
    if body is model:
        return _translate_backbone(model, name)
    if not name.startswith("backbone."):
        return first_match(DENSE, name)
    name = name.removeprefix("backbone.")
    if re.fullmatch(r"(head|head_kd)\.(weight|bias)", name):
        return UNUSED
    ours = _translate_backbone(body, name)
    return f"backbone.body.{ours}" if ours else ours


def _translate_backbone(model: nn.Module, name: str) -> str | None:
    if isinstance(model, Spikingformer):
        return first_match(_SPIKINGFORMER, name)
    if not isinstance(model, MetaSpikeFormer):
        raise ValueError(f"no published naming scheme is known for {type(model).__name__}")
    ours = first_match(_META_SPIKEFORMER, name)
    block = re.fullmatch(r"(stages\.\d\.blocks\.\d+\.)(.+)", ours or "")
    if block is None:
        return ours
    inner = first_match(_META_SPIKEFORMER_BLOCK, block[2])
    return None if inner is None else block[1] + inner


def module_name(model: nn.Module, name: str) -> str | None:
    """Our name for a module of the published code, as its logs write it; None if there is none.

    Neurons are known as well as layers: they have no weights, so state dicts do not name them.
    """
    if not isinstance(model, (Spikingformer, MetaSpikeFormer)):
        return None
    ours = first_match(_NEURONS[type(model)], name)
    if ours is None:
        parameter = translate(model, f"{name}.weight")
        ours = parameter.removesuffix(".weight") if parameter else None
    return ours
