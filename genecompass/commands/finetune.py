"""``genecompass finetune cells|genes``: teach a pre-trained checkpoint labels."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import (
    CellOptions,
    Input,
    MaxLength,
    ModelOptions,
    OutputFolder,
    Overwrite,
    Seed,
    refuse_existing,
)

app = new_app("Fine-tune for cells or genes: LoRA by default; or another adapter, a frozen or a whole model.")
TRAINING = "Training"


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained and for how long."""

    PANEL: ClassVar[str] = TRAINING

    method: Annotated[
        Literal["lora", "dora", "ia3", "bitfit", "frozen", "full", "scratch", "untrained"],
        typer.Option(help="What is trained: an adapter, biases, the head alone, everything; or a yardstick."),
    ] = "lora"
    r: Annotated[int, typer.Option("--rank", "-r", min=1, help="Rank of LoRA and DoRA.")] = 4
    targets: Annotated[Literal["all-linear", "query-value"], typer.Option(help="Layers that LoRA and DoRA adapt.")] = (
        "all-linear"
    )
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; one that suits method and width by default.")
    ] = None
    max_steps: Annotated[int | None, typer.Option(min=1, help="Most steps.")] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Cells a step.")] = 16
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many evaluations (ten a run) without improvement; never.")
    ] = None
    validation_fraction: Annotated[
        float, typer.Option("--validation", help="Share of the training data held out as validation.")
    ] = 0.15
    class_weights: Annotated[bool, typer.Option(help="Weigh classes so that all count the same.")] = True
    bf16: Annotated[bool, typer.Option("--bf16", help="Mixed precision.")] = False


Merge = Annotated[
    bool, typer.Option("--merge", help="Save a whole checkpoint instead of an adapter.", rich_help_panel="Output")
]
Epochs = Annotated[float, typer.Option(min=0, help="Most epochs; copies counted in.", rich_help_panel=TRAINING)]


@command(
    app,
    example="genecompass finetune cells demo_output/corpus_input/training_cells.h5ad --label cell_type "
    "--model demo_output/checkpoint --species human --epochs 1 -o my_adapter",
)
def cells(
    source: Input,
    label: Annotated[str, typer.Option(help="obs column of labels.", rich_help_panel="Cells")],
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    training: TrainingOptions,
    max_length: MaxLength = None,
    group: Annotated[
        str,
        typer.Option(help="obs column of donors or samples for validation; auto; none.", rich_help_panel="Cells"),
    ] = "auto",
    epochs: Epochs = 10,
    thin: Annotated[
        str,
        typer.Option(help="Shares of counts kept in extra copies of cells, or none.", rich_help_panel=TRAINING),
    ] = "0.7,0.2",
    merge: Merge = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Teach labels of cells; validation is held out by donor or sample where known."""
    refuse_existing(output, overwrite)
    from genecompass.training.finetuning.finetune import finetune_cells

    result = finetune_cells(
        cells.open(source),
        label,
        model.model,
        **cells.named,
        **asdict(training),
        output=output,
        merge=merge,
        overwrite=overwrite,
        max_length=max_length,
        group=None if group == "none" else group,
        epochs=epochs,
        thin=_shares(thin),
        device=model.device,
        seed=seed,
        progress=True,
    )
    _finish(result, output)


@command(
    app,
    example="genecompass finetune genes demo_output/cells.h5ad --labels dosage.csv --model demo_output/checkpoint "
    "--species human -o my_gene_adapter",
)
def genes(
    source: Input,
    labels: Annotated[
        Path,
        typer.Option(help="CSV: columns gene,label; or one column of genes a label.", rich_help_panel="Cells"),
    ],
    model: ModelOptions,
    cells: CellOptions,
    output: OutputFolder,
    training: TrainingOptions,
    max_cells: Annotated[
        int, typer.Option(min=1, help="Cells drawn at random as context.", rich_help_panel="Cells")
    ] = 2000,
    max_length: MaxLength = None,
    epochs: Epochs = 3,
    merge: Merge = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Teach labels of genes, with cells as context; validation holds out whole genes."""
    refuse_existing(output, overwrite)
    from genecompass.training.finetuning.finetune import finetune_genes, read_gene_labels

    result = finetune_genes(
        cells.open(source),
        read_gene_labels(labels),
        model.model,
        **cells.named,
        **asdict(training),
        output=output,
        merge=merge,
        overwrite=overwrite,
        max_length=max_length,
        max_cells=max_cells,
        epochs=epochs,
        device=model.device,
        seed=seed,
        progress=True,
    )
    _finish(result, output)


def _finish(result: Any, output: Path) -> None:
    from genecompass.model_cards import write_card

    write_card(output)
    scores, cost = result.validation, result.cost
    share = cost["parameters"]["trainable"] / cost["parameters"]["total"]
    typer.echo(
        f"validation ({scores['split']}): macro-F1 {scores['macro_f1']:.3f}, accuracy {scores['accuracy']:.3f}; "
        f"{cost['parameters']['trainable']:,} trainable parameters ({share:.2%}), {cost['seconds']:.0f} s"
    )
    typer.echo(f"wrote {output}")


def _shares(text: str) -> tuple[float, ...]:
    from genecompass.tokenization.errors import InputError

    if text == "none":
        return ()
    try:
        return tuple(float(share) for share in text.split(","))
    except ValueError:
        raise InputError(f"--thin {text!r}: expected shares such as 0.7,0.2, or none") from None
