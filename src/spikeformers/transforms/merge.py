"""Merging for deployment: linear operations of eval mode without a neuron in between become one operation.

A batch normalisation in eval mode is y = s x + t, with s = gamma / sqrt(var + eps) and t = beta - mean * s. It goes into the
convolution or linear layer in front of it, RepConv and SepConv become fewer convolutions, the scale of the attention becomes a
threshold, and two classifiers whose mean is taken become one. Parameters are computed in float64 and cast back.
"""

import copy
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import singledispatch

import torch
from torch import Tensor, nn

from ..layers import ConvBN, PerHead, PerStep, RepConv, SpikingSelfAttention
from ..layers.hooks import PERMANENT, changes_of, computed, copied
from ..models._backbone import SpikingBackbone
from ..models.meta_spikeformer import SepConv
from ..neurons import Neuron

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = {  # and the normalisations of the axis that they compute
    nn.Linear: (nn.BatchNorm1d,),
    nn.Conv1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.Conv2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.Conv3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
    nn.ConvTranspose1d: (nn.BatchNorm1d, nn.SyncBatchNorm),
    nn.ConvTranspose2d: (nn.BatchNorm2d, nn.SyncBatchNorm),
    nn.ConvTranspose3d: (nn.BatchNorm3d, nn.SyncBatchNorm),
}


@dataclass(frozen=True)
class MergeChoices:
    """What becomes one dense convolution, though that has more weights.

    Attributes:
        repconv: RepConv as one 3x3 (9 C^2 weights instead of 2 C^2 + 9 C).
        sepconv: SepConv's depthwise 7x7 and second 1x1 as one 7x7 (98 C^2 weights instead of 2 C^2 + 98 C).
        kept: modules that were not merged, and the hook or the like on them that would have vanished.
    """

    repconv: bool
    sepconv: bool
    kept: dict[nn.Module, list[str]] = field(default_factory=dict, compare=False)

    def free(self, *roots: nn.Module) -> bool:
        """Whether nothing hangs at these modules or in them, so that they can be replaced."""
        found = {module: changes for root in roots for module in root.modules() if (changes := changes_of(module))}
        self.kept.update(found)
        return not found


COSTS = {"cpu": MergeChoices(repconv=False, sepconv=False), "neuromorphic": MergeChoices(repconv=True, sepconv=True)}


@torch.no_grad()
def merge(
    model: nn.Module, cost: str = "cpu", *, repconv: bool | None = None, sepconv: bool | None = None
) -> nn.Module:
    """A copy of the model for inference with the same logits and the same spikes, up to rounding.

    Merged are: ConvBN, RepConv, SepConv, the scale of SDSA-3 and SDSA-4, the second head of a distilled model, and in any
    nn.Sequential, of any model, a BatchNorm directly behind a convolution, a transposed convolution or a linear layer. A
    BatchNorm1d behind a linear layer is taken to see [N, C], and the merged layer refuses [N, L, C], whose axis L the BN would normalise. A
    BatchNorm that is called in any other way stays.

    The result is in eval mode and of the same class: features, intermediates and steps are asked for as before. It computes with
    the running statistics, whatever mode the model is in. Its `train()` brings dropout and drop path back but no normalisation,
    and the thresholds of SDSA-4 are constants: train the unmerged model instead. Merging it again in the same way changes
    nothing. Modules with hooks (or a replaced forward method) that would vanish stay as they are, and a warning names them, unless the hook
    says `listens = True`. Weights that hooks compute (weight_norm, prune) are those of the moment. A merged backbone has no `config`, for none describes its weights, so `save_model` refuses it: save the unmerged
    model, and merge after loading.

    Args:
        model: any module; it is left as it is.
        cost: the quantity to keep small. "cpu": the time on a CPU, that is operations; the weights of 2-d convolutions also take the
            memory format channels_last, which CPUs compute faster, whatever the format of the images. "neuromorphic": the
            operations on other values than spikes: with membrane shortcuts every convolution but the first sees spikes,
            though weights and operations are more.
        repconv: whether RepConv becomes one dense 3x3 convolution; None leaves it to `cost`: only if neuromorphic.
        sepconv: whether SepConv's depthwise 7x7 and the 1x1 behind it become one dense 7x7; likewise.

    Returns:
        The merged copy in eval mode.

    Raises:
        ValueError: that is no model, there is no such cost, or a weight is computed by a hook.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"expected a model, not {type(model).__name__}")
    if not isinstance(cost, str) or cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
    wanted = {name: value for name, value in (("repconv", repconv), ("sepconv", sepconv)) if value is not None}
    merged = copied(model)
    names = {module: name for name, module in merged.named_modules()}
    choices = replace(COSTS[cost], kept={}, **wanted)
    merged = _walk(merged, choices, {}).eval()
    if choices.kept:
        found = "; ".join(f"{names.get(module) or type(module).__name__}: {', '.join(changes)}" for module, changes in choices.kept.items())
        warnings.warn(f"not merged, so that hooks see what they saw: {found}", stacklevel=2)
    if cost == "cpu":
        for layer in merged.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)
    return merged


class OfVectors(nn.Identity):
    """Takes the place of a BatchNorm1d that was merged into the linear layer before it, and refuses [N, L, C], whose axis L it normalised."""

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            raise ValueError(
                f"a linear layer and the BatchNorm1d behind it were merged for inputs [N, C]; of {tuple(x.shape)} BatchNorm1d normalises axis "
                "1: do not put them side by side into a Sequential, or do not merge"
            )
        return x


def _walk(module: nn.Module, choices: MergeChoices, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Merges the children, then the module, each once even if it is registered in several places."""
    if module not in done:
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _walk(child, choices, done)
        done[module] = _merged(module, choices)
    return done[module]


