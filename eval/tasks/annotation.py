"""Cell-type annotation: every method on the same splits, seeds and labelled cells, its cost beside its score.

No method sees a test cell before it is scored: early stopping, calibration and learning rates use cells taken from the
training set. Macro-F1 is over the labels present in the test set; predictions of other labels count as errors.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ...inference.annotation.transfer import transfer_labels
from ...inference.checkpoint import load_checkpoint
from ...inference.embedding.encode import Moments, classify_pooled, encode_cells, pool_for_classifier
from ...tokenization.errors import InputError
from ...tokenization.files import write_json
from ...tokenization.gene_table import GeneTable
from ...tokenization.profile import bag, bag_matrix, profiles
from ...training.finetuning.data import Labels
from ...training.finetuning.fit import FinetuneOptions, fit_cells
from ..baselines.annotation import BASELINES
from ..metrics import (
    accuracy,
    bootstrap_interval,
    expected_calibration_error,
    macro_f1,
    weighted_f1,
)
from .labelled_cells import LabelledCells, pick_per_class

TRAINED = {
    "GeneCompass untrained, head only": "untrained",
    "GeneCompass from scratch": "scratch",
    "GeneCompass frozen": "frozen",
    "GeneCompass LoRA": "lora",
    "GeneCompass full": "full",
}
FROZEN = "GeneCompass frozen + logistic regression"
TRAINED_PART = "GeneCompass frozen, trained part + logistic regression"
NEIGHBOURS = "GeneCompass nearest neighbours"
# linear readings of counts with statistics of the pre-training corpus, and no network: what a network must beat
PROFILE_ROW = "profile + logistic regression"
AXES_ROW = "corpus axes + logistic regression"
LINEAR = (PROFILE_ROW, AXES_ROW)
METHODS = (*BASELINES, *LINEAR, FROZEN, TRAINED_PART, NEIGHBOURS, *TRAINED)
ALL_CELLS = "all"
NOTES = (
    "untrained, frozen, LoRA, full and from scratch: the same network, head, steps and validation cells (15 % of the "
    "labelled, at least one a class); untrained and frozen train the head alone, on random and pre-trained weights; "
    "LoRA and full go on from the frozen row's head, from scratch starts from a random head, which serves it better; "
    "all of them also learn from copies of their training cells with fewer counts (70 % and 20 %)",
    f"{FROZEN.removeprefix('GeneCompass ')} and nearest neighbours: read the cell vector, or without one the means "
    "over genes of all layers, and learn from all labelled cells, as the baselines do",
    f"{PROFILE_ROW}: log counts per 10,000 times the checkpoint's gene weights, to unit length, through a fixed random "
    f"matrix of 512 columns; {AXES_ROW}: the same along the leading axes of the pre-training corpus, or, where the "
    "checkpoint carries none, of the labelled cells; neither runs a network",
)


@dataclass(frozen=True)
class AnnotationSplit:
    """Training and test cells of one comparison.

    Parameters
    ----------
    name
        For tables; folds of one data set share it.
    train, test
        Cells with labels.
    fold
        Number of the fold; 0 where there are none.
    align
        How every method but logistic regression on log counts treats the two sets: ``"center"`` standardises what
        it reads of each by itself, for a training and a test set of different species.
    """

    name: str
    train: LabelledCells
    test: LabelledCells
    fold: int = 0
    align: str = "none"


@dataclass
class Budget:
    """How long the model's rows may train; the same for all of them.

    Parameters
    ----------
    max_steps, epochs, batch_size, patience
        As `FinetuneOptions`.
    learning_rates
        Method to peak rate; the method's default where absent.
    pooling
        What embeddings are taken from: ``"mean"`` over the genes or ``"species"``, the slot. Fine-tuned heads read
        what the checkpoint's ``classifier_pooling`` says.
    device
        Where the model runs: a GPU where there is one by default.
    """

    max_steps: int | None = 150
    epochs: float = 30
    batch_size: int = 16
    patience: int | None = None
    learning_rates: dict[str, float] = field(default_factory=dict)
    pooling: str = "mean"
    device: str | None = None


def run_annotation(
    splits: Sequence[AnnotationSplit],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    methods: Iterable[str] = METHODS,
    seeds: Sequence[int] = (0, 1, 2),
    cells_per_class: Sequence[int | None] = (5, 10, 25, None),
    budget: Budget | None = None,
    report: Any = None,
) -> list[dict[str, Any]]:
    """Run every method on every split, number of labelled cells and seed; finished runs are kept and not repeated.

    Parameters
    ----------
    splits
        Comparisons.
    model
        Pre-trained checkpoint.
    output
        Folder; each run is written to ``runs/`` as soon as it ends, so a killed benchmark continues.
    methods
        Names out of `METHODS`.
    seeds
        A seed picks the labelled cells and everything random in training.
    cells_per_class
        Labelled cells a class, None for all. Folds beyond the first run with all cells only.
    budget
        Training budget.
    report
        Called with each finished record.

    Returns
    -------
    list of dict
        One a run: split, fold, method, labelled cells, seed, scores and cost.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}; choose among: {'; '.join(METHODS)}")
    budget = budget or Budget()
    runner = _Runner(Path(model), budget)
    records = []
    for split in splits:
        for k in cells_per_class:
            if split.fold and k is not None:
                continue
            for seed in seeds:
                for method in methods:
                    path = _run_file(output, split, method, k, seed, runner.identity)
                    if path.exists():
                        record = json.loads(path.read_text(encoding="utf-8"))
                    else:
                        record = runner.run(split, method, k, seed)
                        write_json(path, record)
                    records.append(record)
                    if report is not None:
                        report(record)
    return records


