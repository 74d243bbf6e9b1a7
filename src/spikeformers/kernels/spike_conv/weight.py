"""A convolution's weight as the native kernel reads it."""
# Shapes: C channels, kh kw height and width of the kernel.

from dataclasses import dataclass

import torch
from torch import Tensor

from . import native
from .maps import aligned

PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.int8)
LANES, TILE = 16, 64
MOST_ROWS = 65_535
"""Weight rows, that is taps times input channels: positions in lists have 16 bits."""


@dataclass(frozen=True)
class Weight:
    """A convolution's weight as the native kernel reads it, made by `prepare`.

    Attributes:
        tiles: bytes [tile][row][lanes], from an address that 64 divides: a row for every tap and input channel (for every tap where
            depthwise), a tile for every 64 output channels, its lanes filled up to a multiple of 16.
        scale: [C'] what the rows of int8 are to be multiplied by, or None.
        shape: (C', C / groups, kh, kw)
        dtype: of the sums.
        stored: of the rows.
    """

    tiles: Tensor
    scale: Tensor | None
    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    stored: torch.dtype
    kind: int

    @property
    def depthwise(self) -> bool:
        return self.kind == native.WEIGHTS["depthwise"]

    @property
    def dense(self) -> Tensor:
        """The weight [C', C / groups, kh, kw] that the tiles stand for, in the type of the sums; made anew."""
        outputs, inputs, kh, kw = self.shape
        parts, start = [], 0
        for first in range(0, outputs, TILE):
            wanted = min(TILE, outputs - first)
            lanes = -(-wanted // LANES) * LANES
            size = kh * kw * inputs * lanes * self.stored.itemsize
            parts.append(self.tiles[start : start + size].view(self.stored).view(-1, lanes)[:, :wanted].to(self.dtype))
            start += size
        rows = torch.cat(parts, 1)
        rows = rows if self.scale is None else rows * self.scale
        return rows.view(kh, kw, inputs, outputs).permute(3, 2, 0, 1).contiguous()


def prepare(weight: Tensor, groups: int = 1, precision: torch.dtype | None = None) -> Weight:
    """A weight for `spike_conv`.

    Args:
        weight: [C', C / groups, kh, kw], or [C', C] of a linear layer; float32 or float64, which is the type of the sums.
        groups: 1, or C for a depthwise convolution (C' = C).
        precision: how the rows are kept: the weight's own type (None), torch.bfloat16, or torch.int8 with one scale for each output
            channel, |w| / 127 at most off by half a scale. Depthwise weights are kept as they are.

    Raises:
        ValueError: other groups, types or precisions.
    """
    weight = weight.detach()
    weight = weight[..., None, None] if weight.ndim == 2 else weight
    if weight.ndim != 4 or weight.dtype not in native.DTYPES:
        raise ValueError(
            f"expected a weight [C', C, kh, kw] in float32 or float64, not {tuple(weight.shape)} of {weight.dtype}"
        )
    outputs, inputs = weight.shape[:2]
    depthwise = groups != 1
    if depthwise and (groups != outputs or inputs != 1):
        raise ValueError(
            f"{groups} groups of a weight {tuple(weight.shape)}; only 1 group, or one for every channel, is event-driven"
        )
    if weight[0].numel() > MOST_ROWS:
        raise ValueError(
            f"a weight {tuple(weight.shape)} has {weight[0].numel()} inputs for each output; at most {MOST_ROWS} can be event-driven"
        )
    precision = precision or weight.dtype
    if precision not in PRECISIONS or (weight.dtype == torch.float64) != (precision == torch.float64):
        raise ValueError(
            f"precision must be float32, bfloat16 or int8 for float32 weights, float64 for float64 ones, not {precision}"
        )
    rows, scale = weight.permute(2, 3, 1, 0).reshape(-1, outputs), None
    if depthwise:
        kind = native.WEIGHTS["depthwise"]
    else:
        kind = native.WEIGHTS[precision]
        if precision == torch.int8:
            scale = (rows.abs().amax(0) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            rows = (rows / scale).round_().clamp_(-127, 127)
        rows = rows.to(precision)
    tiles = []
    for part in rows.split(TILE, 1):
        lanes = -(-part.shape[1] // LANES) * LANES
        tile = torch.nn.functional.pad(part, (0, lanes - part.shape[1])).contiguous().flatten().view(torch.uint8)
        tiles.append(tile)
    shape = outputs, inputs, weight.shape[2], weight.shape[3]
    return Weight(aligned(torch.cat(tiles)), scale, shape, weight.dtype, rows.dtype, kind)


def signed(weight: Tensor) -> Tensor:
    """The weight [C', 2 * C, kh, kw], C rounded up to a multiple of 64, for the bits of `pack_signed`: its result is that of
    weight [C', C, kh, kw] for the numbers."""
    padded = torch.nn.functional.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % 64))
    return torch.cat([padded, -padded], 1)


def check_weight(weight: Weight) -> None:
    """Refuses a weight that `prepare` did not make.

    Raises:
        ValueError: it is one.
    """
    outputs, inputs, kh, kw = weight.shape if len(weight.shape) == 4 else (0, 0, 0, 0)
    kinds = {native.WEIGHTS["depthwise"]} if inputs == 1 else set()
    kinds |= {native.WEIGHTS[weight.stored]} if weight.stored in PRECISIONS else set()
    own = weight.stored == weight.dtype or (
        weight.dtype == torch.float32 and weight.stored in (torch.bfloat16, torch.int8)
    )
    fine = all(isinstance(n, int) and n > 0 for n in (outputs, inputs, kh, kw)) and weight.kind in kinds and own
    fine = fine and weight.dtype in native.DTYPES and weight.tiles.dtype == torch.uint8
    fine = fine and (not weight.depthwise or weight.stored == weight.dtype) and inputs * kh * kw <= MOST_ROWS
    if fine:
        size = -(-outputs // LANES) * LANES * inputs * kh * kw * weight.stored.itemsize
        fine = (
            weight.tiles.ndim == 1 and weight.tiles.is_contiguous() and weight.tiles.numel() >= size + 64
        )  # with the room behind them
        fine = fine and not weight.tiles.data_ptr() % 64
    scale = weight.scale
    fine = fine and (scale is not None) == (weight.stored == torch.int8)
    if fine and scale is not None:
        fine = scale.shape == (outputs,) and scale.dtype == torch.float32 and scale.is_contiguous()
    if not fine:
        raise ValueError(f"this weight {weight.shape} was not made by prepare, or was changed since")
