"""The whole path on real cells in a few minutes: counts, vocabulary, corpus, priors, training, labels, a deletion.

Cells are split once, at the start. Whatever learns - medians, co-expression, pre-training, fine-tuning, baselines -
sees the training cells only; every score is of the others.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from .cells import blood_cells
from .options import DemoOptions, DemoResult
from .report import write_report

TEST_SHARE = 0.25
FEWEST_CELLS = 8  # of a label: with fewer, a split into training, validation and test says nothing

Say = Callable[[str], None]


def run_demo(options: DemoOptions, say: Say) -> DemoResult:
    """Walk the whole path and leave a checkpoint, an annotated ``.h5ad`` and ``report.html`` in `options.output`.

    Parameters
    ----------
    options
        What to run on.
    say
        Receives one line at a time, for example ``typer.echo``.

    Returns
    -------
    DemoResult

    Raises
    ------
    InputError
        The output folder is in use, or the data have no counts, no such label, or too few labelled cells.

    Examples
    --------
    >>> result = run_demo(DemoOptions("demo_output"), print)  # doctest: +SKIP
    >>> result.scores["macro_f1"]  # doctest: +SKIP
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the bars of saving and loading a tiny network would hide those that matter
    folder = _claim(options.output)
    result = DemoResult(_labelled_cells(options))
    clock = _Clock(result.seconds, say)
    train, test = _split(result.cells, options)
    learn, tested = f"{train.n_obs:,} to learn from", f"{test.n_obs:,} to be tested on"
    say(f"{result.cells.n_obs:,} cells, {result.cells.n_vars:,} genes; {learn}, {tested}")

    with clock("gene table and medians"):
        table, result.coverage = _vocabulary(result.cells, train, options, folder)
    say(result.coverage)
    with clock("corpus"):
        _corpus(train, options, folder)
    with clock("co-expression prior"):
        result.facts["co-expression prior"] = _co_expression(train, table, options, folder)
    with clock("pre-training"):
        result.pretraining = _pretrain(options, folder)
    checkpoint = str(result.pretraining.folder)
    with clock("embeddings"):
        _embed(result.cells, checkpoint, options)
    with clock("cell types: LoRA and baselines"):
        _annotate(result, train, test, checkpoint, options, folder)
    with clock("deleting a marker"):
        _delete_marker(result, train, test, checkpoint, options)
    with clock("report"):
        write_report(result, options, folder)
    return result


class _Clock:
    """``with clock("step"):`` says the step and keeps how long it took."""

    def __init__(self, seconds: dict[str, float], say: Say) -> None:
        self.seconds, self.say, self.step, self.started = seconds, say, "", 0.0

    def __call__(self, step: str) -> "_Clock":
        self.step = step
        return self

    def __enter__(self) -> None:
        self.say(f"\n== {self.step}")
        self.started = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds[self.step] = time.perf_counter() - self.started


def _claim(output: str | os.PathLike[str]) -> Path:
    folder = Path(output)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder}: already there and not empty; pass another folder with -o, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _labelled_cells(options: DemoOptions) -> ad.AnnData:
    """Cells with raw counts in ``X`` and a label that at least `FEWEST_CELLS` of them share."""
    cells = blood_cells() if options.data is None else _read(options.data, options.label)
    labels = cells.obs[options.label].astype(str)
    known = cells.obs[options.label].notna() & labels.map(labels.value_counts()).ge(FEWEST_CELLS)
    if labels[known].nunique() < 2:
        raise InputError(
            f"column {options.label!r} has fewer than two labels with {FEWEST_CELLS} cells; choose another with --label"
        )
    rows = np.flatnonzero(known)
    if len(rows) > options.max_cells:
        rows = np.sort(np.random.default_rng(options.seed).choice(rows, options.max_cells, replace=False))
    cells = cells[rows].copy()
    cells.obs[options.label] = pd.Categorical(labels.iloc[rows])
    return cells


