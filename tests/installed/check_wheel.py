"""Run inside an environment that holds the wheel and no checkout: every module imports, and verbs do their work.

Called by ``.ci/wheel`` with the installed ``genecompass`` command and the sdist; not part of the test suite.
"""

import importlib
import pkgutil
import subprocess
import sys
import tarfile
from importlib.metadata import files
from pathlib import Path

VERBS = (
    ("demo", "--quick", "-o", "demo"),
    ("embed", "demo/cells.h5ad", "--model", "demo/checkpoint", "--species", "human", "-o", "embedded.h5ad"),
    ("verify", "demo/checkpoint"),
    # without a model: the checkpoint that travels in the wheel
    ("verify", "genecompass-mini"),
    ("embed", "demo/cells.h5ad", "--species", "human", "-o", "embedded_mini.h5ad"),
    (
        *("annotate", "demo/cells.h5ad", "--species", "human", "--reference", "demo/corpus_input/training_cells.h5ad"),
        *("-o", "labelled.h5ad"),
    ),
    ("perturb", "genes", "demo/cells.h5ad", "--species", "human", "-g", "CD3D", "--max-cells", "10", "-o", "deletion"),
)


def _import_everything() -> int:
    import genecompass

    names = [module.name for module in pkgutil.walk_packages(genecompass.__path__, "genecompass.")]
    for name in names:
        importlib.import_module(name)
    return len(names)


def _forgotten(sdist: str) -> set[str]:
    """Python files that the sdist's rooms hold and the installed package does not."""
    installed = {str(path).removeprefix("genecompass/") for path in files("genecompass") or ()}
    with tarfile.open(sdist) as archive:
        shipped = {name.split("/", 1)[1] for name in archive.getnames() if name.endswith(".py") and "/" in name}
    rooms = {path.split("/")[0] for path in installed if path.endswith("/__init__.py")}
    rooms -= {"commands"}
    return {path for path in shipped if path.split("/")[0] in rooms} - installed


def main() -> None:
    command, sdist = sys.argv[1:]
    sys.stdout.write(f"{_import_everything()} modules import\n")
    if missing := _forgotten(sdist):
        sys.exit(f"the wheel lacks {', '.join(sorted(missing))}")
    for verb in VERBS:
        subprocess.run([command, *verb], check=True, stdout=subprocess.DEVNULL)
        sys.stdout.write(f"genecompass {' '.join(verb)}: done\n")
    if not Path("embedded.h5ad").exists():
        sys.exit("embed left no file")


if __name__ == "__main__":
    main()
