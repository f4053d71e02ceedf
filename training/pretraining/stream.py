"""The training stream: cells of similar length share a batch, and every batch knows how to continue after it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ...tokenization.batching import batches_by_tokens
from ...tokenization.errors import InputError

Row = Mapping[str, Any]
POSITION = "stream_position"
CELL_IDS = "cell_ids"


class Collator(Protocol):
    """What the stream needs of a task: how long rows will be, and a batch of them."""

    def lengths(self, rows: Sequence[Row]) -> npt.NDArray[np.int64]:
        """Gene slots that each row takes at most."""
        ...

    def __call__(self, rows: Sequence[Row], epoch: int = 0) -> dict[str, torch.Tensor]:
        """Tensors for the model."""
        ...


class Cells(Protocol):
    """What the stream needs of a corpus: rows, epochs, and a position that can be saved and restored.

    A position's ``next_worker`` (process to number) shifts the parts of DataLoader workers: after a restart the
    loader asks its first worker first, which then takes the turn of the one that would have come next.
    """

    rank: int

    def __iter__(self) -> Iterator[Row]:
        """Rows of the current epoch from the current position."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given pass."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Position after the last row that was given out."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position."""
        ...


def position_of_cell(cell_id: str) -> float:
    """A number in [0, 1) that depends on the cell id alone; splits cells for good, whatever seed and order.

    Examples
    --------
    >>> 0 <= position_of_cell("pbmc:AAACATACAACCAC-1") < 1
    True
    """
    digest = hashlib.blake2b(cell_id.encode(), digest_size=8, person=b"genecompass").digest()
    return int.from_bytes(digest, "little") / 2**64


def is_held_out(row: Row, held_out: float) -> bool:
    """Whether a cell is kept for evaluation."""
    return position_of_cell(str(row["cell_id"])) < held_out


def is_trained_on(row: Row, held_out: float, share: float = 1.0) -> bool:
    """Whether a cell is trained on; smaller shares are subsets of larger ones."""
    return held_out <= position_of_cell(str(row["cell_id"])) < held_out + share * (1 - held_out)


class TokenBudgetStream(IterableDataset[dict[str, torch.Tensor]]):
    """Endless batches of about equal size in tokens, epoch after epoch, with a position on every batch.

    Cells are read in pools; a pool is sorted into batches of similar lengths and the batches are shuffled. The
    position that a batch carries restores the stream right after it: only the pool in hand is read again.

    Parameters
    ----------
    corpus
        Rows with ``input_ids``, ``values``, ``species``, ``cell_id``; split over ranks and workers by itself.
    collator
        Masks and lays out the rows of a batch.
    max_tokens
        Largest number of gene slots of a batch, padding included.
    max_cells
        Largest number of cells of a batch.
    pool_cells
        Cells that are sorted and shuffled together.
    seed
        Seeds the order of batches.
    keep
        Rows for which it is false are passed over.
    """

    def __init__(
        self,
        corpus: Cells,
        collator: Collator,
        *,
        max_tokens: int,
        max_cells: int | None = None,
        pool_cells: int = 1024,
        seed: int = 0,
        keep: Callable[[Row], bool] | None = None,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.collator = collator
        self.max_tokens = max_tokens
        self.max_cells = max_cells
        self.pool_cells = pool_cells
        self.seed = seed
        self.keep = keep
        self._start: dict[str, Any] = {}
        self._shift = 0

    def restore(self, positions: dict[str, Any], next_worker: int = 0) -> None:
        """Continue after the batches that were consumed last.

        Parameters
        ----------
        positions
            Position of the last consumed batch of each worker (``{"0": position}``).
        next_worker
            The worker whose turn came next.
        """
        self._start = positions
        self._shift = next_worker

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        worker_id = (worker.id + self._shift) % worker.num_workers if worker is not None else 0
        start = self._start.get(str(worker_id))
        epoch, done = (start["epoch"], start["batches_done"]) if start else (0, 0)
        resume_at = start["corpus"] if start else None
        while True:
            cells_seen = 0
            for before, pool in self._pools(epoch, resume_at):
                cells_seen += len(pool)
                batches = self._batches(pool, epoch)
                for index in range(done, len(batches)):
                    batch: dict[str, Any] = self.collator(batches[index], epoch)
                    batch[CELL_IDS] = [str(row["cell_id"]) for row in batches[index]]
                    batch[POSITION] = {
                        "worker": worker_id,
                        "epoch": epoch,
                        "corpus": before,
                        "batches_done": index + 1,
                    }
                    yield batch
                done = 0
            if not cells_seen and resume_at is None:
                raise InputError(
                    "the corpus gives this process no cell to train on; check data.select, data.held_out and "
                    "data.share, and that the corpus has at least as many shards or cells as there are processes"
                )
            epoch, resume_at = epoch + 1, None

    def _pools(self, epoch: int, resume_at: dict[str, Any] | None) -> Iterator[tuple[dict[str, Any], list[Row]]]:
        """Pools of one epoch, each with the corpus' position before it."""
        self.corpus.set_epoch(epoch)
        start = resume_at if resume_at is not None else self.corpus.state_dict()
        self.corpus.load_state_dict({**start, "next_worker": {str(self.corpus.rank): self._shift}})
        rows = iter(self.corpus)
        before, pool = self.corpus.state_dict(), []
        for row in rows:
            if self.keep is None or self.keep(row):
                pool.append(row)
            if len(pool) == self.pool_cells:
                yield before, pool
                before, pool = self.corpus.state_dict(), []
        if pool:
            yield before, pool

    def _batches(self, pool: list[Row], epoch: int) -> list[list[Row]]:
        # as wide as they will be once padded to a multiple of eight
        lengths = -(-self.collator.lengths(pool) // 8) * 8
        # the first cell's place in the hash makes pools of one epoch differ in order, and a restored one alike
        order_seed = (self.seed * 1_000_003 + epoch) * 1_000_003 + int(
            position_of_cell(str(pool[0]["cell_id"])) * 1_000_003
        )
        chosen = batches_by_tokens(lengths, self.max_tokens, max_cells=self.max_cells, shuffle_seed=order_seed % 2**32)
        return [[pool[index] for index in batch] for batch in chosen]


def collect_cells(
    rows: Iterable[Row], wanted: Sequence[Mapping[int, int]], accept: Sequence[Callable[[Row], bool]]
) -> list[list[Row]]:
    """The first cells of a stream that each of several tests accepts, up to a number per species.

    Parameters
    ----------
    rows
        Rows of a corpus; reading stops as soon as every group has its number of every species.
    wanted
        For each group, species index to number of cells.
    accept
        One test a group; a cell goes to the first group that accepts it.

    Returns
    -------
    list of list
        The rows of each group, in the order of the stream.

    Examples
    --------
    >>> cells = [{"species": 0, "cell_id": str(i)} for i in range(9)]
    >>> [len(group) for group in collect_cells(cells, [{0: 4}], [lambda row: True])]
    [4]
    """
    missing = [dict(group) for group in wanted]
    groups: list[list[Row]] = [[] for _ in accept]
    for row in rows:
        if not any(count > 0 for group in missing for count in group.values()):
            break
        species = int(row["species"])
        number = next((index for index, test in enumerate(accept) if test(row)), None)
        if number is not None and missing[number].get(species, 0) > 0:
            groups[number].append(row)
            missing[number][species] -= 1
    return groups
