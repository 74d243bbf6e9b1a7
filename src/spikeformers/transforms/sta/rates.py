"""Rate-coded arithmetic for models as they are: a tensor that stands for a sequence of spikes, and what functions make of it.

A `Rate` enters the network instead of the input. Functions that are affine act on it as on any tensor. Layers that multiply by
weights get it as spikes, from a neuron that is put in front of them; a function that is not affine becomes one that transmits the
function of its input's running mean (STA, ICLR 2024; `Run.neuron`). So no class of models has to be known: what is met is converted,
and what cannot be is named.

There are two forms, equal to rounding. With "spikes" a Rate holds what travels in one time step, and all that stays behind is
state: sums where something was received, counts where something was sent. With "means" it holds the mean over the steps so far;
layers are affine, so the sums that they received are the layer of the sums that were sent, and only the counts are state.
"""
# Shapes: B batch, h heads, N tokens, d = channels of a head, C channels.

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...measure import Tally, named
from ...measure.tally import exact
from .attention import below_best, not_zero
from .neurons import integrate_and_fire, transmit

_RUN: ContextVar["Run"] = ContextVar("run")
GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are evenly spread wherever one stops


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FACTS = _words(
    "size dim ndimension numel nelement stride is_floating_point is_complex is_contiguous get_device element_size __len__ __repr__ __str__ "
    "__hash__ is_signed storage_offset has_names is_inference"
)
_ESCAPES = _words("item tolist numpy __array__ __bool__ __int__ __float__ __index__ __dlpack__ __contains__ __format__ __setitem__")
_MOVES = _words(
    "view reshape permute transpose t unsqueeze squeeze flatten unflatten expand expand_as repeat contiguous clone detach to float half "
    "double bfloat16 type_as cpu cuda getitem chunk split split_with_sizes tensor_split unbind select narrow index_select roll rot90 "
    "flip cat concat concatenate stack hstack vstack dstack movedim moveaxis swapaxes swapdims pixel_shuffle pixel_unshuffle "
    "channel_shuffle dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout gather take_along_dim repeat_interleave view_as "
    "reshape_as broadcast_to unfold requires_grad diagonal tile"
)
_SAME = _words("dropout to float half double bfloat16 type_as contiguous clone detach cpu cuda")
_AFFINE = _words(
    "add sub subtract rsub neg negative sum mean cumsum mul multiply div divide true_divide addcmul lerp avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate batch_norm pad masked_fill where fold index_add scatter_add"
)
_FRESH = _words("zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty new_tensor")
_CONVOLUTIONS = _words("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
_MATMULS = _words("matmul bmm mm mv addmm baddbmm einsum")
_PRODUCTS = _words("mul multiply")
_PARAMETERS = {"linear": ("input", "weight", "bias"), "addmm": ("input", "mat1", "mat2"), "baddbmm": ("input", "batch1", "batch2")}
_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training")
_FACTORS = {"addcmul": (1, ("tensor1", "tensor2"), 1), "lerp": (2, ("weight",), 0)}  # from where, by name, how many may vary
_TAKES_AXIS = _words("layer_norm rms_norm")

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


@dataclass(frozen=True)
class Kind:
    """What is known of a `Rate`.

    Attributes:
        spikes: a neuron emitted it, and it was only moved since.
        analog: it follows from the network's input without a neuron in between: products read it as it is.
        constant: it is the same at every step.
        axes: along which the channels lie; None if nobody knows. Found at calibration alone, from what functions say (the channels of a
            linear layer are its result's last axis) and from where they are moved, never from a position: an axis of samples or
            tokens, whose number may change, is none.
        factors: whole numbers and thresholds whose product it is, of spikes in the form "spikes".
        total: of a softmax, which is sent as exponentials: the mean of their sum, by which what they weight is divided.
    """

    spikes: bool = False
    analog: bool = False
    constant: bool = False
    axes: tuple[int, ...] | None = None
    factors: tuple[Tensor, Tensor] | None = None
    total: Tensor | None = None


class Rate(Tensor):
    """See the module. `bare` is the tensor that it was made of, with which everything is computed."""

    kind: Kind
    bare: Tensor

    @staticmethod
    def of(x: Tensor, kind: Kind) -> "Rate":
        rate = x.as_subclass(Rate)
        rate.kind, rate.bare = kind, x
        return rate

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        run = _RUN.get(None)
        if run is None:
            return super().__torch_function__(func, types, args, kwargs or {})
        return run.call(func, args, kwargs or {})


def plain(tree: Any) -> Any:
    """The tree with tensors instead of rates."""
    return tree_map(_bare, tree)


def _bare(x: Tensor) -> Tensor:
    return x.bare if isinstance(x, Rate) else x


def _is_rate(x: Any) -> bool:
    """Whether it varies: integers, such as tokens and what follows from them, are constants."""
    return isinstance(x, Rate) and _bare(x).is_floating_point()


@dataclass
class Run:
    """The state of a converted network while it runs: one object per batch, nothing is kept in modules.

    Attributes:
        thresholds: of every neuron, by its name, in the shape that is broadcast against its input's last axes; None while everything
            passes unchanged (the network as it was).
        levels, potential: see `neurons.fire`.
        form: "means" or "spikes".
        functions: what to use instead of functions, by name: approximation(place, exact function, args, kwargs).
        strict: whether functions without an approximation are refused.
        observer: is told of every neuron and function what it gets, for calibration.
        counting: whether spikes are counted.
        carry_out: what carries out layers of whole numbers, instead of torch, in the form "spikes": carry_out(place, function, counts,
            scale of their channels, weight, bias, options), or None where it does not.
        t: time steps begun.
        shaped: thresholds as they are broadcast against activations.
        counts: emitted so far by every neuron, in thresholds.
        sums: received so far, where that is state ("spikes" only).
        islands: functions that are evaluated in real numbers, by place.
        fitted: those that networks of rectified units approximate, by place; those read means, and multiply what they hold.
        tally: what neurons emitted, by their place, where that is counted.
    """

    thresholds: dict[str, Tensor] | None
    levels: int = 4
    potential: float = 0.5
    form: str = "means"
    functions: dict[str, Callable] = field(default_factory=dict)
    strict: bool = False
    observer: Any = None
    counting: bool = False
    carry_out: Callable[..., Tensor | None] | None = None
    t: int = 0
    shaped: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    islands: dict[str, str] = field(default_factory=dict)
    fitted: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    path: list[str] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)

    def step(self, model: Callable, args: tuple, kwargs: dict, constant: bool = False) -> Any:
        """One time step of the model; its inputs, masks aside, are the same in every step or not.

        Args:
            model: called once.
            args, kwargs: its input.
            constant: whether that is the same in every step.

        Raises:
            ValueError: an operation cannot be converted, inputs have another shape than before, or counters are full.
        """
        self.t += 1
        if self.t * self.levels > torch.iinfo(torch.int16).max:
            raise ValueError(f"a state counts up to {self.t - 1:,} time steps with bursts of {self.levels}; start anew")
        self.calls.clear()
        self.path.clear()
        args = tuple(self.entered(f"input {i}", x, constant) if isinstance(x, Tensor) else x for i, x in enumerate(args))
        kwargs = {
            key: self.entered(f"input {key}", x, constant) if isinstance(x, Tensor) and "mask" not in key else x for key, x in kwargs.items()
        }
        token = _RUN.set(self)
        try:
            output = model(*args, **kwargs)
            with torch._C.DisableTorchFunctionSubclass():
                return tree_map(self.divided, output)
        finally:
            _RUN.reset(token)

    def place(self, name: str) -> str:
        """A name for this call, the same in every step: the module's path, the function and, from the second on, a number."""
        place = f"{self.path[-1] if self.path else ''}:{name}"
        number = self.calls[place] = self.calls.get(place, -1) + 1
        return f"{place}.{number}" if number else place

    # what functions make of rates

    def call(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """What `func` does to rates.

        Args:
            func: the function.
            args, kwargs: what it is called with.
        """
        name = func.__name__
        with torch._C.DisableTorchFunctionSubclass():
            if name == "__get__":
                return self._attribute(func, args)
            if name == "__set__" or name in _FACTS:
                return func(*plain(args), **plain(kwargs))
            rates = [x for x in tree_leaves((args, kwargs)) if _is_rate(x)]
            if not rates:
                return self._of_constants(func, name, args, kwargs)
            if name in _ESCAPES or kwargs.get("out") is not None:
                raise self.refusal(name, "what varies leaves torch, or is written into a tensor")
            if any(r.kind.total is not None for r in rates) and not self._keeps_total(name.strip("_"), args):
                args, kwargs = tree_map(self.divided, (args, kwargs))
                rates = [x for x in tree_leaves((args, kwargs)) if _is_rate(x)]
            if handler := HANDLERS.get(func) or HANDLERS.get(name):
                return handler(self, func, args, kwargs)
            if name.startswith("__i") and name not in ("__invert__", "__index__"):
                return self._in_place(name[3:-2], args, kwargs)
            if name.endswith("_") and not name.endswith("__"):
                return self._in_place(name[:-1], args, kwargs)
            name = name.strip("_")
            name = name[1:] if name in ("radd", "rmul", "rmatmul") else name
            if name in _FRESH:
                return func(*plain(args), **plain(kwargs))
            if name in _MOVES:
                return self.move(func, args, kwargs, rates)
            if name in _AFFINE and self._is_affine(name, args, kwargs, rates):
                return self.affine(func, args, kwargs, rates)
            if name == "softmax" and not rates[0].kind.constant and self._over_last(args, kwargs):
                return self.softmax(args, kwargs)
            if name == "linear" or name in _CONVOLUTIONS or name in _MATMULS or (name in _PRODUCTS and len(rates) == 2):
                return self.weighted(func, name, args, kwargs, rates)
            return self.function(name, func, args, kwargs, rates)

    def _attribute(self, func, args):
        found = func(*plain(args))
        if isinstance(found, Tensor):  # such as x.T or x.data
            return Rate.of(found, replace(args[0].kind, axes=None, factors=None))
        return found

    def _of_constants(self, func, name, args, kwargs):
        """Tokens and what follows from them stay as they are; what a table holds for them is a constant current."""
        result = func(*plain(args), **plain(kwargs))
        if name in _ESCAPES:
            return result
        constant = all(x.kind.constant for x in tree_leaves((args, kwargs)) if isinstance(x, Rate))
        if name == "embedding" and not constant and self.form == "means":
            result = self.received(self.place(name), result) / self.t
        kind = Kind(analog=True, constant=constant, axes=(result.ndim - 1,) if name == "embedding" else None)
        wanted = (lambda x: True) if name == "embedding" else (lambda x: not x.is_floating_point())
        return tree_map(lambda x: Rate.of(x, kind) if isinstance(x, Tensor) and wanted(x) else x, result)

    def refusal(self, name: str, why: str) -> ValueError:
        """The error that `name` cannot be converted, with the module where it was met; to be raised."""
        where = self.path[-1] if self.path and self.path[-1] else "the model's own forward"
        return ValueError(
            f"{where}: {name} cannot be converted: {why}; register a handler for the function (spikeformers.transforms.sta.handles) "
            "or an adapter for the class of the module that calls it (spikeformers.transforms.sta.adapts)"
        )

    def _is_affine(self, name, args, kwargs, rates):
        if name in _PRODUCTS:
            return len(rates) == 1
        if name in ("div", "divide", "true_divide"):
            return len(rates) == 1 and _is_rate(args[0]) and kwargs.get("rounding_mode") is None
        if name == "batch_norm":
            given = dict(zip(_BATCH_NORM, args, strict=False)) | kwargs
            if given.get("training") or given.get("running_mean") is None:
                raise self.refusal(name, "it uses the statistics of the batch; it needs running ones, in eval mode")
        if name not in _FACTORS:
            return True
        first, names, most = _FACTORS[name]
        return sum(map(_is_rate, (*args[first:], *(kwargs.get(key) for key in names)))) <= most

    def _in_place(self, name, args, kwargs):
        target = args[0]
        if not (hasattr(Tensor, name) or hasattr(torch, name)):
            raise self.refusal(f"{name}_", "it overwrites a tensor")
        return self._replaced(name, target, self.call(getattr(Tensor, name, None) or getattr(torch, name), args, kwargs))

    def _replaced(self, name, target, result):
        if not _is_rate(target) or target.untyped_storage().nbytes() != target.numel() * target.element_size():
            raise self.refusal(f"{name}_", "it changes a part of a tensor, or one that did not vary, in place")
        target.set_(result.bare)  # what else lies in the old memory stays as it is
        target.kind, target.bare = result.kind, result.bare
        return target

    def move(self, func, args, kwargs, rates):
        """Values change place at most.

        Args:
            func: the function.
            args, kwargs: what it is called with.
            rates: those among them.
        """
        name = func.__name__
        if "dropout" in name and (kwargs.get("training", args[2] if len(args) > 2 else True)) and kwargs.get("p", (*args, 0.5)[1]):
            raise self.refusal(name, "it is not switched off in eval mode (training=self.training does so)")
        result = func(*plain(args), **plain(kwargs))
        if any(isinstance(x, Tensor) and not x.is_floating_point() for x in tree_leaves(result)):
            raise self.refusal(name, "it makes whole numbers or truth values of what varies")
        moved = self._moved(func, args, kwargs, result) if self.observer else None
        tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor) and x.is_floating_point()]
        whole = len(tensors) == len(rates)
        kind = Kind(
            spikes=whole and all(r.kind.spikes for r in rates),
            analog=all(r.kind.analog for r in rates),
            constant=all(r.kind.constant for r in rates),
            total=rates[0].kind.total if len(rates) == 1 else None,
        )
        factors = None
        if kind.spikes and self.form == "spikes" and all(r.kind.factors for r in rates):
            factors = [func(*_factor(args, i), **_factor(kwargs, i)) for i in (0, 1)]
        return _wrapped(result, kind, factors, moved)

    def _moved(self, func, args, kwargs, result):
        """Along which axes of each result the channels lie: the function moves their numbers, and where those differ they are."""
        if func.__name__ in _SAME:
            return [args[0].kind.axes if isinstance(args[0], Rate) else None]
        numbers = None
        for number in (_numbered, lambda x: _numbered(x, whole=True)):
            try:
                numbers = func(*tree_map(number, args), **tree_map(number, kwargs))
                break
            except (RuntimeError, TypeError):  # not for numbers that share memory, or not for whole ones
                continue
        numbers = [x for x in tree_leaves(numbers) if isinstance(x, Tensor)]
        return [_differing(x) for x in numbers] if len(numbers) == len(tree_leaves(result)) else None

    def affine(self, func, args, kwargs, rates):
        """A function of which the mean over time is that of the mean.

        Args:
            func: the function.
            args, kwargs: what it is called with.
            rates: those among them.
        """
        result = func(*plain(args), **plain(kwargs))
        kind = Kind(
            analog=all(r.kind.analog for r in rates),
            constant=all(r.kind.constant for r in rates),
            axes=_kept(rates, result),
        )
        return tree_map(lambda x: Rate.of(x, kind) if isinstance(x, Tensor) else x, result)

    def weighted(self, func, name, args, kwargs, rates):
        """Multiplication by weights, or of two rates: linear layers, convolutions and matrix products.

        Args:
            func: the function.
            name: its name.
            args, kwargs: what it is called with.
            rates: those among them.
        """
        if name == "einsum":
            raise self.refusal(name, "write it as a matrix product")
        place = self.place(name)
        args, kwargs = _positional(name, args, kwargs)
        if len(rates) == 1 and rates[0].kind.constant and rates[0].kind.analog:
            if place not in self.constants:
                self.constants[place] = func(*plain(args), **plain(kwargs))
            return Rate.of(self.constants[place], Kind(analog=True, constant=True, axes=_channels(name, self.constants[place], args)))
        operands = list(args)
        if len(rates) == 2:
            return self.product(place, func, name, operands, kwargs)
        if len(rates) > 2:
            raise self.refusal(name, f"it multiplies {len(rates)} things that vary")
        index = next(i for i, x in enumerate(operands) if _is_rate(x))
        if not rates[0].kind.spikes and not rates[0].kind.analog:
            operands[index] = self.neuron(place, rates[0], _read(name, index, rates[0]))
        x = operands[index]
        result = self._folded(place, func, name, operands, kwargs, index) if x.kind.factors else None
        if result is None:
            result = func(*plain(operands), **plain(kwargs))
        return Rate.of(result, Kind(analog=x.kind.analog, axes=_channels(name, result, operands)))

    def _folded(self, place, func, name, operands, kwargs, index):
        """The layer of whole numbers, its weights multiplied by the thresholds; None if those differ along other axes."""
        counts, threshold = operands[index].kind.factors
        axis = _channel_axis(name, threshold.ndim)
        if name not in _CONVOLUTIONS and not (name == "linear" and index == 0):
            return None
        first = threshold[tuple(slice(None) if i == axis else slice(1) for i in range(threshold.ndim))]
        expanded = all(stride == 0 for i, stride in enumerate(threshold.stride()) if i != axis)
        if not expanded and not torch.equal(first.expand_as(threshold), threshold):
            return None
        weight, first = operands[1], first.flatten()
        if self.carry_out is not None:
            rest = _named(name, plain(operands[2:]), plain(kwargs))
            result = self.carry_out(place, name, counts, first, plain(weight), rest.pop("bias", None), rest)
            if result is not None:
                return result
        if name in _CONVOLUTIONS:
            if name.startswith("conv_transpose"):
                return None
            groups = kwargs.get("groups", operands[6] if len(operands) > 6 else 1)
            scale = first.reshape(groups, -1).repeat_interleave(len(weight) // groups, 0)
            weight = weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))
        else:
            weight = weight * first
        return func(counts, weight, *plain(operands[2:]), **plain(kwargs))

    def product(self, place, func, name, operands, kwargs):
        """The product of two rates: of all spikes so far of one side with all of the other, divided by t^2.

        Args:
            place: name of the operation.
            func: the function.
            name: its name.
            operands: its arguments by position, two rates among them.
            kwargs: those by name.
        """
        places = [i for i, x in enumerate(operands) if _is_rate(x)]
        for i in places:
            if not operands[i].kind.spikes:
                operands[i] = self.neuron(f"{place}/{i}", operands[i], _read(name, i, operands[i]))
        left, right = (operands[i] for i in places)
        if name in _PRODUCTS or (name in ("matmul", "bmm", "mm") and left.ndim > 1 and right.ndim > 1):
            result = self.multiplied(place, left, right, matrices=name not in _PRODUCTS)
        else:
            for i in places:
                operands[i] = self.mean(f"{place}/{i}", operands[i])
            result = func(*operands, **plain(kwargs))
        if left.kind.total is not None:
            result = self.approximation("div", f"{place}/total", torch.div)(result, left.kind.total)
        return self.rate_of(place, result)

    def multiplied(self, place: str, left: Tensor, right: Tensor, matrices: bool) -> Tensor:
        """The product of two means so far, element by element or of matrices.

        In the form "spikes" one side of every product is what came in this step: S_a[t] S_b[t] = S_a[t-1] S_b[t-1] + S_a[t] b[t] +
        a[t] S_b[t-1], whole numbers times sums into which the thresholds of both sides have been multiplied.

        Args:
            place: name of the operation.
            left, right: the sides, [..., N, K] and [..., K, M] or both [...].
            matrices: whether it is a product of matrices.
        """
        multiply = torch.matmul if matrices else torch.mul
        scales = _scales(left, right, matrices) if self.form == "spikes" else None
        if scales is None:
            return multiply(*(self.mean(f"{place}/{i}", x) if isinstance(x, Rate) else x for i, x in enumerate((left, right))))
        (a, _), (b, _) = left.kind.factors, right.kind.factors
        on_left, on_right, behind = scales
        come = multiply(self.received(f"{place}/0", a * on_left), b)
        if behind is not None:
            come = come * behind
        b = b * on_right
        come = come + multiply(a, self._sum(f"{place}/1", b))
        self.received(f"{place}/1", b)
        return self.received(f"{place}/product", come) / self.t**2

    def function(self, name: str, func: Callable, args: tuple, kwargs: dict, rates: list):
        """A function that is not affine: neurons that transmit what it makes of the mean so far.

        Args:
            name: of the function.
            func: the function.
            args, kwargs: what it is called with.
            rates: those among them.
        """
        if kwargs.get("inplace"):
            result = self.function(name, func, args, kwargs | {"inplace": False}, rates)
            return self._replaced(name, args[0], result)
        place, spread = self.place(name), name == "softmax"
        constant = all(r.kind.constant for r in rates)
        if constant and place in self.constants:
            return self.fired(place, *self.constants[place], spread)
        means = [self.mean(f"{place}/{i}", r) for i, r in enumerate(rates)]
        if self.observer:
            self.observer.function(name, means[0])
        means = iter(means)
        args, kwargs = tree_map(lambda x: next(means) if _is_rate(x) else _bare(x), (args, kwargs))
        value = self.approximation(name, place, func)(*args, **kwargs)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise self.refusal(name, "it makes indices, truth values or several tensors of what varies")
        axes = _kept(rates, value)
        if name in _TAKES_AXIS:
            axes = tuple(sorted({*(axes or ()), value.ndim - 1}))
        if constant:
            self.constants[place] = value, axes
        return self.fired(place, value, axes, spread)

    def softmax(self, args: tuple, kwargs: dict) -> Rate:
        """Exponentials below the largest of each row, as in `attention.tcsa`: what they weight is divided by their sum."""
        place, x = self.place("softmax"), args[0] if args else kwargs["input"]
        dtype = kwargs.get("dtype") or next((y for y in args if isinstance(y, torch.dtype)), None)
        mean = self.mean(f"{place}/0", x)
        weights = self.approximation("exp", place, torch.exp)(below_best(mean if dtype is None else mean.to(dtype)))
        sent = self.fired(place, weights, None, spread=True)
        total = self.mean(f"{place}/total", self.affine(torch.sum, (sent, -1), {"keepdim": True}, [sent]))
        sent.kind = replace(sent.kind, total=not_zero(total))
        return sent

    def divided(self, x: Any) -> Any:
        """A softmax by itself, not as weights."""
        if not _is_rate(x) or x.kind.total is None:
            return x
        place = self.place("divided")
        return self.rate_of(place, self.approximation("div", place, torch.div)(self.mean(place, x), x.kind.total))

    def _keeps_total(self, name, args):
        if name in ("matmul", "bmm"):
            return args[0].ndim > 1 and args[1].ndim > 1 and _is_rate(args[1]) and args[1].kind.total is None
        return name in _SAME

    def _over_last(self, args, kwargs):
        x, *rest = args if args else (kwargs["input"],)
        dim = kwargs.get("dim", next((y for y in rest if isinstance(y, int)), None))
        return dim in (-1, x.ndim - 1)

    # neurons and their state

    def entered(self, place: str, x: Tensor, constant: bool) -> Rate:
        """An input of the network.

        Args:
            place: the input's name.
            x: [B, ...].
            constant: whether it is the same in every step.

        Raises:
            ValueError: the input had another shape before.
        """
        if self.form == "means" and not constant and x.is_floating_point():
            if place in self.sums and self.sums[place].shape != x.shape:
                raise ValueError(
                    f"{place}: was {tuple(self.sums[place].shape)} and is now {tuple(x.shape)}; start anew for another batch"
                )
            x = self.received(place, x) / self.t
        return Rate.of(x, Kind(analog=True, constant=constant))

    def mean(self, place: str, x: Rate) -> Tensor:
        """What was received so far [...], divided by t."""
        value = _bare(x)
        if self.form == "means" or x.kind.constant:
            return value
        return self.received(place, value) / self.t

    def received(self, place: str, value: Tensor) -> Tensor:
        """The sum [...] of what has come here, this step included."""
        return self._sum(place, value).add_(value)

    def _sum(self, place, like):
        if place not in self.sums:
            self.sums[place] = like.clone(memory_format=torch.contiguous_format).zero_()  # a copy, which the audit takes for data
        return self.sums[place]

    def rate_of(self, place: str, mean: Tensor) -> Rate:
        """A mean so far [...] as a rate: real-valued, not spikes."""
        if self.form == "means":
            return Rate.of(mean, Kind())
        total = mean * self.t
        sent = self.sums.get(f"{place}/sent")
        self.sums[f"{place}/sent"] = total
        return Rate.of(total if sent is None else total - sent, Kind())

    def neuron(self, place: str, x: Rate, axes: tuple[int, ...] | None) -> Rate:
        """Integrate-and-fire neurons that turn a current into spikes.

        Args:
            place: name of what reads the spikes.
            x: the current.
            axes: along which channels have a threshold each; None for one threshold.
        """
        place = f"{place}/in"
        if self.form == "means" or self.thresholds is None or x.kind.constant:
            return self.fired(place, self.mean(place, x), axes)
        value = _bare(x)
        threshold, counts = self._state(place, value, axes)
        with named(place):
            spikes = integrate_and_fire(value, self._sum(place, value), counts, threshold, self.levels, self.potential)
        return self._emitted(place, spikes, threshold, counts, axes)

    def fired(self, place: str, mean: Tensor, axes: tuple[int, ...] | None, spread: bool = False) -> Rate:
        """Spikes of neurons that are to transmit this mean [...].

        Args:
            spread: whether their initial potentials are evenly spread along the last axis, so that equal values are not all rounded
                the same way.
        """
        if self.observer:
            self.observer.neuron(place, mean, axes)
        if self.thresholds is None:
            x = mean if self.form == "means" else _bare(self.rate_of(place, mean))
            return Rate.of(x, Kind(spikes=True, axes=axes))
        threshold, counts = self._state(place, mean, axes)
        if spread:
            potentials = torch.arange(1, mean.shape[-1] + 1, device=mean.device, dtype=mean.dtype) * GOLDEN % 1
            mean = mean + (potentials - self.potential) * (threshold / self.t)
        with named(place):
            spikes = transmit(mean, counts, threshold, self.t, self.levels, self.potential)
        return self._emitted(place, spikes, threshold, counts, axes)

    def _state(self, place, like, axes):
        """Thresholds and counts of the neurons of a place."""
        if place not in self.shaped:
            found = self.thresholds.get(place, self.thresholds.get(any_call(place)))
            if found is None:
                raise self.refusal(place, "calibration has not seen this place, so the input takes another way through the model")
            threshold = found.to(like)
            while threshold.ndim > like.ndim and threshold.shape[0] == 1:  # a sample by itself
                threshold = threshold[0]
            if threshold.ndim > like.ndim or any(a not in (1, b) for a, b in zip(reversed(threshold.shape), reversed(like.shape), strict=False)):
                raise ValueError(
                    f"{place}: calibration saw channels {tuple(threshold.shape)}, and this input has {tuple(like.shape)}; convert with inputs "
                    "such as the network will see"
                )
            self.shaped[place] = threshold.view(*[1] * (like.ndim - threshold.ndim), *threshold.shape)
            self.counts[place] = torch.zeros_like(like, dtype=torch.int16, memory_format=torch.contiguous_format)
        counts = self.counts[place]
        if counts.shape != like.shape:
            raise ValueError(f"{place}: was {tuple(counts.shape)} and is now {tuple(like.shape)}; start anew for another batch")
        return self.shaped[place], counts

    def _emitted(self, place, spikes, threshold, counts, axes):
        if self.counting:
            thresholds = spikes.abs().sum(dtype=exact(spikes.device))
            emitted, thresholds = torch.stack([spikes.count_nonzero().to(thresholds.dtype), thresholds]).tolist()
            self.tally.add(place, self.t - 1, emitted=[emitted], thresholds=[thresholds], places=[spikes.numel()])
        if self.form == "means":
            return Rate.of(counts * (threshold / self.t), Kind(spikes=True, axes=axes))
        factors = spikes, threshold.expand_as(spikes)
        return Rate.of(spikes * threshold, Kind(spikes=True, axes=axes, factors=factors))

    def approximation(self, name: str, place: str, exact: Callable) -> Callable:
        """What stands for a function of tensors in this run; the exact one is noted as an island.

        Args:
            name: of the function.
            place: where it stands.
            exact: the function itself.
        """
        if name in self.functions:
            self.fitted[place] = name
            return lambda *args, **kwargs: self.functions[name](place, partial(exact, **kwargs), args, kwargs)
        if self.strict:
            raise self.refusal(name, "it has no spiking approximation; convert with spiking='hybrid'")
        self.islands[place] = name
        return exact


