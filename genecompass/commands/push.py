"""``genecompass push``: publish a finished folder on the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from genecompass.commands.grammar import command, new_app

app = new_app()


@command(
    app,
    example="genecompass push demo_output/checkpoint --repo someone/genecompass-demo --revision v1 --dry-run",
)
def push(
    folder: Annotated[
        Path, typer.Argument(metavar="INPUT", help="Finished checkpoint, adapter, prior table or corpus.")
    ],
    repo: Annotated[str, typer.Option(help="owner/name on the Hub.", rich_help_panel="Output")],
    dataset: Annotated[
        bool | None,
        typer.Option("--dataset/--model", help="Kind of repository; corpora and priors are datasets."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="New repositories are private unless you say --public.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Tag for this version, so that users can pin it.")] = None,
    move_tag: Annotated[bool, typer.Option("--move-tag", help="Let an existing tag move to this version.")] = False,
    base: Annotated[
        str | None, typer.Option(help="For an adapter: its base checkpoint on the Hub, owner/name[@tag].")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go up, and change nothing.")] = False,
) -> None:
    """Upload a folder: shows every file first, refuses pickles, local paths, secrets and unlisted files."""
    from genecompass.model_cards import plan_push, point_at_hub, push_folder
    from genecompass.model_cards.push import copy_for_hub

    # what goes up speaks of its repository; the folder here stays as it is, whatever becomes of the push
    with copy_for_hub(folder) as ready:
        point_at_hub(ready, repo, tag=revision, base=base)
        plan = plan_push(ready, repo, dataset=dataset, tag=revision, private=private, base=base)
        for name, size in sorted(plan.files.items()):
            typer.echo(f"{size:>14,} bytes  {name}")
        for name in plan.left_here:
            typer.echo(f"    stays here (training state): {name}")
        typer.echo(
            f"{plan.total_bytes:>14,} bytes in {len(plan.files)} files: {plan.kind} to {plan.repo_type} {plan.repo}"
        )
        if dry_run:
            typer.echo("Dry run: nothing was sent.")
            return
        pushed = push_folder(plan, move_tag=move_tag)
        typer.echo(f"{pushed.url} at {pushed.commit}" + (f", tagged {revision}" if revision else ""))
        typer.echo(pushed.load)
