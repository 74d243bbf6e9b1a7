"""Networks of other libraries become spiking ones: the same answer where nothing is rounded, an ever better one as time goes on."""

from functools import partial

import pytest
import timm
import torch
import torchvision
from timm.models import metaformer
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.measure import following
from spikeformers.transforms.sta import convert

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
VISION = dict(SMALL, image_size=32, patch_size=8)


def timm_model(name, **kwargs):
    return lambda: timm.create_model(name, num_classes=10, **kwargs)


def caformer():
    return metaformer.MetaFormer(
        num_classes=10,
        depths=(1, 1, 1, 1),
        dims=(16, 16, 32, 32),
        token_mixers=[metaformer.SepConv] * 2 + [metaformer.Attention] * 2,
        norm_layers=[metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2,
        res_scale_init_values=(None, None, 1.0, 1.0),
        layer_scale_init_values=None,
    )


def torchvision_swin(block, downsample):
    swin = torchvision.models.swin_transformer
    return swin.SwinTransformer(
        [4, 4],
        16,
        [1, 1],
        [2, 2],
        [4, 4],
        num_classes=10,
        block=getattr(swin, block),
        downsample_layer=getattr(swin, downsample),
    )


def hugging_face(model, config, **kwargs):
    def make():
        transformers = pytest.importorskip("transformers")
        return getattr(transformers, model)(getattr(transformers, config)(**kwargs))

    return make


TEXT = dict(SMALL, vocab_size=60)
MODELS = {
    "vit": timm_model("vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=48, patch_size=8),
    "deit3": timm_model("deit3_small_patch16_224", img_size=32, depth=2, embed_dim=48, num_heads=3, patch_size=8),
    "deit_distilled": timm_model("deit_tiny_distilled_patch16_224", img_size=32, depth=1, patch_size=8),
    "swin": timm_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=24, depths=(2, 1), num_heads=(2, 2)
    ),
    "swinv2": timm_model(
        "swinv2_tiny_window8_256", img_size=32, window_size=4, embed_dim=24, depths=(2, 1), num_heads=(2, 2)
    ),
    "convnext": timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(16, 16, 24, 24)),
    "convnextv2": timm_model("convnextv2_atto", depths=(1, 1, 1, 1), dims=(16, 16, 24, 24)),
    "caformer": caformer,
    "eva02": timm_model("eva02_tiny_patch14_224", img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3),
    "dinov2": timm_model("vit_small_patch14_dinov2", img_size=32, patch_size=8, depth=2, embed_dim=48, num_heads=3),
    "siglip": timm_model("vit_base_patch16_siglip_224", img_size=32, patch_size=8, depth=1, embed_dim=48, num_heads=3),
    "xcit": timm_model("xcit_nano_12_p16_224", img_size=32, depth=2, embed_dim=48),
    "efficientnet": timm_model("test_efficientnet"),
    "torchvision_vit": lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10),
    "torchvision_swin": partial(torchvision_swin, "SwinTransformerBlock", "PatchMerging"),
    "torchvision_swinv2": partial(torchvision_swin, "SwinTransformerBlockV2", "PatchMergingV2"),
    "hf_vit": hugging_face("ViTForImageClassification", "ViTConfig", **VISION, num_labels=10),
    "hf_dinov2": hugging_face("Dinov2Model", "Dinov2Config", **VISION, use_swiglu_ffn=True),
    "hf_clip_image": hugging_face("CLIPVisionModelWithProjection", "CLIPVisionConfig", **VISION, projection_dim=16),
    "hf_clip_text": hugging_face(
        "CLIPTextModelWithProjection",
        "CLIPTextConfig",
        **TEXT,
        max_position_embeddings=12,
        projection_dim=16,
        eos_token_id=59,
    ),
    "hf_bert": hugging_face("BertModel", "BertConfig", **TEXT),
    "hf_bert_plain": hugging_face("BertModel", "BertConfig", **TEXT, attn_implementation="eager"),
    "hf_roberta": hugging_face("RobertaModel", "RobertaConfig", **TEXT),
    "hf_distilbert": hugging_face(
        "DistilBertModel", "DistilBertConfig", dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=60
    ),
}
SENTENCES = ("hf_bert", "hf_bert_plain", "hf_roberta", "hf_distilbert", "hf_clip_text")


