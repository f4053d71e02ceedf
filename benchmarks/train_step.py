"""Training-step speed and memory: this model's default against the published form, in one run.

*As published* is built from this model's own options: eager attention, every cell padded to 2,048 genes, gene scores
for every slot with the loss over all of them, priors projected for every slot, float32. The default: fused attention,
cells of like length in a batch, only masked slots reach the head. Both take a full step: forward, backward, AdamW.

Peak memory is that of the whole process: weights, gradients, optimiser and activations. Memory is compared at the
same number of cells in a step.

    python benchmarks/train_step.py                                    # Base and Small on the CPU
    python benchmarks/train_step.py --data shared/data --genes genes.tsv.gz
    python benchmarks/train_step.py --device cuda --full-length        # 2,048 genes a cell on a GPU
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from _cells import draw_cells
from _measure import (
    DTYPES,
    build,
    encoder_flops,
    environment,
    head_flops,
    matmul_peak,
    peak_bytes,
    run_apart,
    summarise,
    timed,
    write_and_show,
)

COLUMNS = {
    "size": "model",
    "variant": "variant",
    "dtype": "dtype",
    "cells_per_step": "cells/step",
    "cells_per_s": "cells/s",
    "tokens_per_s": "genes/s",
    "share_of_peak": "share of peak",
    "peak_gb": "peak GB",
    "times_published": "x published",
    "memory_share": "memory / published",
}
MASKED = 0.15


def variants(device: str, attention: str, compiled: bool) -> list[dict[str, Any]]:
    """What is compared; the first is the yardstick. bfloat16 is autocast over float32 weights."""
    chosen = [
        {"variant": "as published", "dtype": "float32", "attention": "eager"},
        {"variant": "default", "dtype": "float32", "attention": "sdpa"},
        {"variant": "default", "dtype": "bfloat16", "attention": attention},
    ]
    if device == "cuda":
        chosen.append({"variant": "packed", "dtype": "bfloat16", "attention": attention, "packed": True})
    if device == "cuda" and compiled:
        chosen.append({"variant": "compiled", "dtype": "bfloat16", "attention": attention, "compile": True})
    return chosen


def masked_batch(
    cells: list[dict[str, Any]], length: int | None, seed: int, packed: bool = False
) -> dict[str, torch.Tensor]:
    """Pad or pack cells and hide 15 % of their genes."""
    from genecompass.tokenization.batching import pack_cells, pad_cells

    batch = pack_cells(cells) if packed else pad_cells(cells, length=length)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(batch["input_ids"].shape, generator=generator) < MASKED
    if not packed:
        hidden &= batch["attention_mask"] == 1
    batch["labels"] = torch.where(hidden, batch["input_ids"], -100)
    batch["labels_values"] = batch["values"].clone()
    batch["input_ids"] = batch["input_ids"].masked_fill(hidden, 1)
    batch["values"] = batch["values"].masked_fill(hidden, -1.0)
    if length is None and not packed and bool(batch["attention_mask"].all()):
        del batch["attention_mask"]
    return batch


def published_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Scores of all slots, then a loss that leaves most of them out: what the published code computes."""
    inputs = {name: tensor for name, tensor in batch.items() if not name.startswith("labels")}
    outputs = model(**inputs)
    labels = batch["labels"]
    id_loss = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())
    at = labels != -100
    value_loss = torch.nn.functional.mse_loss(outputs.value_predictions[at], batch["labels_values"][at])
    return 0.2 * id_loss + 0.8 * value_loss


