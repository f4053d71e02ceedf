"""What both speed benchmarks share: models, work in FLOPs, matrix-product peak, runs in processes of their own."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _memory import peak_resident_bytes

RESULTS = Path(__file__).resolve().parent.parent / "benchmark_results"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build(cls: Any, size: str, attention: str, **options: Any) -> Any:
    """A model of the given size with random weights and priors."""
    from genecompass.modeling_genecompass import GeneCompassConfig

    torch.manual_seed(0)
    model = cls(getattr(GeneCompassConfig, size)(attn_implementation=attention, **options))
    for name in model.config.priors:
        model.base_model.embeddings.prior_tables.get_buffer(name).normal_()
    vocabulary = model.config.vocab_size
    rows = torch.arange(vocabulary).repeat(2, 1)
    shared = torch.arange(2, 17467)  # as many remapped genes as the published vocabulary has
    rows[1, shared] = shared + 25000
    model.set_prior_rows(rows)
    return model


def encoder_flops(config: Any, lengths: list[int]) -> float:
    """Multiply-adds x 2 that encoding these cells takes, padding left out: linear layers, attention, fusion output."""
    hidden, fed = config.hidden_size, config.intermediate_size
    total = 0.0
    for genes in lengths:
        slots = genes + 1
        layer = 2 * slots * (4 * hidden * hidden + 2 * hidden * fed) + 4 * slots * slots * hidden
        total += config.num_hidden_layers * layer + 2 * genes * hidden * hidden
    return total


def head_flops(config: Any, targets: int) -> float:
    """Work of both heads on this many slots."""
    return targets * 2.0 * (config.hidden_size * config.vocab_size + 2 * config.hidden_size**2)


def matmul_peak(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, the best of several."""
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    b = torch.randn(side, side, device=device, dtype=dtype)
    best = min(timed(lambda: a @ b, device) for _ in range(12))
    return 2.0 * side**3 / best


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds that `work` takes, the device's queue included."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(device: str) -> int:
    """Largest memory of this process so far: on the GPU, or resident on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return peak_resident_bytes()


def run_apart(script: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run one variant in a process of its own, so that its peak memory is its own; give back what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, script, "--worker", json.dumps({**job, "answer": str(answer)})]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        if done.returncode or not answer.exists():
            last = (done.stderr.strip().splitlines() or ["killed, most likely for want of memory"])[-1]
            return {"failed": last}
        return json.loads(answer.read_text())


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds of what each measured."""
    if any("failed" in one for one in rounds):
        return next(one for one in rounds if "failed" in one)
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} | {"rounds": rounds}


def environment(device: str) -> dict[str, Any]:
    """What a reader needs to judge the numbers."""
    import transformers

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def write_and_show(name: str, content: dict[str, Any], rows: list[dict[str, Any]], columns: dict[str, str]) -> None:
    """Write JSON to ``benchmark_results/`` and print `rows` as a table; `columns` maps keys to headings."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    table = [list(columns.values()), *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print(f"wrote {path}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return str(value)
