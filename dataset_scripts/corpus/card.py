"""The corpus's dataset card: configurations for ``load_dataset``, statistics, provenance, licences."""

from typing import Any

import yaml
from genecompass.tokenization.markdown import plain


def card_text(content: dict[str, Any]) -> str:
    """The dataset card of a corpus, from what its manifest records.

    Parameters
    ----------
    content
        The manifest, without the list of files.
    """
    return f"---\n{yaml.safe_dump(_front_matter(content), sort_keys=False, allow_unicode=True)}---\n\n{_body(content)}"


def _front_matter(content: dict[str, Any]) -> dict[str, Any]:
    species = sorted(content["species"])
    rows = {name: content["species"][name]["cells"] for name in species}
    count = content["options"]["count_type"]
    features: list[dict[str, Any]] = [
        {"name": "genes", "list": "int32"},
        {"name": "counts", "list": count},
        {"name": "n_counts", "dtype": "int64" if count == "int32" else "float64"},
        *({"name": name, "dtype": "string"} for name in ("species", "dataset", "cell_id", *content["obs_columns"])),
    ]
    configs = [("all", "data/*/train-*.parquet")] + [(name, f"data/{name}/train-*.parquet") for name in species]
    licences = sorted({entry["licence"] for entry in content["sources"] if entry["licence"]})
    return {
        "license": "other",
        "license_name": "per-source",
        "license_details": "; ".join(licences) or "not stated by the sources",
        "pretty_name": "GeneCompass corpus: " + " and ".join(species),
        "tags": ["biology", "single-cell", "transcriptomics", "genecompass", *species],
        "size_categories": [_size_category(sum(rows.values()))],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}], "default": name == "all"}
            for name, path in configs
        ],
        "dataset_info": [{"config_name": name, "features": features} for name, _ in configs],
    }


def _size_category(n_cells: int) -> str:
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    bounds += [(10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")]
    return next((name for bound, name in bounds if n_cells < bound), "1B<n<10B")


def _body(content: dict[str, Any]) -> str:
    total = sum(entry["cells"] for entry in content["species"].values())
    names = " and ".join(sorted(content["species"]))
    sections = [
        f"# GeneCompass corpus: {total:,} cells of {names}",
        "Raw single-cell counts, one row a cell, shuffled over shards: read it from the start and cells of all sources "
        "come mixed. No value is normalised, no gene left out; tokens, values and lengths are a reader's choice.",
        "## Use",
        f"```python\n{usage(content)}\n```",
        "Tokenised on the fly, ready for a model (`pip install genecompass`):",
        f"```python\n{usage_with_package(content)}\n```",
        "Selecting (`select={...}`) skips what need not be read: the other species, and blocks of "
        f"{content['row_group_cells']} cells without a chosen one. Cells are shuffled, so that pays for a species or a "
        "rare value; a tissue with one cell in fifty or more is in nearly every block, and nearly all is read.",
        "## Columns",
        _columns(content),
        "## Cells",
        _statistics(content),
        "## Sources",
        _sources(content),
        "## Quality control",
        _quality(content),
        "## Licence and citation",
        "Each source keeps its own licence (table above); cite the studies whose cells you use, and GeneCompass: Yang "
        "et al., Cell Research 34, 830-845 (2024), doi 10.1038/s41422-024-01034-y.",
    ]
    return "\n\n".join(sections) + "\n"


def usage(content: dict[str, Any], where: str = "<this repository or a local folder>") -> str:
    """Three lines that read the corpus with `datasets` alone.

    Parameters
    ----------
    content
        The corpus's manifest.
    where
        Repository or folder to put into the example.
    """
    species = sorted(content["species"])[0]
    return (
        "from datasets import load_dataset\n"
        f'cells = load_dataset("{where}", "{species}", split="train", streaming=True)\n'
        f'cell = next(iter(cells))  # cell["genes"]: rows of genes/{species}.parquet; cell["counts"]: raw counts'
    )


def usage_with_package(
    content: dict[str, Any], where: str = "<this repository or a local folder>", table: str = "genes.tsv.gz"
) -> str:
    """Three lines that stream tokenised cells.

    Parameters
    ----------
    content, where
        As for `usage`.
    table
        Gene table or checkpoint to put into the example.
    """
    species = sorted(content["species"])[0]
    return (
        "from genecompass import open_corpus\n"
        f'cells = open_corpus("{where}", "{table}", select={{"species": "{species}"}})\n'
        "cell = next(iter(cells))  # input_ids, values, species, cell_id, dataset"
    )


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _columns(content: dict[str, Any]) -> str:
    count = content["options"]["count_type"]
    rows = [
        ["`genes`", "list of int32", "expressed genes: ascending row numbers of `genes/<species>.parquet`"],
        ["`counts`", f"list of {count}", "their raw counts"],
        ["`n_counts`", "int64" if count == "int32" else "float64", "sum of the counts"],
        ["`species`, `dataset`, `cell_id`", "text", "whose cell, from which source, called what there"],
    ]
    rows += [[f"`{name}`", "text", "as the source says; null where it does not"] for name in content["obs_columns"]]
    return _table(["column", "type", "meaning"], rows)


def _statistics(content: dict[str, Any]) -> str:
    rows = []
    for name, entry in sorted(content["species"].items()):
        size = sum(shard["bytes"] for shard in content["shards"].values() if shard["species"] == name)
        mean = entry["expressed"] / max(entry["cells"], 1)
        rows.append([name, entry["cells"], entry["shards"], entry["genes"], f"{mean:,.0f}", f"{size / 1e6:,.1f} MB"])
    return _table(["species", "cells", "shards", "genes on the axis", "expressed genes a cell", "size"], rows)


def _sources(content: dict[str, Any]) -> str:
    rows = []
    for entry in content["sources"]:
        species = ", ".join(f"{name} {number:,}" for name, number in sorted(entry["species"].items()))
        if entry["gene_species"]:
            species += f" (as {entry['gene_species']} genes)"
        # what a table of inputs says is shown as it is: it may not become a link, a tag or another column
        licence, citation = plain(entry["licence"] or "not stated"), plain(entry["citation"] or "not stated")
        dataset, file = plain(entry["dataset"]), plain(entry["file"])
        rows.append([dataset, species, entry["kept"], licence, citation, file, f"`{entry['sha256'][:12]}`"])
    return _table(["dataset", "cells in the file", "kept", "licence", "citation", "file", "sha256"], rows)


def _quality(content: dict[str, Any]) -> str:
    removed = [[plain(entry["dataset"]), *item] for entry in content["sources"] for item in entry["removed"].items()]
    text = f"Preset: `{content['options']['quality']}`."
    if not removed:
        return text + " No cell was removed."
    return text + "\n\n" + _table(["dataset", "rule", "cells removed"], removed)
