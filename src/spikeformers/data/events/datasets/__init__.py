"""The event data sets, one file each. Whatever lies in this folder is one: a new file is found without being named anywhere."""

import importlib
import pkgutil

from ._base import DATASETS, EventDataset, register_dataset

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["DATASETS", "EventDataset", "register_dataset"]
