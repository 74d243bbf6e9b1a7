"""Event-driven convolution: against the reference on weights whose sums are exact in any order, and by hand."""

import ctypes
import random
import shutil

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from spikeformers.kernels import _library
from spikeformers.kernels.lif import Dynamics
from spikeformers.kernels.spike_conv import (
    Packed,
    aligned,
    call,
    channels_last,
    empty_map,
    native,
    pack,
    pack_signed,
    pool,
    prepare,
    reference,
    run,
    scratch_bytes,
    signed,
    spike_conv,
    status,
    unpack,
    unpacked_into,
)

CHANNELS = [1, 5, 17, 63, 64, 65, 130, 360]
PRECISIONS = [torch.float32, torch.float64, torch.bfloat16, torch.int8]
NEURONS = [
    Dynamics.of(tau, v_threshold=v_threshold, decay_input=decay_input, reset=reset)
    for tau, v_threshold, decay_input, reset in [
        (2.0, 1.0, True, "hard"),
        (2.0, 0.5, True, "soft"),
        (1.5, 1.0, True, "hard"),
        (1.5, 2.0, False, "soft"),
        (4.0, 1.0, False, "hard"),
        (1.0, 1.0, True, "soft"),
        (None, 1.0, True, "hard"),
        (None, 4.0, True, "soft"),
    ]
]

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")
needs_native = pytest.mark.skipif(native.load()[0] is None, reason="the native kernel is not built")


def spikes(*shape, density=0.3, most=1):
    """Whole numbers up to `most` [T, B, C, H, W], of which a share `density` is not 0."""
    return (torch.rand(shape) < density) * torch.randint(1, most + 1, shape)


def parts(*shape, dtype=torch.float32):
    """Multiples of 1/256 within a half, so that sums are exact in any order."""
    return torch.randint(-127, 128, shape).to(dtype) / 256


def exact_weight(outputs, inputs, kernel, precision=torch.float32):
    """A prepared weight whose numbers every precision holds exactly: 127 steps of int8 are the largest number of each channel."""
    depthwise = inputs is None
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    weight = parts(outputs, 1 if depthwise else inputs, *kernel, dtype=dtype)
    weight[:, 0, 0, 0] = 127 / 256
    prepared = prepare(weight, outputs if depthwise else 1, precision)
    assert torch.equal(prepared.dense, weight)
    return prepared


def expected(packed, weight, bias=None, *, stride=(1, 1), padding=(0, 0), addends=(), neuron=None, v=None):
    """What the reference makes of these; its sums are float64, so that they are exact as well."""
    dtype = addends[0].dtype if weight is None else weight.dense.dtype
    groups = weight.dense.shape[0] if weight is not None and weight.depthwise else 1
    dense, bias = (None if given is None else given.double() for given in (weight and weight.dense, bias))
    addends = [addend.double() for addend in addends]
    x = reference.spike_conv(packed, dense, bias, stride, padding, groups, addends).to(dtype)
    return (x, None, None) if neuron is None else (x, *reference.fire(x, v, neuron))


def assert_same(got, want):
    """The same potentials, spikes and states, bit by bit."""
    (x, fired, v), (want_x, want_fired, want_v) = got, want
    assert_close(x, want_x, rtol=0, atol=0)
    if want_fired is None:
        assert fired is None and v is None
    else:
        assert fired.channels == want_fired.channels and torch.equal(fired.words, want_fired.words)
        assert_close(v, want_v, rtol=0, atol=0)


def assert_matches_reference(packed, weight, bias=None, **options):
    assert_same(spike_conv(packed, weight, bias, **options), expected(packed, weight, bias, **options))


