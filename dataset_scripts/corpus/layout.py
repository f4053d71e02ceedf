"""The corpus's shape on disk: names, columns, types and encodings, in one place."""

from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

FORMAT = 1
WORK_FOLDER = ".building"
MANIFEST = "manifest.json"
CARD = "README.md"

# What every cell has, whatever its source; the obs columns that a builder keeps come after these, as text.
FIXED_COLUMNS = ("genes", "counts", "n_counts", "species", "dataset", "cell_id")
COUNT_TYPES = ("int32", "float32")

ROW_GROUP_CELLS = 512
"""Cells in a row group: the unit that a stream reads and shuffles (about half a megabyte)."""

CELLS_PER_SHARD = 32_768
"""Most cells that a shard holds: bounds the memory of a builder's process."""


def gene_axis_path(species: str) -> str:
    """Where a species' gene axis lies, relative to the corpus.

    Examples
    --------
    >>> gene_axis_path("mouse")
    'genes/mouse.parquet'
    """
    return str(PurePosixPath("genes") / f"{species}.parquet")


def shard_path(species: str, number: int) -> str:
    """Where shard `number` of a species lies. The name carries no total, so that a corpus can grow.

    Examples
    --------
    >>> shard_path("mouse", 7)
    'data/mouse/train-00007.parquet'
    """
    return str(PurePosixPath("data") / species / f"train-{number:05d}.parquet")


def shards_for(n_cells: int, cells_per_shard: int = CELLS_PER_SHARD) -> int:
    """How many shards `n_cells` go into: many enough to feed parallel readers, never below 128 for a million.

    Examples
    --------
    >>> shards_for(800), shards_for(20_000), shards_for(1_000_000), shards_for(100_000_000)
    (1, 20, 128, 3052)
    """
    if n_cells <= 0:
        return 0
    readers_want = min(128, -(-n_cells // 1024))
    return max(readers_want, -(-n_cells // cells_per_shard))


def schema(obs_columns: tuple[str, ...], count_type: str = "int32") -> pa.Schema:
    """Arrow schema of a shard.

    Parameters
    ----------
    obs_columns
        Names of the obs columns that the corpus keeps; all are text, null where a source has none.
    count_type
        ``"int32"`` for raw counts; ``"float32"`` for a corpus of non-integer counts.

    Examples
    --------
    >>> schema(("tissue",)).names
    ['genes', 'counts', 'n_counts', 'species', 'dataset', 'cell_id', 'tissue']
    """
    count = pa.int32() if count_type == "int32" else pa.float32()
    total = pa.int64() if count_type == "int32" else pa.float64()
    fields = [
        pa.field("genes", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("counts", pa.list_(pa.field("element", count, nullable=False)), nullable=False),
        pa.field("n_counts", total, nullable=False),
        pa.field("species", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("cell_id", pa.string(), nullable=False),
    ]
    return pa.schema(fields + [pa.field(name, pa.string()) for name in obs_columns])


def writer_options(obs_columns: tuple[str, ...]) -> dict[str, Any]:
    """Parquet settings, chosen by measuring (``benchmarks/corpus.py`` prints the alternatives).

    Ascending gene indices are delta-encoded; counts are split into byte streams, of which three are almost all
    zeros; repeated text goes through dictionaries. Higher zstd levels save under three percent and cost up to half
    the speed. Content-defined chunking costs under one percent and lets the Hub keep what a rebuilt shard has in
    common with the old one.
    """
    return {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": ["species", "dataset", *obs_columns],
        "column_encoding": {
            "genes.list.element": "DELTA_BINARY_PACKED",
            "counts.list.element": "BYTE_STREAM_SPLIT",
            "n_counts": "PLAIN",
            "cell_id": "DELTA_BYTE_ARRAY",
        },
        "write_statistics": ["n_counts", "species", "dataset", *obs_columns],
        "use_content_defined_chunking": True,
        # four bytes a page: a flipped bit is an error when it is read, not another count
        "write_page_checksum": True,
    }