def alive(model):
    """With weights that let something through: new models often begin with silent branches."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif parameter.abs().max() < 1e-3:
            nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def answer(output):
    """Of a model, one tensor."""
    if isinstance(output, torch.Tensor):
        return output
    return next(output[key] for key in ("logits", "image_embeds", "text_embeds", "last_hidden_state") if key in output)


@pytest.fixture(scope="module", params=MODELS)
def network(request):
    """A model, its converted form, inputs as keyword arguments (positional: "x"), and the right answer."""
    torch.manual_seed(0)
    model = alive(MODELS[request.param]())
    if request.param in SENTENCES:
        tokens, mask = torch.randint(5, 59, (4, 9)), torch.ones(4, 9, dtype=torch.long)
        mask[1, 5:], mask[2, 2:] = 0, 0
        inputs = {"input_ids": tokens.where(mask == 1, 1), "attention_mask": mask}
        call = lambda function, inputs, **options: function(**inputs, **options)  # noqa: E731
        calibration = [inputs]
    else:
        inputs = {"x": torch.randn(4, 3, 32, 32, dtype=torch.float64)}
        call = lambda function, inputs, **options: function(inputs["x"], **options)  # noqa: E731
        calibration = inputs["x"]
    with torch.no_grad():
        right = answer(call(model, inputs))
    return call, convert(model, calibration, 32), inputs, right


def error(found, right):
    return float((answer(found) - right).norm() / right.norm())


def test_answers_approach_those_of_the_network(network):
    call, converted, inputs, right = network
    errors = [error(output, right) for output in call(converted.steps, inputs)]
    assert errors[31] < 0.06 and errors[31] < 0.6 * errors[7] < 0.5 * errors[0]


def test_without_rounding_nothing_changes(network):
    call, converted, inputs, right = network
    kept, converted.thresholds = converted.thresholds, {}
    try:
        for form in ("means", "spikes"):
            for output in call(converted.steps, inputs, time_steps=3, form=form):
                assert_close(answer(output), right, rtol=1e-9, atol=1e-9)
    finally:
        converted.thresholds = kept


def test_layers_that_read_spikes_answer_the_same(network):
    call, converted, inputs, _ = network
    means, spikes = (call(converted.steps, inputs, time_steps=4, form=form) for form in ("means", "spikes"))
    for a, b in zip(means, spikes, strict=True):
        assert_close(answer(a), answer(b), rtol=1e-9, atol=1e-9)


def test_steps_one_by_one_are_the_whole(network):
    call, converted, inputs, _ = network
    state = converted.start()
    for _ in range(3):
        last = call(partial(converted.step, state), inputs)
    assert_close(answer(last), answer(call(converted, inputs, time_steps=3)), rtol=1e-9, atol=1e-9)


def test_samples_do_not_see_their_batchmates(network):
    call, converted, inputs, _ = network
    alone = call(converted, {key: value[2:3] for key, value in inputs.items()}, time_steps=3)
    assert_close(answer(alone), answer(call(converted, inputs, time_steps=3))[2:3], rtol=1e-9, atol=1e-9)


# what cannot be converted, and what a user may ask for


class Reading(nn.Module):
    """Linear - something - linear."""

    def __init__(self, something):
        super().__init__()
        self.first, self.second, self.something = nn.Linear(8, 8), nn.Linear(8, 8), something

    def forward(self, x):
        return self.second(self.something(self.first(x)))


class Nested(nn.Module):
    def __init__(self, something):
        super().__init__()
        self.inner = Reading(something)

    def forward(self, x):
        return self.inner(x)


def indexed(x):
    return x[..., x.argmax(-1).flatten()[:1]].expand(-1, 8)


def overwritten(x):
    result = torch.zeros(x.shape)
    result[:, :4] = x[:, :4]
    return result


@pytest.mark.parametrize(
    "something, word",
    [
        (indexed, "argmax"),
        (overwritten, "__setitem__"),
        (lambda x: x * x.max().item(), "item"),
        (lambda x: x.topk(3)[0], "topk"),
    ],
    ids=["indices", "written", "leaving", "several"],
)
def test_what_cannot_be_converted_is_named_with_its_module(something, word):
    with pytest.raises(ValueError, match=rf"^inner: {word} cannot be converted"):
        convert(Nested(something).eval(), torch.randn(4, 8))


@pytest.mark.parametrize(
    "something",
    [
        lambda x: F.relu(x, inplace=True),
        lambda x: x.mul_(0.5).add_(x),
        lambda x: x * x.sigmoid(),
        lambda x: x.softmax(-1) / (1 + x.square()),
        lambda x: torch.cat([x.chunk(2, -1)[1], torch.ones_like(x[:, :4])], -1),
        lambda x: (x[:, None, :] @ x[:, :, None])[:, 0].expand(-1, 8),
    ],
    ids=["relu in place", "affine in place", "gate", "quotient", "concatenation", "inner product"],
)
def test_functions_in_a_forward_are_converted(something):
    torch.manual_seed(0)
    model, x = Nested(something).double().eval(), torch.randn(5, 8, dtype=torch.float64)
    right = model(x)
    errors = [error(output, right) for output in convert(model, x, 64).steps(x)]
    assert errors[63] < 0.03 and errors[63] <= errors[7]


def test_the_old_model_is_left_alone_and_its_weights_are_shared():
    model = torchvision.models.VisionTransformer(32, 8, 1, 4, 32, 48, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    before = model(x)
    converted = convert(model, x)
    assert torch.equal(model(x), before) and not model._forward_pre_hooks
    assert {p.data_ptr() for p in model.parameters()} == {p.data_ptr() for p in converted.model.parameters()}


def test_per_step_answers_have_the_mean_so_far_as_answer():
    model = torchvision.models.VisionTransformer(32, 8, 1, 4, 32, 48, num_classes=10).double().eval()
    x = torch.randn(2, 3, 32, 32).double()
    converted = convert(model, x, 5)
    every = converted(x, per_step=True)
    assert every.shape == (5, 2, 10)
    for t, output in enumerate(converted.steps(x), 1):
        assert_close(every[:t].mean(0), output)


def test_constant_inputs_are_computed_once():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    converted = convert(model, x, 4)
    state = converted.start(counting=True)
    for _ in range(3):
        converted.step(state, x, constant=True)
    assert all(0 < rate <= 1 for rates in state.tally.firing_rates_per_step.values() for rate in rates)
    with following(converted) as recorder:
        recorder.run(x)
    first = next(operation for operation in recorder.operations.values() if operation.category == "convolution")
    assert first.charged("levels")["macs"] == [2 * 4 * 192 * 3 * 16 * 16] and first.steps == 1


@pytest.mark.parametrize(
    "name", ["vit", "convnext", "convnextv2", "eva02", "siglip", "torchvision_swin", "hf_clip_image", "hf_bert"]
)
def test_with_approximated_functions_answers_approach_the_network_too(name):
    torch.manual_seed(0)
    model = alive(MODELS[name]()).float()
    if name in SENTENCES:
        inputs = {"input_ids": torch.randint(5, 59, (4, 9))}
        call = lambda function, **options: function(**inputs, **options)  # noqa: E731
        calibration = [inputs]
    else:
        calibration = torch.randn(4, 3, 32, 32)
        call = lambda function, **options: function(calibration, **options)  # noqa: E731
    with torch.no_grad():
        right = answer(call(model))
    converted = convert(model, calibration, 32, spiking="full")
    state = converted.start()
    errors = [error(output, right) for output in call(converted.steps, state=state)]
    assert errors[31] < 0.06 and errors[31] < 0.5 * errors[3]
    hybrid = convert(model, calibration, 2)
    islands = hybrid.start()
    call(hybrid.steps, state=islands).__next__()
    assert not state.islands and state.fitted == islands.islands and state.fitted


def test_ternary_spikes_need_more_steps_than_bursts():
    torch.manual_seed(0)
    model = alive(torchvision.models.VisionTransformer(32, 8, 2, 4, 32, 48, num_classes=10))
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    right = model(x)
    few, many = (error(convert(model, x, 16, levels=levels)(x), right) for levels in (1, 8))
    assert many < few < 0.5


def test_thresholds_for_several_time_steps():
    model = Reading(F.gelu).double().eval()
    x = torch.randn(64, 8, dtype=torch.float64)
    converted = convert(model, x, (2, 32))
    assert converted.time_steps == 32 and set(converted.thresholds) == {2, 32}
    assert converted.start(time_steps=2).thresholds is converted.thresholds[2]
    assert converted.start(time_steps=8).thresholds is converted.thresholds[32]
    assert converted.start(time_steps=99).thresholds is converted.thresholds[32]
    right = model(x)
    assert error(converted(x, time_steps=2), right) < error(convert(model, x, 32)(x, time_steps=2), right)


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(time_steps=0), "time_steps"),
        (dict(time_steps=()), "time_steps"),
        (dict(levels=0), "levels"),
        (dict(potential=1.0), "potential"),
        (dict(spiking="yes"), "spiking"),
        (dict(calibration=[]), "there are no inputs"),
    ],
)
def test_options_out_of_range(options, word):
    given = {"calibration": torch.randn(2, 8), **options}
    with pytest.raises(ValueError, match=word):
        convert(Reading(F.gelu).eval(), given.pop("calibration"), **given)


def test_another_batch_needs_another_state():
    converted = convert(Reading(F.gelu).eval(), torch.randn(4, 8))
    state = converted.start()
    converted.step(state, torch.randn(4, 8))
    with pytest.raises(ValueError, match="start anew"):
        converted.step(state, torch.randn(3, 8))


@pytest.mark.parametrize("dropped", [False, True])
def test_attention_that_is_written_out_is_as_good_as_fused(dropped):
    """Both send exponentials; so equal weights of 1 / 64, below a spike, arrive."""

    class Attention(nn.Module):
        def __init__(self, fused):
            super().__init__()
            self.qkv, self.fused = nn.Linear(16, 48), fused

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
            if self.fused:
                return F.scaled_dot_product_attention(q, k, v)
            weights = (q @ k.transpose(-2, -1) * 8**-0.5).softmax(dim=-1)
            return (F.dropout(weights, 0.5, self.training) if dropped else weights) @ v

    torch.manual_seed(0)
    fused, written, x = Attention(True).eval(), Attention(False).eval(), 0.1 * torch.randn(4, 64, 16)
    written.load_state_dict(fused.state_dict())
    with torch.no_grad():
        right = fused(x)
    converted = convert(written, x, 16, levels=1)
    assert error(converted(x), right) < 1.2 * error(convert(fused, x, 16, levels=1)(x), right) < 0.1
    assert_close(converted(x), converted(x, form="spikes"), atol=1e-4, rtol=1e-3)
