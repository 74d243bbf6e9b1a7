"""What was hung onto modules: hooks that may change what they compute, and weights that hooks compute.

Transforms take modules apart and join them. They honour what hangs there or name it: see `changes_of`.
"""

import copy
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_leaves

PERMANENT = "make weights permanent that hooks compute, for example with torch.nn.utils.prune.remove(module, 'weight')"


def _weight_hooks(module: nn.Module) -> Iterator[tuple[WeightNorm | SpectralNorm | prune.BasePruningMethod, str]]:
    """The hooks of torch's that compute a weight before every call, and the names of what they compute."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, (WeightNorm, SpectralNorm)):
            yield hook, hook.name
        elif isinstance(hook, prune.BasePruningMethod):
            yield hook, hook._tensor_name


def computed(module: nn.Module) -> list[str]:
    """Names of the module's weights that are computed anew in every call: by weight_norm, spectral_norm, prune or a parametrization."""
    names = list(cast(nn.ModuleDict, module.parametrizations)) if parametrize.is_parametrized(module) else []
    return names + [name for _, name in _weight_hooks(module)]


def refresh(module: nn.Module) -> None:
    """Computes them now: until the next call the attribute holds what it was in the last one."""
    for hook, _ in list(_weight_hooks(module)):
        hook(module, ())


def listening(hook: Callable) -> Callable:
    """Decorator of a module's hook that only listens, so that nobody needs to run a network in another way because of it."""
    hook.listens = True  # pyright: ignore[reportFunctionMemberAccess]  functions carry any attribute
    return hook


def changes_of(module: nn.Module) -> list[str]:
    """What hangs at the module itself and may change what it computes, for people; hooks that compute weights aside.

    A hook with an attribute `listens = True` says that it does not, and is passed over.
    """
    weights = [hook for hook, _ in _weight_hooks(module)]
    found = []
    for kind, hooks in (("forward pre-hook", module._forward_pre_hooks), ("forward hook", module._forward_hooks)):
        for hook in hooks.values():
            if not getattr(hook, "listens", False) and not any(hook is other for other in weights):
                found.append(f"{kind} {getattr(hook, '__qualname__', type(hook).__name__)}")
    if "forward" in vars(module):
        found.append("its forward method, which was replaced")
    return found


def changes_everywhere() -> list[str]:
    """Hooks of all modules there are, see torch.nn.modules.module.register_module_forward_hook."""
    hooks = (*everywhere._global_forward_pre_hooks.values(), *everywhere._global_forward_hooks.values())
    return [
        f"hook of all modules {getattr(hook, '__qualname__', type(hook).__name__)}"
        for hook in hooks
        if not getattr(hook, "listens", False)
    ]


def all_changes(model: nn.Module) -> list[str]:
    """What hangs at a model and its modules, with their names."""
    found = [
        f"{name or 'the model itself'}: {change}"
        for name, module in model.named_modules()
        for change in changes_of(module)
    ]
    return found + changes_everywhere()


def copied(model: nn.Module, memo: dict | None = None) -> nn.Module:
    """A deep copy. Weights that hooks have computed with a gradient, which torch does not copy, are computed anew in the copy.

    Args:
        memo: what is shared, as for `copy.deepcopy`.

    Raises:
        ValueError: something else in the model cannot be copied.
    """
    memo = dict(memo or {})
    for module in model.modules():
        for x in tree_leaves(vars(module)):
            if isinstance(x, Tensor) and not x.is_leaf:
                memo.setdefault(id(x), x.detach().clone())
    try:
        made = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:  # such as TypeError: cannot pickle '_io.TextIOWrapper' object
        raise ValueError(
            f"this {type(model).__name__} cannot be copied ({error}); {PERMANENT}, and keep no open files or graphs in modules"
        ) from None
    with torch.no_grad():
        for module in made.modules():
            refresh(module)
    return made