# intervals over fewer donors mean nothing: cells are drawn then, within their label
FEWEST_DONORS = 5


def drawn_groups(groups: Any) -> Any:
    """Donors to draw in a bootstrap; None where there are too few of them."""
    return groups if groups is not None and len(set(np.asarray(groups).tolist())) >= FEWEST_DONORS else None


def _run_file(
    output: str | os.PathLike[str], split: AnnotationSplit, method: str, k: int | None, seed: int, identity: str
) -> Path:
    # baselines do not depend on the checkpoint, so their runs serve every checkpoint
    who = "baseline" if method in BASELINES else identity
    key = f"{split.name}|{split.fold}|{method}|{k or ALL_CELLS}|{seed}|{who}|{len(split.train)}|{len(split.test)}"
    return Path(output) / "runs" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


class _Runner:
    """A checkpoint under test, with embeddings computed once a data set."""

    def __init__(self, model: Path, budget: Budget) -> None:
        self.model, self.budget = model, budget
        self.identity = f"{model}|{budget}"
        self.table = GeneTable.read(model)
        self._network: Any = None
        self._embeddings: dict[tuple[int, str], tuple[Any, Any, float]] = {}

    def run(self, split: AnnotationSplit, method: str, k: int | None, seed: int) -> dict[str, Any]:
        """Train on the labelled cells, predict the test cells, score."""
        picked = pick_per_class(split.train.labels, k, seed)
        begin = time.perf_counter()
        cost: dict[str, Any]
        if method in BASELINES:
            train = split.train
            found = BASELINES[method](train.counts[picked], train.labels[picked], split.test.counts, seed, split.align)
            labels, scores, cost = found.labels, found.scores, {"trainable_parameters": found.parameters}
        elif method in TRAINED:
            labels, scores, cost = self._finetuned(split, picked, TRAINED[method], seed)
        else:
            labels, scores, cost = self._embedded(split, picked, method)
        cost.setdefault("seconds", round(time.perf_counter() - begin, 3))
        truth = split.test.labels
        donors = drawn_groups(split.test.groups)
        interval = bootstrap_interval(macro_f1, truth, labels, groups=donors, strata=truth, resamples=200, seed=seed)
        return {
            "split": split.name,
            "fold": split.fold,
            "method": method,
            "ours": method not in (*BASELINES, *LINEAR),
            "cells_per_class": k or ALL_CELLS,
            "seed": seed,
            "training_cells": len(picked),
            "test_cells": len(truth),
            "macro_f1": interval.value,
            "macro_f1_low": interval.low,
            "macro_f1_high": interval.high,
            "accuracy": accuracy(truth, labels),
            "weighted_f1": weighted_f1(truth, labels),
            "calibration_error": expected_calibration_error(truth, labels, np.clip(scores, 0, 1)),
            **cost,
            "scores": np.round(scores, 4).tolist() if k is None and seed == 0 else None,
            "predicted": labels.tolist() if k is None else None,
            "truth": truth.tolist() if k is None else None,
            "groups": np.asarray(donors).tolist() if k is None and donors is not None else None,
        }

    def _finetuned(
        self, split: AnnotationSplit, picked: npt.NDArray[np.int64], method: str, seed: int
    ) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64], dict[str, Any]]:
        train = split.train.take(picked)
        names, codes = np.unique(train.labels, return_inverse=True)
        budget = self.budget
        options = FinetuneOptions(
            method=method,
            max_steps=budget.max_steps,
            epochs=budget.epochs,
            batch_size=budget.batch_size,
            patience=budget.patience,
            learning_rate=budget.learning_rates.get(method),
            seed=seed,
            device=budget.device,
        )
        result = fit_cells(
            self.model,
            train.tokenized,
            Labels(codes, names.tolist(), {}),
            groups=train.groups,
            thinned=train.thinned,
            options=options,
        )
        pooled = pool_for_classifier(result.model, split.test.tokenized)
        if split.align == "center":
            known = result.record["pooled"]
            pooled = Moments(np.array(known["mean"]), np.array(known["spread"])).give_to(pooled)
        logits = classify_pooled(result.model, pooled) / result.temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        parameters = result.cost["parameters"]
        cost = {
            "seconds": result.cost["seconds"],
            "steps": result.cost.get("steps"),
            "trainable_parameters": parameters["trainable"],
            "trainable_share": parameters["trainable"] / parameters["total"],
            "gradient_and_optimizer_bytes": result.cost.get("gradient_bytes", 0)
            + result.cost.get("optimizer_bytes", 0),
            "validation_macro_f1": result.validation["macro_f1"],
            "validation_split": result.validation["split"],
        }
        return names[shares.argmax(axis=1)], shares.max(axis=1).astype(float), cost

    def _embedded(
        self, split: AnnotationSplit, picked: npt.NDArray[np.int64], method: str
    ) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64], dict[str, Any]]:
        kind = {PROFILE_ROW: "profile", AXES_ROW: "axes", TRAINED_PART: "trained"}.get(method, "network")
        known, seconds = self._embedding(split.train, kind)
        asked, more = self._embedding(split.test, kind)
        if kind == "axes" and self.network.config.cell_size == 0:
            centre = TruncatedSVD(min(128, len(picked) - 1), random_state=0).fit(known[picked])
            known, asked = centre.transform(known), centre.transform(asked)
        labels = split.train.labels[picked]
        begin = time.perf_counter()
        parameters = 0
        if method == NEIGHBOURS:
            found = transfer_labels(
                known[picked], labels, asked, align=split.align, whiten=not self.network.config.cell_size
            )
            names, scores = found.labels, found.scores.astype(float)
        else:
            scaler = StandardScaler().fit(known[picked])
            other = StandardScaler().fit(asked) if split.align == "center" else scaler
            model = LogisticRegression(max_iter=1000, class_weight="balanced", C=1.0)
            model.fit(scaler.transform(known[picked]), labels)
            shares = model.predict_proba(other.transform(asked))
            names, scores = model.classes_[shares.argmax(axis=1)].astype(str), shares.max(axis=1)
            parameters = model.coef_.size + model.intercept_.size
        # embeddings are shared by all rows that read them, and each is charged with computing them
        spent = seconds * len(picked) / len(known) + more + time.perf_counter() - begin
        return names, scores, {"trainable_parameters": parameters, "seconds": round(spent, 3)}

    @property
    def network(self) -> Any:
        """The encoder, loaded once."""
        if self._network is None:
            self._network, _ = load_checkpoint(self.model, device=self.budget.device, fold=True)
        return self._network

    def _embedding(self, cells: LabelledCells, kind: str) -> tuple[Any, float]:
        """Vectors of cells, and the seconds they took; computed once a data set and kind."""
        key = (id(cells), kind)
        if key not in self._embeddings:
            begin = time.perf_counter()
            found = self._embed(cells, kind)
            # the cells are kept beside their embedding: an id may be used again once its object is gone
            self._embeddings[key] = (cells, found, time.perf_counter() - begin)
        _, embedding, seconds = self._embeddings[key]
        return embedding, seconds

    def _embed(self, cells: LabelledCells, kind: str) -> Any:
        if kind == "network":
            network = self.network
            if network.config.cell_size:
                return encode_cells(network, cells.tokenized, pooling="cell")
            # all layers side by side: which one serves a task best cannot be known without looking at its labels
            layers = range(network.config.num_hidden_layers + 1)
            states = [
                encode_cells(network, cells.tokenized, pooling=self.budget.pooling, layer=layer) for layer in layers
            ]
            return np.concatenate(states, axis=1)
        if kind == "trained":
            # of a model without a cell vector there is no such part: its states are all trained
            return self._embedding(cells, "network")[0][:, : self.network.config.cell_size or None]
        counts = sparse.csr_matrix(cells.counts)
        table = self.table
        profile = profiles(counts.indptr.astype(np.int64), counts.indices, counts.data, table.weights)
        if kind == "axes":
            return self._along_axes(profile)
        return bag(profile, bag_matrix(table.vocab_size))

    def _along_axes(self, profile: sparse.csr_matrix) -> Any:
        """Along the corpus' axes; the profiles themselves where the checkpoint has none."""
        head = getattr(self.network, "cell_head", None)
        if head is None:
            return profile
        along = profile @ head.axes.cpu().numpy() - head.axes_mean.cpu().numpy()
        return (along / head.axes_scale.cpu().numpy()).astype(np.float32)
