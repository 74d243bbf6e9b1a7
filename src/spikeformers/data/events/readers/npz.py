"""NumPy: arrays t, x, y, p in an .npz archive, or a table with these fields in an .npy file.

Source: NumPy's description of its format (numpy.org, "numpy.lib.format"), which `_arrays` reads; the names are ours and common ones.
"""

import math
from pathlib import Path

from .._arrays import Arrays, Refused
from .._events import Events
from ._columns import from_columns, must_be_columns, named, shown
from ._shared import damage, whole_number


def read_numpy(path: Path) -> Events:
    """The events of an .npz or .npy file.

    Raises:
        ValueError: it is damaged, or holds no columns t, x, y, p.
    """
    with damage("it is no whole NumPy file"):
        arrays = Arrays(path)
    held = arrays.held
    table = next(iter(held)) if len(held) == 1 else None
    names, fields = named(held), named(held[table][0].names or ()) if table is not None else None
    if names is None and fields is None:
        found = ", ".join(
            f"{shown(name)} {shown(dtype)} {list(shape)}".strip() for name, (dtype, shape) in list(held.items())[:20]
        )
        raise Refused(
            f"it holds {found or 'nothing'}, but no arrays or fields t, x, y, p; save them under these names "
            "(a table without names does not say which column is which)"
        )
    about = [name for name in ("width", "height", "dropped") if name in held and math.prod(held[name][1]) == 1]
    if names is None:
        dtype, shape = held[table]
        must_be_columns([(dtype[name], shape) for name in fields])
    else:
        must_be_columns([held[name] for name in names])
    with damage("it is no whole NumPy file"):
        read = arrays.read([*(names or [table]), *about])
    columns = [read[name] for name in names] if names else [read[table][name] for name in fields]
    width, height, dropped = (
        whole_number(read[name], name) if name in about else 0 for name in ("width", "height", "dropped")
    )
    return from_columns(path, columns, width, height, max(0, dropped))
