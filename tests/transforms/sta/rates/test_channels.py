"""Where channels lie is known, not guessed from positions: a converted network answers each sample by itself."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers import convert
from spikeformers.transforms.sta.rates import Kind, Rate
from spikeformers.transforms.sta.rates.channels import differing, numbered

HEADS, WIDTH, TOKENS, SAMPLES = 2, 8, 6, 5


class Attention(nn.Module):
    """Attention over tokens [B, N, C] in one of the shapes that people write it in."""

    def __init__(self, form: str):
        super().__init__()
        self.form = form
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.whole = nn.MultiheadAttention(WIDTH, HEADS, batch_first=form == "module, batch first")

    def forward(self, x):
        b, n, _ = x.shape
        qkv = [layer(x) for layer in (self.q, self.k, self.v)]
        heads = [y.view(b, n, HEADS, -1).transpose(1, 2) for y in qkv]  # [B, h, N, d]
        match self.form:
            case "[B, N, C]":
                y = F.scaled_dot_product_attention(*qkv)
            case "[B, h, N, d]":
                y = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            case "[h, B, N, d]":
                y = F.scaled_dot_product_attention(*(z.transpose(0, 1) for z in heads)).permute(1, 2, 0, 3).flatten(2)
            case "[B h, N, d]":
                y = (
                    F.scaled_dot_product_attention(*(z.flatten(0, 1) for z in heads))
                    .unflatten(0, (b, HEADS))
                    .transpose(1, 2)
                    .flatten(2)
                )
            case "[B, windows, h, n, d]":
                y = F.scaled_dot_product_attention(*(z.unflatten(2, (2, -1)).transpose(1, 2) for z in heads))
                y = y.permute(0, 1, 3, 2, 4).reshape(b, n, -1)
            case "[N, d] by sample":
                y = torch.stack([F.scaled_dot_product_attention(*(z[i] for z in qkv)) for i in range(b)])
            case "matmul [B, N, C]":
                y = (qkv[0] @ qkv[1].transpose(1, 2)).softmax(-1) @ qkv[2]
            case "matmul [h, B, N, d]":
                q, k, v = (z.transpose(0, 1) for z in heads)
                y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).permute(1, 2, 0, 3).flatten(2)
            case "bmm [B h, N, d]":
                q, k, v = (z.flatten(0, 1) for z in heads)
                y = (
                    torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
                    .unflatten(0, (b, HEADS))
                    .transpose(1, 2)
                    .flatten(2)
                )
            case "module, batch first":
                y = self.whole(x, x, x, need_weights=False)[0]
            case "module, batch second":
                x = x.transpose(0, 1)
                y = self.whole(x, x, x, need_weights=False)[0].transpose(0, 1)
            case "channels and tokens swapped":  # and as many of one as of the other
                y = torch.sigmoid(qkv[0][:, :, :n].transpose(1, 2)) * qkv[1][:, :, :n]
                y = F.pad(y, (0, WIDTH - n))
            case "samples as channels":
                y = torch.relu(qkv[0].transpose(1, 2).reshape(1, b * WIDTH, n))
                y = (
                    F.conv1d(y, self.q.weight[:, :1, None].repeat(b, 1, 1), groups=b * WIDTH)
                    .view(b, WIDTH, n)
                    .transpose(1, 2)
                )
        return self.o(y).mean(1)


class Vectors(nn.Module):
    """Linear layers on [B, C]; as many samples as channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        x = torch.relu(self.a(x[:, 0]))
        return self.b(torch.tanh(x.t()).t() * x)


FORMS = [
    "[B, N, C]", "[B, h, N, d]", "[h, B, N, d]", "[B h, N, d]", "[B, windows, h, n, d]", "[N, d] by sample", "matmul [B, N, C]",
    "matmul [h, B, N, d]", "bmm [B h, N, d]", "module, batch first", "module, batch second", "channels and tokens swapped",
    "samples as channels",
]  # fmt: skip


def inputs(samples):
    """[B, N, C] of very different sizes, so that thresholds of one sample would not do for another."""
    torch.manual_seed(1)
    return (
        torch.randn(samples, TOKENS, WIDTH, dtype=torch.float64)
        * torch.logspace(-1, 1, samples).double()[:, None, None]
    )


