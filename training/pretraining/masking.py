"""Hiding genes: the published task, and one in which a hidden gene's rank does not give it away.

In the published task the slots of a cell are sorted by value and a slot's position is its rank, so the visible
neighbours of a hidden gene bracket its value almost exactly, and the value nearly names the gene. ``hidden_rank``
closes that door: visible genes are ranked among themselves, hidden ones have no rank.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ...tokenization.batching import pack_cells, pad_cells
from ...tokenization.errors import InputError
from ...tokenization.gene_table import MASK_TOKEN, PAD_TOKEN, GeneTable

Task = Literal["published", "hidden_rank"]
TASKS: tuple[Task, ...] = ("published", "hidden_rank")
NO_TARGET = -100
HIDDEN_VALUE = -1.0
HIDDEN_GENES = "hidden_genes"


def cell_generator(seed: int, epoch: int, cell_id: str) -> np.random.Generator:
    """Random numbers that depend on seed, epoch and cell alone, whatever the batch, rank or worker.

    Examples
    --------
    >>> first, again = cell_generator(0, 1, "a"), cell_generator(0, 1, "a")
    >>> bool(first.random() == again.random())
    True
    """
    digest = hashlib.blake2b(f"{seed}\x1f{epoch}\x1f{cell_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def shuffle_ties(values: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """An order of the slots that keeps `values` descending and is random within runs of equal values.

    Ties sorted by token give the id task away, since a hidden gene's neighbours then bracket its token.

    Parameters
    ----------
    values
        Descending values of one cell, shape (genes,).
    generator
        Source of the order within runs.

    Returns
    -------
    numpy.ndarray
        Indices into `values`, shape (genes,).

    Examples
    --------
    >>> values = np.array([2.0, 1.0, 1.0, 1.0, 0.5], dtype=np.float32)
    >>> values[shuffle_ties(values, cell_generator(0, 0, "a"))].tolist()
    [2.0, 1.0, 1.0, 1.0, 0.5]
    """
    run = np.concatenate([[0], np.cumsum(values[1:] != values[:-1])]) if len(values) else np.zeros(0)
    return np.argsort(run + generator.random(len(values)), kind="stable")


@dataclass(frozen=True)
class CellMasker:
    """Hides genes of one cell; equal inputs give equal masks on any machine.

    Parameters
    ----------
    token_pools
        Per species index, the tokens that a cell of the species can hold; random replacements are drawn from it.
    unknown_rank_position
        Position of a hidden gene under ``hidden_rank``: the model's ``max_position_embeddings``.
    task
        ``published``: 15 % of the slots, of which 80 % become ``<mask>``, 10 % a random gene of the same species
        (both with value -1) and 10 % stay as they are; ranks stay. ``hidden_rank``: the hidden slots lose value and
        rank; of a part (`keep_id`) the id stays and the value is asked, of the others the id is asked: which genes
        are missing? Those slots look alike, so cross-entropy per slot is cross-entropy against the set.
    rate
        Share of the slots that is hidden; at least one slot is.
    mask_share, random_share
        Shares of the chosen slots, ``published`` only.
    keep_id
        Share of the hidden slots that keep their id, ``hidden_rank`` only.
    shuffle_equal_values
        Shuffle runs of equal values before masking.
    seed
        Seed of all masks.

    Examples
    --------
    >>> masker = CellMasker([np.arange(2, 12)], unknown_rank_position=64, task="hidden_rank", rate=0.5)
    >>> cell = {"input_ids": np.arange(2, 8), "values": np.linspace(3, 1, 6), "species": 0, "cell_id": "a"}
    >>> sorted(masker(cell, epoch=0)["position_ids"].tolist())
    [0, 1, 2, 64, 64, 64]
    """

    token_pools: Sequence[npt.NDArray[np.int64]]
    unknown_rank_position: int
    task: Task = "published"
    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    keep_id: float = 0.5
    shuffle_equal_values: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InputError(f"masking task {self.task!r}: must be one of {', '.join(TASKS)}")
        if not 0 < self.rate < 1:
            raise InputError(f"masking rate {self.rate}: must lie between 0 and 1")
        if self.mask_share < 0 or self.random_share < 0 or self.mask_share + self.random_share > 1:
            raise InputError("masking: mask_share and random_share must be shares whose sum is at most 1")
        if not 0 <= self.keep_id <= 1:
            raise InputError(f"masking keep_id {self.keep_id}: must be a share between 0 and 1")

    def __call__(self, row: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        """Mask one cell.

        Parameters
        ----------
        row
            ``input_ids`` and ``values`` of shape (genes,), values descending; ``species`` (index), ``cell_id``.
        epoch
            Pass over the corpus; another epoch, another mask.

        Returns
        -------
        dict
            ``input_ids``, ``values``, ``position_ids``, ``labels`` (-100: no id asked), ``labels_values`` (values
            before masking), ``value_targets`` (True: value asked), each of shape (genes,); and ``species``.
        """
        ids = np.asarray(row["input_ids"], dtype=np.int64)
        values = np.asarray(row["values"], dtype=np.float32)
        if not len(ids):
            raise InputError(f"cell {row['cell_id']!r} has no expressed gene of the vocabulary, nothing can be hidden")
        generator = cell_generator(self.seed, epoch, str(row["cell_id"]))
        if self.shuffle_equal_values:
            order = shuffle_ties(values, generator)
            ids, values = ids[order], values[order]
        chosen = generator.permutation(len(ids))[: max(1, round(self.rate * len(ids)))]
        species = int(row["species"])
        hide = self._hide_published if self.task == "published" else self._hide_rank
        return {**hide(ids, values, chosen, species, generator), "species": species}

    def _hide_published(
        self,
        ids: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        chosen: npt.NDArray[np.int64],
        species: int,
        generator: np.random.Generator,
    ) -> dict[str, Any]:
        fate = generator.random(len(chosen))
        masked = chosen[fate < self.mask_share]
        replaced = chosen[(fate >= self.mask_share) & (fate < self.mask_share + self.random_share)]
        asked = np.zeros(len(ids), dtype=bool)
        asked[chosen] = True
        seen_ids, seen_values = ids.copy(), values.copy()
        seen_ids[masked] = MASK_TOKEN
        seen_ids[replaced] = generator.choice(self.token_pools[species], size=len(replaced))
        seen_values[masked] = HIDDEN_VALUE
        seen_values[replaced] = HIDDEN_VALUE
        return {
            "input_ids": seen_ids,
            "values": seen_values,
            "position_ids": np.arange(len(ids)),
            "labels": np.where(asked, ids, NO_TARGET),
            "labels_values": values,
            "value_targets": asked,
        }

    def _hide_rank(
        self,
        ids: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        chosen: npt.NDArray[np.int64],
        species: int,
        generator: np.random.Generator,
    ) -> dict[str, Any]:
        # `chosen` is in random order, so its first part is a random part. With two or more hidden genes and a share
        # strictly between 0 and 1, both questions are asked.
        known = round(self.keep_id * len(chosen))
        if len(chosen) > 1 and 0 < self.keep_id < 1:
            known = min(max(known, 1), len(chosen) - 1)
        visible = np.ones(len(ids), dtype=bool)
        visible[chosen] = False
        # hidden slots go last, sorted by token: nothing about their rank is left in the order of the slots either
        named, unnamed = (part[np.argsort(ids[part])] for part in (chosen[:known], chosen[known:]))
        order = np.concatenate([np.flatnonzero(visible), named, unnamed])
        n_visible, n_named = int(visible.sum()), len(named)
        slot = np.arange(len(ids))
        asked_value = (slot >= n_visible) & (slot < n_visible + n_named)
        asked_id = slot >= n_visible + n_named
        ids, values = ids[order], values[order]
        return {
            "input_ids": np.where(asked_id, MASK_TOKEN, ids),
            "values": np.where(slot < n_visible, values, np.float32(HIDDEN_VALUE)),
            "position_ids": np.where(slot < n_visible, slot, self.unknown_rank_position),
            "labels": np.where(asked_id, ids, NO_TARGET),
            "labels_values": values,
            "value_targets": asked_value,
        }


def ask_once(masked: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for the missing genes of a ``hidden_rank`` cell at one slot instead of at each of its like slots.

    All slots with a hidden id look alike, so the model answers them alike; one pass through the vocabulary-wide
    decoder serves them all. The genes themselves move to ``hidden_genes`` (0 where there is none).

    Parameters
    ----------
    masked
        A cell from `CellMasker` under ``hidden_rank``.

    Examples
    --------
    >>> masked = {"labels": np.array([-100, 7, 9])}
    >>> asked = ask_once(masked)
    >>> asked["labels"].tolist(), asked["hidden_genes"].tolist()
    ([-100, 7, -100], [0, 7, 9])
    """
    labels = masked["labels"]
    asked = np.flatnonzero(labels != NO_TARGET)
    first = np.full_like(labels, NO_TARGET)
    first[asked[:1]] = labels[asked[:1]]
    return {**masked, "labels": first, HIDDEN_GENES: np.where(labels != NO_TARGET, labels, PAD_TOKEN)}


