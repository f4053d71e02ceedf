"""Atomic writes leave files that others may read as any new file."""

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
