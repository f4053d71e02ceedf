"""The order of one pass over a corpus: blocks are dealt to pools, species mixed in the wanted shares."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from genecompass.tokenization.errors import InputError


@dataclass(frozen=True)
class Blocks:
    """The row groups that a pass reads, in the corpus's order.

    Parameters
    ----------
    shard, row_group
        Where each block is. Shapes (n_blocks,).
    cells
        How many of its cells the pass wants, exact or expected. Shape (n_blocks,).
    species
        Species of its cells. Shape (n_blocks,).
    """

    shard: npt.NDArray[np.int64]
    row_group: npt.NDArray[np.int64]
    cells: npt.NDArray[np.float64]
    species: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.shard)


def plan_epoch(
    blocks: Blocks,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
    species_probabilities: Mapping[str, float] | None = None,
    pool_blocks: int = 4,
) -> list[npt.NDArray[np.int64]]:
    """Deal blocks to pools; the cells of a pool are shuffled together when it is read.

    Blocks of each species are put in random order and spread evenly over the pass, so that every stretch of it has
    the species in the same proportion. What is in a pool depends on the seed and the epoch alone, not on who reads
    it: pools are what ranks and workers share out.

    Parameters
    ----------
    blocks
        What there is to read.
    seed, epoch
        Decide the order.
    shuffle
        False keeps the corpus's order.
    species_probabilities
        Share of cells of each species; every species needs one. A pass reads every cell at least once: the species
        with the most cells for its share once, the others repeated in fresh order as far as their share asks. None
        takes every cell exactly once.
    pool_blocks
        Blocks in a pool.

    Returns
    -------
    list of int array
        Numbers of the blocks of each pool.

    Examples
    --------
    >>> blocks = Blocks(np.arange(4), np.zeros(4, int), np.full(4, 512.0), np.array(["human"] * 4))
    >>> [len(pool) for pool in plan_epoch(blocks, seed=0, epoch=0, pool_blocks=3)]
    [3, 1]
    """
    if not shuffle and species_probabilities is None:
        return _cut(np.arange(len(blocks)), pool_blocks)
    names = sorted(set(blocks.species.tolist()))
    wanted = _wanted_cells(blocks, names, species_probabilities)
    chosen: list[npt.NDArray[np.int64]] = []
    place: list[npt.NDArray[np.float64]] = []
    for name in names:
        rng = np.random.default_rng([seed, epoch, zlib.crc32(name.encode())])
        mine = np.flatnonzero(blocks.species == name)
        sequence = _enough(mine, blocks.cells, wanted[name], rng, shuffle)
        chosen.append(sequence)
        place.append((np.arange(len(sequence)) + rng.random()) / max(len(sequence), 1))
    order = np.argsort(np.concatenate(place), kind="stable")
    return _cut(np.concatenate(chosen)[order], pool_blocks)


def _wanted_cells(blocks: Blocks, names: list[str], shares: Mapping[str, float] | None) -> dict[str, float]:
    """How many cells of each species a pass reads; infinite stands for: all, once."""
    if shares is None:
        return dict.fromkeys(names, np.inf)
    if unknown := sorted(set(shares) ^ set(names)):
        raise InputError(
            f"species_probabilities must name the species that are read ({', '.join(names)}): {unknown[0]!r}"
        )
    if min(shares.values()) <= 0:
        raise InputError("species_probabilities must be above 0; leave a species out with exclude={'species': ...}")
    total = {name: float(blocks.cells[blocks.species == name].sum()) for name in names}
    length = max(total[name] / shares[name] for name in names)
    return {name: shares[name] * length for name in names}


def _enough(
    mine: npt.NDArray[np.int64],
    cells: npt.NDArray[np.float64],
    wanted: float,
    rng: np.random.Generator,
    shuffle: bool,
) -> npt.NDArray[np.int64]:
    """Blocks of one species, in passes of fresh random order, until they hold the wanted number of cells."""
    passes: list[npt.NDArray[np.int64]] = []
    have, once = 0.0, float(cells[mine].sum())
    while not passes or (np.isfinite(wanted) and have < wanted * (1 - 1e-9) and once > 0):
        order = rng.permutation(mine) if shuffle else mine
        passes.append(order)
        have += once
    sequence = np.concatenate(passes)
    if not np.isfinite(wanted):
        return sequence
    # The last repetition stops at the block that fills the share.
    filled = np.cumsum(cells[sequence])
    return sequence[: max(len(mine), int(np.searchsorted(filled, wanted * (1 - 1e-9))) + 1)]


def _cut(order: npt.NDArray[np.int64], pool_blocks: int) -> list[npt.NDArray[np.int64]]:
    return [order[start : start + pool_blocks] for start in range(0, len(order), pool_blocks)]
