"""A corpus by cell number: for local folders, where random access is cheap."""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .catalogue import Corpus
from .pool import Pool, PoolReader
from .selection import Choice, Selection
from .stream import vocabulary_of

_BLOCKS_KEPT = 16


class CorpusDataset(Dataset[dict[str, Any]]):
    """The cells of a corpus by number, tokenised when they are asked for.

    Parameters
    ----------
    path_or_repo, processor_or_table, max_length, select, exclude, columns
        As for `open_corpus`.

    Notes
    -----
    A row group of 512 cells is read and tokenised at a time and the last 16 are kept: ask for cells in runs, or use
    `open_corpus`, when order does not matter.

    Examples
    --------
    >>> cells = CorpusDataset("corpus", "genes.tsv.gz", select={"species": "mouse"})  # doctest: +SKIP
    >>> len(cells), sorted(cells[0])  # doctest: +SKIP
    (6623, ['cell_id', 'dataset', 'input_ids', 'species', 'values'])
    """

    def __init__(
        self,
        path_or_repo: str | os.PathLike[str],
        processor_or_table: Any,
        *,
        max_length: int | None = None,
        select: Mapping[str, Choice] | None = None,
        exclude: Mapping[str, Choice] | None = None,
        columns: Sequence[str] = ("cell_id", "dataset"),
    ) -> None:
        corpus = Corpus(path_or_repo)
        table, length = vocabulary_of(processor_or_table, max_length)
        selection = Selection.of(corpus, select, exclude)
        self.reader = PoolReader(corpus, table, selection, max_length=length, columns=tuple(columns))
        self._starts = np.concatenate(([0], np.cumsum(self.reader.sizes()))).tolist()
        self._kept: OrderedDict[int, Pool] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, cell: int) -> dict[str, Any]:
        if not -len(self) <= cell < len(self):
            raise IndexError(f"cell {cell} of {len(self)}")
        cell %= len(self)
        block = bisect_right(self._starts, cell) - 1
        return self._block(block).row(cell - self._starts[block])

    def _block(self, block: int) -> Pool:
        if block not in self._kept:
            self._kept[block] = self.reader.read(np.array([block]))
            if len(self._kept) > _BLOCKS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(block)
        return self._kept[block]
