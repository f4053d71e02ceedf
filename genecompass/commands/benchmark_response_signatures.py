"""``genecompass benchmark response-signatures``: compounds never seen, simple methods beside the network."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from genecompass.commands.grammar import command, new_app
from genecompass.commands.options import OUTPUT, Seeds, parse_seeds
from genecompass.commands.response_options import ResponseInput

app = new_app()


@command(
    app,
    name="response-signatures",
    example="genecompass benchmark response-signatures plate.h5ad --drug pert_iname --dose pert_dose --control DMSO "
    "--layer level4_zscore -o signatures.csv",
)
def response_signatures(
    source: ResponseInput,
    output: Annotated[
        Path,
        typer.Option(
            *OUTPUT,
            help="CSV, one row per seed, method and signature; scores for a card go beside it as JSON.",
            rich_help_panel="Output",
        ),
    ],
    drug: Annotated[str, typer.Option(help="obs column of drugs.", rich_help_panel="Cells")] = "drug",
    smiles: Annotated[str, typer.Option(help="obs column of structures.", rich_help_panel="Cells")] = "smiles",
    dose: Annotated[
        str | None, typer.Option(help="obs column of doses; rows of 0 are control.", rich_help_panel="Cells")
    ] = None,
    covariate: Annotated[str | None, typer.Option(help="obs column of cell lines.", rich_help_panel="Cells")] = None,
    control: Annotated[
        str | None, typer.Option(help="Label of control rows among drugs.", rich_help_panel="Cells")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer that holds effects, such as z-scores.", rich_help_panel="Cells")
    ] = None,
    values: Annotated[
        Literal["counts", "log"],
        typer.Option(help="Without a layer: counts, or log expression as of arrays.", rich_help_panel="Cells"),
    ] = "counts",
    split: Annotated[
        Literal["drug", "scaffold"], typer.Option(help="What is held out, in folds.", rich_help_panel="Statistics")
    ] = "drug",
    folds: Annotated[int, typer.Option(min=2, help="How many.", rich_help_panel="Statistics")] = 5,
    networks: Annotated[bool, typer.Option(help="Fit networks too.", rich_help_panel="Statistics")] = True,
    seeds: Seeds = "0,1,2",
) -> None:
    """Predict what compounds never seen do, from their structure; shuffled and random structures beside it."""
    from genecompass.eval.tasks.response_genes import as_text, differences_as_text
    from genecompass.eval.tasks.response_signatures import PAIRS, benchmark_signatures
    from genecompass.inference.response.compounds import fingerprints, need_rdkit, read_structures, scaffolds
    from genecompass.inference.response.doses import read_dose_effects
    from genecompass.inference.response.effects import open_h5ad
    from genecompass.tokenization.files import atomic_path, write_json

    numbers = parse_seeds(seeds)
    need_rdkit()
    adata, where = open_h5ad(source)
    structures = read_structures(adata.obs, drug, smiles, where=where)
    effects = read_dose_effects(
        adata, drug, dose=dose, covariate=covariate, control=control, layer=layer, values=values, where=where
    )
    names, bits = fingerprints(structures)
    benchmark = benchmark_signatures(
        effects,
        names,
        bits,
        name=source.stem,
        groups=scaffolds(structures) if split == "scaffold" else None,
        n_folds=folds,
        seeds=numbers,
        network=networks,
        progress=lambda words: typer.echo(words, err=True),
    )
    differences = benchmark.differences(PAIRS)
    with atomic_path(output) as temporary:
        benchmark.conditions.to_csv(temporary, index=False)
    record = benchmark.record()
    record["differences"] = differences.to_dict("records")
    write_json(output.with_suffix(".json"), record)
    typer.echo(as_text(benchmark, ("rmse", "pearson", "spearman", "discrimination", "up_100")))
    if not differences.empty:
        typer.echo(f"\n{differences_as_text(differences)}")
