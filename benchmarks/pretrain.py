"""Pre-training end to end, from cells on disk to the optimiser's step, against the bare step of the same model.

Three ways over the very same batches, in turn, several times: the step alone on batches that lie ready; the step with
reading, tokenising, masking and padding before each batch; the whole `pretrain` run with logging. What data costs is
the difference between the first two. On a GPU, also the projected time and cost of the published corpus.

    python benchmarks/pretrain.py --corpus cells --genes genes.parquet
    python benchmarks/pretrain.py --corpus cells --genes genes.parquet --size base --device cuda --workers 8
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _measure import environment, write_and_show
from torch.utils.data import DataLoader

PUBLISHED_CELLS = 101_768_420
COLUMNS = {
    "variant": "variant",
    "cells_per_s": "cells/s",
    "tokens_per_s": "genes/s",
    "seconds": "seconds",
    "data_share": "share of time for data",
    "flop_utilisation": "share of peak",
}


def settings(args: argparse.Namespace, output: str) -> Any:
    """The run's configuration: the size's preset, short, without evaluation."""
    from genecompass.training.pretraining.config import load_config

    return load_config(
        args.size,
        [
            *(f"corpus={args.corpus}", f"gene_table={args.genes}", f"output={output}", f"masking.task={args.task}"),
            *(f"optimisation.max_steps={args.steps}", f"data.workers={args.workers}", "data.held_out=0.01"),
            *("logging.to=[]", "logging.progress_bar=false", f"logging.every_steps={args.steps}"),
            *("evaluation.every_steps=null", "evaluation.cells_per_species=5", "checkpoints.every_steps=1000000"),
            *(
                "evaluation.yardstick_cells_per_species=50",
                f"data.layout={args.layout}",
                f"optimisation.device={args.device_setting}",
            ),
            *args.set,
        ],
    )


def parts(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Model, optimiser and a function that opens the stream anew, built as `pretrain` builds them."""
    from genecompass.training.pretraining.arguments import training_arguments
    from genecompass.training.pretraining.masking import MaskedGeneCollator
    from genecompass.training.pretraining.model_setup import build_model
    from genecompass.training.pretraining.pretrain import make_masker, make_stream
    from genecompass.training.pretraining.sources import corpus_opener
    from genecompass.training.pretraining.vocabulary import gene_table_for

    with tempfile.TemporaryDirectory() as folder:
        config = settings(args, folder)
        arguments = training_arguments(config, Path(folder))
    table = gene_table_for(config, config.corpus, None)
    torch.manual_seed(0)
    model = build_model(config, table).to(args.device).train()
    masker = make_masker(config, table, model.config.max_position_embeddings)
    collator = MaskedGeneCollator(masker, args.layout, one_answer=True)
    opener = corpus_opener(config.corpus, table, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    return model, optimizer, lambda: make_stream(config, collator, opener, arguments)


def take_steps(model: Any, optimizer: Any, batches: Any, steps: int, device: str) -> float:
    """Seconds for some steps, from the first batch asked for to the last weight written."""
    from genecompass.training.pretraining.losses import count_targets, loss_sums

    start = time.perf_counter()
    for _, batch in zip(range(steps), batches, strict=False):
        ids, values = count_targets(batch)
        inputs = {name: part.to(device) for name, part in batch.items() if isinstance(part, torch.Tensor)}
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            id_sum, value_sum, _ = loss_sums(model, inputs)
        (0.2 * id_sum / max(ids, 1) + 0.8 * value_sum / max(values, 1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def stream_batches(make_stream: Any, workers: int) -> Any:
    return iter(DataLoader(make_stream(), batch_size=None, num_workers=workers))


def whole_run(args: argparse.Namespace) -> dict[str, float]:
    """The figures of the last log of a run of `pretrain`, which cover all steps but the first."""
    from genecompass.training.pretraining.pretrain import pretrain

    with tempfile.TemporaryDirectory() as folder:
        result = pretrain(settings(args, str(Path(folder) / "run")))
    return next(entry for entry in reversed(result.history) if "tokens_per_second" in entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="folder of a corpus")
    parser.add_argument("--genes", required=True, help="gene table")
    parser.add_argument("--size", default="tiny", choices=["tiny", "small", "base"])
    parser.add_argument("--task", default="published", choices=["published", "hidden_rank"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layout", default="padded", choices=["padded", "packed"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--dollars-per-gpu-hour", type=float, default=2.5, help="for the projection on a GPU")
    parser.add_argument("--set", action="append", default=[], help="override a key of the configuration")
    args = parser.parse_args()
    args.device_setting = "cpu" if args.device == "cpu" else "auto"

    model, optimizer, make_stream = parts(args)
    ready = [batch for _, batch in zip(range(args.steps), stream_batches(make_stream, 0), strict=False)]
    cells = sum(len(batch["species"]) for batch in ready)
    tokens = sum(int(_lengths(batch).sum()) for batch in ready)
    take_steps(model, optimizer, ready, 2, args.device)
    bare, with_data, trainer = [], [], []
    for _ in range(args.rounds):
        bare.append(take_steps(model, optimizer, ready, args.steps, args.device))
        batches = stream_batches(make_stream, args.workers)
        with_data.append(take_steps(model, optimizer, batches, args.steps, args.device))
        trainer.append(whole_run(args))

    shares = [1 - alone / loaded for alone, loaded in zip(bare, with_data, strict=True)]
    rows = [
        {"variant": "bare step", **_rates(bare, cells, tokens), "data_share": 0.0},
        {
            "variant": "step with data",
            **_rates(with_data, cells, tokens),
            "data_share": statistics.median(shares),
        },
        {
            "variant": "pretrain",
            "cells_per_s": statistics.median(entry["cells_per_second"] for entry in trainer),
            "tokens_per_s": statistics.median(entry["tokens_per_second"] for entry in trainer),
            "data_share": statistics.median(entry["data_wait_share"] for entry in trainer),
            "flop_utilisation": statistics.median(entry.get("flop_utilisation", float("nan")) for entry in trainer),
        },
    ]
    content = {
        "what": f"{args.size}, {args.task}, {args.steps} steps of {cells / args.steps:.1f} cells, {args.device}",
        "environment": environment(args.device),
        "data_share_of_rounds": shares,
        "parameters": model.num_parameters(),
    }
    if args.device == "cuda":
        content["projection"] = projection(rows[2]["cells_per_s"], args.dollars_per_gpu_hour)
    write_and_show("pretrain", content, rows, COLUMNS)


def projection(cells_per_second: float, dollars: float, gpus: int = 8) -> dict[str, float]:
    """Time and cost of one pass over the published corpus on some of these GPUs, if they scale without loss."""
    hours = PUBLISHED_CELLS / (cells_per_second * gpus) / 3600
    return {"cells": PUBLISHED_CELLS, "gpus": gpus, "hours": hours, "dollars": hours * gpus * dollars}


def _lengths(batch: dict[str, Any]) -> torch.Tensor:
    return batch["cell_lengths"] if "cell_lengths" in batch else batch["attention_mask"].sum(1)


def _rates(seconds: list[float], cells: int, tokens: int) -> dict[str, float]:
    median = statistics.median(seconds)
    return {"cells_per_s": cells / median, "tokens_per_s": tokens / median, "seconds": median}


if __name__ == "__main__":
    main()