def _read(path: str, label: str) -> ad.AnnData:
    from ...tokenization.readers import open_cells

    source = open_cells(path)
    if label not in source.obs.columns:
        columns = ", ".join(map(str, source.obs.columns)) or "none"
        raise InputError(f"{path}: no column {label!r} in obs; it has: {columns}. Name one with --label")
    import scipy.sparse as sp

    counts = sp.vstack([block for _, block in source.blocks()], format="csr")
    return ad.AnnData(counts.astype(np.float32), obs=source.obs.copy(), var=source.var.copy())


def _split(cells: ad.AnnData, options: DemoOptions) -> tuple[ad.AnnData, ad.AnnData]:
    """Training and test cells with the same share of every label."""
    rows = np.arange(cells.n_obs)
    train, test = train_test_split(
        rows, test_size=TEST_SHARE, random_state=options.seed, stratify=cells.obs[options.label]
    )
    cells.obs["split"] = pd.Categorical(np.where(np.isin(rows, test), "test", "training"))
    return cells[np.sort(train)].copy(), cells[np.sort(test)].copy()


def _vocabulary(cells: ad.AnnData, train: ad.AnnData, options: DemoOptions, folder: Path) -> tuple[GeneTable, str]:
    from ...dataset_scripts.vocabulary import from_data, gene_statistics
    from ...tokenization.matching import match_genes

    table = from_data(cells, options.species)
    table = gene_statistics([(train, options.species)], table).put_into(table)
    table.write(folder / "genes.parquet")
    return table, str(match_genes(cells.var, table, species=options.species).report)


def _corpus(train: ad.AnnData, options: DemoOptions, folder: Path) -> None:
    """A corpus is built from files: training cells go to one of their own."""
    from ...dataset_scripts.corpus import BuildOptions, build

    work = folder / "corpus_input"
    work.mkdir()
    train.write_h5ad(work / "training_cells.h5ad")
    (work / "inputs.tsv").write_text(
        f"path\tspecies\tdataset\tobs_columns\ntraining_cells.h5ad\t{options.species}\tdemo\t{options.label}\n"
    )
    build(work / "inputs.tsv", folder / "corpus", options=BuildOptions(gene_table=str(folder / "genes.parquet")))


def _co_expression(train: ad.AnnData, table: GeneTable, options: DemoOptions, folder: Path) -> str:
    from ...dataset_scripts.prior_knowledge.co_expression import build_co_expression, cells_of_file
    from ...dataset_scripts.prior_knowledge.correlation import CorrelationSettings
    from ...dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings
    from ...dataset_scripts.prior_knowledge.tables import write_priors

    # the published threshold of 0.8 is for thousands of cells of one tissue; a few hundred need a lower one
    prior = build_co_expression(
        [cells_of_file(train, table, options.species, name="demo")],
        table,
        transform="log_normalized",
        correlation=CorrelationSettings(threshold=0.4, min_shared=30),
        settings=Gene2VecSettings(width=32, seed=options.seed),
    )
    write_priors(folder / "priors.safetensors", [prior])
    known = int((np.abs(prior.matrix).sum(axis=1) > 0).sum())
    return f"{known:,} of {len(table) - 2:,} genes are co-expressed with another (r >= 0.4 over shared cells)"


def _pretrain(options: DemoOptions, folder: Path) -> Any:
    from ...training.pretraining.config import load_config
    from ...training.pretraining.pretrain import pretrain

    config = load_config(
        "tiny",
        [
            f"corpus={folder / 'corpus'}",
            f"gene_table={folder / 'genes.parquet'}",
            f"output={folder / 'checkpoint'}",
            f"seed={options.seed}",
            f"model.priors={folder / 'priors.safetensors'}",
            f"data.max_length={options.max_length}",
            "data.tokens_per_batch=4096",
            "data.held_out=0.1",
            f"optimisation.max_steps={options.steps}",
            f"checkpoints.every_steps={options.steps}",
            "evaluation.every_steps=null",
            "logging.every_steps=10",
            "logging.to=[]",
        ],
    )
    return pretrain(config)


