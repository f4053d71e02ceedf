"""Size and speed of the corpus: bytes per expressed gene, cells built, streamed and tokenised per second and core.

    python benchmarks/corpus.py                                       # synthetic 10x-like cells
    python benchmarks/corpus.py --data shared/data --genes genes.tsv.gz   # PBMC 10x cells
    python benchmarks/corpus.py --million                             # also 1,000,000 cells in 128 shards or more

Variants of one table run one after the other, each several times; medians are shown.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from _corpus_cells import PBMC, synthetic_inputs, synthetic_table
from _measure import RESULTS, environment, write_and_show
from _memory import peak_resident_bytes
from genecompass.dataset_scripts.corpus import layout
from genecompass.dataset_scripts.corpus.builder import BuildOptions, build
from genecompass.dataset_scripts.corpus.stream import open_corpus, padded
from genecompass.tokenization.gene_table import GeneTable

PUBLISHED_BYTES_PER_CELL = 2048 * 4 + 2048 * 4 + 2 + 2
TARGETS = {"bytes_per_gene": 1.3, "times_smaller": 8.0, "built_per_s": 5000, "streamed_per_s": 15000, "first_s": 2.0}


def repeated(work: Callable[[], float], rounds: int) -> float:
    """Median over rounds."""
    return statistics.median(work() for _ in range(rounds))


def encodings(corpus: Path, rounds: int) -> list[dict[str, Any]]:
    """Bytes per expressed gene under other encodings, compressors, and orders of genes, for the largest species."""
    species = max((corpus / "data").iterdir(), key=lambda folder: sum(f.stat().st_size for f in folder.iterdir())).name
    shards = sorted((corpus / "data" / species).glob("*.parquet"))
    cells = pa.concat_tables([pq.read_table(shard, columns=["genes", "counts"]) for shard in shards]).combine_chunks()
    shuffled = reorder_genes(cells)
    tried = [("chosen", cells, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", 1, True)]
    tried += [("genes in random order", shuffled, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", 1, True)]
    tried += [
        (f"genes {e.lower()}", cells, e, "BYTE_STREAM_SPLIT", 1, True)
        for e in ("dictionary", "PLAIN", "BYTE_STREAM_SPLIT")
    ]
    tried += [
        (f"counts {e.lower()}", cells, "DELTA_BINARY_PACKED", e, 1, True)
        for e in ("dictionary", "PLAIN", "DELTA_BINARY_PACKED")
    ]
    tried += [(f"zstd {n}", cells, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", n, True) for n in (3, 6, 9)]
    tried += [("without content-defined chunks", cells, "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT", 1, False)]
    rows = []
    for name, table, genes, counts, level, chunked in tried:
        written: list[bytes] = []

        def once() -> float:
            begun = time.process_time()
            written[:] = [encode(table, genes, counts, level, chunked)]  # noqa: B023 - runs at once
            return table.num_rows / (time.process_time() - begun)  # noqa: B023

        speed = repeated(once, rounds)
        expressed = len(table["genes"].combine_chunks().flatten())
        size = column_bytes(written[0])
        without_one = pa.concat_tables([table.slice(0, table.num_rows // 3), table.slice(table.num_rows // 3 + 1)])
        kept = shared_bytes(written[0], encode(without_one.combine_chunks(), genes, counts, level, chunked))
        rows.append(
            {
                "what": name,
                "genes": size["genes"] / expressed,
                "counts": size["counts"] / expressed,
                "both": sum(size.values()) / expressed,
                "written_per_s": speed,
                "kept": kept,
            }
        )
    return rows


def reorder_genes(cells: pa.Table) -> pa.Table:
    """The same cells over a gene axis in random order, as sources have it."""
    lists, counts = cells["genes"].combine_chunks(), cells["counts"].combine_chunks()
    genes = lists.flatten().to_numpy()
    offsets = lists.offsets.to_numpy() - lists.offsets.to_numpy()[0]
    moved = np.random.default_rng(0).permutation(genes.max() + 1)[genes]
    order = np.lexsort((moved, np.repeat(np.arange(len(lists)), np.diff(offsets))))
    columns = [
        pa.ListArray.from_arrays(offsets, moved[order].astype(np.int32), type=lists.type),
        pa.ListArray.from_arrays(offsets, counts.flatten().to_numpy()[order], type=counts.type),
    ]
    return pa.Table.from_arrays(columns, names=["genes", "counts"])


def encode(table: pa.Table, genes: str, counts: str, level: int, chunked: bool) -> bytes:
    """Write the two columns to memory."""
    chosen = {"genes.list.element": genes, "counts.list.element": counts}
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=layout.ROW_GROUP_CELLS,
        compression="zstd",
        compression_level=level,
        use_dictionary=[name for name, encoding in chosen.items() if encoding == "dictionary"],
        column_encoding={name: encoding for name, encoding in chosen.items() if encoding != "dictionary"},
        use_content_defined_chunking=chunked,
        write_statistics=False,
    )
    return sink.getvalue()


def column_bytes(content: bytes | Path) -> dict[str, int]:
    """Compressed bytes of the gene and count columns of a parquet file."""
    metadata = pq.ParquetFile(io.BytesIO(content) if isinstance(content, bytes) else content).metadata
    size = {"genes": 0, "counts": 0}
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            part = metadata.row_group(group).column(column)
            name = part.path_in_schema.split(".")[0]
            if name in size:
                size[name] += part.total_compressed_size
    return size


def shared_bytes(old: bytes, new: bytes) -> float:
    """Share of `new` in content-defined chunks (64 KiB on average, as the Hub's storage cuts) that `old` has too."""
    known = set(chunks(old))
    return sum(len(chunk) for chunk in chunks(new) if chunk in known) / len(new)


def chunks(content: bytes) -> list[bytes]:
    gear = np.random.default_rng(0).integers(0, 2**63, 256, dtype=np.uint64)
    per_byte = gear[np.frombuffer(content, np.uint8)]
    rolling = np.zeros(len(per_byte), np.uint64)
    for back in range(32):
        rolling[back:] += per_byte[: len(per_byte) - back] << np.uint64(back)
    cuts = [0]
    for cut in np.flatnonzero((rolling >> np.uint64(16)) & np.uint64(0xFFFF) == 0) + 1:
        if cut - cuts[-1] >= 8192:
            cuts.append(int(cut))
    return [content[a:b] for a, b in zip(cuts, [*cuts[1:], len(content)], strict=True)]


def sizes(corpus: Path) -> dict[str, float]:
    """What the corpus as built takes, beside the published layout of the same cells."""
    shards = sorted(corpus.glob("data/*/*.parquet"))
    n_cells = sum(pq.read_metadata(shard).num_rows for shard in shards)
    manifest = json.loads((corpus / layout.MANIFEST).read_text())
    expressed = sum(entry["expressed"] for entry in manifest["species"].values())
    columns = sum(sum(column_bytes(shard).values()) for shard in shards)
    whole = sum(shard.stat().st_size for shard in shards)
    return {
        "cells": n_cells,
        "genes_per_cell": expressed / n_cells,
        "bytes_per_gene": columns / expressed,
        "bytes_per_cell": whole / n_cells,
        "times_smaller": PUBLISHED_BYTES_PER_CELL * n_cells / whole,
    }


def building(manifest: Path, scratch: Path, rounds: int) -> list[dict[str, Any]]:
    """Cells built per second: by processor time of one process, and by the clock with one and two processes."""
    rows = []
    for jobs in (1, 2):
        clock, processor = [], []
        for number in range(rounds):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            report = build(manifest, scratch / f"built-{jobs}-{number}", jobs=jobs)
            clock.append(report.added / (time.perf_counter() - begun))
            processor.append(report.added / (time.process_time() - begun_cpu))
        row = {"what": f"build, {jobs} process{'es' * (jobs > 1)}", "per_s": statistics.median(clock)}
        rows.append(row | ({"per_core_s": statistics.median(processor)} if jobs == 1 else {}))
    return rows


def streaming(corpus: Path, table: GeneTable, rounds: int) -> list[dict[str, Any]]:
    """Cells streamed, shuffled and tokenised per second, as batches; time to the first."""
    from torch.utils.data import DataLoader

    rows = []
    for workers in (0, 1, 2):
        speeds, cores, firsts = [], [], []
        for epoch in range(rounds):
            opened = time.perf_counter()
            stream = open_corpus(corpus, table, batch_tokens=32_768, epoch=epoch, pool_blocks=4)
            batches = iter(DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=padded))
            first = len(next(batches)["species"])
            firsts.append(time.perf_counter() - opened)
            begun, begun_cpu = time.perf_counter(), time.process_time()
            n_cells = sum(len(batch["species"]) for batch in batches)
            speeds.append(n_cells / (time.perf_counter() - begun))
            cores.append(n_cells / (time.process_time() - begun_cpu))
            assert first + n_cells > 0
        row = {
            "what": f"stream, {workers} workers",
            "per_s": statistics.median(speeds),
            "first_s": statistics.median(firsts),
        }
        rows.append(row | ({"per_core_s": statistics.median(cores)} if workers == 0 else {}))
    rows[2]["times_one_worker"] = rows[2]["per_s"] / rows[1]["per_s"]
    return rows


