"""An independent second opinion on a conversion: the published computation, spelt out over the published tensors."""

import torch
from torch.nn import functional as F

from ..configuration_genecompass import GeneCompassConfig
from ..pretrained_genecompass import GeneCompassPreTrainedModel
from .published import PublishedCheckpoint

TOLERANCE = 1e-5
Batch = dict[str, torch.Tensor]


class PublishedForward:
    """What the published model computes, function by function, straight from its state dict in float32.

    It shares no code and no tensor layout with the model that it checks: no split fusion, no merged biases.

    Parameters
    ----------
    source
        The published checkpoint.
    config
        The converted configuration, for sizes.
    """

    def __init__(self, source: PublishedCheckpoint, config: GeneCompassConfig) -> None:
        self.source, self.config = source, config

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self.source.need(f"{name}.weight").float(), self.source.need(f"{name}.bias").float())

    def _norm(self, x: torch.Tensor, name: str, eps: float) -> torch.Tensor:
        weight, bias = self.source.need(f"{name}.weight").float(), self.source.need(f"{name}.bias").float()
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    def encode(self, batch: Batch) -> torch.Tensor:
        """Last hidden states with the species slot first, (cells, 1 + genes, hidden)."""
        stem, need = "bert.embeddings.", self.source.need
        ids, values, species = batch["input_ids"], batch["values"], batch["species"]
        rows = torch.where(species[:, None] == 0, ids, need(stem + "homologous_index").long()[ids])
        parts = [need(stem + "word_embeddings.weight").float()[ids], values[..., None]]
        for prior in self.source.priors:
            known = need(f"{stem}{prior}_knowledge").float()[rows]
            parts.append(self._linear(known, f"{stem}{prior}_embeddings.linear1"))
        fused = self._linear(torch.cat(parts, -1), stem + "concat_embeddings.cat_fc")
        fused = self._norm(fused, stem + "concat_embeddings.cat_ln", 1e-5)
        genes = self._linear(fused * torch.sigmoid(1.702 * fused), stem + "concat_embeddings.cat_proj")
        genes = genes + need(stem + "token_type_embeddings.weight").float()[0]
        genes = genes + need(stem + "position_embeddings.weight").float()[: ids.shape[1]]
        genes = self._norm(genes, stem + "LayerNorm", self.config.layer_norm_eps)
        states = torch.cat([need("bert.cls_embedding.weight").float()[species][:, None], genes], 1)
        seen = F.pad(batch["attention_mask"], (1, 0), value=1)[:, None, None, :].bool()
        for layer in range(self.config.num_hidden_layers):
            states = self._layer(states, seen, f"bert.encoder.layer.{layer}.")
        return states

    def _layer(self, states: torch.Tensor, seen: torch.Tensor, stem: str) -> torch.Tensor:
        heads = self.config.num_attention_heads
        query, key, value = (
            self._linear(states, f"{stem}attention.self.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = (query @ key.mT / query.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        eps = self.config.layer_norm_eps
        attended = self._linear(mixed, stem + "attention.output.dense")
        states = self._norm(states + attended, stem + "attention.output.LayerNorm", eps)
        fed = self._linear(F.gelu(self._linear(states, stem + "intermediate.dense")), stem + "output.dense")
        return self._norm(states + fed, stem + "output.LayerNorm", eps)

    def outputs(self, batch: Batch) -> Batch:
        """What the head gives, by the names of this package's outputs."""
        states = self.encode(batch)
        if self.source.head == "masked":
            ids = self.source.need("cls.predictions.bias").float()
            words = self.source.need("bert.embeddings.word_embeddings.weight").float()
            logits = F.linear(self._transform(states[:, 1:], "cls"), words, ids)
            values = self._transform(states[:, 1:], "cls4value")
            values = F.linear(values, self.source.need("cls4value.predictions.decoder.weight").float())
            bias = self.source.need("cls4value.predictions.bias").float()
            return {"logits": logits, "value_predictions": (values + bias).squeeze(-1)}
        if self.source.head == "cells":
            pooled = torch.tanh(self._linear(states[:, 0], "bert.pooler.dense"))
            return {"logits": self._linear(pooled, "classifier")}
        if self.source.head == "genes":
            logits = self._linear(states, "classifier")
            return {"logits": logits[:, 1:], "species_logits": logits[:, 0]}
        return {"last_hidden_state": states}

    def _transform(self, states: torch.Tensor, head: str) -> torch.Tensor:
        dense = F.gelu(self._linear(states, f"{head}.predictions.transform.dense"))
        return self._norm(dense, f"{head}.predictions.transform.LayerNorm", self.config.layer_norm_eps)


def example_batch(config: GeneCompassConfig, cells: int = 4, genes: int = 32) -> Batch:
    """Random cells of every species, with masked slots and padding, always the same."""
    generator = torch.Generator().manual_seed(0)
    genes = min(genes, config.max_position_embeddings)
    ids = torch.randint(2, config.vocab_size, (cells, genes), generator=generator)
    values = torch.rand(cells, genes, generator=generator).mul(5).sort(dim=1, descending=True).values
    hidden = torch.rand(cells, genes, generator=generator) < 0.15
    ids[hidden], values[hidden] = config.mask_token_id, -1.0
    lengths = torch.linspace(genes, max(1, genes // 3), cells).long()
    mask = (torch.arange(genes) < lengths[:, None]).long()
    species = torch.arange(cells) % config.num_species
    return {"input_ids": ids * mask, "values": values * mask, "attention_mask": mask, "species": species}


@torch.no_grad()
def largest_differences(
    model: GeneCompassPreTrainedModel, source: PublishedCheckpoint, config: GeneCompassConfig
) -> dict[str, float]:
    """Compare a converted model with the published computation on a fixed batch.

    Returns
    -------
    dict
        Output name to the largest difference on unpadded slots, as a share of that output's largest absolute value.
    """
    batch = example_batch(config)
    expected = PublishedForward(source, config).outputs(batch)
    found = model.eval().float()(**batch)
    differences = {}
    for name, wanted in expected.items():
        gap = (found[name].float() - wanted).abs()
        per_slot = wanted.shape[:2] == batch["input_ids"].shape and name != "species_logits"
        if per_slot:
            gap = gap[batch["attention_mask"].bool()]
        elif name == "last_hidden_state":
            gap = gap[F.pad(batch["attention_mask"], (1, 0), value=1).bool()]
        differences[name] = float(gap.max() / wanted.abs().max())
    return differences
