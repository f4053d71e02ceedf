"""Count splitting: two parts of the same counts, the same whoever splits them; a short run learns and resumes."""

import json

import numpy as np
import pytest
import torch
from genecompass.inference import load_checkpoint
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.profile import counts_of_values
from genecompass.training.pretraining.cell_statistics import CellStatistics
from genecompass.training.pretraining.count_split import CountSplitCollator, SplitSettings
from genecompass.training.pretraining.pretrain import pretrain
from safetensors.torch import load_file

SMALL = (
    *("masking.task=count_split", "masking.split_genes=[4, 20]", "masking.asked_genes=50"),
    "model.overrides={hidden_size: 16, cell_size: 8, cell_axes: 8, cell_profile: 16}",
)


@pytest.fixture
def ready(toy):
    rows, table = toy.make_cells(), toy.make_table()
    statistics = CellStatistics.count(rows, table, axes=8)
    return rows, table, CountSplitCollator(table, statistics, SplitSettings(fewest_genes=4, most_genes=20))


def test_the_parts_are_a_split_of_the_counts(ready):
    rows, table, collator = ready
    seen = 0
    for row in rows[:40]:
        cell = collator.split(row, epoch=3)
        medians = table.cell_medians(table.species[row["species"]])
        whole = np.rint(counts_of_values(row["values"], row["input_ids"], medians)).astype(int)
        by_token = dict(zip(row["input_ids"].tolist(), whole.tolist(), strict=True))
        both = cell.seen + cell.held_back
        assert all(part <= by_token[token] for token, part in zip(cell.tokens.tolist(), both.tolist(), strict=True))
        # a panel takes genes away from the part that is seen, never from the one that is asked
        kept = cell.seen > 0
        assert (both[kept] == [by_token[token] for token in cell.tokens[kept].tolist()]).all()
        seen += cell.seen.sum()
    assert seen > 0


def test_a_split_depends_on_seed_epoch_and_cell_alone(ready):
    rows, _, collator = ready
    first, again = collator.split(rows[7], 1), collator.split(rows[7], 1)
    np.testing.assert_array_equal(first.seen, again.seen)
    assert (collator.split(rows[7], 2).seen != first.seen).any()
    batch, same = collator(rows[:6], 1), collator(rows[:6], 1)
    assert all(torch.equal(batch[name], same[name]) for name in batch)
    assert (batch["attention_mask"].sum(1) <= 20).all()
    assert (batch["count_targets"] <= 0).logical_or(batch["count_measured"]).all()


def test_what_a_data_set_never_expresses_is_not_asked_of_it(ready):
    rows, table, collator = ready
    reduced = [{**row, "dataset": "panel"} for row in rows]
    for row in reduced:
        kept = np.isin(row["input_ids"], np.arange(2, 20))
        row["input_ids"], row["values"] = row["input_ids"][kept], row["values"][kept]
    both = [*rows, *(row for row in reduced if len(row["input_ids"]))]
    collator = CountSplitCollator(table, CellStatistics.count(both, table, axes=8))
    batch = collator([row for row in reduced if len(row["input_ids"])][:3])
    assert not batch["count_measured"][:, batch["count_tokens"] >= 20].any()


def test_a_run_learns_and_its_checkpoint_has_the_vector(toy, tmp_path):
    config = toy.make_config(tmp_path / "run", *SMALL, "optimisation.max_steps=60", "optimisation.learning_rate=0.01")
    result = pretrain(config, corpus=toy.make_cells(), table=toy.make_table())
    assert all(result.evaluation["beaten"]["count"]["mean of the species"].values())
    model, _ = load_checkpoint(str(tmp_path / "run"), device="cpu")
    assert model.config.cell_width == 24
    assert model.cell_head.axes.abs().sum() > 0
    assert GeneTable.read(tmp_path / "run").has_weights
    record = json.loads((tmp_path / "run" / "pretraining.json").read_text())
    assert record["history"][-2]["count_loss"] < record["history"][0]["count_loss"]


def test_resumed_it_ends_with_the_same_weights(toy, tmp_path):
    settings = (*SMALL, "optimisation.max_steps=6", "checkpoints.every_steps=3")
    pretrain(toy.make_config(tmp_path / "whole", *settings), corpus=toy.make_cells(), table=toy.make_table())

    class Stop(Exception):
        pass

    from transformers import TrainerCallback

    class StopAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:
                raise Stop

    with pytest.raises(Stop):
        pretrain(
            toy.make_config(tmp_path / "cut", *settings),
            corpus=toy.make_cells(),
            table=toy.make_table(),
            callbacks=[StopAt()],
        )
    pretrain(toy.make_config(tmp_path / "cut", *settings), corpus=toy.make_cells(), table=toy.make_table(), resume=True)
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_too_few_cells_are_told(toy):
    with pytest.raises(InputError, match="too few for 128 axes"):
        CellStatistics.count(toy.make_cells(40), toy.make_table(), axes=128)