@singledispatch
def _merged(module: nn.Module, choices: MergeChoices) -> nn.Module:
    """What takes the module's place, once its children are merged. A new kind of layer registers its own; networks of tasks
    have a method `finish_merge` instead, which changes them in place."""
    if hasattr(module, "finish_merge"):
        module.finish_merge()
    return module


@_merged.register
def _(layer: ConvBN, choices: MergeChoices) -> nn.Module:
    if computed(layer.conv) or "weight" not in layer.conv._parameters:
        raise ValueError(f"the weight of a convolution is computed by a hook; {PERMANENT}")
    if not choices.free(layer):
        return layer
    return PerStep(OrderedDict(conv=_fold(layer.conv, layer.bn)))


@_merged.register
def _(layers: nn.Sequential, choices: MergeChoices) -> nn.Module:
    if type(layers).forward is not nn.Sequential.forward or "forward" in vars(layers):
        return layers
    before = None  # the index of the layer that the next BN could go into
    for i, layer in enumerate(layers):
        if before is not None and _foldable(layers[before], layer) and choices.free(layers[before], layer):
            vectors = type(layers[before]) is nn.Linear
            layers[before], layers[i] = _fold(layers[before], layer), OfVectors() if vectors else nn.Identity()
        elif not isinstance(layer, nn.Identity):
            before = i
    return layers


@_merged.register
def _(layer: RepConv, choices: MergeChoices) -> nn.Module:
    """P D A and the three BN: the second 1x1, the depthwise 3x3 and the first 1x1, each with a scale, and one bias.

    The depthwise convolution sees BN(0) as border, that is x' + t1 with x' padded with zeros. Hence, border included,
    b = s3 (s2 P (sum_uv D) t1 + t2) + t3, whether the rest is three convolutions or one.
    """
    if not choices.free(layer):
        return layer
    (s1, t1), (s2, t2), (s3, t3) = map(_affine, (layer.expand_bn, layer.project_bn, layer.bn))
    depthwise = layer.depthwise.weight.double()
    expand = s1[:, None, None, None] * layer.expand.weight.double()
    project = (s3 * s2)[:, None, None, None] * layer.project.weight.double()
    bias = project[..., 0, 0] @ (depthwise.sum((1, 2, 3)) * t1) + s3 * t2 + t3
    like = layer.expand.weight
    if choices.repconv:
        kernel = torch.einsum("oc,cuv,ci->oiuv", project[..., 0, 0], depthwise[:, 0], expand[..., 0, 0])
        return PerStep(OrderedDict(conv=_convolution(kernel, bias, like)))
    return PerStep(
        OrderedDict(
            expand=_convolution(expand, None, like),
            depthwise=_convolution(depthwise, None, like, groups=len(depthwise)),
            project=_convolution(project, bias, like),
        )
    )


@_merged.register
def _(layers: PerStep, choices: MergeChoices) -> nn.Module:
    """A RepConv that was merged for CPUs."""
    if not choices.repconv or list(layers._modules) != ["expand", "depthwise", "project"] or not choices.free(layers):
        return layers
    expand, depthwise, project = (layer.weight.double() for layer in layers)
    kernel = torch.einsum("oc,cuv,ci->oiuv", project[..., 0, 0], depthwise[:, 0], expand[..., 0, 0])
    return PerStep(OrderedDict(conv=_convolution(kernel, layers.project.bias, layers.project.weight)))


