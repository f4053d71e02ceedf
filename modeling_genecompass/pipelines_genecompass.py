"""Pipelines in the sense of transformers: counts in, cell embeddings, cell labels or gene labels out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

# transformers' own word for tasks that a repository brings along; their code travels next to the weights
CUSTOM_PIPELINES = {
    "cell-embedding": ("CellEmbeddingPipeline", "AutoModel"),
    "cell-classification": ("CellClassificationPipeline", "AutoModelForSequenceClassification"),
    "gene-classification": ("GeneClassificationPipeline", "AutoModelForTokenClassification"),
}


class GeneCompassPipeline(Pipeline):
    """What the three pipelines share: cells in, in batches of equal work, one result a cell, in the given order.

    Call it with an AnnData object, or with ``counts`` (cells x genes, dense or sparse) and ``genes``.

    Parameters
    ----------
    species
        Species of the cells: one name, or one a cell. May be left out where the vocabulary has one.
    genes
        Ensembl ids or symbols of the columns; an AnnData's ``var_names`` by default.
    layer
        Layer of an AnnData that holds raw counts; ``X`` by default.
    batch_size
        Cells a batch; 16 by default.
    """

    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    def __call__(self, cells: Any, genes: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """Run the model on cells; see the class for the arguments."""
        options = {**self._preprocess_params, **self._postprocess_params, **options}
        layer, species = options.pop("layer", None), options.pop("species", None)
        size = int(options.pop("batch_size", None) or self._batch_size or 16)
        counts, genes = _counts_and_genes(cells, genes, layer)
        results: list[Any] = [None] * counts.shape[0]
        for rows in _batches(counts, size):
            # a row repeats its species only where cells differ in it
            of_rows = species if species is None or isinstance(species, str) else [species[row] for row in rows]
            batch = self.preprocess({"counts": counts[rows], "genes": genes}, species=of_rows)
            outputs = self.forward(batch)
            for row, result in zip(rows, self.postprocess(outputs, **options), strict=True):
                results[row] = result
        return self._collect(results)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {name: value for name, value in options.items() if value is not None}
        before: dict[str, Any] = {str(name): given.pop(name) for name in ("species", "layer") if name in given}
        return before, {}, given

    def preprocess(self, cells: Any, species: Any = None, **_: Any) -> Any:  # type: ignore[override]
        """Tokenise one batch: ``{"counts": ..., "genes": ...}``."""
        processor: Any = self.processor
        return processor(cells["counts"], genes=cells["genes"], species=species, return_tensors="pt")

    def _forward(self, batch: Any, **_: Any) -> Any:  # type: ignore[override]
        with torch.inference_mode():
            return {"outputs": self.model(**batch), "batch": dict(batch)}

    def _collect(self, results: list[Any]) -> Any:
        return results

    def _need_head(self, name: str) -> None:
        """Refuse a checkpoint whose classifier would be random numbers."""
        saved = self.model.config.architectures or []
        if name not in saved:
            raise ValueError(
                f"this checkpoint was saved as {', '.join(saved) or 'something unknown'} and has no trained classifier "
                f"({name}); fine-tune it first"
            )


class CellEmbeddingPipeline(GeneCompassPipeline):
    """``pipeline("cell-embedding")``: an array (cells, hidden size).

    Parameters
    ----------
    pooling
        ``"species"`` (the species slot in front of the genes) or ``"mean"`` (mean over the genes).
    """

    def postprocess(self, outputs: Any, pooling: str = "species", **_: Any) -> Any:  # type: ignore[override]
        """Pool the encoder's output; one vector a cell."""
        states = outputs["outputs"].last_hidden_state.float()
        if pooling == "species":
            pooled = states[:, 0]
        elif pooling == "mean":
            mask = outputs["batch"]["attention_mask"].to(states)[..., None]
            pooled = (states[:, 1:] * mask).sum(1) / mask.sum(1)
        else:
            raise ValueError(f"unknown pooling {pooling!r}; choose 'species' or 'mean'")
        return list(pooled.cpu().numpy())

    def _collect(self, results: list[Any]) -> Any:
        return np.stack(results)


class CellClassificationPipeline(GeneCompassPipeline):
    """``pipeline("cell-classification")``: for every cell ``{"label", "score"}``, or a list of the `top_k` best."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._need_head("GeneCompassForSequenceClassification")

    def postprocess(self, outputs: Any, top_k: int = 1, **_: Any) -> Any:  # type: ignore[override]
        """Turn logits into labels with probabilities."""
        return [_best(row, self.model.config.id2label, top_k) for row in outputs["outputs"].logits.float().softmax(-1)]


class GeneClassificationPipeline(GeneCompassPipeline):
    """``pipeline("gene-classification")``: for every cell a list of ``{"gene_id", "label", "score"}``, by rank."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._need_head("GeneCompassForTokenClassification")

    def postprocess(self, outputs: Any, **_: Any) -> Any:  # type: ignore[override]
        """Turn the logits of every gene slot into a label with its probability."""
        scores = outputs["outputs"].logits.float().softmax(-1)
        ids, mask = outputs["batch"]["input_ids"], outputs["batch"]["attention_mask"].bool()
        processor: Any = self.processor
        tokenizer, names = processor.tokenizer, self.model.config.id2label
        results = []
        for cell in range(len(ids)):
            genes = tokenizer.convert_ids_to_tokens(ids[cell][mask[cell]].tolist())
            found = [_best(row, names, 1) for row in scores[cell][mask[cell]]]
            results.append([{"gene_id": gene, **label} for gene, label in zip(genes, found, strict=True)])
        return results


def _best(scores: Any, names: Any, top_k: int) -> Any:
    values, places = scores.topk(min(top_k, len(scores)))
    found = [{"label": names[int(place)], "score": float(value)} for value, place in zip(values, places, strict=True)]
    return found[0] if top_k == 1 else found


def _counts_and_genes(cells: Any, genes: Any, layer: str | None) -> tuple[Any, list[str]]:
    """Matrix with rows to take from, and the names of its columns."""
    if isinstance(cells, tuple) and genes is None and len(cells) == 2:
        cells, genes = cells
    if hasattr(cells, "var_names"):
        genes = list(cells.var_names) if genes is None else genes
        cells = cells.X if layer is None else cells.layers[layer]
    if genes is None:
        raise ValueError("genes is missing: pass an AnnData, or counts and the ids or symbols of their columns")
    if hasattr(cells, "tocsr"):
        return cells.tocsr(), list(genes)
    matrix = np.asarray(cells)
    if matrix.dtype == object or matrix.ndim not in (1, 2):
        raise ValueError("counts must be a matrix: cells in rows, genes in columns")
    return np.atleast_2d(matrix), list(genes)


def _batches(counts: Any, size: int) -> Iterator[list[int]]:
    """Rows of about the same number of expressed genes together, so that little is padded."""
    expressed = counts.getnnz(axis=1) if hasattr(counts, "getnnz") else (counts > 0).sum(axis=1)
    order = np.argsort(expressed, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size].tolist()
