"""Names that are no data."""

import warnings
from pathlib import Path

import pytest
from PIL import Image

from spikeformers.data import ImageData, TestSet
from spikeformers.data.listing import class_folders, files_in, of_a_tool


def test_names_that_are_no_data(tmp_path):
    for name in (".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "._1.jpg", ".DS_Store"):
        assert of_a_tool(name)
    for name in ("@eaDir", "@tmp", "#recycle", "#snapshot", "$RECYCLE.BIN", ".git"):
        assert of_a_tool(name, folder=True)
    for name in ("cat", "_other", "eaDir", "2.5", "a@home", "c#"):
        assert not of_a_tool(name) and not of_a_tool(name, folder=True)
    assert not of_a_tool("@friend.jpg") and not of_a_tool("#1.jpg")
    for name in ("b", "a", ".hidden", "@eaDir"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    with pytest.warns(UserWarning, match=r"\.hidden, @eaDir are no class"):
        assert class_folders(tmp_path) == ["a", "b"]


def test_files_are_found_in_folders_below_and_no_link_leads_round(tmp_path):
    for name in ("2.png", "10.PNG", "sub/1.png", ".x/1.png", "__MACOSX/1.png", "sub/._1.png", "note.txt", "sub/b.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "round").symlink_to(tmp_path)
    relative = [
        [str(path.relative_to(tmp_path)) for path in paths] for paths in files_in(tmp_path, (".png",), deep=True)
    ]
    assert relative == [["10.PNG", "2.png", "sub/1.png"], ["note.txt", "sub/b.gif"]]
    assert [path.name for path in files_in(tmp_path, (".png",))[0]] == ["10.PNG", "2.png"]


def pictures(root, names):
    for split in ("train", "val"):
        for name in names:
            path = Path(root, split, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(path, "PNG")
    return ImageData("folder", str(root), img_size=8)


def test_what_is_no_class_or_no_image_is_said(tmp_path):
    data = pictures(
        tmp_path, ["cat/1.png", "dog/1.png", ".ipynb_checkpoints/1.png", "dog/2.heic", "dog/.3.png", "stray.png"]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = TestSet(data)
    texts = [str(warning.message) for warning in caught]
    assert samples.classes == ["cat", "dog"] and len(samples) == 2
    assert any("1 file is left out by name" in text and "2.heic" in text and ".3.png" not in text for text in texts)
    assert any("1 file is left out for lying in no class's folder" in text and "stray.png" in text for text in texts)
    assert any(".ipynb_checkpoints is no class" in text for text in texts)


def test_a_class_without_images_is_named(tmp_path):
    data = pictures(tmp_path, ["cat/1.png", "dog/1.heic"])
    with pytest.raises(
        ValueError, match=r"in the class folder dog of .*; there are files of other names, such as .*1.heic"
    ):
        TestSet(data)
