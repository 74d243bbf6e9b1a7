"""Colours that people tell apart."""

import itertools
from functools import cache

import numpy as np

RGB = tuple[int, int, int]
"""From 0 to 255."""


@cache
def colours(count: int) -> tuple[RGB, ...]:
    """RGB colours from 0 to 255 that differ as much as possible: each is, of a grid of colours that are neither dark nor pale, the
    one farthest from all before it in the OKLab space. The first ones do not depend on `count`."""
    levels = np.linspace(0, 255, 12).round().astype(int)
    grid = np.array(list(itertools.product(levels, repeat=3)))
    space = oklab(grid)
    lightness, chroma = space[:, 0], np.hypot(space[:, 1], space[:, 2])
    chosen = (lightness > 0.45) & (lightness < 0.87) & (chroma > 0.1)
    grid, space = grid[chosen], space[chosen]
    picks = [int(np.abs(grid - (230, 25, 45)).sum(1).argmin())]
    distance = np.full(len(grid), np.inf)
    while len(picks) < count:
        distance = np.minimum(distance, ((space - space[picks[-1]]) ** 2).sum(1))
        picks.append(int(distance.argmax()))
    return tuple(tuple(grid[place].tolist()) for place in picks)


def oklab(rgb):
    """[..., 3] in 0 to 255 -> lightness and two axes of colour, in which distance is what the eye sees (Ottosson, 2020)."""
    linear = rgb / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.array(to_cones).T) @ np.array(to_lab).T
