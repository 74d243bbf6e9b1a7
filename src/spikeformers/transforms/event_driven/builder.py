"""From a network's graph to a plan: what reads spikes becomes steps on bits, fused and with all buffers at hand."""
# Shapes: as in plan.py.

import contextlib
import ctypes
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx
from torch.nn import functional

from ...kernels import spike_attention, spike_conv
from ...kernels.lif import Dynamics
from ...kernels.spike_conv import Packed, Weight
from ...layers.merging import composed
from .graph import (
    ALIASES,
    LIF,
    MAKES_NEW,
    NOTHING,
    SAME_VALUES,
    aten,
    conv_args,
    is_map,
    map_shape,
    module_name,
    operation_of,
    passes,
    repeatable,
    shape_of,
    swapped,
)
from .plan import Bits, DrivenLayer, DrivenNeurons, MapStep, Places, Plan, Room, Slot, as_map


@dataclass(frozen=True)
class Convolution:
    """A convolution of spikes as the graph has it, or several as one.

    Attributes:
        node: the last one's.
        chain: the name of the chain that it is part of or that it is, or None.
        parameters: names of the weights that it is made of; None for one that the network computes.
    """

    node: fx.Node
    source: Bits
    weight: Tensor
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    chain: str | None
    parameters: tuple[str | None, ...]


