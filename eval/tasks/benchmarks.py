"""Whole benchmarks of using a checkpoint: read the files, run every method, write JSON, tables and figures."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...tokenization.devices import check_device
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import open_cells
from ...tokenization.sources import resolve
from ...training.finetuning.finetune import read_gene_labels
from ...training.finetuning.fit import FinetuneOptions
from . import gene_classification, zero_shot
from .annotation import METHODS, AnnotationSplit, Budget, run_annotation
from .labelled_cells import LabelledCells, read_labelled, stratified_folds

Echo = Callable[[str], Any]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to run and for how long.

    Parameters
    ----------
    methods
        Names out of `METHODS`.
    seeds, cells_per_class
        As `run_annotation`.
    max_length
        Genes a cell for the model.
    budget
        Training budget of the model's rows.
    figures
        Draw figures.
    """

    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0, 1, 2)
    cells_per_class: tuple[int | None, ...] = (5, 10, 25, None)
    max_length: int = 512
    budget: Budget = field(default_factory=Budget)
    figures: bool = True

    @classmethod
    def parse(
        cls,
        *,
        methods: str | None,
        seeds: str,
        cells_per_class: str,
        max_length: int,
        max_steps: int,
        epochs: float,
        batch_size: int,
        learning_rates: Sequence[str],
        pooling: str,
        figures: bool,
        device: str | None = None,
    ) -> "BenchmarkSettings":
        """Read what was typed on the command line.

        Raises
        ------
        InputError
            Not numbers, or no method of that name.
        """
        try:
            numbers = tuple(int(text) for text in seeds.split(","))
            points = tuple(None if text == "all" else int(text) for text in cells_per_class.split(","))
            rates = {name: float(rate) for name, _, rate in (text.partition("=") for text in learning_rates)}
        except ValueError as error:
            raise InputError(f"not a number in --seeds, --cells-per-class or --learning-rate: {error}") from error
        budget = Budget(max_steps, epochs, batch_size, learning_rates=rates, pooling=pooling, device=device)
        return cls(choose(methods, METHODS), numbers, points, max_length, budget, figures)


