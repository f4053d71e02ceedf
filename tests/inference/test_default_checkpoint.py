"""The checkpoint that travels with the package: small, whole, and what no model means; files that results go into."""

import shutil

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference import load_checkpoint
from genecompass.inference.embedding import streamed
from genecompass.inference.embedding.streamed import embed_file
from genecompass.inference.h5ad import add_to_h5ad
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.manifest import check_manifest
from genecompass.tokenization.sources import DEFAULT_MODEL, default_checkpoint
from safetensors.torch import load_file, save_file
from scipy import sparse

import genecompass as gc


@pytest.fixture(scope="module")
def cells():
    """Cells of genes that the shipped vocabulary holds, by symbol."""
    table = gc.GeneTable.read(default_checkpoint()).frame
    human = table[(table["species"] == "human") & (table["symbol"] != "")].drop_duplicates("symbol", keep=False)
    counts = np.random.default_rng(0).poisson(0.7, (30, 80)).astype(np.float32)
    kinds = pd.DataFrame({"cell_type": np.repeat(["a", "b"], 15)}, index=[f"cell {i}" for i in range(30)])
    counts[:15, :20] += 4
    names = human["symbol"].iloc[500:580].tolist()
    return ad.AnnData(sparse.csr_matrix(counts), obs=kinds, var=pd.DataFrame(index=names))


def test_it_is_whole_and_small():
    folder = default_checkpoint()
    assert check_manifest(folder) == []
    assert (folder / "model.safetensors").stat().st_size < 10e6
    model, processor = load_checkpoint(None, device="cpu")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert model.config.species == ["human", "mouse"]
    assert len(processor.gene_table["gene_id"]) == model.config.vocab_size


def test_no_model_means_it(cells, tmp_path):
    embedded = gc.embed(cells.copy(), species="human", device="cpu")
    assert embedded.uns["genecompass"]["model"] == DEFAULT_MODEL
    assert np.isfinite(embedded.obsm["X_genecompass"]).all()
    named = gc.embed(cells.copy(), str(default_checkpoint()), "human", device="cpu")
    np.testing.assert_array_equal(embedded.obsm["X_genecompass"], named.obsm["X_genecompass"])
    labelled = gc.annotate(cells[::2].copy(), species="human", reference=gc.Reference(cells[1::2].copy()), device="cpu")
    assert (labelled.obs["genecompass_cell_type_best"].astype(str) == labelled.obs["cell_type"]).mean() > 0.9
    assert 0 <= labelled.uns["genecompass"]["annotation"]["agreement_with_pca"] <= 1
    effects = gc.perturb(cells[:6].copy(), None, [cells.var_names[0]], species="human", n_null=3, device="cpu")
    assert effects.parameters["model"] == DEFAULT_MODEL


def test_species_has_to_be_said(cells):
    with pytest.raises(InputError, match="whose cells are these"):
        gc.embed(cells.copy())


def test_a_resumed_run_knows_another_model_of_the_same_name(cells, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(default_checkpoint(), folder)
    cells.write_h5ad(tmp_path / "in.h5ad")
    save = streamed._save_state

    def killed(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(streamed, "_save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", folder, "human", devices=["cpu"])
    monkeypatch.setattr(streamed, "_save_state", save)
    weights = load_file(folder / "model.safetensors")
    name = "cell_head.dense.weight"
    save_file({**weights, name: weights[name] + 0.5}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="another model_digest"):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", folder, "human", devices=["cpu"])


def test_a_refused_run_does_not_bind_the_next(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(InputError, match="layer 9"):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", species="human", layer=9, devices=["cpu"])
    embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", species="human", layer=1, devices=["cpu"])
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["genecompass"]["embedding"]["layer"] == 1


@pytest.mark.parametrize("key", ["X/gc", "", "__x"])
def test_names_that_no_file_keeps_are_refused_before_the_work(cells, tmp_path, key):
    cells.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(InputError, match="keeps no such name"):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", species="human", key=key)
    with pytest.raises(InputError, match="keeps no such name"):
        gc.embed(cells.copy(), species="human", key=key)
    with pytest.raises(InputError, match="keeps no such name"):
        gc.annotate(cells.copy(), species="human", key=key)
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


def _written_by_an_old_version(cells, path):
    """As anndata 0.6 kept tables: compound data sets."""
    cells.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for name in ("obs", "var"):
            frame = getattr(cells, name)
            rows = np.zeros(len(frame), dtype=[("index", "S20"), *((column, "S10") for column in frame.columns)])
            rows["index"] = frame.index.to_numpy("S20")
            for column in frame.columns:
                rows[column] = frame[column].to_numpy("S10")
            del file[name]
            file.create_dataset(name, data=rows)
        obsm = np.zeros(cells.n_obs, dtype=[("X_pca", "f4", (2,))])
        del file["obsm"]
        file.create_dataset("obsm", data=obsm)
        for name in list(file.attrs):
            del file.attrs[name]


def test_files_of_old_versions_get_todays_tables(cells, tmp_path):
    _written_by_an_old_version(cells, tmp_path / "old.h5ad")
    labels = pd.DataFrame({"score": np.arange(30.0), "label": pd.Categorical(["x"] * 30)}, index=cells.obs.index)
    add_to_h5ad(tmp_path / "old.h5ad", tmp_path / "new.h5ad", obs=labels, obsm={"E": [np.ones((30, 3))]})
    read = ad.read_h5ad(tmp_path / "new.h5ad")
    assert read.obs["score"].tolist() == list(range(30))
    assert read.obs["label"].tolist() == ["x"] * 30
    assert read.obs["cell_type"].astype(str).tolist() == cells.obs["cell_type"].tolist()
    assert set(read.obsm) == {"X_pca", "E"}


def test_columns_that_are_there_stay_as_they_are_written(cells, tmp_path):
    cells.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:  # something that no writer of ours would choose
        group = file["obs"].create_group("note")
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "nullable-string-array", "0.1.0"
        group.create_dataset("values", data=np.array(["n"] * 30, dtype=object), dtype=h5py.string_dtype())
        group.create_dataset("mask", data=np.zeros(30, dtype=bool))
        group["values"].attrs["encoding-type"], group["values"].attrs["encoding-version"] = "string-array", "0.2.0"
        group["mask"].attrs["encoding-type"], group["mask"].attrs["encoding-version"] = "array", "0.2.0"
        file["obs"].attrs["column-order"] = np.array(["cell_type", "note"], dtype=h5py.string_dtype())
    add_to_h5ad(tmp_path / "in.h5ad", tmp_path / "out.h5ad", obs=pd.DataFrame({"score": np.ones(30)}))
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert [str(name) for name in file["obs"].attrs["column-order"]] == ["cell_type", "note", "score"]
        assert file["obs"]["note"].attrs["encoding-type"] == "nullable-string-array"
    assert ad.read_h5ad(tmp_path / "out.h5ad").obs["score"].tolist() == [1.0] * 30
