"""Losses, accumulation, checkpointing, positions: what training leans on."""

import pytest
import torch
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
)


@pytest.fixture(scope="module")
def model(make):
    return make(GeneCompassForMaskedGeneModeling)


@pytest.fixture(scope="module")
def batch(make_cells, pad):
    batch = pad(make_cells([8, 12, 10, 5]))
    torch.manual_seed(3)
    chosen = (torch.rand(batch["input_ids"].shape) < 0.3) & (batch["attention_mask"] == 1)
    batch["labels"] = torch.where(chosen, batch["input_ids"], -100)
    batch["labels_values"] = batch["values"].clone()
    batch["input_ids"], batch["values"] = batch["input_ids"].clone(), batch["values"].clone()
    batch["input_ids"][chosen], batch["values"][chosen] = 1, -1.0
    return batch


def rows(batch, some):
    return {name: tensor[some] for name, tensor in batch.items()}


def test_loss_is_the_weighted_sum_over_target_slots(model, batch):
    outputs = model(**batch)
    full = model(**{k: v for k, v in batch.items() if not k.startswith("labels")})
    at = batch["labels"] != -100
    id_loss = torch.nn.functional.cross_entropy(full.logits[at], batch["labels"][at])
    value_loss = (full.value_predictions[at] - batch["labels_values"][at]).square().mean()
    torch.testing.assert_close(outputs.id_loss, id_loss)
    torch.testing.assert_close(outputs.value_loss, value_loss)
    torch.testing.assert_close(outputs.loss, 0.2 * id_loss + 0.8 * value_loss)
    assert outputs.logits.shape == (int(at.sum()), 80)
    torch.testing.assert_close(outputs.logits, full.logits[at])


def test_value_targets_may_differ_from_id_targets(model, batch):
    targets = batch["attention_mask"].bool() & (batch["labels"] == -100)
    outputs = model(**batch, value_targets=targets)
    assert outputs.value_predictions.shape == (int(targets.sum()),)
    full = model(**{k: v for k, v in batch.items() if not k.startswith("labels")})
    wanted = (full.value_predictions[targets] - batch["labels_values"][targets]).square().mean()
    torch.testing.assert_close(outputs.value_loss, wanted)
    torch.testing.assert_close(outputs.id_loss, model(**batch).id_loss)


def test_accumulated_steps_equal_one_batch(model, batch):
    items = (batch["labels"] != -100).sum()
    steps = [model(**rows(batch, some), num_items_in_batch=items) for some in ([0, 1], [2], [3])]
    whole = model(**batch)
    for name in ("loss", "id_loss", "value_loss"):
        torch.testing.assert_close(sum(getattr(step, name) for step in steps), getattr(whole, name))


def test_a_batch_without_targets_gives_zero_and_can_step(model, batch):
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    outputs = model(**nothing)
    assert outputs.loss.item() == 0.0
    outputs.loss.backward()


def test_labels_need_their_values(model, batch):
    with pytest.raises(ValueError, match="without labels_values"):
        model(**{k: v for k, v in batch.items() if k != "labels_values"})


def test_priors_never_train_and_everything_else_does(make, batch):
    model = make(GeneCompassForMaskedGeneModeling).train()
    model(**batch).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert not any("prior_tables" in name or "prior_rows" in name for name, _ in model.named_parameters())
    assert model.decoder.weight is model.genecompass.embeddings.word_embeddings.weight


def test_gradient_checkpointing_changes_no_gradient(make, batch):
    gradients = []
    for checkpointed in (False, True):
        model = make(GeneCompassForMaskedGeneModeling, hidden_dropout=0.0).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.genecompass.layers)
        model(**batch).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain)


def test_unknown_rank_is_one_more_position(make, make_cells, pad):
    model = make(unknown_rank=True)
    assert model.embeddings.position_embeddings.weight.shape[0] == 25
    batch = pad(make_cells([6]))
    usual = torch.arange(6).unsqueeze(0)
    same = model(**batch, position_ids=usual).last_hidden_state
    torch.testing.assert_close(same, model(**batch).last_hidden_state)
    hidden = usual.clone()
    hidden[0, 2] = 24
    assert (model(**batch, position_ids=hidden).last_hidden_state - same).abs().max() > 1e-2


