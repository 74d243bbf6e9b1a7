"""The Triton LIF kernels against the reference: on the GPU where there is one, otherwise in Triton's interpreter.

The interpreter has to be chosen before Triton is imported and would disturb torch.compile elsewhere in this process,
so without a GPU this file runs itself once more in a process of its own. What only a compiler refuses is found by
compiling the kernels for a GPU that need not be there.
"""

import importlib
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from torch import autograd
from torch.testing import assert_close

triton = pytest.importorskip("triton", reason="triton is not installed")
package = importlib.import_module("spikeformers.kernels.lif")
from spikeformers.kernels.lif import (  # noqa: E402
    SURROGATES,
    Dynamics,
    lif,
    reference,
    triton as kernels,  # noqa: E402
)
from spikeformers.kernels.lif.reference import compute_dtype  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1), (4, 2, 63), (3, 64), (2, 1025), (7, 5, 3), (9, 11), (20, 3, 17)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CASES = [(shape, torch.float32) for shape in SHAPES]
CASES += [((12, 3, 17), dtype) for dtype in DTYPES[1:]]
NEURONS = [
    {"tau": tau, "decay_input": decay_input, "reset": reset, "v_threshold": v_threshold}
    for tau, decay_input, reset, v_threshold in [
        (2.0, True, "hard", 1.0),
        (1.1, True, "soft", 0.3),
        (1.75, False, "hard", 1.0),
        (4.0, False, "soft", 0.7),
        (None, True, "hard", 1.0),
        (None, True, "soft", 0.3),
    ]
]


def both(x, v, grads, tau=2.0, alpha=4.0, decay_input=True, reset="hard", surrogate="sigmoid", v_threshold=1.0):
    """(outputs and gradients of the Triton kernels, the same of the reference on the CPU), all on the CPU."""
    constants = {
        "v_threshold": v_threshold,
        "decay_input": decay_input,
        "reset": reset,
        "surrogate": surrogate,
        "alpha": alpha,
    }
    results = []
    for device in (DEVICE, "cpu"):
        inputs = [t.detach().to(device).requires_grad_() for t in (x, v, tau) if isinstance(t, torch.Tensor)]
        x_, v_ = inputs[0], inputs[1] if v is not None else None
        tau_ = inputs[-1] if isinstance(tau, torch.Tensor) else tau
        if not results:
            out = lif(x_, v_, tau=tau_, **constants)
        else:
            out = reference.lif(x_, v_, Dynamics.of(tau_, **constants))
        gradients = autograd.grad(out, inputs, [grad.to(device) for grad in grads])
        results.append(([t.detach().cpu() for t in out], [t.cpu() for t in gradients]))
    return results


def random(shape, dtype=torch.float32):
    """Input current, initial potential and the gradients of both outputs."""
    state = compute_dtype(dtype)
    grads = torch.randn(shape).to(dtype), torch.randn(shape[1:], dtype=state)
    return (2 * torch.randn(shape, dtype=state)).to(dtype), torch.randn(shape[1:], dtype=state), grads


def tolerance(dtype, alpha=4.0):
    """For gradients: a GPU evaluates the exp and the division of the surrogate in float32 to about two ulp."""
    approximate = DEVICE == "cuda" and dtype == torch.float32
    return {} if dtype.itemsize == 2 else {"rtol": 1e-6, "atol": 1e-6 * alpha if approximate else 1e-6}


