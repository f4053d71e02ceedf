"""Pre-training from a corpus and one configuration: the story from cells to a finished checkpoint."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from ...modeling_genecompass.encoder_genecompass import takes_variable_lengths
from ...tokenization.errors import InputError
from ...tokenization.gene_table import GeneTable
from ..progress import StepBar
from . import checkpoints
from .arguments import fit_warmup, steps_for_epochs, training_arguments
from .cell_statistics import CellStatistics
from .config import PretrainConfig
from .count_evaluation import HeldOutCounts
from .count_split import CountSplitCollator, SplitSettings
from .evaluation import HeldOutCells, flat_figures
from .export import base_record, export
from .low_rank import add_low_rank, merge_low_rank
from .masking import CellMasker, MaskedGeneCollator, token_pools
from .model_setup import build_model, start_from_statistics
from .run_folder import claimed, mark_begun
from .sources import Corpus, check_corpus, corpus_opener, count_cells, fingerprint
from .stream import Cells, Collator, Row, TokenBudgetStream, collect_cells, is_held_out, is_trained_on
from .trainer import PretrainingTrainer, PriorWarmup, stopping_on_signals
from .vocabulary import gene_table_for


@dataclass(frozen=True)
class PretrainResult:
    """What pre-training made.

    Parameters
    ----------
    folder
        The finished checkpoint: model, processor, gene table, ``pretraining.yaml``, ``pretraining.json``.
    history
        Figures in the order in which they were logged, each with its ``step``.
    evaluation
        Held-out scores of the model beside the yardsticks of its task; see `HeldOutCells.report`.
    steps
        Optimiser steps in all.
    seconds
        Wall time of this call, set-up and evaluations included.
    stopped_early
        Whether `optimisation.max_minutes` ended it.
    """

    folder: Path
    history: list[dict[str, float]]
    evaluation: dict[str, Any]
    steps: int
    seconds: float
    stopped_early: bool


def pretrain(
    config: PretrainConfig,
    *,
    corpus: Corpus | None = None,
    table: GeneTable | None = None,
    resume: bool = False,
    callbacks: Iterable[TrainerCallback] = (),
) -> PretrainResult:
    """Pre-train a model; the same call on a laptop, a GPU or under ``torchrun``.

    Parameters
    ----------
    config
        See `load_config` and the preset files.
    corpus
        Folder or Hub dataset of raw counts, or tokenised rows in memory (``input_ids``, ``values``, ``species``,
        ``cell_id``); None: `config.corpus`.
    table
        Gene table; None: `config.gene_table` or the corpus' own.
    resume
        Continue the run in `config.output` from its last whole checkpoint; weights end up as without the
        interruption. A run that is finished is evaluated and written again, not trained further.
    callbacks
        Further ``transformers.TrainerCallback`` objects.

    Returns
    -------
    PretrainResult

    Raises
    ------
    InputError
        A configuration, corpus, vocabulary or folder that cannot work, each with one line that says what to do.
    DivergedError
        The loss is no longer a number.
    CheckpointError
        A checkpoint could not be written; earlier ones stay loadable.

    Examples
    --------
    >>> import numpy as np, pandas as pd, tempfile
    >>> from genecompass.training.pretraining.config import load_config
    >>> table = GeneTable.from_genes(pd.DataFrame({"gene_id": [f"ENSG{i}" for i in range(30)], "species": "human"}))
    >>> draw = np.random.default_rng(0)
    >>> rows = [{"input_ids": draw.permutation(30)[:12] + 2, "values": np.sort(draw.random(12))[::-1] + 0.1,
    ...          "species": 0, "cell_id": f"cell {i}"} for i in range(64)]
    >>> config = load_config("tiny", [f"output={tempfile.mkdtemp()}", "optimisation.max_steps=2", "data.held_out=0.2",
    ...                               "masking.task=hidden_rank",
    ...                               "logging.progress_bar=false", "logging.to=[]", "optimisation.device=cpu"])
    >>> result = pretrain(config, corpus=rows, table=table)
    >>> result.steps
    2
    """
    started = time.perf_counter()
    config.check()
    corpus = check_corpus(corpus if corpus is not None else config.corpus)
    if not config.output:
        raise InputError("no output folder: set `output`")
    folder = Path(config.output)
    identity = fingerprint(corpus)
    with claimed(folder, config, identity, resume) as checkpoint:
        return _train(config, corpus, table, identity, checkpoint, callbacks, started)


def _train(
    config: PretrainConfig,
    corpus: Corpus,
    table: GeneTable | None,
    identity: str,
    checkpoint: Path | None,
    callbacks: Iterable[TrainerCallback],
    started: float,
) -> PretrainResult:
    folder = Path(str(config.output))
    arguments = training_arguments(config, folder)
    table = gene_table_for(config, corpus, table)
    set_seed(config.seed)
    model = build_model(config, table)
    if config.model.low_rank:
        add_low_rank(model, config.model.low_rank)
    opener = corpus_opener(corpus, table, config)
    held_out, counted = _figures_cells(config, table, opener)
    collator, evaluator, table = _task(config, table, model, held_out, counted, arguments)
    stream = make_stream(config, collator, opener, arguments)
    if arguments.max_steps <= 0:
        lengths = collator.lengths(counted)
        arguments.max_steps = steps_for_epochs(config, lengths, count_cells(corpus, opener), arguments.world_size)
    fit_warmup(arguments)

    trainer = PretrainingTrainer(
        model,
        arguments,
        train_dataset=stream,
        processing_class=_processor(table, config),
        stream=stream,
        workers=config.data.workers,
        keep_last=config.checkpoints.keep_last,
        max_minutes=config.optimisation.max_minutes,
        peak_tflops=config.logging.peak_tflops,
        evaluate_with=lambda current: flat_figures(evaluator.report(current)),
        callbacks=list(callbacks),
    )
    _add_callbacks(trainer, config, model)
    if checkpoint is not None:
        trainer.restore_stream(checkpoint)
    elif trainer.is_world_process_zero():
        # only now is the folder in use: a run whose set-up fails leaves nothing behind
        mark_begun(folder, config, identity)
    # dropout starts from here whatever the set-up above has drawn
    set_seed(config.seed)
    if checkpoint is not None and checkpoints.step_of(checkpoint) >= arguments.max_steps:
        trainer.take_up(checkpoint)  # the run is finished: what is left is to evaluate and to write
    else:
        with stopping_on_signals(trainer):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    if trainer.stopped_by is not None and trainer.state.global_step < arguments.max_steps:
        raise InputError(
            f"stopped by {trainer.stopped_by} after step {trainer.state.global_step} of {arguments.max_steps}; "
            f"continue with --resume from {checkpoints.checkpoints_in(folder)[-1]}"
        )

    trained = trainer.accelerator.unwrap_model(trainer.model)
    evaluation = evaluator.report(trained)
    trainable = trained.num_parameters(only_trainable=True)
    if config.model.low_rank:
        merge_low_rank(trained)
    result = PretrainResult(
        folder=folder,
        history=list(trainer.state.log_history),
        evaluation=evaluation,
        steps=trainer.state.global_step,
        seconds=time.perf_counter() - started,
        stopped_early=trainer.time_is_up and trainer.state.global_step < arguments.max_steps,
    )
    record = base_record(config, identity, table.vocab_size) | {
        "steps": result.steps,
        "planned_steps": arguments.max_steps,
        "seconds": round(result.seconds, 1),
        "parameters": trainable,
        "evaluation": evaluation,
        "history": result.history,
    }
    export(trainer, folder, config, record, config.corpus)
    return result


def _task(
    config: PretrainConfig,
    table: GeneTable,
    model: Any,
    held_out: list[Row],
    counted: list[Row],
    arguments: TrainingArguments,
) -> tuple[Collator, HeldOutCells | HeldOutCounts, GeneTable]:
    """What is asked of cells, who scores it, and the gene table with what was counted for it; starts a new model."""
    fresh = config.model.from_checkpoint is None
    layout = _layout(config, model, arguments)
    if config.masking.task != "count_split":
        masker = make_masker(config, table, model.config.max_position_embeddings)
        if config.model.start_from_statistics and fresh:
            start_from_statistics(model, counted)
        evaluator = HeldOutCells(
            held_out,
            counted,
            masker,
            vocab_size=table.vocab_size,
            species=table.species,
            max_tokens=config.data.tokens_per_batch,
        )
        return MaskedGeneCollator(masker, layout, one_answer=True), evaluator, table
    statistics = CellStatistics.count(counted, table, axes=model.config.cell_axes)
    if fresh:
        table = statistics.put_into(table)
        statistics.fill_buffers(model, table)
        if config.model.start_from_statistics:
            statistics.start(model)
    elif config.model.refit_axes:
        statistics.refit(model, table)
    collator = CountSplitCollator(table, statistics, split_settings(config), layout, seed=config.seed)
    return collator, HeldOutCounts(held_out, collator, statistics, len(counted)), table


def split_settings(config: PretrainConfig) -> SplitSettings:
    """How cells are split in this run."""
    masking = config.masking
    return SplitSettings(
        least_share=masking.split_share[0],
        most_share=masking.split_share[1],
        panel_chance=masking.panel_chance,
        fewest_genes=min(masking.split_genes[0], config.data.max_length),
        most_genes=min(masking.split_genes[1], config.data.max_length),
        asked_genes=masking.asked_genes,
    )


def make_masker(config: PretrainConfig, table: GeneTable, positions: int) -> CellMasker:
    """What hides genes in this run; `positions` is the model's ``max_position_embeddings``."""
    hiding = {item.name for item in dataclasses.fields(CellMasker)}
    options = {name: value for name, value in dataclasses.asdict(config.masking).items() if name in hiding}
    return CellMasker(token_pools(table), unknown_rank_position=positions, seed=config.seed, **options)


