"""Maps in memory: their sizes, layouts and addresses."""
# Shapes: T time steps, B batch, C channels, H W pixels of a map.

import torch
from torch import Tensor


def empty_map(t: int, b: int, c: int, h: int, w: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised [T, B, C, H, W], channels last in memory.

    Args:
        t, b, c, h, w: its sizes.
        dtype: of the potentials.
    """
    return torch.empty(t, b, h, w, c, dtype=dtype, device="cpu").movedim(4, 2)


def out_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Height or width of the result, of a map of `size` pixels along that axis.

    Args:
        size: pixels along one axis.
        kernel, stride, padding: of the windows along it.
    """
    return (size + 2 * padding - kernel) // stride + 1


def channels_last(x: Tensor) -> Tensor:
    """x [T, B, C, H, W] as the kernels take potentials: itself where its channels are contiguous and its rows without gaps."""
    _, _, c, h, w = x.stride()
    fine = (c == 1 or x.shape[2] == 1) and (h == w * x.shape[4] or 1 in x.shape[3:])
    return x if fine else x.movedim(2, 4).contiguous().movedim(4, 2)


def is_map(x: Tensor) -> bool:
    """Whether [..., C, H, W] lies channels last without any gaps."""
    return x.movedim(-3, -1).is_contiguous()


def aligned(data: Tensor) -> Tensor:
    """The same bytes [N] from an address that 64 divides, with 64 bytes of room behind them."""
    room = aligned_room(data.numel())
    room[: data.numel()] = data
    return room


def aligned_room(size: int) -> Tensor:
    """Uninitialised bytes [size + 64 or more] from an address that 64 divides, with 64 bytes of room behind them."""
    room = torch.empty(size + 128, dtype=torch.uint8, device="cpu")
    return room[-room.data_ptr() % 64 :]


def check_windows(kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> None:
    """Refuses windows that the native code does not take.

    Args:
        kernel, stride, padding: height and width of each.

    Raises:
        ValueError: they are not two whole numbers each, or out of range.
    """
    numbers = (*kernel, *stride, *padding)
    whole = all(isinstance(n, int) and n < 2**20 for n in numbers)  # as much as the native code takes
    if len(numbers) != 6 or not whole or min((*kernel, *stride)) < 1 or min(padding) < 0:
        raise ValueError(
            f"kernel, stride and padding must be two whole numbers each, from 1 and for padding from 0, not {kernel}, {stride}, {padding}"
        )
