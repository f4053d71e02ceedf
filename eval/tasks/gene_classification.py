"""Gene classification in folds of gene families: no gene and no relative is in training and test, baselines beside.

Every method scores each gene once, in the fold that it was kept out of; AUROC and AUPRC are of all genes together, and
AUROC also within the genes that are no C2H2 zinc fingers by name: where most of one class are, telling them from the
rest is half the task, and a rule on names does it. Repeated over seeds, which draw the folds and everything random.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.model_selection import StratifiedGroupKFold

from ...inference.checkpoint import load_checkpoint
from ...inference.embedding.encode import GeneMeans, encode_cells, padded_batches
from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from ...tokenization.gene_table import GeneTable
from ...tokenization.tokenize import TokenizedCells, tokenize_cells
from ...training.finetuning.data import Labels
from ...training.finetuning.finetune import gene_label_tokens
from ...training.finetuning.fit import FinetuneOptions, fit_genes
from ..baselines.genes import (
    expression_features,
    families_by_name,
    forest_scores,
    gene_coordinates,
    is_zinc_finger_by_name,
    linear_scores,
    name_rule_scores,
)
from ..metrics import auprc, auroc
from .labelled_cells import stratified_folds, token_counts

EXPRESSION = "mean expression + detection rate, logistic regression"
FOREST = "mean expression + detection rate, random forest"
FROZEN = "GeneCompass frozen gene embedding + logistic regression"
SCRATCH_EMBEDDING = "GeneCompass untrained gene embedding + logistic regression"
TRAINED = {"GeneCompass LoRA": "lora", "GeneCompass full": "full", "GeneCompass from scratch": "scratch"}
NAME_RULE = "rule: the symbol is no zinc finger's"
GENE_PCA = "PCA coordinates of genes, logistic regression"
PRIORS = "prior tables, logistic regression each"
METHODS = (NAME_RULE, EXPRESSION, FOREST, GENE_PCA, PRIORS, SCRATCH_EMBEDDING, FROZEN, *TRAINED)
FoldsBy = Literal["family", "gene"]


@dataclass(frozen=True)
class GeneTask:
    """Labelled genes and the cells that are their context.

    Parameters
    ----------
    name
        For tables.
    tokens, labels
        Labelled tokens; two classes.
    tokenized, counts
        The same cells for the model and for the baselines.
    symbols
        Of the labelled genes.
    vocab_size
        Tokens of the vocabulary.
    unknown
        Labelled genes that the vocabulary does not know.
    unseen
        Labelled genes that no cell expresses; left out for every method.
    """

    name: str
    tokens: npt.NDArray[np.int64]
    labels: Labels
    symbols: list[str]
    tokenized: TokenizedCells
    counts: sparse.csr_matrix
    vocab_size: int
    unknown: list[str]
    unseen: int


def read_gene_task(
    gene_labels: dict[str, str],
    cells: Any,
    table: GeneTable,
    *,
    species: str,
    name: str,
    max_length: int = 512,
    max_cells: int = 1000,
    seed: int = 0,
) -> GeneTask:
    """Read labels and cells; genes that no chosen cell shows to the model are left out for every method.

    Raises
    ------
    InputError
        Not two classes, or too few genes.
    """
    tokens, labels, unknown = gene_label_tokens(gene_labels, table, species=species)
    if len(labels.names) != 2:
        raise InputError(f"gene classification takes two classes; these labels have {len(labels.names)}")
    whole = tokenize_cells(cells, table, species=species, max_length=max_length, empty_cells="keep")
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.choice(len(whole), min(max_cells, len(whole)), replace=False))
    lengths = whole.lengths[chosen]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    slots = np.repeat(whole.indptr[chosen] - indptr[:-1], lengths) + np.arange(indptr[-1])
    tokenized = TokenizedCells(
        indptr, whole.input_ids[slots], whole.values[slots], whole.species[chosen], whole.rows[chosen], whole.report
    )
    seen = np.isin(tokens, np.unique(tokenized.input_ids))
    kept = Labels(labels.codes[seen], labels.names, {})
    if np.bincount(kept.codes, minlength=2).min() < 10:
        raise InputError(f"{name}: fewer than 10 genes of a class are expressed in these cells; use other cells")
    counts = token_counts(cells, table, species=species)[chosen]
    symbols = table.frame["symbol"].astype(str).to_numpy()
    own = np.flatnonzero(table.frame["species"].to_numpy() == species)
    symbol_of = {int(table.token_in_cell[row]): str(symbols[row]) for row in own[::-1]}
    shown = [symbol_of.get(int(token), "") for token in tokens[seen]]
    return GeneTask(name, tokens[seen], kept, shown, tokenized, counts, table.vocab_size, unknown, int((~seen).sum()))


def run_gene_classification(
    task: GeneTask,
    model: str | os.PathLike[str],
    *,
    methods: Iterable[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    folds_by: FoldsBy = "family",
    max_steps: int = 60,
    device: str | None = None,
    output: str | os.PathLike[str] | None = None,
    report: Any = None,
) -> list[dict[str, Any]]:
    """Score every method with every seed; with `output`, finished folds are kept there and not repeated.

    Parameters
    ----------
    folds_by
        ``"family"``: families by name (`baselines.genes.families_by_name`) stay together; ``"gene"``: genes are drawn
        one by one, as published benchmarks do, and relatives stand on both sides.
    device
        Where the model runs: a GPU where there is one by default.

    Returns
    -------
    list of dict
        One a method and seed: ``auroc``, ``auprc``, ``auroc_not_c2h2``, ``positives`` (AUPRC by chance),
        ``seconds``.

    Raises
    ------
    InputError
        If there are too few families for the folds.
    """
    records = []
    codes = task.labels.codes
    rest = np.array([not is_zinc_finger_by_name(symbol) for symbol in task.symbols])
    embeddings: dict[str, npt.NDArray[Any]] = {}
    names = [name for method in methods for name in (_prior_methods(Path(model)) if method == PRIORS else [method])]
    for seed in seeds:
        pairs = _folds(task, folds, folds_by, seed)
        for method in names:
            scores, seconds = np.full(len(codes), np.nan), 0.0
            for fold, (train, test) in enumerate(pairs):
                settings = (model, method, seed, fold, folds, folds_by, max_steps)
                path = None if output is None else _run_file(output, task, *settings)
                if path is not None and path.exists():
                    run = json.loads(path.read_text(encoding="utf-8"))
                else:
                    begin = time.perf_counter()
                    own = _scores(task, Path(model), method, train, test, seed, max_steps, device, embeddings)
                    run = {"scores": own.tolist(), "seconds": round(time.perf_counter() - begin, 3)}
                    if path is not None:
                        write_json(path, run)
                scores[test] = run["scores"]
                seconds += run["seconds"]
            record: dict[str, Any] = {
                "split": f"{task.name}, folds by {folds_by}",
                "method": method,
                "ours": method.startswith("GeneCompass"),
                "seed": seed,
                "auroc": auroc(codes, scores),
                "auprc": auprc(codes, scores),
                "positives": float(codes.mean()),
                "genes": len(task.tokens),
                "genes_not_c2h2": int(rest.sum()),
                "seconds": round(seconds, 3),
            }
            if len(set(codes[rest].tolist())) == 2:
                record["auroc_not_c2h2"] = auroc(codes[rest], scores[rest])
            records.append(record)
            if report is not None:
                report(record)
    return records


def _folds(
    task: GeneTask, folds: int, folds_by: FoldsBy, seed: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    codes = task.labels.codes
    if folds_by == "gene":
        return stratified_folds(codes.astype(str), folds, seed)
    families = families_by_name(task.symbols)
    if len(set(families)) < 2 * folds:
        raise InputError(
            f"{task.name}: {len(set(families))} gene families by name are too few for {folds} folds; "
            "use folds_by='gene'"
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    pairs = list(splitter.split(codes, codes, families))
    if any(len(set(codes[train].tolist())) < 2 for train, _ in pairs):
        raise InputError(f"{task.name}: one family holds nearly all genes of a class; use folds_by='gene'")
    return pairs


def _prior_methods(model: Path) -> list[str]:
    network, _ = load_checkpoint(model, device="cpu")
    return [f"prior {name}, logistic regression" for name in network.config.priors]


def _prior_features(task: GeneTask, model: Path, name: str) -> npt.NDArray[np.float64]:
    """A frozen table's rows of the labelled genes, and whether the table knows them."""
    network, _ = load_checkpoint(model, device="cpu")
    embeddings: Any = network.base_model.embeddings
    species = int(task.tokenized.species[0])
    rows = embeddings.prior_rows[species][torch.from_numpy(task.tokens.astype(np.int64))]
    table = embeddings.prior_tables.get_buffer(name)[rows].double().cpu().numpy()
    return np.column_stack([table, (table != 0).any(axis=1)])