def choose(wanted: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Methods whose names contain one of the words in `wanted`, in the order of `known`; all where None.

    Examples
    --------
    >>> choose("lora,PCA", ["PCA + kNN", "majority", "GeneCompass LoRA"])
    ('PCA + kNN', 'GeneCompass LoRA')
    """
    if wanted is None:
        return tuple(known)
    words = [word.strip().lower() for word in wanted.split(",") if word.strip()]
    for word in words:
        if not any(word in name.lower() for name in known):
            raise InputError(f"no method is called {word!r}; there are: {'; '.join(known)}")
    return tuple(name for name in known if any(word in name.lower() for word in words))


def benchmark_annotation(
    data: Any,
    model: PathLike,
    output: PathLike,
    *,
    species: str,
    test: Any = None,
    split_by: str | None = None,
    folds: int = 5,
    fold_seed: int = 0,
    label: str = "cell_type",
    gene_species: str | None = None,
    name: str | None = None,
    settings: BenchmarkSettings | None = None,
    echo: Echo | None = None,
) -> str:
    """Annotation within a species: an independent test set, each donor or data set in turn, or stratified folds.

    Returns
    -------
    str
        The tables, which are also in ``annotation.txt``; numbers are in ``annotation.json``.
    """
    settings = settings or BenchmarkSettings()
    folder = resolve(model)
    check_device(settings.budget.device)
    table = GeneTable.read(folder)
    options: dict[str, Any] = {"label": label, "species": species, "gene_species": gene_species}
    options |= _reading(folder, settings.max_length)
    train = read_labelled(data, table, group=split_by or "auto", thin=FinetuneOptions.thin, **options)
    if test is not None:
        held_out = read_labelled(test, table, **options)
        splits = [AnnotationSplit(name or f"{train.name} to {held_out.name}", train, held_out)]
    elif split_by is not None:
        splits = _splits_by_group(train, name or f"{train.name}, held out by {split_by}")
    else:
        title = name or f"{train.name}, {folds} stratified folds"
        pairs = stratified_folds(train.labels, folds, fold_seed)
        splits = [AnnotationSplit(title, train.take(a), train.take(b), fold) for fold, (a, b) in enumerate(pairs)]
    return _run_and_report(splits, folder, output, "annotation", settings, echo)


def benchmark_cross_species(
    data: Any,
    model: PathLike,
    output: PathLike,
    *,
    species_column: str,
    label: str = "cell_type",
    gene_species: str | None = None,
    name: str | None = None,
    settings: BenchmarkSettings | None = None,
    echo: Echo | None = None,
) -> str:
    """Annotation from each species to each other one in a file; baselines see the same homolog-mapped genes."""
    settings = settings or BenchmarkSettings()
    folder = resolve(model)
    check_device(settings.budget.device)
    table = GeneTable.read(folder)
    cells = read_labelled(
        data,
        table,
        label=label,
        species=species_column,
        gene_species=gene_species,
        thin=FinetuneOptions.thin,
        **_reading(folder, settings.max_length),
    )
    kinds = list(np.unique(cells.species))
    if len(kinds) < 2:
        raise InputError(f"{cells.name}: {species_column!r} names one species only ({kinds[0]}); give cells of two")
    parts = {kind: cells.take(np.flatnonzero(cells.species == kind)) for kind in kinds}
    splits = [
        AnnotationSplit(f"{name or cells.name}: {a} to {b}", parts[a], parts[b], align="center")
        for a in kinds
        for b in kinds
        if a != b
    ]
    return _run_and_report(splits, folder, output, "cross-species", settings, echo)


def _splits_by_group(cells: LabelledCells, name: str) -> list[AnnotationSplit]:
    if cells.groups is None:
        raise InputError(f"{cells.name}: the column to split by has one value only")
    splits = []
    for fold, group in enumerate(np.unique(cells.groups)):
        inside = cells.groups == group
        splits.append(
            AnnotationSplit(name, cells.take(np.flatnonzero(~inside)), cells.take(np.flatnonzero(inside)), fold)
        )
    return splits


def _run_and_report(
    splits: list[AnnotationSplit],
    folder: Path,
    output: PathLike,
    task: str,
    settings: BenchmarkSettings,
    echo: Echo | None,
) -> str:
    import torch

    from ..report import write_annotation_report

    def tell(record: dict[str, Any]) -> None:
        if echo is not None:
            echo(
                f"{record['split']} | fold {record['fold']} | {record['cells_per_class']} a class | seed "
                f"{record['seed']} | {record['method']}: macro-F1 {record['macro_f1']:.3f} ({record['seconds']:.1f} s)"
            )

    # Adam's squares of tiny gradients fall below 1e-38, where a CPU computes many times slower for nothing
    torch.set_flush_denormal(True)
    try:
        records = run_annotation(
            splits,
            folder,
            output,
            methods=settings.methods,
            seeds=settings.seeds,
            cells_per_class=settings.cells_per_class,
            budget=settings.budget,
            report=tell,
        )
    finally:
        torch.set_flush_denormal(False)
    write_annotation_report(records, output, task=task, model=folder.name, figures=settings.figures)
    return (Path(output) / f"{task}.txt").read_text(encoding="utf-8")


def benchmark_gene_classification(
    data: Any,
    labels: PathLike,
    model: PathLike,
    output: PathLike,
    *,
    species: str,
    methods: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    folds_by: gene_classification.FoldsBy = "family",
    max_cells: int = 600,
    max_length: int = 2048,
    max_steps: int = 60,
    device: str | None = None,
    cell_seed: int = 0,
    echo: Echo | None = None,
) -> str:
    """Gene classification in folds of gene families; writes ``gene-classification.json`` and gives the table."""
    from ..report import write_simple_report

    folder = resolve(model)
    check_device(device)
    cells = open_cells(data)
    task = gene_classification.read_gene_task(
        read_gene_labels(labels),
        cells,
        GeneTable.read(folder),
        species=species,
        name=f"{Path(labels).stem} in {Path(cells.name).stem}",
        max_length=_length(folder, max_length),
        max_cells=max_cells,
        seed=cell_seed,
    )
    if echo is not None:
        counts = np.bincount(task.labels.codes)
        sizes = ", ".join(f"{n} {name}" for n, name in zip(counts, task.labels.names, strict=True))
        echo(
            f"{sizes}; of the labelled genes {len(task.unknown)} are unknown to the vocabulary, "
            f"{task.unseen} not seen in these cells"
        )
    records = gene_classification.run_gene_classification(
        task,
        folder,
        methods=choose(methods, gene_classification.METHODS),
        seeds=seeds,
        folds=folds,
        folds_by=folds_by,
        max_steps=max_steps,
        device=device,
        output=output,
        report=None if echo is None else lambda r: echo(f"seed {r['seed']} | {r['method']}: AUROC {r['auroc']:.3f}"),
    )
    return write_simple_report(
        records,
        output,
        task="gene-classification",
        model=folder.name,
        metrics=("auroc", "auroc_not_c2h2", "auprc", "positives"),
    )


def benchmark_zero_shot(
    data: Sequence[Any],
    model: PathLike,
    output: PathLike,
    *,
    species: str,
    label: str = "cell_type",
    batch: str | None = "auto",
    gene_species: str | None = None,
    max_length: int = 512,
    seeds: Sequence[int] = (0, 1, 2),
    scib: bool = True,
    figures: bool = True,
    device: str | None = None,
    echo: Echo | None = None,
) -> str:
    """Embeddings without training; writes ``zero-shot.json`` and UMAPs, gives the table."""
    from ..report import write_simple_report

    folder = resolve(model)
    check_device(device)
    table = GeneTable.read(folder)
    options: dict[str, Any] = {"label": label, "species": species, "gene_species": gene_species, "group": batch}
    parts = [read_labelled(path, table, **_reading(folder, max_length), **options) for path in data]
    cells = parts[0] if len(parts) == 1 else join(parts)
    records, embeddings = zero_shot.run_zero_shot(
        cells,
        folder,
        seeds=seeds,
        scib=scib,
        device=device,
        report=None
        if echo is None
        else lambda r: echo(f"seed {r['seed']} | {r['method']}: neighbour agreement {r['neighbour_agreement']:.3f}"),
    )
    if figures:
        from ..plots import plot_umap

        panels: dict[str, Any] = {"label": cells.labels}
        panels |= {"species": cells.species} if len(np.unique(cells.species)) > 1 else {}
        panels |= {"batch": cells.groups} if cells.groups is not None and len(np.unique(cells.groups)) > 1 else {}
        ours = next(method for method in zero_shot.OURS if method in embeddings)
        for method in (zero_shot.PCA_ROW, ours):
            stem = "".join(letter if letter.isalnum() else "_" for letter in method).lower()
            plot_umap(embeddings[method], panels, Path(output) / "figures" / f"umap_{stem}", title=method)
    metrics = (
        *("neighbour_agreement", "own_batch", "nmi_kmeans", "ari_kmeans"),
        *("silhouette_label", "silhouette_batch", "ilisi"),
    )
    return write_simple_report(records, output, task="zero-shot", model=folder.name, metrics=metrics)


def _length(folder: Path, wanted: int) -> int:
    """Genes a cell: as many as wanted, and no more than the model reads."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return min(wanted, int(config["max_position_embeddings"]))


def _reading(folder: Path, wanted: int) -> dict[str, Any]:
    """How `read_labelled` reads cells for a checkpoint: a cell vector takes all genes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {"max_length": _length(folder, wanted), "whole_cells": bool(config.get("cell_size"))}


def join(parts: Sequence[LabelledCells]) -> LabelledCells:
    """Cells of several files as one set; each file is a batch."""
    from scipy import sparse

    from ...tokenization.tokenize import TokenizedCells

    return LabelledCells(
        " + ".join(part.name for part in parts),
        TokenizedCells.concatenate([part.tokenized for part in parts]),
        sparse.csr_matrix(sparse.vstack([part.counts for part in parts])),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([np.full(len(part), part.name) for part in parts]),
        np.concatenate([part.species for part in parts]),
    )