def million(scratch: Path, n_cells: int) -> list[dict[str, Any]]:
    """A large synthetic corpus: memory of the build, then every cell exactly once by two workers and by torchrun."""
    inputs = synthetic_inputs(scratch / "million", n_cells, n_files=16, genes_per_cell=120, n_genes=4000)
    eighth = inputs.with_name("eighth.tsv")
    pd.read_csv(inputs, sep="\t").head(2).to_csv(eighth, sep="\t", index=False)
    script = str(Path(__file__).resolve())
    rows: list[dict[str, Any]] = []
    for manifest in (eighth, inputs):
        corpus = scratch / f"corpus-{manifest.stem}"
        begun = time.perf_counter()
        answer = json.loads(run([sys.executable, script, "--build-only", str(manifest), str(corpus)]).splitlines()[-1])
        shards = len(list(corpus.glob("data/*/*.parquet")))
        what = f"build {answer['cells']:,} cells into {shards} shards"
        rows.append(
            {
                "what": what,
                "per_s": answer["cells"] / (time.perf_counter() - begun),
                "peak_mb": answer["peak_mb"],
            }
        )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29731"]
    for what, launcher, workers in (
        ("stream, 2 workers", [sys.executable], 2),
        ("stream, torchrun with 2 processes", torchrun, 0),
    ):
        for old in scratch.glob("seen-*.npy"):
            old.unlink()
        begun = time.perf_counter()
        run([*launcher, script, "--count-cells", str(corpus), str(scratch), str(workers)])
        took = time.perf_counter() - begun
        seen = np.concatenate([np.load(part) for part in scratch.glob("seen-*.npy")])
        once = len(seen) == n_cells and len(np.unique(seen)) == n_cells
        rows.append({"what": what, "per_s": n_cells / took, "every_cell_once": once, "peak_mb": None})
    return rows


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[-4:])}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def build_only(manifest: str, corpus: str) -> None:
    """Build in a process of its own and print its peak memory."""
    report = build(manifest, corpus, options=BuildOptions())
    print(json.dumps({"cells": report.added, "peak_mb": peak_resident_bytes() / 2**20}))