def any_call(place: str) -> str:
    """What stands for all calls of a function in a module, of which `Run.place` has numbered each."""
    path, _, rest = place.partition(":")
    name, slash, rest = rest.partition("/")
    return f"{path}:{name.split('.')[0]}.*{slash}{rest}"


def _positional(name, args, kwargs):
    """A layer's operands in order."""
    kwargs = dict(kwargs)
    names = _CONVOLUTION if name in _CONVOLUTIONS else _PARAMETERS.get(name, ("input", "other"))
    args = list(args)
    while len(args) < len(names) and names[len(args)] in kwargs:
        args.append(kwargs.pop(names[len(args)]))
    return args, kwargs


def _named(name, behind, kwargs):
    """A layer's operands behind the weight, by their names."""
    return dict(zip(_CONVOLUTION[2:], behind, strict=False)) | kwargs


def _channel_axis(name, ndim):
    """Where the channels of a layer's input and output lie; a convolution takes a sample by itself, too."""
    return ndim - 1 - int(name[-2]) if name in _CONVOLUTIONS else ndim - 1


def _channels(name, result, operands):
    """Along which axes of what a layer makes its channels lie."""
    if name in _CONVOLUTIONS or name == "linear":
        return (_channel_axis(name, result.ndim),)
    at = 1 if name == "addmm" else 0
    fixed = name in ("matmul", "mm", "addmm") and _is_rate(operands[at]) and operands[at].ndim > 1 and operands[at + 1].ndim == 2
    return (result.ndim - 1,) if fixed else None


