"""Two tables that libraries' adapters and users extend: how a function of torch is converted, and what a class of modules does instead."""

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn

HANDLERS: dict[Any, Callable] = {}
"""What to do with a torch function that is none of the above: handler(run, func, args, kwargs) by the function or its name.
Extended by `handles`."""


def handles(*functions: Any) -> Callable:
    """Registers the decorated handler(run, func, args, kwargs) for torch functions, given as such or by name."""

    def register(handler):
        HANDLERS.update(dict.fromkeys(functions, handler))
        return handler

    return register


ADAPTERS: dict[str, Callable] = {}
"""What classes of modules do instead of their forward method: adapter(module, ...), by the full name of the class. Extended by
`adapts`."""


def adapts(*classes: type | str) -> Callable:
    """Registers the decorated adapter(module, ...) for modules of these classes, given as such or by their full names.

    It does what their forward method does, in functions that can be converted, or in fewer of them: an activation function that
    is written as a chain of operations would become as many neurons.
    """

    def register(adapter):
        ADAPTERS.update(dict.fromkeys((x if isinstance(x, str) else _full_name(x) for x in classes), adapter))
        return adapter

    return register


def adapt(model: nn.Module) -> None:
    """Gives the modules of a network their adapters."""
    for module in model.modules():
        if adapter := ADAPTERS.get(_full_name(type(module))):
            module.forward = MethodType(adapter, module)


def _full_name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"
