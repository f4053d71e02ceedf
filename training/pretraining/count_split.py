"""Count splitting: a cell's counts are divided at random, and one part has to predict the other.

Given the cell, the two parts of a binomial split are independent (Neufeld et al., Biostatistics 2023): nothing of the
held-back part can be copied from the part that is seen, so what predicts it is the state of the cell. The network
reads some genes of the seen part; the cell vector predicts the held-back counts of all genes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ...tokenization.batching import pack_cells, pad_cells
from ...tokenization.errors import InputError
from ...tokenization.gene_table import SPECIAL_TOKENS, GeneTable
from ...tokenization.profile import counts_of_values
from .cell_statistics import CellStatistics, data_set_of
from .masking import cell_generator

COUNT_TARGETS = "count_targets"


@dataclass(frozen=True)
class SplitSettings:
    """How cells are split.

    Parameters
    ----------
    least_share, most_share
        The share of the counts that is seen is drawn log-uniformly between these.
    least_counts
        Expected counts below which the seen part does not fall, unless that is more than half of the cell.
    panel_chance, panel_share
        With this chance the seen part is cut to a random panel of genes, a share of all between this and 1.
    fewest_genes, most_genes
        How many genes the network reads, drawn uniformly: the highest, or a random part, with equal chance.
    asked_genes
        Genes that a batch is asked for, drawn anew for each.
    deepest
        Cells with more counts are thinned to this many first: one read is not one molecule.
    """

    least_share: float = 0.1
    most_share: float = 0.8
    least_counts: float = 50.0
    panel_chance: float = 0.5
    panel_share: float = 0.4
    fewest_genes: int = 80
    most_genes: int = 160
    asked_genes: int = 4000
    deepest: int = 20_000

    def __post_init__(self) -> None:
        if not 0 < self.least_share <= self.most_share < 1:
            raise InputError("masking: split_share must lie between 0 and 1, the least share first")
        if not 1 <= self.fewest_genes <= self.most_genes:
            raise InputError("masking: split_genes must be at least 1, the smaller number first")


@dataclass(frozen=True)
class SplitCell:
    """A cell in two parts.

    Parameters
    ----------
    tokens, seen, held_back
        Genes, ascending, and their counts in each part. Shapes (genes,).
    generator
        What further choices about the cell are drawn from.
    """

    tokens: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]
    held_back: npt.NDArray[np.int64]
    generator: np.random.Generator


@dataclass(frozen=True)
class CountSplitCollator:
    """Splits cells and lays them out as one batch; equal inputs give equal batches on any machine.

    Parameters
    ----------
    table
        The vocabulary.
    statistics
        Which genes each data set measures, and what its cells weigh.
    settings
        How cells are split.
    layout
        ``padded`` or ``packed``.
    seed
        Seed of all splits.
    """

    table: GeneTable
    statistics: CellStatistics
    settings: SplitSettings = field(default_factory=SplitSettings)
    layout: Literal["padded", "packed"] = "padded"
    seed: int = 0

    def __post_init__(self) -> None:
        medians = np.stack([self.table.cell_medians(name) for name in self.table.species])
        known = np.any(list(self.statistics.measured.values()), axis=0)
        known[: len(SPECIAL_TOKENS)] = False
        object.__setattr__(self, "_medians", medians)
        object.__setattr__(self, "_known", np.flatnonzero(known))

    @property
    def known(self) -> npt.NDArray[np.int64]:
        """Tokens that can be asked for, ascending."""
        return self._known  # type: ignore[attr-defined]

    def lengths(self, rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.int64]:
        """Gene slots that each row will take at most."""
        return np.array([min(len(row["input_ids"]), self.settings.most_genes) for row in rows])

    def __call__(self, rows: Sequence[Mapping[str, Any]], epoch: int = 0) -> dict[str, torch.Tensor]:
        """A batch: what the network reads, whole profiles of the seen part, and the counts that are asked.

        Parameters
        ----------
        rows
            ``input_ids`` and ``values`` of all expressed genes, ``species`` (index), ``dataset``, ``cell_id``.
        epoch
            Pass over the corpus; another epoch, another split. A row's own ``epoch`` wins.

        Returns
        -------
        dict
            What `GeneCompassForMaskedGeneModeling.forward` takes.
        """
        cells = [self.split(row, row.get("epoch", epoch)) for row in rows]
        first = str(rows[0]["cell_id"])
        asked = self.known
        if len(asked) > self.settings.asked_genes:
            # of the batch, so it follows from the batch: which cells share one does not depend on workers
            draw = cell_generator(self.seed, epoch, f"asked\x1f{first}\x1f{len(rows)}")
            asked = np.sort(draw.choice(asked, self.settings.asked_genes, replace=False))
        return self.lay_out(rows, cells, asked)

    def split(self, row: Mapping[str, Any], epoch: int) -> SplitCell:
        """Divide one cell's counts by seed, epoch and cell id alone."""
        settings = self.settings
        generator = cell_generator(self.seed, epoch, str(row["cell_id"]))
        tokens = np.asarray(row["input_ids"], dtype=np.int64)
        order = np.argsort(tokens)
        tokens = tokens[order]
        medians = self._medians[int(row["species"])]  # type: ignore[attr-defined]
        counts = np.rint(counts_of_values(np.asarray(row["values"])[order], tokens, medians)).astype(np.int64)
        total = int(counts.sum())
        if total > settings.deepest:
            counts = generator.binomial(counts, settings.deepest / total)
            total = int(counts.sum())
        share = settings.least_share * (settings.most_share / settings.least_share) ** generator.random()
        share = max(share, min(0.5, settings.least_counts / max(total, 1)))
        seen = generator.binomial(counts, share)
        held_back = counts - seen
        if generator.random() < settings.panel_chance:
            panel = settings.panel_share + (1 - settings.panel_share) * generator.random()
            seen = np.where(generator.random(len(seen)) < panel, seen, 0)
        return SplitCell(tokens, seen, held_back, generator)

    def lay_out(
        self, rows: Sequence[Mapping[str, Any]], cells: Sequence[SplitCell], asked: npt.NDArray[np.int64]
    ) -> dict[str, torch.Tensor]:
        """Tensors of split cells, asked for the given genes."""
        shown = [self._shown(cell, int(row["species"])) for row, cell in zip(rows, cells, strict=True)]
        read = [self._read(cell, whole) for cell, whole in zip(cells, shown, strict=True)]
        batch = pad_cells(read) if self.layout == "padded" else pack_cells(read)
        profile = pad_cells(shown)
        place = np.full(self.table.vocab_size, -1)
        place[asked] = np.arange(len(asked))
        targets = np.zeros((len(cells), len(asked)), dtype=np.float32)
        measured = np.zeros((len(cells), len(asked)), dtype=bool)
        for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
            column = place[cell.tokens]
            targets[number, column[column >= 0]] = cell.held_back[column >= 0]
            known = self.statistics.measured.get(data_set_of(row))
            # what a cell expresses is measured, whatever its data set was seen to express before
            measured[number] = True if known is None else known[asked] | (targets[number] > 0)
        weights = [self.statistics.data_set_weight.get(data_set_of(row), 1.0) for row in rows]
        return batch | {
            "profile_ids": profile["input_ids"],
            "profile_values": profile["values"],
            "count_tokens": torch.from_numpy(asked),
            COUNT_TARGETS: torch.from_numpy(targets),
            "count_measured": torch.from_numpy(measured),
            "count_weights": torch.tensor(weights, dtype=torch.float32),
        }

    def _shown(self, cell: SplitCell, species: int) -> dict[str, Any]:
        """The seen part as tokens and values, highest value first."""
        present = cell.seen > 0
        tokens = cell.tokens[present]
        medians = self._medians[species]  # type: ignore[attr-defined]
        values = np.log2(1 + cell.seen[present] / medians[tokens]).astype(np.float32)
        order = np.lexsort((tokens, -values))
        return {"input_ids": tokens[order], "values": values[order], "species": species}

    def _read(self, cell: SplitCell, whole: Mapping[str, Any]) -> dict[str, Any]:
        """Those genes of the seen part that the network reads."""
        settings, draw = self.settings, cell.generator
        number = int(draw.integers(settings.fewest_genes, settings.most_genes + 1))
        genes = len(whole["input_ids"])
        if draw.random() < 0.5 or genes <= number:
            chosen = np.arange(min(number, genes))
        else:
            chosen = np.sort(draw.permutation(genes)[:number])
        return {
            "input_ids": whole["input_ids"][chosen],
            "values": whole["values"][chosen],
            "species": whole["species"],
        }
