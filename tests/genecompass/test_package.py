"""The wheel holds every room: no folder of code can be left out of it."""

import runpy
from pathlib import Path

import setuptools

ROOT = Path(__file__).resolve().parents[2]


def test_every_folder_of_code_is_a_package(monkeypatch):
    asked = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: asked.update(options))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    rooms = [ROOT / folder for name, folder in asked["package_dir"].items() if name.count(".") <= 1]
    assert len(rooms) >= 8
    held = {ROOT / folder for folder in asked["package_dir"].values()}
    for room in rooms:
        for path in room.rglob("*.py"):
            assert path.parent in held, f"{path} would be missing from the wheel"
    assert set(asked["packages"]) == set(asked["package_dir"])
    assert asked["package_dir"]["genecompass.inference.perturbation"] == "inference/perturbation"
