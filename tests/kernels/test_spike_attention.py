"""Attention on bits: the reference's counts exactly, for heads and tokens that do not fill words, and by hand."""

import random
import shutil

import pytest
import torch
from torch.testing import assert_close

from spikeformers.kernels import _library, spike_attention as package
from spikeformers.kernels.spike_attention import call, reference, run, scratch_bytes, spike_attention, status
from spikeformers.kernels.spike_conv import Packed, aligned, empty_map, pack, unpack

HEAD_SIZES = [1, 16, 32, 45, 64, 100]
SIZES = {1: (1, 1), 63: (9, 7), 64: (64, 1), 65: (5, 13), 196: (14, 14)}

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")
needs_native = pytest.mark.skipif(package.load()[0] is None, reason="the native kernel is not built")


def spikes(*shape, density=0.4):
    return pack(torch.rand(shape) < density)


def three(*shape, densities=(0.4, 0.3, 0.5)):
    """Queries, keys and values."""
    return [spikes(*shape, density=density) for density in densities]


def assert_matches_reference(q, k, v, num_heads, dtype=torch.float32):
    got = spike_attention(q, k, v, num_heads, dtype)
    assert_close(got, reference.spike_attention(q, k, v, num_heads, dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("tokens", SIZES)
@pytest.mark.parametrize("head_size", HEAD_SIZES)
def test_counts_match_reference(head_size, tokens, dtype):
    """Heads begin anywhere in a word of 64 channels."""
    for heads in (1, 3):
        assert_matches_reference(*three(2, 2, heads * head_size, *SIZES[tokens]), heads, dtype)


def test_heads_of_every_size_match_reference():
    """However many bits of a head's last word are in the next one."""
    for head_size in range(1, 131):
        assert_matches_reference(*three(1, 1, 3 * head_size, 3, 2), 3)


@pytest.mark.parametrize("seed", range(20))
def test_random_shapes_match_reference(seed):
    torch.manual_seed(seed)
    choose = random.Random(seed)
    heads, head_size = choose.randint(1, 9), choose.randint(1, 140)
    shape = choose.randint(1, 4), choose.randint(1, 3), heads * head_size, choose.randint(1, 12), choose.randint(1, 12)
    densities = [choose.choice([0, 0.05, 0.5, 1]) for _ in range(3)]
    assert_matches_reference(*three(*shape, densities=densities), heads, choose.choice([torch.float32, torch.float64]))


def test_counts_by_hand():
    """Two heads of two channels, two tokens: K^T V of the first is [[1, 2], [0, 1]], of the second zero."""
    q, k, v = torch.zeros(3, 1, 1, 4, 2, 1)
    q[0, 0, :, 0, 0] = torch.tensor([1.0, 1, 1, 1])
    q[0, 0, :, 1, 0] = torch.tensor([0.0, 1, 0, 0])
    k[0, 0, :, 0, 0] = torch.tensor([1.0, 0, 0, 1])
    k[0, 0, :, 1, 0] = torch.tensor([1.0, 1, 0, 0])
    v[0, 0, :, 0, 0] = torch.tensor([1.0, 1, 0, 0])
    v[0, 0, :, 1, 0] = torch.tensor([0.0, 1, 0, 1])
    counts = spike_attention(pack(q), pack(k), pack(v), 2)
    assert counts[0, 0, :, :, 0].tolist() == [[1, 0], [3, 1], [0, 0], [0, 0]]


def test_counts_are_paths_from_queries_over_keys_to_values():
    bits = three(2, 3, 90, 7, 5)
    q, k, v = (unpack(z).unflatten(2, (2, 45)).flatten(4) for z in bits)
    want = torch.einsum("tbhcn, tbhcm, tbhem -> tbhen", q, k, v).reshape(2, 3, 90, 7, 5)
    assert_close(spike_attention(*bits, 2), want, rtol=0, atol=0)


@needs_native
def test_counts_are_channels_last():
    assert spike_attention(*three(2, 3, 20, 5, 4), 2).movedim(2, 4).is_contiguous()


@pytest.mark.parametrize("head_size", HEAD_SIZES)
def test_no_spikes_and_nothing_but_spikes(head_size):
    for tokens, size in SIZES.items():
        ones, none = (spikes(1, 2, 2 * head_size, *size, density=density) for density in (1, 0))
        assert (spike_attention(ones, ones, ones, 2) == head_size * tokens).all()
        for bits in ([none, ones, ones], [ones, none, ones], [ones, ones, none], [none, none, none]):
            assert not spike_attention(*bits, 2).any()


def test_spikes_of_any_memory_layout():
    q, k, v = three(4, 4, 70, 6, 6)
    for place in (
        slice(None, None, 2),
        (slice(None), slice(1, 3)),
        (..., slice(1, 5), slice(None)),
        (..., slice(2, 5), slice(None), slice(None)),
    ):
        some = [Packed(z.words[0][place][None], 70) for z in (q, k, v)]
        assert_matches_reference(*some, 2)
    assert_matches_reference(*(Packed(z.words.transpose(3, 4), 70) for z in (q, k, v)), 2)


def test_a_batch_of_nothing():
    nothing = pack(torch.zeros(2, 0, 20, 5, 4))
    assert spike_attention(nothing, nothing, nothing, 2).shape == (2, 0, 20, 5, 4)


@needs_native
def test_a_call_can_be_repeated_on_new_contents():
    """As a network does at every frame, with whatever other layers left in the scratch memory."""
    q, k, v = three(2, 2, 90, 5, 5)
    out = empty_map(2, 2, 90, 5, 5)
    given = call(q, k, v, 2, out)
    scratch = aligned(torch.empty(scratch_bytes(given), dtype=torch.uint8))
    given.scratch = scratch.data_ptr()
    for densities in ((0.4, 0.3, 0.5), (1, 1, 1), (0, 1, 1), (0.1, 0.1, 0.1)):
        for z, new in zip((q, k, v), three(2, 2, 90, 5, 5, densities=densities), strict=True):
            z.words.copy_(new.words)
        scratch.random_()
        run(given)
        assert_close(out, reference.spike_attention(q, k, v, 2, torch.float32), rtol=0, atol=0)


@pytest.mark.parametrize("heads", [1, 4])
def test_result_does_not_depend_on_the_number_of_threads(heads, set_num_threads):
    bits = three(2, 1, 140, 9, 9)
    for threads in (1, 2, 3, 5):
        set_num_threads(threads)
        assert_matches_reference(*bits, heads)


@needs_native
def test_all_builds_agree(monkeypatch):
    """Every instruction set that was built and that this processor runs gives the same counts."""
    cases = [
        (three(2, 2, 3 * head_size, *SIZES[65]), dtype)
        for head_size in HEAD_SIZES
        for dtype in (torch.float32, torch.float64)
    ]
    capability = torch.backends.cpu.get_cpu_capability()
    for build in _library._BUILDS.get(capability, ("baseline",)):
        monkeypatch.setattr(_library, "_BUILDS", {capability: (build,)})
        package.load.cache_clear()
        if package.load()[0] is not None:
            assert package.load()[1] == f"build {build}"
            for bits, dtype in cases:
                assert_matches_reference(*bits, 3, dtype)
    monkeypatch.undo()
    package.load.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 4}, "num_heads=4 does not divide the 6 channels"),
        ({"num_heads": 0}, "num_heads=0 does not divide"),
        ({"k": spikes(1, 2, 6, 3, 2)}, r"one shape, not \(1, 2, 6, 2, 3\), \(1, 2, 6, 3, 2\)"),
        ({"v": spikes(1, 2, 3, 2, 3)}, r"one shape, not .* \(1, 2, 3, 2, 3\)"),
        ({"q": pack(torch.full((1, 2, 6, 2, 3), 2))}, r"binary spikes .* in \[2, 1, 1\] planes"),
    ],
)
def test_errors_say_what_was_given_and_expected(arguments, message):
    bits = dict(zip("qkv", three(1, 2, 6, 2, 3), strict=True))
    with pytest.raises(ValueError, match=message):
        spike_attention(**{**bits, "num_heads": 2, **arguments})


def test_status_names_every_implementation():
    rows = status()
    assert [row[0] for row in rows] == ["reference", "native"] and rows[0][1]
    assert all(isinstance(live, bool) and sentence for _, live, sentence in rows)


def test_reference_runs_where_the_native_kernel_is_missing(monkeypatch):
    bits = three(2, 2, 90, 6, 5)
    want = spike_attention(*bits, 2), spike_attention(*bits, 3, torch.float64)
    monkeypatch.setattr(package, "load", lambda: (None, "not built"))
    assert ("native", False, "not built") in status()
    assert_close((spike_attention(*bits, 2), spike_attention(*bits, 3, torch.float64)), want, rtol=0, atol=0)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, hence no native kernel")
def test_native_kernel_is_built_where_there_is_a_compiler():
    assert package.load()[0] is not None, package.load()[1]
