"""Merging for deployment: linear operations of eval mode without a neuron in between become one operation.

Batch normalisations go into the convolution or linear layer in front of them, RepConv and SepConv become fewer convolutions, the scale of
the attention becomes a threshold, and two classifiers whose mean is taken become one. What becomes of a layer it says itself
(`layers.merging.Part.merged`).
"""

import warnings
from dataclasses import replace

import torch
from torch import nn

from ..layers.hooks import copied
from ..layers.merging import MergeChoices, Part, merge_sequence

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
        found = "; ".join(
            f"{names.get(module) or type(module).__name__}: {', '.join(changes)}"
            for module, changes in choices.kept.items()
        )
        warnings.warn(f"not merged, so that hooks see what they saw: {found}", stacklevel=2)
    if cost == "cpu":
        for layer in merged.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)
    return merged


def _walk(module: nn.Module, choices: MergeChoices, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """Merges the children, then the module, each once even if it is registered in several places."""
    if module not in done:
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = _walk(child, choices, done)
        if isinstance(module, Part):
            done[module] = module.merged(choices)
        else:
            done[module] = merge_sequence(module, choices) if isinstance(module, nn.Sequential) else module
    return done[module]
