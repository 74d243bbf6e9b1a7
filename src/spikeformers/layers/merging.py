"""What becomes one operation in eval mode: the algebra of convolutions, linear layers and normalisations, and what a layer says of itself.

A batch normalisation in eval mode is y = s x + t, with s = gamma / sqrt(var + eps) and t = beta - mean * s. Parameters are computed in
float64 and cast back.
"""
# Shapes: C channels, kh kw of a kernel.

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import PERMANENT, changes_of, computed

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {  # and the normalisations of the axis that they compute
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
        kept: modules that were left apart because something hangs there that would vanish, and what.
    """

    repconv: bool
    sepconv: bool
    kept: dict[nn.Module, list[str]] = field(default_factory=dict, compare=False)

    def free(self, *roots: nn.Module) -> bool:
        """Whether nothing hangs at these modules or in them, so that they can be replaced."""
        found = {module: changes for root in roots for module in root.modules() if (changes := changes_of(module))}
        self.kept.update(found)
        return not found


class Part(nn.Module):
    """A layer, block or network of which the rest may ask this; what is here is usual.

    Attributes:
        takes_redistributed: whether `forward` takes a `Redistributed` as well, to compute once what does not depend on time.
    """

    takes_redistributed: bool = False

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of its convolutions that follow each other without a neuron in between, so that they could be one."""
        return ()

    def merged(self, choices: MergeChoices) -> nn.Module:
        """What takes its place for inference, once its own parts are merged: another module, or itself, changed in place.

        Raises:
            ValueError: it cannot be merged.
        """
        return self


def affine(bn: Any) -> tuple[Tensor, Tensor]:
    """s and t [C] of a batch normalisation in eval mode, s x + t, in float64."""
    scale = torch.rsqrt(bn.running_var.double() + bn.eps)
    if bn.affine:
        scale = scale * bn.weight.double()
    shift = -bn.running_mean.double() * scale
    return scale, shift + bn.bias.double() if bn.affine else shift


def foldable(layer: Any, bn: Any) -> bool:
    """Whether bn, which follows the layer directly, can go into it.

    Subclasses may compute something else, and without running statistics bn takes those of the batch.
    """
    if (
        type(layer) not in FOLDABLE
        or getattr(bn, "running_mean", None) is None
        or computed(layer)
        or "weight" not in layer._parameters
    ):
        return False
    if type(bn) not in FOLDABLE[type(layer)]:
        return False
    return bn.num_features == (layer.out_features if type(layer) is nn.Linear else layer.out_channels)


def must_be_parameters(layer: nn.Module) -> None:
    """Refuses a layer whose weight is computed anew in every call.

    Raises:
        ValueError: it is.
    """
    if computed(layer) or "weight" not in layer._parameters:
        raise ValueError(f"the weight of a convolution is computed by a hook; {PERMANENT}")


def fold(layer: Any, bn: nn.Module) -> nn.Module:
    """The convolution or linear layer that is the layer and the batch normalisation behind it: s W, s b + t."""
    scale, shift = affine(bn)
    weight = layer.weight.double()
    if isinstance(layer, TRANSPOSED):  # [inputs, outputs / groups, ...]
        per_output = scale.view(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = (weight.unflatten(0, (layer.groups, -1)) * per_output).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return with_parameters(layer, weight, shift if layer.bias is None else shift + scale * layer.bias.double())


def joined(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """The linear layer that is the one and then the other: W2 W1 x + W2 b1 + b2."""
    weight = second.weight.double()
    both = nn.Linear(first.in_features, second.out_features, device="meta")  # nothing is drawn
    both.weight = _parameter(weight @ first.weight.double(), second.weight)
    both.bias = _parameter(weight @ first.bias.double() + second.bias.double(), second.weight)
    return both


def averaged(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """The linear layer that is the mean of the two."""
    weight, bias = (
        (a.double() + b.double()) / 2 for a, b in ((first.weight, second.weight), (first.bias, second.bias))
    )
    return with_parameters(first, weight, bias)


def composed(chain: Sequence[tuple[Tensor, int]]) -> Tensor:
    """Weight [C', C, kh, kw] in float64 of the one convolution that a chain is of pointwise ones and one depthwise one, without padding inside.

    Args:
        chain: weight [C', C / groups, kh, kw] and groups of each, in the order in which they run.
    """
    whole, depthwise = chain[0][0].double(), chain[0][1] != 1
    for weight, groups in chain[1:]:
        weight = weight.double()
        if groups != 1:
            whole = whole * weight
        elif depthwise:  # the first was, so its taps [C, 1, kh, kw] are the inputs'
            whole, depthwise = weight * whole.transpose(0, 1), False
        else:
            whole = torch.einsum("om,mikl->oikl", weight[..., 0, 0], whole)
    return whole


def convolution(weight: Tensor, bias: Tensor | None, like: Tensor, groups: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of the map.

    Args:
        weight: [C', C / groups, kh, kw].
        bias: [C'], or None.
        like: what has the type, the device and the need of gradients that its parameters get.
        groups: of the convolution.
    """
    outputs, inputs, height, width = weight.shape
    with torch.device("meta"):  # nothing is drawn
        conv = nn.Conv2d(
            inputs * groups, outputs, (height, width), padding=height // 2, groups=groups, bias=bias is not None
        )
    conv.weight = _parameter(weight, like)
    if bias is not None:
        conv.bias = _parameter(bias, like)
    return conv


def with_parameters(layer: Any, weight: Tensor, bias: Tensor) -> Any:
    """A copy of the layer with these.

    Args:
        layer: a convolution or linear layer.
        weight: of its weight's shape.
        bias: [C'].
    """
    layer = copy.deepcopy(layer)
    layer.weight, layer.bias = _parameter(weight, layer.weight), _parameter(bias, layer.weight)
    return layer


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like.dtype), requires_grad=like.requires_grad)


class OfVectors(nn.Identity):
    """What stands where a BatchNorm1d was that went into the linear layer before it. Of [N, L, C] that one normalised L, not C."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C] -> [N, C]

        Raises:
            ValueError: there are other axes.
        """
        if input.ndim != 2:
            raise ValueError(
                f"a linear layer and the BatchNorm1d behind it were merged for inputs [N, C]; of {tuple(input.shape)} BatchNorm1d normalises axis "
                "1: do not put them side by side into a Sequential, or do not merge"
            )
        return input


def merge_sequence(layers: nn.Sequential, choices: MergeChoices) -> nn.Sequential:
    """Folds normalisations into what stands in front of them, in place; torch's own Sequential knows nothing of that."""
    if type(layers).forward is not nn.Sequential.forward or "forward" in vars(layers):
        return layers
    before = None  # the index of the layer that the next BN could go into
    for i, layer in enumerate(layers):
        if before is not None and foldable(layers[before], layer) and choices.free(layers[before], layer):
            vectors = type(layers[before]) is nn.Linear
            layers[before], layers[i] = fold(layers[before], layer), OfVectors() if vectors else nn.Identity()
        elif not isinstance(layer, nn.Identity):
            before = i
    return layers
