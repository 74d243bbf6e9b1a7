"""Images in tar shards: which sample is where, what is refused, and the same bytes back."""

import io
import json
import multiprocessing
import os
import pickle
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from spikeformers.data import shards as module
from spikeformers.data.order import Shuffled
from spikeformers.data.reading import UNREADABLE
from spikeformers.data.shards import ShardImages, write_shards


def encoded(shade, form="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(content, form)
    return content.getvalue()


def tar(path, members, **kwargs):
    """Writes (name, bytes) as they come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **kwargs) as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def samples(*numbers, classes=3, extension="png"):
    """Image number i has the red value i and the label i modulo `classes`."""
    for i in numbers:
        yield f"{i:04d}.{extension}", encoded(i)
        yield f"{i:04d}.cls", str(i % classes).encode()


@pytest.fixture
def root(tmp_path):
    tar(tmp_path / "train-000000.tar", samples(0, 1, 2, 3))
    tar(tmp_path / "train-000001.tar", samples(4, 5))
    tar(tmp_path / "train-000002.tar", samples(6, 7, 8))
    return tmp_path


def reds(source):
    return [source[i][0].convert("RGB").getpixel((0, 0))[0] for i in range(len(source))]


class Folder:
    """A source of image files."""

    classes = ["left", "right"]

    def __init__(self, folder, images=23, form="JPEG"):
        self.labels = [i % 2 for i in range(images)]
        self.paths = [folder / f"{i}.{form.lower()}" for i in range(images)]
        folder.mkdir()
        for i, path in enumerate(self.paths):
            path.write_bytes(encoded(10 * i, form))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.open(self.paths[index]), self.labels[index]

    def where(self, index):
        return str(self.paths[index])


def test_samples_of_all_shards_in_order(root):
    source = ShardImages(root, "train")
    assert (len(source), source.shards, source.classes) == (9, [4, 2, 3], ["0", "1", "2"])
    assert reds(source) == list(range(9))
    assert [source[i][1] for i in range(9)] == source.labels.tolist() == [0, 1, 2] * 3
    assert isinstance(source[0][1], int)
    assert source.where(4) == f"{root}/train-000001.tar: 0004.png"
    assert source.where(8) == f"{root}/train-000002.tar: 0008.png"
    with pytest.raises(IndexError, match="9 of 9"):
        source[9]


@pytest.mark.parametrize(
    "name", ["val-{}.tar", "val/{}.tar", "imagenet1k-validation-{}.tar", "validation/any{}.tar", "test/{}.tar"]
)
def test_shards_are_found_under_the_usual_names(tmp_path, name):
    tar(tmp_path / name.format("00"), samples(1))
    tar(tmp_path / name.format("01"), samples(2))
    assert reds(ShardImages(tmp_path, "val")) == [1, 2]


def test_members_group_as_webdataset_groups_them(tmp_path):
    members = [
        ("__meta__", b""),
        ("./a/one.JPEG", encoded(0, "JPEG")),
        ("./a/one.CLS", b" 1\n"),
        ("./a/one.json", b"{}"),
        ("./b/one.seg.png", encoded(1)),
        ("./b/one.cls", b"0"),
        ("./b/one.webp", encoded(2, "WEBP")),
        ("./b/.hidden.png", encoded(3)),
        ("notes.txt", b"neither image nor label"),
        (f"{'long/' * 60}name.png", encoded(4)),
        (f"{'long/' * 60}name.cls", b"2"),
    ]
    tar(tmp_path / "train-0.tar", members, format=tarfile.PAX_FORMAT)
    source = ShardImages(tmp_path, "train")
    assert source.labels.tolist() == [1, 0, 2]
    assert [source.where(i).rpartition("/")[2] for i in range(3)] == ["one.JPEG", "one.webp", "name.png"]
    assert {source[i][0].mode for i in range(3)} == {"RGB"}


@pytest.mark.parametrize("name", ["classes.txt", "classnames.txt"])
def test_class_names_from_a_list(root, name):
    (root / name).write_text("ant\nbee\nsea lion\nunseen\n")
    assert ShardImages(root, "train").classes == ["ant", "bee", "sea lion", "unseen"]


def test_class_names_from_hugging_face(root):
    features = {"jpg": {"_type": "Image"}, "cls": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}
    (root / "_info.json").write_text(json.dumps({"features": features, "splits": {}}))
    assert ShardImages(root, "train").classes == ["ant", "bee", "cat"]
    (root / "_info.json").write_text(json.dumps({"splits": {}}))  # timm's has no names
    assert ShardImages(root, "train").classes == ["0", "1", "2"]
    (root / "_info.json").write_text("{")
    with pytest.raises(ValueError, match="_info.json"):
        ShardImages(root, "train")


def test_splits_agree_on_the_number_of_classes(root):
    tar(root / "val-0.tar", samples(1))
    assert ShardImages(root, "val").classes == ShardImages(root, "train").classes == ["0", "1", "2"]


@pytest.fixture
def scanned(monkeypatch):
    """The names of the shards that were scanned."""
    names = []

    def scan(shard, real=module.scan):
        names.append(shard.name)
        return real(shard)

    monkeypatch.setattr(module, "scan", scan)
    return names


def test_shards_are_scanned_once(root, scanned):
    first = ShardImages(root, "train")
    assert len(scanned) == 3
    second = ShardImages(root, "train")
    assert len(scanned) == 3
    assert reds(first) == reds(second) and first.where(7) == second.where(7)
    assert not [entry for entry in os.listdir(root) if entry.startswith(".")], "temporary files are left"


def test_a_changed_shard_is_scanned_again(root, scanned):
    ShardImages(root, "train")
    tar(root / "train-000001.tar", samples(40, 50, 60))
    assert reds(ShardImages(root, "train")) == [0, 1, 2, 3, 40, 50, 60, 6, 7, 8]
    assert scanned[3:] == ["train-000001.tar"]


def test_a_shard_of_the_same_size_but_newer_is_scanned_again(root):
    shard = root / "train-000001.tar"
    ShardImages(root, "train")
    size, time = shard.stat().st_size, shard.stat().st_mtime_ns
    tar(shard, reversed(list(samples(5, 4))))
    os.utime(shard, ns=(time, time + 1))
    assert shard.stat().st_size == size
    assert reds(ShardImages(root, "train"))[4:6] == [4, 5]


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", "truncated", "shorter", "words"])
def test_a_damaged_index_is_made_again(root, damage):
    ShardImages(root, "train")
    index = root / "train-000001.tar.index.json"
    whole = index.read_text()
    saved = json.loads(whole)
    parts = {
        "truncated": whole[:-20],
        "shorter": json.dumps({**saved, "labels": saved["labels"][:1]}),
        "words": json.dumps({**saved, "offsets": ["first", "second"]}),
    }
    index.write_text(parts.get(damage, damage))
    assert reds(ShardImages(root, "train")) == list(range(9))
    assert index.read_text() == whole


def test_a_folder_that_cannot_be_written(root, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(module.tempfile, "mkstemp", refuse)
    assert reds(ShardImages(root, "train")) == list(range(9))
    assert not list(root.glob("*.json"))


def test_worker_processes_read_the_same(root):
    source = ShardImages(root, "train")
    source[0]
    loader = DataLoader(source, None, num_workers=2)
    assert [image.convert("RGB").getpixel((0, 0))[0] for image, _ in loader] == list(range(9))


def test_a_spawned_process_gets_what_it_needs(root):
    source = ShardImages(root, "train")
    reds(source)
    assert reds(pickle.loads(pickle.dumps(source))) == list(range(9))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list open files")
def test_no_file_stays_open(root):
    source = ShardImages(root, "train")
    before = len(os.listdir("/proc/self/fd"))
    reds(source)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_sampler_stays_within_a_few_shards(tmp_path):
    for number in range(20):
        tar(tmp_path / f"train-{number:02d}.tar", samples(*range(5 * number, 5 * number + 5)))
    source = ShardImages(tmp_path, "train")
    order = [index for index, _ in Shuffled(len(source), 10, seed=0, shards=source.shards)]
    assert sorted(order) == list(range(100))
    assert len({index // 5 for index in order[:40]}) == 8


GOOD = list(samples(0, 1, 2))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([*GOOD, ("7.png", b"x")], r"7\.png .* 0 labels"),
        ([*GOOD, ("7.cls", b"1")], r"7\.cls are 0 images"),
        ([*GOOD, ("7.png", b"x"), ("7.jpg", b"x"), ("7.cls", b"1")], r"2 images"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"cat")], r"7\.cls holds b'cat'"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"1.0")], r"7\.cls holds b'1\.0'"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"-1")], r"7\.cls holds b'-1'"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"")], r"7\.cls holds b''"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"1000000")], r"7\.cls holds b'1000000'"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", "²".encode())], r"7\.cls holds"),
        ([*GOOD, ("7.png", b"x"), ("7.cls", b"3")], r"7\.png has the label 3, but there are only 3 classes"),
    ],
)
def test_bad_samples_are_named(tmp_path, members, complaint):
    tar(tmp_path / "train-0.tar", members)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match=rf"train-0\.tar.*{complaint}"):
        ShardImages(tmp_path, "train")


def test_no_truncated_shard_is_taken_for_a_short_one(tmp_path):
    shard = tmp_path / "train-0.tar"
    tar(shard, GOOD)
    with tarfile.open(shard) as file:
        end = file.getmembers()[-1].offset + 2 * tarfile.BLOCKSIZE  # of the last label; then comes the end mark
    whole = shard.read_bytes()
    for size in range(0, end + 1, 256):
        shard.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"train-0\.tar is truncated or no plain tar file"):
            ShardImages(tmp_path, "train")
    shard.write_bytes(whole)
    assert len(ShardImages(tmp_path, "train")) == 3


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    shard = tmp_path / "train-0.tar"
    tar(shard, GOOD)
    with tarfile.open(shard) as file:
        offset = file.getmembers()[2].offset
    content = bytearray(shard.read_bytes())
    content[offset : offset + 200] = b"\xff" * 200
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=rf"byte {offset}"):
        ShardImages(tmp_path, "train")


def test_a_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match="uncompressed"):
        ShardImages(tmp_path, "train")


def test_a_shard_that_cannot_be_read(tmp_path):
    (tmp_path / "train-0.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"cannot read the shard .*train-0\.tar"):
        ShardImages(tmp_path, "train")
    (tmp_path / "val-0.tar").mkdir()
    with pytest.raises(ValueError, match=r"cannot read the shard .*val-0\.tar"):
        ShardImages(tmp_path, "val")


def test_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"no val shards in .*val-000000\.tar"):
        ShardImages(tmp_path, "val")
    with pytest.raises(ValueError, match="unknown split 'dev'; give train or val"):
        ShardImages(tmp_path, "dev")
    tar(tmp_path / "val-0.tar", [("notes.txt", b"")])
    with pytest.raises(ValueError, match="hold no image"):
        ShardImages(tmp_path, "val")


@pytest.mark.parametrize("content", [b"no image", encoded(1, "JPEG")[:-30], b""])
def test_a_broken_image_fails_when_it_is_read(tmp_path, content):
    tar(tmp_path / "train-0.tar", [*GOOD, ("7.jpg", content), ("7.cls", b"0")])
    source = ShardImages(tmp_path, "train")
    assert source[2][1] == 2
    with pytest.raises(UNREADABLE):
        source[3]


def test_files_are_packed_as_they_are(tmp_path):
    folder = Folder(tmp_path / "images")
    written = write_shards(folder, tmp_path / "packed", "train", images_per_shard=10, paths=folder.paths)
    assert [path.name for path in written] == [f"train-{i:06d}.tar" for i in range(3)]
    source = ShardImages(tmp_path / "packed", "train")
    assert source.shards == [10, 10, 3] and source.classes == ["left", "right"]
    contents = {}
    for path in written:
        with tarfile.open(path) as file:
            contents |= {member.name: file.extractfile(member).read() for member in file}
    assert contents == {
        **{f"{i:08d}.jpeg": path.read_bytes() for i, path in enumerate(folder.paths)},
        **{f"{i:08d}.cls": str(i % 2).encode() for i in range(23)},
    }
    assert len(set(source.labels[:10])) == 2
    assert sorted(os.listdir(tmp_path / "packed")) == ["classes.txt", "train"]


def test_samples_of_one_class_are_spread_over_the_shards(tmp_path):
    folder = Folder(tmp_path / "images", images=40)
    folder.labels = [int(i >= 20) for i in range(40)]
    write_shards(folder, tmp_path / "packed", "train", images_per_shard=10, paths=folder.paths)
    labels = ShardImages(tmp_path / "packed", "train").labels
    assert all(0 < labels[start : start + 10].sum() < 10 for start in range(0, 40, 10))


def test_webdataset_reads_our_shards(tmp_path):
    wds = pytest.importorskip("webdataset")
    folder = Folder(tmp_path / "images")
    written = write_shards(folder, tmp_path / "packed", "val", images_per_shard=10, paths=folder.paths)
    read = list(wds.WebDataset([str(path) for path in written], shardshuffle=False))
    assert len(read) == 23
    assert {sample["__key__"]: (sample["jpeg"], int(sample["cls"])) for sample in read} == {
        f"{i:08d}": (path.read_bytes(), i % 2) for i, path in enumerate(folder.paths)
    }
    ours = ShardImages(tmp_path / "packed", "val")
    assert [int(sample["cls"]) for sample in read] == ours.labels.tolist()


def test_we_read_webdatasets_shards(tmp_path):
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=4, verbose=0) as writer:
        for i in range(9):
            writer.write({"__key__": f"sample{i}", "png": encoded(i), "cls": i % 3})
    source = ShardImages(tmp_path, "train")
    assert reds(source) == list(range(9)) and source.shards == [4, 4, 1]
    assert source.labels.tolist() == [0, 1, 2] * 3


@pytest.mark.parametrize("by_path", [True, False])
def test_other_images_become_png_without_loss(tmp_path, by_path):
    folder = Folder(tmp_path / "images", images=4, form="BMP")
    write_shards(folder, tmp_path / "packed", "train", paths=folder.paths if by_path else None)
    source = ShardImages(tmp_path / "packed", "train")
    assert sorted(reds(source)) == [0, 10, 20, 30]
    assert {Path(source.where(i)).suffix for i in range(4)} == {".png"}


def test_the_same_images_make_the_same_shards(tmp_path):
    folder = Folder(tmp_path / "images")
    first, second = (write_shards(folder, tmp_path / name, "train", paths=folder.paths) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_both_splits_go_to_one_folder(tmp_path):
    folder = Folder(tmp_path / "images")
    for split in ("train", "val"):
        write_shards(folder, tmp_path / "packed", split, paths=folder.paths)
    with pytest.raises(ValueError, match="has val shards or a folder val already"):
        write_shards(folder, tmp_path / "packed", "val", paths=folder.paths)
    folder.classes = ["up", "down"]
    (tmp_path / "packed" / "val").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="lists other classes"):
        write_shards(folder, tmp_path / "packed", "val", paths=folder.paths)


def test_a_failed_conversion_leaves_nothing_behind(tmp_path):
    folder = Folder(tmp_path / "images")
    folder.paths[11].unlink()
    with pytest.raises(ValueError, match=r"cannot read the image .*11\.jpeg"):
        write_shards(folder, tmp_path / "packed", "train", images_per_shard=5, paths=folder.paths)
    assert os.listdir(tmp_path / "packed") == []


def test_numbers_out_of_range(tmp_path):
    folder = Folder(tmp_path / "images")
    with pytest.raises(ValueError, match="images_per_shard is 0"):
        write_shards(folder, tmp_path / "packed", "train", images_per_shard=0)
    with pytest.raises(ValueError, match="23 images and 3 paths"):
        write_shards(folder, tmp_path / "packed", "train", paths=folder.paths[:3])


def test_shares_of_large_files_are_found_where_the_index_says(tmp_path):
    members = [
        (f"{i}.{kind}", content)
        for i in range(5)
        for kind, content in (("png", encoded(i) + bytes(i * 9999)), ("cls", b"0"))
    ]
    tar(tmp_path / "train-0.tar", members)
    source = ShardImages(tmp_path, "train")
    assert np.diff(source._indices[0].sizes).min() >= 9000
    assert reds(source) == list(range(5))


class Stuck(Folder):
    """Says that it is at work, and is never finished."""

    def __init__(self, folder, started):
        super().__init__(folder)
        self.started = started

    def __getitem__(self, index):
        self.started.set()
        time.sleep(600)


def test_what_a_killed_writer_leaves_is_cleared_away_and_that_of_another_is_not(tmp_path):
    fork, folder, packed = multiprocessing.get_context("fork"), Folder(tmp_path / "images"), tmp_path / "packed"
    started = fork.Event()
    writer = fork.Process(target=write_shards, args=(Stuck(tmp_path / "more", started), packed, "train"))
    writer.start()
    assert started.wait(60)
    (busy,) = packed.glob(".train.*")
    module._clear_up(packed, "train")
    assert busy.is_dir()
    writer.kill()
    writer.join()
    (packed / ".train.mine").mkdir()
    (packed / ".train.mine" / "notes.txt").touch()  # no writer makes such
    assert len(write_shards(folder, packed, "train", paths=folder.paths)) == 1
    assert sorted(os.listdir(packed)) == [".train.mine", "classes.txt", "train"]


def test_sparse_members_are_refused(tmp_path):
    tar(tmp_path / "train-0.tar", [("1.png", encoded(1))])
    header = bytearray(tarfile.TarInfo("1.cls").tobuf(tarfile.GNU_FORMAT))
    size = b"%011o\0" % (2 * 2**30)  # two gigabytes of nothing
    header[156:157], header[386:398], header[398:410], header[483:495] = b"S", size, b"%011o\0" % 0, size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = (tmp_path / "train-0.tar").read_bytes()
    (tmp_path / "train-0.tar").write_bytes(content[:1024] + header + bytes(1024))
    with pytest.raises(ValueError, match="1.cls is stored with holes"):
        ShardImages(tmp_path, "train")


def test_a_label_of_many_bytes_is_not_read(tmp_path):
    tar(tmp_path / "train-0.tar", [("1.png", encoded(1)), ("1.cls", b"1" * 3_000_000)])
    with pytest.raises(ValueError, match="1.cls holds .*3000000 bytes.*, not a class number"):
        ShardImages(tmp_path, "train")


@pytest.mark.parametrize(
    "column, value",
    [("offsets", -1), ("offsets", 10**30), ("sizes", 2**62), ("sizes", -5), ("labels", -1), ("labels", 2**40)],
)
def test_an_index_that_points_elsewhere_is_made_again(root, column, value):
    ShardImages(root, "train")
    cache = root / "train-000001.tar.index.json"
    saved = json.loads(cache.read_text())
    saved[column][0] = value
    cache.write_text(json.dumps(saved))
    assert reds(ShardImages(root, "train")) == list(range(9))


def test_shards_that_are_no_files_or_of_a_file_manager(root):
    (root / "._train-000009.tar").write_bytes(b"of a file manager")
    assert len(ShardImages(root, "train")) == 9
    os.mkfifo(root / "train-000008.tar")
    with pytest.raises(ValueError, match="train-000008.tar .it is no regular file"):
        ShardImages(root, "train")


def test_a_photo_in_a_shard_is_upright(tmp_path):
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.fromarray(np.rot90(pixels).copy()).save(content, "PNG", exif=exif)
    tar(tmp_path / "train-0.tar", [("1.png", content.getvalue()), ("1.cls", b"0")])
    image, _ = ShardImages(tmp_path, "train")[0]
    assert np.array_equal(np.asarray(image), pixels)
    write_shards(ShardImages(tmp_path, "train"), tmp_path / "again", "train")
    assert np.array_equal(np.asarray(ShardImages(tmp_path / "again", "train")[0][0]), pixels)