def token_pools(table: GeneTable, present: npt.NDArray[np.bool_] | None = None) -> list[npt.NDArray[np.int64]]:
    """Per species, the tokens that its cells can hold (a homolog's token counts for both), ascending.

    Parameters
    ----------
    table
        The gene table.
    present
        Optional mask over tokens, shape (vocab,): genes that the corpus measures.
    """
    pools = []
    for species in table.species:
        own = table.frame.loc[table.frame["species"] == species, "token"].to_numpy()
        tokens = np.unique(table.token_in_cell[own])
        pools.append(tokens if present is None else tokens[present[tokens]])
    return pools


@dataclass(frozen=True)
class MaskedGeneCollator:
    """Masks cells and lays them out as one batch, padded or packed.

    Parameters
    ----------
    masker
        Hides the genes.
    layout
        ``padded``: arrays of shape (cells, longest). ``packed``: one row of all slots with ``cell_lengths``.
    one_answer
        Under ``hidden_rank``, ask for a cell's missing genes once (`ask_once`); `losses` knows how to score that.
        Off: labels on every slot, for any training loop.

    Examples
    --------
    >>> masker = CellMasker([np.arange(2, 12)], unknown_rank_position=64)
    >>> cell = {"input_ids": np.arange(2, 8), "values": np.linspace(3, 1, 6), "species": 0, "cell_id": "a"}
    >>> batch = MaskedGeneCollator(masker)([cell])
    >>> int((batch["labels"] != -100).sum())
    1
    """

    masker: CellMasker
    layout: Literal["padded", "packed"] = "padded"
    one_answer: bool = False

    def __call__(self, rows: Sequence[Mapping[str, Any]], epoch: int = 0) -> dict[str, torch.Tensor]:
        """Tensors for the model from rows of the corpus; a row's own ``epoch`` wins over `epoch`."""
        return self.lay_out([self.masker(row, row.get("epoch", epoch)) for row in rows])

    def lengths(self, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
        """Gene slots that each row takes."""
        return np.array([len(row["input_ids"]) for row in rows])

    def lay_out(self, masked: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad or pack cells that are masked already."""
        if self.masker.task == "hidden_rank" and self.one_answer:
            masked = [ask_once(cell) for cell in masked]
        return pad_cells(masked) if self.layout == "padded" else pack_cells(masked)
