import json
import pickle
import resource
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.dataset_scripts.prior_knowledge.tables import assemble, write_priors
from genecompass.modeling_genecompass import GeneCompassForMaskedGeneModeling
from genecompass.modeling_genecompass.conversion import convert_checkpoint
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import check_manifest
from genecompass.training.pretraining import checkpoints
from genecompass.training.pretraining.checkpoints import CheckpointError, checkpoints_in
from genecompass.training.pretraining.pretrain import pretrain
from genecompass.training.pretraining.sources import MemoryCells
from genecompass.training.pretraining.trainer import DivergedError, PriorWarmup
from safetensors.torch import load_file
from transformers import TrainerCallback

pytestmark = pytest.mark.usefixtures("one_thread")


def run(toy, output, *sets, callbacks=(), resume=False, cells=None, table=None):
    return pretrain(
        toy.make_config(output, *sets),
        corpus=toy.make_cells() if cells is None else cells,
        table=toy.make_table() if table is None else table,
        callbacks=callbacks,
        resume=resume,
    )


def program(toy, *arguments, launcher=()):
    command = [sys.executable, *launcher, toy.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def assert_same_weights(first, second, **tolerance):
    one, other = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    assert one.keys() == other.keys()
    for name in one:
        if tolerance:
            torch.testing.assert_close(one[name], other[name], **tolerance)
        else:
            assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("task", ["published", "hidden_rank"])
def test_a_run_leaves_a_complete_checkpoint(toy, tmp_path, task):
    result = run(toy, tmp_path / "run", f"masking.task={task}", "evaluation.every_steps=6")
    assert result.steps == 12
    model = GeneCompassForMaskedGeneModeling.from_pretrained(result.folder)
    assert model.config.unknown_rank == (task == "hidden_rank")
    assert GeneTable.read(result.folder).frame["gene_id"].tolist() == toy.make_table().frame["gene_id"].tolist()
    record = json.loads((result.folder / "pretraining.json").read_text())
    assert record["evaluation"]["task"] == task
    assert record["config"]["masking"]["task"] == task
    assert str(tmp_path) not in (result.folder / "pretraining.json").read_text()
    assert check_manifest(result.folder) == []
    assert not list(result.folder.glob("*.bin"))
    steps = [entry for entry in result.history if "id_loss" in entry]
    assert len(steps) == 12
    assert {"value_loss", "grad_norm", "tokens_per_second", "cells_per_second", "flop_utilisation"} <= steps[0].keys()
    weights = model.config
    for entry in steps:
        both = weights.id_loss_weight * entry["id_loss"] + weights.value_loss_weight * entry["value_loss"]
        assert entry["loss"] == pytest.approx(both, rel=1e-4)
    assert any("eval_id_cross_entropy_human" in entry for entry in result.history)


def test_it_learns(toy, tmp_path):
    """Where cells differ in depth, the value of a named gene is predicted better than by the gene's own mean."""
    sets = ("masking.task=hidden_rank", "optimisation.max_steps=80", "optimisation.learning_rate=0.004")
    sets += ("model.overrides={hidden_size: 32}",)
    result = run(toy, tmp_path / "run", *sets, "data.tokens_per_batch=640", "checkpoints.every_steps=1000")
    assert all(result.evaluation["beaten"]["value"]["gene's own mean"].values())


def test_killed_and_resumed_twice_ends_with_the_same_weights(toy, tmp_path):
    run(toy, tmp_path / "whole", "data.workers=0", "model.overrides={hidden_size: 16, hidden_dropout: 0.1}")
    sets = ["--set", "model.overrides={hidden_size: 16, hidden_dropout: 0.1}"]
    killed = tmp_path / "killed"
    for step, options in ((6, []), (10, ["--resume"])):
        done = program(toy, "--output", killed, "--kill-at", step, *options, *sets)
        assert done.returncode == -9, done.stderr[-2000:]
        assert not (killed / "model.safetensors").exists()
    done = program(toy, "--output", killed, "--resume", *sets, "--record", tmp_path / "record")
    assert done.returncode == 0, done.stderr[-2000:]
    # the last part started at step 8: four steps, not twelve, were read and computed
    assert len(json.loads((tmp_path / "record.0").read_text())["cells"]) == 4
    assert_same_weights(tmp_path / "whole", killed)


def test_resume_with_loader_processes_is_exact_too(toy, tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 8:
                control.should_training_stop = True

    sets = ("data.workers=2", "masking.task=hidden_rank")
    whole = run(toy, tmp_path / "whole", *sets)
    run(toy, tmp_path / "parts", *sets, callbacks=[Stop()])
    parts = run(toy, tmp_path / "parts", *sets, resume=True)
    assert parts.steps == whole.steps == 12
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("task", ["published", "hidden_rank"])
def test_two_processes_share_the_cells_and_train_as_one_with_the_same_batches(toy, tmp_path, monkeypatch, task):
    # twelve cells a batch whatever their lengths; one process takes the two batches of a step as micro-batches
    sets = ["data.tokens_per_batch=4096", "data.pool_cells=12", "data.held_out=0.1", f"masking.task={task}"]
    sets += ["optimisation.max_steps=5", "model.overrides={hidden_size: 16, hidden_dropout: 0.0}"]
    flags = [part for item in sets for part in ("--set", item)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    two = program(toy, "--output", tmp_path / "two", "--record", tmp_path / "two", *flags, launcher=torchrun)
    assert two.returncode == 0, two.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"two.{rank}").read_text()) for rank in (0, 1)]
    everything = [cell for rank in ranks for step in rank["cells"] for cell in step]
    assert len(everything) == len(set(everything)) == 120

    rows = {row["cell_id"]: row for row in toy.make_cells()}
    order = [
        cell for steps in zip(ranks[0]["cells"], ranks[1]["cells"], strict=True) for step in steps for cell in step
    ]
    in_order = [rows.pop(cell) for cell in order] + list(rows.values())
    monkeypatch.setattr(MemoryCells, "__iter__", lambda self: iter(in_order))
    one = run(toy, tmp_path / "one", *sets, "optimisation.gradient_accumulation_steps=2")
    for figure in ("loss", "id_loss", "value_loss", "grad_norm"):
        figures = [[e[figure] for e in history if "id_loss" in e] for history in (ranks[0]["history"], one.history)]
        assert len(figures[0]) == 5
        np.testing.assert_allclose(figures[0], figures[1], rtol=1e-3, err_msg=figure)


