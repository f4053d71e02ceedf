"""What each way of fine-tuning costs: trainable parameters, gradient and optimiser memory, peak memory, time a step.

Every variant runs in a process of its own, several rounds, variants taking turns; the table gives medians and ratios
to full fine-tuning.

    python benchmarks/finetune.py --size base --genes 1024 --cells 1 4
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from _measure import build, environment, peak_bytes, run_apart, summarise, timed, write_and_show

METHODS = ("full", "lora", "dora", "ia3", "bitfit", "frozen")
CLASSES = 10


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train a few steps; the first, in which memory is laid out, does not count for time."""
    from genecompass.modeling_genecompass import GeneCompassForSequenceClassification
    from genecompass.training.finetuning.methods import count_parameters, prepare

    device = job["device"]
    model = build(GeneCompassForSequenceClassification, job["size"], "sdpa", num_labels=CLASSES).to(device)
    loaded = peak_bytes(device)
    trainable = prepare(model, job["method"], r=job["rank"], targets=job["targets"])
    trainable.train()
    parameters = [p for p in trainable.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    shape = (job["cells"], job["genes"])
    batch = {
        "input_ids": torch.randint(2, model.config.vocab_size, shape, generator=generator).to(device),
        "values": torch.rand(shape, generator=generator).to(device) * 5,
        "species": (torch.arange(job["cells"]) % 2).to(device),
        "labels": (torch.arange(job["cells"]) % CLASSES).to(device),
    }

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=job["bf16"]):
            loss = trainable(**batch, validate=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step()
    begun = time.process_time()
    seconds = sorted(timed(step, device) for _ in range(job["steps"]))
    # of all threads: what is left of the comparison where other work shares the machine
    cpu_seconds = (time.process_time() - begun) / job["steps"]
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in parameters if p.grad is not None)
    moments = sum(
        entry.numel() * entry.element_size()
        for state in optimizer.state.values()
        for entry in state.values()
        if isinstance(entry, torch.Tensor)
    )
    counted = count_parameters(trainable)
    return {
        "trainable": counted["trainable"],
        "share": counted["trainable"] / counted["total"],
        "gradient_optimizer_mb": (gradients + moments) / 1e6,
        "peak_mb": peak_bytes(device) / 1e6,
        "peak_before_training_mb": loaded / 1e6,
        "step_seconds": seconds[len(seconds) // 2],
        "step_cpu_seconds": cpu_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=["tiny", "small", "base"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--genes", type=int, default=1024, help="genes a cell")
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4], help="cells a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="query-value", help="of LoRA and DoRA: query-value or all-linear")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", default="finetune")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        job = json.loads(options.worker)
        Path(job["answer"]).write_text(json.dumps(measure(job)))
        return
    common = {name: getattr(options, name) for name in ("size", "genes", "rank", "targets", "steps", "bf16", "device")}
    variants = [{**common, "method": method, "cells": cells} for cells in options.cells for method in options.methods]
    rounds: list[list[dict[str, Any]]] = [[] for _ in variants]
    begin = time.perf_counter()
    for _ in range(options.rounds):
        for found, variant in zip(rounds, variants, strict=True):
            found.append(run_apart(__file__, variant))
    rows = [{"method": v["method"], "cells": v["cells"], **summarise(r)} for v, r in zip(variants, rounds, strict=True)]
    for row in rows:
        full = next((r for r in rows if r["method"] == "full" and r["cells"] == row["cells"]), None)
        if full is not None and "failed" not in full and "failed" not in row:
            for key in ("gradient_optimizer_mb", "peak_mb", "step_seconds", "step_cpu_seconds"):
                row[f"{key}_ratio"] = row[key] / full[key]
    columns = {
        "method": "method",
        "cells": "cells",
        "trainable": "trainable",
        "share": "share",
        "gradient_optimizer_mb": "grad+optim MB",
        "gradient_optimizer_mb_ratio": "ratio",
        "peak_mb": "peak MB",
        "peak_mb_ratio": "ratio",
        "step_seconds": "s/step",
        "step_seconds_ratio": "ratio",
        "step_cpu_seconds": "CPU s/step",
        "step_cpu_seconds_ratio": "ratio",
        "failed": "failed",
    }
    settings = {**common, "rounds": options.rounds, "seconds": round(time.perf_counter() - begin, 1)}
    write_and_show(options.name, {"environment": environment(options.device), **settings}, rows, columns)


if __name__ == "__main__":
    sys.exit(main())
