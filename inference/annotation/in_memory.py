"""Label cells: with a fine-tuned model, or from a labelled reference without training."""

import logging
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from ...tokenization.errors import InputError
from ...tokenization.readers import CellOptions, CellSource, open_cells
from ...tokenization.sources import model_or_default
from ..cells import Coverage, Reading, chunks, name_of, provenance, require_species
from ..checkpoint import Finetuning, Model, gene_table_of, load_checkpoint, read_finetuning
from ..embedding.encode import MAX_TOKENS, Moments, classify_pooled, pool_for_classifier
from ..embedding.pooling import Pooling, counts_of
from ..h5ad import check_key
from .transfer import ALIGNMENTS, Prediction, principal_neighbours, transfer_labels

LABEL_KEY = "genecompass_cell_type"
# cells at most by which a transfer is compared with principal components
_COMPARED = 5_000
# below this share of equal labels, either of the two is not to be trusted
_AGREEING = 0.7
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """A labelled data set to take labels from.

    Parameters
    ----------
    cells
        AnnData or path, with raw counts.
    label
        ``obs`` column of labels. ``<label>_ontology_term_id``, if there, is carried along.
    species
        Species of its cells; None for the query's.
    gene_species
        Species of its gene names, where it is not the cells'.

    Examples
    --------
    >>> Reference("baron_human.h5ad", "cell_type", species="human").label
    'cell_type'
    """

    cells: Any
    label: str = "cell_type"
    species: str | None = None
    gene_species: str | None = None


def annotate(
    adata: Any,
    model: Model = None,
    species: str | None = None,
    *,
    reference: Reference | None = None,
    processor: Any = None,
    threshold: float = 0.5,
    unsure: str = "unsure",
    k: int = 15,
    pooling: str = "auto",
    align: str = "none",
    key: str = LABEL_KEY,
    gene_species: str | None = None,
    max_length: int | None = None,
    max_tokens: int = MAX_TOKENS,
    bf16: bool = False,
    device: str | None = None,
    progress: bool = False,
    **reading: Unpack[CellOptions],
) -> Any:
    """Label cells, in place.

    Parameters
    ----------
    adata
        AnnData with raw counts.
    model
        Without a reference: a model or adapter fine-tuned for cells. With one: any checkpoint, by default the one that
        travels with the package.
    species
        Species of the cells, or an ``obs`` column that says it. A model that learned from human cells labels mouse
        cells through their homologs.
    reference
        Take labels from these cells instead: nearest neighbours in embedding space.
    processor
        Needed with a loaded model only.
    threshold
        Cells whose score is lower are called `unsure`; 0 labels every cell.
    unsure
        What to call them.
    k, pooling
        With a reference: neighbours, and kind of embedding.
    align
        ``"center"`` standardises these cells and those with labels (a reference's, or those that the model learned
        from) each by themselves, which takes out a shift between species or protocols and is right only if both hold
        about the same mixture. ``"auto"`` does so where their species differ, ``"none"`` never.
    key
        Name in ``obs``.
    gene_species, max_length, max_tokens, bf16, device, progress, **reading
        As for `embed`.

    Returns
    -------
    AnnData
        `adata` itself, with ``obs[key]`` (label or unsure), ``obs[key + "_best"]`` (label whatever its score),
        ``obs[key + "_score"]`` (calibrated probability), ``obs[key + "_ontology_term_id"]`` where ids are known, and
        ``uns["genecompass"]``.

    Raises
    ------
    InputError
        A model that is not fine-tuned for cells, an adapter for another base model, a reference without labels,
        genes of another species, not raw counts.

    Notes
    -----
    A cell without a count of any known gene is unsure, without a score or a best label.

    Examples
    --------
    >>> import genecompass as gc
    >>> from genecompass.eval.demo.cells import blood_cells
    >>> cells = blood_cells()
    >>> known, asked = cells[:200].copy(), cells[200:240].copy()
    >>> asked = gc.annotate(asked, species="human", reference=gc.Reference(known, "cell_type"), threshold=0)
    >>> bool((asked.obs["genecompass_cell_type"].astype(str) == asked.obs["cell_type"].astype(str)).mean() > 0.5)
    True
    """
    check_key(key, "obs")
    source = open_cells(adata, **reading)
    table, uns = annotation_table(
        source,
        model,
        require_species(species),
        reference=reference,
        processor=processor,
        threshold=threshold,
        unsure=unsure,
        k=k,
        pooling=pooling,
        align=align,
        key=key,
        gene_species=gene_species,
        max_length=max_length,
        max_tokens=max_tokens,
        bf16=bf16,
        device=device,
        progress=progress,
    )
    for column in table.columns:
        adata.obs[column] = table[column].to_numpy() if table[column].dtype != "category" else table[column].array
    adata.uns["genecompass"] = {**adata.uns.get("genecompass", {}), **uns}
    return adata


