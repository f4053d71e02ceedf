"""The corpus as a stream of model-ready cells: read in blocks, shuffled in pools, tokenised on the fly, resumable."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from genecompass.tokenization.batching import batches_by_tokens, pad_cells
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from torch.utils.data import IterableDataset, get_worker_info

from .catalogue import Corpus
from .epoch import plan_epoch
from .ledger import digest
from .pool import Pool, PoolReader
from .position import STATE_FORMAT, Left, Segment, pools_left, segments_from_json, segments_to_json
from .retry import Patience
from .selection import Choice, Selection

Row = dict[str, Any]


class Batch(NamedTuple):
    """Cells of like length, and the stream's position after them.

    Parameters
    ----------
    rows
        The cells.
    stream_position
        Plain numbers, to hand to `CorpusStream.consumed`.
    """

    rows: list[Row]
    stream_position: dict[str, int]


class PaddedBatch(dict[str, Any]):
    """Tensors and more, by name; between processes they travel as NumPy arrays.

    Torch hands every tensor over as a file descriptor of shared memory, which costs both sides about 0.3 ms; arrays
    as small as these are through the pipe in a fraction of that.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in self.items()}
        return _from_arrays, (arrays,)


def _from_arrays(arrays: dict[str, Any]) -> PaddedBatch:
    pairs = arrays.items()
    return PaddedBatch({k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in pairs})


def padded(batch: Batch) -> PaddedBatch:
    """What a model takes of a batch: the ``collate_fn`` of a ``DataLoader`` over a stream of batches.

    Parameters
    ----------
    batch
        From a stream with ``batch_tokens`` or ``batch_cells``.

    Returns
    -------
    PaddedBatch
        ``input_ids``, ``values``, ``attention_mask`` (cells, genes) and ``species`` (cells,) as `pad_cells` gives
        them, every other column of the rows as a list, and ``stream_position``.

    Examples
    --------
    >>> from torch.utils.data import DataLoader
    >>> cells = open_corpus("corpus", "genes.tsv.gz", batch_tokens=32_768)  # doctest: +SKIP
    >>> for batch in DataLoader(cells, batch_size=None, collate_fn=padded, num_workers=2):  # doctest: +SKIP
    ...     cells.consumed(batch.pop("stream_position"))
    """
    tokens = ("input_ids", "values", "species")
    tensors = pad_cells([{name: row[name] for name in tokens} for row in batch.rows])
    others = {name: [row[name] for row in batch.rows] for name in batch.rows[0] if name not in tokens}
    return PaddedBatch(tensors | others | {"stream_position": batch.stream_position})


