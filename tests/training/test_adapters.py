import pytest
import torch
from genecompass.modeling_genecompass import (
    GeneCompassConfig,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
    GeneCompassModel,
)
from genecompass.training.finetuning.adapters import add_adapter, lora_config, trainable_share
from peft import PeftModel

CLASSES = [
    GeneCompassModel,
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
]


def make(cls):
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(
        vocab_size=60, hidden_size=16, intermediate_size=32, priors={"grn": 6}, num_labels=3
    )
    model = cls(config).eval()
    model.set_prior_knowledge({"grn": torch.randn(60, 6)})
    return model


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(2, 60, (3, 7)),
        "values": torch.rand(3, 7),
        "species": torch.tensor([0, 1, 0]),
    }


def disturb(model):
    """Give adapter weights values: they start as an exact no-op."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_saved_reloaded_and_merged_adapters_give_the_same(tmp_path, batch, cls, method):
    plain = make(cls)(**batch)[0]
    adapted = add_adapter(make(cls), method).eval()
    disturb(adapted)
    expected = adapted(**batch)[0].detach()
    assert (expected - plain).abs().max() > 1e-4

    atol = 1e-5 * max(1.0, float(expected.abs().max()))
    adapted.save_pretrained(tmp_path)
    torch.testing.assert_close(
        PeftModel.from_pretrained(make(cls), tmp_path).eval()(**batch)[0], expected, rtol=0, atol=0.1 * atol
    )
    merged = adapted.merge_and_unload()
    assert type(merged) is cls
    torch.testing.assert_close(merged(**batch)[0], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("cls", CLASSES)
def test_only_the_adapter_and_the_head_get_gradients(batch, cls):
    model = add_adapter(make(cls)).train()
    model(**batch)[0].square().sum().backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "modules_to_save" in name for name in with_gradient)
    assert any("attention.query" in name for name in with_gradient)
    assert any("attention.value" in name for name in with_gradient)


def test_default_rank_is_eight_on_query_and_value_of_every_layer():
    model = add_adapter(make(GeneCompassModel))
    adapted = {name for name, module in model.named_modules() if "lora_A" in dict(module.named_children())}
    assert adapted == {f"base_model.model.layers.{i}.attention.{part}" for i in range(2) for part in ("query", "value")}
    assert lora_config(make(GeneCompassModel)).r == 8


def test_all_linear_reaches_the_fusion(batch):
    model = add_adapter(make(GeneCompassModel), target_modules="all-linear").eval()
    before = model(**batch)[0].detach()
    with torch.no_grad():
        model.base_model.model.embeddings.fusion_genes.lora_B["default"].weight.normal_()
    assert (model(**batch)[0] - before).abs().max() > 1e-4


@pytest.mark.parametrize("cls", CLASSES)
def test_bitfit_trains_biases_and_the_head_only(cls):
    model = add_adapter(make(cls), "bitfit")
    trainable, total = trainable_share(model)
    assert 0 < trainable < total / 4
    for name, parameter in model.named_parameters():
        head = name.startswith(("pooler.", "classifier."))
        assert parameter.requires_grad == (name.endswith("bias") or head), name


def test_unknown_methods_and_folded_models_are_refused():
    with pytest.raises(ValueError, match="unknown adapter method 'prefix'"):
        add_adapter(make(GeneCompassModel), "prefix")
    with pytest.raises(ValueError, match="no PEFT configuration"):
        lora_config(make(GeneCompassModel), "bitfit")
    with pytest.raises(ValueError, match="folded, for inference only"):
        add_adapter(make(GeneCompassModel).fold_prior_knowledge())