def annotation_table(
    source: CellSource,
    model: Model,
    species: str,
    *,
    reference: Reference | None = None,
    processor: Any = None,
    threshold: float = 0.5,
    unsure: str = "unsure",
    k: int = 15,
    pooling: str = "auto",
    align: str = "none",
    key: str = LABEL_KEY,
    gene_species: str | None = None,
    max_length: int | None = None,
    max_tokens: int = MAX_TOKENS,
    bf16: bool = False,
    device: str | None = None,
    progress: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Labels of the cells of an open source, as `annotate` writes them: ``obs`` columns and the ``uns`` entry."""
    model = model_or_default(model)
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold {threshold} must lie between 0 and 1")
    if align not in ALIGNMENTS:
        raise InputError(f"unknown alignment {align!r}; choose {', '.join(ALIGNMENTS)}")
    head = None if reference is not None else "cells"
    network, processor = load_checkpoint(
        model, head, processor=processor, device=device, fold=reference is not None and isinstance(model, str)
    )
    tuned = read_finetuning(model)
    longest = network.config.max_position_embeddings
    vectors = Pooling.choose(pooling, network.config)
    whole = vectors.whole_cells(network.config) if reference is not None else bool(network.config.cell_size)
    reading = Reading(species, gene_species, max_length=max_length or tuned.max_length or longest, whole_cells=whole)
    coverage = Coverage()
    runner = _Runner(network, gene_table_of(processor), max_tokens, bf16, progress)
    if reference is None:
        # records of an earlier version hold no moments to align by
        align = _alignment(align, tuned.species if "pooled" in tuned.record else None, species)
        prediction = runner.classify(source, reading, tuned, coverage, align=align)
        ontology = tuned.ontology_ids
        how: dict[str, Any] = {"method": "fine-tuned model", "temperature": tuned.temperature, "align": align}
    else:
        align = _alignment(align, reference.species, species)
        prediction, ontology, agreement = runner.transfer(
            source, reading, reference, coverage, k=k, pooling=vectors, align=align
        )
        how = {
            "method": "nearest reference cells",
            "k": k,
            "pooling": vectors.name,
            "align": align,
            "label": reference.label,
            "agreement_with_pca": agreement,
        }
    uns = {
        **provenance(network, name_of(model)),
        "coverage": coverage.to_dict(),
        "annotation": {"key": key, "threshold": threshold, "labels": prediction.names, **how},
    }
    # of a cell without one known gene nothing can be said, whatever a network makes of it
    prediction.scores[runner.empty(prediction)] = np.nan
    return _columns(prediction, ontology, key, threshold, unsure, source.obs.index), uns


@dataclass(frozen=True)
class _Runner:
    """A loaded model and how to run it."""

    network: Any
    table: Any
    max_tokens: int
    bf16: bool
    progress: bool
    lengths: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def empty(self, prediction: Prediction) -> npt.NDArray[np.bool_]:
        """Of the cells that were read last, those without a known gene."""
        found = np.concatenate(self.lengths)[-len(prediction.scores) :] == 0
        if found.any():
            logger.warning("%s cells have no count of a known gene: they are left unsure", f"{int(found.sum()):,}")
        return found

    def classify(
        self, source: CellSource, reading: Reading, tuned: Finetuning, coverage: Coverage, *, align: str
    ) -> Prediction:
        options: dict[str, Any] = {"max_tokens": self.max_tokens, "bf16": self.bf16}
        pooled = np.concatenate(
            [
                pool_for_classifier(self.network, tokenized, progress=bar, **options)
                for tokenized, bar in self._read(source, reading, coverage)
            ]
        )
        if align == "center":
            pooled = _training_moments(tuned).give_to(pooled)
        scaled = classify_pooled(self.network, pooled) / tuned.temperature
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return Prediction.of(shares / shares.sum(axis=1, keepdims=True), tuned.labels)

    def transfer(
        self,
        source: CellSource,
        reading: Reading,
        reference: Reference,
        coverage: Coverage,
        *,
        k: int,
        pooling: Pooling,
        align: str,
    ) -> tuple[Prediction, dict[str, str], float]:
        # labels are taken over the genes that both measure: what one of them could not show sets all cells apart
        known = open_cells(reference.cells, shared_genes=source)
        source = open_cells(source, shared_genes=known)
        names, ontology = _reference_labels(known, reference.label)
        known_reading = Reading(
            reference.species or reading.species,
            reference.gene_species,
            max_length=reading.max_length,
            whole_cells=reading.whole_cells,
        )
        labelled = np.flatnonzero(names.notna().to_numpy())
        embedding, counts, rows = self._embed(known, known_reading, Coverage(), pooling)
        query, asked, where = self._embed(source, reading, coverage, pooling)
        whiten = pooling.network not in (None, "cell") and not pooling.profile
        found = transfer_labels(
            embedding[labelled], names.iloc[labelled].to_numpy(str), query, k=k, align=align, whiten=whiten
        )
        both = np.isin(rows, labelled)
        plain = principal_neighbours(counts[both], names.iloc[rows[both]].to_numpy(str), asked, k=k)
        agreement = float((plain == found.labels[where]).mean())
        logger.log(
            logging.INFO if agreement >= _AGREEING else logging.WARNING,
            "nearest neighbours on principal components of the same cells give the same label to %.0f %% of %s cells%s",
            100 * agreement,
            f"{len(where):,}",
            "" if agreement >= _AGREEING else ": look at both before you believe either",
        )
        return found, ontology, agreement

    def _embed(
        self, source: CellSource, reading: Reading, coverage: Coverage, pooling: Pooling
    ) -> tuple[npt.NDArray[np.float32], sparse.csr_matrix, npt.NDArray[np.int64]]:
        """Embeddings, and counts by token of at most so many cells, with their rows."""
        options: dict[str, Any] = {"max_tokens": self.max_tokens, "bf16": self.bf16}
        step = -(-source.n_cells // _COMPARED)
        vectors, counts, rows = [], [], []
        for tokenized, bar in self._read(source, reading, coverage):
            vectors.append(pooling.embed(self.network, tokenized, self.table, progress=bar, **options))
            chosen = np.flatnonzero(tokenized.rows % step == 0)
            counts.append(counts_of(tokenized, self.table)[chosen])
            rows.append(tokenized.rows[chosen])
        return np.concatenate(vectors), sparse.csr_matrix(sparse.vstack(counts)), np.concatenate(rows)

    def _read(self, source: CellSource, reading: Reading, coverage: Coverage) -> Any:
        for first, tokenized in chunks(source, self.table, reading, coverage=coverage):
            self.lengths.append(tokenized.lengths)
            yield tokenized, f"{source.name}: cells from {first:,}" if self.progress else None


def _alignment(align: str, known: str | None, asked: str) -> str:
    """What ``"auto"`` means for labelled cells of one species and cells of another; None where it is not known."""
    if align != "auto":
        return align
    return "none" if known is None or known == asked else "center"


def _training_moments(tuned: Finetuning) -> Moments:
    recorded = tuned.record.get("pooled")
    if recorded is None:
        raise InputError(
            "align='center' needs a model whose finetuning.json holds the moments of its training cells; this one's "
            "does not: fine-tune it again, or pass align='none'"
        )
    return Moments(np.array(recorded["mean"], np.float32), np.array(recorded["spread"], np.float32))


def _reference_labels(known: CellSource, label: str) -> tuple[pd.Series, dict[str, str]]:
    """Labels of reference cells (missing where a cell has none) and Cell Ontology ids by label."""
    if label not in known.obs.columns:
        columns = ", ".join(map(str, known.obs.columns)) or "none"
        raise InputError(f"reference {known.name}: no column {label!r} in obs to take labels from; it has: {columns}")
    names = known.obs[label].astype(object)
    names = names.where(names.notna() & ~names.astype(str).str.strip().isin(["", "nan"]))
    if not names.notna().any():
        raise InputError(f"reference {known.name}: no cell has a label in {label!r}")
    ids = f"{label}_ontology_term_id"
    if ids not in known.obs.columns:
        return names, {}
    pairs = pd.DataFrame({"name": names.astype(str), "id": known.obs[ids].astype(str)})[names.notna().to_numpy()]
    once = pairs.drop_duplicates().drop_duplicates("name", keep=False)
    return names, dict(zip(once["name"], once["id"], strict=True))


def _columns(
    prediction: Prediction, ontology: dict[str, str], key: str, threshold: float, unsure: str, index: pd.Index
) -> pd.DataFrame:
    sure = np.nan_to_num(prediction.scores, nan=-1.0) >= threshold
    known = ~np.isnan(prediction.scores)
    names = list(prediction.names)
    label = np.where(sure, prediction.labels.astype(object), unsure)
    table = pd.DataFrame(index=index)
    table[key] = pd.Categorical(label, categories=[*names, *([unsure] if unsure not in names else [])])
    table[f"{key}_best"] = pd.Categorical(pd.Series(prediction.labels, dtype=object).where(known), categories=names)
    table[f"{key}_score"] = prediction.scores
    if ontology:
        ids = [
            ontology.get(name, "unknown") if ok else "unknown" for name, ok in zip(prediction.labels, sure, strict=True)
        ]
        table[f"{key}_ontology_term_id"] = pd.Categorical(ids)
    return table
