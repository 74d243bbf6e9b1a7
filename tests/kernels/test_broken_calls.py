"""Whatever the exported kernels are given, they answer or refuse it in Python: under sanitizers (test_sanitizers.py) nothing is found."""

import ctypes
import dataclasses
import random

import pytest
import torch

from spikeformers.kernels import lif as lif_module, spike_attention as attention, spike_conv as conv
from spikeformers.kernels.lif import Dynamics
from spikeformers.kernels.spike_conv import (
    Packed,
    Weight,
    native,
    pack,
    pack_signed,
    pool,
    prepare,
    spike_conv,
    unpack,
)

CALLS = 40  # of each kind for each seed
REFUSALS = (
    ValueError,
    TypeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    AttributeError,
    IndexError,
    ZeroDivisionError,
    ctypes.ArgumentError,
)
NUMBERS = [-(2**63), -(2**31) - 1, -65, -1, 0, 1, 2, 3, 7, 64, 65, 2**16, 2**31, 2**62, 2**63 - 1, 1.5, "2", None]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
]
HUGE = [-(2**63), -(2**31), -65, -1, 2**61, 2**62, 2**63 - 1]

needs_native = pytest.mark.skipif(
    native.load()[0] is None or attention.load()[0] is None, reason="the native kernels are not built"
)


def seeds(quick, slow):
    return [*range(quick), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(quick, slow))]


def broken(choose, x):
    """The tensor with another shape, type or memory; itself where torch does not do that to it."""
    try:
        return _broken(choose, x)
    except RuntimeError:
        return x


def _broken(choose, x):
    match choose.randrange(12):
        case 0:
            return x.to(choose.choice(DTYPES))
        case 1:
            return x[..., : choose.randrange(x.shape[-1] + 1)] if x.ndim else x[None]
        case 2:
            return x[: choose.randrange(len(x) + 1)] if x.ndim else x
        case 3:
            return x.flatten()
        case 4:
            return x[None]
        case 5:
            return x.flatten()[:1].expand(x.shape) if x.numel() else x  # one number for all
        case 6:
            return x.transpose(choose.randrange(x.ndim), choose.randrange(x.ndim)) if x.ndim else x
        case 7:
            return x.repeat_interleave(2, -1)[..., ::2] if x.ndim else x
        case 8:
            return x.clone().fill_(-1) if x.dtype != torch.bool else ~x
        case 9:
            room = torch.zeros(x.numel() + 1, dtype=x.dtype)  # from an odd address
            return room[1:].view(x.shape).copy_(x)
        case 10:
            return x.to("meta")
        case _:
            return x.as_strided(x.shape, [choose.choice([0, 1, 2]) for _ in x.shape])


def forged(kind, **attributes):
    """An object of a frozen class that its own checks have not seen."""
    made = object.__new__(kind)
    for name, value in attributes.items():
        object.__setattr__(made, name, value)
    return made


def broken_packed(choose, packed):
    words, channels = packed.words, packed.channels
    if choose.random() < 0.6:
        words = broken(choose, words)
    if choose.random() < 0.5:
        channels = choose.choice([channels - 1, channels + 1, channels + 64, *NUMBERS])
    make = choose.choice([Packed, lambda words, channels: forged(Packed, words=words, channels=channels)])
    return make(words, channels)


def broken_weight(choose, weight):
    parts = {field.name: getattr(weight, field.name) for field in dataclasses.fields(Weight)}
    match choose.randrange(5):
        case 0:
            parts["tiles"] = broken(choose, weight.tiles)
        case 1:
            parts["shape"] = tuple(choose.choice([n, n + 1, 2 * n, *NUMBERS]) for n in weight.shape)[
                : choose.choice([4, 4, 4, 3])
            ]
        case 2:
            parts["kind"] = choose.randint(-1, 6)
        case 3:
            parts["stored"] = choose.choice(DTYPES)
        case _:
            parts["dtype"], parts["scale"] = choose.choice(DTYPES), choose.choice([None, torch.zeros(1), weight.scale])
    return Weight(**parts)


