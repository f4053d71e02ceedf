"""How each part of a standard table is run: the benchmarks as they are, with rows as model cards read them."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...tokenization.readers import open_cells
from . import gene_classification, zero_shot
from .annotation import ALL_CELLS, FROZEN, METHODS, NEIGHBOURS, TRAINED
from .benchmarks import (
    BenchmarkSettings,
    Budget,
    benchmark_annotation,
    benchmark_cross_species,
    benchmark_gene_classification,
    benchmark_zero_shot,
    choose,
)
from .standard_plan import Part

Echo = Callable[[str], Any]
Rows = list[dict[str, Any]]
# rows that train nothing of the network: minutes, not hours; a plan names others under `methods:`
UNTRAINED_METHODS = tuple(method for method in METHODS if method not in TRAINED)
GENE_METHODS = ("rule", "detection rate", "PCA", "gene embedding")
NETWORKS = ("expression_level", "similarity", "pearson", "spearman", "grnboost2", "random")
# the row of the checkpoint that stands in the summary, fixed beforehand; the first that is there
OURS: dict[str, tuple[str, ...]] = {
    "annotation": (FROZEN, NEIGHBOURS),
    "cross-species": (FROZEN, NEIGHBOURS),
    "zero-shot": tuple(zero_shot.OURS),
    "gene-classification": (gene_classification.FROZEN,),
    "perturbation": ("this model, deletion",),
    "grn": ("similarity",),
    "response-genes": ("ridge on genecompass input",),
}
# and the measure
MEASURE: dict[str, str] = {
    "annotation": "macro_f1",
    "cross-species": "macro_f1",
    "zero-shot": "neighbour_agreement",
    "gene-classification": "auroc",
    "perturbation": "precision at 10",
    "grn": "auprc_ratio",
    "response-genes": "pearson",
}


@dataclass(frozen=True)
class Outcome:
    """What a part gave.

    Parameters
    ----------
    rows
        ``dataset``, ``method``, ``metric``, ``mean``, ``std``, ``seeds``, ``ours``.
    differences
        Data set to the difference of the summary's row to a baseline where the task measures one: ``value``,
        ``low``, ``high``, ``verdict``, and ``against``, the baseline's name.
    """

    rows: Rows
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_part(part: Part, model: Path, folder: Path, *, device: str | None, echo: Echo | None) -> Outcome:
    """Run one part.

    Parameters
    ----------
    part
        Of a plan.
    model
        Folder of the checkpoint.
    folder
        For what the benchmark leaves; a run that was killed goes on from there where the benchmark can.
    device
        Where the model runs.
    echo
        Gets a line a run.

    Raises
    ------
    InputError
        What the benchmark says of its cells.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _RUNNERS[part.task](part, model, folder, device, echo)


def scib_wanted(said: bool | None) -> bool:
    """Whether the scores of scib-metrics are computed: as said, else where it is installed."""
    return importlib.util.find_spec("scib_metrics") is not None if said is None else bool(said)


def _settings(part: Part, device: str | None) -> BenchmarkSettings:
    wanted = part.settings
    methods = UNTRAINED_METHODS if wanted["methods"] is None else choose(_words(wanted["methods"]), METHODS)
    points = tuple(None if k in (None, ALL_CELLS) else int(k) for k in wanted["cells_per_class"])
    budget = Budget(max_steps=wanted["max_steps"], device=device)
    return BenchmarkSettings(methods, part.seeds, points, wanted["max_length"], budget, figures=False)


def _words(methods: Any) -> str:
    return methods if isinstance(methods, str) else ",".join(map(str, methods))


