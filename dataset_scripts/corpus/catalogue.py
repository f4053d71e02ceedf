"""A finished corpus, local or on the Hub: what it holds, and how to read a block of it."""

import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.sources import split_revision

from . import layout
from .retry import Patience

_OPEN_SHARDS = 64


@dataclass(frozen=True)
class Shard:
    """One parquet file of a corpus.

    Parameters
    ----------
    path
        Relative to the corpus.
    species
        Species of its cells.
    rows
        Its cells.
    values
        Per column, how many cells have each value.
    """

    path: str
    species: str
    rows: int
    values: dict[str, dict[str, int]]

    def row_groups(self, cells: int) -> list[int]:
        """Cells in each of its row groups, when a full one holds `cells`."""
        full, rest = divmod(self.rows, cells)
        return [cells] * full + ([rest] if rest else [])


class Corpus:
    """A corpus to read from: a local folder, ``owner/name[@revision]`` on the Hub, or any fsspec address.

    Parameters
    ----------
    source
        Where it is.
    patience
        How to deal with failing reads.

    Raises
    ------
    InputError
        When there is no corpus.

    Examples
    --------
    >>> Corpus("someone/cells").n_cells  # doctest: +SKIP
    101768420
    """

    def __init__(self, source: str | os.PathLike[str], *, patience: Patience | None = None) -> None:
        self.source = str(source)
        self.patience = patience or Patience()
        self._address = _address_of(self.source)
        self._filesystem: Any = None
        self._root = ""
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self.manifest = self._read_manifest()
        self.row_group_cells = int(self.manifest["row_group_cells"])
        self.obs_columns = tuple(self.manifest["obs_columns"])
        self.shards = [
            Shard(path, entry["species"], entry["rows"], entry["values"])
            for path, entry in self.manifest["shards"].items()
        ]

    def __getstate__(self) -> dict[str, Any]:
        """Open files and connections stay behind when a reader moves to another process."""
        return self.__dict__ | {"_filesystem": None, "_files": OrderedDict()}

    @property
    def species(self) -> tuple[str, ...]:
        """Species of the corpus."""
        return tuple(sorted(self.manifest["species"]))

    @property
    def n_cells(self) -> int:
        """All its cells."""
        return sum(shard.rows for shard in self.shards)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a selection can name."""
        return ("species", "dataset", "cell_id", *self.obs_columns)

    def gene_axis(self, species: str) -> pd.DataFrame:
        """The genes that a species' cells refer to: ``gene_id``, ``symbol``, ``gene_species``; row number is index."""
        path = layout.gene_axis_path(species)

        def read() -> pd.DataFrame:
            with self._open(path) as handle:
                return pd.read_parquet(handle)

        return self.patience.of(read, f"{self.source}/{path}", between=self.reconnect)

    def n_row_groups(self, shard: Shard) -> int:
        """Row groups of a shard, from the manifest alone."""
        return len(shard.row_groups(self.row_group_cells))

    def read(self, shard: Shard, row_group: int, columns: list[str]) -> pa.Table:
        """Read some columns of one row group, trying again when the storage fails.

        Raises
        ------
        OSError
            When the shard cannot be read for good.
        """

        def read() -> pa.Table:
            return self._file(shard.path).read_row_group(row_group, columns=columns, use_threads=False)

        return self.patience.of(read, f"{self.source}/{shard.path}", between=self.reconnect)

    def reconnect(self) -> None:
        """Drop open files and connections."""
        self._files.clear()
        self._filesystem = None

    def _file(self, path: str) -> pq.ParquetFile:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        local = self._address is None
        file = pq.ParquetFile(
            os.path.join(self.source, path) if local else self._open(path),
            memory_map=local,
            pre_buffer=not local,
            page_checksum_verification=True,
        )
        self._files[path] = file
        if len(self._files) > _OPEN_SHARDS:
            self._files.popitem(last=False)
        return file

    def _open(self, path: str) -> Any:
        if self._address is None:
            return open(os.path.join(self.source, path), "rb")
        if self._filesystem is None:
            self._filesystem, self._root = fsspec.core.url_to_fs(self._address)
        return self._filesystem.open(f"{self._root}/{path}", "rb", cache_type="none")

    def _read_manifest(self) -> dict[str, Any]:
        if self._address is None and not os.path.isdir(self.source):
            raise InputError(f"{self.source}: no such folder, and not the name of a repository (owner/name)")

        def read() -> bytes:
            with self._open(layout.MANIFEST) as handle:
                content: bytes = handle.read()
                return content

        try:
            content = json.loads(self.patience.of(read, f"{self.source}/{layout.MANIFEST}", between=self.reconnect))
        except FileNotFoundError as error:
            raise InputError(
                f"{self.source}: no {layout.MANIFEST}, so no corpus; build one with `genecompass corpus build`"
            ) from error
        if content.get("kind") != "corpus":
            raise InputError(f"{self.source}: a {content.get('kind')}, not a corpus")
        return dict(content)


def _address_of(source: str) -> str | None:
    """None for a local folder, else an fsspec address."""
    if os.path.exists(source):
        return None
    if "://" in source:
        return source
    name, revision = split_revision(source)
    if name.count("/") != 1 or os.path.isabs(name):
        return None
    return f"hf://datasets/{name}" + (f"@{revision}" if revision else "")
