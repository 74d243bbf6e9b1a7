"""HDF5: columns t, x, y, p under `events`, `CD/events` or at the top, as DSEC, Prophesee's converter and people write them.

Sources: DSEC's description of its files (Gehrig et al., IEEE Robotics and Automation Letters, 2021; dsec.ifi.uzh.ch) for `t_offset`; Prophesee's (docs.prophesee.ai, "HDF5
event files") for `CD/events` and `geometry`.
"""

import importlib
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from .._arrays import Refused, must_be_worth
from .._events import Events
from ._columns import from_columns, must_be_columns, named, shown
from ._shared import damage, library, whole_number


def read_hdf5(path: Path) -> Events:
    """The events of an HDF5 file.

    Raises:
        ValueError: it is damaged, holds no columns t, x, y, p, leads into other files, or a package to read it is missing.
    """
    h5py = library("h5py", "an HDF5 file")
    with suppress(ImportError, OSError):
        importlib.import_module("hdf5plugin")  # registers Blosc and other ways to compress
    with damage("it is no whole HDF5 file, or compressed in a way that h5py does not know"), h5py.File(path) as file:
        held = ", ".join(shown(name) for name in list(file)[:20])
        for place in ("CD/events", "events", "/"):
            group = _node(h5py, file, place)
            if group is not None and (columns := _datasets(h5py, group)):
                break
        else:
            raise Refused(
                f"it holds {held or 'nothing'}, but no columns t, x, y, p under /, events or CD/events; name them so"
            )
        columns = _read_datasets(h5py, path, group, columns)
        width, height = _resolution(h5py, file, group, columns)
        offset = _node(h5py, file, "t_offset")
        offset = 0 if offset is None else whole_number(offset[()], "t_offset")
    return from_columns(path, columns, width, height, offset=offset)


def _node(h5py, group, place, links=8):
    """What lies at a place of an HDF5 file, None if nothing does. Links that lead into other files are not followed."""
    node = group
    for part in filter(None, place.split("/")):
        if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):
            return None
        kind = node.id.links.get_info(part.encode()).type
        if kind == h5py.h5l.TYPE_SOFT and links:
            target = node.id.links.get_val(part.encode()).decode()
            node = _node(h5py, group.file if target.startswith("/") else node, target, links - 1)
        elif kind == h5py.h5l.TYPE_HARD:
            node = node[part]
        else:
            raise Refused(f"{part!r} in it is a link that leads to another file or nowhere; give that file")
        if node is None:
            return None
    return node


def _datasets(h5py, group):
    """The names of the columns t, x, y, p in a group or table; None where one is missing."""
    if isinstance(group, h5py.Dataset):
        return named(group.dtype.names or ())
    return named(list(group)) if isinstance(group, h5py.Group) else None


def _read_datasets(h5py, path, group, names):
    """The columns by name, once their size is known to be what the file can hold."""
    whole = isinstance(group, h5py.Dataset)
    tables = [group] if whole else [_node(h5py, group, name) for name in names]
    for table in tables:
        if not isinstance(table, h5py.Dataset):
            raise Refused(f"its columns {', '.join(names)} are not all data sets")
        if table.external or table.is_virtual:
            raise Refused(f"its column {table.name} lies in another file; give that file")
        _must_be_unpacked(h5py, table)
    must_be_columns(
        [(group.dtype[name], group.shape) for name in names]
        if whole
        else [(table.dtype, table.shape) for table in tables]
    )
    sizes = [max(table.size, math.prod(table.chunks or (0,))) * table.dtype.itemsize for table in tables]
    must_be_worth(sum(sizes), path)
    if whole:
        table = group[()]
        return [table[name] for name in names]
    return [table[()] for table in tables]


def _must_be_unpacked(h5py, table):
    """Says which package to install where a data set is compressed in a way that is not known here."""
    settings = table.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, *_, name = settings.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        name = shown(name.decode("ascii", "replace")) or "unknown"
        if code == 0x8ECF:
            raise Refused(
                f"its column {table.name} is compressed with Prophesee's ECF, which comes with Metavision and its HDF5 plugin; "
                "install that, or convert the recording to .raw"
            )
        raise Refused(
            f"its column {table.name} is compressed with the filter {code} ({name}), which h5py alone does not know: pip install hdf5plugin"
        )


def _is_number(h5py, table):
    """Whether a data set holds one number, or one short text, which may be a number's digits."""
    text = h5py.check_string_dtype(table.dtype) is not None and table.dtype.itemsize <= 64
    return table.size == 1 and (table.dtype.kind in "iuf" or text)


def _resolution(h5py, file, group, columns):
    """Width and height that an HDF5 file states: as numbers or attributes beside the columns or at its top, as sensor_resolution, which
    is [height, width], or as geometry 'width x height'."""
    places = [place for place in (group, file) if isinstance(place, h5py.Group)]
    for place in places:
        found = [_node(h5py, place, name) for name in ("width", "height")]
        if all(isinstance(number, h5py.Dataset) and _is_number(h5py, number) for number in found):
            return [whole_number(number[()], "sensor's size") for number in found]
    for place in (group, file):
        if "width" in place.attrs and "height" in place.attrs:
            return [whole_number(place.attrs[name], "sensor's size") for name in ("width", "height")]
        if "sensor_resolution" in place.attrs:
            stated = np.ravel(place.attrs["sensor_resolution"])
            if len(stated) < 2:
                raise Refused(f"its sensor_resolution is {shown(stated)}, not [height, width]")
            height, width = (whole_number(number, "sensor_resolution") for number in stated[:2])
            _, x, y, _ = columns
            if x.size and width <= x.max() < height and y.max() < width:
                width, height = height, width  # whoever wrote it meant [width, height]
            return width, height
        if "geometry" in place.attrs:
            geometry = place.attrs["geometry"]
            geometry = geometry.decode("ascii", "replace") if isinstance(geometry, bytes) else str(geometry)
            found = re.fullmatch(r"\s*(\d{1,9})\s*x\s*(\d{1,9})\s*", geometry)
            if not found:
                raise Refused(f"its geometry is {shown(geometry)!r}, not such as '640x480'")
            return int(found[1]), int(found[2])
    return None, None
