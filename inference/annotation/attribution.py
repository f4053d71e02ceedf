"""Which genes of one cell speak for its label, or for where it lies in the embedding."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from transformers import PreTrainedModel

from ...tokenization.errors import InputError
from ...tokenization.files import atomic_path
from ...tokenization.gene_table import SPECIAL_TOKENS
from ...tokenization.readers import CellOptions, open_cells
from ...tokenization.sources import model_or_default
from ...tokenization.tokenize import tokenize_cells
from ..checkpoint import HEADS, Model, gene_table_of, load_checkpoint, read_finetuning

METHODS = ("integrated_gradients", "gradient_x_input", "attention")
_POINTS_AT_ONCE = 8
_NAMES = (("ids", "input_ids"), ("values", "values"))


@dataclass(frozen=True)
class Explanation:
    """One number a gene for one cell, and what the numbers add up to.

    Parameters
    ----------
    genes
        One row a gene that the model read (all of the cell's for a cell vector), the strongest first: ``gene``
        (symbol, or id where none is known), ``gene_id``, ``attribution``, ``value``, ``rank`` (0 for the gene with the
        largest value).
    cell, target, method
        What was explained, and how. `target` is a label, or ``"embedding"``.
    output, baseline
        What the model gives for the cell, and for as many copies of the vocabulary's average gene.
        Integrated gradients add up to ``output - baseline``.

    Examples
    --------
    >>> table = pd.DataFrame({"gene": ["INS"], "attribution": [0.5]})
    >>> Explanation(table, "c1", "beta", "integrated_gradients", output=0.75, baseline=0.25).gap
    0.0
    """

    genes: pd.DataFrame
    cell: str
    target: str
    method: str
    output: float
    baseline: float

    @property
    def gap(self) -> float:
        """By how much the attributions miss ``output - baseline``; about 0 for integrated gradients."""
        return float(self.genes["attribution"].sum() - (self.output - self.baseline))

    @property
    def scores(self) -> pd.Series:
        """Attribution by gene name, as ``genecompass.eval.plots.plot_gene_scores`` draws it."""
        return pd.Series(
            self.genes["attribution"].to_numpy(), index=self.genes["gene"], name=self.method.replace("_", " ")
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write all genes as a tab-separated table."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            self.genes.to_csv(temporary, sep="\t", index=False)
        return path


def explain(
    adata: Any,
    model: Model,
    species: str,
    cell: str | int,
    *,
    target: str | None = None,
    method: str = "integrated_gradients",
    steps: int = 32,
    processor: Any = None,
    gene_species: str | None = None,
    max_length: int | None = None,
    device: str | None = None,
    **reading: Unpack[CellOptions],
) -> Explanation:
    """Attribute a model's view of one cell to the cell's genes.

    Parameters
    ----------
    adata
        AnnData or path, with raw counts.
    model
        A model or adapter fine-tuned for cells, or any checkpoint.
    species
        Species of the cells, or an ``obs`` column that says it.
    cell
        Name (``obs_names``) or row of the cell.
    target
        Label whose logit is explained; the most likely one where None. A model without labels is asked about the
        cell's embedding: its length along its own direction.
    method
        ``"integrated_gradients"`` (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks") over the fused
        gene embeddings, from a cell of equal genes, the average of the vocabulary's, and over the genes' shares of the
        profile, from none, for a cell vector; ``"gradient_x_input"``, one step
        of it; ``"attention"``, from the species slot in the last layer, mean over heads.
    steps
        Points on the path of integrated gradients (Gauss-Legendre).
    processor, gene_species, max_length, device, **reading
        As for `annotate`.

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        No such cell, label or method; a cell without a known gene.

    Examples
    --------
    >>> import genecompass as gc
    >>> found = gc.explain(adata, "runs/pbmc", "human", "AAACATTGATCAGC-1")  # doctest: +SKIP
    >>> found.target, found.genes["gene"][:3].tolist()  # doctest: +SKIP
    ('bcells', ['CD79A', 'MS4A1', 'CD74'])
    >>> from genecompass.eval.plots import plot_gene_scores  # doctest: +SKIP
    >>> plot_gene_scores(found.scores, "cell.png", title=f"{found.cell}: {found.target}")  # doctest: +SKIP
    """
    model = model_or_default(model)
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}; choose {', '.join(METHODS)}")
    attention = "eager" if method == "attention" else None
    head = "cells" if _has_labels(model) else None
    network, processor = load_checkpoint(model, head, processor=processor, device=device, attn_implementation=attention)
    table = gene_table_of(processor)
    source = open_cells(adata, **reading)
    row = _row_of(source.obs.index, cell, source.name)
    longest = max_length or read_finetuning(model).max_length or network.config.max_position_embeddings
    # a cell vector is also made of genes that the network does not read
    vector = bool(network.config.cell_size) and (head is None or network.config.classifier_pooling == "cell")
    options: dict[str, Any] = {
        "species": species, "gene_species": gene_species, "max_length": longest, "whole_cells": vector
    }  # fmt: skip
    tokens = tokenize_cells(source, table, start=row, stop=row + 1, empty_cells="keep", **options)[0]
    if not len(tokens["input_ids"]):
        raise InputError(f"{source.name}: cell {cell!r} expresses no gene that the model knows")
    labels = read_finetuning(model).labels if head else []
    if target is not None and target not in labels:
        raise InputError(f"no label {target!r} to explain; this model knows: {', '.join(labels) or 'no labels'}")

    view = _View(network, tokens, labels.index(target) if target is not None else None, bool(labels))
    found = view.attention() if method == "attention" else view.gradients(steps if method == METHODS[0] else None)
    ids, values = (tokens[f"profile_{name}" if vector else plain] for name, plain in _NAMES)
    genes = table.frame.iloc[ids].reset_index(drop=True)
    symbol = genes["symbol"].fillna("").astype(str)
    frame = pd.DataFrame(
        {
            "gene": symbol.where(symbol != "", genes["gene_id"]),
            "gene_id": genes["gene_id"],
            "attribution": found,
            "value": values,
            "rank": np.arange(len(found)),
        }
    )
    frame = frame.reindex(frame["attribution"].abs().sort_values(ascending=False, kind="stable").index)
    return Explanation(
        frame.reset_index(drop=True),
        str(source.obs.index[row]),
        labels[view.label] if view.label is not None else "embedding",
        method,
        view.output,
        view.baseline_output,
    )


class _View:
    """A model that looks at one cell: a number, as a function of fused gene embeddings and shares of its profile."""

    def __init__(self, network: Any, tokens: dict[str, Any], label: int | None, classifies: bool) -> None:
        self.network, self.classifies = network.requires_grad_(False), classifies
        self.encoder = getattr(network, network.base_model_prefix, network)
        device = network.device
        ids, self.values = _row(tokens["input_ids"], device).long(), _row(tokens["values"], device)
        self.species = torch.as_tensor([int(tokens["species"])], device=device)
        with torch.no_grad():
            self.profile = None
            if "profile_ids" in tokens:
                whole = _row(tokens["profile_ids"], device).long(), _row(tokens["profile_values"], device)
                self.profile = _Profile(self.encoder.cell_head, *whole, self.species)
            self.genes = self.encoder.embeddings.fuse(ids, self.values, self.species.unsqueeze(1))
            self.baseline = self._average_gene(self.values.mean()).expand_as(self.genes)
            at_cell, at_baseline = self._point(1), self._point(0)
            answers = self._answers(*at_cell)
            self.label = None if not classifies else int(answers.argmax()) if label is None else label
            # without labels: along the direction in which the cell itself lies
            self.direction = None if classifies else answers / answers.norm()
            self.output, self.baseline_output = float(self._number(*at_cell)), float(self._number(*at_baseline))

    def _average_gene(self, value: torch.Tensor) -> torch.Tensor:
        """Mean over the vocabulary at one value, which says nothing of a cell's kind. Shape (1, 1, H)."""
        tokens = torch.arange(len(SPECIAL_TOKENS), self.encoder.config.vocab_size, device=value.device)
        species = self.species.unsqueeze(1)
        parts = [
            self.encoder.embeddings.fuse(some[None], value.expand(1, len(some)), species) for some in tokens.split(4096)
        ]
        return torch.cat(parts, dim=1).mean(1, keepdim=True)

    def _point(self, place: npt.ArrayLike) -> tuple[torch.Tensor, torch.Tensor]:
        """Points on the way from the baseline (0) to the cell (1): embeddings, and shares of the profile's genes."""
        place = torch.as_tensor(place, dtype=self.genes.dtype, device=self.genes.device).view(-1, 1)
        genes = self.baseline + place.unsqueeze(2) * (self.genes - self.baseline)
        return genes, place.expand(-1, 0 if self.profile is None else self.profile.size).contiguous()

    def gradients(self, steps: int | None) -> npt.NDArray[np.float64]:
        """Gradient times distance from the baseline, averaged over the path; at the cell itself where None.

        A gene that the network does not read still has its part of the profile.
        """
        points, weights = np.polynomial.legendre.leggauss(steps) if steps else (np.ones(1), np.full(1, 2.0))
        of_genes = torch.zeros_like(self.genes, dtype=torch.float64)
        of_profile = torch.zeros(0 if self.profile is None else self.profile.size, dtype=torch.float64)
        for first in range(0, len(points), _POINTS_AT_ONCE):
            part = slice(first, first + _POINTS_AT_ONCE)
            genes, shares = (inputs.requires_grad_(True) for inputs in self._point((points[part] + 1) / 2))
            number = self._number(genes, shares).sum()
            by_gene, by_share = torch.autograd.grad(number, (genes, shares), allow_unused=True)
            weight = torch.as_tensor(weights[part] / 2, device=genes.device).view(-1, 1, 1)
            of_genes += (weight * by_gene.double()).sum(0, keepdim=True)
            if by_share is not None:
                of_profile += (weight[:, 0] * by_share.double()).sum(0).cpu()
        read = (of_genes * (self.genes - self.baseline).double()).sum(-1)[0].cpu().numpy()
        found = of_profile.numpy() if self.profile is not None else np.zeros(len(read))
        found[: len(read)] += read
        return found

    @torch.no_grad()
    def attention(self) -> npt.NDArray[np.float64]:
        """What the species slot of the last layer attends to, mean over heads; 0 for genes that are not read."""
        weights = self.encoder(inputs_embeds=self.genes, species=self.species, output_attentions=True).attentions[-1]
        read = weights[0, :, 0, 1:].double().mean(0).cpu().numpy()
        return np.pad(read, (0, max(0, (0 if self.profile is None else self.profile.size) - len(read))))

    def _answers(self, genes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Logits, or the cell's vector: that of the cell head, else the mean over genes. Shape (points, numbers)."""
        species = self.species.expand(len(genes))
        if self.profile is None:
            found = self.network(inputs_embeds=genes, species=species)
            return found.logits if self.classifies else found.last_hidden_state[:, 1:].mean(1)
        states = self.encoder(inputs_embeds=genes, species=species).last_hidden_state
        points, length = states.shape[0], states.shape[1] - 1
        along, bag = self.profile.at(shares)
        of_point = torch.arange(points, device=states.device).repeat_interleave(length)
        vector = self.encoder.cell_head(
            states[:, 1:].flatten(0, 1), states[:, 0], self.values.expand(points, -1).flatten(), of_point, along
        )
        cells = torch.cat([vector, bag.to(vector.dtype)], dim=1)
        return self.network.classify(self.network.pooler(cells)) if self.classifies else cells

    def _number(self, genes: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        answers = self._answers(genes, shares)
        return answers[:, self.label] if self.direction is None else (answers * self.direction).sum(1)


class _Profile:
    """The fixed part of a cell vector as a sum over the cell's genes, of which each may have a share only."""

    def __init__(self, head: Any, tokens: torch.Tensor, values: torch.Tensor, species: torch.Tensor) -> None:
        one_cell = torch.zeros_like(tokens[0])
        unit = head.unit_profile(tokens[0], values[0], species, one_cell)[0].unsqueeze(1)
        self.size = tokens.shape[1]
        self.mean, self.scale = head.axes_mean.float(), head.axes_scale.float()
        self.along = unit * head.axes[tokens[0]].float()
        self.bag = torch.zeros(self.size, 0, device=unit.device)
        if head.profile_columns:
            bag = unit * head.signs()[tokens[0]]
            self.bag = bag * head.profile_columns**0.5 / bag.sum(0).norm().clamp(min=1e-6)

    def at(self, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Along the axes and through the random matrix, as the head reads them. Shapes (points, ...)."""
        return (shares @ self.along - self.mean) / self.scale, shares @ self.bag


def _row(numbers: Any, device: Any) -> torch.Tensor:
    return torch.as_tensor(np.asarray(numbers), device=device).unsqueeze(0)


def _has_labels(model: Model) -> bool:
    if isinstance(model, PreTrainedModel):
        return type(model).__name__ == HEADS["cells"][1]
    from ..app.explore import has_labels

    return has_labels(model_or_default(model))


def _row_of(names: pd.Index, cell: str | int, where: str) -> int:
    if isinstance(cell, str):
        found = np.flatnonzero(names.astype(str) == cell)
        if len(found):
            return int(found[0])
        raise InputError(f"{where}: no cell {cell!r}; the first is {names[0]!r}")
    if not -len(names) <= cell < len(names):
        raise InputError(f"{where}: no row {cell}; there are {len(names)} cells")
    return cell % len(names)
