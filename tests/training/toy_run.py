"""A pre-training run of seconds on made-up cells: used by the tests, and as a program that can be killed."""

import argparse
import json
import os
import signal

import numpy as np
import pandas as pd
from genecompass.tokenization.gene_table import GeneTable
from genecompass.training.pretraining.config import load_config
from genecompass.training.pretraining.pretrain import pretrain
from genecompass.training.pretraining.trainer import PretrainingTrainer
from transformers import TrainerCallback

GENES = 60


def make_table() -> GeneTable:
    """Sixty genes for each of two species; every third mouse gene shares its homolog's token."""
    human = pd.DataFrame({"gene_id": [f"ENSG{i:05d}" for i in range(GENES)], "species": "human"})
    mouse = pd.DataFrame({"gene_id": [f"ENSMUSG{i:05d}" for i in range(GENES)], "species": "mouse"})
    mouse["homolog_gene_id"] = [f"ENSG{i:05d}" if i % 3 == 0 else None for i in range(GENES)]
    return GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True))


def make_cells(count: int = 160, seed: int = 0) -> list[dict]:
    """Cells of two species, kinds and depths: a kind expresses one half of the genes far more often."""
    generator = np.random.default_rng(seed)
    table = make_table()
    rows = []
    for number in range(count):
        species, kind = number % 2, number // 2 % 2
        odds = np.where(np.arange(GENES) // (GENES // 2) == kind, 8.0, 1.0)
        size = int(generator.integers(10, 40))
        genes = generator.choice(GENES, size=size, replace=False, p=odds / odds.sum())
        tokens = table.token_in_cell[2 + species * GENES + genes]
        depth = 1 + 9 * (number // 4 % 2)
        values = np.log2(1 + generator.poisson(depth * (1 + genes % 5)) + 1).astype(np.float32)
        order = np.lexsort((tokens, -values))
        rows.append(
            {
                "input_ids": tokens[order].astype(np.int32),
                "values": values[order],
                "species": species,
                "cell_id": f"cell {number}",
                "dataset": "toy",
            }
        )
    return rows


def make_config(output: object, *sets: str):
    """Short run, small batches, no logs elsewhere, CPU."""
    small = (
        *("data.max_length=64", "data.tokens_per_batch=320", "data.pool_cells=32", "data.held_out=0.2"),
        *("logging.to=[]", "logging.progress_bar=false", "logging.every_steps=1", "logging.peak_tflops=0.1"),
        *("optimisation.device=cpu", "optimisation.max_steps=12", "optimisation.warmup_steps=2"),
        *("masking.task=published", "data.cells_per_batch=null", "evaluation.yardstick_cells_per_species=5000"),
        *("checkpoints.every_steps=4", "evaluation.every_steps=null", "model.overrides={hidden_size: 16}"),
    )
    return load_config("tiny", [f"output={output}", *small, *sets])


class KillAt(TrainerCallback):
    """Ends the process at once, as a power cut would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--record")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    cells_of_steps: list[list[str]] = []
    original = PretrainingTrainer.get_batch_samples

    def recording(self, *args):
        found = original(self, *args)
        cells_of_steps.append(list(self.cells_of_step))
        return found

    PretrainingTrainer.get_batch_samples = recording  # type: ignore[method-assign]
    config = make_config(arguments.output, *arguments.set)
    callbacks = [KillAt(arguments.kill_at)] if arguments.kill_at else []
    result = pretrain(config, corpus=make_cells(), table=make_table(), resume=arguments.resume, callbacks=callbacks)
    if arguments.record:
        rank = os.environ.get("RANK", "0")
        with open(f"{arguments.record}.{rank}", "w", encoding="utf-8") as handle:
            json.dump({"cells": cells_of_steps, "history": result.history, "steps": result.steps}, handle)


if __name__ == "__main__":
    main()
