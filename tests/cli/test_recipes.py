import pytest

from spikeformers.cli import main
from spikeformers.cli._parser import Call
from spikeformers.cli._recipes import headline, recipe_file, shipped_recipes
from spikeformers.cli.train import TRAIN


@pytest.mark.parametrize("named", ["digits", "digits.yaml", "recipes/digits.yaml"])
def test_recipes_that_ship_are_found_from_anywhere(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recipe_file(named) == shipped_recipes()["digits"]


def test_a_file_of_ones_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("seed: 3")
    assert recipe_file("digits").read_text() == "seed: 3"


@pytest.mark.parametrize("named", ["digit", "elsewhere/digits.yaml", "digits.json", "no_such_recipe.yaml"])
def test_others_are_missing(named):
    with pytest.raises(ValueError, match="File does not exist.*(did you mean the recipe digits|list --recipes)"):
        recipe_file(named)


@pytest.mark.parametrize("words", [["--config", "digits"], ["--config=digits"]])
def test_the_command_line_takes_names(words, capsys):
    call = Call(TRAIN, words)
    assert call.recipes[shipped_recipes()["digits"]]["model"]["name"]
    assert str(shipped_recipes()["digits"]) in call.with_files[-1] and call.argv == words
    assert main(["train", *words, "--print_config"]) == 0
    assert "meta_spikeformer" in capsys.readouterr().out


def test_list_shows_them(capsys):
    assert main(["list", "--recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped_recipes()) + 1 and lines[-1].startswith("train one with")
    assert any(line.split()[0] == "digits" and "handwritten digits" in line for line in lines)
    assert main(["list", "--recipes", "cifar10_e*"]) == 0
    assert capsys.readouterr().out.count("cifar10_edge") == 2
    assert main(["list", "--recipes", "x*"]) == 2
    assert all(headline(path) for path in shipped_recipes().values())
