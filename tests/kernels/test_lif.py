"""The LIF kernel: every implementation against the reference on awkward shapes, and the dynamics by hand."""

import math
import shutil

import pytest
import torch
from torch import autograd
from torch.testing import assert_close

from spikeformers.kernels import _library
from spikeformers.kernels.lif import SURROGATES, Dynamics, decompositions, lif, native, reference, status

SHAPES = [(1, 1), (4, 2, 63), (3, 64), (2, 129), (7, 5, 3), (4, 2, 33, 7, 7)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
NEURONS = [
    {"tau": tau, "decay_input": decay_input, "reset": reset}
    for tau, decay_input, reset in [
        (2.0, True, "hard"),
        (2.0, True, "soft"),
        (1.5, True, "hard"),
        (1.75, False, "hard"),
        (4.0, False, "soft"),
        (None, True, "hard"),
        (None, True, "soft"),
    ]
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def both(x, v, grads, tau=2.0, alpha=4.0, **constants):
    """(outputs and gradients of the live implementation, the same of the reference)."""
    results = []
    for run in ("live", "reference"):
        inputs = [t.detach().clone().requires_grad_() for t in (x, v, tau) if isinstance(t, torch.Tensor)]
        x_, v_ = inputs[0], inputs[1] if v is not None else None
        tau_ = inputs[-1] if isinstance(tau, torch.Tensor) else tau
        if run == "live":
            out = lif(x_, v_, tau=tau_, alpha=alpha, **constants)
        else:
            out = reference.lif(x_, v_, Dynamics.of(tau_, alpha=alpha, **constants))
        results.append((out, autograd.grad(out, inputs, grads)))
    return results


@pytest.mark.skipif(native.load()[0] is None, reason="the native kernel is not built")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_native_lif_matches_reference(shape, neuron, dtype):
    x = (2 * torch.randn(shape)).to(dtype)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    for v in (None, torch.randn(shape[1:], dtype=state)):
        grads = torch.randn(shape).to(dtype), torch.randn(shape[1:], dtype=state)
        (got, got_grads), (want, want_grads) = both(x, v, grads, **neuron)
        assert_close(got, want, rtol=0, atol=0)
        tolerance = {} if dtype.itemsize == 2 else {"rtol": 1e-6, "atol": 1e-6}
        assert_close(got_grads, want_grads, **tolerance)


@pytest.mark.parametrize("alpha", [1.0, 4.0, 25.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_surrogate_gradients_match_reference(dtype, surrogate, alpha):
    x = 4 * torch.randn(3, 1000, dtype=dtype)
    grads = torch.randn(3, 1000, dtype=dtype), torch.randn(1000, dtype=dtype)
    (_, got), (_, want) = both(x, None, grads, surrogate=surrogate, alpha=alpha)
    assert_close(got, want, rtol=1e-6, atol=1e-6 * alpha)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_surrogate_is_a_bump_of_unit_area_with_its_peak_at_the_threshold(surrogate):
    z = torch.linspace(-200, 200, 4_000_001, dtype=torch.float64)
    slope = reference.surrogate_gradient(z, Dynamics(surrogate=surrogate, alpha=2.0))
    assert torch.trapezoid(slope, z).item() == pytest.approx(1, abs=3e-3)
    assert slope.argmax() == len(z) // 2 or slope[len(z) // 2] == slope.max()
    assert_close(slope, slope.flip(0))


def test_sigmoid_surrogate_is_the_derivative_of_the_sigmoid():
    z = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    torch.sigmoid(4 * z).sum().backward()
    assert_close(reference.surrogate_gradient(z.detach(), Dynamics()), z.grad)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_gradient_is_that_of_the_equations(decay_input, reset):
    """Against autograd through the unrolled equations, with a straight-through step and a detached reset."""

    class Step(autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return (z >= 0).to(z.dtype)

        @staticmethod
        def backward(ctx, grad):
            return grad * reference.surrogate_gradient(*ctx.saved_tensors, Dynamics())

    x = (2 * torch.randn(5, 40, dtype=torch.float64)).requires_grad_()
    v0 = torch.randn(40, dtype=torch.float64, requires_grad=True)
    tau = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    v, spikes = v0, []
    for t in range(len(x)):
        h = v + (x[t] - v) / tau if decay_input else v - v / tau + x[t]
        s = Step.apply(h - 1.0)
        spikes.append(s)
        v = h * (1 - s.detach()) if reset == "hard" else h - s.detach()
    grads = torch.randn(5, 40, dtype=torch.float64), torch.randn(40, dtype=torch.float64)
    want = autograd.grad((torch.stack(spikes), v), (x, v0, tau), grads)
    got = autograd.grad(lif(x, v0, tau=tau, decay_input=decay_input, reset=reset), (x, v0, tau), grads)
    assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("decay_input", [True, False])
def test_learnable_tau_matches_reference(dtype, decay_input):
    x = (2 * torch.randn(4, 3, 65)).to(dtype)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    grads = torch.randn(4, 3, 65).to(dtype), torch.randn(3, 65, dtype=state)
    (got, got_grads), (want, want_grads) = both(
        x, None, grads, tau=torch.tensor(1.8, dtype=state), decay_input=decay_input
    )
    assert_close(got, want, rtol=0, atol=0)
    assert_close(got_grads[1], want_grads[1], rtol=1e-5, atol=1e-5)


def test_lif_fires_when_h_reaches_threshold():
    s, v = lif(torch.tensor([[2.0], [2.0]]))  # h = 1.0 at both steps: the first spike resets v
    assert s.flatten().tolist() == [1.0, 1.0] and v.item() == 0.0


def test_membrane_potential_by_hand():
    x = torch.tensor([[1.0], [1.0], [1.5], [0.0]])
    s, v = lif(x)  # h = 0.5, 0.75, 1.125 (fires), 0
    assert s.flatten().tolist() == [0, 0, 1, 0] and v.item() == 0.0
    s, v = lif(x, reset="soft")  # v = 0.125 after the spike, then half of it
    assert s.flatten().tolist() == [0, 0, 1, 0] and v.item() == 0.0625
    s, v = lif(x, tau=None)  # h = 1 (fires), 1 (fires), 1.5 (fires), 0
    assert s.flatten().tolist() == [1, 1, 1, 0] and v.item() == 0.0
    s, v = lif(x, tau=None, reset="soft")  # 0.5 stays behind
    assert s.flatten().tolist() == [1, 1, 1, 0] and v.item() == 0.5
    s, v = lif(x * 0.5, decay_input=False)  # h = 0.5, 0.75, 1.125 (fires), 0
    assert s.flatten().tolist() == [0, 0, 1, 0] and v.item() == 0.0


def test_hard_reset_folds_a_scale_into_the_threshold():
    x = 8 * torch.randint(0, 9, (4, 500)).float()
    assert_close(lif(0.125 * x, v_threshold=0.5)[0], lif(x, v_threshold=4.0)[0], rtol=0, atol=0)


def test_state_carries_a_sequence_across_calls():
    x = 2 * torch.randn(6, 3, 50)
    whole, v_whole = lif(x)
    first, v = lif(x[:2])
    second, v = lif(x[2:], v)
    assert_close(torch.cat([first, second]), whole, rtol=0, atol=0)
    assert_close(v, v_whole, rtol=0, atol=0)


def test_state_of_half_types_is_float32_so_that_splitting_a_sequence_changes_nothing():
    x = (2 * torch.randn(6, 500)).bfloat16()
    first, v = lif(x[:3])
    assert v.dtype == torch.float32
    assert_close(torch.cat([first, lif(x[3:], v)[0]]), lif(x)[0], rtol=0, atol=0)


def layouts():
    dense = 2 * torch.randn(4, 2, 6, 5, 3)
    channels_last = dense.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    return {
        "channels_last": channels_last,
        "transposed": dense.transpose(3, 4),
        "batch_first": (2 * torch.randn(2, 4, 6, 5, 3)).transpose(0, 1),
        "sliced": (2 * torch.randn(4, 2, 6, 5, 7))[..., ::2],
        "every_other_step": (2 * torch.randn(8, 2, 6, 5, 3))[::2],
        "expanded": (2 * torch.randn(1, 2, 6, 5, 3)).expand(4, -1, -1, -1, -1),
        "expanded_inside": (2 * torch.randn(4, 1, 6, 5, 3)).expand(-1, 2, -1, -1, -1),
        "empty": torch.empty(4, 0, 6, 5, 3),
    }


@pytest.mark.parametrize("layout", layouts())
def test_lif_takes_any_memory_layout(layout):
    x = layouts()[layout].requires_grad_()
    plain = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    backwards = torch.randn(x.shape[::-1]).permute(4, 3, 2, 1, 0)
    grads = backwards, torch.randn(x.shape[1:])
    got, want = lif(x), lif(plain)
    assert_close(got, want, rtol=0, atol=0)
    assert_close(autograd.grad(got, x, grads), autograd.grad(want, plain, grads), rtol=0, atol=0)


def test_channels_last_passes_through_without_a_copy():
    x = layouts()["channels_last"]
    s, v = lif(x)
    assert s[0].is_contiguous(memory_format=torch.channels_last) and v.is_contiguous(memory_format=torch.channels_last)


def test_only_the_input_is_kept_for_backward():
    kept = []
    x = torch.randn(4, 1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        lif(x, return_v=False)
    assert [t.data_ptr() for t in kept if t is not None] == [x.data_ptr()]


def test_result_does_not_depend_on_the_number_of_threads(set_num_threads):
    x = (2 * torch.randn(4, 100_003)).requires_grad_()
    grad = torch.randn(4, 100_003)
    results = []
    for n in (1, 2, 3):
        set_num_threads(n)
        s, _ = lif(x)
        results.append((s, *autograd.grad(s, x, grad)))
    assert_close(results[0], results[1], rtol=0, atol=0)
    assert_close(results[0], results[2], rtol=0, atol=0)


def test_extreme_inputs():
    x = torch.tensor([[math.inf, -math.inf, math.nan, 1e30, -1e30, 0.0, -0.0, 3e38]] * 3).requires_grad_()
    grads = torch.ones(3, 8), torch.zeros(8)
    (got, got_grads), (want, want_grads) = both(x, None, grads)
    assert_close(got, want, rtol=0, atol=0, equal_nan=True)
    assert_close(got_grads, want_grads, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gradients_round_like_torch(dtype):
    """With x far below the threshold and no leak the gradient of x passes through one multiplication and one rounding."""
    values = torch.cat([torch.logspace(-9, 4.7, 4001), -torch.logspace(-9, 4.7, 4001), torch.zeros(1)]).to(dtype)
    x = torch.zeros(1, len(values), dtype=dtype, requires_grad=True)
    (grad,) = autograd.grad(lif(x, tau=None, surrogate="triangle", alpha=0.75)[0], x, values[None])
    assert_close(grad[0], (values.float() * (0.75 * 0.25)).to(dtype), rtol=0, atol=0)


OPCHECK = [
    (torch.randn(3, 2, 5, requires_grad=True), None, None),
    (torch.randn(3, 2, 5, requires_grad=True), torch.randn(2, 5, requires_grad=True), None),
    (torch.randn(3, 2, 5, requires_grad=True), None, torch.tensor(1.5, requires_grad=True)),
    (torch.randn(2, 2, 3, 4, 4).half().requires_grad_(), None, None),
    (torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)[None].expand(3, -1, -1, -1, -1), None, None),
]


@pytest.mark.parametrize("case", range(len(OPCHECK)))
@pytest.mark.parametrize("return_v", [True, False])
def test_opcheck(case, return_v):
    x, v, tau = OPCHECK[case]
    torch.library.opcheck(torch.ops.spikeformers.lif.default, (x, v, tau, 2.0, 0, 1.0, False, 0, 4.0, return_v))


def test_compiles_as_one_graph():
    def step(x, tau):
        s, v = lif(x * 2, tau=tau)
        return (s * 3).sum() + v.sum()

    x, tau = torch.randn(4, 33, requires_grad=True), torch.tensor(1.5, requires_grad=True)
    want = autograd.grad(step(x, tau), (x, tau))
    got = autograd.grad(torch.compile(step, fullgraph=True, backend="aot_eager")(x, tau), (x, tau))
    assert_close(got, want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.tensor(1.0)}, "T >= 1"),
        ({"x": torch.zeros(4, 2).int()}, "floating-point"),
        ({"v": torch.zeros(2, device="meta")}, "v on meta; move v"),
        ({"v": torch.zeros(3)}, r"without the time axis, \(2,\), not \(3,\)"),
        ({"tau": 0.5}, "tau must be at least 1"),
        ({"tau": torch.ones(2)}, "0-d tensor"),
        ({"tau": torch.tensor(0.0)}, "tau must be at least 1"),
        ({"tau": torch.tensor(0.5)}, "tau must be at least 1"),
        ({"tau": torch.tensor(math.nan)}, "tau must be at least 1"),
        ({"alpha": math.inf}, "positive and finite"),
        ({"v_threshold": 0.0}, "v_threshold must be positive"),
        ({"reset": "none"}, "'hard' or 'soft'"),
        ({"surrogate": "relu"}, "sigmoid, atan, rectangle, triangle"),
        ({"alpha": -1.0}, "alpha must be positive"),
    ],
)
def test_errors_say_what_was_given_and_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        lif(**{"x": torch.zeros(4, 2), **arguments})


def test_status_names_every_implementation():
    rows = status()
    assert [row[0] for row in rows] == ["reference", "native", "triton"] and rows[0][1]
    assert all(isinstance(live, bool) and sentence for _, live, sentence in rows)


def test_reference_runs_where_the_native_kernel_is_missing(monkeypatch):
    x = (2 * torch.randn(4, 3, 5)).requires_grad_()
    grads = torch.randn(4, 3, 5), torch.randn(3, 5)
    want = lif(x), autograd.grad(lif(x), x, grads)
    monkeypatch.setattr(native, "load", lambda: (None, "not built"))
    assert ("native", False, "not built") in status()
    assert_close((lif(x), autograd.grad(lif(x), x, grads)), want)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler, hence no native kernel")
def test_native_kernel_is_built_where_there_is_a_compiler():
    assert native.load()[0] is not None, native.load()[1]


def test_learnable_tau_sums_over_all_threads(set_num_threads):
    set_num_threads(3)
    x = (2 * torch.randn(4, 20_001, dtype=torch.float64)).requires_grad_()
    grads = torch.randn(4, 20_001, dtype=torch.float64), torch.randn(20_001, dtype=torch.float64)
    (_, got), (_, want) = both(x, None, grads, tau=torch.tensor(1.8, dtype=torch.float64))
    assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_all_builds_agree(monkeypatch):
    """Every instruction set that was built and that this processor runs gives the same bits."""
    x = (2 * torch.randn(4, 1003)).requires_grad_()
    grads = torch.randn(4, 1003), torch.randn(1003)
    want = reference.lif(x, None, Dynamics(tau=1.5))
    want_grad = autograd.grad(want, x, grads)
    capability = torch.backends.cpu.get_cpu_capability()
    for build in _library._BUILDS.get(capability, ("baseline",)):
        monkeypatch.setattr(_library, "_BUILDS", {capability: (build,)})
        native.load.cache_clear()
        if native.load()[0] is not None:
            assert native.load()[1] == f"build {build}"
            got = lif(x, tau=1.5)
            assert_close(got, want, rtol=0, atol=0)
            assert_close(autograd.grad(got, x, grads), want_grad, rtol=1e-6, atol=1e-6)
    monkeypatch.undo()
    native.load.cache_clear()


def test_the_operation_itself_is_checked():
    """torch.ops.spikeformers.lif, which stands in exported programs, is open to anybody."""
    x, rest = torch.randn(2, 10), (2.0, 0, 1.0, False, 0, 4.0)
    for v, tau, constants in [
        (torch.zeros(5), None, rest),
        (torch.zeros(2, 5), None, rest),
        (None, torch.ones(2), rest),
        (None, torch.tensor(0.0), rest),
        (None, None, (0.5, *rest[1:])),
        (None, None, (2.0, 3, *rest[2:])),
        (None, None, (*rest[:4], 999, 4.0)),
    ]:
        with pytest.raises(ValueError):
            torch.ops.spikeformers.lif(x, v, tau, *constants, True)
        with pytest.raises(ValueError):
            torch.ops.spikeformers.lif_backward(x, None, x, v, tau, *constants)
    for grads in [(x[:1], None), (x[:, :5], None), (x, torch.zeros(5))]:
        with pytest.raises(ValueError):
            torch.ops.spikeformers.lif_backward(*grads, x, None, None, *rest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_a_neuron_that_sees_nan_is_silent_from_then_on(neuron, dtype):
    x = 3 * torch.rand(9, 700)
    x[4, ::2], x[2, 1::4], x[6, 3::4] = math.nan, math.inf, -math.inf
    x = x.to(dtype)
    want = reference.lif_forward(x, None, Dynamics.of(**neuron))
    spikes, v = lif(x, **neuron)
    assert_close((spikes, v), want, rtol=0, atol=0, equal_nan=True)
    assert not spikes[4:, ::2].any() and spikes[:4, ::2].any() and v[::2].isnan().all()
    assert_close(reference.composed(x, None, Dynamics.of(**neuron)), want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_gradients_of_nan_are_those_of_the_reference(surrogate):
    x = torch.randn(4, 33).index_fill_(1, torch.arange(0, 33, 3), math.nan).requires_grad_()
    grads = torch.randn(4, 33), torch.randn(33)
    dynamics = Dynamics(surrogate=surrogate, alpha=2.0)
    got, want = (
        autograd.grad(lif(x, surrogate=surrogate, alpha=2.0), x, grads),
        autograd.grad(reference.lif(x, None, dynamics), x, grads),
    )
    assert_close(got, want, equal_nan=True)


def test_nan_of_any_bits_has_no_undefined_exponent():
    x = torch.tensor([[0x7FFFFFFF, -1]], dtype=torch.int32).view(torch.float32).requires_grad_()
    assert autograd.grad(lif(x)[1].sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("neuron", NEURONS, ids=str)
def test_forward_mode_derivatives_are_those_of_the_surrogate(neuron, surrogate):
    """J u from forward mode against u' J from backward mode."""
    x, v = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 7), (7,)))
    tangents, grads = (torch.randn_like(x), torch.randn_like(v)), (torch.randn_like(x), torch.randn_like(v))
    run = lambda x, v: lif(x, v, surrogate=surrogate, alpha=1.5, **neuron)  # noqa: E731
    outputs, found = torch.func.jvp(run, (x, v), tangents)
    assert_close(outputs, run(x, v), rtol=0, atol=0)
    with autograd.forward_ad.dual_level():
        duals = run(*map(autograd.forward_ad.make_dual, (x, v), tangents))
        assert_close(tuple(autograd.forward_ad.unpack_dual(z).tangent for z in duals), found)
    x.requires_grad_(), v.requires_grad_()
    backward = autograd.grad(run(x, v), (x, v), grads)
    assert found[0].any()
    inner = lambda a, b: sum((p * q).sum() for p, q in zip(a, b, strict=True))  # noqa: E731
    assert_close(inner(found, grads), inner(backward, tangents))


def test_torch_func_transforms():
    x, tau = torch.randn(4, 3, dtype=torch.float64), torch.tensor(1.7, dtype=torch.float64)
    potential = lambda x, tau: lif(x, tau=tau)[1]  # noqa: E731
    x_, tau_ = x.clone().requires_grad_(), tau.clone().requires_grad_()
    rows = [autograd.grad(potential(x_, tau_)[i], (x_, tau_), retain_graph=True) for i in range(3)]
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert_close(transform(potential, (0, 1))(x, tau), tuple(map(torch.stack, zip(*rows, strict=True))))
    many = torch.randn(5, 4, 3, dtype=torch.float64)
    assert_close(torch.func.vmap(lambda x: lif(x)[0])(many), torch.stack([lif(x)[0] for x in many]))
    steps = lambda x: lif(x)[0].sum()  # noqa: E731
    h = torch.tensor([[0.3]], dtype=torch.float64)  # sigmoid'' of one step, by hand
    y = torch.sigmoid(4 * (h / 2 - 1))
    assert_close(torch.func.hessian(steps)(h).flatten(), (16 / 4 * y * (1 - y) * (1 - 2 * y)).flatten())


def test_second_derivatives_are_refused_outside_of_torch_func():
    x = torch.randn(4, 3, requires_grad=True)
    (grad,) = autograd.grad(lif(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        autograd.grad(grad.sum(), x)
    with autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        torch.ops.spikeformers.lif(
            autograd.forward_ad.make_dual(x.detach(), x.detach()), None, None, 2.0, 0, 1.0, False, 0, 4.0, True
        )


class Neurons(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tau = torch.nn.Parameter(torch.tensor(1.6))

    def forward(self, x):
        spikes, v = lif(2 * x, tau=self.tau, reset="soft")
        return spikes, lif(spikes.bfloat16(), tau=None)[0], v


@pytest.mark.parametrize("dynamic", [None, 0, 1])
def test_exported_programs_decompose_into_standard_operators(dynamic):
    x, shapes = torch.randn(4, 3, 5), None if dynamic is None else ({dynamic: torch.export.Dim("n", min=2, max=64)},)
    model = Neurons()
    program = torch.export.export(model, (x,), dynamic_shapes=shapes)
    assert torch.ops.spikeformers.lif.default in {node.target for node in program.graph.nodes}
    other = torch.randn(*(9 if axis == dynamic else size for axis, size in enumerate(x.shape)))
    assert_close(program.module()(other), model(other), rtol=0, atol=0)
    if dynamic == 0:
        with pytest.raises(ValueError, match="static T"):
            program.run_decompositions(decompositions())
        return
    plain = program.run_decompositions(decompositions())
    assert not any("spikeformers" in str(node.target) for node in plain.graph.nodes)
    assert_close(plain.module()(other), model(other), rtol=0, atol=0)


class FirstOf(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    x, model = torch.randn(4, 3, 5), Neurons()
    program = torch.onnx.export(FirstOf(model), (x,), dynamo=True, verbose=False)
    program.save(str(tmp_path / "neurons.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "neurons.onnx"))
    (spikes,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.equal(torch.from_numpy(spikes), model(x)[0])
