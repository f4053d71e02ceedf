"""Which cells of a corpus to read: decided from the manifest shard by shard, then from columns block by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from genecompass.tokenization.errors import InputError

from .catalogue import Corpus, Shard

Choice = str | Sequence[str]


@dataclass(frozen=True)
class Selection:
    """Values that cells must have, and values that they must not have.

    Parameters
    ----------
    select
        Column to values, one of which a cell must have.
    exclude
        Column to values, none of which it may have.
    """

    select: dict[str, tuple[str, ...]]
    exclude: dict[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, corpus: Corpus, select: Mapping[str, Choice] | None, exclude: Mapping[str, Choice] | None
    ) -> "Selection":
        """Check a selection against what the corpus holds.

        Raises
        ------
        InputError
            For a column that the corpus lacks, or a value that no cell has.
        """
        chosen = cls(_normal(select), _normal(exclude))
        for column in {**chosen.select, **chosen.exclude}:
            if column not in corpus.columns:
                raise InputError(f"{corpus.source}: no column {column!r} to select by; there are {corpus.columns}")
        for column, values in chosen.select.items():
            known = _known_values(corpus, column)
            if known is not None and (missing := [value for value in values if value not in known]):
                some = ", ".join(sorted(known)[:20])
                raise InputError(f"{corpus.source}: no cell has {column} {missing[0]!r}; there are: {some}")
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"select": self.select, "exclude": self.exclude}

    def columns_for(self, shard: Shard) -> list[str]:
        """Columns that have to be read to decide on a shard's cells; none where the manifest decides for all."""
        undecided = [c for c, v in self.select.items() if _share(shard, c, v) != 1]
        undecided += [c for c, v in self.exclude.items() if _share(shard, c, v) != 0]
        return list(dict.fromkeys(undecided))

    def share_of(self, shard: Shard) -> float:
        """Share of a shard's cells that are chosen: exact for one column, expected for several; 0 when none can be."""
        share = 1.0
        for column, values in self.select.items():
            share *= _share(shard, column, values)
        for column, values in self.exclude.items():
            share *= 1 - _share(shard, column, values)
        return share

    def mask(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a table are chosen, judged by the columns that it has. Shape (rows,)."""
        mask = np.ones(table.num_rows, dtype=bool)
        for column, values in self.select.items():
            if column in table.column_names:
                mask &= _is_in(table[column], values)
        for column, values in self.exclude.items():
            if column in table.column_names:
                mask &= ~_is_in(table[column], values)
        return mask


def _normal(choices: Mapping[str, Choice] | None) -> dict[str, tuple[str, ...]]:
    return {
        c: (v,) if isinstance(v, str) else tuple(sorted(set(map(str, v)))) for c, v in sorted((choices or {}).items())
    }


def _known_values(corpus: Corpus, column: str) -> set[str] | None:
    """All values of a column; None where a shard has too many to list."""
    if column == "species":
        return set(corpus.species)
    if any(column not in shard.values for shard in corpus.shards):
        return None
    return {value for shard in corpus.shards for value in shard.values[column]}


def _share(shard: Shard, column: str, values: tuple[str, ...]) -> float:
    if column == "species":
        return float(shard.species in values)
    if column not in shard.values:
        return 0.5  # not counted: only reading tells
    return sum(shard.values[column].get(value, 0) for value in values) / shard.rows


def _is_in(column: pa.ChunkedArray, values: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    found = pc.is_in(column, value_set=pa.array(values, pa.string()))
    if "" in values:  # the empty text stands for a missing value
        found = pc.or_(found, pc.is_null(column))
    return np.asarray(found.to_numpy(zero_copy_only=False) if isinstance(found, pa.Array) else found.to_numpy())
