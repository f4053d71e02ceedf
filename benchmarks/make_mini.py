"""Make ``genecompass-mini``, the checkpoint that travels with the package, from a pre-training run and its corpus.

    genecompass pretrain tiny --set corpus=CORPUS --set gene_table=GENES --set optimisation.max_steps=11000 -o RUN
    python benchmarks/make_mini.py RUN CORPUS

The corpus holds human and mouse cells of public data sets, none of which is a test set of the benchmarks. Cells are not
redistributed; the card names their sources.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from genecompass.model_cards import write_card
from genecompass.tokenization.manifest import write_manifest
from genecompass.tokenization.sources import DEFAULT_MODEL
from genecompass.training.pretraining.compact import compact, count_cells_of_genes

HOME = Path(__file__).resolve().parents[1] / "modeling_genecompass" / "genecompass_mini"
# what the package holds anyway, and what only training needs
NOT_SHIPPED = ("*.py", "run.json", "figures")


def data_sets(corpus: Path) -> list[str]:
    """Names of a corpus' data sets."""
    content = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))
    return sorted({source["dataset"] for source in content["sources"]})


def main() -> None:
    """Replace the shipped checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished pre-training run")
    parser.add_argument("corpus", type=Path, help="its corpus")
    parser.add_argument("--min-cells", type=int, default=7, help="genes that fewer cells express are left out")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    new = scratch / DEFAULT_MODEL
    compact(options.run, new, count_cells_of_genes(options.corpus), min_cells=options.min_cells)
    for name in ("pretraining.json", "pretraining.yaml"):
        shutil.copy2(options.run / name, new / name)
    card = write_card(new, corpus=options.corpus, title=DEFAULT_MODEL)
    about = Path(__file__).with_name("mini_about.md").read_text(encoding="utf-8")
    about = about.format(sets=", ".join(data_sets(options.corpus)))
    card.write_text(card.read_text(encoding="utf-8") + about, encoding="utf-8")
    for pattern in NOT_SHIPPED:
        for path in new.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_manifest(new, "checkpoint", derived_from=options.corpus)
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.move(new, HOME)
    scratch.rmdir()
    size = (HOME / "model.safetensors").stat().st_size
    print(f"{DEFAULT_MODEL}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
