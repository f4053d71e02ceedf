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

    def read(self, perturbed: Sequence[Sequence[str]]) -> list[Any]:
        """The tables, GO's over the perturbed genes."""
        from genecompass.inference.response.conditions import all_genes
        from genecompass.inference.response.features import go_table, read_go, read_table
        from genecompass.tokenization.errors import InputError

        found = []
        if self.go is not None:
            found.append(go_table(read_go(self.go), all_genes(perturbed)))
        for pair in self.table or ():
            name, _, path = pair.partition("=")
            if not path:
                raise InputError(f"--table {pair!r}: write NAME=FILE")
            found.append(read_table(name, path))
        return found
