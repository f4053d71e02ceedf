"""Held-out cells under count splitting: how well the cell vector predicts their held-back counts, beside yardsticks."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...modeling_genecompass.losses_genecompass import count_losses
from ...tokenization.errors import InputError
from .cell_statistics import CellStatistics
from .count_split import COUNT_TARGETS, CountSplitCollator
from .evaluation import EVALUATION_EPOCH, EVALUATION_SEED, Report
from .stream import Row

SPECIES_MEAN = "mean of the species"
LINEAR = "fixed axes of the corpus, as training starts"
_CELLS_PER_BATCH = 64


class HeldOutCounts:
    """A fixed set of split cells, asked for all genes, with the yardsticks of their task.

    Parameters
    ----------
    cells
        Held-out rows of the corpus, with all expressed genes.
    collator
        Splits them; its seed is replaced, so that all runs answer the same questions.
    statistics
        From which the yardsticks are made: the mean of the species, and the fixed axes alone.
    counted
        How many training cells they were counted on.
    """

    def __init__(
        self, cells: Sequence[Row], collator: CountSplitCollator, statistics: CellStatistics, counted: int
    ) -> None:
        if not cells:
            raise InputError("no held-out cells: raise data.held_out or use a larger corpus")
        self.collator = dataclasses.replace(collator, seed=EVALUATION_SEED, layout="padded")
        self.statistics = statistics
        self.counted = counted
        self.cells = len(cells)
        order = np.argsort([len(row["input_ids"]) for row in cells], kind="stable")
        self.rows = [[cells[i] for i in part] for part in _parts(order, _CELLS_PER_BATCH)]
        self.species = self.collator.table.species

    @torch.no_grad()
    def report(self, model: Any) -> Report:
        """Model and yardsticks side by side, and per species whether the model beats each.

        Parameters
        ----------
        model
            A masked-gene model with a cell head; its training mode is put back afterwards.
        """
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        found: dict[str, list[float]] = {"model": [], SPECIES_MEAN: [], LINEAR: []}
        species: list[int] = []
        for rows in self.rows:
            split = [self.collator.split(row, EVALUATION_EPOCH) for row in rows]
            batch = self.collator.lay_out(rows, split, self.collator.known)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            outputs = model(**{name: tensor for name, tensor in batch.items() if not name.startswith("count_")})
            asked = batch["count_tokens"]
            for name, logits in {
                "model": model.count_decoder(
                    outputs.cell_embedding[:, : model.config.cell_size], batch["species"], asked
                ),
                **self._yardsticks(model, batch, asked),
            }.items():
                nats = count_losses(logits, batch[COUNT_TARGETS], batch["count_measured"])
                found[name] += nats.tolist()
            species += batch["species"].tolist()
        model.train(was_training)
        return self._report(found, np.array(species))

    def _yardsticks(self, model: Any, batch: dict[str, torch.Tensor], asked: torch.Tensor) -> dict[str, torch.Tensor]:
        log_share = torch.from_numpy(self.statistics.log_share).to(asked.device)[:, asked][batch["species"]]
        head = model.genecompass.cell_head
        cells, genes = batch["profile_ids"].shape
        cell_of_gene = torch.arange(cells, device=asked.device).repeat_interleave(genes)
        along, _ = head.read_profile(
            batch["profile_ids"].flatten(), batch["profile_values"].flatten(), batch["species"], cell_of_gene
        )
        axes = torch.from_numpy(self.statistics.axes * self.statistics.scale).to(asked.device)[asked]
        normalised = torch.nn.functional.layer_norm(along, along.shape[-1:])
        return {SPECIES_MEAN: log_share, LINEAR: log_share + normalised @ axes.T}

    def _report(self, found: dict[str, list[float]], species: "np.ndarray[Any, Any]") -> Report:
        groups = {"all": np.ones(len(species), dtype=bool)}
        groups |= {name: species == code for code, name in enumerate(self.species) if (species == code).any()}
        figures = {
            name: {
                group: {"cross_entropy": float(np.mean(np.array(nats)[mine])), "slots": int(mine.sum())}
                for group, mine in groups.items()
            }
            for name, nats in found.items()
        }
        mine = figures.pop("model")
        beaten = {
            name: {group: mine[group]["cross_entropy"] < score["cross_entropy"] for group, score in scores.items()}
            for name, scores in figures.items()
        }
        return {
            "task": "count_split",
            "cells": self.cells,
            "yardstick_cells": self.counted,
            "model": {"count": mine},
            "yardsticks": {"count": figures},
            "beaten": {"count": beaten},
        }


def _parts(order: "np.ndarray[Any, Any]", size: int) -> list["np.ndarray[Any, Any]"]:
    return [order[first : first + size] for first in range(0, len(order), size)]
