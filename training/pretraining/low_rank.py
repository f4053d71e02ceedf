"""Pre-training that changes little: low-rank updates of the encoder, merged into its weights at the end."""

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

# what a cell's vector is made of, and what reads it, trains in full: small, and without low-rank structure
_IN_FULL = ("cell_head", "count_decoder")


def add_low_rank(model: PreTrainedModel, rank: int) -> None:
    """Freeze a model but for low-rank updates of the encoder's linear layers, its cell head and its decoder, in place.

    Parameters
    ----------
    model
        A model for masked genes, with or without a cell head.
    rank
        Of the updates.

    Examples
    --------
    >>> from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
    >>> model = GeneCompassForMaskedGeneModeling(GeneCompassConfig.tiny(vocab_size=20))
    >>> add_low_rank(model, 2)
    >>> model.genecompass.embeddings.word_embeddings.weight.requires_grad
    False
    """
    # every linear layer of the encoder, whatever the heads are called
    targets = r".*\.layers\.\d+\.(attention\.(query|key|value|output)|intermediate|output)"
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or any(part in name for part in _IN_FULL))


def merge_low_rank(model: PreTrainedModel) -> None:
    """Add the updates to the weights and leave a plain model behind, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            merged: Any = module
            merged.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, merged.get_base_layer())
    model.requires_grad_(True)
    model.__dict__.pop("peft_config", None)
