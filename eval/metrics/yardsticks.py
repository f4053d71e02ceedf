"""What masked-gene prediction costs nothing to reach: frequencies, brackets and means counted on training cells.

A pre-trained model has learned something only where it beats these. Cells are tokenised cells: ``input_ids`` and
``values`` in rank order (values descending); masked cells also have ``labels`` (-100: no id asked),
``labels_values`` and ``value_targets``; a hidden value is -1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Cell = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
NO_TARGET = -100
HIDDEN_VALUE = -1.0
BACK_OFF_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


@dataclass
class IdScores:
    """Scores of id predictions, slot by slot; top-k hits slot by slot, or cell by cell for sets."""

    log_probability: list[Floats] = field(default_factory=list)
    species: list[npt.NDArray[np.int64]] = field(default_factory=list)
    top1: list[Floats] = field(default_factory=list)
    top10: list[Floats] = field(default_factory=list)
    hit_species: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, log_probability: npt.ArrayLike, top10: npt.NDArray[np.int64], cell: Cell, as_set: bool) -> None:
        """Add the asked slots of one cell.

        Parameters
        ----------
        log_probability
            Of the right token, natural logarithm, shape (asked,).
        top10
            The ten likeliest tokens, best first, shape (asked, 10), or (1, 10) where all slots look alike.
        cell
            The masked cell.
        as_set
            The hidden genes are exchangeable: a hit is any of them, counted once a cell (precision among the first
            1 and 10).
        """
        asked = asked_ids(cell)
        labels = np.asarray(cell["labels"])[asked]
        self.log_probability.append(np.asarray(log_probability, dtype=np.float64))
        self.species.append(np.full(len(labels), int(cell["species"])))
        hits = np.isin(top10[:1], labels) if as_set else top10 == labels[:, None]
        self.top1.append(hits[:, 0].astype(np.float64))
        self.top10.append(np.asarray(hits.mean(1) if as_set else hits.any(1), dtype=np.float64))
        self.hit_species.append(np.full(len(hits), int(cell["species"])))

    def summary(self, species: Sequence[str]) -> dict[str, dict[str, float]]:
        """Cross-entropy (nats), top-1 and top-10, over all slots and per species."""
        log_probability, of_slot = _join(self.log_probability), _join(self.species)
        top1, top10, of_hit = _join(self.top1), _join(self.top10), _join(self.hit_species)
        report = {}
        for name, slots, hits in _per_species(species, of_slot, of_hit):
            if slots.any():
                report[name] = {
                    "cross_entropy": float(-log_probability[slots].mean()),
                    "top1": float(top1[hits].mean()),
                    "top10": float(top10[hits].mean()),
                    "slots": int(slots.sum()),
                }
        return report


@dataclass
class ValueScores:
    """Predicted and true values, slot by slot."""

    predicted: list[Floats] = field(default_factory=list)
    true: list[Floats] = field(default_factory=list)
    species: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, predicted: npt.ArrayLike, cell: Cell) -> None:
        """Add the asked slots of one cell; `predicted` has shape (asked,)."""
        asked = asked_values(cell)
        self.predicted.append(np.asarray(predicted, dtype=np.float64))
        self.true.append(np.asarray(cell["labels_values"], dtype=np.float64)[asked])
        self.species.append(np.full(int(asked.sum()), int(cell["species"])))

    def summary(self, species: Sequence[str]) -> dict[str, dict[str, float]]:
        """Mean squared error and Pearson correlation, over all slots and per species."""
        predicted, true, of_slot = _join(self.predicted), _join(self.true), _join(self.species)
        report = {}
        for name, slots, _ in _per_species(species, of_slot, of_slot):
            if slots.any():
                report[name] = {
                    "mse": float(np.mean((predicted[slots] - true[slots]) ** 2)),
                    "pearson": _pearson(predicted[slots], true[slots]),
                    "slots": int(slots.sum()),
                }
        return report


def asked_ids(cell: Cell) -> npt.NDArray[np.bool_]:
    """Slots whose id is asked and not shown: an unchanged slot has its answer in front of it and does not count."""
    labels = np.asarray(cell["labels"])
    return (labels != NO_TARGET) & (labels != np.asarray(cell["input_ids"]))


def asked_values(cell: Cell) -> npt.NDArray[np.bool_]:
    """Slots whose value is asked and not shown."""
    return np.asarray(cell["value_targets"], dtype=bool) & (np.asarray(cell["values"]) == HIDDEN_VALUE)


def brackets(values: npt.ArrayLike, slots: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Between which values a hidden slot must lie: those of its nearest visible neighbours in rank order.

    Parameters
    ----------
    values
        Values in rank order, -1 where hidden, shape (genes,).
    slots
        The slots to bracket, shape (genes,).

    Returns
    -------
    tuple of numpy.ndarray
        Lower (0 below the last visible slot) and upper bounds (infinite above the first), shape (slots,).

    Examples
    --------
    >>> low, high = brackets(np.array([3.0, -1.0, 1.0, -1.0]), np.array([False, True, False, True]))
    >>> low.tolist(), high.tolist()
    ([1.0, 0.0], [3.0, 1.0])
    """
    values = np.asarray(values, dtype=np.float64)
    visible = values != HIDDEN_VALUE
    # values descend, so a running minimum from the left is the nearest visible value above, and vice versa
    high = np.minimum.accumulate(np.where(visible, values, np.inf))
    low = np.maximum.accumulate(np.where(visible, values, 0.0)[::-1])[::-1]
    return low[slots], high[slots]


