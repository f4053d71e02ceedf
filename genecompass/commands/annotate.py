"""``genecompass annotate``: cell-type labels into a copy of an ``.h5ad`` file."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog="Examples: genecompass annotate query.h5ad --model runs/pbmc --species human -o labelled.h5ad; "
    "without training: genecompass annotate mouse.h5ad --model runs/tiny --species mouse --reference human.h5ad "
    "--label cell_type --reference-species human -o labelled.h5ad"
)
def annotate(
    source: Annotated[Path, typer.Argument(metavar="QUERY.h5ad", help="Cells with raw counts.")],
    model: Annotated[str, typer.Option(help="Fine-tuned model or adapter; with --reference any checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Copy of the query with labels added.")],
    species: Annotated[str, typer.Option(help="Species of the cells, or an obs column that says it.")],
    reference: Annotated[
        Path | None, typer.Option(help="Labelled cells to take labels from, without training.")
    ] = None,
    label: Annotated[str, typer.Option(help="The reference's obs column of labels.")] = "cell_type",
    reference_species: Annotated[str | None, typer.Option(help="Species of the reference, if another.")] = None,
    reference_gene_species: Annotated[
        str | None, typer.Option(help="Species of the reference's gene names, if not its cells'.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Cells with a lower score are called unsure.")] = 0.5,
    unsure: Annotated[str, typer.Option(help="What to call them.")] = "unsure",
    k: Annotated[int, typer.Option(help="Nearest reference cells that vote.")] = 15,
    pooling: Annotated[str, typer.Option(help="Embedding for --reference, as embed takes it.")] = "auto",
    align: Annotated[
        str, typer.Option(help="none, center (each set by itself), or auto: center across species.")
    ] = "none",
    key: Annotated[str, typer.Option(help="Name in obs.")] = "genecompass_cell_type",
    explain: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a cell: also which genes speak for its label, as table and figure; may be repeated."
        ),
    ] = None,
    gene_species: Annotated[str | None, typer.Option(help="Species of the gene names, if not the cells'.")] = None,
    counts: Annotated[str, typer.Option(help="Where the raw counts are: auto, X, raw or a layer.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Genes a cell; as in training by default.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU where there is one.")] = None,
    seed: Annotated[int, typer.Option(help="Accepted for uniformity: annotation draws no random numbers.")] = 0,
) -> None:
    """Label cells with a fine-tuned model, or from a labelled reference, with calibrated scores."""
    from genecompass.inference.annotation.in_memory import Reference
    from genecompass.inference.annotation.streamed import annotate_file

    known = None if reference is None else Reference(reference, label, reference_species, reference_gene_species)
    written = annotate_file(
        source,
        output,
        model,
        species,
        reference=known,
        counts=counts,
        threshold=threshold,
        unsure=unsure,
        k=k,
        pooling=pooling,
        align=align,
        key=key,
        gene_species=gene_species,
        max_length=max_length,
        bf16=bf16,
        device=device,
        progress=True,
    )
    typer.echo(f"wrote {written}: obs[{key!r}], obs['{key}_best'], obs['{key}_score']")
    for cell in explain or []:
        from genecompass.eval.plots import plot_gene_scores
        from genecompass.inference.annotation.attribution import explain as explain_cell

        reading: dict[str, Any] = {"gene_species": gene_species, "counts": counts, "max_length": max_length}
        found = explain_cell(source, model, species, cell, device=device, **reading)
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in cell)
        table = found.write(output.with_name(f"{output.stem}_{safe}.tsv"))
        figures = plot_gene_scores(found.scores, table, title=f"{cell}: {found.target}")
        typer.echo(f"wrote {table}, {', '.join(map(str, figures))}: what speaks for {found.target!r} in {cell}")
