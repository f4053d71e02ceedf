"""Options that the annotation benchmarks share."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal

import typer


@dataclass(frozen=True)
class BudgetOptions:
    """Which rows a table has and how long the model's may train."""

    PANEL: ClassVar[str] = "Statistics"

    methods: Annotated[
        str | None, typer.Option(metavar="NAME,NAME,...", help="Parts of method names; all by default.")
    ] = None
    seeds: Annotated[str, typer.Option(metavar="N,N,...", help="One run with each of these seeds.")] = "0,1,2"
    cells_per_class: Annotated[str, typer.Option(metavar="N,N,...", help="Labelled cells a class.")] = "5,10,25,all"
    max_length: Annotated[int, typer.Option(min=1, help="Genes a cell for the model.")] = 512
    max_steps: Annotated[int, typer.Option(min=1, help="Training steps a run at most.")] = 150
    epochs: Annotated[float, typer.Option(min=0, help="Epochs a run at most.")] = 30
    batch_size: Annotated[int, typer.Option(min=1, help="Cells a step.")] = 16
    learning_rates: Annotated[
        list[str] | None,
        typer.Option("--learning-rate", metavar="METHOD=RATE", help="For example lora=0.005. Repeatable."),
    ] = None
    pooling: Annotated[
        Literal["mean", "species"], typer.Option(help="What embeddings are taken from where there is no cell vector.")
    ] = "mean"
    figures: Annotated[bool, typer.Option(help="Draw figures.")] = True

    def settings(self, device: str | None) -> Any:
        """As the benchmark takes them."""
        from genecompass.eval.tasks.benchmarks import BenchmarkSettings

        return BenchmarkSettings.parse(**{**asdict(self), "learning_rates": self.learning_rates or []}, device=device)
