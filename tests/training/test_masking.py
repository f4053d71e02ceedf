import dataclasses

import numpy as np
import pytest
import torch
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import MASK_TOKEN
from genecompass.training.pretraining.losses import count_targets, loss_sums
from genecompass.training.pretraining.masking import (
    NO_TARGET,
    CellMasker,
    MaskedGeneCollator,
    ask_once,
    cell_generator,
    shuffle_ties,
    token_pools,
)
from hypothesis import given, settings
from hypothesis import strategies as st

POOLS = [np.arange(2, 402), np.arange(300, 802)]


def cell(size=200, species=0, seed=0, levels=6, name="a"):
    generator = np.random.default_rng(seed)
    values = np.sort(generator.integers(1, levels + 1, size).astype(np.float32))[::-1].copy()
    ids = generator.choice(POOLS[species], size, replace=False)
    return {"input_ids": ids, "values": values, "species": species, "cell_id": name}


def masker(task="published", **settings_):
    return CellMasker(POOLS, unknown_rank_position=512, task=task, **settings_)


@pytest.mark.parametrize("task", ["published", "hidden_rank"])
def test_masks_depend_on_seed_epoch_and_cell_alone(task):
    same = masker(task)(cell(), 3)
    again = masker(task)(cell(), 3)
    assert all(np.array_equal(same[name], again[name]) for name in same)
    for other in (masker(task)(cell(), 4), masker(task, seed=1)(cell(), 3), masker(task)(cell(name="b"), 3)):
        assert not np.array_equal(same["labels"], other["labels"])


def test_generator_is_the_same_on_every_machine():
    # a pinned number: a change here changes every mask
    assert cell_generator(0, 0, "a").integers(0, 1000, 4).tolist() == [88, 266, 670, 412]
    assert cell_generator(0, 0, "ab").random() != cell_generator(0, 0, "a").random()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=0, max_size=60), st.integers(0, 5))
def test_ties_are_shuffled_within_runs_only(levels, seed):
    values = np.sort(np.array(levels, dtype=np.float32))[::-1]
    order = shuffle_ties(values, cell_generator(seed, 0, "x"))
    assert sorted(order) == list(range(len(values)))
    assert np.array_equal(values[order], values)


def test_ties_come_in_every_order():
    values = np.ones(3, dtype=np.float32)
    orders = {tuple(shuffle_ties(values, cell_generator(0, epoch, "x"))) for epoch in range(200)}
    assert len(orders) == 6


def test_published_shares_and_species():
    fates = {"mask": 0, "random": 0, "same": 0}
    slots = 0
    for number in range(300):
        species = number % 2
        row = cell(species=species, seed=number, name=str(number))
        masked = masker()(row, 0)
        asked = masked["labels"] != NO_TARGET
        slots += len(asked)
        assert asked.sum() == round(0.15 * len(asked))
        assert np.array_equal(masked["value_targets"], asked)
        shown, label = masked["input_ids"][asked], masked["labels"][asked]
        hidden = masked["values"][asked] == -1
        fates["mask"] += int((shown == 1).sum())
        fates["same"] += int(((shown == label) & ~hidden).sum())
        fates["random"] += int((hidden & (shown != 1)).sum())
        assert np.isin(shown[shown != 1], POOLS[species]).all()
        assert np.array_equal(masked["input_ids"][~asked] > 1, np.ones(int((~asked).sum()), dtype=bool))
        assert sorted(np.where(asked, masked["labels"], masked["input_ids"])) == sorted(row["input_ids"])
        assert np.array_equal(masked["position_ids"], np.arange(len(asked)))
    total = sum(fates.values())
    assert abs(total / slots - 0.15) < 0.002
    assert abs(fates["mask"] / total - 0.8) < 0.01
    assert abs(fates["random"] / total - 0.1) < 0.01


def test_hidden_rank_shows_nothing_of_hidden_values():
    """The model's inputs stay the same whatever the hidden genes' values, as long as the same genes are hidden."""
    row = cell(levels=1000)
    hide = masker("hidden_rank", shuffle_equal_values=False)
    masked = hide(row, 0)
    asked = (masked["labels"] != NO_TARGET) | masked["value_targets"]
    hidden = set(np.where(masked["labels"] != NO_TARGET, masked["labels"], masked["input_ids"])[asked])
    # give the hidden genes other values and other ranks; keep the slots that the generator picks
    changed = masked["labels_values"].copy()
    changed[asked] += 500
    visible = ~asked
    assert np.array_equal(masked["position_ids"][visible], np.arange(visible.sum()))
    assert (masked["position_ids"][asked] == 512).all()
    assert (masked["values"][asked] == -1).all()
    assert (np.diff(masked["values"][visible]) <= 0).all()
    # hidden slots stand last, sorted by token: their order says nothing about rank
    named, unnamed = masked["input_ids"][masked["value_targets"]], masked["labels"][masked["labels"] != NO_TARGET]
    assert (np.diff(named) > 0).all()
    assert (np.diff(unnamed) > 0).all()
    assert (masked["input_ids"][masked["labels"] != NO_TARGET] == 1).all()
    assert hidden <= set(row["input_ids"])
    assert set(masked["input_ids"][visible]) == set(row["input_ids"]) - hidden


