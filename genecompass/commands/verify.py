"""``genecompass verify``: whether a folder is what was saved, and still computes the same."""

from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app

app = new_app()


@command(app, example="genecompass verify demo_output/checkpoint")
def verify(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Folder, or owner/name[@revision] on the Hub.")],
    dataset: Annotated[
        bool | None, typer.Option("--dataset/--model", help="Kind of repository; tries both by default.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="For an adapter: base checkpoint, if not the one it names.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check files against the manifest, load with remote code off, compare outputs with those recorded at save.

    Exits with 1 where something is wrong, and with 3 where the files are right but the model could not be run.
    """
    from genecompass.model_cards import verify_source
    from genecompass.model_cards.verify import to_json

    repo_type = None if dataset is None else "dataset" if dataset else "model"
    found = verify_source(source, repo_type=repo_type, base=base)
    unrun = any(line.startswith("model: not run") for line in found.skipped)
    if as_json:
        typer.echo(to_json(found))
    else:
        for word, lines in (("ok", found.passed), ("not checked", found.skipped), ("PROBLEM", found.problems)):
            for line in lines:
                typer.echo(f"{word:<12} {line}")
        good = "files verified, but the model was not run" if unrun else "verified"
        typer.echo(f"{found.source}: {good if found.ok else f'{len(found.problems)} problems'}")
    if not found.ok:
        raise typer.Exit(1)
    if unrun:
        raise typer.Exit(3)