def work(job: dict[str, Any]) -> dict[str, Any]:
    """A few steps of one variant, in this process."""
    from genecompass.modeling_genecompass import GeneCompassForMaskedGeneModeling

    device, published = job["device"], job["variant"] == "as published"
    # the published model also drops attention weights
    options = {"attention_dropout": 0.02} if published else {}
    model = build(GeneCompassForMaskedGeneModeling, job["size"], job["attention"], **options).to(device).train()
    model.base_model.embeddings.share_distinct_genes = not published
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    per_step, steps = job["cells_per_step"], job["steps"] + 1
    cells, _ = draw_cells(
        per_step * steps * 4,
        data=job["data"] and Path(job["data"]),
        genes=job["genes"] and Path(job["genes"]),
        full_length=job["full_length"],
        seed=job["seed"],
    )
    if not published:  # like lengths together, then a spread of lengths over the steps
        cells = sorted(cells, key=lambda cell: len(cell["input_ids"]))
    groups = [cells[i : i + per_step] for i in range(0, len(cells), per_step)][2::4]
    batches = [
        masked_batch(group, 2048 if published else None, seed, bool(job.get("packed")))
        for seed, group in enumerate(groups)
    ]
    batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in batches]
    for batch in batches if job.get("packed") else ():
        batch["max_cell_length"] = int(batch["cell_lengths"].max())  # type: ignore[assignment]
    run = torch.compile(model) if job.get("compile") else model
    narrow = DTYPES[job["dtype"]] == torch.bfloat16

    def step(batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast(device, dtype=torch.bfloat16) if narrow else nullcontext():
            loss = published_loss(run, batch) if published else run(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step(batches[-1])  # warm up, on the longest: it also makes the optimiser's state
    if job.get("compile"):
        for batch in batches:
            step(batch)
    seconds = timed(lambda: [step(batch) for batch in batches[:-1]], device)
    timed_cells = [cell for group in groups[:-1] for cell in group]
    lengths = [len(cell["input_ids"]) for cell in timed_cells]
    flops = encoder_flops(model.config, lengths) + head_flops(model.config, int(MASKED * sum(lengths)))
    return {
        "cells_per_s": len(lengths) / seconds,
        "tokens_per_s": sum(lengths) / seconds,
        "flops_per_s": 3 * flops / seconds,
        "peak_gb": peak_bytes(device) / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], choices=("small", "base", "tiny"))
    parser.add_argument("--data", help="folder with pbmc_human and baron_pancreas; synthetic cells without it")
    parser.add_argument("--genes", help="gene table for --data")
    parser.add_argument("--full-length", action="store_true", help="synthetic cells of 2,048 genes")
    parser.add_argument("--cells-per-step", type=int, help="same for all variants (default 2, Base 1, GPU 16)")
    parser.add_argument("--steps", type=int, help="timed steps (default 4 / 20)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attention", default="sdpa", help="for bfloat16: sdpa, flash_attention_2, flex_attention")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile (GPU)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        job = json.loads(arguments.worker)
        Path(job["answer"]).write_text(json.dumps(work(job)), encoding="utf-8")
        return

    gpu = arguments.device == "cuda"
    settings = {name: getattr(arguments, name) for name in ("device", "data", "genes", "full_length", "seed")}
    settings["steps"] = arguments.steps or (20 if gpu else 4)
    _, described = draw_cells(
        512,
        data=arguments.data and Path(arguments.data),
        genes=arguments.genes and Path(arguments.genes),
        full_length=arguments.full_length,
        seed=arguments.seed,
    )
    print(described)
    rows = []
    for size in arguments.sizes:
        chosen = variants(arguments.device, arguments.attention, arguments.compile)
        # two Base cells in the published form do not fit 24 GB
        settings["cells_per_step"] = arguments.cells_per_step or (16 if gpu else 1 if size == "base" else 2)
        rounds: list[list[dict[str, Any]]] = [[] for _ in chosen]
        peaks: dict[str, list[float]] = {name: [] for name in DTYPES}
        for _ in range(arguments.rounds):  # variants take turns, so that a busy minute hits all of them
            for name, dtype in DTYPES.items():
                peaks[name].append(matmul_peak(arguments.device, dtype))
            for variant, measured in zip(chosen, rounds, strict=True):
                measured.append(run_apart(__file__, {**settings, **variant, "size": size}))
        rows += table_rows(size, settings, chosen, rounds, {name: max(found) for name, found in peaks.items()})
    content = {
        "benchmark": "train_step",
        "cells": described,
        "settings": settings,
        "environment": environment(arguments.device),
    }
    write_and_show(f"train_step_{arguments.device}", content, rows, COLUMNS)


def table_rows(
    size: str,
    settings: dict[str, Any],
    chosen: list[dict[str, Any]],
    rounds: list[list[dict[str, Any]]],
    peaks: dict[str, float],
) -> list[dict[str, Any]]:
    """Medians, shares of the measured peak, ratios to the first variant."""
    rows = []
    yardstick = summarise(rounds[0])
    for variant, measured in zip(chosen, rounds, strict=True):
        median = summarise(measured)
        row = {"size": size, **variant, "cells_per_step": settings["cells_per_step"], **median}
        if "failed" in median:
            print(f"{size}, {variant['variant']}, {variant['dtype']}: {median['failed']}")
        else:
            row["share_of_peak"] = median["flops_per_s"] / peaks[variant["dtype"]]
            row["matmul_peak_gflops"] = peaks[variant["dtype"]] / 1e9
            if "failed" not in yardstick:
                row["times_published"] = median["cells_per_s"] / yardstick["cells_per_s"]
                row["memory_share"] = median["peak_gb"] / yardstick["peak_gb"]
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