class CorpusStream(IterableDataset[Any]):
    """Cells of a corpus, tokenised, in a reproducible order that ranks and workers share out without overlap.

    Made by `open_corpus`, which describes the parameters. Yields rows ``input_ids`` int32 (genes,), ``values``
    float32 (genes,), ``species`` (index), ``cell_id``, ``dataset`` and further obs columns asked for; or, with a
    token budget, `Batch` es of such rows.

    ``state_dict`` says what was given out by this object, or, once `consumed` is called (with DataLoader workers,
    which run ahead), what was consumed.
    """

    def __init__(
        self,
        corpus: Corpus,
        reader: PoolReader,
        *,
        shuffle: bool,
        seed: int,
        epoch: int,
        rank: int,
        world_size: int,
        species_probabilities: Mapping[str, float] | None,
        pool_blocks: int,
        batch_tokens: int | None,
        batch_cells: int | None,
    ) -> None:
        super().__init__()
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of {world_size} processes: must be from 0 to {world_size - 1}")
        self.corpus = corpus
        self.reader = reader
        self.shuffle, self.seed, self.epoch = shuffle, seed, epoch
        self.rank, self.world_size = rank, world_size
        self.batch_tokens, self.batch_cells = batch_tokens, batch_cells
        self._pool_blocks = pool_blocks
        self._probabilities = None if species_probabilities is None else dict(species_probabilities)
        self._start: list[Segment] = []
        self._given: list[Segment] = []
        self._used: list[Segment] | None = None
        self._start_ranks: dict[str, Any] = {}
        self._next_worker = 0
        self._last_worker: int | None = None

    @property
    def in_batches(self) -> bool:
        """Whether it yields batches rather than rows."""
        return self.batch_tokens is not None or self.batch_cells is not None

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        readers = self.world_size * workers
        # After a restart the first worker takes the turn of the one that would have come next.
        number = (number + self._next_worker) % workers
        mine = self.rank * workers + number
        before = self._segments_before(readers)
        segment = before.pop() if before and before[-1].readers == readers else Segment(readers)
        self._given = [*before, Segment(readers, dict(segment.done))]
        pools = self._pools()
        left = pools_left(len(pools), before)[mine::readers]
        finished, skip = segment.done.get(mine, (0, 0))
        for turn, entry in enumerate(left[finished:], finished):
            start = skip if turn == finished and skip else entry.skip
            yield from self._read(pools[entry.pool], Left(entry.pool, start), turn, mine)

    def _segments_before(self, readers: int) -> list[Segment]:
        start = [Segment(segment.readers, dict(segment.done)) for segment in self._start]
        known = self._start_ranks
        alone = bool(known) and len(known["ranks"]) < known["world_size"]
        if alone and (known["world_size"] != self.world_size or start[-1].readers != readers):
            raise InputError(
                f"the state is of rank {known['ranks'][0]} of {known['world_size']} alone; to go on with another "
                "number of processes or workers, merge the states of all ranks (merge_states)"
            )
        return start

    def _pools(self) -> list[npt.NDArray[np.int64]]:
        return plan_epoch(
            self.reader.blocks,
            seed=self.seed,
            epoch=self.epoch,
            shuffle=self.shuffle,
            species_probabilities=self._probabilities,
            pool_blocks=self._pool_blocks,
        )

    def _read(self, blocks: npt.NDArray[np.int64], entry: Left, turn: int, mine: int) -> Iterator[Any]:
        pool = self.reader.read(blocks)
        order = np.arange(len(pool))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch, entry.pool]).permutation(order)
        order = order[pool.lengths[order] > 0]  # a cell without any known gene says nothing to a model
        units = self._batches(pool, order, entry.pool) if self.in_batches else order
        segment = self._given[-1]
        for done in range(entry.skip, len(units)):
            last = done + 1 == len(units)
            segment.done[mine] = (turn + 1, 0) if last else (turn, done + 1)
            if not self.in_batches:
                yield pool.row(int(units[done]))
                continue
            position = {
                "epoch": self.epoch,
                "segment": len(self._given) - 1,
                "readers": segment.readers,
                "reader": mine,
                "pools": segment.done[mine][0],
                "units": segment.done[mine][1],
            }
            yield Batch([pool.row(int(cell)) for cell in units[done]], position)

    def _batches(self, pool: Pool, order: npt.NDArray[np.int64], number: int) -> Sequence[npt.NDArray[np.int64]]:
        if self.batch_tokens is None:
            assert self.batch_cells is not None
            return [order[i : i + self.batch_cells] for i in range(0, len(order), self.batch_cells)]
        seed = int(digest([self.seed, self.epoch, number])[:8], 16) if self.shuffle else None
        lengths = pool.lengths[order]
        chosen = batches_by_tokens(lengths, self.batch_tokens, max_cells=self.batch_cells, shuffle_seed=seed)
        return [order[batch] for batch in chosen]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given pass; forgets a restored position of another epoch."""
        if epoch != self.epoch:
            self.epoch, self._start, self._given, self._used, self._start_ranks = epoch, [], [], None, {}
            self._next_worker, self._last_worker = 0, None

    def consumed(self, stream_position: Mapping[str, Any]) -> None:
        """Note that a batch was used. Call it in the main process, batch by batch, when workers read ahead.

        Parameters
        ----------
        stream_position
            What the batch carried; numbers may be tensors of one element.
        """
        position = {key: int(value) for key, value in stream_position.items()}
        if position["epoch"] != self.epoch:
            self.set_epoch(position["epoch"])
        if self._used is None:
            self._used = [Segment(segment.readers, dict(segment.done)) for segment in self._start]
        while len(self._used) <= position["segment"]:
            self._used.append(Segment(position["readers"]))
        self._used[position["segment"]].done[position["reader"]] = (position["pools"], position["units"])
        workers = position["readers"] // self.world_size
        self._last_worker = position["reader"] % workers

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, as plain values fit for JSON. Every rank has its own (see `merge_states`)."""
        stands = self._given if self._used is None else self._used
        workers = (stands or self._start or [Segment(self.world_size)])[-1].readers // self.world_size
        following = {} if self._last_worker is None else {str(self.rank): (self._last_worker + 1) % max(workers, 1)}
        return {
            "format": STATE_FORMAT,
            "stream": self._identity(),
            "epoch": self.epoch,
            "rank": self.rank,
            "ranks": [self.rank],
            "world_size": self.world_size,
            "segments": segments_to_json(stands or self._start),
            "next_worker": following,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved position, at the next iteration.

        With as many ranks and workers as before the very same rows or batches follow; with another number (and the
        merged states of all ranks) the rest of the epoch does, each cell once.

        Raises
        ------
        InputError
            When the state is of another corpus, selection, seed or batch size.
        """
        if state["stream"] != self._identity():
            raise InputError("the saved position is of a stream with another corpus, selection, seed or batch size")
        self.epoch = int(state["epoch"])
        self._start = segments_from_json(state["segments"])
        self._given, self._used, self._last_worker = [], None, None
        self._start_ranks = {"ranks": list(state["ranks"]), "world_size": state["world_size"]} if self._start else {}
        self._next_worker = int(state["next_worker"].get(str(self.rank), 0))

    def _identity(self) -> str:
        return digest(
            [
                self.corpus.manifest["plan"],
                self.reader.selection.to_dict(),
                [self.shuffle, self.seed, self._pool_blocks, self._probabilities],
                [self.batch_tokens, self.batch_cells, self.reader.max_length if self.in_batches else None],
            ]
        )


def open_corpus(
    path_or_repo: str | os.PathLike[str],
    processor_or_table: Any,
    *,
    max_length: int | None = None,
    select: Mapping[str, Choice] | None = None,
    exclude: Mapping[str, Choice] | None = None,
    species_probabilities: Mapping[str, float] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    columns: Sequence[str] = ("cell_id", "dataset"),
    pool_blocks: int = 4,
    batch_tokens: int | None = None,
    batch_cells: int | None = None,
    patience: Patience | None = None,
) -> CorpusStream:
    """Open a corpus as a stream of model-ready cells.

    Parameters
    ----------
    path_or_repo
        A local folder, ``owner/name[@revision]`` on the Hub, or an fsspec address.
    processor_or_table
        A `GeneCompassProcessor`, a `GeneTable` or the path of either's files: the vocabulary.
    max_length
        Genes kept per cell; default: the processor's, else 2,048.
    select, exclude
        Which cells: column (``species``, ``dataset``, ``cell_id`` or an obs column) to one value or several. Shards
        without such cells are not opened, blocks without them not read. Cells of all sources are shuffled among
        each other, so this saves reading for a species (shards of its own) and for what is rare: of the blocks of
        512 cells it skips 37 % for a value that 1 cell in 512 has, 90 % for 1 in 5,000. A tissue that 1 cell in 50
        comes from is in every block: all of the corpus is read, and only tokenising the other cells is saved.
    species_probabilities
        Share of cells of each species in every stretch of the stream; None: as in the corpus, each cell once.
    shuffle, seed, epoch
        Order of the cells; without shuffling, the corpus's.
    rank, world_size
        This process and how many there are; DataLoader workers are found by themselves.
    columns
        What rows carry besides tokens, values and species.
    pool_blocks
        Row groups (of 512 cells) that are shuffled together.
    batch_tokens, batch_cells
        Yield batches of cells of like length with at most that many gene slots, padding included, or cells; `padded`
        makes tensors of them.
    patience
        How often a failing read is tried again.

    Returns
    -------
    CorpusStream

    Raises
    ------
    InputError
        For a folder that is no corpus, an unknown species or column, or a selection that leaves no cell.

    Examples
    --------
    >>> cells = open_corpus("corpus", "genes.tsv.gz", select={"tissue": "liver"})  # doctest: +SKIP
    >>> next(iter(cells))["input_ids"][:3]  # doctest: +SKIP
    array([ 512, 7781,  903], dtype=int32)
    """
    corpus = Corpus(path_or_repo, patience=patience)
    table, length = vocabulary_of(processor_or_table, max_length)
    selection = Selection.of(corpus, select, exclude)
    reader = PoolReader(corpus, table, selection, max_length=length, columns=tuple(columns))
    return CorpusStream(
        corpus,
        reader,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        rank=rank,
        world_size=world_size,
        species_probabilities=species_probabilities,
        pool_blocks=pool_blocks,
        batch_tokens=batch_tokens,
        batch_cells=batch_cells,
    )


def vocabulary_of(processor_or_table: Any, max_length: int | None) -> tuple[GeneTable, int]:
    """The gene table and the number of genes per cell that a processor, a table or a path stand for."""
    if isinstance(processor_or_table, GeneTable):
        return processor_or_table, max_length or 2048
    if isinstance(processor_or_table, str | os.PathLike):
        return GeneTable.read(processor_or_table), max_length or 2048
    table = getattr(processor_or_table, "gene_table", None)
    if table is None:
        raise InputError(f"expected a processor, a gene table or a path, not {type(processor_or_table).__name__}")
    own = getattr(getattr(processor_or_table, "feature_extractor", None), "max_length", None)
    return table if isinstance(table, GeneTable) else GeneTable(table), max_length or own or 2048
