"""The command line speaks one grammar: ``genecompass VERB INPUT... --model M --species S -o OUT``."""

import shlex

import pytest
import typer
from genecompass.tokenization.cell_options import CellOptions

from genecompass.cli import app, main
from genecompass.commands.grammar import as_options

# verbs that draw random numbers, from a pool of cells or genes, for weights or for folds
DRAW = {
    "demo", "adapt", "corpus build", "corpus import", "pretrain", "perturb genes", "perturb fate", "grn", "app",
    "finetune cells", "finetune genes", "respond fit", "species add",
    "priors build grn", "priors build gene_family", "priors build co_expression",
    "priors build all",
    "priors inspect", "benchmark annotation", "benchmark gene-classification", "benchmark perturbation",
    "benchmark fate",
}  # fmt: skip
# they upload, check, document, serve or print, and write no result of their own under a name that the user chooses
WRITE_NOTHING = {"push", "verify", "card", "vocabulary show", "priors inspect", "corpus verify"}


def walk(command, path=()):
    """Every command below `command`, with its words."""
    if hasattr(command, "list_commands"):
        context = command.make_context(" ".join(path), ["--help"], resilient_parsing=True)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(walk(typer.main.get_command(app)))


def options(name):
    return {option: parameter for parameter in COMMANDS[name].params for option in parameter.opts}


def is_option(parameter):
    return parameter.opts[0].startswith("-")


@pytest.mark.parametrize("name", COMMANDS)
class TestEveryCommand:
    def test_files_in_are_arguments_and_what_comes_out_is_an_option(self, name):
        for parameter in COMMANDS[name].params:
            if not is_option(parameter):
                assert not parameter.name.startswith("out"), f"{parameter.name} is an argument"
        assert "--out" not in options(name)
        if name not in WRITE_NOTHING:
            assert {"--output", "-o"} <= set(options(name))

    def test_a_model_is_an_option_with_its_device(self, name):
        assert "model" not in [p.name for p in COMMANDS[name].params if not is_option(p)]
        loads = "--model" in options(name) and name not in ("app", "priors attach", "priors build promoter", "push")
        if loads and name != "verify":
            assert "--device" in options(name)

    def test_species_is_asked_wherever_cells_are_read(self, name):
        reads = {"--" + option.replace("_", "-") for option in CellOptions.__annotations__}
        found = reads & set(options(name))
        assert found in (set(), reads), "some of the reading options, but not all"
        if found:
            species = options(name)["--species"]
            takes_pairs = any("SPECIES=" in (p.metavar or "") for p in COMMANDS[name].params)
            assert species.required or takes_pairs

    def test_seeds(self, name):
        assert ("--seed" in options(name)) == (name in DRAW)
        if "--seeds" in options(name):
            assert isinstance(options(name)["--seeds"].default, str)

    def test_an_example_that_parses(self, name):
        help_text = COMMANDS[name].epilog
        assert help_text.startswith("Example: genecompass " + name), help_text
        for example in help_text.removeprefix("Example: ").split("; "):
            if "torchrun" in example:
                continue
            words = shlex.split(example[example.index("genecompass " + name) :])
            COMMANDS[name].make_context(name, words[1 + len(name.split()) :])

    def test_help_has_sections(self, name, capsys):
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        shown = capsys.readouterr().out
        for section in {getattr(p, "rich_help_panel", None) for p in COMMANDS[name].params} - {None}:
            assert f"\n{section}:\n" in shown


def test_choices_are_refused_before_anything_is_read(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["grn", "absent.h5ad", "--model", "none", "--species", "human", "--method", "guess", "-o", "x.csv"])
    assert stopped.value.code == 2
    assert "'guess' is not one of" in capsys.readouterr().err


def test_messages_speak_of_options():
    known = {"species": "--species", "min_coverage": "--min-coverage", "rescue_ids": "--rescue-ids"}
    assert as_options("pass species='mouse'; or min_coverage=0", known) == "pass --species mouse; or --min-coverage 0"
    assert as_options("rescue_ids=True helps, k=3 not", known) == "--rescue-ids helps, k=3 not"