def _run_file(output: str | os.PathLike[str], task: GeneTask, *settings: Any) -> Path:
    key = "|".join(map(str, (task.name, len(task.tokens), len(task.tokenized), task.tokenized.indptr[-1], *settings)))
    return Path(output) / "runs" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _scores(
    task: GeneTask,
    model: Path,
    method: str,
    train: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    seed: int,
    max_steps: int,
    device: str | None,
    embeddings: dict[str, npt.NDArray[Any]],
) -> npt.NDArray[np.float64]:
    codes = task.labels.codes
    if method == NAME_RULE:
        return name_rule_scores(task.symbols, codes, train)[test]
    if method == GENE_PCA or method.startswith("prior "):
        if method not in embeddings:
            embeddings[method] = (
                gene_coordinates(task.counts, task.tokens)
                if method == GENE_PCA
                else _prior_features(task, model, method.removeprefix("prior ").partition(",")[0])
            )
        return linear_scores(embeddings[method][train], codes[train], embeddings[method][test])
    if method in (EXPRESSION, FOREST):
        features = expression_features(task.counts, task.tokens)
        if method == FOREST:
            return forest_scores(features[train], codes[train], features[test], seed)
        return linear_scores(features[train], codes[train], features[test])
    if method in (FROZEN, SCRATCH_EMBEDDING):
        key = method if method == FROZEN else f"{method} {seed}"
        if key not in embeddings:
            embeddings[key] = _gene_embedding(task, model, None if method == FROZEN else seed, device)
        return linear_scores(embeddings[key][train], codes[train], embeddings[key][test])
    labels = Labels(codes[train], task.labels.names, {})
    options = FinetuneOptions(method=TRAINED[method], seed=seed, max_steps=max_steps, epochs=10, device=device)
    result = fit_genes(model, task.tokenized, task.tokens[train], labels, vocab_size=task.vocab_size, options=options)
    logits = gene_logits(result.model, task.tokenized, task.tokens[test], task.vocab_size)
    return logits[:, 1] - logits[:, 0]


