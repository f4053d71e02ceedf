"""The cell vector: off by default, the same however cells are laid out, and no more than what tokens say."""

import numpy as np
import pytest
import torch
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassModel,
)
from genecompass.tokenization.batching import pack_cells, pad_cells
from genecompass.tokenization.profile import bag, bag_matrix, profiles

VOCAB = 60


def config(**changes):
    sizes = {"vocab_size": VOCAB, "cell_size": 12, "cell_axes": 8, "cell_profile": 20, "rank_positions": False}
    return GeneCompassConfig.tiny(**{**sizes, **changes})


def encoder(**changes):
    torch.manual_seed(0)
    model = GeneCompassModel(config(**changes)).eval()
    draw = torch.Generator().manual_seed(1)
    head = model.cell_head
    head.axes.copy_(torch.randn(head.axes.shape, generator=draw))
    head.weights.copy_(torch.rand(VOCAB, generator=draw) + 0.5)
    head.medians.copy_(torch.rand(head.medians.shape, generator=draw) + 1)
    return model


def cells(lengths=(5, 9, 3)):
    draw = np.random.default_rng(0)
    rows = []
    for number, length in enumerate(lengths):
        values = np.sort(draw.random(length).astype(np.float32) * 4 + 0.1)[::-1]
        rows.append({"input_ids": draw.permutation(VOCAB - 2)[:length] + 2, "values": values, "species": number % 2})
    return rows


def test_without_it_the_state_dict_is_as_before():
    plain = GeneCompassForMaskedGeneModeling(GeneCompassConfig.tiny(vocab_size=VOCAB))
    assert not [name for name in plain.state_dict() if "cell_head" in name or "count_decoder" in name]
    assert plain.genecompass(input_ids=torch.tensor([[5]]), values=torch.ones(1, 1)).cell_embedding is None
    assert GeneCompassConfig().cell_width == 0


@torch.no_grad()
def test_padded_packed_and_one_by_one_agree():
    model, rows = encoder(), cells()
    padded = model(**pad_cells(rows)).cell_embedding
    packed = model(**pack_cells(rows)).cell_embedding
    single = torch.cat([model(**pad_cells([row])).cell_embedding for row in rows])
    assert padded.shape == (3, 32)
    torch.testing.assert_close(padded, packed, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(padded, single, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_whole_cells_speak_through_the_profile():
    model, rows = encoder(), cells()
    short = [{**row, "input_ids": row["input_ids"][:3], "values": row["values"][:3]} for row in rows]
    whole = [
        {**s, "profile_ids": r["input_ids"], "profile_values": r["values"]} for s, r in zip(short, rows, strict=True)
    ]
    told = model(**pad_cells(whole)).cell_embedding
    packed = model(**pack_cells(whole)).cell_embedding
    torch.testing.assert_close(told, packed, atol=1e-5, rtol=1e-5)
    # the fixed profile is that of all genes, the trained part reads the short cell
    torch.testing.assert_close(told[:, 12:], model(**pad_cells(rows)).cell_embedding[:, 12:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(told, model(**pad_cells(short)).cell_embedding, atol=1e-3)


@torch.no_grad()
def test_the_profile_is_the_one_that_needs_no_network():
    model, rows = encoder(), cells()
    head = model.cell_head
    indptr = np.cumsum([0] + [len(row["input_ids"]) for row in rows])
    tokens = np.concatenate([row["input_ids"] for row in rows])
    counts = np.concatenate(
        [(np.exp2(row["values"]) - 1) * head.medians[row["species"]].numpy()[row["input_ids"]] for row in rows]
    )
    expected = bag(profiles(indptr, tokens, counts, head.weights.numpy()), bag_matrix(VOCAB, 20))
    np.testing.assert_allclose(model(**pad_cells(rows)).cell_embedding[:, 12:].numpy(), expected, atol=1e-4)


@torch.no_grad()
def test_an_empty_cell_has_a_finite_vector():
    batch = pad_cells([*cells(), {"input_ids": np.array([], int), "values": np.array([], np.float32), "species": 0}])
    assert torch.isfinite(encoder()(**batch).cell_embedding).all()


@torch.no_grad()
def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, rows = encoder(), cells()
    model.save_pretrained(tmp_path)
    again = GeneCompassModel.from_pretrained(tmp_path).eval()
    batch = pad_cells(rows)
    torch.testing.assert_close(again(**batch).cell_embedding, model(**batch).cell_embedding)


@torch.no_grad()
def test_folding_keeps_it():
    model, batch = encoder(priors={"grn": 4}), pad_cells(cells())
    before = model(**batch).cell_embedding
    model.fold_prior_knowledge()
    torch.testing.assert_close(model(**batch).cell_embedding, before, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_classifier_reads_it():
    torch.manual_seed(0)
    model = GeneCompassForSequenceClassification(config(classifier_pooling="cell", num_labels=3)).eval()
    assert model.pooler.in_features == 32
    assert model(**pad_cells(cells())).logits.shape == (3, 3)
    with pytest.raises(ValueError, match="no cell vector"):
        GeneCompassConfig.tiny(classifier_pooling="cell")


def test_ranks_are_not_read_where_genes_do_not_know_them():
    model, rows = encoder(), cells()
    batch = pack_cells(rows)
    shifted = {**batch, "position_ids": batch["position_ids"] * 0 + 1}
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, model(**shifted).last_hidden_state)


def test_counts_are_predicted_from_the_trained_part_alone():
    torch.manual_seed(0)
    model = GeneCompassForMaskedGeneModeling(config()).train()
    batch = pad_cells(cells())
    asked = {
        "count_tokens": torch.arange(2, 12),
        "count_targets": torch.randint(0, 4, (3, 10)).float(),
        "count_measured": torch.ones(3, 10, dtype=torch.bool),
    }
    first = model(**batch, **asked).loss
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss = model(**batch, **asked).loss
        loss.backward()
        optimizer.step()
    assert loss < first - 0.1
    unmeasured = {**asked, "count_measured": torch.zeros(3, 10, dtype=torch.bool)}
    assert model(**batch, **unmeasured).count_loss.item() == 0.0
