"""Adapting a checkpoint to cells without labels: what moves, what stays, and that the result is a plain checkpoint."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.manifest import check_manifest
from genecompass.training.pretraining.adapt import adapt
from genecompass.training.pretraining.pretrain import pretrain
from safetensors.torch import load_file
from scipy import sparse

import genecompass as gc

SMALL = (
    *("masking.task=count_split", "masking.split_genes=[4, 20]", "masking.asked_genes=50"),
    "model.overrides={hidden_size: 16, cell_size: 8, cell_axes: 8, cell_profile: 16}",
)


@pytest.fixture(scope="module")
def base(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "run"
    pretrain(toy.make_config(folder, *SMALL), corpus=toy.make_cells(), table=toy.make_table())
    return folder


@pytest.fixture(scope="module")
def cells(toy):
    draw = np.random.default_rng(1)
    rates = np.where(np.arange(60) // 30 == draw.integers(0, 2, (90, 1)), 3.0, 0.3)
    names = [f"ENSG{i:05d}" for i in range(60)]
    return ad.AnnData(sparse.csr_matrix(draw.poisson(rates).astype(np.float32)), var=pd.DataFrame(index=names))


def test_low_rank_leaves_genes_as_they_are_and_a_plain_checkpoint(base, cells, tmp_path):
    result = adapt(cells, base, "human", tmp_path / "adapted", steps=4, device="cpu")
    assert result.steps == 4
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "adapted" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if "embeddings" in name or ("decoder.weight" in name and "count" not in name)]
    assert any(".layers." in name for name in moved)
    assert any("cell_head" in name for name in moved)
    # weights of genes, which other cells are read by too, are those of the checkpoint
    name = next(name for name in before if name.endswith("cell_head.weights"))
    assert name not in moved
    assert check_manifest(tmp_path / "adapted") == []
    embedded = gc.embed(cells.copy(), str(tmp_path / "adapted"), "human", device="cpu")
    assert np.isfinite(embedded.obsm["X_genecompass"]).all()


def test_every_weight_moves_if_asked_to(base, cells, tmp_path):
    adapt(cells, base, "human", tmp_path / "full", method="full", refit_axes=False, steps=2, device="cpu")
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "full" / "model.safetensors")
    assert any("word_embeddings" in name for name in before if not torch.equal(before[name], after[name]))
    axes = next(name for name in before if name.endswith("cell_head.axes"))
    assert torch.equal(before[axes], after[axes])


def test_a_run_that_was_cut_off_goes_on(base, cells, tmp_path):
    from genecompass.training.pretraining import adapt as module

    class Cut(Exception):
        pass

    whole = adapt(cells, base, "human", tmp_path / "whole", steps=4, device="cpu")
    original = module.pretrain

    def cut_at_export(*arguments, **options):
        result = original(*arguments, **options)
        raise Cut(result)

    module.pretrain = cut_at_export
    try:
        with pytest.raises(Cut):
            adapt(cells, base, "human", tmp_path / "cut", steps=4, device="cpu")
    finally:
        module.pretrain = original
    (tmp_path / "cut" / "model.safetensors").unlink()
    again = adapt(cells, base, "human", tmp_path / "cut", steps=4, device="cpu", resume=True)
    one, other = (load_file(result.folder / "model.safetensors") for result in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"layer": "X"}, "adapt takes no 'layer'"),
    ],
)
def test_what_cannot_be_is_said(base, cells, tmp_path, options, match):
    with pytest.raises(InputError, match=match):
        adapt(cells, base, "human", tmp_path / "none", **options)
    with pytest.raises(InputError, match="8 cells are too few"):
        adapt(cells[:8].copy(), base, "human", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_without_a_cell_vector_is_refused(toy, cells, tmp_path):
    pretrain(
        toy.make_config(tmp_path / "masked", "optimisation.max_steps=1"),
        corpus=toy.make_cells(),
        table=toy.make_table(),
    )
    with pytest.raises(InputError, match="no cell vector to adapt"):
        adapt(cells, tmp_path / "masked", "human", tmp_path / "none")