def _figures_cells(
    config: PretrainConfig, table: GeneTable, opener: Callable[..., Cells]
) -> tuple[list[Row], list[Row]]:
    """Held-out cells, and training cells that the yardsticks are counted on; the same for every seed of a run."""
    data, wanted = config.data, config.evaluation
    many = dict.fromkeys(range(len(table.species)), wanted.yardstick_cells_per_species)
    few = dict.fromkeys(range(len(table.species)), wanted.cells_per_species)
    # read in one pass: whichever group is full first stops growing
    held_out, counted = collect_cells(
        opener(shuffle=True, seed=0),
        [few, many],
        [
            functools.partial(is_held_out, held_out=data.held_out),
            functools.partial(is_trained_on, held_out=data.held_out, share=data.share),
        ],
    )
    for index, name in enumerate(table.species if config.model.from_checkpoint is None else ()):
        if not any(int(row["species"]) == index for row in counted):
            raise InputError(
                f"species {name!r} of the vocabulary has no cell in the corpus to train on; use a vocabulary "
                "without it or add cells"
            )
    return held_out, counted


def _layout(config: PretrainConfig, model: Any, arguments: TrainingArguments) -> Literal["padded", "packed"]:
    if config.data.layout != "auto":
        return config.data.layout
    # packing pays where the attention in use takes variable lengths; on CPU sorted, padded batches are faster
    if arguments.device.type != "cuda":
        return "padded"
    dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
    implementation, dropout = model.config._attn_implementation, model.config.attention_dropout
    by_pytorch = implementation == "sdpa" and takes_variable_lengths(arguments.device, dtype, dropout)
    return "packed" if by_pytorch or "flash" in implementation else "padded"


