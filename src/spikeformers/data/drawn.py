"""Whether annotations were drawn on photos as they are stored, or upright."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from .orientation import tells_nothing
from .reading import UNREADABLE, header_orientation

HEADERS = 5000  # photos, evenly spread, whose orientation is looked at when a split is opened; of all if one of them is to be turned


def drawn_as_stored(where: str | Path, photos: Sequence[Path], stated: Callable[[int], tuple[int, int] | None]) -> bool:
    """Whether annotations whose size does not tell were drawn on the photos as they are stored, instead of upright.

    The photos of the split whose annotations tell decide by their majority; without any it is no. A warning says for how many
    photos this had to be decided, and how it was.

    Args:
        where: the folder or file of the annotations, for the message.
        photos: of the split.
        stated: the width and height of the annotations of photo i; None if they cannot be read or say how they are to be turned.
    """
    count = min(len(photos), HEADERS)
    some = [place * len(photos) // count for place in range(count)]
    found = [_how_drawn(photos[index], index, stated) for index in some]
    if any(found) and count < len(photos):
        found += [_how_drawn(photos[index], index, stated) for index in sorted({*range(len(photos))}.difference(some))]
    unclear, stored, upright_ones = (found.count(kind) for kind in ("unclear", "as stored", "upright"))
    if unclear:
        way = "as it is stored" if stored > upright_ones else "turned upright"
        why = f"as {max(stored, upright_ones):,} of the {stored + upright_ones:,} are whose size tells"
        warnings.warn(
            f"{where}: {unclear:,} photo{'s are' if unclear > 1 else ' is'} to be mirrored or turned (EXIF's orientation), and the size of "
            f"the annotations does not tell whether they were drawn before or after; they are taken for drawn on the photo {way}, "
            f"{why if stored + upright_ones else 'as most tools show it'}. If that is wrong, turn the photos' pixels and remove the orientation",
            stacklevel=3,
        )
    return stored > upright_ones


def _how_drawn(photo, index, stated):
    try:
        size, orientation = header_orientation(photo)
        given = stated(index) if orientation != 1 else None
    except UNREADABLE:  # it is reported when the image is asked for
        return None
    if given is None or given not in (size, size[::-1]):
        return None
    if tells_nothing(orientation, *size):
        return "unclear" if given == size else None
    return "as stored" if given == size else "upright"
