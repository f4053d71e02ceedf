"""A configuration in the words of `transformers.Trainer`: precision, schedule, number of steps."""

import importlib.util
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import TrainingArguments

from ...tokenization.batching import batches_by_tokens
from ...tokenization.errors import InputError
from .config import PretrainConfig

logger = logging.getLogger(__name__)


def training_arguments(config: PretrainConfig, folder: Path) -> TrainingArguments:
    """Arguments of `transformers.Trainer`; raises `InputError` for what this machine cannot do."""
    wanted = config.optimisation
    precision = _precision(wanted.precision, wanted.device)
    settings: dict[str, Any] = {_checkpointing_name(): wanted.gradient_checkpointing}
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=wanted.max_steps or -1,
        learning_rate=wanted.learning_rate,
        lr_scheduler_type=wanted.schedule,
        warmup_steps=wanted.warmup_steps,
        weight_decay=wanted.weight_decay,
        adam_beta2=wanted.adam_beta2,
        max_grad_norm=wanted.max_grad_norm,
        gradient_accumulation_steps=wanted.gradient_accumulation_steps,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        torch_compile=wanted.compile,
        use_cpu=wanted.device == "cpu",
        seed=config.seed,
        logging_steps=config.logging.every_steps,
        logging_first_step=True,
        # a loss that is not a number must be seen, not averaged away
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=config.checkpoints.every_steps,
        report_to=_reporters(config.logging.to),
        disable_tqdm=True,
        remove_unused_columns=False,
        # the stream is restored to its position instead of being read again from the start
        ignore_data_skip=True,
        # prior tables are buffers of hundreds of megabytes that never change: every process has read them itself
        ddp_broadcast_buffers=False,
        # no loss reaches the heads for hidden genes where counts are split
        ddp_find_unused_parameters=config.masking.task == "count_split",
        **settings,
    )
    if arguments.n_gpu > 1:
        raise InputError(
            f"{arguments.n_gpu} GPUs are visible to one process; start one process per GPU with "
            "`torchrun --nproc_per_node N -m genecompass.cli pretrain ...` or set CUDA_VISIBLE_DEVICES"
        )
    return arguments


def _checkpointing_name() -> str:
    new = "activation_checkpointing"  # since transformers 5.20; the old name goes in version 6
    return new if new in TrainingArguments.__dataclass_fields__ else "gradient_checkpointing"


def _precision(wanted: str, device: str) -> str:
    on_gpu = torch.cuda.is_available() and device != "cpu"
    if wanted == "auto":
        return "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
    if wanted == "fp16" and not on_gpu:
        raise InputError("optimisation.precision=fp16 needs a GPU; use fp32 or bf16 on CPU")
    return wanted


def _reporters(names: list[str]) -> list[str]:
    found = []
    for name in names:
        if importlib.util.find_spec(name) is not None:
            found.append(name)
        elif name == "tensorboard":
            logger.warning('no TensorBoard log: tensorboard is not installed (pip install "genecompass[plots]")')
        else:
            raise InputError(f"logging.to: {name} is not installed; pip install {name}, or take it out")
    return found


def steps_for_epochs(config: PretrainConfig, lengths: npt.NDArray[np.int64], cells: int, world_size: int) -> int:
    """Optimiser steps that make about the wanted number of passes.

    Parameters
    ----------
    config
        `optimisation.epochs` and the batch settings.
    lengths
        Genes of a sample of training cells, shape (sample,).
    cells
        Cells of the corpus, held-out ones included.
    world_size
        Number of processes.

    Examples
    --------
    >>> config = PretrainConfig()
    >>> steps_for_epochs(config, np.full(100, 1024), cells=1000, world_size=1)
    200
    """
    pool = config.data.pool_cells
    batches = sum(
        len(
            batches_by_tokens(
                lengths[i : i + pool], config.data.tokens_per_batch, max_cells=config.data.cells_per_batch
            )
        )
        for i in range(0, len(lengths), pool)
    )
    trained = cells * (1 - config.data.held_out) * config.data.share
    per_step = world_size * config.optimisation.gradient_accumulation_steps
    return max(1, math.ceil((config.optimisation.epochs or 1) * trained * batches / len(lengths) / per_step))


def fit_warmup(arguments: TrainingArguments) -> None:
    """Shorten a warm-up that would take more than a quarter of the run, and say so."""
    longest = max(1, arguments.max_steps // 4)
    if arguments.warmup_steps > longest:
        logger.warning("warm-up shortened from %s to %s steps, a quarter of the run", arguments.warmup_steps, longest)
        arguments.warmup_steps = longest
