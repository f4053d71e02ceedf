"""Time and peak memory of building prior knowledge: co-expression over cells, gene2vec over pairs.

Every measurement runs in a process of its own, so that peak memory is its own. ``--quick`` shrinks everything.

    python benchmarks/priors.py                       # 20,000 genes x 3,000, 30,000, 100,000 cells; 10 million pairs
    python benchmarks/priors.py --quick
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from _memory import peak_resident_bytes

GENES = 20_000
EXPRESSED = 2_000


def synthetic_blocks(cells: int, genes: int, expressed: int, block: int = 1000):
    """Cells with about `expressed` genes each; a gene's frequency falls as in real cells."""
    rng = np.random.default_rng(0)
    frequency = np.sort(rng.beta(0.3, 2.7, genes))[::-1]
    frequency = np.clip(frequency * expressed / frequency.sum(), 0, 1)
    for start in range(0, cells, block):
        rows = min(block, cells - start)
        mask = rng.random((rows, genes), dtype=np.float32) < frequency
        indices = np.nonzero(mask)
        counts = rng.geometric(0.5, len(indices[0])).astype(np.float64)
        yield sp.csr_matrix((counts, indices), shape=(rows, genes))


def measure_co_expression(cells: int, genes: int, expressed: int) -> dict:
    """Correlate synthetic cells; the part that makes the cells is timed apart."""
    from genecompass.dataset_scripts.prior_knowledge.cell_spool import CellSpool
    from genecompass.dataset_scripts.prior_knowledge.correlation import CorrelationSettings, correlated_pairs

    before = peak_mb()
    making, started = np.zeros(2), clocks()
    with CellSpool(np.arange(genes)) as spool:
        blocks = synthetic_blocks(cells, genes, expressed)
        while True:
            before_block = clocks()
            block = next(blocks, None)
            making += clocks() - before_block
            if block is None:
                break
            spool.add(block)
        pairs = correlated_pairs(spool)
        tested = int((spool.expressed >= CorrelationSettings().min_shared).sum())
    seconds, processor = clocks() - started - making
    return {
        "genes_tested": tested,
        "pairs": len(pairs),
        "seconds": seconds,
        "processor_seconds": processor,
        **memory(before),
    }


def measure_gene2vec(pairs: int, genes: int, width: int) -> dict:
    """One epoch over random pairs."""
    from genecompass.dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings, Pairs, train_gene2vec

    rng = np.random.default_rng(0)
    left, right = rng.integers(2, genes, (2, pairs))
    before = peak_mb()
    started = clocks()
    train_gene2vec(Pairs(left, right, np.ones(pairs)), Gene2VecSettings(width=width, epochs=1))
    seconds, processor = clocks() - started
    return {
        "seconds": seconds,
        "processor_seconds": processor,
        "pairs_per_second": pairs / seconds,
        **memory(before),
    }


def clocks() -> np.ndarray:
    """Wall clock, and processor time of all threads: the second does not run while others have the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def peak_mb() -> float:
    return peak_resident_bytes() / 2**20


def memory(before: float) -> dict:
    return {"peak_mb": peak_mb(), "above_start_mb": peak_mb() - before}


def print_row(label: str, row: dict, per_thousand: str = "") -> None:
    times = f"{row['seconds']:>10.1f}{row['processor_seconds']:>11.1f}{per_thousand:>16}"
    print(f"{label:<34}{times}{row['peak_mb']:>10.0f}{row['above_start_mb']:>13.0f}", flush=True)


def in_own_process(task: list) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, "--task", json.dumps(task)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of cells")
    parser.add_argument("--pairs", type=int, help="pairs for gene2vec")
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmark_results/priors.json"))
    parser.add_argument("--task", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.task:
        name, *numbers = json.loads(given.task)
        print(json.dumps({"co_expression": measure_co_expression, "gene2vec": measure_gene2vec}[name](*numbers)))
        return

    genes, expressed = (1500, 300) if given.quick else (GENES, EXPRESSED)
    sizes = given.cells or ([500, 1000, 2000] if given.quick else [3000, 30_000, 100_000])
    pairs = given.pairs or (100_000 if given.quick else 10_000_000)
    rows = []
    print(f"{'task':<34}{'seconds':>10}{'processor':>11}{'s / 1000 cells':>16}{'peak MB':>10}{'above start':>13}")
    for cells in sizes:
        row = {"task": "co_expression", "cells": cells, "genes": genes, "expressed": expressed}
        row |= in_own_process(["co_expression", cells, genes, expressed])
        rows.append(row)
        print_row(f"co-expression, {genes:,} x {cells:,} cells", row, f"{row['processor_seconds'] / cells * 1000:.2f}")
    row = {"task": "gene2vec", "n_pairs": pairs, "width": given.width} | in_own_process(
        ["gene2vec", pairs, min(genes, pairs // 4), given.width]
    )
    rows.append(row)
    print_row(f"gene2vec, {pairs:,} pairs, 1 epoch", row)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
