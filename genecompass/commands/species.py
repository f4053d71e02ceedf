"""``genecompass species add``: a trained checkpoint that also reads another species."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import DEFAULT_MODEL, OutputFolder, Seed

app = new_app("Add a species to a trained checkpoint; what it computes for its old species does not change.")


@command(
    app,
    example="genecompass species add demo_output/checkpoint --species zebrafish --annotation zebrafish.gtf.gz "
    "--homologs hcop_human_zebrafish.tsv.gz -o with_zebrafish",
)
def add(
    output: OutputFolder,
    species: Annotated[str, typer.Option(help="Name of the new species.")],
    annotation: Annotated[Path, typer.Option(help="Its genes: GTF, or a table of gene_id, symbol, biotype.")],
    homologs: Annotated[
        list[Path], typer.Option(help="Table of homologs: ids of both species, n_support. Repeatable.")
    ],
    checkpoint: Annotated[
        str, typer.Argument(metavar="[INPUT]", help="Checkpoint: folder or owner/name[@revision].")
    ] = DEFAULT_MODEL,
    like: Annotated[str | None, typer.Option(help="Old species at which the new one starts; the first.")] = None,
    min_support: Annotated[int, typer.Option(min=1, help="Sources that must name a pair of homologs.")] = 1,
    seed: Seed = 0,
) -> None:
    """Write a copy of a checkpoint with tokens, rows and a slot for another species.

    One-to-one homologs share tokens; a gene of several gets the mean of their rows; others are drawn like the rest.
    With cells of the new species, `genecompass adapt` goes on from there.
    """
    from genecompass.dataset_scripts.new_species import add_species
    from genecompass.model_cards import write_card

    added = add_species(
        checkpoint,
        output,
        species=species,
        annotation=annotation,
        homologs=homologs,
        like=like,
        min_support=min_support,
        seed=seed,
    )
    write_card(output)
    tiers = added.by_tier
    typer.echo(
        f"{species}: {tiers['shared']:,} genes share the token of their one-to-one homolog, {tiers['homologs']:,} "
        f"start from several homologs, {tiers['none']:,} have none"
    )
    typer.echo(f"wrote {output}; its genes by tier: {output / f'species_{species}.tsv'}")