def _read(name, index, x):
    """Along which axes of an operand the channels lie: never along tokens, whose number may change."""
    if name in _CONVOLUTIONS or name == "linear":
        return (_channel_axis(name, x.ndim),)
    axes = x.kind.axes
    if axes and name in _MATMULS and index == 0 and x.ndim > 1:  # rows share thresholds, so that products of sums can be brought up to date
        axes = tuple(axis for axis in axes if axis != x.ndim - 2)
    return axes or None


def _kept(rates, result):
    """The axes of channels where a function leaves every value in its place: those of the first operand of the result's shape."""
    return next((r.kind.axes for r in rates if r.shape == getattr(result, "shape", None) and r.kind.axes), None)


def _numbered(x, whole=False):
    """For a rate the number of each value's channel, from 1; 0 where there are none. They share memory, unless
    `whole`, so that moves cost none where they only look."""
    if not isinstance(x, Tensor):
        return x
    if not x.is_floating_point():
        return _bare(x)
    axes = x.kind.axes or () if isinstance(x, Rate) else ()
    sizes = [size if i in axes else 1 for i, size in enumerate(x.shape)]
    numbers = torch.arange(1, torch.Size(sizes).numel() + 1, dtype=torch.int32, device=x.device) if axes else x.new_zeros(1, dtype=torch.int32)
    numbers = numbers.view(sizes).expand(x.shape)
    return numbers.contiguous() if whole else numbers


