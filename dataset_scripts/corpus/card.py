"""The corpus's dataset card: configurations for ``load_dataset``, statistics, provenance, licences."""

from typing import Any

import yaml

from . import layout


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
    return f"# GeneCompass corpus\n\n{layout.CARD}\n"