class Yardsticks:
    """Predictors without a model, counted on training cells.

    Parameters
    ----------
    cells
        Tokenised training cells, unmasked.
    vocab_size
        Number of tokens.
    token_pools
        Per species index, the tokens that a cell of the species can hold.
    rank_bins
        Number of bins of ranks, of equal width in the logarithm.
    back_off
        Strength, in observations, with which narrow counts fall back on overall frequency. None: chosen on a tenth
        of the training cells.

    Examples
    --------
    >>> cells = [{"input_ids": np.array([2, 3]), "values": np.array([2.0, 1.0]), "species": 0}] * 20
    >>> yardsticks = Yardsticks(cells, vocab_size=5, token_pools=[np.array([2, 3, 4])])
    >>> masked = {**cells[0], "input_ids": np.array([1, 3]), "values": np.array([-1.0, 1.0]),
    ...           "labels": np.array([2, -100]), "labels_values": np.array([2.0, 1.0]),
    ...           "value_targets": np.array([True, False])}
    >>> report = yardsticks.evaluate([masked], task="published", species=["human"])
    >>> report["id"]["overall frequency"]["all"]["cross_entropy"] > report["id"]["bracket"]["all"]["cross_entropy"]
    True
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        vocab_size: int,
        token_pools: Sequence[npt.NDArray[np.int64]],
        *,
        rank_bins: int = 32,
        back_off: float | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.tables = []
        everything = list(cells)
        for index, pool in enumerate(token_pools):
            mine = [cell for cell in everything if int(cell["species"]) == index]
            self.tables.append(_SpeciesCounts(mine, vocab_size, np.asarray(pool), rank_bins))
        self.rank_back_off, self.bracket_back_off = (
            (back_off, back_off) if back_off is not None else self._choose_back_off(everything, token_pools, rank_bins)
        )

    def evaluate(self, masked: Iterable[Cell], *, task: str, species: Sequence[str]) -> dict[str, Any]:
        """Score every yardstick of a task on masked cells.

        Parameters
        ----------
        masked
            Held-out cells after masking.
        task
            ``published`` or ``hidden_rank``.
        species
            Names, in the order of the indices.

        Returns
        -------
        dict
            ``{"id": {yardstick: {"all" or species: {...}}}, "value": {...}}``; see `IdScores` and `ValueScores`.
        """
        id_scores: dict[str, IdScores] = {}
        value_scores: dict[str, ValueScores] = {}
        for cell in masked:
            table = self.tables[int(cell["species"])]
            ids = self._ids_published(table, cell) if task == "published" else self._ids_hidden(table, cell)
            for name, (log_probability, top10) in ids.items():
                id_scores.setdefault(name, IdScores()).add(log_probability, top10, cell, task == "hidden_rank")
            for name, predicted in self._values(table, cell, task).items():
                value_scores.setdefault(name, ValueScores()).add(predicted, cell)
        return {
            "id": {name: scores.summary(species) for name, scores in id_scores.items()},
            "value": {name: scores.summary(species) for name, scores in value_scores.items()},
        }

    def _ids_published(self, table: "_SpeciesCounts", cell: Cell) -> dict[str, tuple[Floats, npt.NDArray[np.int64]]]:
        asked = asked_ids(cell)
        labels = np.asarray(cell["labels"])[asked]
        if not len(labels):
            return {}
        frequency = _log(table.frequency[labels]), np.repeat(_top10(table.frequency)[None], len(labels), 0)
        by_rank = table.by_rank(np.flatnonzero(asked), labels, self.rank_back_off)
        return {
            "overall frequency": frequency,
            "frequency given the rank": by_rank,
            "bracket": self._bracket(table, cell, asked, labels),
        }

    def _bracket(
        self, table: "_SpeciesCounts", cell: Cell, asked: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        possible = table.frequency_without(_visible_tokens(cell))
        log_probability, top10 = np.zeros(len(labels)), np.zeros((len(labels), 10), dtype=np.int64)
        low, high = brackets(cell["values"], asked)
        # neighbouring hidden slots share a bracket: count once
        pairs, which = np.unique(np.stack([low, high], 1), axis=0, return_inverse=True)
        for number, (lower, upper) in enumerate(pairs):
            counts = table.between(lower, upper) * (possible > 0)
            scores = (counts + self.bracket_back_off * possible) / (counts.sum() + self.bracket_back_off)
            slots = which.ravel() == number
            log_probability[slots] = _log(scores[labels[slots]])
            top10[slots] = _top10(scores)
        return log_probability, top10

    def _ids_hidden(self, table: "_SpeciesCounts", cell: Cell) -> dict[str, tuple[Floats, npt.NDArray[np.int64]]]:
        labels = np.asarray(cell["labels"])[asked_ids(cell)]
        if not len(labels):
            return {}
        possible = table.frequency_without(_visible_tokens(cell))
        return {
            "overall frequency": (_log(table.frequency[labels]), _top10(table.frequency)[None]),
            "overall frequency of genes not seen in the cell": (_log(possible[labels]), _top10(possible)[None]),
        }

    def _values(self, table: "_SpeciesCounts", cell: Cell, task: str) -> dict[str, Floats]:
        asked = asked_values(cell)
        if not asked.any():
            return {}
        values = np.asarray(cell["values"], dtype=np.float64)
        if task == "published":
            low, high = brackets(values, asked)
            return {
                "neighbours' mean": np.where(np.isfinite(high), (low + np.where(np.isfinite(high), high, 0)) / 2, low)
            }
        ids = np.asarray(cell["input_ids"])
        visible = values != HIDDEN_VALUE
        # a cell's depth shifts all its values alike; adding it costs nothing either
        shift = float(np.mean(values[visible] - table.mean_value[ids[visible]])) if visible.any() else 0.0
        own = table.mean_value[ids[asked]]
        return {"gene's own mean": own, "gene's own mean + the cell's mean deviation": own + shift}

    def _choose_back_off(
        self, cells: list[Cell], token_pools: Sequence[npt.NDArray[np.int64]], rank_bins: int
    ) -> tuple[float, float]:
        """Back-off that predicts a tenth of the training cells best from the other nine tenths."""
        tuning, counted = cells[::10][:60], [cell for number, cell in enumerate(cells) if number % 10]
        if len(counted) < 20:
            return 30.0, 3.0
        trial = Yardsticks(counted, self.vocab_size, token_pools, rank_bins=rank_bins, back_off=1.0)
        best = []
        for method in ("rank", "bracket"):
            losses = np.zeros(len(BACK_OFF_GRID))
            for cell in tuning:
                losses += trial._tuning_loss(cell, method)
            best.append(BACK_OFF_GRID[int(losses.argmin())])
        return best[0], best[1]

    def _tuning_loss(self, cell: Cell, method: str) -> Floats:
        table = self.tables[int(cell["species"])]
        ids, values = np.asarray(cell["input_ids"]), np.asarray(cell["values"], dtype=np.float64)
        slots = np.arange(len(ids)) % 7 == 3
        loss = np.zeros(len(BACK_OFF_GRID))
        if not slots.any():
            return loss
        shown = np.where(slots, HIDDEN_VALUE, values)
        possible = table.frequency_without(ids[~slots]) if method == "bracket" else table.frequency
        low, high = brackets(shown, slots)
        for label, rank, lower, upper in zip(ids[slots], np.flatnonzero(slots), low, high, strict=True):
            if method == "bracket":
                counts = table.between(lower, upper) * (possible > 0)
                hits, total = counts[label], counts.sum()
            else:
                hits, total = table.rank_counts[table.bin_of(rank), label], table.rank_totals[table.bin_of(rank)]
            strength = np.array(BACK_OFF_GRID)
            loss -= _log((hits + strength * possible[label]) / (total + strength))
        return loss


class _SpeciesCounts:
    """Everything that is counted about one species' training cells."""

    def __init__(self, cells: list[Cell], vocab_size: int, pool: npt.NDArray[np.int64], rank_bins: int) -> None:
        tokens = _join([np.asarray(cell["input_ids"], dtype=np.int64) for cell in cells]).astype(np.int64)
        values = _join([np.asarray(cell["values"], dtype=np.float64) for cell in cells])
        ranks = _join([np.arange(len(cell["input_ids"])) for cell in cells]).astype(np.int64)
        self.vocab_size = vocab_size
        counts = np.bincount(tokens, minlength=vocab_size).astype(np.float64)
        # add-one smoothing over the genes that the species has: no token of another species, no special token
        smoothed = np.zeros(vocab_size)
        smoothed[pool] = counts[pool] + 1
        self.frequency = smoothed / max(smoothed.sum(), 1)
        sums = np.bincount(tokens, weights=values, minlength=vocab_size)
        overall = float(values.mean()) if len(values) else 0.0
        # one observation's worth of the overall mean keeps rare genes from being taken at their single value
        self.mean_value = (sums + overall) / (counts + 1)
        order = np.argsort(values, kind="stable")
        self.sorted_values, self.sorted_tokens = values[order], tokens[order]
        longest = int(ranks.max()) + 1 if len(ranks) else 1
        self.edges = np.unique(np.geomspace(1, longest + 1, rank_bins).astype(int))
        bins = self.bin_of(ranks)
        self.rank_counts = np.zeros((len(self.edges) + 1, vocab_size))
        np.add.at(self.rank_counts, (bins, tokens), 1)
        self.rank_totals = self.rank_counts.sum(1)

    def bin_of(self, ranks: npt.ArrayLike) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.edges, np.asarray(ranks) + 1, side="right")

    def by_rank(
        self, ranks: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], back_off: float
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        bins = self.bin_of(ranks)
        log_probability, top10 = np.zeros(len(labels)), np.zeros((len(labels), 10), dtype=np.int64)
        for number in np.unique(bins):
            scores = (self.rank_counts[number] + back_off * self.frequency) / (self.rank_totals[number] + back_off)
            log_probability[bins == number] = _log(scores[labels[bins == number]])
            top10[bins == number] = _top10(scores)
        return log_probability, top10

    def between(self, low: float, high: float) -> Floats:
        """How often each token was seen with a value in [low, high], shape (vocab,)."""
        # the bracket's ends are values of float32 cells; a relative hair keeps equal values inside
        start = np.searchsorted(self.sorted_values, low * (1 - 1e-6), side="left")
        stop = np.searchsorted(self.sorted_values, high * (1 + 1e-6), side="right")
        return np.bincount(self.sorted_tokens[start:stop], minlength=self.vocab_size).astype(np.float64)

    def frequency_without(self, tokens: npt.NDArray[np.int64]) -> Floats:
        """Overall frequency given that some tokens are out, since a gene stands in a cell once."""
        frequency = self.frequency.copy()
        frequency[tokens] = 0
        return frequency / max(frequency.sum(), 1e-300)


def _visible_tokens(cell: Cell) -> npt.NDArray[np.int64]:
    """Tokens that a cell shows for good: their own id, whether or not their value is hidden."""
    ids, labels = np.asarray(cell["input_ids"]), np.asarray(cell["labels"])
    return ids[(labels == NO_TARGET) | (labels == ids)]


def _top10(scores: Floats) -> npt.NDArray[np.int64]:
    count = min(10, len(scores))
    best = np.argpartition(-scores, count - 1)[:count]
    best = best[np.argsort(-scores[best], kind="stable")]
    return np.pad(best, (0, 10 - count), constant_values=-1)


def _log(probability: Floats) -> Floats:
    # a token that stands in a cell twice (two genes that share a homolog) would otherwise cost infinitely much
    return np.log(np.maximum(probability, 1e-9))


def _join(parts: list[Any]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _per_species(
    species: Sequence[str], *of_slot: npt.NDArray[np.int64]
) -> Iterable[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    yield "all", np.ones(len(of_slot[0]), dtype=bool), np.ones(len(of_slot[1]), dtype=bool)
    for index, name in enumerate(species):
        yield name, of_slot[0] == index, of_slot[1] == index


def _pearson(first: Floats, second: Floats) -> float:
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
