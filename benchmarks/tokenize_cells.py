"""How fast and in how much memory counts become tokens: ranking, files, processes, against a plain argsort.

    python benchmarks/tokenize_cells.py            # full sizes, about five minutes
    python benchmarks/tokenize_cells.py --quick    # a smoke test

Every variant of a question runs in the same process and on the same cells, several times in turn; medians and ratios
are printed, and written to ``benchmark_results/tokenize_cells.json``.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.ranking import rank_cells
from genecompass.tokenization.tokenize import iter_tokenized
from scipy import sparse

GENES, EXPRESSED = 25_000, 2_000


def gene_table() -> GeneTable:
    rng = np.random.default_rng(0)
    ids = [f"ENSG{i:011d}" for i in range(GENES)]
    medians = rng.lognormal(0.5, 0.6, GENES)
    return GeneTable.from_genes(pd.DataFrame({"gene_id": ids, "symbol": ids, "species": "human", "median": medians}))


def cells(number: int, seed: int = 0) -> sparse.csr_matrix:
    """Cells with 2,000 expressed genes each, and counts that are small for most genes and large for a few."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(0.2, 1.0, GENES)
    columns = np.empty((number, EXPRESSED), dtype=np.int32)
    for row in columns:
        row[:] = np.sort(rng.choice(GENES, EXPRESSED, replace=False, shuffle=False))
    counts = (1 + rng.poisson(level[columns])).astype(np.float32)
    bounds = np.arange(number + 1, dtype=np.int64) * EXPRESSED
    return sparse.csr_matrix((counts.ravel(), columns.ravel(), bounds), shape=(number, GENES))


def write_h5ad(path: Path, number: int, compression: str | None) -> None:
    """An AnnData file made block by block, so that its making takes no memory either."""
    block = cells(2_000)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (number, GENES)})
        size = number * EXPRESSED
        data = group.create_dataset("data", (size,), np.float32, compression=compression)
        indices = group.create_dataset("indices", (size,), np.int32, compression=compression)
        for start in range(0, size, block.nnz):
            stop = min(start + block.nnz, size)
            data[start:stop], indices[start:stop] = block.data[: stop - start], block.indices[: stop - start]
        group["indptr"] = np.arange(number + 1, dtype=np.int64) * EXPRESSED
        names = {"obs": [f"c{i}" for i in range(number)], "var": [f"ENSG{i:011d}" for i in range(GENES)]}
        from anndata.io import write_elem

        for key, index in names.items():
            write_elem(file, key, pd.DataFrame(index=pd.Index(index)))


def argsort_per_row(matrix: sparse.csr_matrix, tokens: np.ndarray, medians: np.ndarray) -> list[tuple]:
    """What is usually written: a loop over cells, argsort of the values; ties in no order."""
    ranked = []
    for row in range(matrix.shape[0]):
        part = slice(matrix.indptr[row], matrix.indptr[row + 1])
        columns = matrix.indices[part]
        values = np.log2(1 + matrix.data[part] / medians[columns]).astype(np.float32)
        order = np.argsort(-values)[:2048]
        ranked.append((tokens[columns[order]], values[order]))
    return ranked


