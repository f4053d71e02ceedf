"""``genecompass finetune cells|genes``: teach a pre-trained checkpoint labels."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Fine-tune for cells or genes: LoRA by default; dora, ia3, bitfit, frozen, full, scratch, untrained.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Model = Annotated[str, typer.Option(help="Pre-trained checkpoint: folder or owner/name[@revision].")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the adapter or checkpoint.")]
Species = Annotated[str, typer.Option(help="Species of the cells, or an obs column that says it.")]
Method = Annotated[str, typer.Option(help="lora, dora, ia3, bitfit, frozen, full, scratch or untrained.")]
Merge = Annotated[bool, typer.Option("--merge", help="Save a whole checkpoint instead of an adapter.")]
GeneSpecies = Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")]
Counts = Annotated[str, typer.Option(help="Where the raw counts are: auto, X, raw or a layer.")]
MaxLength = Annotated[int | None, typer.Option(help="Genes a cell; the model's longest by default.")]
Rank = Annotated[int, typer.Option("--rank", "-r", help="Rank of LoRA and DoRA.")]
Targets = Annotated[str, typer.Option(help="Layers that LoRA and DoRA adapt: all-linear or query-value.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate; one that suits method and width by default.")]
Epochs = Annotated[float, typer.Option(help="Most epochs, thinned copies counted in; --patience may stop sooner.")]
Steps = Annotated[int | None, typer.Option(help="Most steps.")]
Batch = Annotated[int, typer.Option(help="Cells a step.")]
Patience = Annotated[
    int | None, typer.Option(help="Stop after so many evaluations (ten a run) without improvement; never by default.")
]
Held = Annotated[float, typer.Option(help="Share of the training data held out as validation.")]
Weights = Annotated[bool, typer.Option(help="Weigh classes so that all count the same.")]
Thin = Annotated[str, typer.Option(help="Shares of counts kept in extra copies of training cells, or none.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Mixed precision.")]
Device = Annotated[str | None, typer.Option(help="cpu keeps training off a GPU that is there.")]
Seed = Annotated[int, typer.Option(help="Of weights, dropout, order and split.")]


@app.callback()
def _root() -> None:
    pass


@app.command(
    epilog="Example: genecompass finetune cells pbmc.h5ad --label cell_type --model runs/tiny --species human "
    "-o runs/pbmc"
)
def cells(
    source: Annotated[Path, typer.Argument(metavar="CELLS.h5ad", help="Labelled cells with raw counts.")],
    label: Annotated[str, typer.Option(help="obs column of labels.")],
    model: Model,
    species: Species,
    output: Output,
    method: Method = "lora",
    group: Annotated[str, typer.Option(help="obs column of donors or samples for validation; auto; or none.")] = "auto",
    merge: Merge = False,
    gene_species: GeneSpecies = None,
    counts: Counts = "auto",
    max_length: MaxLength = None,
    rank: Rank = 4,
    targets: Targets = "all-linear",
    learning_rate: Rate = None,
    epochs: Epochs = 10,
    max_steps: Steps = None,
    batch_size: Batch = 16,
    patience: Patience = None,
    validation: Held = 0.15,
    class_weights: Weights = True,
    thin: Thin = "0.7,0.2",
    bf16: Bf16 = False,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Teach labels of cells; validation is held out by donor or sample where known."""
    from genecompass.training.finetuning.finetune import finetune_cells

    result = finetune_cells(
        source,
        label,
        model,
        species,
        output=output,
        merge=merge,
        gene_species=gene_species,
        counts=counts,
        max_length=max_length,
        method=method,
        group=None if group == "none" else group,
        r=rank,
        targets=targets,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
        validation_fraction=validation,
        class_weights=class_weights,
        thin=_shares(thin),
        bf16=bf16,
        device=device,
        seed=seed,
        progress=True,
    )
    _finish(result, output)


@app.command(
    epilog="Example: genecompass finetune genes cells.h5ad --labels dosage.csv --model runs/tiny --species human "
    "-o runs/dosage"
)
def genes(
    source: Annotated[Path, typer.Argument(metavar="CELLS.h5ad", help="Cells that serve as context, raw counts.")],
    labels: Annotated[Path, typer.Option(help="CSV: columns gene,label; or one column of genes for each label.")],
    model: Model,
    species: Species,
    output: Output,
    method: Method = "lora",
    max_cells: Annotated[int, typer.Option(help="Cells drawn at random as context.")] = 2000,
    merge: Merge = False,
    gene_species: GeneSpecies = None,
    counts: Counts = "auto",
    max_length: MaxLength = None,
    rank: Rank = 4,
    targets: Targets = "all-linear",
    learning_rate: Rate = None,
    epochs: Epochs = 3,
    max_steps: Steps = None,
    batch_size: Batch = 16,
    patience: Patience = None,
    validation: Held = 0.15,
    class_weights: Weights = True,
    bf16: Bf16 = False,
    device: Device = None,
    seed: Seed = 0,
) -> None:
    """Teach labels of genes, with cells as context; validation holds out whole genes."""
    from genecompass.training.finetuning.finetune import finetune_genes, read_gene_labels

    result = finetune_genes(
        source,
        read_gene_labels(labels),
        model,
        species,
        output=output,
        merge=merge,
        gene_species=gene_species,
        counts=counts,
        max_length=max_length,
        max_cells=max_cells,
        method=method,
        r=rank,
        targets=targets,
        learning_rate=learning_rate,
        epochs=epochs,
        max_steps=max_steps,
        batch_size=batch_size,
        patience=patience,
        validation_fraction=validation,
        class_weights=class_weights,
        bf16=bf16,
        device=device,
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
