"""The event data sets, one file each. Whatever lies in this folder is one: a new file is found without being named anywhere.

The configuration `EventData` is passed on from its earlier place here.
"""

import importlib
import pkgutil

from ._base import DATASETS, EventDataset, register_dataset


def _import_all():
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


_import_all()


def __getattr__(name):
    if name == "EventData":
        return importlib.import_module(f"{__package__.rpartition('.')[0]}.options").EventData
    raise AttributeError(f"module {__name__} has no attribute {name}")


__all__ = ["DATASETS", "EventDataset", "register_dataset"]
