"""What torch's operators are: which move values, compare, add or multiply."""

from collections.abc import Sequence

from .values import Values, widest

PRODUCTS = ("convolution", "linear", "matmul", "product", "scale", "normalisation")
"""Categories of operations that multiply."""
MEASURED = ("convolution", "linear", "matmul", "product", "scale")
"""Categories whose operands decide whether the multiplication is one, so that their values are looked at."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SAME = _words("view _unsafe_view _reshape_alias unsqueeze squeeze contiguous clone detach alias")
TURNED = _words("transpose permute t movedim")
MOVES = _words(
    "expand slice select cat stack split split_with_sizes unbind chunk index gather index_select constant_pad_nd repeat "
    "repeat_interleave roll flip rot90 as_strided copy copy_ fill fill_ zero zero_ upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d im2col unfold pixel_shuffle pixel_unshuffle channel_shuffle reflection_pad1d reflection_pad2d "
    "replication_pad1d replication_pad2d scatter scatter_ masked_fill masked_fill_ where tril triu diagonal embedding "
    "_to_copy lift lift_fresh index_put index_put_ masked_select resize_ set_"
)
FRESH = _words(
    "new_zeros new_ones new_empty new_empty_strided new_full empty_like zeros_like ones_like full_like rand_like randn_like"
)
YES_OR_NO = _words("eq ne lt le gt ge logical_and logical_or logical_not logical_xor any all isnan isinf isfinite")
COMPARISONS = YES_OR_NO | _words(
    "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool1d adaptive_max_pool2d max min "
    "amax amin aminmax relu relu_ clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ hardtanh hardtanh_ maximum minimum "
    "bitwise_and bitwise_or bitwise_not bitwise_xor sign abs argmax argmin topk sort "
    "round round_ floor floor_ ceil ceil_ trunc heaviside nonzero threshold threshold_"
)
ADDITIONS = _words("add add_ sub sub_ rsub sum cumsum neg neg_ index_add index_add_ scatter_add scatter_add_")
AVERAGES = _words("mean avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d")
CONVOLUTIONS = _words("convolution _convolution convolution_overrideable")
MATMULS = _words("mm bmm mv dot vdot addmm addmv baddbmm addbmm linear")
SCALINGS = _words("mul mul_ div div_")
NORMALISATIONS = _words(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm batch_norm"
)

DOUBLING = "bilinear doubling"
"""Interpolation to twice the height and width: its weights are 1/16, 3/16 and 9/16, and 1/4, 3/4 and 1 at borders."""

NEURONS = _words("lif integrate_and_fire transmit")


def computes_after_all(function, name: str, args, kwargs) -> bool:
    """Whether an overload or argument makes arithmetic of an operator that moves or compares, or a factor of an average's own.

    Args:
        function: the overload.
        name: the operator's, without a trailing underscore.
        args, kwargs: what it is called with.
    """
    overload = function._overloadname
    return (
        (name == "scatter" and ("reduce" in overload or kwargs.get("reduce") is not None))
        or (name == "round" and "decimals" in overload)
        or (name == "view" and overload == "dtype")
        or (name.startswith("avg_pool") and _given(args, kwargs, 6, "divisor_override") is not None)
    )


def _given(args, kwargs, place: int, name: str):
    return args[place] if len(args) > place else kwargs.get(name)


def kind_after(namespace: str, name: str, sources: Sequence[Values]) -> str:
    """The kind that an operator's output has for certain, whatever the values.

    Args:
        namespace, name: of the operator.
        sources: what is known of its inputs.
    """
    if namespace == "spikeformers":
        return "binary"
    kinds = [values.kind or values.expected for values in sources if values.data]
    plain = name.removesuffix("_")
    if plain in YES_OR_NO:
        return "binary"
    if plain == "sign":
        return "ternary"
    if (
        plain in COMPARISONS
        and "pool" not in plain
        and plain not in ("amax", "max", "relu", "maximum", "minimum", "amin", "min")
    ):
        return "real"
    if plain in COMPARISONS or name in SAME or name in TURNED or name in MOVES:
        return widest(kinds or ["real"])
    if plain == "mul" and kinds == ["binary", "binary"]:
        return "binary"
    if plain in ADDITIONS or (plain == "mul" and len(sources) == 2) or name in ("mm", "bmm"):
        return "integer" if kinds and len(kinds) == len(sources) and "real" not in kinds else "real"
    return "real"
