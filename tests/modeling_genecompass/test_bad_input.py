"""Bad input is one clear line."""

import pytest
import torch
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel


@pytest.fixture(scope="module")
def model(make):
    return make()


@pytest.fixture
def batch(make_cells, pad):
    return pad(make_cells([4, 6]))


def refuses(model, batch, words):
    with pytest.raises(ValueError, match=words) as caught:
        model(**batch)
    assert "\n" not in str(caught.value)


def test_token_outside_the_vocabulary(model, batch):
    batch["input_ids"][1, 2] = 80
    refuses(model, batch, "token 80 at cell 1, slot 2 is outside the vocabulary of 80 tokens")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(model, batch, value):
    batch["values"][0, 3] = value
    refuses(model, batch, "value at cell 0, slot 3 is NaN or infinite")


def test_unknown_species(model, batch):
    refuses(
        model, {**batch, "species": torch.tensor([0, 2])}, "unknown species index 2; this model knows 0 human, 1 mouse"
    )
    refuses(model, {**batch, "species": torch.tensor([0])}, "one index for each of 2 cells")


def test_too_many_genes(model, make_cells, pad, pack):
    refuses(model, pad(make_cells([25])), "25 gene slots, more than max_position_embeddings=24")
    refuses(model, pack(make_cells([2, 25])), "25 gene slots, more than max_position_embeddings=24")


def test_positions_outside_the_table(model, batch):
    refuses(model, {**batch, "position_ids": torch.full((2, 6), 24)}, "position 24: this model has 24")


def test_inputs_that_do_not_fit_each_other(model, batch, pack, make_cells):
    refuses(model, {"values": batch["values"]}, "exactly one of input_ids and inputs_embeds")
    refuses(model, {"input_ids": batch["input_ids"]}, "values are missing")
    refuses(model, {**batch, "values": batch["values"][:, :2]}, "must agree")
    refuses(model, {**batch, "cell_lengths": torch.tensor([4, 6])}, "packed cells come as one row")
    refuses(model, {**pack(make_cells([4, 6])), "cell_lengths": torch.tensor([4, 5])}, "cell_lengths sum to 9")


def test_checks_of_contents_can_be_left_out(model, batch):
    batch["values"][0, 3] = float("nan")
    assert torch.isnan(model(**batch, validate=False).last_hidden_state[0]).any()


def test_prior_tables_that_do_not_fit(model):
    good = {"promoter": torch.zeros(80, 5), "co_expression": torch.zeros(80, 3)}
    for tables, words in [
        ({"promoter": good["promoter"]}, "table 'co_expression' is missing"),
        ({**good, "grn": torch.zeros(80, 2)}, "table 'grn' is unknown to this model"),
        ({**good, "promoter": torch.zeros(80, 4)}, "shape .80, 4., expected .80, 5."),
        ({**good, "promoter": torch.full((80, 5), float("nan"))}, "NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.set_prior_knowledge(tables)
    with pytest.raises(ValueError, match="prior rows have shape"):
        model.set_prior_rows(torch.zeros(1, 80, dtype=torch.long))
    with pytest.raises(ValueError, match=r"must lie in 0\.\.79"):
        model.set_prior_rows(torch.full((2, 80), 80))


def test_configurations_that_cannot_be(model):
    for options, words in [
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"species": []}, "species is empty"),
        ({"priors": {"grn": 0}}, "width 0"),
        ({"priors": {"a.b": 3}}, "plain word"),
        ({"priors": {"grn": 3}, "prior_order": ["promoter"]}, "does not name the same tables"),
    ]:
        with pytest.raises(ValueError, match=words):
            GeneCompassConfig.tiny(**options)
    with pytest.raises(ValueError, match="cannot be resized"):
        model.resize_token_embeddings(90)


def test_a_single_all_padding_cell_is_legal(model):
    batch = {"input_ids": torch.zeros(1, 3, dtype=torch.long), "values": torch.zeros(1, 3)}
    states = model(**batch, attention_mask=torch.zeros(1, 3, dtype=torch.long)).last_hidden_state
    assert torch.isfinite(states).all()


def test_an_unknown_attention_is_refused():
    with pytest.raises(Exception, match="no_such_attention"):
        GeneCompassModel(GeneCompassConfig.tiny(vocab_size=9, attn_implementation="no_such_attention"))