def count_cells(corpus: str, scratch: str, workers: str) -> None:
    """Stream this rank's share, shuffled, and write down every cell's number."""
    from torch.utils.data import DataLoader

    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    table = synthetic_table(4000)
    stream = open_corpus(corpus, table, rank=rank, world_size=world_size, batch_cells=512, columns=("cell_id",))
    batches = DataLoader(stream, batch_size=None, num_workers=int(workers), collate_fn=numbers)
    np.save(Path(scratch) / f"seen-{rank}.npy", np.concatenate(list(batches)))


def numbers(batch: Any) -> np.ndarray:
    return np.array([int(row["cell_id"].split("-")[1]) for row in batch.rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds pbmc_human; without it cells are synthetic")
    parser.add_argument("--genes", type=Path, help="gene table for --data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--million", nargs="?", type=int, const=1_000_000, help="also this many synthetic cells")
    parser.add_argument("--build-only", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--count-cells", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build_only:
        return build_only(*arguments.build_only)
    if arguments.count_cells:
        return count_cells(*arguments.count_cells)
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))
    return None


def measure(arguments: argparse.Namespace, scratch: Path) -> None:
    if arguments.data is not None and arguments.genes is not None:
        manifest, what = scratch / "inputs.tsv", "PBMC 10x cells"
        paths = [str((arguments.data / name).resolve()) for name in PBMC]
        pd.DataFrame({"path": paths, "species": "human"}).to_csv(manifest, sep="\t", index=False)
        table = GeneTable.read(arguments.genes)
    else:
        manifest, what = (
            synthetic_inputs(scratch / "inputs", 20_000, n_files=2, genes_per_cell=900, n_genes=20_000),
            "synthetic cells",
        )
        table = synthetic_table(20_000)
    corpus = scratch / "corpus"
    build(manifest, corpus)
    size = sizes(corpus)
    print(f"{what}: {size['cells']:,} cells, {size['genes_per_cell']:.0f} expressed genes a cell")
    size_rows = [
        {"what": "genes + counts, bytes per expressed gene", "value": size["bytes_per_gene"], "target": "<= 1.3"},
        {"what": "all columns, bytes per cell", "value": size["bytes_per_cell"], "target": None},
        {"what": "times smaller than the published layout", "value": size["times_smaller"], "target": ">= 8"},
    ]
    content = {"cells": what, "environment": environment("cpu"), "targets": TARGETS}
    write_and_show("corpus_size", content, size_rows, {"what": "size", "value": "value", "target": "target"})
    headings = {"what": "encoding", "genes": "genes B", "counts": "counts B", "both": "both B per gene"}
    headings |= {"written_per_s": "cells/s written", "kept": "kept after removing a cell"}
    write_and_show("corpus_encodings", content, encodings(corpus, arguments.rounds), headings)
    rows = building(manifest, scratch, arguments.rounds) + streaming(corpus, table, arguments.rounds)
    headings = {"what": "speed", "per_s": "cells/s", "per_core_s": "cells/s of processor time"}
    headings |= {"first_s": "first batch s", "times_one_worker": "x one worker"}
    write_and_show("corpus_speed", content, rows, headings)
    if arguments.million:
        headings = {"what": "large", "per_s": "cells/s", "peak_mb": "peak MB", "every_cell_once": "every cell once"}
        write_and_show("corpus_million", content, million(scratch, arguments.million), headings)
    print(f"results in {RESULTS}")


if __name__ == "__main__":
    main()
