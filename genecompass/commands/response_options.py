"""Options that the verbs about responses share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

ResponseInput = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help="h5ad of cells with raw counts in X, or with one effect a row."),
]


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What is known about genes beforehand."""

    PANEL: ClassVar[str] = "Gene tables"

    go: Annotated[Path | None, typer.Option(help="GO annotations: TSV with go_id and gene_symbols.")] = None
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Gene table: names, then numbers; .csv, .tsv, .parquet. Repeatable."),
    ] = None

    def read(self, genes: Sequence[str]) -> list[Any]:
        """The tables, GO's over these genes."""
        from genecompass.inference.response.features import go_table, read_go, read_table
        from genecompass.tokenization.errors import InputError

        found = []
        if self.go is not None:
            found.append(go_table(read_go(self.go), genes, width=64))
        for pair in self.table or ():
            name, _, path = pair.partition("=")
            if not path:
                raise InputError(f"--table {pair!r}: write NAME=FILE")
            found.append(read_table(name, path))
        return found

    def only(self) -> Any:
        """The one table that a network reads; None where none is given."""
        from genecompass.inference.response.features import read_table
        from genecompass.tokenization.errors import InputError

        if not self.table:
            return None
        name, _, path = self.table[0].partition("=")
        if len(self.table) > 1 or not path:
            raise InputError(f"--table {' '.join(self.table)!r}: give one, as NAME=FILE")
        return read_table(name, path)


@dataclass(frozen=True, kw_only=True)
class MaybeModelOptions:
    """A checkpoint that gives genes a meaning, which can be left out."""

    PANEL: ClassVar[str] = "Model"

    model: Annotated[str | None, typer.Option(help="Checkpoint whose gene table is read; none by default.")] = None
    species: Annotated[str | None, typer.Option(help="Species of the genes, with a model.")] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU where there is one by default.")] = None

    def read(self, genes: Sequence[str], context: Path | None) -> list[Any]:
        """The checkpoint's tables: its input, and with cells its mean states in them; none without a model."""
        from genecompass.tokenization.errors import InputError

        if self.model is None:
            if context is not None:
                raise InputError("--context needs a --model whose states are read in those cells")
            return []
        if self.species is None:
            raise InputError("--model needs the species of the genes: --species human, or another")
        from genecompass.inference.response.checkpoint_tables import context_table, input_table
        from genecompass.inference.response.effects import open_h5ad

        found = [input_table(self.model, genes, species=self.species, device=self.device)]
        if context is not None:
            cells, _ = open_h5ad(context)
            found.append(context_table(cells, self.model, species=self.species, device=self.device))
        return found