def layouts(x):
    """x [T, B, C, H, W], or for one of them its first step, in several memory layouts; NaN lies around it."""
    last = x.movedim(2, 4)
    t, b, h, w, c = last.shape

    def inside(*room, at):
        big = x.new_full(room, torch.nan)
        big[at] = last
        return big[at].movedim(4, 2)

    odd = x.new_full((x.numel() + 1,), torch.nan)
    odd[1:] = last.flatten()
    return {
        "channels_last": last.contiguous().movedim(4, 2),
        "contiguous": x.contiguous(),
        "some_channels": inside(t, b, h, w, c + 3, at=(..., slice(1, c + 1))),
        "some_columns": inside(t, b, h, w + 2, c, at=(..., slice(1, w + 1), slice(None))),
        "some_rows": inside(t, b, h + 2, w, c, at=(slice(None), slice(None), slice(1, h + 1))),
        "every_other_step": inside(2 * t, b, h, w, c, at=slice(0, 2 * t, 2)),
        "odd_address": odd[1:].view(t, b, h, w, c).movedim(4, 2),
        "expanded": last[:1].contiguous().movedim(4, 2).expand(t, -1, -1, -1, -1),
    }


def random_case(seed):
    """Arguments of `spike_conv`, from awkward shapes and all of its options."""
    torch.manual_seed(seed)
    choose = random.Random(seed)
    t, b, h, w = (
        choose.randint(1, 5),
        choose.randint(1, 3),
        choose.randint(1, 8),
        choose.choice([1, choose.randint(1, 8)]),
    )
    outputs, kernel = choose.choice(CHANNELS), choose.choice([(1, 1), (3, 3), (7, 7), (1, 3)])
    depthwise = choose.random() < 0.3
    inputs = outputs if depthwise else choose.choice(CHANNELS)
    precision = choose.choice(PRECISIONS)
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    packed = weight = None
    stride, padding = (1, 1), (0, 0)
    shape = (t, b, outputs, h, w)
    if choose.random() < 0.9:
        stride = choose.randint(1, 2), choose.randint(1, 2)
        padding = tuple(max(choose.randint(0, 3), (k - size + 1) // 2) for k, size in zip(kernel, (h, w), strict=True))
        density, most = choose.choice([0, 0.02, 0.2, 0.5, 1]), choose.choice([1, 1, 3])
        packed = pack(spikes(t, b, inputs, h, w, density=density, most=most))
        weight = exact_weight(outputs, None if depthwise else inputs, kernel, precision)
        shape = (
            t,
            b,
            outputs,
            *((size + 2 * p - k) // s + 1 for size, p, k, s in zip((h, w), padding, kernel, stride, strict=True)),
        )
    few = choose.randint(1 if packed is None else 0, 2)
    addends = [choose.choice(list(layouts(parts(*shape, dtype=dtype)).values())) for _ in range(few)]
    neuron = choose.choice([None, *NEURONS])
    bias = parts(outputs, dtype=dtype) if choose.random() < 0.5 else None
    v = choose.choice([None, parts(b, *shape[2:], dtype=dtype)]) if neuron else None
    options = {"stride": stride, "padding": padding, "addends": tuple(addends), "neuron": neuron, "v": v}
    return packed, weight, bias, options


@pytest.mark.parametrize("seed", range(60))
def test_random_shapes_match_reference(seed):
    packed, weight, bias, options = random_case(seed)
    assert_matches_reference(packed, weight, bias, **options)


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", range(len(CHANNELS)))
def test_awkward_channels_match_reference(case, precision):
    inputs, outputs = CHANNELS[case], CHANNELS[(3 * case + 5) % len(CHANNELS)]
    packed = pack(spikes(3, 2, inputs, 4, 3, most=2))
    options = {"padding": (1, 1), "neuron": NEURONS[case]}
    for weight in (exact_weight(outputs, inputs, (3, 3), precision), exact_weight(inputs, None, (3, 3), precision)):
        bias = parts(len(weight.dense), dtype=weight.dense.dtype)
        assert_matches_reference(packed, weight, bias, **options)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (7, 7), (1, 3)], ids=str)
@pytest.mark.parametrize("depthwise", [False, True])
def test_strides_paddings_and_small_maps_match_reference(kernel, depthwise):
    weight = exact_weight(17, None if depthwise else 5, kernel)
    for size in [(1, 1), (6, 1), (1, 2), (7, 6)]:
        packed = pack(spikes(2, 2, 17 if depthwise else 5, *size, most=2))
        for stride in (1, 2):
            for padding in range(4):
                if all(n + 2 * padding >= k for n, k in zip(size, kernel, strict=True)):
                    got = spike_conv(packed, weight, stride=stride, padding=padding, neuron=Dynamics())
                    options = {"stride": (stride, stride), "padding": (padding, padding), "neuron": Dynamics()}
                    assert_same(got, expected(packed, weight, **options))


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("density", [0, 1])
def test_no_spikes_and_nothing_but_spikes(density, precision):
    for inputs, outputs, depthwise in [(65, 20, False), (130, 65, False), (70, 70, True)]:
        packed = pack(spikes(2, 2, inputs, 5, 4, density=density))
        weight = exact_weight(outputs, None if depthwise else inputs, (3, 3), precision)
        assert packed.density == density
        assert_matches_reference(packed, weight, padding=(1, 1), neuron=Dynamics())
        assert_matches_reference(packed, weight, parts(outputs, dtype=weight.dense.dtype), padding=(1, 1))


def test_as_many_weight_rows_as_their_numbers_have_bits_for():
    """Also more spikes for one pixel than the lists of a block are meant to hold."""
    weight = exact_weight(2, 65_535, (1, 1))
    packed = pack(spikes(6, 1, 65_535, 1, 2, most=6))
    assert_matches_reference(packed, weight, neuron=Dynamics())
    weight = exact_weight(2, 7281, (3, 3), torch.int8)
    assert_matches_reference(pack(spikes(1, 1, 7281, 3, 2)), weight, padding=(1, 1))


def test_sums_by_hand():
    """One spike in a corner meets the middle tap there and its neighbours' other taps around it; biases are added everywhere."""
    x = torch.zeros(1, 1, 2, 3, 3)
    x[0, 0, 1, 0, 0] = 1
    weight = torch.arange(36.0).reshape(
        2, 2, 3, 3
    )  # input channel 1 of output channel 0: 9 .. 17; of output channel 1: 27 .. 35
    got, fired, v = spike_conv(pack(x), prepare(weight), torch.tensor([0.5, 0.0]), padding=1)
    assert got[0, 0, 0].tolist() == [[13.5, 12.5, 0.5], [10.5, 9.5, 0.5], [0.5, 0.5, 0.5]]
    assert got[0, 0, 1].tolist() == [[31, 30, 0], [28, 27, 0], [0, 0, 0]]
    assert fired is None and v is None


def test_neurons_by_hand():
    """Two inputs of weights 1 and 1/2, tau 2: x = 1, 1.5, 1.5, 0; h = 0.5, 1.0 (fires on the tie), 0.75, 0.375."""
    x = torch.tensor([[1, 0], [1, 1], [1, 1], [0, 0]])[:, None, :, None, None]
    weight = prepare(torch.tensor([[1.0, 0.5]]))
    potentials, fired, v = spike_conv(pack(x), weight, neuron=Dynamics.of(tau=2.0))
    assert potentials.flatten().tolist() == [1, 1.5, 1.5, 0]
    assert fired.shape == (4, 1, 1, 1, 1) and unpack(fired).flatten().tolist() == [0, 1, 0, 0] and v.item() == 0.375
    _, fired, v = spike_conv(
        pack(x), weight, neuron=Dynamics.of(tau=None, reset="soft")
    )  # h = 1 (fires), 1.5 (fires), 2 (fires), 1 (fires)
    assert unpack(fired).flatten().tolist() == [1, 1, 1, 1] and v.item() == 0
    _, fired, v = spike_conv(
        pack(x), weight, neuron=Dynamics(v_threshold=2.0), v=torch.full((1, 1, 1, 1), 4.0)
    )  # h = 2.5, 0.75, 1.125, ...
    assert unpack(fired).flatten().tolist() == [1, 0, 0, 0] and v.item() == 0.5625


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_whole_numbers_are_added_as_often_as_they_say(precision):
    weight = exact_weight(33, 4, (3, 3), precision)
    x = spikes(2, 1, 4, 5, 5, most=6)
    got, _, _ = spike_conv(pack(x), weight, padding=1)
    dense = weight.dense.double()
    assert_close(got[:, 0].double(), functional.conv2d(x[:, 0].double(), dense, padding=1), rtol=0, atol=0)


@pytest.mark.parametrize("outputs", [1, 16, 40, 64, 70])
@pytest.mark.parametrize("sign", [1, -1])
def test_int8_sums_do_not_overflow(outputs, sign):
    """With 3 * 9 * 300 spikes of 127 steps in each sum, and with just the 256 and 258 that fit into 16 bits and that do not."""
    for channels, kernel, most in [(300, (3, 3), 3), (256, (1, 1), 1), (258, (1, 1), 1), (512, (1, 1), 1)]:
        weight = prepare(torch.full((outputs, channels, *kernel), sign * 127 / 256), precision=torch.int8)
        got, _, _ = spike_conv(pack(torch.full((1, 1, channels, *kernel), most)), weight)
        assert got.flatten().tolist() == [sign * 127 / 256 * most * channels * kernel[0] * kernel[1]] * outputs


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neurons_match_reference(neuron, dtype):
    packed, weight = pack(spikes(5, 2, 30, 4, 4)), exact_weight(70, 30, (3, 3), dtype)
    x, bias = parts(5, 2, 70, 4, 4, dtype=dtype), parts(70, dtype=dtype)
    for v in (None, torch.randn(2, 70, 4, 4, dtype=dtype)):
        assert_matches_reference(packed, weight, bias, padding=(1, 1), addends=(x,), neuron=neuron, v=v)
        assert_matches_reference(None, None, bias, addends=(4 * x,), neuron=neuron, v=v)


@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_state_carries_a_sequence_across_calls(neuron, precision):
    """Step by step gives the bits of all steps at once, whatever the numbers: nothing depends on how many steps a call has."""
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    weight, bias = (
        prepare(0.2 * torch.randn(45, 70, 3, 3, dtype=dtype), precision=precision),
        torch.randn(45, dtype=dtype),
    )
    packed, shortcut = pack(spikes(5, 2, 70, 5, 3, most=2)), torch.randn(5, 2, 45, 5, 3, dtype=dtype)
    whole, fired, v_last = spike_conv(packed, weight, bias, padding=1, addends=(shortcut,), neuron=neuron)
    v = None
    for t in range(5):
        step = Packed(packed.words[:, t : t + 1], 70)
        x, s, v = spike_conv(step, weight, bias, padding=1, addends=(shortcut[t : t + 1],), neuron=neuron, v=v)
        assert_close(x[0], whole[t], rtol=0, atol=0)
        assert torch.equal(s.words[0, 0], fired.words[0, t])
    assert_close(v, v_last, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("depthwise", [False, True])
def test_ordinary_weights_are_close_and_spikes_equal_in_float64(kernel, depthwise):
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-5)):
        weight = torch.randn(90, 1 if depthwise else 90, kernel, kernel, dtype=dtype) / (3 if depthwise else 5 * kernel)
        bias, shortcut = torch.randn(90, dtype=dtype), torch.randn(4, 2, 90, 6, 6, dtype=dtype)
        packed, prepared = pack(spikes(4, 2, 90, 6, 6)), prepare(weight, 90 if depthwise else 1)
        padding, neuron = (kernel // 2,) * 2, Dynamics.of(1.5)
        x, fired, v = spike_conv(packed, prepared, bias, padding=padding, addends=(shortcut,), neuron=neuron)
        want = expected(packed, prepared, bias, padding=padding, addends=(shortcut,), neuron=neuron)
        assert_close(x, want[0], rtol=tolerance, atol=tolerance)
        assert 0.05 < unpack(fired).mean() < 0.95
        again = reference.fire(x, None, neuron)  # float32 sums may flip a spike, but not the kernel's own neurons
        assert torch.equal(fired.words, again[0].words) and torch.equal(v, again[1])
        if dtype == torch.float64:
            assert torch.equal(fired.words, want[1].words)
            assert_close(v, want[2], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("precision", "step"), [(torch.bfloat16, 2**-8), (torch.int8, None)], ids=str)
def test_coarse_weights_stand_for_what_they_say(precision, step):
    weight = torch.randn(50, 40, 3, 3) * torch.logspace(-3, 3, 50)[:, None, None, None]
    weight[7] = 0  # a channel that was pruned
    prepared = prepare(weight, precision=precision)
    error = (prepared.dense - weight).abs()
    if precision == torch.int8:
        assert (error <= 0.5001 * weight.abs().amax((1, 2, 3), keepdim=True) / 127).all()
        assert prepared.scale.shape == (50,)
    else:
        assert (error <= step * weight.abs()).all()
    assert error.max() > 0
    x = spikes(2, 2, 40, 6, 6, most=2)
    got, _, _ = spike_conv(pack(x), prepared, padding=1)
    want = functional.conv2d(x.flatten(0, 1).float(), prepared.dense, padding=1).unflatten(0, (2, 2))
    scale = prepared.dense.abs().amax((1, 2, 3)).clamp_min(1e-9)[:, None, None]
    assert_close(got / scale, want / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 20])
