"""Fine-tune for cells or genes: LoRA by default, honest validation, seconds for a small data set."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...tokenization.cell_options import take_reading
from ...tokenization.checkpoint_files import check_checkpoint
from ...tokenization.devices import check_device
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.matching import match_genes
from ...tokenization.readers import open_cells
from ...tokenization.sources import model_or_default, resolve
from ...tokenization.tables import read_table
from ...tokenization.tokenize import tokenize_cells
from .data import Labels, find_groups, read_labels
from .fit import FinetuneOptions, FinetuneResult, fit_cells, fit_genes
from .save import check_output, save_finetuned


def finetune_cells(
    adata: Any,
    label: str,
    model: str | os.PathLike[str] | None,
    species: str,
    *,
    output: str | os.PathLike[str] | None = None,
    merge: bool = False,
    overwrite: bool = False,
    gene_species: str | None = None,
    max_length: int | None = None,
    **options: Any,
) -> FinetuneResult:
    """Teach a pre-trained checkpoint the labels of cells.

    Parameters
    ----------
    adata
        AnnData or path, with raw counts.
    label
        ``obs`` column of labels.
    model
        Pre-trained checkpoint: folder or ``owner/name[@revision]``; None for the one that travels with the package.
    species
        Species of the cells (or an ``obs`` column that says it): mouse cells run as mouse.
    output
        Folder to save to.
    merge
        Save a whole checkpoint instead of an adapter.
    overwrite
        Replace a fine-tuned model that is there.
    gene_species
        Species of the gene names where it is not the cells'.
    max_length
        Genes a cell; None for the model's longest.
    **options
        See `FinetuneOptions`; and those that say how a file is read (`CellOptions`).

    Returns
    -------
    FinetuneResult

    Raises
    ------
    InputError
        No such column or checkpoint, missing labels, one class only, a class with one cell, another species.

    Examples
    --------
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> cells = blood_cells()
    >>> result = finetune_cells(cells, "cell_type", None, "human", max_steps=2, thin=(), progress=False)
    >>> 0 <= result.validation["macro_f1"] <= 1
    True
    """
    reading = take_reading(options)
    settings = FinetuneOptions(**options)
    check_device(settings.device)
    check_output(output, overwrite=overwrite)
    cells = open_cells(adata, **reading)
    labels = read_labels(cells.obs, label, where=cells.name)
    groups, group_column = find_groups(cells.obs, settings.group)
    model = model_or_default(model)
    base = resolve(model)
    check_checkpoint(base)
    table = GeneTable.read(base)
    length = _length(base, max_length)
    tokenized, *thinned = (
        tokenize_cells(
            cells,
            table,
            species=species,
            gene_species=gene_species,
            max_length=length,
            whole_cells=_has_cell_vector(base),
            empty_cells="keep",
            keep_share=share,
            seed=settings.seed,
        )
        for share in (None, *settings.thin)
    )
    result = fit_cells(base, tokenized, labels, groups=groups, thinned=thinned, options=settings)
    result.record |= {"label_column": label, "species": species, "group_column": group_column, "max_length": length}
    return _saved(result, output, settings, base, str(model), merge)


def finetune_genes(
    adata: Any,
    gene_labels: Mapping[str, str],
    model: str | os.PathLike[str] | None,
    species: str,
    *,
    output: str | os.PathLike[str] | None = None,
    merge: bool = False,
    overwrite: bool = False,
    gene_species: str | None = None,
    max_length: int | None = None,
    max_cells: int | None = 2000,
    **options: Any,
) -> FinetuneResult:
    """Teach a pre-trained checkpoint the labels of genes, with cells as context.

    Parameters
    ----------
    adata, model, species, output, merge, overwrite, gene_species, max_length
        As for `finetune_cells`.
    gene_labels
        Gene id or symbol to label, for example ``{"ENSG00000008197": "dosage sensitive"}``.
    max_cells
        Cells drawn at random as context; None for all.
    **options
        As for `finetune_cells`. Validation holds out *genes*, not cells.

    Returns
    -------
    FinetuneResult
        ``record["unknown_genes"]`` lists labelled genes that the vocabulary does not know.

    Raises
    ------
    InputError
        Fewer than two classes among the known genes, or a class with one gene.

    Examples
    --------
    >>> finetune_genes(adata, {"INS": "hormone", "GCG": "hormone", "AMY2A": "enzyme", "PRSS1": "enzyme"},
    ...                "runs/tiny", "human", method="frozen")  # doctest: +SKIP
    """
    reading = take_reading(options)
    settings = FinetuneOptions(**options)
    check_output(output, overwrite=overwrite)
    model = model_or_default(model)
    base = resolve(model)
    check_checkpoint(base)
    table = GeneTable.read(base)
    tokens, labels, unknown = gene_label_tokens(gene_labels, table, species=species, gene_species=gene_species)
    length = _length(base, max_length)
    cells = open_cells(adata, **reading)
    tokenized = tokenize_cells(
        cells, table, species=species, gene_species=gene_species, max_length=length, empty_cells="keep"
    )
    chosen = np.arange(len(tokenized))
    if max_cells is not None and len(chosen) > max_cells:
        chosen = np.sort(np.random.default_rng(settings.seed).choice(chosen, max_cells, replace=False))
    result = fit_genes(base, tokenized, tokens, labels, cells=chosen, vocab_size=table.vocab_size, options=settings)
    result.record |= {"species": species, "unknown_genes": unknown, "max_length": length}
    return _saved(result, output, settings, base, str(model), merge)


def read_gene_labels(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read gene labels: columns ``gene`` and ``label``, or one column of genes for each label.

    Raises
    ------
    InputError
        No such file, fewer than two columns, or a gene under two labels.

    Examples
    --------
    >>> read_gene_labels("dosage_sensitive_tfs.csv")  # doctest: +SKIP
    {'ENSG00000008197': 'dosage_sensitive', 'ENSG00000010539': 'dosage_insensitive'}
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of gene labels")
    frame = read_table(path, sep=None, engine="python", dtype=str)
    if {"gene", "label"} <= set(frame.columns):
        pairs = frame[["gene", "label"]].dropna()
    elif len(frame.columns) >= 2:
        pairs = frame.melt(var_name="label", value_name="gene").dropna()
    else:
        raise InputError(f"{path}: expected columns gene and label, or one column of genes for each label")
    pairs = pairs.drop_duplicates()
    if pairs["gene"].duplicated().any():
        raise InputError(f"{path}: gene {pairs['gene'][pairs['gene'].duplicated()].iloc[0]!r} has two labels")
    return dict(zip(pairs["gene"], pairs["label"], strict=True))


def gene_label_tokens(
    gene_labels: Mapping[str, str], table: GeneTable, *, species: str, gene_species: str | None = None
) -> tuple[npt.NDArray[np.int64], Labels, list[str]]:
    """Tokens of labelled genes as cells of `species` carry them, their labels, and the genes not known.

    A token that two genes with different labels share is left out, and so is its second mention otherwise.
    """
    names = pd.Series({str(gene): str(label) for gene, label in gene_labels.items()}, dtype=object)
    if names.empty:
        raise InputError("no gene labels given")
    match = match_genes(pd.DataFrame(index=names.index), table, species=species, gene_species=gene_species)
    found = pd.DataFrame({"token": match.cell_token, "label": names.to_numpy()}, index=names.index)
    unknown = found.index[found["token"] < 0].tolist()
    found = found[found["token"] >= 0]
    clashing = found.groupby("token")["label"].transform(lambda labels: len(set(labels)) > 1).astype(bool)
    found = found[~clashing].drop_duplicates("token")
    return found["token"].to_numpy(dtype=np.int64), read_labels(found, "label", where="gene labels"), unknown


def _has_cell_vector(base: Path) -> bool:
    return bool(json.loads((base / "config.json").read_text(encoding="utf-8")).get("cell_size"))


def _length(base: Path, wanted: int | None) -> int:
    longest = int(json.loads((base / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"])
    if wanted is not None and wanted > longest:
        raise InputError(f"max_length {wanted} is more than the {longest} genes that {base} can read")
    return wanted or longest


def _saved(
    result: FinetuneResult,
    output: str | os.PathLike[str] | None,
    settings: FinetuneOptions,
    base: Path,
    base_name: str,
    merge: bool,
) -> FinetuneResult:
    if output is not None:
        result.output = save_finetuned(
            result.model,
            output,
            method=settings.method,
            base=base,
            base_name=base_name,
            record=result.record,
            merge=merge,
        )
    return result
