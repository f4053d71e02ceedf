"""Options that several verbs take, by the section of the help in which they stand."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from genecompass.tokenization.cell_options import LEAST_COVERAGE
from genecompass.tokenization.sources import DEFAULT_MODEL

CELLS = "Cells with raw counts: .h5ad, .zarr, 10x .h5 or folder, .loom, .csv, .tsv."
OUTPUT = ("--output", "-o")
# as inference.perturbation.recipes has them
RecipeName = Literal["reprogramming", "gonadal", "beta-from-alpha", "beta-from-duct", "cardiac"]

Input = Annotated[Path, typer.Argument(metavar="INPUT", help=CELLS)]
Which = Annotated[
    str | None, typer.Option(metavar="COLUMN=VALUE[,VALUE]", help="Only these cells.", rich_help_panel="Cells")
]
MaxCells = Annotated[int | None, typer.Option(min=1, help="Draw this many cells.", rich_help_panel="Cells")]
MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Genes a cell; as the model was trained by default.", rich_help_panel="Cells")
]
OutputFolder = Annotated[Path, typer.Option(*OUTPUT, help="Folder to write.", rich_help_panel="Output")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there under this name.", rich_help_panel="Output")
]
StartCells = Annotated[str, typer.Option(metavar="COLUMN=VALUE[,VALUE]", help="Start cells.", rich_help_panel="Cells")]
GoalCells = Annotated[str, typer.Option(metavar="COLUMN=VALUE[,VALUE]", help="Goal cells.", rich_help_panel="Cells")]
GoalData = Annotated[
    Path | None, typer.Option(help="File with the goal cells, where it is another one.", rich_help_panel="Cells")
]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn at random.", rich_help_panel="Statistics")]
Seeds = Annotated[
    str, typer.Option(metavar="N,N,...", help="One run with each of these seeds.", rich_help_panel="Statistics")
]
NNull = Annotated[
    int, typer.Option("--n-null", min=1, help="Matched random genes a perturbation.", rich_help_panel="Statistics")
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How files of cells are read: the same for every verb that reads cells."""

    PANEL: ClassVar[str] = "Cells"

    gene_species: Annotated[
        str | None, typer.Option(help="Species of the gene names, where counts were mapped to another.")
    ] = None
    counts: Annotated[str, typer.Option(help="Where the raw counts are: auto, X, raw or a layer.")] = "auto"
    gene_column: Annotated[str | None, typer.Option(help="var column of ids or symbols; found by itself.")] = None
    rescue_ids: Annotated[bool, typer.Option("--rescue-ids", help="Look unknown Ensembl ids up by symbol.")] = False
    allow_fractional: Annotated[
        bool, typer.Option("--allow-fractional", help="Take counts that are not whole numbers.")
    ] = False
    min_coverage: Annotated[float, typer.Option(min=0, max=1, help="Share of counts that known genes must hold.")] = (
        LEAST_COVERAGE
    )
    shared_genes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Leave genes out that the cells of FILE do not measure.")
    ] = None

    @property
    def reading(self) -> dict[str, Any]:
        """What says how a file is read, whatever the cells are."""
        return {name: value for name, value in asdict(self).items() if name not in ("species", "gene_species")}

    def open(self, path: Path) -> Any:
        """An open file of cells, for every function that reads cells."""
        from genecompass.tokenization.readers import open_cells

        return open_cells(path, **self.reading)


@dataclass(frozen=True, kw_only=True)
class CellOptions(ReadingOptions):
    """The same, of cells of one file."""

    species: Annotated[str, typer.Option(help="Species of the cells, or the obs column that says it.")]

    @property
    def named(self) -> dict[str, Any]:
        """What cells and genes are."""
        return {"species": self.species, "gene_species": self.gene_species}


@dataclass(frozen=True, kw_only=True)
class FilesOptions(ReadingOptions):
    """The same, of several files, each of which may be given as ``SPECIES=FILE``."""

    species: Annotated[
        str | None, typer.Option(help="Species, or obs column, of files that are given without one.")
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """A checkpoint and where it runs."""

    PANEL: ClassVar[str] = "Model"

    model: Annotated[str, typer.Option(help="Checkpoint or adapter: folder or owner/name[@revision].")] = DEFAULT_MODEL
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU where there is one by default.")] = None


@dataclass(frozen=True)
class InferenceOptions(ModelOptions):
    """The same, with what bounds a batch."""

    max_tokens: Annotated[int, typer.Option(min=1, help="Gene slots a batch.")] = 16384
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16: faster, coarser.")] = False

    @property
    def running(self) -> dict[str, Any]:
        """How the model is run."""
        return {"device": self.device, "max_tokens": self.max_tokens, "bf16": self.bf16}


def refuse_existing(output: Path, overwrite: bool) -> None:
    """Refuse, before the work, a name under which something is kept already; an empty folder is nothing."""
    from genecompass.tokenization.errors import InputError

    there = any(output.iterdir()) if output.is_dir() else output.exists()
    if there and not overwrite:
        raise InputError(f"{output}: is there already; choose another name or pass --overwrite")


def parse_seeds(text: str) -> list[int]:
    """``"0,1,2"`` as numbers.

    Examples
    --------
    >>> parse_seeds("0,1,2")
    [0, 1, 2]
    """
    from genecompass.tokenization.errors import InputError

    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--seeds {text!r}: write whole numbers with commas between, such as 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {text!r}: the same seed twice")
    return seeds


def chosen(source: Any, where: str | None) -> Any:
    """Rows that ``COLUMN=VALUE`` names; None for all."""
    if where is None:
        return None
    from genecompass.inference.perturbation.cell_fate import select_cells

    return select_cells(source, where)
