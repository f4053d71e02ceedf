"""What ``import genecompass as gc`` promises exists."""

import pytest

import genecompass


@pytest.mark.parametrize("name", [name for name in genecompass.__all__ if name != "__version__"])
def test_public_name_resolves_and_is_documented(name):
    assert getattr(genecompass, name).__doc__


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = genecompass.no_such_thing


def test_every_portable_and_public_folder_is_packaged():
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    import tomllib

    packages = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    rooms = ("modeling_genecompass", "tokenization", "dataset_scripts", "training", "inference", "eval", "model_cards")
    found = {
        "genecompass." + ".".join(p.parent.relative_to(root).parts)
        for r in rooms
        for p in (root / r).rglob("__init__.py")
    }
    assert found <= packages, f"missing from [tool.setuptools] packages: {sorted(found - packages)}"