def in_turn(
    variants: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each variant, all of them once per round: of this process's core, unless told otherwise.

    Everything here runs on one thread, so that on a quiet machine the two clocks agree, and on a busy one the
    core's own time is what can be compared.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def read_all(path: str, table: GeneTable, start: int = 0, stop: int | None = None) -> int:
    return sum(len(part) for part in iter_tokenized(path, table, species="human", start=start, stop=stop))


def _read_range(job: tuple[str, int, int]) -> int:
    return read_all(job[0], gene_table(), job[1], job[2])


def ranking(number: int, repeats: int) -> dict[str, float]:
    matrix, table = cells(number), gene_table()
    tokens, medians = np.arange(2, GENES + 2, dtype=np.int32), table.medians[2:]
    mixed = np.random.default_rng(1).permutation(tokens).astype(np.int32)

    def packed(order: np.ndarray, scale: np.ndarray) -> Callable[[], object]:
        return lambda: rank_cells(matrix.indptr, matrix.indices, matrix.data, order, scale)

    seconds = in_turn(
        {
            "packed keys": packed(tokens, medians),
            "packed keys, tokens in no order": packed(mixed, medians),
            "packed keys, no order, all medians 1": packed(mixed, np.ones(GENES)),
            "argsort per row": lambda: argsort_per_row(matrix, tokens, medians),
        },
        repeats,
    )
    return {name: number / value for name, value in seconds.items()}


def files(number: int, repeats: int, folder: Path) -> dict[str, float]:
    table = gene_table()
    for name, compression in (("uncompressed", None), ("gzip", "gzip")):
        write_h5ad(folder / f"{name}.h5ad", number, compression)
    seconds = in_turn(
        {
            f"h5ad {name}": lambda name=name: read_all(str(folder / f"{name}.h5ad"), table)
            for name in ("uncompressed", "gzip")
        },
        repeats,
    )
    return {name: number / value for name, value in seconds.items()}


def processes(number: int, repeats: int, folder: Path) -> dict[str, float]:
    path = str(folder / "uncompressed.h5ad")
    rates = {}
    pools = {count: ProcessPoolExecutor(count) for count in (1, 2)}
    for count, pool in pools.items():  # start the workers and import before any clock runs
        list(pool.map(_read_range, [(path, 0, 10)] * count))

    def run(count: int) -> None:
        edges = np.linspace(0, number, count + 1).astype(int)
        list(pools[count].map(_read_range, [(path, a, b) for a, b in pairwise(edges)]))

    seconds = in_turn({"1 process": lambda: run(1), "2 processes": lambda: run(2)}, repeats, time.perf_counter)
    for name, value in seconds.items():
        rates[name] = number / value
    for pool in pools.values():
        pool.shutdown()
    return rates


def real_cells(data: Path, repeats: int) -> dict[str, float]:
    import anndata

    path = data / "pbmc_human/pbmc3k_10x.h5ad"
    if not path.exists():
        return {}
    adata = anndata.read_h5ad(path)
    var = pd.DataFrame({"gene_id": adata.var["ensembl_id"], "symbol": adata.var_names, "species": "human"})
    table = GeneTable.from_genes(var)
    seconds = in_turn(
        {
            "PBMC 3k (10x), in memory": lambda: list(iter_tokenized(adata, table, species="human")),
            "PBMC 3k (10x), gzip file": lambda: read_all(str(path), table),
        },
        repeats,
    )
    return {name: adata.n_obs / value for name, value in seconds.items()}


def peak_memory(number: int, folder: Path) -> dict[str, float]:
    """Peak resident memory of a fresh process that tokenises a file, and of one that only imports."""
    path = folder / f"memory-{number}.h5ad"
    write_h5ad(path, number, None)
    peaks = {}
    for name, stop in (("imports alone", 0), ("tokenising", number)):
        command = [sys.executable, __file__, "--child", str(path), str(stop)]
        peaks[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
    path.unlink()
    return {"above imports, MB": peaks["tokenising"] - peaks["imports alone"], "whole process, MB": peaks["tokenising"]}


def child(path: str, stop: int) -> None:
    if stop:
        read_all(path, gene_table(), 0, stop)
    # the high-water mark of this program alone; getrusage would count the parent's before exec
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))


def show(title: str, rows: dict[str, float], unit: str) -> None:
    print(f"\n{title}")
    for name, value in rows.items():
        print(f"  {name:<44} {value:>12,.0f} {unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: only whether it runs")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data", help="real cells")
    parser.add_argument("--out", type=Path, default=Path("benchmark_results/tokenize_cells.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], int(options.child[1]))
        return
    number, repeats = (2_000, 2) if options.quick else (10_000, 5)
    sizes = (2_000, 6_000) if options.quick else (20_000, 200_000)
    results: dict[str, dict] = {
        "machine": {"processor": platform.processor() or platform.machine(), "numpy": np.__version__}
    }
    results["ranking"] = ranking(number, repeats)
    show(f"Ranking from CSR in memory, {EXPRESSED:,} expressed genes a cell, one core", results["ranking"], "cells/s")
    ratio = results["ranking"]["packed keys"] / results["ranking"]["argsort per row"]
    print(f"  packed keys / argsort per row: {ratio:.2f}x")
    results["real"] = real_cells(options.data, repeats)
    show("Real cells", results["real"], "cells/s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["files"] = files(number, repeats, folder)
        show("From file to token arrays, one core", results["files"], "cells/s")
        results["processes"] = processes(number, repeats, folder)
        show("From an uncompressed file, row ranges over processes", results["processes"], "cells/s")
        print(f"  2 / 1: {results['processes']['2 processes'] / results['processes']['1 process']:.2f}x")
        results["memory"] = {}
        for size in sizes:
            results["memory"][str(size)] = peak_memory(size, folder)
            show(f"Peak memory, {size:,} cells", results["memory"][str(size)], "MB")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
