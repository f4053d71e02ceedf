"""Convert a published checkpoint folder, and check the result against the published computation."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import GeneTable
from ...tokenization.published import import_published
from ..configuration_genecompass import GeneCompassConfig
from ..modeling_genecompass import (
    GeneCompassForMaskedGeneModeling,
    GeneCompassForSequenceClassification,
    GeneCompassForTokenClassification,
    GeneCompassModel,
)
from ..pretrained_genecompass import GeneCompassPreTrainedModel
from .mapping import Mapping, config_of, map_tensors
from .published import PublishedCheckpoint, read_published
from .self_check import TOLERANCE, largest_differences

_CLASSES: dict[str, type[GeneCompassPreTrainedModel]] = {
    "masked": GeneCompassForMaskedGeneModeling,
    "cells": GeneCompassForSequenceClassification,
    "genes": GeneCompassForTokenClassification,
    "none": GeneCompassModel,
}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Parameters
    ----------
    model
        Class of the converted model.
    mapped
        (published tensor, tensor here).
    merged
        (published tensor, what it became part of).
    ignored
        (published tensor, why it is not needed).
    differences
        Output -> largest difference from the published computation, relative to its largest absolute value.
    processor
        What is known about counts to tokens.
    """

    model: str
    mapped: list[tuple[str, str]]
    merged: list[tuple[str, str]]
    ignored: list[tuple[str, str]]
    differences: dict[str, float]
    processor: str

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.mapped)} tensors taken over as they are"]
        lines += [f"  merged   {name}: {what}" for name, what in self.merged]
        lines += [f"  ignored  {name}: {why}" for name, why in self.ignored]
        lines += [f"  check    {name}: largest relative difference {gap:.1e}" for name, gap in self.differences.items()]
        return "\n".join([*lines, f"  processor: {self.processor}"])


def convert_checkpoint(
    published_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    tokens: str | os.PathLike[str] | None = None,
    homologs: str | os.PathLike[str] | None = None,
    *,
    medians: list[str | os.PathLike[str]] | None = None,
) -> ConversionReport:
    """Turn a published GeneCompass folder into a checkpoint that ``AutoModel`` loads.

    Parameters
    ----------
    published_dir
        Folder with ``config.json`` and ``pytorch_model.bin``: masked-gene model, cell or gene classifier, with any
        subset of priors, of any size.
    out_dir
        Where the checkpoint goes; written only if everything, the self-check included, went well.
    tokens, homologs
        The published ``human_mouse_tokens.pickle`` and ``homologous_hm_token.pickle``; with them the checkpoint also
        gets its processor (counts to tokens).
    medians
        Published pickles of gene id -> median count, one a species.

    Returns
    -------
    ConversionReport
        What was mapped, merged and ignored, and how far the outputs are from the published computation.

    Raises
    ------
    ValueError
        The folder is no published checkpoint, a tensor does not fit, or the self-check fails; the first mismatch is
        named.

    Examples
    --------
    >>> convert_checkpoint("published/GeneCompass_Base", "genecompass-base").differences  # doctest: +SKIP
    {'logits': 7.5e-07, 'value_predictions': 5.1e-07}
    """
    if (homologs or medians) and not tokens:
        raise InputError("homologs and medians need tokens: give human_mouse_tokens.pickle too")
    source = read_published(published_dir)
    config = config_of(source)
    found = map_tensors(source, config)
    table = _gene_table(config, source, tokens, homologs, medians)
    with atomic_path(out_dir) as temporary:
        _filled_model(source, config, found).save_pretrained(temporary)
        # the check loads what was written: it covers saving and loading as well
        written = _CLASSES[source.head].from_pretrained(temporary, dtype=torch.float32)
        differences = largest_differences(written, source, written.config)
        worst = max(differences, key=lambda name: differences[name])
        if not differences[worst] <= TOLERANCE:
            raise ValueError(
                f"{source.path}: the converted model's {worst} differ from the published computation by "
                f"{differences[worst]:.1e} of their largest value (allowed {TOLERANCE:.0e}); nothing was written"
            )
        processor = _write_processor(temporary, table, config)
        report = ConversionReport(
            _CLASSES[source.head].__name__, found.mapped, found.merged, found.ignored, differences, processor
        )
        _write_manifest(temporary, source)
    return report


def _filled_model(source: PublishedCheckpoint, config: GeneCompassConfig, found: Mapping) -> GeneCompassPreTrainedModel:
    with torch.device("meta"):
        model = _CLASSES[source.head](config)
    expected = model.state_dict()
    for name, tensor in found.tensors.items():
        if name not in expected:
            raise ValueError(f"{source.path}: no place for tensor {name!r} in {type(model).__name__}")
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{source.path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
    missing = [name for name in expected if name not in found.tensors and name != "decoder.weight"]
    if missing:
        raise ValueError(f"{source.path}: nothing in the checkpoint fills {missing[0]!r}")
    model.load_state_dict(found.tensors, strict=False, assign=True)
    model.tie_weights()
    return model


def _gene_table(
    config: GeneCompassConfig,
    source: PublishedCheckpoint,
    tokens: str | os.PathLike[str] | None,
    homologs: str | os.PathLike[str] | None,
    medians: list[str | os.PathLike[str]] | None,
) -> GeneTable | None:
    if tokens is None:
        return None
    table = import_published(tokens, homologs, medians or ())
    if table.vocab_size != config.vocab_size:
        raise InputError(
            f"{tokens}: {table.vocab_size} tokens, but the checkpoint was trained with {config.vocab_size}"
        )
    rows = source.need("bert.embeddings.homologous_index").long().numpy()
    remapped = np.flatnonzero(rows != np.arange(len(rows)))
    shared = set(table.frame["homolog_token"]) - {-1}
    if homologs is not None and not set(remapped.tolist()) <= shared:
        odd = min(set(remapped.tolist()) - shared)
        raise InputError(f"{homologs}: the checkpoint remaps token {odd} for mouse cells, this dictionary does not")
    return table


def _write_processor(folder: Path, table: GeneTable | None, config: GeneCompassConfig) -> str:
    if table is None:
        return "none written: give the token dictionary (--tokens, --homologs) to turn counts into tokens"
    from ...tokenization.processing_genecompass import GeneCompassProcessor

    GeneCompassProcessor.from_gene_table(table, max_length=config.max_position_embeddings).save_pretrained(folder)
    known = int(table.frame["median"].notna().sum())
    if not known:
        return f"{len(table)} tokens, but no gene medians: every median counts as 1 (give --medians)"
    return f"{len(table)} tokens, medians of {known} genes"


def _write_manifest(folder: Path, source: PublishedCheckpoint) -> None:
    from ...tokenization.manifest import write_manifest

    # what it was made from is named by its folder alone: a path would say where somebody keeps their files
    write_manifest(folder, "checkpoint", derived_from={"published": source.path.resolve().name})