def test_weights_of_any_layout(groups):
    weight = parts(3, 3, 20 // groups, 20).permute(3, 2, 1, 0)
    packed = pack(spikes(1, 2, 20, 5, 5))
    assert_matches_reference(packed, prepare(weight, groups), padding=(1, 1))


def test_a_linear_layer_is_a_convolution_of_tokens():
    weight, bias, tokens = parts(130, 70), parts(130), spikes(2, 3, 9, 70)
    packed = pack(tokens.movedim(3, 2)[..., None])
    assert packed.shape == (2, 3, 70, 9, 1)
    x, _, _ = spike_conv(packed, prepare(weight.requires_grad_()), bias)
    assert not x.requires_grad
    assert_close(x[..., 0].movedim(2, 3), functional.linear(tokens.float(), weight.detach(), bias), rtol=0, atol=0)


LAYOUTS = list(layouts(torch.zeros(2, 1, 1, 1, 1)))


@pytest.mark.parametrize("size", [(5, 4), (5, 1), (1, 4), (1, 1)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [1, 40, 64])
def test_addends_of_any_memory_layout(layout, channels, size):
    packed, weight = pack(spikes(3, 2, 9, *size)), exact_weight(channels, 9, (1, 1))
    first, second = (
        layouts(parts(3, 2, channels, *size))[name] for name in (layout, LAYOUTS[LAYOUTS.index(layout) - 1])
    )
    bias = parts(channels + 1)[1:]
    assert_matches_reference(packed, weight, bias, addends=(first,), neuron=Dynamics())
    assert_matches_reference(packed, weight, bias, addends=(first, second))
    assert_matches_reference(None, None, addends=(second, first), neuron=Dynamics.of(None))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_states_of_any_memory_layout(layout, dtype):
    packed, weight = pack(spikes(2, 3, 9, 5, 4)), exact_weight(40, 9, (1, 1), dtype)
    v = layouts(parts(2, 3, 40, 5, 4, dtype=dtype))[layout]
    assert_matches_reference(packed, weight, neuron=Dynamics(), v=v[1])
    assert_matches_reference(packed, weight, neuron=Dynamics(), v=v.transpose(0, 1)[0, :1].expand(3, -1, -1, -1))


def test_spikes_of_any_memory_layout():
    words, weight = pack(spikes(6, 4, 70, 5, 6)).words, exact_weight(20, 70, (3, 3))
    for some in (
        words[:, ::2],
        words[:, :, 1:3],
        words[..., 1:5, :],
        words.transpose(1, 2),
        words.transpose(3, 4),
        words[:, :1].expand(-1, 3, -1, -1, -1, -1),
    ):
        packed = Packed(some, 70)
        assert_matches_reference(packed, weight, padding=(1, 1), neuron=Dynamics())
        assert torch.equal(pool(packed, 2, 2).words, pool(Packed(some.contiguous(), 70), 2, 2).words)


@needs_native
def test_results_are_channels_last():
    x, _, v = spike_conv(pack(spikes(2, 3, 20, 5, 4)), exact_weight(30, 20, (3, 3)), neuron=Dynamics())
    assert x.movedim(2, 4).is_contiguous() and v.is_contiguous(memory_format=torch.channels_last)


@needs_native
@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolution_of_signed_numbers(precision):
    x = torch.randint(-3, 4, (2, 1, 70, 5, 4)).float()
    weight, bias = parts(9, 70, 3, 3), parts(9)
    if precision == torch.float64:
        x, weight, bias = x.double(), weight.double(), bias.double()
    prepared = prepare(signed(weight), precision=precision)
    found, *_ = spike_conv(pack_signed(x, 3)[0], prepared, bias, padding=1, stride=2)
    dense = prepared.dense[:, :70]
    expected = functional.conv2d(x.flatten(0, 1), dense, bias, stride=2, padding=1)
    assert_close(found.flatten(0, 1), expected, rtol=1e-5, atol=1e-4)
    assert found.std() > 0.1


def test_a_batch_of_nothing():
    weight = exact_weight(30, 20, (3, 3))
    x, fired, v = spike_conv(pack(torch.zeros(2, 0, 20, 5, 4)), weight, padding=1, neuron=Dynamics.of(None))
    assert x.shape == fired.shape == (2, 0, 30, 5, 4) and v.shape == (0, 30, 5, 4)


def carry_out(given):
    scratch = aligned(torch.empty(scratch_bytes(given), dtype=torch.uint8))
    given.scratch = scratch.data_ptr()
    run(given)


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_count_is_the_number_of_spikes(batch, threads, set_num_threads):
    """Also with fewer blocks of pixels than threads, and without potentials and states being wanted."""
    set_num_threads(threads)
    packed, bias = pack(spikes(3, batch, 20, 4, 3)), torch.full((70,), 0.5)
    for weight in (exact_weight(70, 20, (1, 1)), exact_weight(70, None, (1, 1))):
        packed = packed if not weight.depthwise else pack(spikes(3, batch, 70, 4, 3))
        fired = Packed(torch.empty(1, 3, batch, 4, 3, 2, dtype=torch.int64), 70)
        count = (ctypes.c_int64 * threads)(*[-7] * threads)
        carry_out(call(packed, weight, bias, neuron=Dynamics(v_threshold=0.25), fired=fired, count=count))
        assert sum(count) == unpack(fired).sum() > 0
        assert torch.equal(fired.words, spike_conv(packed, weight, bias, neuron=Dynamics(v_threshold=0.25))[1].words)


@needs_native
def test_a_call_can_be_repeated_on_new_contents():
    """As a network does at every frame: the same tensors, other contents, states in place, an addend that is set later."""
    sequence, weight, bias = spikes(4, 2, 20, 5, 5), exact_weight(70, 20, (3, 3)), parts(70)
    shortcuts = parts(4, 2, 70, 3, 3)
    packed, fired = pack(sequence[:1]), Packed(torch.empty(1, 1, 2, 3, 3, 2, dtype=torch.int64), 70)
    x, v = empty_map(1, 2, 70, 3, 3), torch.zeros(2, 3, 3, 70).movedim(3, 1)
    options = {"stride": (2, 2), "padding": (1, 1), "neuron": Dynamics.of(1.5)}
    given = call(packed, weight, bias, addends=(None,), out=x, fired=fired, v=v, v_out=v, **options)
    want, want_fired, want_v = expected(pack(sequence), weight, bias, addends=(shortcuts,), **options)
    for t in range(4):
        packed.words.copy_(pack(sequence[t : t + 1]).words)
        shortcut = channels_last(shortcuts[t : t + 1])
        given.addend[0] = native.values(shortcut)
        carry_out(given)
        assert_close(x[0], want[t], rtol=0, atol=0)
        assert torch.equal(fired.words[0, 0], want_fired.words[0, t])
    assert_close(v, want_v, rtol=0, atol=0)


@needs_native
@pytest.mark.parametrize("layout", ["some_channels", "some_rows", "every_other_step", "odd_address"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_only_the_output_is_written(layout, dtype):
    """Into a part of a larger map, as for a concatenation; what lies around it stays NaN. The output may be the addend."""
    packed, weight = pack(spikes(2, 2, 20, 5, 4)), exact_weight(70, 20, (1, 1), dtype)
    shortcut = parts(2, 2, 70, 5, 4, dtype=dtype)
    out = layouts(shortcut)[layout]
    room = out.new_empty(0).set_(out.untyped_storage())
    around = int(room.isnan().sum())
    assert around
    carry_out(call(packed, weight, addends=(out,), out=out))
    assert_close(out, expected(packed, weight, addends=(shortcut,))[0], rtol=0, atol=0)
    assert int(room.isnan().sum()) == around


@needs_native
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_result_does_not_depend_on_the_number_of_threads(precision, set_num_threads):
    dtype = torch.float64 if precision == torch.float64 else torch.float32
    weight, deep = (
        prepare(0.2 * torch.randn(70, 65, 3, 3, dtype=dtype), precision=precision),
        prepare(torch.randn(65, 1, 3, 3, dtype=dtype), 65),
    )
    wide = prepare(0.2 * torch.randn(270, 65, 3, 3, dtype=dtype), precision=precision)
    packed, few = (
        pack(spikes(3, 3, 65, 9, 7, most=2)),
        pack(spikes(3, 1, 65, 4, 4)),
    )  # few pixels: threads share the channels
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        calls = ((packed, weight), (packed, deep), (few, wide), (few, weight))
        results.append([spike_conv(s, w, padding=1, neuron=Dynamics.of(1.5)) for s, w in calls])
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert_same(got, want)


@needs_native
def test_all_builds_agree(monkeypatch):
    """Every instruction set that was built and that this processor runs gives the same bits."""
    cases = [random_case(seed) for seed in range(8)]
    packed, narrow, bias = pack(spikes(3, 2, 65, 6, 5, most=2)), pack(spikes(1, 2, 90, 8, 8)), torch.randn(90)
    for precision in (torch.float32, torch.bfloat16, torch.int8):
        weight = prepare(0.2 * torch.randn(90, 65, 3, 3), precision=precision)
        cases.append((packed, weight, bias, {"padding": 1, "stride": 2, "neuron": Dynamics.of(1.5)}))
    cases.append(
        (packed, prepare(0.2 * torch.randn(90, 65, 3, 3).double()), None, {"padding": 1, "neuron": Dynamics.of(1.5)})
    )
    cases.append((narrow, prepare(torch.randn(90, 1, 3, 3), 90), bias, {"padding": 1, "neuron": Dynamics.of(1.5)}))
    want = [spike_conv(packed, weight, bias, **options) for packed, weight, bias, options in cases]
    want_pool, numbers, want_numbers = pool(narrow, 3, 2, 1), empty_map(3, 2, 65, 6, 5), unpack(packed)
    capability = torch.backends.cpu.get_cpu_capability()
    for build in _library._BUILDS.get(capability, ("baseline",)):
        monkeypatch.setattr(_library, "_BUILDS", {capability: (build,)})
        native.load.cache_clear()
        if native.load()[0] is not None:
            assert native.load()[1] == f"build {build}"
            for (packed_, weight, bias_, options), result in zip(cases, want, strict=True):
                assert_same(spike_conv(packed_, weight, bias_, **options), result)
            assert torch.equal(pool(narrow, 3, 2, 1).words, want_pool.words)
            native.load()[0].spike_unpack(ctypes.byref(unpacked_into(packed, numbers.zero_())))
            assert torch.equal(numbers, want_numbers)
    monkeypatch.undo()
    native.load.cache_clear()


@pytest.mark.parametrize("layout", ["channels_last", "contiguous", "some_channels", "some_columns", "expanded"])
def test_pack_takes_any_memory_layout(layout):
    x = layouts(spikes(2, 3, 65, 3, 2, most=2).float())[layout].requires_grad_()
    assert_close(unpack(pack(x)), x.detach(), rtol=0, atol=0)


BINARY, WEIGHT = pack(torch.ones(1, 1, 2, 3, 3)), prepare(torch.ones(4, 2, 3, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spikes": None}, "without spikes there is no convolution"),
        ({"spikes": None, "weight": None}, "give addends"),
        ({"spikes": None, "weight": None, "addends": (torch.ones(1, 4, 1, 1),)}, r"\[T, B, C, H, W\].*\(1, 4, 1, 1\)"),
        (
            {"spikes": None, "weight": None, "addends": (torch.ones(1, 1, 4, 1, 1).half(),)},
            "float32 or float64.*float16",
        ),
        ({"weight": None}, "spikes need a weight"),
        ({"weight": prepare(torch.ones(4, 3, 3, 3))}, r"2 channels .* \(4, 3, 3, 3\) takes 3"),
        ({"weight": prepare(torch.ones(3, 1, 3, 3), 3)}, r"2 channels .* \(3, 1, 3, 3\) takes 3"),
        (
            {"weight": prepare(torch.ones(4, 2, 5, 5)), "padding": (0, 1)},
            r"3 x 3 is too small for a kernel of 5 x 5 with padding \(0, 1\)",
        ),
        ({"addends": (torch.ones(1, 1, 4, 1, 1),) * 3}, "at most two addends"),
        ({"addends": (torch.ones(1, 1, 4, 2, 1),)}, r"\(1, 1, 4, 2, 1\) of torch.float32; expected \(1, 1, 4, 1, 1\)"),
        ({"addends": (torch.ones(1, 1, 4, 1, 1).double(),)}, "float64; expected .* of torch.float32"),
        ({"bias": torch.ones(3)}, r"bias is \(3,\) of torch.float32; expected \(4,\)"),
        ({"bias": torch.ones(4).double()}, "bias is .* of torch.float64; expected .* of torch.float32"),
        ({"neuron": Dynamics(), "v": torch.ones(4, 1, 1)}, r"v is \(4, 1, 1\) .* = \(1, 4, 1, 1\) of torch.float32"),
        ({"neuron": Dynamics(), "v": torch.ones(1, 4, 1, 1).double()}, "v is .* of torch.float64"),
    ],
)
def test_errors_say_what_was_given_and_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        spike_conv(**{"spikes": BINARY, "weight": WEIGHT, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": torch.ones(4, 2, 3)}, r"\[C', C, kh, kw\] .* \(4, 2, 3\)"),
        ({"weight": torch.ones(4, 2, 3, 3).half()}, "float32 or float64.*float16"),
        ({"groups": 2}, r"2 groups of a weight \(4, 2, 3, 3\)"),
        ({"weight": torch.ones(4, 1, 3, 3), "groups": 2}, "one for every channel"),
        ({"weight": torch.ones(1, 65_536)}, "has 65536 inputs for each output; at most 65535"),
        ({"precision": torch.float64}, "precision must be .* not torch.float64"),
        ({"precision": torch.float16}, "precision must be .* not torch.float16"),
        ({"weight": torch.ones(4, 2, 3, 3).double(), "precision": torch.int8}, "float64 for float64 ones"),
    ],
)
def test_errors_of_weights_say_what_was_given_and_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(**{"weight": torch.ones(4, 2, 3, 3), **arguments})


def test_status_names_every_implementation():
    rows = status()
    assert [row[0] for row in rows] == ["reference", "native"] and rows[0][1]
    assert all(isinstance(live, bool) and sentence for _, live, sentence in rows)


def test_reference_runs_where_the_native_kernel_is_missing(monkeypatch):
    cases = [random_case(seed) for seed in range(40)]
    binary = pack(spikes(2, 2, 70, 6, 5))
    want = (
        [spike_conv(packed, weight, bias, **options) for packed, weight, bias, options in cases],
        pool(binary, 3, 2, 1),
    )
    monkeypatch.setattr(native, "load", lambda: (None, "not built"))
    assert ("native", False, "not built") in status()
    for (packed, weight, bias, options), result in zip(cases, want[0], strict=True):
        assert_same(spike_conv(packed, weight, bias, **options), result)
    assert torch.equal(pool(binary, 3, 2, 1).words, want[1].words)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, hence no native kernel")
def test_native_kernel_is_built_where_there_is_a_compiler():
    assert native.load()[0] is not None, native.load()[1]