def test_hidden_rank_inputs_are_equal_for_two_cells_that_differ_in_hidden_values():
    row = cell(levels=1000)
    hide = masker("hidden_rank", shuffle_equal_values=False)
    first = hide(row, 0)
    hidden = np.isin(row["input_ids"], first["input_ids"][first["value_targets"]])
    hidden |= np.isin(row["input_ids"], first["labels"])
    # lift all hidden values without moving any gene to another slot
    other = {**row, "values": np.where(hidden, row["values"] + 0.25, row["values"]).astype(np.float32)}
    second = hide(other, 0)
    for name in ("input_ids", "values", "position_ids"):
        assert np.array_equal(first[name], second[name])
    assert not np.array_equal(first["labels_values"], second["labels_values"])


def test_both_questions_are_asked_even_in_small_cells():
    for size in range(10, 40):
        masked = masker("hidden_rank")(cell(size=size), 0)
        asked = (masked["labels"] != NO_TARGET).sum() + masked["value_targets"].sum()
        assert asked == max(1, round(0.15 * size))
        if asked > 1:
            assert (masked["labels"] != NO_TARGET).any()
            assert masked["value_targets"].any()


def test_a_cell_without_genes_is_named():
    with pytest.raises(InputError, match="'lonely' has no expressed gene"):
        masker()({"input_ids": [], "values": [], "species": 0, "cell_id": "lonely"}, 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"task": "bert"}, "published, hidden_rank"), ({"rate": 0}, "rate"), ({"keep_id": 2}, "keep_id")],
)
def test_settings_that_cannot_be_meant(wrong, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(masker(), **wrong)


def test_token_pools_hold_shared_tokens_for_both_species(toy):
    human, mouse = token_pools(toy.make_table())
    assert set(human) & set(mouse) == set(range(2, 62, 3))
    assert 0 not in human
    assert 1 not in human


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=802, max_position_embeddings=512, unknown_rank=True)
    return GeneCompassForMaskedGeneModeling(config).eval()


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_one_answer_per_cell_scores_as_one_per_slot(model, layout):
    hide = masker("hidden_rank")
    rows = [cell(size=10 + 17 * i, species=i % 2, seed=i, name=str(i)) for i in range(4)]
    rows.insert(2, cell(size=3, name="one question only"))
    once = MaskedGeneCollator(hide, layout, one_answer=True)(rows)
    each = MaskedGeneCollator(hide, layout)(rows)
    assert count_targets(once) == count_targets(each)
    assert (once["labels"] != NO_TARGET).sum() < (each["labels"] != NO_TARGET).sum()
    with torch.no_grad():
        ids, values, _ = loss_sums(model, once)
        _, values_of_each, outputs = loss_sums(model, each)
        expected, answer = 0.0, 0
        for masked in (hide(row, 0) for row in rows):
            for label in masked["labels"][masked["labels"] != NO_TARGET]:
                # a gene that is visible in the cell cannot be the answer
                logits = outputs.logits[answer].clone()
                logits[torch.from_numpy(masked["input_ids"][masked["input_ids"] != MASK_TOKEN])] = -torch.inf
                expected += logits.logsumexp(0) - logits[label]
                answer += 1
    torch.testing.assert_close(ids, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(values, values_of_each, rtol=1e-5, atol=1e-4)


def test_packed_and_padded_batches_score_alike(model):
    rows = [cell(size=20 + 9 * i, species=i % 2, seed=i, name=str(i)) for i in range(3)]
    with torch.no_grad():
        sums = [loss_sums(model, MaskedGeneCollator(masker(), layout)(rows))[:2] for layout in ("padded", "packed")]
    for padded, packed in zip(*sums, strict=True):
        torch.testing.assert_close(padded, packed, rtol=1e-5, atol=1e-4)


def test_ask_once_leaves_cells_without_hidden_ids_alone():
    asked = ask_once({"labels": np.full(4, NO_TARGET)})
    assert (asked["labels"] == NO_TARGET).all()
    assert not asked["hidden_genes"].any()