def _differing(numbers):
    """The axes along which numbers of channels differ, constants (0) aside; None if there are none."""
    for axis, stride in enumerate(numbers.stride()):
        if stride == 0:  # one and the same
            numbers = numbers.narrow(axis, 0, min(1, numbers.shape[axis]))
    found = []
    for axis, size in enumerate(numbers.shape):
        if size > 1:
            known = numbers.amax(axis, keepdim=True)
            if bool(((numbers != known) & (numbers != 0)).any()):
                found.append(axis)
    return tuple(found) or None


def _scales(left, right, matrices):
    """Where the thresholds of two sides of spikes are multiplied to: the sum of the left, the sum of the right, and what comes of spikes
    on the right (None if nothing); None if they differ along other axes."""
    if not all(isinstance(x, Rate) and x.kind.factors for x in (left, right)):
        return None
    a, b = left.kind.factors[1], right.kind.factors[1]
    if not matrices:
        return a * b, a * b, None
    row = a[..., :1, :]
    if not torch.equal(row.expand_as(a), a):
        return None
    column, channels = b[..., :1], b[..., :1, :]
    if torch.equal(column.expand_as(b), b):
        return row * column.transpose(-2, -1), b * row.transpose(-2, -1), None
    if torch.equal(channels.expand_as(b), b):
        return row, b * row.transpose(-2, -1), channels
    return None


def _factor(tree, index):
    return tree_map(lambda x: x.kind.factors[index] if _is_rate(x) else _bare(x), tree)


def _wrapped(result, kind, factors, axes):
    if isinstance(result, Tensor):
        return Rate.of(result, replace(kind, factors=tuple(factors) if factors else None, axes=axes[0] if axes else None))
    parts = zip(result, *factors, strict=True) if factors else ((x,) for x in result)
    axes = axes or [None] * len(result)
    return type(result)(
        Rate.of(x, replace(kind, factors=tuple(pair) or None, axes=of)) for (x, *pair), of in zip(parts, axes, strict=True)
    )
