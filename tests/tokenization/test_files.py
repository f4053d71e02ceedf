"""Atomic writes leave files that others may read as any new file."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassModel
from genecompass.tokenization.files import atomic_path
from safetensors.numpy import save_file

TABLE = {"rows": np.zeros(2, np.float32)}


def test_weights_are_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    usual = (tmp_path / "plain").stat().st_mode
    with atomic_path(tmp_path / "table.safetensors") as temporary:
        save_file(TABLE, temporary)
    with atomic_path(tmp_path / "folder") as temporary:
        temporary.mkdir()
        save_file(TABLE, temporary / "inside.safetensors")
    torch.manual_seed(0)
    GeneCompassModel(GeneCompassConfig.tiny(vocab_size=10)).save_pretrained(tmp_path / "model")
    for name in ("table.safetensors", "folder/inside.safetensors", "model/model.safetensors"):
        assert (tmp_path / name).stat().st_mode == usual, name


@pytest.mark.parametrize("make", ["file", "folder"])
def test_nothing_half_written_stays(tmp_path, make):
    with pytest.raises(RuntimeError, match="full"), atomic_path(tmp_path / "out") as temporary:
        if make == "file":
            temporary.write_text("half")
        else:
            temporary.mkdir()
            (temporary / "part").write_text("half")
        raise RuntimeError("disk full")
    assert list(tmp_path.iterdir()) == []


def _dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def _left(folder, process, name):
    with atomic_path(folder / "x") as temporary:
        mine = temporary.name
        temporary.write_text("")
    (folder / "x").unlink()
    return folder / mine.replace(f"-{os.getpid()}-", f"-{process}-").replace("partial.x", f"partial.{name}")


def test_what_a_killed_process_left_goes_and_nothing_else(tmp_path):
    dead = _left(tmp_path, _dead_process(), "out.h5ad")
    alive = _left(tmp_path, os.getppid(), "out.h5ad")
    another = _left(tmp_path, _dead_process(), "out.h5ad2")
    folder = _left(tmp_path, _dead_process(), "out.h5ad")
    for path in (dead, alive, another):
        path.write_text("half")
    folder.mkdir()
    (folder / "part").write_text("half")
    with atomic_path(tmp_path / "out.h5ad") as temporary:
        temporary.write_text("whole")
    assert not dead.exists()
    assert not folder.exists()
    assert alive.exists()
    assert another.exists()
    assert (tmp_path / "out.h5ad").read_text() == "whole"


def test_a_folder_set_aside_by_a_killed_process_comes_back(tmp_path):
    left = _left(tmp_path, _dead_process(), "out")
    aside = left.with_name(left.name + ".old")
    aside.mkdir()
    (aside / "model").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "out") as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert (tmp_path / "out" / "model").read_text() == "old"


def test_an_old_folder_stays_until_the_new_one_stands(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").write_text("old")
    replace = os.replace

    def fail(source, target):
        if str(target).endswith("/out") and not str(source).endswith(".old"):
            raise OSError("no")
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no"), atomic_path(tmp_path / "out") as temporary:
            temporary.mkdir()
    assert (tmp_path / "out" / "model").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with atomic_path(tmp_path / "out") as temporary:
        temporary.mkdir()
        (temporary / "model").write_text("new")
    assert (tmp_path / "out" / "model").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
