"""Whether embedding a file needs memory that grows with it, how long it takes, and whether a killed run ends the same.

Synthetic files of different sizes are embedded, each in a process of its own; memory is the peak above what the
imports and the model take. Then one run is killed half-way, continued, and compared with an undisturbed one.

    python benchmarks/embed.py --cells 20000 200000
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from _measure import environment, peak_bytes, run_apart, write_and_show

GENES = 4000
_BLOCK = 10_000


def make_checkpoint(folder: Path) -> None:
    """A tiny model with random weights and as many genes as the files have."""
    import pandas as pd
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
    from genecompass.tokenization import GeneCompassProcessor, GeneTable

    names = [f"ENSG{i:011d}" for i in range(GENES)]
    table = GeneTable.from_genes(pd.DataFrame({"gene_id": names, "symbol": "", "species": "human"}))
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, max_position_embeddings=512, species=["human"])
    GeneCompassForMaskedGeneModeling(config).save_pretrained(folder)
    GeneCompassProcessor.from_gene_table(table, max_length=512).save_pretrained(folder)


def make_cells(path: Path, cells: int, expressed: int) -> None:
    """Write a sparse ``.h5ad`` block by block, so that making it takes no memory either."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    obs = pd.DataFrame(index=[f"c{i}" for i in range(cells)])
    var = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(GENES)])
    ad.AnnData(sparse.csr_matrix((cells, GENES), dtype=np.float32), obs=obs, var=var).write_h5ad(path)
    generator = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        matrix = file["X"]
        for name in ("data", "indices", "indptr"):
            del matrix[name]
        matrix["indptr"] = np.arange(cells + 1, dtype=np.int64) * expressed
        stored = {
            name: matrix.create_dataset(name, (cells * expressed,), dtype, chunks=(expressed * 1000,))
            for name, dtype in (("data", np.float32), ("indices", np.int32))
        }
        step = GENES // expressed
        for first in range(0, cells, _BLOCK):
            rows = min(_BLOCK, cells - first)
            # one gene out of every stretch of genes: distinct, sorted, and quick to draw
            genes = np.arange(expressed) * step + generator.integers(0, step, (rows, expressed))
            place = slice(first * expressed, (first + rows) * expressed)
            stored["indices"][place] = genes.astype(np.int32).ravel()
            stored["data"][place] = generator.geometric(0.4, rows * expressed).astype(np.float32)


def embed(job: dict[str, Any]) -> dict[str, Any]:
    """Embed one file; what was resident before does not count."""
    from genecompass.inference import embed_file, load_checkpoint

    load_checkpoint(job["model"], device="cpu")
    before = peak_bytes("cpu")
    start = time.perf_counter()
    embed_file(job["source"], job["output"], job["model"], "human", devices=["cpu"], processes=job["processes"])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "memory_mb": (peak_bytes("cpu") - before) / 1e6, "file_mb": job["file_mb"]}


def kill_and_continue(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Kill a run once it has saved something, continue it, compare with the undisturbed run."""
    output = folder / "resumed.h5ad"
    again = {**job, "output": str(output)}
    command = [sys.executable, __file__, "--worker", json.dumps({**again, "answer": str(folder / "none.json")})]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    saved = folder / "resumed.h5ad.partial" / "part-000" / "state.npz"
    while running.poll() is None and not saved.exists():
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    if not saved.exists() or output.exists():
        return {"failed": "the run ended before it could be killed; give it more cells"}
    with np.load(saved) as state:
        done = int(state["done"])
    found = run_apart(__file__, again)
    if "failed" in found:
        return found
    with h5py.File(job["output"]) as whole, h5py.File(output) as resumed:
        names = ("obsm/X_genecompass", "varm/genecompass")
        same = all(np.array_equal(whole[name][:], resumed[name][:], equal_nan=True) for name in names)
    return {"killed_after": done, "identical": same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--expressed", type=int, default=100, help="genes a cell")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--model", type=Path, help="checkpoint; random tiny weights otherwise")
    parser.add_argument("--name", default="embed")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        job = json.loads(options.worker)
        Path(job["answer"]).write_text(json.dumps(embed(job)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = options.model or folder / "model"
        if options.model is None:
            make_checkpoint(model)
        for cells in sorted(options.cells):
            source = folder / f"{cells}.h5ad"
            make_cells(source, cells, options.expressed)
            job = {"source": str(source), "output": str(folder / f"{cells}_out.h5ad"), "model": str(model)}
            job |= {"processes": options.processes, "file_mb": source.stat().st_size / 1e6}
            row = {"cells": cells, **run_apart(__file__, job)}
            if "failed" not in row:
                row["cells_per_second"] = cells / row["seconds"]
                if cells == min(options.cells):
                    row |= kill_and_continue(folder, job)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)  # the largest file may take long
            source.unlink()
    columns = {
        "cells": "cells",
        "file_mb": "file MB",
        "seconds": "seconds",
        "cells_per_second": "cells/s",
        "memory_mb": "peak MB above imports",
        "killed_after": "killed after",
        "identical": "continued identical",
        "failed": "failed",
    }
    settings = {"genes": GENES, "expressed": options.expressed, "processes": options.processes}
    write_and_show(options.name, {"environment": environment("cpu"), **settings}, rows, columns)


if __name__ == "__main__":
    sys.exit(main())
