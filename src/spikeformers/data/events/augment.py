"""Augmentation of event frames: one draw per sample, the same for all its frames."""
# Shapes: T frames, H W pixels. Nearest-neighbour resampling, so counts stay counts; what comes in from outside is 0.

import math
from dataclasses import dataclass

import torch
from torchvision.transforms.v2 import InterpolationMode, functional


@dataclass(frozen=True)
class EventAugment:
    """Frames [T, 2, H, W] -> the same shape, drawing from torch's global random numbers.

    Args:
        hflip: probability of mirroring left and right.
        roll: largest shift in pixels along x and along y; what leaves the frame is gone.
        rotate: largest angle in degrees.
        shear: largest shift along x per pixel of y.
        cutout: side in pixels of a square that is emptied; its centre lies anywhere in the frame.
        one: apply one of {nothing, shear, roll, rotate, cutout}, drawn evenly among those that are switched on and nothing,
            instead of all.
    """

    hflip: float = 0.0
    roll: int = 0
    rotate: float = 0.0
    shear: float = 0.0
    cutout: int = 0
    one: bool = False

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        if torch.rand(()) < self.hflip:
            frames = frames.flip(-1)
        on = [name for name in ("shear", "roll", "rotate", "cutout") if getattr(self, name)]
        if self.one:
            choice = int(torch.randint(len(on) + 1, ()))
            on = on[choice : choice + 1]  # past the end: nothing
        if {"shear", "roll", "rotate"} & set(on):
            frames = functional.affine(
                frames,
                angle=_uniform(self.rotate) if "rotate" in on else 0.0,
                translate=torch.randint(-self.roll, self.roll + 1, (2,)).tolist() if "roll" in on else [0, 0],
                scale=1.0,
                shear=[math.degrees(math.atan(_uniform(self.shear))) if "shear" in on else 0.0, 0.0],
                interpolation=InterpolationMode.NEAREST,
            )
        return self._cut(frames) if "cutout" in on else frames

    def _cut(self, frames):
        height, width = frames.shape[-2:]
        top = int(torch.randint(height, ())) - self.cutout // 2
        left = int(torch.randint(width, ())) - self.cutout // 2
        frames = frames.clone()
        frames[..., max(top, 0) : top + self.cutout, max(left, 0) : left + self.cutout] = 0
        return frames


def _uniform(limit):
    return (2 * torch.rand(()).item() - 1) * limit