class TestKernels:
    __test__ = INTERPRETED or DEVICE == "cuda"

    @pytest.fixture(autouse=True)
    def setup(self, monkeypatch):
        """The public operation runs the Triton kernels, also on the CPU, and NaN is wherever they do not write."""
        torch.manual_seed(0)
        monkeypatch.setattr(package, "native", kernels)
        for name in ("_empty", "_empty_v"):
            original = getattr(package, name)
            monkeypatch.setattr(package, name, lambda *args, original=original: original(*args).fill_(math.nan))

    def test_live(self):
        live, sentence = kernels.load(torch.empty(0, device=DEVICE).device)
        assert live, sentence

    @pytest.mark.parametrize("neuron", NEURONS, ids=str)
    @pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
    def test_lif_matches_reference(self, shape, neuron, dtype):
        x, v0, grads = random(shape, dtype)
        for v in (None, v0):
            (got, got_grads), (want, want_grads) = both(x, v, grads, **neuron)
            assert_close(got, want, rtol=0, atol=0)
            assert_close(got_grads, want_grads, **tolerance(dtype))

    @pytest.mark.parametrize("alpha", [1.1, 25.0])
    @pytest.mark.parametrize("surrogate", SURROGATES)
    @pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
    def test_surrogate_gradients_match_reference(self, dtype, surrogate, alpha):
        x, _, grads = random((3, 700), dtype)
        (_, got), (_, want) = both(x, None, grads, surrogate=surrogate, alpha=alpha)
        exact = dtype == torch.float64  # whose alpha the reference rounds to float32
        assert_close(got, want, **({"rtol": 1e-12, "atol": 1e-12} if exact else tolerance(dtype, alpha)))

    @pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
    @pytest.mark.parametrize("decay_input", [True, False])
    @pytest.mark.parametrize("shape", [(4, 3, 65), (10, 600)], ids=str)
    def test_learnable_tau_matches_reference(self, shape, decay_input, dtype):
        x, v, grads = random(shape, dtype)
        tau = torch.tensor(1.8, dtype=compute_dtype(dtype))
        (got, got_grads), (want, want_grads) = both(x, v, grads, tau=tau, decay_input=decay_input)
        assert_close(got, want, rtol=0, atol=0)
        assert_close(got_grads[:2], want_grads[:2], **tolerance(dtype))
        assert_close(got_grads[2], want_grads[2], rtol=1e-5, atol=1e-5)

    def test_gradient_of_tau_is_deterministic(self):
        x, v, grads = random((4, 3000))
        first, second = (both(x, v, grads, tau=torch.tensor(1.8))[0] for _ in range(2))
        assert_close(first, second, rtol=0, atol=0)

    def test_float64_constants_are_not_rounded_to_float32(self):
        below = torch.tensor([[0.3 - 1e-12, 0.3]], dtype=torch.float64, device=DEVICE)
        assert lif(below, tau=None, v_threshold=0.3)[0].tolist() == [[0, 1]]
        _, v = lif(torch.ones(1, 1, dtype=torch.float64, device=DEVICE), tau=1.1, v_threshold=5.0)
        assert v.item() == 1 / 1.1

    @pytest.mark.parametrize("layout", ["expanded", "every_other_step", "channels_last", "shifted"])
    def test_lif_takes_any_memory_layout(self, layout):
        dense = 2 * torch.randn(20, 2, 6, 5, 3, device=DEVICE)
        x = {
            "expanded": dense[:1].expand(10, -1, -1, -1, -1),
            "every_other_step": dense[::2],
            "channels_last": dense[:10].flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (10, 2)),
            "shifted": dense.flatten()[1 : 1 + 1800].view(10, 2, 6, 5, 3),
        }[layout].requires_grad_()
        plain = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        grad_v = torch.randn(2, 6, 5, 3, device=DEVICE)
        for grad in (torch.randn(20, 2, 6, 5, 3, device=DEVICE)[::2], torch.randn_like(x[:1]).expand(x.shape)):
            got, want = lif(x), lif(plain)
            assert_close(got, want, rtol=0, atol=0)
            got_grad = autograd.grad(got, x, (grad, grad_v))
            assert_close(got_grad, autograd.grad(want, plain, (grad.contiguous(), grad_v)), rtol=0, atol=0)

    def test_extreme_inputs(self):
        x = torch.tensor([[math.inf, -math.inf, math.nan, 1e30, -1e30, 0.0, -0.0, 3e38]] * 3)
        for surrogate in ("sigmoid", "rectangle", "triangle"):
            (got, got_grads), (want, want_grads) = both(
                x, None, (torch.ones(3, 8), torch.zeros(8)), surrogate=surrogate
            )
            assert_close(got, want, rtol=0, atol=0, equal_nan=True)
            assert_close(got_grads, want_grads, equal_nan=True)

    # the interpreter truncates bfloat16, so there only assert_close's tolerance for that type is tested
    @pytest.mark.parametrize("dtype", [torch.float16] if INTERPRETED else [torch.float16, torch.bfloat16], ids=str)
    def test_half_precision_gradients_round_like_torch(self, dtype):
        values = torch.cat([torch.logspace(-9, 4.7, 4001), -torch.logspace(-9, 4.7, 4001), torch.zeros(1)])
        grad_s = values.to(DEVICE, dtype)[None]
        x = torch.zeros_like(grad_s).requires_grad_()
        (grad,) = autograd.grad(lif(x, tau=None, surrogate="triangle", alpha=0.75)[0], x, grad_s)
        assert_close(grad, (grad_s.float() * (0.75 * 0.25)).to(dtype), rtol=0, atol=0)

    @pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
    def test_nothing_waits_for_the_gpu(self):
        x = torch.randn(10, 3000, device=DEVICE, requires_grad=True)
        tau = torch.tensor(1.5, device=DEVICE, requires_grad=True)
        lif(x, tau=tau)[0].sum().backward()  # compiled and loaded
        torch.cuda.set_sync_debug_mode("error")
        try:
            lif(x, tau=tau)[0].sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @pytest.mark.skipif(
        DEVICE == "cpu" or torch.cuda.get_device_properties(0).total_memory < 2**35, reason="needs a GPU with 32 GB"
    )
    def test_more_than_2_to_the_31_elements(self):
        step = torch.arange(2**30 + 3, device=DEVICE, dtype=torch.int32).remainder_(7).to(torch.bfloat16)
        x = step.expand(3, -1).contiguous()
        spikes, _ = lif(x, tau=None, v_threshold=3.0, return_v=False)  # h = x, 2 x, 3 x until it fires
        assert torch.equal(spikes[2], (step == 1) | (step >= 3))


