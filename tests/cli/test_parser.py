"""How words are read: names and numbers of words by argparse, before anything heavy is imported, and values by jsonargparse."""

import subprocess
import sys
from dataclasses import MISSING, fields
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from spikeformers.cli import VERBS, main
from spikeformers.cli._fields import DATA, data_kinds, fields_of
from spikeformers.cli._parser import Call, parser_of, spelled
from spikeformers.cli._values import typed_parser, values_of
from spikeformers.data import KINDS, EventData, ImageData

SECTIONS = [(section, kind) for verb in VERBS.values() for section in verb.sections for kind in section.kinds]


@pytest.mark.parametrize("reference", sorted({kind for _, kind in SECTIONS}))
def test_what_is_read_from_the_source_is_what_the_class_says(reference):
    section = next(section for section, kind in SECTIONS if kind == reference)
    kind, read = section.load(reference), fields_of(reference)
    hints = get_type_hints(kind)
    assert [each.name for each in read] == [each.name for each in fields(kind)]
    for mine, its in zip(read, fields(kind), strict=True):
        assert mine.help and not mine.help.startswith(" "), mine
        if get_origin(hints[its.name]) is Literal and mine.kind != "Names":
            assert list(mine.choices) == [str(choice) for choice in get_args(hints[its.name])]
        if mine.default is not None:
            assert its.default is not MISSING and mine.default == str(its.default)


def test_data_sets_are_known_without_being_imported():
    assert set(data_kinds()) == set(KINDS)
    for name, reference in data_kinds().items():
        assert reference in DATA and reference.partition(":")[2] == KINDS[name].__name__


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.sections], ids=lambda verb: verb.name)
@pytest.mark.parametrize(("kind", "data"), [(DATA[0], ImageData), (DATA[1], EventData)], ids=["images", "events"])
def test_both_passes_know_the_same_options(verb, kind, data):
    mine, typed = parser_of(verb, kind), typed_parser(verb, data)
    flags = [{flag for action in parser._actions for flag in action.option_strings} for parser in (mine, typed)]
    assert flags[0] == flags[1] - {"--print_shtab", "--print_completion"}


def test_dashes_stand_for_underscores_in_names_of_options_only():
    assert spelled(["a-b", "--run-dir", "c-d", "--data.batch-size=e-f", "--", "--g-h"]) == [
        *("a-b", "--run_dir", "c-d", "--data.batch_size=e-f", "--", "--g-h"),
    ]
    call = Call(
        VERBS["train"],
        ["--run-dir", "a-b", "--model.name", "x", "--model.kwargs.num-heads", "2", "--data.batch-size=3"],
    )
    values = values_of(call, ImageData)
    assert (
        values["run_dir"] == "a-b"
        and values["data"]["batch_size"] == 3
        and values["model"]["kwargs"] == {"num_heads": 2}
    )
    assert main(["predict", "none.ckpt", "x.png", "--top=0"]) == 2


def test_what_was_given_is_known_in_order_and_apart_from_defaults():
    call = Call(VERBS["eval"], ["a.ckpt", "--data.root", "x", "--data.root=y", "--event-driven", "int8"])
    assert (
        call.values("checkpoint") == ["a.ckpt"]
        and call.values("data.root") == ["x", "y"]
        and call.given("data") == {"root"}
    )
    assert "event_driven" in call and "data" not in call and call.kind is None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["list", "--pretraind"], "unknown option --pretraind; did you mean --pretrained?"),
        (["predict", "a", "b", "--bogus", "3"], "unknown option --bogus"),
        (["train", "--data.time_steps", "3"], "unknown option --data.time_steps"),
        (["train", "--data.name", "nmnist", "--data.mean", "3"], "unknown option --data.mean"),
        (["eval", "none.ckpt", "--data.mean", "[0]"], "no checkpoint none.ckpt"),
        (["eval", "a", "b"], "unknown option b"),
        (["import", "none.pth", "out.safetensors"], "there is no checkpoint none.pth"),
        (["convert"], "give the model first"),
        (["help", "traim"], "unknown verb 'traim'; did you mean train?"),
        (["doctor", "--verbose"], "unknown option --verbose"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors(capsys, argv, message):
    assert main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(capsys, verb):
    assert main(["help", verb]) == 0
    out = capsys.readouterr().out
    assert main([verb, "-h"]) == 0
    assert capsys.readouterr().out == out and VERBS[verb].help.split(",")[0][:40] in " ".join(out.split())


def test_help_shows_the_options_of_the_data_that_were_named(capsys):
    assert main(["train", "--data.name", "nmnist", "--help"]) == 0
    assert "--data.time_steps" in capsys.readouterr().out


def test_help_names_all_data_sets(capsys):
    assert main(["train", "--help"]) == 0
    out = capsys.readouterr().out
    named = out.split("data sets: ")[1].split(". ")[0]
    assert set(" ".join(named.split()).split(", ")) == set(data_kinds()) and "--data.time_steps" not in out


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "spikeformers", "traim"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "spikeformers: unknown verb 'traim'; did you mean train?\n"
