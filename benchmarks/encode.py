"""Encoding speed and memory: this model's default against the published form, in one run.

*As published* is built from this model's own options: eager attention, every cell padded to 2,048 genes, the
masked-gene head on every slot, priors projected for every slot, float32. The default: fused attention, batches of
cells of like length, no head, folded priors; float32 and bfloat16.

    python benchmarks/encode.py                                        # Base and Small on the CPU
    python benchmarks/encode.py --data shared/data --genes genes.tsv.gz
    python benchmarks/encode.py --device cuda --full-length            # 2,048 genes a cell on a GPU
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from _cells import draw_cells
from _measure import (
    DTYPES,
    build,
    encoder_flops,
    environment,
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
    "cells_per_s": "cells/s",
    "tokens_per_s": "genes/s",
    "share_of_peak": "share of peak",
    "peak_gb": "peak GB",
    "times_published": "x published",
}


def variants(device: str, attention: str, compiled: bool) -> list[dict[str, Any]]:
    """What is compared; the first is the yardstick."""
    chosen = [
        {"variant": "as published", "dtype": "float32", "attention": "eager"},
        {"variant": "default", "dtype": "float32", "attention": "sdpa", "layout": "padded"},
        {"variant": "default", "dtype": "bfloat16", "attention": attention, "layout": "padded"},
        {"variant": "packed", "dtype": "float32", "attention": "sdpa", "layout": "packed"},
        {"variant": "packed", "dtype": "bfloat16", "attention": attention, "layout": "packed"},
    ]
    if device == "cuda" and compiled:
        chosen.append(
            {"variant": "compiled", "dtype": "bfloat16", "attention": attention, "layout": "padded", "compile": True}
        )
    return chosen


def work(job: dict[str, Any]) -> dict[str, Any]:
    """One variant over its cells, in this process."""
    from genecompass.modeling_genecompass import GeneCompassForMaskedGeneModeling, GeneCompassModel

    device, published = job["device"], job["variant"] == "as published"
    cls = GeneCompassForMaskedGeneModeling if published else GeneCompassModel
    checkpoint = Path(job["checkpoints"]) / ("whole" if published else "folded")
    model = cls.from_pretrained(checkpoint, dtype=DTYPES[job["dtype"]], attn_implementation=job["attention"])
    if published:
        model.base_model.embeddings.share_distinct_genes = False
    model = model.to(device).eval()
    count = job["published_cells"] if published else job["cells"]
    cells, _ = draw_cells(
        job["cells"],
        data=job["data"] and Path(job["data"]),
        genes=job["genes"] and Path(job["genes"]),
        full_length=job["full_length"],
        seed=job["seed"],
    )
    cells = cells[:count]
    batches = [{k: v.to(device) for k, v in batch.items()} for batch in make_batches(job, cells)]
    if job.get("compile"):
        model = torch.compile(model)

    @torch.inference_mode()
    def encode(some: list[dict[str, torch.Tensor]]) -> None:
        for batch in some:
            model(**batch)

    encode(batches if job.get("compile") else batches[-1:])  # warm up
    seconds = timed(lambda: encode(batches), device)
    lengths = [len(cell["input_ids"]) for cell in cells]
    return {
        "cells_per_s": len(cells) / seconds,
        "tokens_per_s": sum(lengths) / seconds,
        "flops_per_s": encoder_flops(model.config, lengths) / seconds,
        "peak_gb": peak_bytes(device) / 1e9,
    }


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Write the whole and the folded checkpoint, so that what is measured starts by loading one of them."""
    from genecompass.modeling_genecompass import GeneCompassForMaskedGeneModeling

    model = build(GeneCompassForMaskedGeneModeling, job["size"], "sdpa").eval()
    model.save_pretrained(Path(job["checkpoints"]) / "whole")
    model.base_model.fold_prior_knowledge().save_pretrained(Path(job["checkpoints"]) / "folded")
    return {}