def _embed(cells: ad.AnnData, checkpoint: str, options: DemoOptions) -> None:
    import scanpy
    from sklearn.decomposition import PCA

    from ...inference import embed

    embed(cells, model=checkpoint, species=options.species)
    states = cells.obsm["X_genecompass"]
    cells.obsm["X_genecompass_pca"] = PCA(min(30, *states.shape), random_state=options.seed).fit_transform(states)
    scanpy.pp.neighbors(cells, use_rep="X_genecompass_pca", random_state=options.seed)
    scanpy.tl.umap(cells, random_state=options.seed)


def _annotate(
    result: DemoResult,
    train: ad.AnnData,
    test: ad.AnnData,
    checkpoint: str,
    options: DemoOptions,
    folder: Path,
) -> None:
    """LoRA beside what costs nothing, on the same cells."""
    from ...inference import annotate
    from ...training.finetuning.finetune import finetune_cells
    from ..baselines.annotation import BASELINES
    from ..metrics import bootstrap_interval, macro_f1
    from ..metrics.intervals import paired_difference

    known, truth = train.obs[options.label].astype(str).to_numpy(), test.obs[options.label].astype(str).to_numpy()
    seconds: dict[str, float] = {}
    for name, baseline in BASELINES.items():
        started = time.perf_counter()
        result.predictions[name] = baseline(train.X, known, test.X, options.seed).labels
        seconds[name] = time.perf_counter() - started

    started = time.perf_counter()
    tuned = finetune_cells(
        train,
        options.label,
        checkpoint,
        options.species,
        output=str(folder / "adapter"),
        epochs=options.epochs,
        seed=options.seed,
        progress=True,
    )
    name = "GeneCompass, LoRA"
    seconds[name] = time.perf_counter() - started
    labelled = annotate(test, model=str(folder / "adapter"), species=options.species)
    result.predictions[name] = labelled.obs["genecompass_cell_type_best"].astype(str).to_numpy()
    for column in ("genecompass_cell_type", "genecompass_cell_type_best", "genecompass_cell_type_score"):
        result.cells.obs[column] = labelled.obs[column].reindex(result.cells.obs_names)

    rows = []
    for method, predicted in result.predictions.items():
        interval = bootstrap_interval(macro_f1, truth, predicted, seed=options.seed)
        rows.append((method, interval.value, interval.low, interval.high, seconds[method]))
    result.scores = pd.DataFrame(rows, columns=["method", "macro_f1", "low", "high", "seconds"]).set_index("method")
    best = str(result.scores["macro_f1"].drop(name).idxmax())
    both = ([result.predictions[method]] for method in (name, best))
    result.difference = paired_difference(macro_f1, truth, *both, seed=options.seed)
    parameters = tuned.cost["parameters"]
    result.facts["adapter"] = f"{parameters['trainable']:,} trainable parameters of {parameters['total']:,}"


def _delete_marker(
    result: DemoResult, train: ad.AnnData, test: ad.AnnData, checkpoint: str, options: DemoOptions
) -> None:
    """Delete the gene that best marks the largest cell type, as training cells show, from test cells of all types."""
    from ...inference.perturbation.perturb import perturb

    result.marker, result.marker_group = _best_marker(train, options.label)
    shift = perturb(
        test,
        checkpoint,
        [result.marker],
        kind="delete",
        species=options.species,
        groupby=options.label,
        n_null=options.null_genes,
        seed=options.seed,
    )
    shown = (shift.summary["effect"] == "cell_cosine") & (shift.summary["n_cells"] > 0)
    result.effects = shift.summary[shown].reset_index(drop=True)


def _best_marker(train: ad.AnnData, label: str) -> tuple[str, str]:
    import scanpy

    group = str(train.obs[label].value_counts().index[0])
    scaled = train.copy()
    scanpy.pp.normalize_total(scaled, target_sum=1e4)
    scanpy.pp.log1p(scaled)
    scanpy.tl.rank_genes_groups(scaled, label, groups=[group], method="wilcoxon")
    return str(scaled.uns["rank_genes_groups"]["names"][group][0]), group