def test_global_batch_decides_the_loss_not_its_division(toy, tmp_path):
    """One batch of 24 cells, or two micro-batches of 12 with other numbers of asked slots, give the same step."""
    sets = ("data.held_out=0.1", "data.tokens_per_batch=4096", "model.overrides={hidden_size: 16, hidden_dropout: 0.0}")
    sets += ("optimisation.max_steps=1", "optimisation.warmup_steps=0", "masking.task=hidden_rank")
    cells = toy.make_cells(30)
    whole = run(toy, tmp_path / "whole", *sets, "data.pool_cells=24", cells=cells)
    halves = ("data.pool_cells=12", "optimisation.gradient_accumulation_steps=2")
    parts = run(toy, tmp_path / "parts", *sets, *halves, cells=cells)
    first, second = (next(entry for entry in result.history if "id_loss" in entry) for result in (whole, parts))
    for figure in ("loss", "id_loss", "value_loss", "grad_norm"):
        assert first[figure] == pytest.approx(second[figure], rel=1e-4)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts", rtol=1e-3, atol=1e-4)


def test_only_the_last_checkpoints_are_kept(toy, tmp_path):
    run(toy, tmp_path / "run", "checkpoints.every_steps=2", "checkpoints.keep_last=2")
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["checkpoint-10", "checkpoint-12"]