def _annotation(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    wanted = part.settings
    common: dict[str, Any] = {"label": wanted["label"], "gene_species": wanted["gene_species"], "name": part.name}
    common |= {"settings": _settings(part, device), "echo": echo}
    cells = open_cells(wanted["cells"], **part.reading)
    if part.task == "cross-species":
        benchmark_cross_species(cells, model, folder, species_column=wanted["species"], **common)
    else:
        test = None if wanted["test"] is None else open_cells(wanted["test"], **part.reading)
        options = {name: wanted[name] for name in ("species", "split_by", "folds")}
        benchmark_annotation(cells, model, folder, test=test, **options, **common)
    content = json.loads((folder / f"{part.task}.json").read_text(encoding="utf-8"))
    rows = list(content["rows"])
    ours = {row["method"] for row in rows if row["ours"]}
    rows += [
        {
            "dataset": f"{row['split']}, {row['cells_per_class']} labelled cells a class",
            **{"method": row["method"], "metric": "macro_f1", "mean": row["macro_f1_mean"]},
            **{"std": row["macro_f1_sd"], "seeds": row["seeds"], "ours": row["method"] in ours},
        }
        for row in content["curve"]
        if row["cells_per_class"] != ALL_CELLS
    ]
    name = next((method for method in OURS[part.task] if method in ours), "")
    found = {
        split: {**compared["methods"][name], "against": compared["baseline"]}
        for split, compared in content["differences"].items()
        if name in compared["methods"]
    }
    return Outcome(rows, found)


def _zero_shot(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    wanted = part.settings
    paths = wanted["cells"] if isinstance(wanted["cells"], list) else [wanted["cells"]]
    batch = None if wanted["batch"] in (None, "none") else wanted["batch"]
    options = {name: wanted[name] for name in ("species", "label", "gene_species", "max_length")}
    benchmark_zero_shot(
        [open_cells(path, **part.reading) for path in paths],
        model,
        folder,
        batch=batch,
        seeds=part.seeds,
        scib=scib_wanted(wanted["scib"]),
        figures=False,
        device=device,
        echo=echo,
        **options,
    )
    return _named(part, json.loads((folder / "zero-shot.json").read_text(encoding="utf-8"))["rows"])


def _gene_classification(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    wanted = part.settings
    options = {name: wanted[name] for name in ("species", "folds", "folds_by", "max_cells", "max_length", "max_steps")}
    benchmark_gene_classification(
        open_cells(wanted["cells"], **part.reading),
        wanted["labels"],
        model,
        folder,
        methods=_words(wanted["methods"] or GENE_METHODS),
        seeds=part.seeds,
        device=device,
        echo=echo,
        **options,
    )
    return _named(part, json.loads((folder / "gene-classification.json").read_text(encoding="utf-8"))["rows"])


def _perturbation(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    from .perturbation import benchmark_deletions, read_targets

    wanted = part.settings
    options = {name: wanted[name] for name in ("species", "gene_species", "factors", "max_factors", "max_cells")}
    found = benchmark_deletions(
        open_cells(wanted["cells"], **part.reading),
        str(model),
        read_targets(wanted["targets"]),
        n_null=wanted["n_null"],
        seed=part.seeds[0],
        device=device,
        progress=False,
        **options,
    )
    found.factors.to_csv(folder / "factors.csv", index=False)
    return Outcome([{**row, "dataset": f"{part.name}: {row['dataset']}"} for row in found.record()["rows"]])


def _grn(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    from .grn import beeline_cells

    wanted = part.settings
    options = {name: wanted[name] for name in ("species", "gene_species", "regulators", "max_cells", "n_variable")}
    found = beeline_cells(
        open_cells(wanted["cells"], **part.reading),
        wanted["references"],
        model=str(model),
        methods=wanted["methods"] or NETWORKS,
        name=part.name,
        seeds=part.seeds,
        device=device,
        **options,
    )
    found.runs.to_csv(folder / "runs.csv", index=False)
    return Outcome(found.record()["rows"])


def _response_genes(part: Part, model: Path, folder: Path, device: str | None, echo: Echo | None) -> Outcome:
    from ...inference.response.checkpoint_tables import input_table
    from ...inference.response.conditions import all_genes
    from ...inference.response.effects import open_h5ad, read_effects
    from ...inference.response.features import go_table, read_go
    from .response_genes import BEST, benchmark_genes

    wanted = part.settings
    adata, where = open_h5ad(wanted["cells"])
    effects = read_effects(adata, wanted["perturbation"], control=wanted["control"], where=where)
    names = all_genes([*effects.conditions.genes, effects.genes])
    checkpoint = input_table(str(model), names, species=wanted["species"], device=device)
    tables = [] if wanted["go"] is None else [go_table(read_go(wanted["go"]), names, width=64)]
    ours = [f"{kind} {checkpoint.name}" for kind in ("ridge on", "5 nearest on")]
    found = benchmark_genes(
        effects,
        name=part.name,
        seeds=part.seeds,
        tables=[*tables, checkpoint],
        seen=wanted["seen"],
        ours=ours,
        progress=echo,
    )
    found.conditions.to_csv(folder / "conditions.csv", index=False)
    compared = found.differences([(ours[0], BEST)], ("pearson",))
    differences = {
        f"{row['data']}, {row['group']}": {
            **{"value": row["difference"], "against": BEST},
            **{name: row[name] for name in ("low", "high", "verdict")},
        }
        for row in compared.to_dict("records")
    }
    return Outcome(found.record()["rows"], differences)


def _named(part: Part, rows: Rows) -> Outcome:
    return Outcome([{**row, "dataset": part.name} for row in rows])


_RUNNERS: dict[str, Callable[[Part, Path, Path, str | None, Echo | None], Outcome]] = {
    "annotation": _annotation,
    "cross-species": _annotation,
    "zero-shot": _zero_shot,
    "gene-classification": _gene_classification,
    "perturbation": _perturbation,
    "grn": _grn,
    "response-genes": _response_genes,
}
