"""The spike-driven audit: what passes, what is found, and what tries to hide."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from spikeformers import audit, merge
from spikeformers.neurons import LIF
from spikeformers.transforms.sta import convert


def modules(findings):
    return {finding.module for finding in findings}


def test_merged_meta_spikeformer_needs_additions_only(meta, images):
    unmerged, merged = audit(meta(), images), audit(merge(meta(), "neuromorphic"), images)
    assert merged.additions_only and "additions only" in merged.verdict
    assert modules(merged.allowed) == {"stem.conv", ""}  # the analog image, and averages over pixels and time
    assert not merged.silent
    assert not unmerged.additions_only and "not additions only" in unmerged.verdict


def test_what_an_unmerged_network_multiplies(meta, images):
    found = audit(meta(), images).offending
    kinds = {(finding.module, finding.operation): finding.operands for finding in found}
    branch = "stages.0.blocks.0.sep_conv.branch"
    assert kinds[f"{branch}.project.conv", "convolution 1x1"] == ("real", "weight")
    assert (f"{branch}.depthwise", "depthwise convolution 7x7") not in kinds  # reads spikes
    assert ("stages.3.blocks.0.attention.branch.q.project", "convolution 1x1") in kinds
    assert ("stages.3.blocks.0.attention.branch.q.expand", "convolution 1x1") not in kinds
    assert kinds["stages.3.blocks.0.attention.branch", "scaling"] == ("integer", "number")
    assert kinds["stages.1.downsample.conv_bn.bn", "batch normalisation"] == ("real",)
    assert all(finding.remedy for finding in found)
    shares = [finding.share for finding in found]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1


def test_cpu_merging_leaves_real_inputs(meta, images):
    found = audit(merge(meta(), "cpu"), images).offending
    assert {finding.operation for finding in found} == {"convolution 1x1", "depthwise convolution 3x3"}


def test_sew_shortcuts_are_integers(spikingformer, images):
    merged = audit(merge(spikingformer(shortcut="sew"), "neuromorphic"), images)
    kinds = {finding.module: finding.operands[0] for finding in merged.offending}
    assert kinds["stages.0.mlp.branch.fc1.conv"] == kinds["stages.1.attention.branch.q.conv"] == "integer"
    assert "stages.0.attention.branch.q.conv" not in kinds
    assert any("shortcut='ms'" in finding.remedy for finding in merged.offending)
    membrane = audit(merge(spikingformer(), "neuromorphic"), images)
    assert modules(membrane.offending) == {"head"}  # no neuron in front of the published classifier


def test_first_layers_read_the_input_itself(images):
    """Wherever and as often as they do; a layer deep inside is no first layer for being the only one."""

    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.lif, self.head = nn.Conv2d(3, 4, 3), LIF(), nn.Linear(4, 2)

        def forward(self, x):
            spikes = self.lif(torch.stack([self.stem(x), self.stem(x.flip(-1))]))
            return self.head(spikes[:, :, :, 0, 0])

    assert audit(Siamese(), 5 * images).additions_only

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.lif, self.head = LIF(tau=1.0), nn.Linear(12, 2)

        def forward(self, x):
            return self.head(self.lif(x[None])[0].sum((1, 2)))

    assert modules(audit(Late(), 5 * images).offending) == {"head"}


def test_every_operation_has_a_verdict(meta, images):
    found = audit(merge(meta(), "neuromorphic"), images)
    assert len(found.passing) + len(found.allowed) == found.operations
    kinds = {finding.module: finding.operands for finding in found.passing}
    assert kinds["stages.0.blocks.0.sep_conv.branch.expand.conv"] == ("binary", "weight")


def test_the_first_layer_of_events_is_spike_fed(meta):
    events = (torch.rand(2, 4, 3, 16, 12) < 0.2).float()
    assert modules(audit(merge(meta(), "neuromorphic"), events).allowed) == {""}  # events are spikes already


class Cheat(nn.Module):
    """An honest spiking network, and between its convolution and its end whatever `trick` does."""

    def __init__(self, trick):
        super().__init__()
        self.conv, self.lif, self.conv2, self.trick = nn.Conv2d(3, 8, 3), LIF(), nn.Conv2d(8, 8, 3), trick
        self.gain = nn.Parameter(torch.ones(8, 1, 1))
        self.plain = torch.tensor(0.7)

    def forward(self, x):
        current = self.conv(x)
        spikes = self.lif(torch.stack([current, current]))
        return self.trick(self, self.conv2(spikes.flatten(0, 1)).unflatten(0, (2, -1)))


def inplace(model, u):
    u[:, :, 0].mul_(0.5)
    return u


def through_zeros(model, u):
    blank = u.new_zeros(u.shape)
    blank[:, :1] = u[:, :1]
    return blank * model.gain


def rank_one(model, u):
    """Timestep shrinkage: scores times one map, which the next convolution reads."""
    total = model.lif(u).sum(0)
    frames = torch.stack([total * 0.25, total * 0.75])
    return model.conv2(frames.flatten(0, 1))


def potential(model, u):
    """A neuron that never fires divides by tau."""
    return LIF(tau=3.0, v_threshold=1e9).run(u[None])[1] + 0


def into_zeros(model, u):
    blank = torch.zeros_like(u)
    blank.numpy()[...] = u.numpy() * 0.3
    return blank


def past_autograd(model, u):
    spikes = model.lif(u)
    spikes.data *= 0.3
    return model.conv2(spikes.flatten(0, 1))


def into_the_gain(model, u):
    model.gain.data = u[0, 0] * 1
    return model.gain + u


CHEATS = {
    "a gain of one": (lambda m, u: u * m.gain, "scaling"),
    "an unregistered tensor": (lambda m, u: u * m.plain, "scaling"),
    "a number": (lambda m, u: u / 3, "scaling"),
    "in place": (inplace, "scaling"),
    "through zeros": (through_zeros, "scaling"),
    "alpha": (lambda m, u: torch.add(u, u, alpha=0.3), "scaling (alpha of add)"),
    "functional convolution": (lambda m, u: F.conv2d(u.flatten(0, 1), m.conv2.weight), "convolution 3x3"),
    "functional linear": (lambda m, u: F.linear(u.transpose(2, 4), m.gain[:, :, 0].expand(-1, 8)), "linear"),
    "einsum": (lambda m, u: torch.einsum("tbchw,c->tbhw", u, m.gain[:, 0, 0]), "linear"),
    "matmul": (lambda m, u: u @ u.transpose(-1, -2), "matmul"),
    "product": (lambda m, u: u * u, "product"),
    "gate": (lambda m, u: u * torch.sigmoid(u), "sigmoid"),
    "square": (lambda m, u: u**2, "pow"),
    "lerp": (lambda m, u: torch.lerp(u, u, 0.3), "lerp"),
    "softmax": (lambda m, u: u.softmax(-1), "softmax"),
    "attention": (lambda m, u: F.scaled_dot_product_attention(u, u, u), "matmul"),
    "division": (lambda m, u: 1 / u, "reciprocal"),
    "numpy": (lambda m, u: torch.from_numpy(u.numpy() * 0.3) + u, "values touched through numpy()"),
    "numpy at the end": (lambda m, u: torch.from_numpy(u.numpy() * 0.3), "output that does not follow from the input"),
    "python": (lambda m, u: u * float(u.mean()), "value read by Python"),
    "an operator of its own": (
        lambda m, u: torch.ops.spikeformers.lif_backward(u, None, u, None, None, 2.0, 1, 1.0, False, 0, 4.0)[0],
        "spikeformers::lif_backward",
    ),
    "membrane potential": (potential, "membrane potential"),
    "scatter": (lambda m, u: u.scatter(0, torch.zeros_like(u, dtype=torch.long), 0.3, reduce="multiply"), "scatter"),
    "alpha of a product": (
        lambda m, u: torch.baddbmm(u[0, :1, 0], m.lif(u)[0, :1, 0], u[0, :1, 0], beta=0, alpha=0.3),
        "scaling (alpha of baddbmm)",
    ),
    "alpha of the other side": (lambda m, u: torch.rsub(u, m.lif(u), alpha=0.3), "scaling (alpha of rsub)"),
    "alpha of an index": (
        lambda m, u: m.lif(u).index_add(0, torch.tensor([0, 1], device=u.device), u, alpha=0.3),
        "scaling (alpha of index_add)",
    ),
    "divisor": (lambda m, u: F.avg_pool2d(u.flatten(0, 1), 1, divisor_override=3), "avg_pool2d"),
    "rounding": (lambda m, u: u.round(decimals=1), "round"),
    "bits": (lambda m, u: (u.view(torch.int32) + (1 << 23)).view(torch.float32), "view"),
    "a list": (lambda m, u: torch.tensor(u.flatten().tolist()) * 0.3, "values touched through tolist()"),
    "into zeros": (into_zeros, "values touched through numpy()"),
    "into a parameter": (into_the_gain, "values touched through its data attribute"),
    "past autograd": (past_autograd, "values touched through its data attribute"),
    "in a dict": (
        lambda m, u: {"logits": torch.from_numpy(u.numpy() * 0.3)},
        "output that does not follow from the input",
    ),
    "scaled spikes": (lambda m, u: m.conv2((m.lif(u) * 0.3).flatten(0, 1)), "convolution 3x3"),
    "average pooling": (lambda m, u: m.conv2(F.avg_pool2d(m.lif(u).flatten(0, 1), 2)), "convolution 3x3"),
    "timestep shrinkage": (rank_one, "convolution 3x3"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_planted_multiplications_are_named(name):
    trick, operation = CHEATS[name]
    torch.manual_seed(0)
    found = audit(Cheat(trick), 3 * torch.randn(2, 3, 16, 16))
    assert not found.additions_only
    assert operation in [finding.operation for finding in found.offending], found


HONEST = {
    "nothing": lambda m, u: u,
    "masks": lambda m, u: u * m.lif(u),
    "comparisons": lambda m, u: torch.where(
        u > 0, F.max_pool2d(u.flatten(0, 1), 3, 1, 1).unflatten(0, (2, -1)), u.relu()
    ),
    "sums": lambda m, u: u + u.sum(2, keepdim=True) - u.flip(0) + 1,
    "attention of spikes": lambda m, u: (m.lif(u) @ m.lif(u).transpose(-1, -2)) @ m.lif(u),
    "moving": lambda m, u: torch.cat([u[:1], u.roll(1, 0)[1:]]).permute(0, 1, 3, 4, 2).contiguous(),
    "constants by themselves": lambda m, u: u + (m.gain * 0.3).exp(),
}


@pytest.mark.parametrize("name", HONEST)
def test_additions_pass(name):
    torch.manual_seed(0)
    found = audit(Cheat(HONEST[name]), 3 * torch.randn(2, 3, 16, 16))
    assert found.additions_only, found


def test_interpolation_adds_only_where_it_doubles():
    class Grown(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return torch.nn.functional.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)

    x = torch.randn(1, 2, 4, 6)
    (doubling,) = audit(Grown(2), x).allowed
    assert doubling.operation == "bilinear doubling" and audit(Grown(2), x).additions_only
    assert [finding.operation for finding in audit(Grown(3), x).offending] == ["upsample_bilinear2d"]


def test_kinds_are_joined_over_all_inputs():
    """A layer that reads spikes in one batch and counts in the next does not read spikes."""

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.lif, self.conv = nn.Conv2d(1, 1, 1), LIF(tau=1.0), nn.Conv2d(1, 1, 1)
            nn.init.ones_(self.stem.weight), nn.init.zeros_(self.stem.bias)

        def forward(self, x):
            spikes = self.lif(self.stem(x)[None])[0]
            return self.conv(spikes + spikes.roll(1, -1))

    lone, pair = torch.tensor([[[[1.0, 0, 0, 0]]]]), torch.tensor([[[[1.0, 1, 0, 0]]]])
    model = Sum()
    assert audit(model, lone).additions_only
    assert [finding.operands for finding in audit(model, [lone, pair]).offending] == [("integer", "weight")]


def test_silence_proves_nothing(meta, images):
    """Where only zeros arrive, the operators decide what could have come, and the verdict says so."""
    model = meta()
    for module in model.modules():
        if isinstance(module, LIF):
            module.v_threshold = 1e9
    found = audit(model, images)
    assert "stages.0.blocks.0.sep_conv.branch.project.conv" in modules(found.offending)
    assert found.silent and "nothing but zeros" in found.verdict


def test_report_in_words_and_json(meta, images):
    import json

    found = audit(meta(), images)
    assert str(found).count("\n") == len(found.offending) + len(found.allowed)
    content = json.loads(json.dumps(found.to_dict()))
    assert content["additions_only"] is False and content["offending"][0]["module"] == found.offending[0].module


def test_converted_networks_are_audited_by_what_their_layers_read():
    """Layers and attention read ternary spikes; what is left over are the functions, and means."""
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, depth=1, embed_dim=24, num_heads=3, num_classes=5
    ).eval()
    x = torch.randn(2, 3, 16, 16)
    found = audit(convert(model, x, 3, levels=1), x)
    assert {finding.module for finding in found.allowed} == {"model.patch_embed.proj"}
    layers = {f.module for f in found.passing if f.operation == "linear" and f.operands[0] in ("binary", "ternary")}
    named = {f"model.blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")} | {"model.head"}
    assert named <= layers
    assert not [
        f for f in found.offending if "linear" in f.operation or "convolution" in f.operation or "matmul" in f.operation
    ]
    functions = {f.operation for f in found.offending} - {"scaling"}
    assert functions == {"native_layer_norm", "gelu", "exp", "division"}
    spiking = convert(model, x, 3, levels=1, spiking="full")
    full = audit(spiking, x)
    assert audit(spiking, x) == full
    assert named <= {
        f.module for f in full.passing if f.operation == "linear" and f.operands[0] in ("binary", "ternary")
    }
    pieces, exponents = {"addcmul", "nan_to_num"}, {"frexp", "exp2", "rshift", "copysign"}
    assert {f.operation for f in full.offending} == {"product", "scaling"} | pieces | exponents
    bursts = audit(convert(model, x, 3, levels=4), x)
    assert any(f.module == "model.head" and f.operands[0] == "integer" for f in bursts.offending)