@_merged.register
def _(layer: SepConv, choices: MergeChoices) -> nn.Module:
    """The BN are folded already. K[o,c,u,v] = W[o,c] D[c,u,v], with the bias of W."""
    if choices.sepconv and not isinstance(layer.depthwise, nn.Identity) and choices.free(layer.depthwise, layer.project):
        depthwise, project = layer.depthwise.weight, layer.project.conv
        kernel = torch.einsum("oc,cuv->ocuv", project.weight[..., 0, 0].double(), depthwise[:, 0].double())
        layer.project = PerStep(OrderedDict(conv=_convolution(kernel, project.bias, project.weight)))
        layer.depthwise = nn.Identity()
    return layer


@_merged.register
def _(attention: SpikingSelfAttention, choices: MergeChoices) -> nn.Module:
    if not attention.scaled or not isinstance(attention.attn_lif, Neuron) or not choices.free(attention.attn_lif):
        return attention
    if attention.operator == 3:
        attention.attn_lif = _behind_scale(attention.attn_lif, 0.125)
    else:
        scales = [0.5 * 2.0**-log2 for log2 in attention.log2_threshold.tolist()]
        attention.attn_lif = PerHead(_behind_scale(attention.attn_lif, scale) for scale in scales)
        del attention.log2_threshold
    attention.scaled = False
    return attention


@_merged.register
def _(backbone: SpikingBackbone, choices: MergeChoices) -> nn.Module:
    vars(backbone).pop("config", None)
    backbone.remove_early_classifiers()
    if backbone.distillation and choices.free(*backbone.get_classifier()):
        first, second = backbone.get_classifier()
        if backbone.num_classes > 0:
            weight = (first.weight.double() + second.weight.double()) / 2
            backbone.head = _with_parameters(first, weight, (first.bias.double() + second.bias.double()) / 2)
        backbone.remove_distillation_head()
    return backbone


def _affine(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """s and t [C] of a batch normalisation in eval mode, s x + t, in float64."""
    scale = torch.rsqrt(bn.running_var.double() + bn.eps)
    if bn.affine:
        scale = scale * bn.weight.double()
    shift = -bn.running_mean.double() * scale
    return scale, shift + bn.bias.double() if bn.affine else shift


def _foldable(layer: nn.Module, bn: nn.Module) -> bool:
    """Whether bn, which follows the layer directly, can go into it.

    Subclasses may compute something else, and without running statistics bn takes those of the batch.
    """
    if type(layer) not in FOLDABLE or getattr(bn, "running_mean", None) is None or computed(layer) or "weight" not in layer._parameters:
        return False
    if type(bn) not in FOLDABLE[type(layer)]:
        return False
    return bn.num_features == (layer.out_features if type(layer) is nn.Linear else layer.out_channels)


def _fold(layer: nn.Module, bn: nn.Module) -> nn.Module:
    """The convolution or linear layer that is the layer and the batch normalisation behind it: s W, s b + t."""
    scale, shift = _affine(bn)
    weight = layer.weight.double()
    if isinstance(layer, TRANSPOSED):  # [inputs, outputs / groups, ...]
        per_output = scale.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = (weight.unflatten(0, (layer.groups, -1)) * per_output).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return _with_parameters(layer, weight, shift if layer.bias is None else shift + scale * layer.bias.double())


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=like.requires_grad)


def _with_parameters(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """A copy of the layer with these."""
    layer = copy.deepcopy(layer)
    layer.weight, layer.bias = _parameter(weight, layer.weight), _parameter(bias, layer.weight)
    return layer


def _convolution(weight: Tensor, bias: Tensor | None, like: Tensor, groups: int = 1) -> nn.Conv2d:
    """A convolution with these parameters, of like's type, that keeps the size of the map."""
    outputs, inputs, *size = weight.shape
    with torch.device("meta"):  # nothing is drawn
        conv = nn.Conv2d(inputs * groups, outputs, size, padding=size[0] // 2, groups=groups, bias=bias is not None)
    conv.weight = _parameter(weight, like)
    if bias is not None:
        conv.bias = _parameter(bias, like)
    return conv


def _behind_scale(neuron: Neuron, scale: float) -> Neuron:
    """The neuron that makes of x what this one makes of scale * x, the gradient included.

    LIF(a x, th) = LIF(x, th / a) from rest, with either reset and any leak: all potentials are proportional to the input. The
    surrogate's argument alpha (h - th) stays the same if alpha grows by a.
    """
    neuron = copy.deepcopy(neuron)
    neuron.v_threshold /= scale
    neuron.alpha *= scale
    return neuron
