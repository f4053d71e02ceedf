"""Which folders the wheel holds: every folder of Python files below the rooms, so that none can be forgotten.

The rest of the project's description is in ``pyproject.toml``; setuptools reads both.
"""

from pathlib import Path

from setuptools import setup

ROOMS = (
    "modeling_genecompass",
    "tokenization",
    "dataset_scripts",
    "training",
    "inference",
    "eval",
    "model_cards",
)


def _packages() -> dict[str, str]:
    """Import name to folder; rooms install below ``genecompass``, so that no ``eval`` lands in site-packages."""
    roots = {"genecompass": "genecompass", **{f"genecompass.{room}": room for room in ROOMS}}
    return {
        ".".join([name, *folder.relative_to(root).parts]): folder.as_posix()
        for name, root in roots.items()
        for folder in sorted({path.parent for path in Path(root).rglob("*.py")})
    }


setup(packages=list(_packages()), package_dir=_packages())
