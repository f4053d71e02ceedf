"""Published tensors under this format's names: every quirk of the published layout is settled here, not at run time."""

from dataclasses import dataclass, field
from typing import Any

import torch

from ..configuration_genecompass import GeneCompassConfig
from .published import PRIORS, PublishedCheckpoint

_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}
_IGNORED = {
    "bert.embeddings.position_ids": "positions are counted, not stored",
    "emb_warmup.alpha": "warm-up state of a finished training; it is 1 throughout",
    "emb_warmup.steps": "warm-up state of a finished training",
}


@dataclass
class Mapping:
    """How published tensors became this format's.

    Parameters
    ----------
    tensors
        The converted state dict.
    mapped
        (published name, name here), one for each tensor taken over.
    merged
        (published name, what became of it), for tensors that are part of another one here.
    ignored
        (published name, why it is not needed).
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    mapped: list[tuple[str, str]] = field(default_factory=list)
    merged: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    def take(self, source: PublishedCheckpoint, old: str, new: str) -> None:
        """Take a tensor over as it is."""
        self.tensors[new] = source.need(old)
        self.mapped.append((old, new))

    def take_linear(self, source: PublishedCheckpoint, old: str, new: str) -> None:
        """Take weight and bias over."""
        for part in ("weight", "bias"):
            self.take(source, f"{old}.{part}", f"{new}.{part}")


def config_of(source: PublishedCheckpoint, **extra: Any) -> GeneCompassConfig:
    """Work out the configuration of a published checkpoint; widths are read from the tensors themselves.

    Raises
    ------
    ValueError
        An option that the published code can switch off but that this model always has, or a shape that does not
        fit; the message names it.
    """
    old = source.config
    for flag in ("use_values", "use_cls_token"):
        if not old.get(flag, True):
            raise ValueError(f"{source.path}: config says {flag}=false; only checkpoints with it can be converted")
    words = source.need("bert.embeddings.word_embeddings.weight")
    if old.get("vocab_size", len(words)) != len(words):
        raise ValueError(
            f"{source.path}: config.json says vocab_size={old['vocab_size']}, "
            f"bert.embeddings.word_embeddings.weight has {len(words)} rows"
        )
    layers = {name.split(".")[3] for name in source.tensors if name.startswith("bert.encoder.layer.")}
    dropout = old.get("hidden_dropout_prob", 0.02)
    labels: dict[str, Any] = {}
    if source.head in ("cells", "genes"):
        count = len(source.need("classifier.weight"))
        names = old.get("id2label") or {}
        labels["id2label"] = {i: names.get(str(i), f"LABEL_{i}") for i in range(count)}
        labels["label2id"] = {name: i for i, name in labels["id2label"].items()}
    return GeneCompassConfig(
        vocab_size=len(words),
        hidden_size=words.shape[1],
        num_hidden_layers=len(layers),
        num_attention_heads=_need_number(source, "num_attention_heads"),
        intermediate_size=len(source.need("bert.encoder.layer.0.intermediate.dense.bias")),
        hidden_act=old.get("hidden_act", "gelu"),
        hidden_dropout=dropout,
        max_position_embeddings=len(source.need("bert.embeddings.position_embeddings.weight")),
        priors={PRIORS[name][0]: _table(source, name).shape[1] for name in source.priors},
        species=["human", "mouse"],
        initializer_range=old.get("initializer_range", 0.02),
        layer_norm_eps=old.get("layer_norm_eps", 1e-12),
        classifier_dropout=old.get("classifier_dropout"),
        problem_type=old.get("problem_type"),
        **labels,
        **extra,
    )


def _need_number(source: PublishedCheckpoint, key: str) -> int:
    if not isinstance(source.config.get(key), int):
        raise ValueError(f"{source.path}: config.json lacks {key!r}")
    return source.config[key]


def _table(source: PublishedCheckpoint, prior: str) -> torch.Tensor:
    return source.need(f"bert.embeddings.{prior}_knowledge")


def map_tensors(source: PublishedCheckpoint, config: GeneCompassConfig) -> Mapping:
    """Rename, split and merge a published state dict; every published tensor ends up in one of the lists.

    Raises
    ------
    ValueError
        A tensor is missing, or there is one that this model has no place for.
    """
    found = Mapping()
    stem = "" if source.head == "none" else "genecompass."
    _embeddings(found, source, config, stem + "embeddings.")
    found.take(source, "bert.cls_embedding.weight", stem + "species_embeddings.weight")
    for layer in range(config.num_hidden_layers):
        for old, new in _LAYER.items():
            found.take_linear(source, f"bert.encoder.layer.{layer}.{old}", f"{stem}layers.{layer}.{new}")
    _head(found, source)
    alpha = source.tensors.get("emb_warmup.alpha")
    if alpha is not None and float(alpha) != 1.0:
        raise ValueError(
            f"{source.path}: emb_warmup.alpha is {float(alpha):g}; only finished warm-ups (1) can be converted"
        )
    known = {name for name, _ in [*found.mapped, *found.merged, *found.ignored]}
    for name in source.tensors:
        if name in _IGNORED:
            found.ignored.append((name, _IGNORED[name]))
        elif name.startswith("bert.pooler.") and name not in known:
            found.ignored.append((name, "the pooler serves cell classification alone"))
        elif name not in known:
            raise ValueError(
                f"{source.path}: tensor {name!r} has no place in this model; is it a GeneCompass checkpoint?"
            )
    return found


def _embeddings(found: Mapping, source: PublishedCheckpoint, config: GeneCompassConfig, stem: str) -> None:
    old = "bert.embeddings."
    found.take(source, old + "word_embeddings.weight", stem + "word_embeddings.weight")
    found.take(source, old + "position_embeddings.weight", stem + "position_embeddings.weight")
    found.take_linear(source, old + "LayerNorm", stem + "norm")
    for prior in source.priors:
        name = PRIORS[prior][0]
        found.take(source, f"{old}{prior}_knowledge", f"{stem}prior_tables.{name}")
        found.take_linear(source, f"{old}{prior}_embeddings.linear1", f"{stem}prior_projections.{name}")
    for prior in PRIORS:
        if prior not in source.priors:
            for name in source.tensors:
                if name.startswith((f"{old}{prior}_knowledge", f"{old}{prior}_embeddings.")):
                    found.ignored.append((name, f"config.json switches {PRIORS[prior][1]} off"))

    # columns of the published fusion: id (H), value (1), priors (H each); the value's direction stands alone here
    fused, size = source.need(old + "concat_embeddings.cat_fc.weight"), config.hidden_size
    expected = size * (1 + len(config.priors)) + 1
    if fused.shape[1] != expected:
        raise ValueError(
            f"{source.path}: bert.embeddings.concat_embeddings.cat_fc.weight has {fused.shape[1]} columns, expected "
            f"{expected} for hidden size {size} and priors {', '.join(config.priors) or 'none'}"
        )
    found.tensors[stem + "fusion_genes.weight"] = torch.cat([fused[:, :size], fused[:, size + 1 :]], dim=1)
    found.tensors[stem + "fusion_value.weight"] = fused[:, size : size + 1].clone()
    found.merged.append(
        (old + "concat_embeddings.cat_fc.weight", f"split into {stem}fusion_genes and {stem}fusion_value")
    )
    found.take(source, old + "concat_embeddings.cat_fc.bias", stem + "fusion_genes.bias")
    found.take_linear(source, old + "concat_embeddings.cat_ln", stem + "fusion_norm")
    found.take(source, old + "concat_embeddings.cat_proj.weight", stem + "fusion_output.weight")
    # every slot has token type 0, whose row is added straight after this bias
    types = source.need(old + "token_type_embeddings.weight")
    bias = source.need(old + "concat_embeddings.cat_proj.bias")
    found.tensors[stem + "fusion_output.bias"] = bias + types[0]
    for name in ("concat_embeddings.cat_proj.bias", "token_type_embeddings.weight"):
        found.merged.append(
            (old + name, f"bias and token type 0, the only one in use, add up to {stem}fusion_output.bias")
        )
    rows = torch.arange(config.vocab_size)
    homologs = source.need(old + "homologous_index").long()
    if tuple(homologs.shape) != (config.vocab_size,):
        raise ValueError(
            f"{source.path}: homologous_index has shape {tuple(homologs.shape)}, expected {len(rows)} rows"
        )
    found.tensors[stem + "prior_rows"] = torch.stack([rows, homologs])
    found.merged.append((old + "homologous_index", f"the mouse row of {stem}prior_rows"))


def _head(found: Mapping, source: PublishedCheckpoint) -> None:
    if source.head == "masked":
        for old, new in (("cls", "id"), ("cls4value", "value")):
            found.take_linear(source, f"{old}.predictions.transform.dense", f"{new}_transform.dense")
            found.take_linear(source, f"{old}.predictions.transform.LayerNorm", f"{new}_transform.norm")
        found.take(source, "cls.predictions.bias", "decoder.bias")
        found.take(source, "cls4value.predictions.bias", "value_decoder.bias")
        found.take(source, "cls4value.predictions.decoder.weight", "value_decoder.weight")
        words = source.need("bert.embeddings.word_embeddings.weight")
        tied = {
            "cls.predictions.decoder.weight": (words, "the id embedding"),
            "cls.predictions.decoder.bias": (found.tensors["decoder.bias"], "cls.predictions.bias"),
            "cls4value.predictions.decoder.bias": (found.tensors["value_decoder.bias"], "cls4value.predictions.bias"),
        }
        for name, (same, what) in tied.items():
            if name in source.tensors:
                if not torch.equal(source.tensors[name], same):
                    raise ValueError(f"{source.path}: {name} differs from {what}, to which it should be tied")
                found.merged.append((name, f"the same as {what}, to which it is tied"))
    elif source.head in ("cells", "genes"):
        if source.head == "cells":
            found.take_linear(source, "bert.pooler.dense", "pooler")
        found.take_linear(source, "classifier", "classifier")