def made(choose):
    """Arguments of `spike_conv` that fit."""
    t, b, c, h, w = (
        choose.randint(1, 3),
        choose.randint(1, 2),
        choose.choice([1, 5, 64, 65]),
        choose.randint(1, 5),
        choose.randint(1, 5),
    )
    dtype, depthwise = choose.choice([torch.float32, torch.float64]), choose.random() < 0.3
    kernel, outputs = choose.choice([1, 3]), c if depthwise else choose.choice([1, 17, 64, 70])
    precision = choose.choice([None, torch.bfloat16, torch.int8]) if dtype == torch.float32 else None
    weight = prepare(
        torch.randn(outputs, 1 if depthwise else c, kernel, kernel, dtype=dtype),
        c if depthwise else 1,
        None if depthwise else precision,
    )
    spikes = pack((torch.rand(t, b, c, h, w) < 0.5) * torch.randint(1, 3, (t, b, c, h, w)))
    arguments = {
        "spikes": spikes,
        "weight": weight,
        "bias": torch.randn(outputs, dtype=dtype),
        "stride": (1, 1),
        "padding": (kernel // 2, kernel // 2),
    }
    arguments["addends"] = (torch.randn(t, b, outputs, h, w, dtype=dtype),)
    return arguments | {"neuron": Dynamics(), "v": torch.randn(b, outputs, h, w, dtype=dtype)}


def mutated(choose, arguments):
    changed = dict(arguments)
    for name in choose.sample(list(changed), choose.randint(1, 3)):
        value = changed[name]
        if isinstance(value, Packed):
            changed[name] = broken_packed(choose, value)
        elif isinstance(value, Weight):
            changed[name] = broken_weight(choose, value)
        elif isinstance(value, torch.Tensor):
            changed[name] = choose.choice([broken(choose, value), None])
        elif name == "addends":
            changed[name] = tuple(broken(choose, value[0]) for _ in range(choose.randrange(4)))
        elif isinstance(value, Dynamics):
            changed[name] = forged(
                Dynamics,
                integration=choose.choice(["leaky", "perfect"]),
                tau=choose.choice([0, -1, 1e300, float("nan")]),
                v_threshold=choose.choice([-1.0, 0.0, 1.0]),
                reset="hard",
            )
        elif isinstance(value, tuple):
            changed[name] = choose.choice(
                [choose.choice(NUMBERS), tuple(choose.choice(NUMBERS) for _ in range(choose.randint(1, 3)))]
            )
    return changed


def attempt(function, *args, **kwargs):
    """1 if the call was refused."""
    try:
        function(*args, **kwargs)
    except REFUSALS:
        return 1
    return 0


@needs_native
@pytest.mark.parametrize("seed", seeds(3, 60))
def test_spike_conv(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    refused = 0
    for _ in range(CALLS):
        arguments = made(choose)
        assert not attempt(lambda arguments: spike_conv(**arguments), arguments)
        refused += attempt(lambda arguments: spike_conv(**mutated(choose, arguments)), arguments)
    assert refused > CALLS / 4


def prepared(arguments, choose):
    """`call`, and what it carries out, on memory that fits and is then changed."""
    shape = (*arguments["spikes"].shape[:2], arguments["weight"].shape[0], *arguments["spikes"].shape[3:])
    t, b, c, h, w = shape
    dtype = arguments["weight"].dtype
    more = {"out": conv.empty_map(*shape, dtype=dtype), "v_out": conv.empty_map(1, b, c, h, w, dtype=dtype)[0]}
    more["fired"] = Packed(torch.zeros(1, t, b, h, w, -(-c // 64), dtype=torch.int64), c)
    arguments = {name: value for name, value in arguments.items()} | more
    arguments["addends"] = tuple(conv.channels_last(x) for x in arguments["addends"])
    arguments["v"] = conv.channels_last(arguments["v"][None])[0]
    changed = mutated(choose, arguments)
    given = conv.call(**changed)
    scratch = conv.aligned_room(conv.scratch_bytes(given))
    given.scratch = scratch.data_ptr()
    conv.run(given)


@needs_native
@pytest.mark.parametrize("seed", seeds(3, 60))
def test_prepared_calls(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    assert sum(attempt(prepared, made(choose), choose) for _ in range(CALLS)) > CALLS / 4


def pooled(choose, packed):
    return pool(packed, *(choose.choice([1, 2, 3, *NUMBERS]) for _ in range(3)))


def unpacked(choose, packed):
    out = conv.empty_map(*packed.shape, dtype=torch.float32) if choose.random() < 0.5 else torch.zeros(3, 3)
    call = conv.unpacked_into(packed, broken(choose, out) if choose.random() < 0.5 else out)
    native.must_work(native.load()[0].spike_unpack(ctypes.byref(call)))


@needs_native
@pytest.mark.parametrize("seed", seeds(3, 60))
def test_pooling_packing_and_unpacking(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    for _ in range(CALLS):
        packed = pack(
            torch.rand(
                choose.randint(1, 3), 1, choose.choice([1, 63, 64, 65]), choose.randint(1, 5), choose.randint(1, 5)
            )
            < 0.5
        )
        attempt(lambda packed: pooled(choose, choose.choice([packed, broken_packed(choose, packed)])), packed)
        attempt(lambda packed: unpacked(choose, choose.choice([packed, broken_packed(choose, packed)])), packed)
        attempt(lambda packed: unpack(broken_packed(choose, packed)), packed)
        x = torch.randn(2, 1, choose.choice([1, 64, 65]), 2, 3).round()
        attempt(lambda x: pack_signed(broken(choose, x), choose.choice([1, 2, *NUMBERS])), x)
        attempt(lambda x: pack(broken(choose, x)), x.abs())


@needs_native
@pytest.mark.parametrize("seed", seeds(3, 60))
def test_spike_attention(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    refused = 0
    for _ in range(CALLS):
        heads = choose.choice([1, 2, 4])
        shape = choose.randint(1, 2), 1, heads * choose.choice([1, 5, 16, 65]), choose.randint(1, 9), 1
        qkv = [pack(torch.rand(shape) < 0.3) for _ in range(3)]
        assert not attempt(attention.spike_attention, *qkv, heads)

        def wrong(qkv=qkv, heads=heads, shape=shape):
            some = [broken_packed(choose, z) if choose.random() < 0.4 else z for z in qkv]
            number = choose.choice([heads, heads, *NUMBERS])
            if choose.random() < 0.5:
                return attention.spike_attention(*some, number, choose.choice(DTYPES))
            out = conv.empty_map(*shape)
            given = attention.call(*some, number, broken(choose, out) if choose.random() < 0.5 else out)
            scratch = conv.aligned_room(attention.scratch_bytes(given))
            given.scratch = scratch.data_ptr()
            return attention.run(given)

        refused += attempt(wrong)
    assert refused > CALLS / 4


@pytest.mark.parametrize("seed", seeds(3, 60))
def test_lif(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    refused = 0
    for _ in range(CALLS):
        shape = choose.choice([(1, 3), (4, 2, 33), (5, 1, 3, 2, 2), (2, 600)])
        dtype = choose.choice([torch.float32, torch.float64, torch.bfloat16, torch.float16])
        x, v = torch.randn(shape).to(dtype), torch.randn(shape[1:])
        tau = choose.choice([None, torch.tensor(2.0), torch.tensor(1.5, dtype=torch.float64)])
        rest = [2.0, choose.randrange(3), 1.0, choose.random() < 0.5, choose.randrange(4), 4.0]
        tensors = {"x": x, "v": v, "tau": tau}
        for name in choose.sample(list(tensors), choose.randint(0, 2)):
            tensors[name] = broken(choose, tensors[name]) if tensors[name] is not None else None
        if choose.random() < 0.3:
            rest[choose.choice([1, 4])] = choose.choice([-1, 3, 4, 99, 2**40])
        if choose.random() < 0.3:
            rest[choose.choice([0, 2, 5])] = choose.choice([0.0, -1.0, float("nan"), float("inf"), 1e300])
        refused += attempt(torch.ops.spikeformers.lif, *tensors.values(), *rest, choose.random() < 0.5)
        grads = [torch.randn(shape).to(dtype), choose.choice([None, torch.randn(shape[1:])])]
        grads = [broken(choose, g) if g is not None and choose.random() < 0.4 else g for g in grads]
        refused += attempt(torch.ops.spikeformers.lif_backward, *grads, *tensors.values(), *rest)
    assert refused > CALLS / 4


def fields(call, names):
    return [name for name, kind in call._fields_ if name in names and kind in (ctypes.c_int64, ctypes.c_int32)]


@needs_native
@pytest.mark.parametrize("seed", seeds(2, 40))
def test_native_functions_refuse_sizes_that_are_none(seed):
    """Of the C functions themselves: numbers that no arrays could have, kinds that do not exist, addresses that are none."""
    choose = random.Random(seed)
    library, whole = native.load()[0], attention.load()[0]
    words, out = torch.zeros(1, 2, 1, 3, 3, 2, dtype=torch.int64), conv.empty_map(2, 1, 70, 3, 3)
    packed, weight = Packed(words, 70), prepare(torch.randn(70, 70, 3, 3))
    scratch = conv.aligned_room(1 << 22)
    for _ in range(CALLS):
        given = conv.call(packed, weight, padding=(1, 1), out=out, neuron=Dynamics(), fired=Packed(words.clone(), 70))
        given.scratch = scratch.data_ptr()
        assert conv.scratch_bytes(given) < 1 << 22
        sizes = "planes steps batch height width channels in_words out_height out_width out_channels out_words kernel_height kernel_width stride_height stride_width padding_height padding_width threads dtype weights"  # noqa: E501
        name = choose.choice(sizes.split())
        wrong = [-(2**31), -65, -1, 9, 77] if name in ("threads", "dtype", "weights") else HUGE
        setattr(given, name, choose.choice([n for n in wrong if name != "threads" or n < 1]))
        assert library.spike_map(ctypes.byref(given)) == -1 and library.spike_map_scratch(ctypes.byref(given)) == -1, (
            name
        )

        bits = conv.unpacked_into(packed, out)
        name = choose.choice(["planes", "maps", "height", "width", "channels", "words", "threads", "dtype"])
        setattr(
            bits,
            name,
            choose.choice([-(2**31), -65, -1, 0] if name == "threads" else [-1, 9] if name == "dtype" else HUGE),
        )
        assert library.spike_unpack(ctypes.byref(bits)) == -1 == library.spike_pool(ctypes.byref(bits)), name
        assert library.spike_pack(ctypes.byref(bits), out.data_ptr(), words.data_ptr()) == -1

        given = attention.call(packed, packed, packed, 2, out)
        given.scratch = scratch.data_ptr()
        name = choose.choice(["maps", "tokens", "channels", "words", "heads", "threads", "dtype"])
        setattr(
            given,
            name,
            choose.choice([-(2**31), -65, -1, 0] if name == "threads" else [-1, 9] if name == "dtype" else HUGE),
        )
        assert whole.spike_attention(ctypes.byref(given)) == -1 == whole.spike_attention_scratch(ctypes.byref(given)), (
            name
        )

        x = torch.zeros(3, 40)
        call = lif_module.native._call(x, None, Dynamics(), out=torch.zeros(3, 40), grad_s=x)
        name = choose.choice(["steps", "n", "integration", "soft_reset", "surrogate", "dtype", "threads", "x", "out"])
        setattr(
            call,
            name,
            None
            if name in ("x", "out")
            else choose.choice(HUGE if name in ("steps", "n") else [-(2**31), -1, *[0] * (name == "threads")]),
        )
        lif_library = lif_module.native.load()[0]
        if name in ("steps", "n") and getattr(call, name) > 0:
            continue  # the other number is small: such arrays could be
        assert lif_library.lif_forward(ctypes.byref(call)) == 2 == lif_library.lif_backward(ctypes.byref(call)), name
    for function in (library.spike_map, library.spike_unpack, library.spike_pool, whole.spike_attention):
        assert function(None) == -1


@needs_native
def test_bits_behind_the_last_channel_are_no_spikes():
    torch.manual_seed(0)
    for channels in (1, 5, 63, 64, 65, 127):
        spikes = pack(torch.rand(2, 1, channels, 5, 6) < 0.3)
        words = spikes.words.clone()
        words[..., -1] |= -1 << channels % 64 if channels % 64 else 0
        stray, weight = Packed(words, channels), prepare(torch.randn(7, channels, 3, 3, dtype=torch.float64))
        for layer in (weight, prepare(torch.randn(channels, 1, 3, 3, dtype=torch.float64), channels)):
            assert torch.equal(spike_conv(stray, layer)[0], spike_conv(spikes, layer)[0])
        assert torch.equal(pool(stray, 2, 2).words, pool(spikes, 2, 2).words)
        assert torch.equal(unpack(stray), unpack(spikes))
        assert torch.equal(
            attention.spike_attention(stray, stray, stray, 1), attention.spike_attention(spikes, spikes, spikes, 1)
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": torch.zeros(1)},
        {"shape": (17, 5, 3, 3)},
        {"kind": 9},
        {"stored": torch.int8},
        {"tiles": torch.zeros(8, dtype=torch.uint8)},
        {"dtype": torch.float64},
    ],
    ids=str,
)
def test_weights_that_prepare_did_not_make_are_refused(changes):
    spikes, weight = pack(torch.ones(1, 1, 5, 3, 3)), prepare(torch.randn(3, 5, 3, 3))
    with pytest.raises(ValueError, match="not made by prepare"):
        spike_conv(spikes, dataclasses.replace(weight, **changes))