def test_a_full_disk_leaves_the_last_good_checkpoint(toy, tmp_path):
    class FillDisk(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            # from now on no file may grow beyond a kilobyte: as if the disk were full
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "run"
    try:
        with pytest.raises(CheckpointError, match=r"last good checkpoint is .*checkpoint-4.*--resume"):
            run(toy, folder, callbacks=[FillDisk()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in checkpoints_in(folder)] == ["checkpoint-4"]
    assert not list(folder.glob(".partial*"))
    GeneCompassForMaskedGeneModeling.from_pretrained(folder / "checkpoint-4")
    run(toy, tmp_path / "whole")
    assert run(toy, folder, resume=True).steps == 12
    assert_same_weights(tmp_path / "whole", folder)


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_saved(toy, tmp_path):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 5:
                with torch.no_grad():
                    next(model.parameters()).fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"loss is nan at step .*learning_rate.*checkpoint-4"):
        run(toy, tmp_path / "run", "logging.every_steps=100", callbacks=[Poison()])
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["checkpoint-4"]


def test_time_limit_ends_with_a_checkpoint_to_resume_from(toy, tmp_path):
    part = run(toy, tmp_path / "run", "optimisation.max_minutes=0.00001")
    assert part.stopped_early
    assert part.steps == 1
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["checkpoint-1"]
    whole = run(toy, tmp_path / "run", resume=True)
    assert whole.steps == 12
    assert not whole.stopped_early


def test_prior_warmup_rises_and_ends_at_full_strength(toy, tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.genecompass.embeddings.prior_scale)

    run(toy, tmp_path / "run", "model.prior_warmup_steps=4", "optimisation.max_steps=6", callbacks=[Watch()])
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert PriorWarmup is not None


def assert_folds_and_reloads(folder, batch, out):
    """The checkpoint folds without a change of its outputs, and both forms read back as they were saved."""
    model = GeneCompassForMaskedGeneModeling.from_pretrained(folder).eval()
    with torch.inference_mode():
        before = model(**batch)
        model.fold_prior_knowledge().save_pretrained(out)
        folded = model(**batch)
        again = GeneCompassForMaskedGeneModeling.from_pretrained(out).eval()(**batch)
    for name in ("logits", "value_predictions"):
        torch.testing.assert_close(folded[name], before[name], rtol=0, atol=1e-5)
        assert torch.equal(again[name], folded[name])


def toy_batch(vocabulary):
    generator = torch.manual_seed(0)
    ids = torch.randint(2, vocabulary, (4, 12), generator=generator)
    return {"input_ids": ids, "values": 4 * torch.rand(4, 12, generator=generator), "species": torch.arange(4) % 2}


def test_four_prior_tables_are_trained_with_folded_and_reloaded(toy, tmp_path):
    table, generator = toy.make_table(), np.random.default_rng(0)
    genes = np.arange(2, len(table))
    widths = {"promoter": 3, "co_expression": 4, "gene_family": 5, "grn": 6}
    tables = [
        assemble(name, genes, generator.normal(size=(len(genes), width)), table) for name, width in widths.items()
    ]
    write_priors(tmp_path / "priors.safetensors", tables)
    result = run(toy, tmp_path / "run", f"model.priors={tmp_path}/priors.safetensors", "optimisation.max_steps=4")
    weights = load_file(result.folder / "model.safetensors")
    for prior in tables:
        stored = weights[f"genecompass.embeddings.prior_tables.{prior.name}"]
        np.testing.assert_array_equal(stored.numpy(), prior.matrix)
    assert_folds_and_reloads(result.folder, toy_batch(len(table)), tmp_path / "folded")


def test_a_converted_checkpoint_with_four_priors_trains_on(toy, fixtures, tmp_path):
    genes = {"<pad>": 0, "<mask>": 1} | {f"ENSG{i:011d}": i for i in range(2, 161)}
    genes |= {f"ENSMUSG{i:011d}": i for i in range(161, 320)}
    (tmp_path / "tokens.pickle").write_bytes(pickle.dumps(genes))
    convert_checkpoint(fixtures / "reference-tiny" / "masked_lm", tmp_path / "start", tmp_path / "tokens.pickle")
    before = load_file(tmp_path / "start" / "model.safetensors")
    tables = [name for name in before if ".prior_tables." in name]
    assert len(tables) == 4
    table = GeneTable.read(tmp_path / "start")
    sets = (f"model.from_checkpoint={tmp_path}/start", "model.overrides={}", "optimisation.max_steps=3")
    result = run(toy, tmp_path / "run", *sets, "data.max_length=32", table=table)
    after = load_file(result.folder / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in tables)
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert any("fusion_genes" in name for name in changed)
    assert_folds_and_reloads(result.folder, toy_batch(320), tmp_path / "folded")


def test_epochs_become_steps(toy, tmp_path):
    result = run(toy, tmp_path / "run", "optimisation.max_steps=null", "optimisation.epochs=1", "data.pool_cells=200")
    last = json.loads((checkpoints_in(tmp_path / "run")[-1] / "stream_0.json").read_text())
    assert last["positions"]["0"]["epoch"] in (0, 1)
    assert 8 <= result.steps <= 20


def test_output_folder_in_use(toy, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="in use"):
        run(toy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_nowhere_to_write(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, OSError), match="file"):
        run(toy, tmp_path / "file" / "run")


def test_resume_needs_the_same_run(toy, tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        run(toy, tmp_path / "none", resume=True)
    run(toy, tmp_path / "run", "optimisation.max_steps=4")
    with pytest.raises(InputError, match=r"optimisation\.learning_rate differs"):
        run(toy, tmp_path / "run", "optimisation.max_steps=4", "optimisation.learning_rate=1", resume=True)
    with pytest.raises(InputError, match="corpus has changed"):
        run(toy, tmp_path / "run", "optimisation.max_steps=4", resume=True, cells=toy.make_cells(100))
    with pytest.raises(InputError, match=r"written with workers 0, now it is 2"):
        checkpoints.read_positions(tmp_path / "run" / "checkpoint-4", 0, 1, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cells": []}, "corpus is empty"),
        ({"sets": ["data.held_out=0"]}, "held-out"),
        ({"species": 0}, "species 'mouse' of the vocabulary has no cell"),
        ({"sets": ["optimisation.precision=fp16"]}, "needs a GPU"),
        ({"sets": ["model.overrides={hiden_size: 3}"]}, "no field 'hiden_size'"),
        ({"sets": ["model.overrides={vocab_size: 3}"]}, "follows from the gene table"),
        ({"sets": ["model.use_priors=[grn]"]}, "'grn' is not in"),
        ({"sets": ["logging.to=[wandbb]"]}, "wandbb is not installed"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(toy, tmp_path, change, words):
    cells = change.get("cells", toy.make_cells())
    if "species" in change:
        cells = [row for row in cells if row["species"] == change["species"]]
    with pytest.raises(InputError, match=words) as error:
        run(toy, tmp_path / "run", *change.get("sets", []), cells=cells)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "run").glob("*")) if (tmp_path / "run").exists() else True


def test_what_is_missing_is_named(toy, tmp_path):
    with pytest.raises(InputError, match="no corpus"):
        pretrain(toy.make_config(tmp_path / "run"), table=toy.make_table())
    with pytest.raises(InputError, match="no such corpus folder"):
        pretrain(toy.make_config(tmp_path / "run"), corpus=tmp_path / "none", table=toy.make_table())
    with pytest.raises(InputError, match="no gene table"):
        pretrain(toy.make_config(tmp_path / "run"), corpus=toy.make_cells())


def test_vocabulary_that_does_not_fit_the_corpus():
    from genecompass.training.pretraining.model_setup import limit_table

    table = GeneTable.from_genes(pd.DataFrame({"gene_id": ["ENSG1"], "species": "human"}))
    with pytest.raises(InputError, match="vocabulary and corpus do not fit"):
        limit_table(table, ["ENSDARG1"])


def test_limiting_a_table_keeps_homologs_together(toy):
    from genecompass.training.pretraining.model_setup import limit_table

    limited = limit_table(toy.make_table(), ["ENSG00001", "ENSMUSG00003", "ENSMUSG00004"])
    assert limited.frame["gene_id"].tolist()[2:] == ["ENSG00001", "ENSG00003", "ENSMUSG00003", "ENSMUSG00004"]
    assert limited.token_in_cell[4] == 3
    assert limited.token_in_cell[5] == 5


def test_continuing_from_a_checkpoint(toy, tmp_path):
    first = run(toy, tmp_path / "first", "optimisation.max_steps=4")
    sets = ("optimisation.max_steps=1", "optimisation.learning_rate=0.0", f"model.from_checkpoint={first.folder}")
    run(toy, tmp_path / "second", *sets)
    assert_same_weights(tmp_path / "first", tmp_path / "second")
    with pytest.raises(InputError, match="another vocabulary"):
        table = GeneTable.from_genes(
            pd.DataFrame({"gene_id": [f"X{i}" for i in range(120)], "species": ["human", "mouse"] * 60})
        )
        run(toy, tmp_path / "third", *sets, table=table)


def test_a_model_that_starts_from_statistics_predicts_frequencies_and_tells_species_apart(toy):
    from genecompass.training.pretraining.model_setup import build_model, start_from_statistics

    table, cells = toy.make_table(), toy.make_cells(400)
    torch.manual_seed(0)
    model = build_model(toy.make_config("nowhere"), table)
    start_from_statistics(model, cells)
    counts = np.bincount(np.concatenate([cell["input_ids"] for cell in cells]), minlength=table.vocab_size)
    predicted = torch.softmax(model.decoder.bias, 0).detach().numpy()
    np.testing.assert_allclose(predicted, counts / counts.sum(), atol=2e-4)
    assert model.value_decoder.bias.item() == pytest.approx(
        np.mean(np.concatenate([c["values"] for c in cells])), rel=1e-5
    )
    # the leading axis of cells by genes is the species: genes of one lie on the other side of those of the other
    leading = model.genecompass.embeddings.word_embeddings.weight[:, 0].detach().numpy()
    human_only = np.setdiff1d(np.arange(2, 62), np.arange(2, 62, 3))
    mouse_only = np.setdiff1d(np.arange(62, 122), np.arange(62, 122, 3))
    sides = np.sign(leading[human_only].mean()), np.sign(leading[mouse_only].mean())
    assert sides[0] == -sides[1]
    assert (np.sign(leading[human_only]) == sides[0]).mean() > 0.95
    assert (np.sign(leading[mouse_only]) == sides[1]).mean() > 0.95