@pytest.mark.skipif(TestKernels.__test__, reason="the kernels are tested in this process")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2_000:]


class Compiler:
    """Stands in for a kernel: compiles it for an H100 with the arguments of the launch, and keeps its assembly."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.compile

    def compile(self, num_warps, enable_fp_fusion, **arguments):
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        pointers = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
        signature, constants, attributes = {}, {}, {}
        for i, parameter in enumerate(self.kernel.params):
            value = arguments[parameter.name]
            integer = isinstance(value, int) and not parameter.annotation_type
            if parameter.is_constexpr or value is None or (integer and value == 1):
                signature[parameter.name], constants[(i,)] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = pointers[value.dtype]
                attributes[(i,)] = [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = parameter.annotation_type or ("i32" if integer else "fp32")
                if isinstance(value, int) and value % 16 == 0:
                    attributes[(i,)] = [["tt.divisibility", 16]]
        self.assembly = triton.compile(
            ASTSource(self.kernel, signature, constants, attributes),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion},
        ).asm["ptx"]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter replaces the compiler")
@pytest.mark.parametrize(
    ("steps", "dtype", "tau", "constants"),
    [
        (4, torch.float32, 2.0, {}),
        (4, torch.float16, 1.5, {"decay_input": False, "reset": "soft", "surrogate": "atan"}),
        (16, torch.bfloat16, torch.tensor(1.5), {"surrogate": "triangle"}),
        (20, torch.float64, torch.tensor(1.5, dtype=torch.float64), {"decay_input": False, "reset": "soft"}),
        (7, torch.float32, None, {"surrogate": "rectangle"}),
    ],
    ids=lambda value: str(value) if isinstance(value, (int, torch.dtype)) else "",
)
def test_kernels_compile(steps, dtype, tau, constants, monkeypatch, tmp_path):
    """For a GPU that need not be here: nothing is contracted into a fused multiply-add, and accesses are wide."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_forward", Compiler(kernels._forward))
    monkeypatch.setattr(kernels, "_backward", Compiler(kernels._backward))
    x, v, (grad_s, grad_v) = random((steps, 1024), dtype)
    dynamics = Dynamics.of(tau, **constants)
    kernels.forward(x, v, dynamics, x, v)
    kernels.backward(grad_s, grad_v, x, v, dynamics, x, v, torch.empty(()) if dynamics.learnt else None)
    for kernel in (kernels._forward, kernels._backward):
        wide = re.findall(r"(?:ld|st)\.global\.(v\d)", kernel.assembly)
        assert len(wide) >= 2 * steps if steps <= 8 else wide
        if kernel is kernels._forward or dtype != torch.float64:  # the exponential in float64 is made of both
            assert "fma" not in kernel.assembly and ".ftz" not in kernel.assembly
        assert dtype != torch.bfloat16 or "cvt.rn.bf16" in kernel.assembly
        assert kernel is kernels._backward or dtype != torch.float64 or ".f32" not in kernel.assembly
        assert kernel is kernels._backward or "div.full" not in kernel.assembly  # not correctly rounded


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs everywhere")
def test_a_device_on_which_nothing_compiles_is_not_supported():
    live, sentence = kernels.load(torch.device("cpu"))
    assert not live and "reference" in sentence
    assert not kernels.supports(torch.zeros(1, 1), Dynamics())
