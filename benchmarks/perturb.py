"""All-gene deletion screen: perturbed copies batched by tokens, against one padded forward for each.

Naive form: every perturbation is one cell, padded to 2,048 genes, through the unfolded model with eager attention in
float32. All forms run on the same cells with the same weights (Small by default) in one go: bfloat16 screens them all,
float32 a few, and the naive form takes a sample of the perturbations of those few, as it is too slow for more. Its
effects are compared with the fast ones. Prints a table and writes benchmark_results/perturb.json.

    python benchmarks/perturb.py                 # 20 cells, Small
    python benchmarks/perturb.py --cells 2 --genes 300 --naive 4 --tiny
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from _memory import peak_resident_bytes
from genecompass.inference.perturbation.cells import take_cells
from genecompass.inference.perturbation.edits import Edit
from genecompass.inference.perturbation.perturb import perturb
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from scipy import sparse

LENGTH = 2048


def make_cells(n_cells: int, n_genes: int, expressed: int, seed: int = 0) -> tuple[anndata.AnnData, GeneTable]:
    """Cells that express about `expressed` of `n_genes` genes, as droplet data do, and their gene table."""
    rng = np.random.default_rng(seed)
    popularity = rng.gamma(0.5, 1.0, n_genes)
    share = np.minimum(popularity / popularity.sum() * expressed, 0.95)
    share = np.minimum(share * expressed / share.sum(), 0.98)
    counts = (rng.random((n_cells, n_genes)) < share) * (1 + rng.poisson(0.7, (n_cells, n_genes)))
    genes = pd.DataFrame(
        {
            "gene_id": [f"ENSG{i:011d}" for i in range(n_genes)],
            "symbol": [f"G{i}" for i in range(n_genes)],
            "species": "human",
            "median": rng.uniform(1, 4, n_genes),
        }
    )
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=genes["symbol"]))
    return adata, GeneTable.from_genes(genes)


@torch.inference_mode()
def naive_effects(model: GeneCompassModel, adata: anndata.AnnData, table: GeneTable, sample: list[tuple[int, int]]):
    """Cosine distance of the mean gene embedding for (cell, column) deletions, one padded forward each; seconds."""
    taken = take_cells(adata, table, species="human", max_length=LENGTH)
    editor = taken.editor(Edit("delete"))

    def embed(ids, values):
        padded_ids = torch.zeros(1, LENGTH, dtype=torch.long)
        padded_values = torch.zeros(1, LENGTH)
        padded_ids[0, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
        padded_values[0, : len(values)] = torch.from_numpy(values)
        mask = (padded_ids != 0).long()
        states = model(padded_ids, padded_values, mask, torch.zeros(1, dtype=torch.long)).last_hidden_state[0, 1:]
        return states[: len(ids)].mean(0)

    effects, seconds = [], []
    for cell, column in sample:
        columns, counts = taken.cell(cell)
        began = time.perf_counter()
        before = embed(*editor.original(columns, counts))
        unchanged = time.perf_counter() - began
        after = embed(*editor.copies(columns, counts, [(column,)]).rows(0))
        # the unperturbed cell could be kept from one gene to the next: it is not charged
        seconds.append(time.perf_counter() - began - unchanged)
        effects.append(1 - float(torch.cosine_similarity(before.double(), after.double(), dim=0)))
    return np.array(effects), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--float32-cells", type=int, default=2, help="cells screened in float32, too")
    parser.add_argument("--genes", type=int, default=15000, help="genes measured")
    parser.add_argument("--expressed", type=int, default=900, help="genes a cell expresses, about")
    parser.add_argument("--naive", type=int, default=40, help="perturbations of the naive form")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="tiny weights, to try the script")
    parser.add_argument("--out", type=Path, default=Path("benchmark_results/perturb.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    adata, table = make_cells(options.cells, options.genes, options.expressed)
    torch.manual_seed(0)
    preset = GeneCompassConfig.tiny if options.tiny else GeneCompassConfig.small
    config = preset(vocab_size=table.vocab_size)
    model = GeneCompassModel(config).eval()
    if config.priors:
        model.set_prior_knowledge({n: torch.randn(table.vocab_size, w) for n, w in config.priors.items()})
    model.set_attn_implementation("eager")
    processor = GeneCompassProcessor.from_gene_table(table)

    rng = np.random.default_rng(1)
    expressed = [np.flatnonzero(adata.X[cell].toarray()[0]) for cell in range(options.cells)]
    few = min(options.float32_cells, options.cells)
    sample = [(int(c), int(rng.choice(expressed[c]))) for c in rng.integers(0, few, options.naive)]
    naive, seconds = naive_effects(model, adata, table, sample)
    naive_ms = 1000 * statistics.median(seconds)

    # from here on as the package does it: priors folded, fused attention, copies of a cell batched by tokens
    if config.priors:
        model.fold_prior_knowledge()
    model.set_attn_implementation("sdpa")
    naive_form = "naive: padded to 2,048, eager, float32"
    rows = [{"form": naive_form, "cells": few, "ms": naive_ms, "copies": len(sample), "speedup": 1.0}]
    correlations = {}
    for form, cells, bf16 in (
        ("batched by tokens, float32", few, False),
        ("batched by tokens, bfloat16", options.cells, True),
    ):
        result = perturb(
            adata[:cells],
            model,
            "expressed",
            species="human",
            processor=processor,
            n_null=100,
            bf16=bf16,
            progress=False,
        )
        ms = result.parameters["milliseconds_per_copy"]
        effects = result.cell_effects["cell_cosine"].to_numpy()
        fast = [
            effects[cell, list(result.cell_effects["cell_cosine"].columns).index(f"G{column}")]
            for cell, column in sample
        ]
        correlations[form] = float(np.corrcoef(fast, naive)[0, 1])
        copies = result.parameters["n_copies"]
        rows.append({"form": form, "cells": cells, "ms": ms, "copies": copies, "speedup": naive_ms / ms})
    print(f"{'form':40} {'cells':>5} {'ms a (cell, gene)':>17} {'copies':>8} {'speed-up':>9}  r with naive")
    for row in rows:
        agreement = correlations.get(row["form"], 1.0)
        screened = f"{row['form']:40} {row['cells']:5d} {row['ms']:17.2f} {row['copies']:8d}"
        print(f"{screened} {row['speedup']:8.1f}x {agreement:13.4f}")
    report = {
        "rows": rows,
        "correlation_with_naive": correlations,
        "cells": options.cells,
        "mean_length": float(np.mean([len(e) for e in expressed])),
        "threads": options.threads,
        "model": "tiny" if options.tiny else "small",
        "peak_memory_mb": peak_resident_bytes() / 2**20,
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
