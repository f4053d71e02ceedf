"""Gene classification in gene-level folds: no gene is ever in training and test, baselines beside the model.

Every method scores the test genes of each fold once; AUROC and AUPRC are computed by fold and averaged, and repeated
over seeds, which draw the folds and everything random in training.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from ...inference.checkpoint import load_checkpoint
from ...inference.embedding.encode import GeneMeans, encode_cells, padded_batches
from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from ...tokenization.gene_table import GeneTable
from ...tokenization.tokenize import TokenizedCells, tokenize_cells
from ...training.finetuning.data import Labels
from ...training.finetuning.finetune import gene_label_tokens
from ...training.finetuning.fit import FinetuneOptions, fit_genes
from ..baselines.genes import expression_features, forest_scores, linear_scores
from ..metrics import auprc, auroc
from .labelled_cells import stratified_folds, token_counts

EXPRESSION = "mean expression + detection rate, logistic regression"
FOREST = "mean expression + detection rate, random forest"
FROZEN = "GeneCompass frozen gene embedding + logistic regression"
SCRATCH_EMBEDDING = "GeneCompass untrained gene embedding + logistic regression"
TRAINED = {"GeneCompass LoRA": "lora", "GeneCompass full": "full", "GeneCompass from scratch": "scratch"}
METHODS = (EXPRESSION, FOREST, SCRATCH_EMBEDDING, FROZEN, *TRAINED)


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
    tokenized: TokenizedCells
    counts: sparse.csr_matrix
    vocab_size: int
    unknown: list[str]
    unseen: int


def read_gene_task(
    gene_labels: dict[str, str],
    cells: str | os.PathLike[str],
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
    return GeneTask(name, tokens[seen], kept, tokenized, counts, table.vocab_size, unknown, int((~seen).sum()))


def run_gene_classification(
    task: GeneTask,
    model: str | os.PathLike[str],
    *,
    methods: Iterable[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    folds: int = 5,
    max_steps: int = 60,
    output: str | os.PathLike[str] | None = None,
    report: Any = None,
) -> list[dict[str, Any]]:
    """Score every method on every fold and seed; with `output`, finished runs are kept there and not repeated.

    Returns
    -------
    list of dict
        One a method, seed and fold: ``auroc``, ``auprc``, ``positives`` (AUPRC by chance), ``seconds``.
    """
    records = []
    embeddings: dict[str, npt.NDArray[np.float32]] = {}
    for seed in seeds:
        for fold, (train, test) in enumerate(stratified_folds(task.labels.codes.astype(str), folds, seed)):
            for method in methods:
                path = None if output is None else _run_file(output, task, model, method, seed, fold, folds, max_steps)
                if path is not None and path.exists():
                    records.append(json.loads(path.read_text(encoding="utf-8")))
                else:
                    begin = time.perf_counter()
                    scores = _scores(task, Path(model), method, train, test, seed, max_steps, embeddings)
                    truth = task.labels.codes[test]
                    records.append(
                        {
                            "split": task.name,
                            "method": method,
                            "ours": method.startswith("GeneCompass"),
                            "seed": seed,
                            "fold": fold,
                            "auroc": auroc(truth, scores),
                            "auprc": auprc(truth, scores),
                            "positives": float(truth.mean()),
                            "genes": len(task.tokens),
                            "seconds": round(time.perf_counter() - begin, 3),
                        }
                    )
                    if path is not None:
                        write_json(path, records[-1])
                if report is not None:
                    report(records[-1])
    return records


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
    embeddings: dict[str, npt.NDArray[np.float32]],
) -> npt.NDArray[np.float64]:
    codes = task.labels.codes
    if method in (EXPRESSION, FOREST):
        features = expression_features(task.counts, task.tokens)
        if method == FOREST:
            return forest_scores(features[train], codes[train], features[test], seed)
        return linear_scores(features[train], codes[train], features[test])
    if method in (FROZEN, SCRATCH_EMBEDDING):
        key = method if method == FROZEN else f"{method} {seed}"
        if key not in embeddings:
            embeddings[key] = _gene_embedding(task, model, None if method == FROZEN else seed)
        return linear_scores(embeddings[key][train], codes[train], embeddings[key][test])
    labels = Labels(codes[train], task.labels.names, {})
    options = FinetuneOptions(method=TRAINED[method], seed=seed, max_steps=max_steps, epochs=10)
    result = fit_genes(model, task.tokenized, task.tokens[train], labels, vocab_size=task.vocab_size, options=options)
    logits = gene_logits(result.model, task.tokenized, task.tokens[test], task.vocab_size)
    return logits[:, 1] - logits[:, 0]


def _gene_embedding(task: GeneTask, model: Path, untrained_seed: int | None) -> npt.NDArray[np.float32]:
    """States of the labelled genes, averaged by gene over cells; of random weights where a seed is given."""
    network, _ = load_checkpoint(model)
    if untrained_seed is not None:
        torch.manual_seed(untrained_seed)
        fresh = type(network)(network.config)
        buffers = dict(network.named_buffers())
        for name, buffer in fresh.named_buffers():
            buffer.copy_(buffers[name])
        network = fresh.eval()
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