def make_stream(
    config: PretrainConfig, collator: Collator, opener: Callable[..., Cells], arguments: TrainingArguments
) -> TokenBudgetStream:
    """The training batches of this process."""
    data = config.data
    return TokenBudgetStream(
        opener(shuffle=True, seed=config.seed, rank=arguments.process_index, world_size=arguments.world_size),
        collator,
        max_tokens=data.tokens_per_batch,
        max_cells=data.cells_per_batch,
        pool_cells=data.pool_cells,
        seed=config.seed,
        keep=functools.partial(is_trained_on, held_out=data.held_out, share=data.share),
    )


def _processor(table: GeneTable, config: PretrainConfig) -> Any:
    from ...tokenization.processing_genecompass import GeneCompassProcessor

    return GeneCompassProcessor.from_gene_table(table, max_length=config.data.max_length)


def _add_callbacks(trainer: PretrainingTrainer, config: PretrainConfig, model: Any) -> None:
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    if config.logging.progress_bar:
        trainer.add_callback(StepBar("pre-training"))
    if config.evaluation.every_steps:
        trainer.add_callback(_EvaluateEvery(config.evaluation.every_steps))
    if config.model.prior_warmup_steps:
        trainer.add_callback(PriorWarmup(model, config.model.prior_warmup_steps))


class _EvaluateEvery(TrainerCallback):
    """Asks for an evaluation every so many steps; the one at the end is made anyway."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask."""
        if state.global_step % self.steps == 0 and state.global_step < state.max_steps:
            control.should_evaluate = True
        return control
