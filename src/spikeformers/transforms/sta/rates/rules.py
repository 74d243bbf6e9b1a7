"""What functions of torch make of rates: one function for each kind of them."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..attention import below_best, not_zero
from .channels import kept, moved
from .extensions import HANDLERS
from .products import weighted
from .rate import Kind, Rate, bare, is_rate, plain
from .words import AFFINE, CONVOLUTIONS, ESCAPES, FACTORS, FACTS, FRESH, MATMULS, MOVES, PRODUCTS, SAME, TAKES_AXIS

if TYPE_CHECKING:
    from .run import Run


_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training")


def apply(run: "Run", func: Callable, args: tuple, kwargs: dict) -> Any:
    """What `func` makes of rates.

    Args:
        run: the state of the network that calls it.
        func: the function.
        args, kwargs: what it is called with.
    """
    name = func.__name__
    with torch._C.DisableTorchFunctionSubclass():
        if name == "__get__":
            return _attribute(func, args)
        if name == "__set__" or name in FACTS:
            return func(*plain(args), **plain(kwargs))
        rates = [x for x in tree_leaves((args, kwargs)) if is_rate(x)]
        if not rates:
            return _of_constants(run, func, name, args, kwargs)
        if name in ESCAPES or kwargs.get("out") is not None:
            raise run.refusal(name, "what varies leaves torch, or is written into a tensor")
        if any(r.kind.total is not None for r in rates) and not _keeps_total(name.strip("_"), args):
            args, kwargs = tree_map(partial(divided, run), (args, kwargs))
            rates = [x for x in tree_leaves((args, kwargs)) if is_rate(x)]
        if handler := HANDLERS.get(func) or HANDLERS.get(name):
            return handler(run, func, args, kwargs)
        if name.startswith("__i") and name not in ("__invert__", "__index__"):
            return _in_place(run, name[3:-2], args, kwargs)
        if name.endswith("_") and not name.endswith("__"):
            return _in_place(run, name[:-1], args, kwargs)
        name = name.strip("_")
        name = name[1:] if name in ("radd", "rmul", "rmatmul") else name
        if name in FRESH:
            return func(*plain(args), **plain(kwargs))
        if name in MOVES:
            return move(run, func, args, kwargs, rates)
        if name in AFFINE and _is_affine(run, name, args, kwargs, rates):
            return affine(run, func, args, kwargs, rates)
        if name == "softmax" and not rates[0].kind.constant and _over_last(args, kwargs):
            return softmax(run, args, kwargs)
        if name == "linear" or name in CONVOLUTIONS or name in MATMULS or (name in PRODUCTS and len(rates) == 2):
            return weighted(run, func, name, args, kwargs, rates)
        return function(run, name, func, args, kwargs, rates)


def _of_constants(run: "Run", func, name, args, kwargs):
    """Tokens and what follows from them stay as they are; what a table holds for them is a constant current."""
    result = func(*plain(args), **plain(kwargs))
    if name in ESCAPES:
        return result
    constant = all(x.kind.constant for x in tree_leaves((args, kwargs)) if isinstance(x, Rate))
    if name == "embedding" and not constant and run.form == "means":
        result = run.received(run.place(name), result) / run.t
    kind = Kind(analog=True, constant=constant, axes=(result.ndim - 1,) if name == "embedding" else None)
    wanted = (lambda x: True) if name == "embedding" else (lambda x: not x.is_floating_point())
    return tree_map(lambda x: Rate.of(x, kind) if isinstance(x, Tensor) and wanted(x) else x, result)


def _is_affine(run: "Run", name, args, kwargs, rates):
    if name in PRODUCTS:
        return len(rates) == 1
    if name in ("div", "divide", "true_divide"):
        return len(rates) == 1 and is_rate(args[0]) and kwargs.get("rounding_mode") is None
    if name == "batch_norm":
        given = dict(zip(_BATCH_NORM, args, strict=False)) | kwargs
        if given.get("training") or given.get("running_mean") is None:
            raise run.refusal(name, "it uses the statistics of the batch; it needs running ones, in eval mode")
    if name not in FACTORS:
        return True
    first, names, most = FACTORS[name]
    return sum(map(is_rate, (*args[first:], *(kwargs.get(key) for key in names)))) <= most


def _in_place(run: "Run", name, args, kwargs):
    target = args[0]
    if not (hasattr(Tensor, name) or hasattr(torch, name)):
        raise run.refusal(f"{name}_", "it overwrites a tensor")
    return _replaced(run, name, target, apply(run, getattr(Tensor, name, None) or getattr(torch, name), args, kwargs))


def _replaced(run: "Run", name, target, result):
    if not is_rate(target) or target.untyped_storage().nbytes() != target.numel() * target.element_size():
        raise run.refusal(f"{name}_", "it changes a part of a tensor, or one that did not vary, in place")
    target.set_(result.bare)  # what else lies in the old memory stays as it is
    target.kind, target.bare = result.kind, result.bare
    return target


def move(run: "Run", func, args, kwargs, rates):
    """Values change place at most.

    Args:
        run: the network's state.
        func: the function.
        args, kwargs: what it is called with.
        rates: those among them.
    """
    name = func.__name__
    if (
        "dropout" in name
        and (kwargs.get("training", args[2] if len(args) > 2 else True))
        and kwargs.get("p", (*args, 0.5)[1])
    ):
        raise run.refusal(name, "it is not switched off in eval mode (training=self.training does so)")
    result = func(*plain(args), **plain(kwargs))
    if any(isinstance(x, Tensor) and not x.is_floating_point() for x in tree_leaves(result)):
        raise run.refusal(name, "it makes whole numbers or truth values of what varies")
    axes = moved(func, args, kwargs, result) if run.observer else None
    tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.is_floating_point()]
    whole = len(tensors) == len(rates)
    kind = Kind(
        spikes=whole and all(r.kind.spikes for r in rates),
        analog=all(r.kind.analog for r in rates),
        constant=all(r.kind.constant for r in rates),
        total=rates[0].kind.total if len(rates) == 1 else None,
    )
    factors = None
    if kind.spikes and run.form == "spikes" and all(r.kind.factors for r in rates):
        factors = [func(*_factor(args, i), **_factor(kwargs, i)) for i in (0, 1)]
    return _wrapped(result, kind, factors, axes)


def affine(run: "Run", func, args, kwargs, rates):
    """A function of which the mean over time is that of the mean.

    Args:
        run: the network's state.
        func: the function.
        args, kwargs: what it is called with.
        rates: those among them.
    """
    result = func(*plain(args), **plain(kwargs))
    kind = Kind(
        analog=all(r.kind.analog for r in rates),
        constant=all(r.kind.constant for r in rates),
        axes=kept(rates, result),
    )
    return tree_map(lambda x: Rate.of(x, kind) if isinstance(x, Tensor) else x, result)


def function(run: "Run", name: str, func: Callable, args: tuple, kwargs: dict, rates: list):
    """A function that is not affine: neurons that transmit what it makes of the mean so far.

    Args:
        run: the network's state.
        name: of the function.
        func: the function.
        args, kwargs: what it is called with.
        rates: those among them.
    """
    if kwargs.get("inplace"):
        result = function(run, name, func, args, kwargs | {"inplace": False}, rates)
        return _replaced(run, name, args[0], result)
    place, spread = run.place(name), name == "softmax"
    constant = all(r.kind.constant for r in rates)
    if constant and place in run.constants:
        return run.fired(place, *run.constants[place], spread)
    means = [run.mean(f"{place}/{i}", r) for i, r in enumerate(rates)]
    if run.observer:
        run.observer.function(name, means[0])
    means = iter(means)
    args, kwargs = tree_map(lambda x: next(means) if is_rate(x) else bare(x), (args, kwargs))
    value = run.approximation(name, place, func)(*args, **kwargs)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise run.refusal(name, "it makes indices, truth values or several tensors of what varies")
    axes = kept(rates, value)
    if name in TAKES_AXIS:
        axes = tuple(sorted({*(axes or ()), value.ndim - 1}))
    if constant:
        run.constants[place] = value, axes
    return run.fired(place, value, axes, spread)


def softmax(run: "Run", args: tuple, kwargs: dict) -> Rate:
    """Exponentials relative to the largest of each row, as in `attention.tcsa`; the result that they weight is divided by their sum.

    Args:
        run: the network's state.
        args, kwargs: what softmax is called with.
    """
    place, x = run.place("softmax"), args[0] if args else kwargs["input"]
    dtype = kwargs.get("dtype") or next((y for y in args if isinstance(y, torch.dtype)), None)
    mean = run.mean(f"{place}/0", x)
    weights = run.approximation("exp", place, torch.exp)(below_best(mean if dtype is None else mean.to(dtype)))
    sent = run.fired(place, weights, None, spread=True)
    total = run.mean(f"{place}/total", affine(run, torch.sum, (sent, -1), {"keepdim": True}, [sent]))
    sent.kind = replace(sent.kind, total=not_zero(total))
    return sent


def divided(run: "Run", x: Any) -> Any:
    """x [...]; a softmax that no product weights anything with is divided by its sum here."""
    if not is_rate(x) or x.kind.total is None:
        return x
    place = run.place("divided")
    return run.rate_of(place, run.approximation("div", place, torch.div)(run.mean(place, x), x.kind.total))


def _keeps_total(name, args):
    if name in ("matmul", "bmm"):
        return args[0].ndim > 1 and args[1].ndim > 1 and is_rate(args[1]) and args[1].kind.total is None
    return name in SAME


def _over_last(args, kwargs):
    x, *rest = args if args else (kwargs["input"],)
    dim = kwargs.get("dim", next((y for y in rest if isinstance(y, int)), None))
    return dim in (-1, x.ndim - 1)


def _attribute(func, args):
    found = func(*plain(args))
    if isinstance(found, Tensor):  # such as x.T or x.data
        return Rate.of(found, replace(args[0].kind, axes=None, factors=None))
    return found


def _factor(tree, index):
    return tree_map(lambda x: x.kind.factors[index] if is_rate(x) else bare(x), tree)


def _wrapped(result, kind, factors, axes):
    if isinstance(result, Tensor):
        return Rate.of(
            result, replace(kind, factors=tuple(factors) if factors else None, axes=axes[0] if axes else None)
        )
    parts = zip(result, *factors, strict=True) if factors else ((x,) for x in result)
    axes = axes or [None] * len(result)
    return type(result)(
        Rate.of(x, replace(kind, factors=tuple(pair) or None, axes=of))
        for (x, *pair), of in zip(parts, axes, strict=True)
    )
