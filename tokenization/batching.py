"""Cells of unequal length in batches: by token budget, padded or packed. Training and inference share this."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

# all genes of a cell beside those that the network reads
PROFILE = ("profile_ids", "profile_values")
# what stands in slots that hold no gene, for the arrays that rows may carry along
_FILL: dict[str, float | int | bool] = {"labels": -100}
_DTYPES = {"input_ids": torch.int64, "position_ids": torch.int64, "labels": torch.int64}


def batches_by_tokens(
    lengths: npt.ArrayLike, max_tokens: int, *, max_cells: int | None = None, shuffle_seed: int | None = None
) -> list[npt.NDArray[np.int64]]:
    """Group cells of like length so that no padded batch holds more than `max_tokens` slots.

    Parameters
    ----------
    lengths
        Genes per cell. Shape (cells,).
    max_tokens
        Largest number of slots, padding included; a longer cell makes a batch of its own.
    max_cells
        Largest number of cells in a batch.
    shuffle_seed
        Shuffle cells of like length among batches, and the order of batches. None: longest batch first, so that
        memory runs out at once or not at all.

    Returns
    -------
    list of int64 arrays
        Numbers of the cells in each batch; every cell is in exactly one.

    Examples
    --------
    >>> [batch.tolist() for batch in batches_by_tokens([5, 1, 4, 1], max_tokens=8)]
    [[0], [2, 1], [3]]
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    if max_tokens < 1 or (max_cells is not None and max_cells < 1):
        raise ValueError(f"max_tokens={max_tokens}, max_cells={max_cells}: both must be at least 1")
    generator = None if shuffle_seed is None else np.random.default_rng(shuffle_seed)
    # a random tie-break inside buckets of 64 slots: like lengths stay together, their order does not
    key = -sizes if generator is None else -(sizes // 64)
    tie = np.arange(len(sizes)) if generator is None else generator.permutation(len(sizes))
    order = np.lexsort((tie, key))
    batches: list[npt.NDArray[np.int64]] = []
    begin = 0
    longest = 0
    for position, cell in enumerate(order):
        grown = max(longest, int(sizes[cell]))
        cells = position - begin + 1
        if position > begin and (grown * cells > max_tokens or (max_cells is not None and cells > max_cells)):
            batches.append(order[begin:position])
            begin, grown = position, int(sizes[cell])
        longest = grown
    if begin < len(order):
        batches.append(order[begin:])
    if generator is not None:
        batches = [batches[i] for i in generator.permutation(len(batches))]
    return batches


def pad_cells(
    rows: Sequence[Mapping[str, Any]], pad_to_multiple_of: int = 8, *, length: int | None = None
) -> dict[str, torch.Tensor]:
    """Stack cells side by side, short ones filled up.

    Parameters
    ----------
    rows
        Each with ``input_ids`` and ``values`` (length,), ``species`` (integer), and any other array of that length.
    pad_to_multiple_of
        Round the width up to a multiple of this.
    length
        Fixed width instead of the longest cell's.

    Returns
    -------
    dict
        ``input_ids`` int64 (B, S), ``values`` float32 (B, S), ``attention_mask`` int64 (B, S), ``species`` int64
        (B,), and the other arrays (B, S): ``labels`` filled with -100, the rest with 0 or False. Rows that carry
        ``profile_ids`` and ``profile_values``, all genes of a cell of which the network reads some, have them padded
        to a width of their own.

    Examples
    --------
    >>> batch = pad_cells([{"input_ids": [7, 8], "values": [2.0, 1.0], "species": 0}], pad_to_multiple_of=4)
    >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist()
    ([[7, 8, 0, 0]], [[1, 1, 0, 0]])
    """
    _check_rows(rows)
    sizes = [len(row["input_ids"]) for row in rows]
    width = max(1, *sizes) if length is None else length
    if max(sizes) > width:
        raise ValueError(f"a cell of {max(sizes)} genes does not fit the width {width}")
    width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
    batch: dict[str, torch.Tensor] = {}
    for name in _slot_names(rows):
        pieces = [_tensor(name, row[name]) for row in rows]
        filled = torch.full((len(rows), width), _FILL.get(name, 0), dtype=pieces[0].dtype)
        for target, piece in zip(filled, pieces, strict=True):
            target[: len(piece)] = piece
        batch[name] = filled
    batch |= _whole_cells(rows)
    batch["attention_mask"] = (torch.arange(width) < torch.tensor(sizes)[:, None]).long()
    batch["species"] = torch.tensor([int(row["species"]) for row in rows])
    return batch


def pack_cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Lay cells end to end in one row, without padding.

    Returns
    -------
    dict
        ``input_ids``, ``values`` and other per-gene arrays (1, N), ``position_ids`` (1, N; the rank within each
        cell unless rows carry their own), ``cell_lengths`` int64 (B,), ``species`` int64 (B,).

    Examples
    --------
    >>> cells = [{"input_ids": [7, 8], "values": [2.0, 1.0], "species": 0},
    ...          {"input_ids": [9], "values": [1.0], "species": 1}]
    >>> packed = pack_cells(cells)
    >>> packed["position_ids"].tolist(), packed["cell_lengths"].tolist()
    ([[0, 1, 0]], [2, 1])
    """
    _check_rows(rows)
    sizes = [len(row["input_ids"]) for row in rows]
    batch = {name: torch.cat([_tensor(name, row[name]) for row in rows])[None] for name in _slot_names(rows)}
    if "position_ids" not in batch:
        batch["position_ids"] = torch.cat([torch.arange(size) for size in sizes])[None]
    batch |= _whole_cells(rows)
    batch["cell_lengths"] = torch.tensor(sizes, dtype=torch.int64)
    batch["species"] = torch.tensor([int(row["species"]) for row in rows])
    return batch


def _whole_cells(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """All genes of cells of which the network reads some, padded; nothing where rows do not carry them."""
    if PROFILE[0] not in rows[0]:
        return {}
    width = max(1, *(len(row[PROFILE[0]]) for row in rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    values = torch.zeros(len(rows), width, dtype=torch.float32)
    for number, row in enumerate(rows):
        here = slice(len(row[PROFILE[0]]))
        ids[number, here] = torch.from_numpy(np.array(row[PROFILE[0]], dtype=np.int64))
        values[number, here] = torch.from_numpy(np.array(row[PROFILE[1]], dtype=np.float32))
    return dict(zip(PROFILE, (ids, values), strict=True))


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        raise ValueError("no cells to put in a batch")


def _slot_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arrays that have one entry per gene slot; names, ids and other per-cell fields are left out."""
    size = len(rows[0]["input_ids"])
    names = []
    for name, value in rows[0].items():
        sequence = hasattr(value, "__len__") and not isinstance(value, str) and np.ndim(value) == 1
        if sequence and len(value) == size and name not in ("species", "attention_mask", *PROFILE):
            names.append(name)
    return names


def _tensor(name: str, value: Any) -> torch.Tensor:
    tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    dtype = _DTYPES.get(name, torch.float32 if tensor.is_floating_point() else tensor.dtype)
    return tensor.to(dtype)