def make_batches(job: dict[str, Any], cells: list[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
    """The published way, or by token budget."""
    from genecompass.tokenization.batching import batches_by_tokens, pack_cells, pad_cells

    if job["variant"] == "as published":
        step = job["published_batch"]
        return [pad_cells(cells[i : i + step], length=2048) for i in range(0, len(cells), step)]
    groups = batches_by_tokens([len(cell["input_ids"]) for cell in cells], job["max_tokens"])
    together = pack_cells if job["layout"] == "packed" else pad_cells
    batches = [together([cells[i] for i in group]) for group in groups]
    for batch in batches:
        if "attention_mask" in batch and bool(batch["attention_mask"].all()):
            del batch["attention_mask"]  # nothing is padded: attention needs no mask
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["small", "base"], choices=("small", "base", "tiny"))
    parser.add_argument("--data", help="folder with pbmc_human and baron_pancreas; synthetic cells without it")
    parser.add_argument("--genes", help="gene table for --data")
    parser.add_argument("--full-length", action="store_true", help="synthetic cells of 2,048 genes")
    parser.add_argument("--cells", type=int, help="cells to encode (default 96 on CPU, 4096 on a GPU)")
    parser.add_argument("--published-cells", type=int, help="of these, in the published form (default 8 / 512)")
    parser.add_argument("--published-batch", type=int, default=None, help="its batch size (default 2 / 16)")
    parser.add_argument("--max-tokens", type=int, help="slots in a batch (default 4096 / 131072)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attention", default="sdpa", help="for bfloat16: sdpa, flash_attention_2, flex_attention")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile (GPU)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        job = json.loads(arguments.worker)
        answer = work(job) if "variant" in job else prepare(job)
        Path(job["answer"]).write_text(json.dumps(answer), encoding="utf-8")
        return

    gpu = arguments.device == "cuda"
    settings = {name: getattr(arguments, name) for name in ("device", "data", "genes", "full_length", "seed")}
    settings["cells"] = arguments.cells or (4096 if gpu else 96)
    settings["published_cells"] = min(settings["cells"], arguments.published_cells or (512 if gpu else 8))
    settings["published_batch"] = arguments.published_batch or (16 if gpu else 2)
    settings["max_tokens"] = arguments.max_tokens or (131072 if gpu else 4096)
    _, described = draw_cells(
        settings["cells"],
        data=arguments.data and Path(arguments.data),
        genes=arguments.genes and Path(arguments.genes),
        full_length=arguments.full_length,
        seed=arguments.seed,
    )
    print(described)
    rows = []
    for size in arguments.sizes:
        chosen = variants(arguments.device, arguments.attention, arguments.compile)
        rounds: list[list[dict[str, Any]]] = [[] for _ in chosen]
        peaks: dict[str, list[float]] = {name: [] for name in DTYPES}
        with tempfile.TemporaryDirectory() as folder:
            job = {**settings, "size": size, "checkpoints": folder}
            ready = run_apart(__file__, job)
            if "failed" in ready:
                raise SystemExit(f"{size}: {ready['failed']}")
            for _ in range(arguments.rounds):  # variants take turns, so that a busy minute hits all of them
                for name, dtype in DTYPES.items():
                    peaks[name].append(matmul_peak(arguments.device, dtype))
                for variant, measured in zip(chosen, rounds, strict=True):
                    measured.append(run_apart(__file__, {**job, **variant}))
        rows += table_rows(size, chosen, rounds, {name: max(found) for name, found in peaks.items()})
    content = {
        "benchmark": "encode",
        "cells": described,
        "settings": settings,
        "environment": environment(arguments.device),
    }
    write_and_show(f"encode_{arguments.device}", content, rows, COLUMNS)


def table_rows(
    size: str, chosen: list[dict[str, Any]], rounds: list[list[dict[str, Any]]], peaks: dict[str, float]
) -> list[dict[str, Any]]:
    """Medians, shares of the measured peak, ratios to the first variant."""
    rows = []
    yardstick = summarise(rounds[0]).get("cells_per_s")
    for variant, measured in zip(chosen, rounds, strict=True):
        median = summarise(measured)
        row = {"size": size, "variant": variant["variant"], "dtype": variant["dtype"], **median}
        if "failed" in median:
            print(f"{size}, {variant['variant']}, {variant['dtype']}: {median['failed']}")
        else:
            row["share_of_peak"] = median["flops_per_s"] / peaks[variant["dtype"]]
            row["matmul_peak_gflops"] = peaks[variant["dtype"]] / 1e9
            row["times_published"] = median["cells_per_s"] / yardstick if yardstick else None
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
