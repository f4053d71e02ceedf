"""Gene regulatory networks of a set of cells: from the model, from expression, or from both."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ...tokenization.readers import CellOptions
from ...tokenization.sources import model_or_default
from ..checkpoint import Model, gene_table_of, load_checkpoint
from ..perturbation.cells import PerturbedCells, columns_of_genes, take_cells
from ..perturbation.forward import CopyReader
from ..perturbation.perturb import factor_columns
from ..perturbation.screen import run_key
from .edges import edges_from_matrix, overlap, store_network
from .expression import (
    TreeKind,
    correlation_scores,
    partial_correlation_scores,
    random_scores,
    tree_scores,
)
from .states import attention_scores, cosine_scores, deletion_scores, gene_embeddings, similarity_scores
from .structural_vae import StructuralVAEOptions, structural_network

ModelMethod = Literal["similarity", "deletion", "attention", "structural_vae_started", "structural_vae_masked"]
ExpressionMethod = Literal[
    "structural_vae", "pearson", "spearman", "partial_correlation", "genie3", "extra_trees", "grnboost2", "random"
]
Method = ModelMethod | ExpressionMethod
MODEL_METHODS: tuple[str, ...] = get_args(ModelMethod)
EXPRESSION_METHODS: tuple[str, ...] = get_args(ExpressionMethod)
TREES: dict[str, TreeKind] = {
    "genie3": "random_forest",
    "extra_trees": "extra_trees",
    "grnboost2": "gradient_boosting",
}
# share of a similarity network that is let through to the autoencoder as a mask
MASK_SHARE = 0.5


def infer_grn(
    adata: Any,
    model: Model | None = None,
    regulators: str | os.PathLike[str] | Sequence[str] | None = None,
    method: Method = "similarity",
    *,
    species: str,
    gene_species: str | None = None,
    targets: Sequence[str] | None = None,
    n_variable: int = 500,
    min_share: float = 0.1,
    cells: npt.ArrayLike | None = None,
    max_cells: int | None = None,
    threshold: float | None = None,
    top_k: int | None = None,
    standardise: bool = True,
    layers: Sequence[int] | None = None,
    n_trees: int = 500,
    vae: StructuralVAEOptions | None = None,
    gene_table: GeneTable | None = None,
    max_tokens: int = 16384,
    bf16: bool = False,
    processor: Any = None,
    device: str | torch.device | None = None,
    store: str | os.PathLike[str] | None = None,
    key_added: str | None = "genecompass_grn",
    seed: int = 0,
    progress: bool = True,
    **reading: Unpack[CellOptions],
) -> pd.DataFrame:
    """Infer which regulators act on which targets in some cells, best those of one type.

    Parameters
    ----------
    adata
        AnnData or path to one, with raw counts.
    model
        Checkpoint, or a model with its `processor`; without a `gene_table` by default the checkpoint that travels with
        the package. Methods on expression alone need only a `gene_table`.
    regulators
        List or file of names; those that too few cells express are left out. Default: the transcription factors that
        `factors` knows by name.
    method
        From the model: ``"similarity"`` (cosine of contextual gene embeddings averaged by gene and centred,
        standardised over regulators for each target; it has no direction of its own), ``"deletion"``
        (effect of deleting the regulator), ``"attention"``. From expression: ``"structural_vae"``, ``"pearson"``,
        ``"spearman"``, ``"partial_correlation"``, ``"genie3"``, ``"extra_trees"``, ``"grnboost2"`` (alike in method,
        through scikit-learn), ``"random"``. From both: ``"structural_vae_started"`` (W starts from the similarity
        network) and ``"structural_vae_masked"`` (only the stronger half of it may be edges).
    species, gene_species
        Species of the cells, and of the gene names where the counts were mapped to another species.
    targets
        Names; default the regulators and the `n_variable` most variable genes.
    min_share
        Regulators, and genes chosen as variable, are expressed in at least this share of cells.
    cells, max_cells
        Boolean mask or rows of the cells to use, and how many of them to draw.
    threshold, top_k
        Keep edges of at least this weight; keep this many targets per regulator. Default: all edges, ranked.
    standardise
        For ``"similarity"``: take the mean embedding off before the cosine, then standardise each target's cosines
        over the regulators, as some genes are near to all. Off: the plain cosine of published networks.
    layers
        For ``"attention"``: which layers; default all.
    n_trees, vae
        Options of tree ensembles and of the autoencoder.
    gene_table
        Vocabulary to match genes with, where there is no model.
    max_tokens, bf16, processor, device
        As for `perturb`.
    store
        For ``"deletion"``: file (``.npz``) from which a run that was cut off goes on.
    key_added
        Where in ``adata.uns`` the network goes if `adata` is an AnnData; None for nowhere.
    seed
        Of the draw of cells, trees, the autoencoder and random weights.
    **reading
        How the file is read: `CellOptions`.

    Returns
    -------
    pandas.DataFrame
        ``regulator``, ``target``, ``weight`` (>= 0, comparable within one method only), ``sign`` (1 activation,
        -1 repression, 0 unknown), ``evidence`` (the method); heaviest first. For methods of the model
        ``attrs["correlation"]`` says how much of it a plain correlation network of the same cells shares.

    Raises
    ------
    InputError
        For an unknown method, no regulator that cells express, unknown targets, or too few cells.

    Examples
    --------
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> factors = ["SPI1", "FOS"]
    >>> network = infer_grn(blood_cells()[:40], regulators=factors, species="human", top_k=5, progress=False)
    >>> network.groupby("regulator").size().to_dict()
    {'FOS': 5, 'SPI1': 5}
    """
    if gene_table is None:
        model = model_or_default(model)
    _check_method(method, model, gene_table, threshold, top_k)
    reader = None
    if model is not None:
        head = _head_for(method, model)
        network, processor = load_checkpoint(
            model,
            head,
            processor=processor,
            device=device,
            fold=True,
            attn_implementation="eager" if method == "attention" else None,
        )
        if method == "attention":
            network.set_attn_implementation("eager")
        reader = CopyReader(network, max_tokens=max_tokens, dtype=torch.bfloat16 if bf16 else torch.float32)
        gene_table = gene_table_of(processor)
    assert gene_table is not None
    taken = take_cells(
        adata,
        gene_table,
        species=species,
        gene_species=gene_species,
        cells=cells,
        max_cells=max_cells,
        max_length=reader.base.config.max_position_embeddings if reader else 2048,
        seed=seed,
        **reading,
    )
    rows, columns = network_genes(
        taken, regulators=regulators, targets=targets, n_variable=n_variable, min_share=min_share
    )
    scores, signed = _scores(
        method, reader, taken, rows, columns, standardise=standardise, layers=layers, n_trees=n_trees, vae=vae,
        store=store, seed=seed, progress=progress,
    )  # fmt: skip
    names = [str(taken.names[c]) for c in rows], [str(taken.names[c]) for c in columns]
    edges = edges_from_matrix(
        scores, *names, evidence=method, signed=signed is not None, threshold=threshold, top_k=top_k
    )
    if signed is not None:
        edges["sign"] = _signs(edges, signed, *names)
    if method in MODEL_METHODS:
        edges.attrs["correlation"] = _shared_with_correlation(scores, taken, rows, columns)
    if key_added is not None and hasattr(adata, "uns"):
        store_network(
            adata,
            edges,
            key=key_added,
            parameters={"method": method, "species": species, "n_cells": len(taken), "seed": seed,
                        "model": model if isinstance(model, (str, os.PathLike)) else type(model).__name__,
                        **{f"correlation_{name}": value for name, value in edges.attrs.get("correlation", {}).items()}},
        )  # fmt: skip
    return edges


def _check_method(
    method: str, model: Any, gene_table: GeneTable | None, threshold: float | None, top_k: int | None
) -> None:
    if method not in (*MODEL_METHODS, *EXPRESSION_METHODS):
        raise InputError(f"unknown method {method!r}; use one of {', '.join((*MODEL_METHODS, *EXPRESSION_METHODS))}")
    if model is None and method in MODEL_METHODS:
        raise InputError(f"method {method!r} needs a model; {', '.join(EXPRESSION_METHODS)} do without")
    if model is None and gene_table is None:
        raise InputError("without a model a gene_table is needed, to know the genes of the matrix")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be 1 or more, not {top_k}")
    if threshold is not None and threshold < 0:
        raise InputError(f"threshold must be 0 or more, not {threshold}")


def _head_for(method: str, model: Model) -> str | None:
    """Deletions read the masked-gene head for their sign, where the checkpoint has one."""
    if method != "deletion":
        return None
    if isinstance(model, (str, os.PathLike)):
        config = Path(model) / "config.json"
        return "masked" if config.exists() and "ForMaskedGeneModeling" in config.read_text(encoding="utf-8") else None
    return "masked" if hasattr(model, "value_decoder") else None


def network_genes(
    cells: PerturbedCells,
    *,
    regulators: str | os.PathLike[str] | Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    n_variable: int = 500,
    min_share: float = 0.1,
) -> tuple[list[int], list[int]]:
    """Columns of regulators and targets, chosen much as BEELINE does.

    Regulators are those given that enough cells express. Targets, unless given, are they and the genes whose
    log-normalised expression varies most among those that enough cells express.
    """
    enough = max(1, int(np.ceil(min_share * len(cells))))
    rows = factor_columns(cells, regulators, min_cells=enough).tolist()
    if targets is not None:
        return rows, list(dict.fromkeys(columns_of_genes(list(targets), cells)))
    candidates = cells.expressed(enough)
    variance = log_variance(cells, candidates)
    variable = candidates[np.argsort(-variance, kind="stable")[:n_variable]]
    return rows, list(dict.fromkeys([*rows, *variable.tolist()]))


def log_expression(cells: PerturbedCells, columns: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """log(1 + counts scaled to 10,000 a cell) of some genes, (cells, genes)."""
    total = np.asarray(cells.counts.sum(axis=1)).reshape(-1, 1)
    return np.log1p(cells.counts[:, np.asarray(columns, dtype=np.int64)].toarray() * (1e4 / total))


def log_variance(cells: PerturbedCells, columns: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Variance over cells of what `log_expression` gives, from the sparse counts alone. (genes,)."""
    total = np.asarray(cells.counts.sum(axis=1)).ravel()
    scaled = sparse.csr_matrix(sparse.diags(1e4 / total) @ cells.counts)
    scaled.data = np.log1p(scaled.data)
    n = len(cells)
    mean = np.asarray(scaled.sum(axis=0)).ravel() / n
    # around the mean, so that nothing is lost to rounding; the zeros are counted, not stored
    apart = np.bincount(scaled.indices, (scaled.data - mean[scaled.indices]) ** 2, scaled.shape[1])
    zeros = n - np.bincount(scaled.indices, minlength=scaled.shape[1])
    return ((apart + zeros * mean**2) / n)[np.asarray(columns, dtype=np.int64)]


