"""Who may import whom: the arrows between rooms run one way."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "modeling_genecompass": set(),
    "modeling_genecompass/conversion": {"modeling_genecompass", "tokenization"},
    "tokenization": set(),
    "dataset_scripts": {"tokenization", "modeling_genecompass"},
    "training": {"tokenization", "modeling_genecompass", "dataset_scripts", "eval/metrics"},
    "inference": {"tokenization", "modeling_genecompass", "dataset_scripts"},
    "eval/metrics": set(),
    "eval": {"tokenization", "modeling_genecompass", "dataset_scripts", "training", "inference", "eval/metrics"},
    # cards also need the atomic writes and checksums of the lowest room; verification registers the network's classes
    "model_cards": {"eval", "eval/metrics", "tokenization", "modeling_genecompass"},
}
# copied next to the weights, so they must run where the package is not installed
PORTABLE = sorted(
    str(path.relative_to(ROOT))
    for room in ("modeling_genecompass", "tokenization")
    for path in (ROOT / room).glob("*_genecompass.py")
)


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    nested = "/".join(parts[:2])
    return nested if nested in MAY_IMPORT else parts[0]


def _imports(path: Path) -> list[tuple[int, str]]:
    """Every import in a file as (line, dotted name below ``genecompass``)."""
    package = ["genecompass", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            found.append((node.lineno, ".".join(part for part in (base, node.module) if part)))
    return found


def _room_of_import(name: str) -> str | None:
    if not name.startswith("genecompass."):
        return None
    parts = name.split(".")[1:]
    nested = "/".join(parts[:2])
    return nested if nested in MAY_IMPORT else parts[0]


@pytest.mark.parametrize("folder", sorted({room.split("/")[0] for room in MAY_IMPORT}))
def test_arrows_run_one_way(folder):
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        room = _room(path)
        for line, name in _imports(path):
            target = _room_of_import(name)
            if target is not None and target != room and target not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PORTABLE)
def test_portable_files_need_nothing_of_ours(name):
    allowed = {"torch", "transformers", "tokenizers", "numpy"}
    path = ROOT / name
    for line, module in _imports(path):
        top = module.split(".")[0]
        sibling = module.startswith("genecompass." + path.parent.name + ".") and module.count(".") == 2
        assert top in allowed or top in sys.stdlib_module_names or sibling, f"{name}:{line} imports {module}"
