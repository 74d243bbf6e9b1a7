"""Attention as torch itself offers it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..attention import tcsa
from ..rates import Rate, Run, handles, multiplied, plain


@handles(F.scaled_dot_product_attention)
def attention(run: Run, func, args: tuple, kwargs: dict) -> Rate:
    """softmax(q k' scale + mask) v of rates, by TCSA.

    Args:
        run: the network's state.
        func: the function that was called.
        args, kwargs: what it was called with, rates among it.
    """

    def given(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        return (q, k, v), attn_mask, is_causal, scale, enable_gqa

    operands, mask, causal, scale, grouped = given(*args, **kwargs)
    place = run.place("attention")
    if isinstance(mask, Rate):
        mask = run.mean(f"{place}/mask", mask) if mask.is_floating_point() else plain(mask)
    sides = []
    for name, x in zip("qkv", operands, strict=True):
        if isinstance(x, Rate) and not x.kind.spikes:
            x = run.neuron(f"{place}/{name}", x, x.kind.axes)
        sides.append(x)
    with torch._C._EnableTorchFunction():
        if grouped:
            sides[1:] = (x.repeat_interleave(sides[0].shape[-3] // x.shape[-3], -3) for x in sides[1:])

        heads = tuple(
            axis
            for axis in (sides[0].kind.axes if isinstance(sides[0], Rate) else None) or ()
            if axis < sides[0].ndim - 2
        )

        def encode(weights: Tensor) -> Rate:
            return run.fired(f"{place}/weights", weights, heads or None, spread=True)

        def add_up(weights: Rate) -> Tensor:
            return run.mean(f"{place}/total", weights.sum(-1, keepdim=True))

        def multiply(name: str, a: Tensor, b: Tensor) -> Tensor:
            return multiplied(run, f"{place}/{name}", a, b, matrices=True)

        functions = run.approximation("exp", place, torch.exp), run.approximation("div", f"{place}/total", torch.div)
        output = tcsa(*sides, encode, mask, causal, scale, *functions, multiply, add_up)
        return run.rate_of(place, output)


@handles(F.multi_head_attention_forward)
def multi_head_attention(
    run: Run,
    func,
    args: tuple,
    kwargs: dict,
):
    """nn.MultiheadAttention: the projections, and `attention` between them.

    Args:
        run: the network's state.
        func: the function that was called.
        args, kwargs: what it was called with, rates among it.
    """
    names = [
        "query",
        "key",
        "value",
        "embed_dim_to_check",
        "num_heads",
        "in_proj_weight",
        "in_proj_bias",
        "bias_k",
        "bias_v",
        "add_zero_attn",
        "dropout_p",
        "out_proj_weight",
        "out_proj_bias",
        "training",
        "key_padding_mask",
        "need_weights",
        "attn_mask",
        "use_separate_proj_weight",
        "q_proj_weight",
        "k_proj_weight",
        "v_proj_weight",
        "static_k",
        "static_v",
        "average_attn_weights",
        "is_causal",
    ]
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.get("bias_k") is not None or given.get("static_k") is not None or given.get("add_zero_attn"):
        raise run.refusal("multi_head_attention_forward", "bias_k, static_k and add_zero_attn are not supported")
    heads, inputs = given["num_heads"], [given["query"], given["key"], given["value"]]
    if given.get("use_separate_proj_weight"):
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    biases = [None] * 3 if given["in_proj_bias"] is None else given["in_proj_bias"].chunk(3)
    with torch._C._EnableTorchFunction():
        batched = inputs[0].ndim == 3
        parts = []
        for x, weight, bias in zip(inputs, weights, biases, strict=True):
            x = F.linear(x if batched else x.unsqueeze(1), weight, bias)  # [N, B, C]
            parts.append(x.unflatten(2, (heads, -1)).permute(1, 2, 0, 3))  # [B, h, N, d]
        mask = _padding(given, parts[1], heads)
        causal = bool(given.get("is_causal")) and mask is None
        x = F.scaled_dot_product_attention(*parts, mask, is_causal=causal)
        x = F.linear(x.permute(2, 0, 1, 3).flatten(2), given["out_proj_weight"], given["out_proj_bias"])
        return (x if batched else x.squeeze(1)), None


def _padding(given, keys, heads):
    """Both masks of nn.MultiheadAttention, where True means hidden, as one addend of the logits."""
    mask, hidden = plain(given.get("attn_mask")), plain(given.get("key_padding_mask"))
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=keys.dtype, device=mask.device).masked_fill(mask, -torch.inf)
        if mask.ndim == 3:
            mask = mask.unflatten(0, (-1, heads))
    if hidden is not None:
        if hidden.dtype == torch.bool:
            hidden = torch.zeros(hidden.shape, dtype=keys.dtype, device=hidden.device).masked_fill(hidden, -torch.inf)
        hidden = hidden.reshape(-1, 1, 1, hidden.shape[-1])
        mask = hidden if mask is None else mask + hidden
    return mask