def _gene_embedding(
    task: GeneTask, model: Path, untrained_seed: int | None, device: str | None
) -> npt.NDArray[np.float32]:
    """States of the labelled genes, averaged by gene over cells; of random weights where a seed is given."""
    network, _ = load_checkpoint(model, device=device)
    if untrained_seed is not None:
        torch.manual_seed(untrained_seed)
        fresh = type(network)(network.config)
        buffers = dict(network.named_buffers())
        for name, buffer in fresh.named_buffers():
            buffer.copy_(buffers[name])
        untrained: Any = fresh
        network = untrained.to(network.device).eval()
    means = GeneMeans(task.vocab_size, network.config.hidden_size)
    encode_cells(network, task.tokenized, gene_means=means)
    return means.means()[task.tokens]


@torch.no_grad()
def gene_logits(model: Any, tokenized: Any, tokens: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.float64]:
    """Logits of genes, averaged over the cells that express them. Shape (genes, labels).

    Parameters
    ----------
    model
        A gene classifier.
    tokenized
        Cells.
    tokens
        Genes to score; each occurs in some cell.
    vocab_size
        Tokens of the vocabulary.
    """
    model.eval()
    device = next(model.parameters()).device
    wanted = np.zeros(vocab_size, dtype=bool)
    wanted[tokens] = True
    wanted_on_device = torch.from_numpy(wanted).to(device)
    sums = np.zeros((vocab_size, 2), dtype=np.float64)
    seen = np.zeros(vocab_size, dtype=np.int64)
    for _, batch in padded_batches(tokenized, device=device):
        slots = wanted_on_device[batch["input_ids"]] & batch["attention_mask"].bool()
        if not bool(slots.any()):
            continue
        logits = model(**batch).logits[slots].double().cpu().numpy()
        found = batch["input_ids"][slots].cpu().numpy()
        np.add.at(sums, found, logits)
        np.add.at(seen, found, 1)
    return sums[tokens] / np.maximum(seen[tokens], 1)[:, None]