class Builder:
    """Turns an exported graph into a plan.

    Args:
        exported: of a merged model in eval mode.
        precision: of the weights of event-driven layers, see `spike_conv.prepare`.
        whole: names of the chains that become one convolution.
        weights: weights that another plan has prepared, by name; what is missing is added.
        places: where maps share memory, as found by building once before; None: all have their own.
    """

    def __init__(
        self,
        exported: torch.export.ExportedProgram,
        precision: torch.dtype | None,
        whole: frozenset[str],
        weights: dict[tuple, Weight],
        places: Places | None = None,
    ):
        self.precision, self.whole, self.weights = precision, whole, weights
        self.graph = exported.graph
        signature, state = exported.graph_signature, {**exported.state_dict, **exported.constants}
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.constants: dict[fx.Node, object] = {}
        self.names: dict[fx.Node, str] = {}
        self.values: dict[fx.Node, object] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.name in named:
                self.constants[node] = state[named[node.name]].detach()
                self.names[node] = named[node.name].removeprefix("model.")
            elif node.op == "placeholder":
                self.values[node] = Slot(0)
        self.steps, self.layers, self.marks, self.neurons, self.stateless = [], [], [], [], []
        self.slots, self.bytes, self.room = 1, 0, Room()
        self.dtype = next(value.dtype for value in self.constants.values() if value.is_floating_point())
        self.scratch_calls, self.scratch_size = [], 64
        self.places = iter(places or ())
        self.arena = spike_conv.aligned(torch.zeros(places.size, dtype=torch.uint8)) if places else None
        self.maps: dict[int, int] = {}  # address of a map -> its number
        self.sizes: list[int] = []  # bytes of maps
        self.touched: list[
            tuple[set[int], set[int]]
        ] = []  # for every step the maps and the slots that it reads or writes
        self.views: dict[int, set[int]] = {}  # slot -> the maps that its tensor may be a view of
        self.absorbed: dict[fx.Node, Convolution] = {}  # addition -> the convolution that does it along the way
        self.inner: set[fx.Node] = set()  # those whose values never exist, as they are part of a step
        self.done: set[fx.Node] = set()
        self.chains: set[str] = set()  # names of those that were found
        self.fired: dict[fx.Node, Bits] = {}  # lif -> its spikes
        self.threads = torch.get_num_threads()

    def build(self) -> Plan:
        """Lowers the graph, node by node: the plan."""
        for node in self.graph.nodes:
            if node.op == "call_function" and node not in self.done and node.target not in NOTHING:
                self._lower(node)
        (out,) = next(node for node in self.graph.nodes if node.op == "output").args[0]
        result = self._readable(out)
        self.touched.append(self._touches([result]))
        scratch = spike_conv.aligned_room(self.scratch_size)
        for call in self.scratch_calls:
            call.scratch = scratch.data_ptr()

        def output(env, _scratch=scratch):
            return (env[result.index] if isinstance(result, Slot) else result).clone()

        self.room.tensor = torch.empty(self.room.numel, dtype=self.dtype)
        maps = sum(self.sizes) if self.arena is None else self.arena.numel()
        size = self.bytes + maps + scratch.numel() + self.room.numel * self.room.tensor.element_size()
        return Plan(
            self.steps, self.layers, self.marks, self.neurons, self.stateless, output, self.slots, size, self._shared(), self._last()
        )  # fmt: skip

    def _touches(self, values) -> tuple[set[int], set[int]]:
        """The maps and slots behind these values."""
        maps, slots = set(), {value.index for value in values if isinstance(value, Slot)}
        for value in values:
            if isinstance(value, Slot):
                maps |= self.views.get(value.index, set())
            elif isinstance(value, Tensor) and value.data_ptr() in self.maps:
                maps.add(self.maps[value.data_ptr()])
        return maps, slots

    def _shared(self) -> Places:
        """Offsets for all maps, such that none that are needed at the same time overlap: the largest first, each as low as it can."""
        spans = [[len(self.touched), -1] for _ in self.sizes]
        for step, (maps, _) in enumerate(self.touched):
            for number in maps:
                spans[number] = [min(spans[number][0], step), max(spans[number][1], step)]
        offsets: dict[int, int] = {}
        for number in sorted(range(len(spans)), key=lambda number: -self.sizes[number]):
            first, last = spans[number]
            others = [other for other in offsets if spans[other][0] <= last and first <= spans[other][1]]
            at = 0
            for other in sorted(others, key=offsets.__getitem__):
                if at + self.sizes[number] <= offsets[other]:
                    break
                at = max(at, offsets[other] + self.sizes[other])
            offsets[number] = at
        size = max((offset + self.sizes[number] for number, offset in offsets.items()), default=0)
        return Places(tuple(offsets[number] for number in range(len(spans))), size)

    def _last(self) -> list[list[int]]:
        """For every step the slots that are not read any more; the result's and the input's stay."""
        over: list[list[int]] = [[] for _ in self.steps]
        seen = set(self.touched[-1][1]) | {0}
        for step in reversed(range(len(self.steps))):
            over[step] = sorted(self.touched[step][1] - seen)
            seen |= self.touched[step][1]
        return over

    # What a node is

    def _lower(self, node: fx.Node) -> None:
        """Makes a step of the node, finds that it needs none, or leaves it to torch, as soon as somebody reads it."""
        first = node.args[0] if node.args else None
        if node.target in ALIASES and first in self.inner:
            self.inner.add(node)
        elif node.target is not LIF and repeatable(node) and all(arg in self.constants for arg in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), self.constants.__getitem__)
            self.constants[node] = node.target(*args, **kwargs)
        elif passes(node, first) and shape_of(node) == shape_of(first):
            self._alias(node, first)
        else:
            for targets, method in (
                ((LIF,), self._lif),
                ((operator.getitem,), self._spikes),
                (SAME_VALUES, self._reshaped),
                ((aten.transpose.int, aten.permute.default), self._turned),
                ((aten.conv2d.default,), self._convolution),
                ((aten.linear.default,), self._linear),
                ((aten.add.Tensor,), self._addition),
                ((aten.max_pool2d.default,), self._pool),
                ((aten.avg_pool2d.default,), self._mean_pool),
                ((aten.matmul.default,), self._attention),
            ):
                if node.target in targets and self._has_our_type(node):
                    method(node)

    def _has_our_type(self, node: fx.Node) -> bool:
        """Whether the kernels can read all of this; whatever else there is, torch does."""
        if node.target is operator.getitem:
            return True
        wanted = node.args[:1] if node.target is LIF else [*node.all_input_nodes, node]
        return all(getattr(z.meta.get("val"), "dtype", None) == self.dtype for z in wanted if isinstance(z, fx.Node))

    def _spikes(self, node: fx.Node) -> None:
        """One of the two results of neurons."""
        if node.args[0] in self.fired and node.args[1] == 0:
            self.values[node] = self.fired[node.args[0]]

    def _value(self, node: fx.Node):
        """What the node stands for: a map with a buffer of its own, spikes, or a place in the environment."""
        if node not in self.values:
            self.values[node] = self.constants[node] if node in self.constants else self._generic(node)
        return self.values[node]

    def _known(self, *nodes: fx.Node | None) -> bool:
        """Whether these do not depend on the input, as far as there are any."""
        return all(node is None or node in self.constants for node in nodes)

    def _are_map(self, node: fx.Node) -> bool:
        """Whether these are spikes of a map, [T, B, C, H, W] or with the outer axes as one."""
        value = self.values.get(node)
        return isinstance(value, Bits) and not value.tokens and is_map(node, value.packed.shape)

    def _alias(self, node: fx.Node, of: fx.Node) -> None:
        if of in self.values:
            self.values[node] = self.values[of]

    def _reshaped(self, node: fx.Node) -> None:
        """Nothing has to be done where only the outer axes change, and where vectors, or tokens [T, B, C, N], become a map."""
        value, before = self.values.get(node.args[0]), self.values.get(swapped(node.args[0]))
        if isinstance(before, Bits) and before.tokens:
            self._as_map(node, before)
        elif isinstance(value, Bits) and value.tokens and len(shape_of(node.args[0])) == 3:
            self._as_map(node, value)
        elif isinstance(value, Bits) and not value.tokens and is_map(node, value.packed.shape):
            self.values[node] = value
        elif isinstance(value, Tensor) and passes(node, node.args[0]):
            with contextlib.suppress(RuntimeError):
                self.values[node] = value.view(shape_of(node))

    def _as_map(self, node: fx.Node, tokens: Bits) -> None:
        """The node, if it is a map of as many pixels as there are tokens."""
        t, b, c, n, _ = tokens.packed.shape
        h, w = shape_of(node)[-2:]
        if h * w == n and is_map(node, (t, b, c, h, w)):
            self.values[node] = _as_sizes(tokens, h, w, tokens=False)

    def _turned(self, node: fx.Node) -> None:
        """A map [T, B, C, H, W] that was flattened to [T, B, C, N], as tokens [T, B, N, C]: in memory it is that already."""
        flat = swapped(node)
        of = flat.args[0] if flat is not None and flat.target in SAME_VALUES else None
        if of in self.values and self._are_map(of) and len(shape_of(of)) == 5:
            t, b, c, h, w = shape_of(of)
            if tuple(shape_of(flat)) == (t, b, c, h * w):
                self.values[node] = _as_sizes(self.values[of], h * w, 1, tokens=True)

    # Steps

    def _convolution(self, node: fx.Node) -> None:
        """A convolution of spikes: at once, or together with an addition behind it."""
        x, weight, bias, stride, padding, dilation, groups = conv_args(node)
        source = self.values.get(x)
        if not self._are_map(x) or not self._known(weight, bias) or isinstance(padding, str):
            return
        outputs, inputs, *size = self.constants[weight].shape
        few = math.prod(size) * inputs <= spike_conv.MOST_ROWS
        if tuple(dilation) != (1, 1) or not few or (groups != 1 and (groups != outputs or inputs != 1)):
            return
        chain = self._chain(node)
        name = chain and self._layer_name(chain[-1])
        if name:
            self.chains.add(name)
        if name in self.whole:
            self.done.update(chain)
            self.inner.update(chain[:-1])
            weight, bias, padding = self._composed(chain)
            convolution = Convolution(
                chain[-1], source, weight, bias, (1, 1), padding, 1, name, self._weight_names(chain)
            )
        else:
            bias = None if bias is None else self.constants[bias]
            names = self._weight_names([node])
            convolution = Convolution(
                node, source, self.constants[weight], bias, tuple(stride), tuple(padding), groups, name, names
            )
        self._layer_or_wait(convolution)

    def _layer_or_wait(self, convolution: Convolution) -> None:
        addition = self._addition_behind(convolution)
        if addition is None or addition in self.absorbed:
            self._layer(convolution, convolution.node, ())
        else:  # carried out when the other operand is there
            self.absorbed[addition] = convolution
            self.inner.add(convolution.node)

    def _linear(self, node: fx.Node) -> None:
        """A linear layer that reads spikes of vectors or tokens."""
        x, weight, bias = (*node.args, None)[:3]
        source = self.values.get(x)
        if not isinstance(source, Bits) or not source.tokens or not self._known(weight, bias):
            return
        if self.constants[weight].ndim != 2 or self.constants[weight].shape[1] > spike_conv.MOST_ROWS:
            return
        bias, names = None if bias is None else self.constants[bias], self._weight_names([node])
        weight = self.constants[weight][..., None, None]
        self._layer_or_wait(Convolution(node, source, weight, bias, (1, 1), (0, 0), 1, None, names))

    def _addition_behind(self, convolution: Convolution) -> fx.Node | None:
        """The addition to a map of the same size that is all that reads the convolution."""
        addition = self._only_user(convolution.node)
        if (
            addition is None
            or addition.target is not aten.add.Tensor
            or addition.kwargs
            or not self._has_our_type(addition)
        ):
            return None
        operands = [arg for arg in addition.args if isinstance(arg, fx.Node)]
        mine = [self._root(operand) is convolution.node for operand in operands]
        shape = (*convolution.source.packed.shape[:2], *shape_of(convolution.node)[-3:])
        if convolution.node.target is aten.linear.default:
            shape = tuple(shape_of(convolution.node))
        alike = all(tuple(shape_of(z)) == shape for z in (addition, *operands))
        return addition if alike and sorted(mine) == [False, True] else None

    def _chain(self, node: fx.Node) -> list[fx.Node] | None:
        """The convolutions behind this one that could be one with it: pointwise ones and one depthwise one, without bias but at the end."""
        chain, depthwise, taps = [node], 0, ()
        while True:
            last = chain[-1]
            _, weight, bias, stride, padding, dilation, groups = conv_args(last)
            size = self.constants[weight].shape[2:]
            if tuple(stride) != (1, 1) or tuple(dilation) != (1, 1) or tuple(padding) != tuple(n // 2 for n in size):
                return None
            outputs, inputs = self.constants[weight].shape[:2]
            if tuple(size) != (1, 1) if groups == 1 else (groups != outputs or inputs != 1):
                return None
            if groups != 1:
                depthwise, taps = depthwise + 1, size
            after = self._only_user(last)
            if after is None or after.target is not aten.conv2d.default or not self._known(*conv_args(after)[1:3]):
                break
            if bias is not None:
                return None
            chain.append(after)
        rows = self.constants[conv_args(chain[0])[1]].shape[1] * math.prod(taps)
        return chain if len(chain) > 1 and depthwise == 1 and rows <= spike_conv.MOST_ROWS else None

    def _composed(self, chain: list[fx.Node]) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Weight [C', C, kh, kw], bias and padding of the chain as one convolution."""
        args = [conv_args(node) for node in chain]  # x, weight, bias, stride, padding, dilation, groups
        whole = composed([(self.constants[weight], groups) for _, weight, *_, groups in args])
        padding = next((tuple(pads) for *_, pads, _, _ in reversed(args) if tuple(pads) != (0, 0)), (0, 0))
        bias = args[-1][2]
        like = self.constants[conv_args(chain[0])[1]]
        return whole.to(like.dtype).contiguous(), None if bias is None else self.constants[bias], padding

    def _layer(self, convolution: Convolution, result: fx.Node, addends) -> None:
        """A step that is the convolution, the addition of `addends` and the neurons behind that; `result` is the sum."""
        node, source, weight, bias = convolution.node, convolution.source, convolution.weight, convolution.bias
        stride, padding, groups = convolution.stride, convolution.padding, convolution.groups
        bias = None if bias is None else bias.contiguous()
        key = (*convolution.parameters, source.scale)
        if None in key or key not in self.weights:
            scaled = weight if source.scale == 1 else weight * source.scale
            self.weights[key] = spike_conv.prepare(scaled, groups, None if groups != 1 else self.precision)
        prepared = self.weights[key]
        t, b, c, h, w = source.packed.shape
        linear = node.target is aten.linear.default
        kh, kw = weight.shape[2:]
        size = spike_conv.out_size(h, kh, stride[0], padding[0]), spike_conv.out_size(w, kw, stride[1], padding[1])
        shape = (t, b, weight.shape[0], *size)
        neuron, out, fires = self._behind(result, shape, tokens=linear)
        behind = {"out": out, "neuron": neuron, "fired": fires and fires.packed, "count": fires and fires.count}
        fixed = tuple(addend if isinstance(addend, Tensor) else None for addend in addends)
        event = spike_conv.call(source.packed, prepared, bias, stride=stride, padding=padding, addends=fixed, **behind)
        event = self._step(event, addends, 0, (source, prepared, bias, out, fires))
        rest = spike_conv.call(None, None, addends=(None, *fixed), like=(shape, self.dtype), **behind)
        rest = self._step(rest, addends, 1, (out, fires))
        if fires is not None:
            self.neurons[-1].calls += [event.call, rest.call]
        room, numbers = self.room, t * b * h * w * c
        room.numel = max(room.numel, numbers)
        unpack = spike_conv.unpacked_into(source.packed, self.dtype)  # where to is set in every run
        made: list[Tensor] = []  # the weight for torch, as soon as the layer runs dense for the first time
        run_unpack = spike_conv.native.load()[0].spike_unpack

        def dense(env):
            x = room.tensor[:numbers].view(t * b, h, w, c)
            unpack.out = x.data_ptr()
            spike_conv.native.must_work(run_unpack(ctypes.byref(unpack)))
            if not made:
                made.append(prepared.dense.to(memory_format=torch.channels_last))
            if linear:
                sums = functional.linear(x, made[0][..., 0, 0], bias).movedim(3, 1)
            else:
                sums = functional.conv2d(x.movedim(3, 1), made[0], bias, stride, padding, groups=groups)
            rest(env, spike_conv.channels_last(sums.unflatten(0, (t, b))))

        operation = "linear" if linear else operation_of(weight, groups)
        layer = DrivenLayer(self._layer_name(node), operation, source, event, dense, convolution.chain)
        self.layers.append(layer)
        self._add_step(layer, convolution.chain, (out, *addends))

    def _weight_names(self, nodes: list[fx.Node]) -> tuple[str | None, ...]:
        return tuple(self.names.get(conv_args(node)[1]) for node in nodes)

    def _layer_name(self, node: fx.Node) -> str:
        name = self.names.get(conv_args(node)[1])
        return module_name(node) if name is None else name.removesuffix(".weight")

    def _step(self, call, addends, first: int, alive: tuple) -> "MapStep":
        """What carries the call out; its addends from number `first` on are these."""
        self.scratch_size = max(self.scratch_size, spike_conv.scratch_bytes(call))
        self.scratch_calls.append(call)
        made_anew = [(index, addend.index) for index, addend in enumerate(addends, first) if isinstance(addend, Slot)]
        return MapStep(call, made_anew, (alive, addends))

    def _sums(self, node: fx.Node, shape, addends) -> None:
        """A step without convolution: the addends' sum, and the neurons that read it or, for neurons, are the node."""
        if node.target is LIF:
            neuron, out, fires = self._neuron(node), None, self._bits(node, shape)
        else:
            neuron, out, fires = self._behind(node, shape, tokens=False)
        fixed = tuple(addend if isinstance(addend, Tensor) else None for addend in addends)
        call = spike_conv.call(
            None,
            None,
            addends=fixed,
            like=(shape, self.dtype),
            out=out,
            neuron=neuron,
            fired=fires and fires.packed,
            count=fires and fires.count,
        )
        step = self._step(call, addends, 0, (out, fires))
        if fires is not None:
            self.neurons[-1].calls.append(call)
        self._add_step(step, self._chain_of(node), (out, *addends))

    def _behind(self, result: fx.Node, shape, tokens: bool):
        """The neurons behind the map `result`, the buffer for its potentials if others read them, and the neurons' spikes."""
        users = self._users(result)
        lif = next((user for user in users if user.target is LIF and self._fits(user, shape, tokens)), None)
        out = None
        if lif is None or len(users) > 1:
            out = self._map(shape)
            self.values[result] = _of_map(out, shape_of(result), tokens)
            self.done.add(result)
        else:
            self.inner.add(result)
        if lif is None:
            return None, out, None
        return self._neuron(lif), out, self._bits(lif, shape)

    def _fits(self, lif: fx.Node, shape, tokens: bool) -> bool:
        alike = map_shape(lif.args[0]) == tuple(shape) and tokens == (len(shape_of(lif.args[0])) != 5)
        return alike and self._has_our_type(lif) and self._constants_known(lif)

    def _bits(self, lif: fx.Node, shape) -> Bits:
        t, b, c, h, w = shape
        words = torch.zeros(1, t, b, h, w, -(-c // 64), dtype=torch.int64)
        self.bytes += words.numel() * 8
        tokens = len(shape_of(lif.args[0])) != 5
        fires = Bits(Packed(words, c), (ctypes.c_int64 * self.threads)(), t * b * c * h * w, tokens)
        self.fired[lif] = fires
        self.done.add(lif)
        self.neurons.append(DrivenNeurons(module_name(lif), (b, c, h, w), fires))
        return fires

    def _map(self, shape) -> Tensor:
        t, b, c, h, w = shape
        size = -(-math.prod(shape) * self.dtype.itemsize // 64) * 64
        if self.arena is None:
            room = spike_conv.aligned(torch.zeros(size, dtype=torch.uint8))
        else:
            room = self.arena[next(self.places) :]
        out = room[: math.prod(shape) * self.dtype.itemsize].view(self.dtype).view(t, b, h, w, c).movedim(4, 2)
        self.maps[out.data_ptr()] = len(self.sizes)
        self.sizes.append(size)
        return out

    def _constants_known(self, lif: fx.Node) -> bool:
        """Whether the kernels can carry these neurons out: from rest, with constants that the graph has, and nobody asks for the potential."""
        _, v, tau, *_, return_v = lif.args
        return v is None and self._known(tau) and not return_v and spike_conv.native.knows(self._neuron(lif))

    def _neuron(self, lif: fx.Node) -> Dynamics:
        _, _, tau, *constants, _ = lif.args
        return Dynamics.restored((None if tau is None else self.constants[tau], *constants))

    def _lif(self, node: fx.Node) -> None:
        """Neurons that no convolution was fused with."""
        x = node.args[0]
        shape = map_shape(x)
        if len(shape) != 5 or not self._constants_known(node):
            return
        self._sums(node, shape, (self._addend(x),))

    def _addition(self, node: fx.Node) -> None:
        a, b = node.args
        if node in self.absorbed:
            convolution = self.absorbed[node]
            self._layer(convolution, node, (self._addend(b if self._root(a) is convolution.node else a),))
            return
        if (
            not isinstance(a, fx.Node)
            or not isinstance(b, fx.Node)
            or node.kwargs
            or len(shape_of(node)) != 5
            or not shape_of(a) == shape_of(b) == shape_of(node)
        ):
            return
        values = [self._value(z) for z in (a, b)]
        if all(map(self._are_map, (a, b))) and values[0].scale == values[1].scale:
            self._sum_of_spikes(node, *values)
            return
        self._sums(node, tuple(shape_of(node)), (self._addend(a), self._addend(b)))

    def _addend(self, node: fx.Node) -> Tensor | Slot:
        """The node's map as an operation may add it."""
        value = self._value(node)
        value = self._numbers(value, node) if isinstance(value, Bits) else value
        if not isinstance(value, Tensor):
            return value
        if as_map(value).data_ptr() == value.data_ptr():
            return as_map(value)
        slot, self.slots = Slot(self.slots), self.slots + 1  # in another order in memory: to be copied in every run

        def step(env):
            env[slot.index] = value

        self.views[slot.index] = self._touches([value])[0]
        self._add_step(step, None, (slot, value))
        return slot

    def _sum_of_spikes(self, node: fx.Node, a: Bits, b: Bits) -> None:
        """Whole numbers: the planes of both."""
        words = torch.cat([a.packed.words, b.packed.words])
        self.bytes += words.numel() * 8
        planes = len(a.packed.words)
        total = Bits(Packed(words, a.packed.channels), (ctypes.c_int64 * 1)(), a.numbers, scale=a.scale)

        def step(env):
            words[:planes], words[planes:] = a.packed.words, b.packed.words
            total.count[0] = sum(a.count) + sum(b.count)

        self.values[node] = total
        self._add_step(step, None)

    def _pool(self, node: fx.Node) -> None:
        x, kernel, *rest = node.args
        value = self.values.get(x)
        stride, padding, dilation, ceil = (*rest, *([], [0], [1], False)[len(rest) :])
        square = all(len({*numbers}) == 1 for numbers in (kernel, stride or kernel, padding, dilation))
        if not self._are_map(x) or not _binary(value) or not square or dilation[0] != 1 or ceil:
            return
        t, b, c, _, _ = value.packed.shape
        h, w = shape_of(node)[-2:]
        packed = Packed(torch.zeros(1, t, b, h, w, -(-c // 64), dtype=torch.int64), c)
        self.bytes += packed.words.numel() * 8
        call = spike_conv.pooled_into(value.packed, kernel[0], (stride or kernel)[0], padding[0], packed)
        library, pointer = spike_conv.native.load()[0], ctypes.pointer(call)
        bits = self.values[node] = Bits(packed, (ctypes.c_int64 * 1)(), t * b * c * h * w)

        def step(env, _alive=(call, value, packed)):
            bits.count[0] = spike_conv.native.must_work(library.spike_pool(pointer))

        self._add_step(step, None)

    def _mean_pool(self, node: fx.Node) -> None:
        """Means over windows that do not overlap: every place in the window is a plane, and a bit is worth its share."""
        x, kernel, *rest = node.args
        value = self.values.get(x)
        plain = not rest or (
            tuple(rest[0] or kernel) == tuple(kernel) and not any(map(any, rest[1:2])) and not any(rest[2:3])
        )
        if not self._are_map(x) or not plain or len({*kernel}) != 1 or len(rest) > 3 or node.kwargs:
            return
        size, before = kernel[0], value.packed.words
        h, w = shape_of(node)[-2:]
        windows = [before[..., y::size, x::size, :][:, :, :, :h, :w] for y in range(size) for x in range(size)]
        words = torch.cat(windows)
        self.bytes += words.numel() * 8
        t, b, c, _, _ = value.packed.shape
        packed = Packed(words, c)
        # the spikes of what no window covers are counted too: density decides about speed alone
        self.values[node] = Bits(packed, value.count, t * b * c * h * w, scale=value.scale / (size * size))

        def step(env):
            torch.cat(windows, out=words)

        self._add_step(step, None)

    def _attention(self, node: fx.Node) -> None:
        """Q (K^T V) in whichever order; the operands are reshaped spikes [T B h, d, N]."""
        left, right = node.args
        inner = next((z for z in (left, right) if z in self.inner), None)
        if inner is None:
            after = self._only_user(node)  # wait for the second product
            if after is None or after.target is not aten.matmul.default or self._attention_of(after, node) is None:
                return
            self.inner.add(node)
            return
        found = self._attention_of(node, inner)
        if found is None:
            return
        q, k, v = (self.values[z] for z in found)
        t, b, c, h, w = q.packed.shape
        out = self._map((t, b, c, h, w))
        heads = shape_of(node)[0] // (t * b)
        call = spike_attention.call(q.packed, k.packed, v.packed, heads, out)
        self.scratch_size = max(self.scratch_size, spike_attention.scratch_bytes(call))
        self.scratch_calls.append(call)
        run, pointer = spike_attention.load()[0].spike_attention, ctypes.pointer(call)

        def step(env, _alive=(call, q, k, v, out)):
            spike_conv.native.must_work(run(pointer))

        self._add_step(step, None, (out,))
        back = self._only_user(node, aliases=False)
        self.done.update((node, back))
        self.values[back] = out

    def _attention_of(self, node: fx.Node, inner: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node] | None:
        """The nodes of spikes q, k, v [T, B, C, H, W], if this is attention between them."""

        def spikes(z):
            if z.target is aten.reshape.default and self._are_map(z.args[0]) and len(shape_of(z.args[0])) == 5:
                bits = self.values[z.args[0]]
                t, b, c, h, w = bits.packed.shape
                if (
                    len(shape_of(z)) == 3
                    and shape_of(z)[2] == h * w
                    and shape_of(z)[0] % (t * b) == 0
                    and _binary(bits)
                ):
                    return z.args[0]
            return None

        def transposed(z):
            return spikes(z.args[0]) if z.target is aten.transpose.int and tuple(z.args[1:]) == (1, 2) else None

        left, right = node.args
        if left is inner:  # (v k^T) q
            found = spikes(right), transposed(inner.args[1]), spikes(inner.args[0])
        else:  # v (k^T q)
            found = spikes(inner.args[1]), transposed(inner.args[0]), spikes(left)
        if any(z is None for z in found) or len({shape_of(z) for z in found}) != 1:
            return None
        back = self._only_user(node, aliases=False)
        if back is None or back.target is not aten.reshape.default or shape_of(back) != shape_of(found[0]):
            return None
        return found

    def _numbers(self, bits: Bits, node: fx.Node) -> Tensor:
        """A step that makes numbers of spikes, and their buffer in the node's shape."""
        t, b, c, h, w = bits.packed.shape
        out = self._map((t, b, c, h, w))
        call = spike_conv.unpacked_into(bits.packed, out)
        run, pointer = spike_conv.native.load()[0].spike_unpack, ctypes.pointer(call)

        def step(env, _alive=(call, bits, out)):
            spike_conv.native.must_work(run(pointer))
            if bits.scale != 1:
                out.mul_(bits.scale)

        self._add_step(step, None, (out,))
        return _of_map(out, shape_of(node), bits.tokens)

    def _readable(self, node: fx.Node) -> Tensor | Slot:
        """What a step finds the node's tensor by."""
        value = self._value(node)
        return self._numbers(value, node) if isinstance(value, Bits) else value

    def _generic(self, node: fx.Node) -> Slot:
        """torch's own operation."""
        if node.target is LIF:
            self.stateless.append(module_name(node))
        values = {arg: self._readable(arg) for arg in node.all_input_nodes}
        slot, self.slots = Slot(self.slots), self.slots + 1
        target, args, kwargs = node.target, node.args, node.kwargs
        target = aten.reshape.default if target is aten.view.default else target  # maps are channels last

        def step(env):
            found = {arg: env[value.index] if isinstance(value, Slot) else value for arg, value in values.items()}
            env[slot.index] = target(*fx.map_arg(args, found.__getitem__), **fx.map_arg(kwargs, found.__getitem__))

        self.views[slot.index] = set() if target in MAKES_NEW else self._touches(values.values())[0]
        self._add_step(step, self._chain_of(node), (slot, *values.values()))
        return slot

    def _chain_of(self, node: fx.Node) -> str | None:
        """The chain whose dense convolutions this step is, or is right behind."""
        for found in (node, *(self._root(arg) for arg in node.args[:2] if isinstance(arg, fx.Node))):
            if found.target is aten.conv2d.default and found not in self.done:
                while (after := self._only_user(found)) is not None and after.target is aten.conv2d.default:
                    found = after
                return self._layer_name(found) if self._layer_name(found) in self.chains else None
        return None

    def _add_step(self, step: Callable, chain: str | None, touched=()) -> None:
        """`touched` are the values other than spikes that the step reads or writes."""
        self.steps.append(step)
        self.marks.append(chain)
        self.touched.append(self._touches(touched))

    # Who reads whom

    def _root(self, node: fx.Node) -> fx.Node:
        while node.args and passes(node, node.args[0]):
            node = node.args[0]
        return node

    def _users(self, node: fx.Node) -> list[fx.Node]:
        """Who reads the node's values, through changes of the outer axes."""
        found = []
        for user in node.users:
            if passes(user, node):
                found += self._users(user)
            elif user.target not in NOTHING:
                found.append(user)
        return found

    def _only_user(self, node: fx.Node, aliases: bool = True) -> fx.Node | None:
        users = self._users(node) if aliases else [user for user in node.users if user.target not in NOTHING]
        return users[0] if len(users) == 1 else None


def _binary(bits: Bits) -> bool:
    return len(bits.packed.words) == 1 and bits.scale == 1


def _as_sizes(bits: Bits, height: int, width: int, tokens: bool) -> Bits:
    """The same spikes with their pixels in rows of another length."""
    planes, t, b, _, _, words = bits.packed.words.shape
    packed = Packed(bits.packed.words.view(planes, t, b, height, width, words), bits.packed.channels)
    return replace(bits, packed=packed, tokens=tokens)


def _of_map(x: Tensor, shape: torch.Size, tokens: bool) -> Tensor:
    """A map in the shape that a node has: tokens [T, B, N, C], or with other outer axes."""
    return x[..., 0].movedim(2, 3) if tokens and len(shape) == 4 else x.view(shape)
