"""Held-out cells: what the model predicts of their hidden genes, beside what costs nothing to predict."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...eval.metrics.yardsticks import NO_TARGET, IdScores, ValueScores, Yardsticks, asked_ids, asked_values
from ...tokenization.batching import batches_by_tokens, pad_cells
from ...tokenization.errors import InputError
from .losses import answer_of_cell, without_visible
from .masking import HIDDEN_GENES, CellMasker, ask_once
from .stream import Row

# the same questions whatever a run's seed, so that runs can be compared
EVALUATION_SEED = 0
EVALUATION_EPOCH = -1

# what a report may hold, and the figure by which it is compared with its yardsticks; lower is better
MAIN_FIGURE = {"id": "cross_entropy", "value": "mse", "count": "cross_entropy"}

Report = dict[str, Any]


class HeldOutCells:
    """A fixed set of masked cells with the yardsticks of their task.

    Parameters
    ----------
    cells
        Held-out rows of the corpus.
    counted
        Training rows from which the yardsticks are counted.
    masker
        Hides the genes; its seed is replaced, so that all runs answer the same questions.
    vocab_size
        Number of tokens.
    species
        Species names.
    max_tokens
        Largest number of gene slots of a batch.
    """

    def __init__(
        self,
        cells: Sequence[Row],
        counted: Sequence[Row],
        masker: CellMasker,
        *,
        vocab_size: int,
        species: Sequence[str],
        max_tokens: int = 8192,
    ) -> None:
        if not cells:
            raise InputError("no held-out cells: raise data.held_out or use a larger corpus")
        masker = dataclasses.replace(masker, seed=EVALUATION_SEED)
        self.task = masker.task
        self.as_set = masker.task == "hidden_rank"
        self.species = list(species)
        self.masked = [masker(row, EVALUATION_EPOCH) for row in cells]
        lengths = np.array([len(cell["input_ids"]) for cell in self.masked])
        self.batches = batches_by_tokens(lengths, max_tokens)
        yardsticks = Yardsticks(counted, vocab_size, masker.token_pools)
        self.yardsticks = yardsticks.evaluate(self.masked, task=self.task, species=self.species)
        self.cells = len(cells)
        self.counted = len(counted)

    @torch.no_grad()
    def score(self, model: Any) -> Report:
        """The model's scores: ``{"id": {"all" or species: {...}}, "value": {...}}``.

        Parameters
        ----------
        model
            A masked-gene model; its training mode is put back afterwards.
        """
        ids, values = IdScores(), ValueScores()
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        for batch in self.batches:
            cells = [self.masked[index] for index in batch]
            shown = [ask_once(cell) for cell in cells] if self.as_set else cells
            tensors = {name: tensor.to(device) for name, tensor in pad_cells(shown).items() if name != HIDDEN_GENES}
            outputs = model(**tensors)
            logits = outputs.logits.float()
            if self.as_set:
                seen = tensors["input_ids"]
                answer = answer_of_cell((tensors["labels"] != NO_TARGET).any(1))
                logits = without_visible(logits, seen, answer[:, None].expand(seen.shape))
            self._add_ids(ids, logits, cells)
            self._add_values(values, outputs.value_predictions, cells)
        model.train(was_training)
        return {"id": ids.summary(self.species), "value": values.summary(self.species)}

    def _add_ids(self, scores: IdScores, logits: torch.Tensor, cells: Sequence[Mapping[str, Any]]) -> None:
        labels = [cell["labels"][cell["labels"] != NO_TARGET] for cell in cells]
        asked = np.array([len(mine) for mine in labels])
        # which answer each label is read from: its own, or the one that its cell was given
        answer = np.repeat(np.cumsum(asked > 0) - 1, asked) if self.as_set else np.arange(asked.sum())
        log_probabilities = torch.log_softmax(logits, dim=-1)
        right = log_probabilities[torch.from_numpy(answer), torch.from_numpy(np.concatenate(labels))].cpu().numpy()
        top10 = _wide(log_probabilities.topk(min(10, logits.shape[1])).indices.cpu().numpy())
        start = 0
        for cell, count in zip(cells, asked, strict=True):
            mine = slice(start, start + count)
            start = mine.stop
            counted = asked_ids(cell)[cell["labels"] != NO_TARGET]
            if counted.any():
                scores.add(right[mine][counted], top10[answer[mine][counted]], cell, self.as_set)

    @staticmethod
    def _add_values(scores: ValueScores, predicted: torch.Tensor, cells: Sequence[Mapping[str, Any]]) -> None:
        numbers = predicted.float().cpu().numpy()
        start = 0
        for cell in cells:
            has_target = cell["value_targets"]
            mine = slice(start, start + int(has_target.sum()))
            start = mine.stop
            scores.add(numbers[mine][asked_values(cell)[has_target]], cell)

    def report(self, model: Any) -> Report:
        """Model and yardsticks side by side, and per species whether the model beats each."""
        scores = self.score(model)
        return {
            "task": self.task,
            "cells": self.cells,
            "yardstick_cells": self.counted,
            "model": scores,
            "yardsticks": self.yardsticks,
            "beaten": {
                "id": _beaten(scores["id"], self.yardsticks["id"], "cross_entropy"),
                "value": _beaten(scores["value"], self.yardsticks["value"], "mse"),
            },
        }


def _wide(top10: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.pad(top10, ((0, 0), (0, 10 - top10.shape[1])), constant_values=-1)


def _beaten(model: Report, yardsticks: Report, figure: str) -> dict[str, dict[str, bool]]:
    return {
        name: {group: model[group][figure] < figures[figure] for group, figures in yardstick.items()}
        for name, yardstick in yardsticks.items()
    }


def flat_figures(report: Report) -> dict[str, float]:
    """A report as single figures for a log: ``id_cross_entropy_human`` and so on, model and yardsticks.

    Examples
    --------
    >>> figures = {"all": {"mse": 0.5, "pearson": 0.1, "slots": 3}}
    >>> flat_figures({"model": {"id": {}, "value": figures}, "yardsticks": {"id": {}, "value": {"own mean": figures}}})
    {'value_mse_all': 0.5, 'value_pearson_all': 0.1, 'value_mse_all_yardstick_own_mean': 0.5}
    """
    found: dict[str, float] = {}
    for kind, main in MAIN_FIGURE.items():
        if kind not in report["model"]:
            continue
        for group, figures in report["model"][kind].items():
            found |= {f"{kind}_{name}_{group}": value for name, value in figures.items() if name != "slots"}
        for yardstick, groups in report["yardsticks"][kind].items():
            short = "".join(letter if letter.isalnum() else "_" for letter in yardstick)
            found |= {f"{kind}_{main}_{group}_yardstick_{short}": figures[main] for group, figures in groups.items()}
    return found


def format_report(report: Report) -> str:
    """A report as a table for the screen: the model's line first, a mark where it beats a yardstick.

    Examples
    --------
    >>> side = {"all": {"mse": 0.5, "pearson": 0.1, "slots": 3}}
    >>> table = format_report({"task": "hidden_rank", "cells": 1, "model": {"id": {}, "value": side},
    ...                        "yardsticks": {"id": {}, "value": {"gene's own mean": side}}})
    >>> "gene's own mean" in table
    True
    """
    lines = [f"held-out cells: {report['cells']}, task: {report['task']}"]
    for kind, figures in (
        ("id", ("cross_entropy", "top1", "top10")),
        ("value", ("mse", "pearson")),
        ("count", ("cross_entropy",)),
    ):
        for group, scores in report["model"].get(kind, {}).items():
            lines.append(f"  {kind} / {group} ({scores['slots']} {'cells' if kind == 'count' else 'hidden genes'})")
            lines.append("    " + _line("model", scores, figures))
            for name, groups in report["yardsticks"][kind].items():
                if group in groups:
                    mark = "beaten" if scores[figures[0]] < groups[group][figures[0]] else "not beaten"
                    lines.append("    " + _line(name, groups[group], figures) + f"  {mark}")
    return "\n".join(lines)


def _line(name: str, scores: Mapping[str, float], figures: Sequence[str]) -> str:
    return f"{name:<50}" + "  ".join(f"{figure} {scores[figure]:8.4f}" for figure in figures)
