"""Folded prior knowledge: the same numbers from one table, for inference only."""

import copy

import pytest
import torch
from genecompass.modeling_genecompass import GeneCompassForMaskedGeneModeling, GeneCompassModel


@pytest.fixture(scope="module")
def batch(make_cells, pad):
    return pad(make_cells([3, 9, 6, 12]))


@pytest.mark.parametrize("priors", [{}, {"grn": 4}, {"promoter": 5, "co_expression": 3, "grn": 7}])
@pytest.mark.parametrize("species", [["human"], ["human", "mouse"], ["human", "mouse", "rat"]])
def test_equal_to_the_unfolded_model(make, make_cells, pad, priors, species):
    model = make(priors=priors, species=species)
    batch = pad(make_cells([3, 9, 6], species=[i % len(species) for i in range(3)]))
    before = model(**batch).last_hidden_state
    torch.testing.assert_close(model.fold_prior_knowledge()(**batch).last_hidden_state, before, rtol=0, atol=1e-5)


def test_only_remapped_genes_cost_a_second_row(make):
    model = make(GeneCompassModel)
    rows = torch.arange(80).repeat(2, 1)
    rows[1, 10:15] = torch.arange(60, 65)
    model.set_prior_rows(rows)
    assert model.fold_prior_knowledge().config.folded_rows == 85


@pytest.mark.parametrize("auto", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_survives_saving(make, classes, batch, tmp_path, auto):
    model = make(classes[auto])
    expected = model(**batch)[0]
    model.fold_prior_knowledge().save_pretrained(tmp_path)
    loaded = classes[auto].from_pretrained(tmp_path)
    torch.testing.assert_close(
        loaded(**batch)[0], expected, rtol=0, atol=1e-5 * max(1.0, float(expected.detach().abs().max()))
    )
    names = set(loaded.state_dict())
    assert not any("prior_" in name or "word_embeddings" in name for name in names)
    assert loaded.config.folded_rows == model.config.folded_rows


def test_the_decoder_keeps_the_id_embedding(make, batch):
    model = make(GeneCompassForMaskedGeneModeling)
    words = model.genecompass.embeddings.word_embeddings.weight.clone()
    model.fold_prior_knowledge()
    assert torch.equal(model.decoder.weight, words)


def test_it_is_smaller(make):
    model = make(GeneCompassModel, priors={"promoter": 64, "grn": 64})
    size = lambda m: sum(t.numel() for t in m.state_dict().values())  # noqa: E731
    before = size(model)
    assert size(model.fold_prior_knowledge()) < before


def test_it_refuses_to_train(make, batch, tmp_path):
    model = make(GeneCompassForMaskedGeneModeling).fold_prior_knowledge()
    with pytest.raises(ValueError, match="folded, for inference only"):
        model.train()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="folded, for inference only"):
        GeneCompassModel.from_pretrained(tmp_path).train()
    with pytest.raises(ValueError, match="folded already"):
        model.fold_prior_knowledge()
    with pytest.raises(ValueError, match="folded already"):
        model.set_prior_knowledge({})


def test_bfloat16_folds_too(make, batch):
    model = make().bfloat16()
    other = copy.deepcopy(model).fold_prior_knowledge()
    assert other.embeddings.folded_genes.weight.dtype == torch.bfloat16
    gap = (other(**batch).last_hidden_state.float() - model(**batch).last_hidden_state.float()).abs().mean()
    assert gap < 0.02
