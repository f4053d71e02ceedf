"""The head's batch normalisation: it leaves a fitted head as it was, and folds away without a trace."""

import numpy as np
import pytest
import torch
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForSequenceClassification
from genecompass.training.finetuning.adapters import add_adapter
from genecompass.training.finetuning.data import CellRows
from genecompass.training.finetuning.norm import PoolerNorm, normalised_pooler, pooler_outputs
from genecompass.training.finetuning.trainer import KeepBest
from torch import nn


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    tokenized = [
        {
            "input_ids": rng.choice(np.arange(2, 50), 12, replace=False),
            "values": rng.random(12).astype(np.float32),
            "species": 0,
        }
        for _ in range(24)
    ]
    return CellRows(tokenized, np.arange(24), np.arange(24) % 3)


def classifier(adapter=False):
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=50, num_labels=3, hidden_dropout=0.0)
    model = GeneCompassForSequenceClassification(config)
    return add_adapter(model, "lora", 2) if adapter else model


def logits(model, rows):
    from genecompass.training.finetuning.fit import predict_rows

    model.eval()
    return predict_rows(model, rows)[0]


def test_a_fitted_head_is_unchanged_until_something_moves(rows):
    model = classifier()
    before = logits(model, rows)
    with normalised_pooler(model, rows, fitted=True) as moments:
        assert len(moments) == 2
        np.testing.assert_allclose(logits(model, rows), before, atol=1e-5)
    np.testing.assert_allclose(logits(model, rows), before, atol=1e-5)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("fitted", [False, True])
def test_folding_changes_no_answer(rows, adapter, fitted):
    model = classifier(adapter)
    with normalised_pooler(model, rows, fitted=fitted):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        batch = torch.utils.data.default_collate([{k: v for k, v in rows[i].items() if k != "label"} for i in range(8)])
        for _ in range(3):
            model.train()
            model(**batch).logits.square().sum().backward()
            optimizer.step()
        normalised = logits(model, rows)
    np.testing.assert_allclose(logits(model, rows), normalised, atol=1e-4)
    plain = model.base_model.model if adapter else model
    assert not any(module._forward_hooks for module in plain.modules())


def test_outputs_of_a_random_head_are_standardised(rows):
    model = classifier()
    with normalised_pooler(model, rows, fitted=False):
        pass
    outputs = pooler_outputs(model, rows)
    torch.testing.assert_close(outputs.mean(dim=0), torch.zeros(64), atol=1e-3, rtol=0)
    # states of an untrained network barely differ: what is below the guard against division by zero stays below one
    assert outputs.std(dim=0).max() < 1.05


def test_a_shift_common_to_a_batch_is_taken_out():
    outputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    norm = PoolerNorm(outputs, fitted=True).train()
    torch.testing.assert_close(norm(3 * outputs + 100), outputs, atol=1e-4, rtol=1e-4)


def test_a_batch_of_one_uses_the_running_moments():
    norm = PoolerNorm(torch.tensor([[1.0], [3.0]]), fitted=False).train()
    assert norm(torch.tensor([[4.0]])).item() == pytest.approx(2.0, abs=1e-3)
    assert norm.mean.item() == 2.0


def test_the_latest_weights_within_a_standard_error_are_kept():
    layer = nn.Linear(1, 1, bias=False)
    moment = torch.zeros(1)
    keep = KeepBest(layer, items=25, moments=[moment])  # one standard error of 0.8 is 0.08
    for step, score in enumerate([0.2, 0.8, 0.73, 0.6]):
        with torch.no_grad():
            layer.weight.fill_(step)
            moment.fill_(10 * step)
        keep.consider(score, 0.0, step)
    keep.restore()
    assert (layer.weight.item(), moment.item()) == (2, 20)
    assert (keep.kept_epoch, keep.kept_score, keep.best) == (2, 0.73, 0.8)


def test_many_items_leave_the_best_only():
    layer = nn.Linear(1, 1, bias=False)
    keep = KeepBest(layer, items=10**6)
    for score in (0.8, 0.79):
        keep.consider(score, 0.0, score)
    assert keep.kept_epoch == 0.8


@pytest.mark.parametrize(("patience", "stops"), [(None, False), (2, True), (3, False)])
def test_patience(patience, stops):
    from types import SimpleNamespace

    keep = KeepBest(nn.Linear(1, 1), items=10, patience=patience, warmup_steps=1)
    control = SimpleNamespace(should_training_stop=False)
    for step, score in enumerate([0.9, 0.5, 0.4, 0.3]):
        keep.on_evaluate(
            None, SimpleNamespace(global_step=step, epoch=step), control, {"eval_score": score, "eval_loss": 1.0}
        )
    assert control.should_training_stop == stops
