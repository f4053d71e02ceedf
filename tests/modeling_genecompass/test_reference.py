"""The converted model computes what the published code computed."""

import pytest
import torch
from genecompass.modeling_genecompass.conversion.mapping import config_of
from genecompass.modeling_genecompass.conversion.published import read_published
from genecompass.modeling_genecompass.conversion.self_check import PublishedForward
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

IMPLEMENTATIONS = ("eager", "sdpa")


@pytest.fixture(params=IMPLEMENTATIONS)
def attention(request):
    return {"attn_implementation": request.param}


@pytest.fixture
def masked(reference):
    return {name: reference[name] for name in ("input_ids", "values", "attention_mask", "species")}


@pytest.fixture
def unmasked(reference):
    return {
        "input_ids": reference["unmasked_input_ids"],
        "values": reference["unmasked_values"],
        "attention_mask": reference["attention_mask"],
        "species": reference["species"],
    }


@pytest.fixture
def same(reference):
    """Equal within 1e-5 of the reference tensor's largest absolute value wherever something stands."""
    genes = reference["attention_mask"].bool()
    slots = torch.nn.functional.pad(genes, (1, 0), value=True)

    def check(found, name):
        wanted = reference[name]
        assert found.shape == wanted.shape, name
        gap = (found.detach() - wanted).abs()
        if wanted.shape[:2] in (genes.shape, slots.shape):
            gap = gap[genes if wanted.shape[:2] == genes.shape else slots]
        assert float(gap.max()) <= 1e-5 * float(wanted.abs().max()), name

    return check


def test_masked_gene_model(converted, attention, masked, same):
    model = AutoModelForMaskedLM.from_pretrained(converted / "masked_lm", **attention)
    outputs = model(**masked, output_hidden_states=True)
    same(outputs.logits, "logits")
    same(outputs.value_predictions, "value_predictions")
    assert len(outputs.hidden_states) == 4
    for i, states in enumerate(outputs.hidden_states):
        same(states, f"hidden_state_{i}")
    same(outputs.hidden_states[-1], "last_hidden_state_masked")


@pytest.mark.parametrize("full_logits", [False, True])
def test_losses(converted, attention, masked, reference, same, full_logits):
    model = AutoModelForMaskedLM.from_pretrained(converted / "masked_lm", **attention)
    labels = {"labels": reference["labels"], "labels_values": reference["labels_values"]}
    outputs = model(**masked, **labels, full_logits=full_logits)
    for name in ("loss", "id_loss", "value_loss"):
        same(getattr(outputs, name).reshape(reference[name].shape), name)
    targets = reference["labels"] != -100
    if full_logits:
        same(outputs.logits, "logits")
    else:
        wanted = reference["logits"][targets]
        assert outputs.logits.shape == wanted.shape
        assert (outputs.logits - wanted).abs().max() <= 1e-5 * reference["logits"].abs().max()
        gap = (outputs.value_predictions - reference["value_predictions"][targets]).abs().max()
        assert gap <= 1e-5 * reference["value_predictions"].abs().max()


def test_encoder(converted, attention, masked, unmasked, same):
    model = AutoModel.from_pretrained(converted / "masked_lm", **attention)
    same(model(**masked).last_hidden_state, "last_hidden_state_masked")
    same(model(**unmasked).last_hidden_state, "last_hidden_state")


def test_folded_encoder(converted, attention, unmasked, same):
    model = AutoModel.from_pretrained(converted / "masked_lm", **attention).fold_prior_knowledge()
    same(model(**unmasked).last_hidden_state, "last_hidden_state")


def test_packed_encoder(converted, attention, unmasked, reference):
    model = AutoModel.from_pretrained(converted / "masked_lm", **attention)
    kept = unmasked["attention_mask"].bool()
    lengths = kept.sum(1)
    packed = model(
        input_ids=unmasked["input_ids"][kept].unsqueeze(0),
        values=unmasked["values"][kept].unsqueeze(0),
        species=unmasked["species"],
        cell_lengths=lengths,
    ).last_hidden_state
    wanted = torch.cat([reference["last_hidden_state"][i, : n + 1] for i, n in enumerate(lengths)])
    assert (packed[0] - wanted).abs().max() <= 1e-5 * reference["last_hidden_state"].abs().max()


def test_cell_classifier(converted, attention, unmasked, same):
    model = AutoModelForSequenceClassification.from_pretrained(converted / "sequence_classification", **attention)
    # the published head never passes the species on: it encoded every cell as human
    same(model(**{**unmasked, "species": None}).logits, "human_sequence_classification_logits")
    mouse = unmasked["species"].flatten() == 1
    human = model(**{**unmasked, "species": None}).logits
    assert (model(**unmasked).logits - human)[mouse].abs().max() > 1e-3
    torch.testing.assert_close(model(**unmasked).logits[~mouse], human[~mouse])


def test_gene_classifier(converted, attention, unmasked, same):
    model = AutoModelForTokenClassification.from_pretrained(converted / "token_classification", **attention)
    outputs = model(**{**unmasked, "species": None})
    with_species_slot = torch.cat([outputs.species_logits.unsqueeze(1), outputs.logits], dim=1)
    same(with_species_slot, "human_token_classification_logits")


def test_the_self_check_agrees_with_the_published_numbers(fixtures, masked, unmasked, reference, same):
    source = read_published(fixtures / "reference-tiny" / "masked_lm")
    second_opinion = PublishedForward(source, config_of(source))
    flat = {**masked, "species": masked["species"].flatten()}
    same(second_opinion.outputs(flat)["logits"], "logits")
    same(second_opinion.outputs(flat)["value_predictions"], "value_predictions")
    same(second_opinion.encode({**unmasked, "species": flat["species"]}), "last_hidden_state")