@torch.no_grad()
@pytest.mark.parametrize("form", [*FORMS, "vectors"])
def test_each_sample_is_answered_by_itself(form):
    torch.manual_seed(0)
    network = (Vectors() if form == "vectors" else Attention(form)).double().eval()
    x = inputs(WIDTH if form == "vectors" else SAMPLES)
    converted, order = convert(network, x, 8), torch.randperm(len(x))
    whole = converted(x)
    assert (whole - network(x)).norm() < 0.3 * network(x).norm()
    assert_close(converted(x[order]), whole[order], rtol=0, atol=1e-12)
    for way in ("means", "spikes"):
        *_, answers = converted.steps(x, form=way)
        for some in (slice(0, 1), slice(1, 4)):
            *_, answer = converted.steps(x[some], form=way)
            assert_close(answer, answers[some], rtol=0, atol=1e-12)
    assert_close(converted(torch.cat([x, x])), torch.cat([whole, whole]), rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("layer", "shape"), [(nn.Conv1d, (7,)), (nn.Conv2d, (5, 6)), (nn.Conv3d, (3, 4, 5))])
def test_a_convolution_takes_a_sample_without_a_batch(layer, shape):
    torch.manual_seed(0)
    network = nn.Sequential(layer(2, 4, 3, padding=1), nn.ReLU(), layer(4, 3, 3, padding=1)).double().eval()
    x = torch.randn(4, 2, *shape, dtype=torch.float64)
    converted = convert(network, x, 8)
    assert_close(converted(x[1]), converted(x)[1], rtol=0, atol=1e-12)
    assert_close(convert(network, x[1], 8)(x), convert(network, x[1:2], 8)(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_tokens_first_networks():
    """Inputs [N, B, C], of any number of samples and tokens."""
    torch.manual_seed(0)

    class TokensFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(WIDTH, HEADS), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.head(torch.relu(self.attention(x, x, x, need_weights=False)[0]))

    network, x = TokensFirst().double().eval(), inputs(SAMPLES).transpose(0, 1)
    converted, order = convert(network, x, 8), torch.randperm(SAMPLES)
    assert_close(converted(x[:, order]), converted(x)[:, order], rtol=0, atol=1e-12)
    assert_close(converted(x[:, :2]), converted(x)[:, :2], rtol=0, atol=1e-12)
    assert converted(x[:4]).shape == (4, SAMPLES, 3)
    assert_close(converted(x[:, 0]), converted(x)[:, 0], rtol=0, atol=1e-12)  # unbatched


def test_channels_are_followed_through_moves():
    x = torch.zeros(3, 4, 6)
    rate = Rate.of(x, Kind(axes=(2,)))
    for move, axes in [
        (lambda z: z.transpose(0, 2), (0,)),
        (lambda z: z.reshape(3, 24), (1,)),
        (lambda z: z.view(3, 4, 2, 3).permute(2, 0, 1, 3), (0, 3)),
        (lambda z: z.view(12, 6), (1,)),
        (lambda z: z.chunk(2, 2)[1], (2,)),
        (lambda z: torch.cat([-z[..., 3:], z[..., :3]], -1), (2,)),
        (lambda z: torch.cat([torch.zeros(3, 1, 6, dtype=z.dtype), z], 1), (2,)),
        (lambda z: z[..., :1], None),
        (lambda z: z.flip(1).roll(1, 0), (2,)),
    ]:
        for whole in (False, True):
            if move(x).is_contiguous() or not whole:
                try:
                    numbers = move(numbered(rate, whole))
                except RuntimeError:
                    assert not whole
                    continue
                assert differing(numbers) == axes


def test_batches_of_other_channels_are_refused():
    network = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    converted = convert(network, [x, x[:2]], 4)
    assert converted(x[:1]).shape == (1, 2)
    converted.thresholds[4] = {place: torch.ones(3) for place in converted.thresholds[4]}
    with pytest.raises(ValueError, match="calibration saw channels"):
        converted(x)
    with pytest.raises(ValueError, match="expected a network"):
        convert(lambda x: x, x)
