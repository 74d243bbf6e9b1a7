"""Colours of classes: those that a data set's publisher gave to them, or such that differ as much as possible."""

import re
from collections.abc import Sequence

from .colours import RGB, colours

_CAMVID = """
animal 64 128 64, archway 192 0 128, bicyclist 0 128 192, bridge 0 128 64, building 128 0 0, car 64 0 128, cartluggagepram 64 0 192,
child 192 128 64, columnpole 192 192 128, pole 192 192 128, fence 64 64 128, lanemkgsdriv 128 0 192, lanemkgsnondriv 192 0 64,
misctext 128 128 64, motorcyclescooter 192 0 192, othermoving 128 64 64, parkingblock 64 192 128, pedestrian 64 64 0, road 128 64 128,
roadshoulder 128 128 192, sidewalk 0 0 192, pavement 0 0 192, signsymbol 192 128 128, sky 128 128 128, suvpickuptruck 64 128 192,
trafficcone 0 0 64, trafficlight 0 64 64, train 192 64 128, tree 128 128 0, truckbus 192 128 192, tunnel 64 0 64,
vegetationmisc 192 192 0, void 0 0 0, unlabelled 0 0 0, wall 64 192 0
"""
_ADE20K = """
120 120 120, 180 120 120, 6 230 230, 80 50 50, 4 200 3, 120 120 80, 140 140 140, 204 5 255, 230 230 230, 4 250 7, 224 5 255, 235 255 7,
150 5 61, 120 120 70, 8 255 51, 255 6 82, 143 255 140, 204 255 4, 255 51 7, 204 70 3, 0 102 200, 61 230 250, 255 6 51, 11 102 255, 255 7 71,
255 9 224, 9 7 230, 220 220 220, 255 9 92, 112 9 255, 8 255 214, 7 255 224, 255 184 6, 10 255 71, 255 41 10, 7 255 255, 224 255 8, 102 8 255,
255 61 6, 255 194 7, 255 122 8, 0 255 20, 255 8 41, 255 5 153, 6 51 255, 235 12 255, 160 150 20, 0 163 255, 140 140 140, 250 10 15,
20 255 0, 31 255 0, 255 31 0, 255 224 0, 153 255 0, 0 0 255, 255 71 0, 0 235 255, 0 173 255, 31 0 255, 11 200 200, 255 82 0, 0 255 245,
0 61 255, 0 255 112, 0 255 133, 255 0 0, 255 163 0, 255 102 0, 194 255 0, 0 143 255, 51 255 0, 0 82 255, 0 255 41, 0 255 173, 10 0 255,
173 255 0, 0 255 153, 255 92 0, 255 0 255, 255 0 245, 255 0 102, 255 173 0, 255 0 20, 255 184 184, 0 31 255, 0 255 61, 0 71 255, 255 0 204,
0 255 194, 0 255 82, 0 10 255, 0 112 255, 51 0 255, 0 194 255, 0 122 255, 0 255 163, 255 153 0, 0 255 10, 255 112 0, 143 255 0, 82 0 255,
163 255 0, 255 235 0, 8 184 170, 133 0 255, 0 255 92, 184 0 255, 255 0 31, 0 184 255, 0 214 255, 255 0 112, 92 255 0, 0 224 255, 112 224 255,
70 184 160, 163 0 255, 153 0 255, 71 255 0, 255 0 163, 255 204 0, 255 0 143, 0 255 235, 133 255 0, 255 0 235, 245 0 255, 255 0 122,
255 245 0, 10 190 212, 214 255 0, 0 204 255, 20 0 255, 255 255 0, 0 153 255, 0 41 255, 0 255 204, 41 0 255, 41 255 0, 173 0 255, 0 245 255,
71 0 255, 122 0 255, 0 255 184, 0 92 255, 184 255 0, 0 133 255, 255 214 0, 25 194 194, 102 255 0, 92 0 255
"""


def _rgb(numbers: Sequence[str]) -> RGB:
    red, green, blue = map(int, numbers)
    return red, green, blue


CAMVID: dict[str, RGB] = {name: _rgb(numbers) for name, *numbers in map(str.split, _CAMVID.split(","))}
"""CamVid's colours by the names of its classes, in small letters and without what is no letter (Brostow et al., 2009)."""
ADE20K: tuple[RGB, ...] = tuple(_rgb(numbers.split()) for numbers in _ADE20K.split(","))
"""The usual colours of ADE20K's 150 classes (Zhou et al., 2017), in their order."""


def palette(classes: Sequence[str] | None, count: int = 256) -> tuple[RGB, ...]:
    """A colour for every class number from 0 on: CamVid's or ADE20K's own if the names are theirs, otherwise ones that differ.

    Args:
        classes: the names, or None.
        count: so many colours at least.
    """
    names = [re.sub("[^a-z]", "", name.lower()) for name in classes or ()]
    own: tuple[RGB, ...] = ()
    if names and all(name in CAMVID for name in names):
        own = tuple(CAMVID[name] for name in names)
    elif len(names) == len(ADE20K) and names[0] == "wall" and names[2] == "sky":
        own = ADE20K
    return own + colours(count)[len(own) :] if own else colours(count)