def _shared_with_correlation(
    scores: npt.NDArray[np.float64], cells: PerturbedCells, rows: list[int], columns: list[int]
) -> dict[str, float]:
    genes = list(dict.fromkeys([*rows, *columns]))
    place = {column: index for index, column in enumerate(genes)}
    plain = correlation_scores(
        log_expression(cells, genes), [place[c] for c in rows], [place[c] for c in columns], kind="pearson"
    )
    return overlap(np.abs(scores), np.abs(plain), np.asarray(rows)[:, None] != np.asarray(columns)[None, :])


def _scores(
    method: str,
    reader: CopyReader | None,
    cells: PerturbedCells,
    rows: list[int],
    columns: list[int],
    *,
    standardise: bool,
    layers: Sequence[int] | None,
    n_trees: int,
    vae: StructuralVAEOptions | None,
    store: Any,
    seed: int,
    progress: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Scores, (regulators, targets), and where known a matrix of the same shape whose sign is the edge's."""
    if method == "attention":
        assert reader is not None
        return attention_scores(reader, cells, rows, columns, layers=layers, progress=progress), None
    if method == "deletion":
        assert reader is not None
        key = run_key(rows=cells.rows.tolist(), regulators=rows, targets=columns, method=method)
        scores, change = deletion_scores(reader, cells, rows, columns, store=store, key=key, progress=progress)
        # deleting an activator lowers what is predicted for its target
        return scores, None if change is None else -change
    genes = list(dict.fromkeys([*rows, *columns]))
    place = {column: index for index, column in enumerate(genes)}
    regulator, target = [place[c] for c in rows], [place[c] for c in columns]
    cosines = None
    if method in MODEL_METHODS:
        assert reader is not None
        embeddings, _ = gene_embeddings(reader, cells, genes)
        if method == "similarity":
            return similarity_scores(embeddings, regulator, target, standardise=standardise), None
        cosines = np.maximum(cosine_scores(embeddings, range(len(genes)), range(len(genes)), centre=True), 0.0)
    return expression_scores(
        log_expression(cells, genes), regulator, target, method, cosines=cosines, n_trees=n_trees, vae=vae,
        seed=seed,
    )  # fmt: skip


def expression_scores(
    expression: npt.ArrayLike,
    regulators: Sequence[int],
    targets: Sequence[int],
    method: str,
    *,
    cosines: npt.ArrayLike | None = None,
    n_trees: int = 500,
    vae: StructuralVAEOptions | None = None,
    seed: int = 0,
    n_jobs: int = 1,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Scores from an expression matrix by any method that needs no model.

    Parameters
    ----------
    expression
        (cells, genes), log-normalised.
    regulators, targets
        Columns.
    method
        One of `EXPRESSION_METHODS`, or ``"structural_vae_started"`` / ``"structural_vae_masked"`` with `cosines`.
    cosines
        (genes, genes), a similarity network.

    Returns
    -------
    scores, signed
        (regulators, targets) each; `signed` is None for methods that know no sign.
    """
    X = np.asarray(expression, dtype=np.float64)
    if method in ("pearson", "spearman"):
        scores = correlation_scores(X, regulators, targets, kind="pearson" if method == "pearson" else "spearman")
        return scores, scores
    if method == "partial_correlation":
        scores = partial_correlation_scores(X, regulators, targets)
        return scores, scores
    if method in TREES:
        scores = tree_scores(X, regulators, targets, kind=TREES[method], n_trees=n_trees, seed=seed, n_jobs=n_jobs)
        return scores, None
    if method == "random":
        return random_scores(len(regulators), len(targets), seed=seed), None
    if method not in ("structural_vae", "structural_vae_started", "structural_vae_masked"):
        raise InputError(f"unknown method {method!r}; use one of {', '.join(EXPRESSION_METHODS)}")
    options = vae or StructuralVAEOptions(seed=seed)
    mask = np.zeros((X.shape[1], X.shape[1]), dtype=bool)
    mask[list(regulators)] = True
    initial = None
    if method != "structural_vae":
        if cosines is None:
            raise InputError(f"method {method!r} needs the similarity network as cosines")
        network = np.nan_to_num(np.asarray(cosines, dtype=np.float64))
        if method == "structural_vae_started":
            initial = network
        else:
            off_diagonal = mask & ~np.eye(len(mask), dtype=bool)
            mask &= network >= np.quantile(network[off_diagonal], 1 - MASK_SHARE)
    weights = structural_network(X, options, initial=initial, mask=mask).weights
    scores = weights[np.ix_(list(regulators), list(targets))]
    return scores, scores


def _signs(
    edges: pd.DataFrame, signed: npt.NDArray[np.float64], regulators: list[str], targets: list[str]
) -> npt.NDArray[np.int8]:
    row = pd.Index(regulators).get_indexer(pd.Index(edges["regulator"]))
    column = pd.Index(targets).get_indexer(pd.Index(edges["target"]))
    return np.sign(np.nan_to_num(signed[row, column])).astype(np.int8)


__all__ = ["infer_grn"]
