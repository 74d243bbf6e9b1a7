"""The event data sets, one file each. Whatever lies in this folder is one: a new file is found without being named anywhere."""

import importlib
import pkgutil

from ._base import DATASETS, EventDataset, register_dataset


def _import_all():
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")


_import_all()

__all__ = ["DATASETS", "EventDataset", "register_dataset"]