def test_fused_genes_can_be_given_instead_of_tokens(make, make_cells, pad):
    for model in (make(), make().fold_prior_knowledge()):
        batch = pad(make_cells([6, 3]))
        fused = model.embeddings.fuse(batch["input_ids"], batch["values"], batch["species"].unsqueeze(1))
        others = {name: batch[name] for name in ("attention_mask", "species")}
        found = model(inputs_embeds=fused, **others).last_hidden_state
        torch.testing.assert_close(found, model(**batch).last_hidden_state)


def test_the_prior_scale_warms_priors_up(make, make_cells, pad):
    model, batch = make(), pad(make_cells([6]))
    full = model(**batch).last_hidden_state
    model.set_prior_scale(0.0)
    none = model(**batch).last_hidden_state
    model.set_prior_knowledge({name: torch.randn(80, width) for name, width in model.config.priors.items()})
    torch.testing.assert_close(model(**batch).last_hidden_state, none)
    assert (full - none).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("options", "labels", "wanted"),
    [
        ({"num_labels": 3}, [2, -100, 0, 1], torch.nn.functional.cross_entropy),
        (
            {"num_labels": 3},
            [[1.0, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]],
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
        ({"num_labels": 1}, [0.5, -1.0, 2.0, 0.0], torch.nn.functional.mse_loss),
        ({"num_labels": 2, "problem_type": "regression"}, [[0.5, 1.0]] * 4, torch.nn.functional.mse_loss),
    ],
)
def test_cell_losses(make, make_cells, pad, options, labels, wanted):
    model = make(GeneCompassForSequenceClassification, **options)
    batch, labels = pad(make_cells([8, 12, 10, 5])), torch.tensor(labels)
    outputs = model(**batch, labels=labels)
    torch.testing.assert_close(
        outputs.loss,
        wanted(outputs.logits.reshape_as(labels) if labels.is_floating_point() else outputs.logits, labels),
    )
    counted = (labels != -100).sum()
    parts = [
        model(**rows(batch, some), labels=labels[some], num_items_in_batch=counted).loss for some in ([0, 1], [2, 3])
    ]
    torch.testing.assert_close(sum(parts), outputs.loss)
    assert model.config.problem_type == options.get("problem_type")


def test_gene_loss_ignores_unlabelled_genes(make, make_cells, pad):
    model, batch = make(GeneCompassForTokenClassification), pad(make_cells([8, 12]))
    labels = torch.full((2, 12), -100)
    labels[0, 3], labels[1, 7] = 2, 1
    outputs = model(**batch, labels=labels)
    at = labels != -100
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits[at], labels[at]))
    assert outputs.logits.shape == (2, 12, 3)
    assert outputs.species_logits.shape == (2, 3)


def test_attentions_and_tuples_on_request(make, make_cells, pad):
    model, batch = make(GeneCompassForMaskedGeneModeling, attn_implementation="eager"), pad(make_cells([6, 3]))
    outputs = model(**batch, output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in outputs.attentions] == [(2, 4, 7, 7)] * 2
    assert [h.shape for h in outputs.hidden_states] == [(2, 7, 16)] * 3
    torch.testing.assert_close(outputs.attentions[0].sum(-1), torch.ones(2, 4, 7))
    assert outputs.attentions[0][1, :, :, 4:].abs().max() == 0.0
    as_tuple = model(**batch, return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], outputs.logits)


def test_the_trainer_drops_nothing_but_predictions():
    assert {"id_loss", "value_loss", "species_logits"} <= set(GeneCompassConfig.keys_to_ignore_at_inference)


def test_predicted_values_are_not_in_steps_under_bfloat16():
    torch.manual_seed(0)
    model = GeneCompassForMaskedGeneModeling(GeneCompassConfig.tiny(vocab_size=1000)).eval()
    batch = {"input_ids": torch.arange(2, 962)[None].reshape(4, 240), "values": torch.rand(4, 240) * 5}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        predicted = model(**batch).value_predictions
    assert predicted.dtype == torch.float32
    assert len(predicted.unique()) > 900, "of 960; bfloat16 alone would leave about a hundred"
