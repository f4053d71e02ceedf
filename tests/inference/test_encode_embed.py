"""Encoding and embedding: batches do not matter, genes are averaged by gene, files are kept whole and resumed."""

import itertools
from importlib import import_module

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from genecompass.inference import embed_file as embed_file_function
from genecompass.inference import encode_cells, load_checkpoint
from genecompass.inference.cells import CHUNK
from genecompass.inference.embedding.encode import GeneMeans, iter_encoded
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.tokenize import tokenize_cells
from scipy import sparse

import genecompass as gc

GENES = 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    import torch
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling

    human = pd.DataFrame(
        {"gene_id": [f"ENSG{i:011d}" for i in range(GENES)], "symbol": [f"G{i}" for i in range(GENES)]}
    )
    mouse = pd.DataFrame(
        {
            "gene_id": [f"ENSMUSG{i:011d}" for i in range(GENES)],
            "symbol": [f"g{i}" for i in range(GENES)],
            "homolog_gene_id": [*human["gene_id"][:30], *[np.nan] * 10],
        }
    )
    genes = pd.concat([human.assign(species="human"), mouse.assign(species="mouse")], ignore_index=True)
    table = GeneTable.from_genes(genes.assign(median=1.5))
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, max_position_embeddings=64, priors={"grn": 4})
    model = GeneCompassForMaskedGeneModeling(config)
    model.set_prior_knowledge({"grn": torch.randn(table.vocab_size, 4)})
    model.save_pretrained(folder)
    gc.GeneCompassProcessor.from_gene_table(table, max_length=64).save_pretrained(folder)
    return folder


def some_cells(n=30, seed=0, prefix="ENSG"):
    generator = np.random.default_rng(seed)
    counts = generator.poisson(0.8, (n, GENES)).astype(np.float32)
    counts[:, 0] = 1  # every cell expresses something
    var = pd.DataFrame(index=[f"{prefix}{i:011d}" for i in range(GENES)])
    adata = ad.AnnData(sparse.csr_matrix(counts), var=var, obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]))
    adata.obs["cell_type"] = pd.Categorical(generator.choice(["B", "T"], n))
    adata.obsm["X_pca"] = generator.normal(size=(n, 3))
    adata.varm["loadings"] = generator.normal(size=(GENES, 2))
    adata.layers["other"] = adata.X.copy()
    adata.uns["note"] = {"who": "me", "numbers": np.arange(3)}
    return adata


@pytest.mark.parametrize("pooling", ["species", "mean", "both"])
def test_the_same_numbers_whatever_the_batch(checkpoint, pooling):
    model, _ = load_checkpoint(checkpoint, device="cpu")
    cells = tokenize_cells(some_cells(), GeneTable.read(checkpoint), species="human")
    one_by_one = encode_cells(model, cells, pooling=pooling, max_cells=1)
    together = encode_cells(model, cells, pooling=pooling, max_tokens=10**6)
    assert one_by_one.shape == (30, 128 if pooling == "both" else 64)
    np.testing.assert_allclose(one_by_one, together, atol=2e-5)


def test_layers_and_folding(checkpoint):
    model, _ = load_checkpoint(checkpoint, device="cpu")
    folded, _ = load_checkpoint(checkpoint, device="cpu", fold=True)
    cells = tokenize_cells(some_cells(), GeneTable.read(checkpoint), species="human")
    np.testing.assert_allclose(encode_cells(model, cells), encode_cells(folded, cells), atol=2e-5)
    np.testing.assert_array_equal(encode_cells(model, cells, layer=2), encode_cells(model, cells, layer=-1))
    assert not np.allclose(encode_cells(model, cells, layer=1), encode_cells(model, cells), atol=1e-3)
    with pytest.raises(InputError, match=r"layers 0 .* to 2"):
        encode_cells(model, cells, layer=3)
    with pytest.raises(InputError, match="unknown pooling 'max'"):
        encode_cells(model, cells, pooling="max")


def test_genes_are_averaged_by_gene_not_by_rank(checkpoint):
    model, _ = load_checkpoint(checkpoint, device="cpu")
    table = GeneTable.read(checkpoint)
    cells = tokenize_cells(some_cells(), table, species="human")
    means = GeneMeans(table.vocab_size, 64)
    encode_cells(model, cells, gene_means=means, max_cells=4)
    token = 7
    states = []
    for batch in iter_encoded(model, cells, max_cells=1):
        where = (batch.input_ids[0] == token) & batch.attention_mask[0].bool()
        states += [batch.gene_states[0][where].numpy()]
    expected = np.concatenate(states)
    assert 1 < len(expected) < 30
    assert means.cells[token] == len(expected)
    np.testing.assert_allclose(means.means()[token], expected.mean(axis=0), atol=1e-5)
    assert np.isnan(means.means()[0]).all()


def test_embed_writes_what_it_says(checkpoint):
    adata = some_cells()
    adata.var_names = [*adata.var_names[:-1], "nobody"]
    assert gc.embed(adata, model=str(checkpoint), species="human", device="cpu") is adata
    assert adata.obsm["X_genecompass"].shape == (30, 64)
    genes = adata.varm["genecompass"]
    assert np.isnan(genes[-1]).all()
    assert np.isfinite(genes[0]).all()
    record = adata.uns["genecompass"]
    assert record["model"] == str(checkpoint)
    assert 0.9 < record["coverage"]["share_of_counts_kept"] < 1
    assert record["embedding"]["pooling"] == "mean"


def test_mouse_runs_as_mouse_and_shares_tokens(checkpoint):
    mouse = some_cells(prefix="ENSMUSG")
    table = GeneTable.read(checkpoint)
    human_ids = tokenize_cells(some_cells(), table, species="human")[0]["input_ids"]
    mouse_ids = tokenize_cells(mouse, table, species="mouse")[0]["input_ids"]
    shared = human_ids < 32
    assert shared.any()
    np.testing.assert_array_equal(np.sort(mouse_ids[mouse_ids < 32]), np.sort(human_ids[shared]))
    gc.embed(mouse, model=str(checkpoint), species="mouse", device="cpu")
    human = gc.embed(some_cells(), model=str(checkpoint), species="human", device="cpu")
    assert not np.allclose(mouse.obsm["X_genecompass"], human.obsm["X_genecompass"], atol=1e-3)


def test_wrong_species_and_unknown_genes_are_refused(checkpoint):
    with pytest.raises(InputError, match="mouse"):
        gc.embed(some_cells(prefix="ENSMUSG"), model=str(checkpoint), species="human", device="cpu")
    strangers = some_cells()
    strangers.var_names = [f"x{i}" for i in range(GENES)]
    with pytest.raises(InputError, match="none of the 40 genes"):
        gc.embed(strangers, model=str(checkpoint), species="human", device="cpu")
    with pytest.raises(InputError, match=r"unknown species|neither a species"):
        gc.embed(some_cells(), model=str(checkpoint), species="rat", device="cpu")


def test_a_model_loaded_with_remote_code_serves_too(checkpoint):
    from transformers import AutoModel, AutoProcessor

    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    loaded = gc.embed(some_cells(), model=model, processor=processor, species="human", device="cpu")
    named = gc.embed(some_cells(), model=str(checkpoint), species="human", device="cpu")
    np.testing.assert_allclose(loaded.obsm["X_genecompass"], named.obsm["X_genecompass"], atol=2e-5)
    with pytest.raises(InputError, match="needs its processor"):
        gc.embed(some_cells(), model=model, species="human")


def test_a_file_keeps_every_entry(checkpoint, tmp_path):
    adata = some_cells()
    adata.write_h5ad(tmp_path / "in.h5ad")
    embed_file_function(tmp_path / "in.h5ad", tmp_path / "out.h5ad", str(checkpoint), "human", devices=["cpu"])
    found = ad.read_h5ad(tmp_path / "out.h5ad")
    expected = gc.embed(adata, model=str(checkpoint), species="human", device="cpu")
    np.testing.assert_allclose(found.obsm["X_genecompass"], expected.obsm["X_genecompass"], atol=1e-6)
    np.testing.assert_allclose(found.varm["genecompass"], expected.varm["genecompass"], atol=1e-6)
    pd.testing.assert_frame_equal(found.obs, adata.obs)
    np.testing.assert_array_equal(found.obsm["X_pca"], adata.obsm["X_pca"])
    np.testing.assert_array_equal(found.varm["loadings"], adata.varm["loadings"])
    np.testing.assert_array_equal(found.layers["other"].toarray(), adata.layers["other"].toarray())
    np.testing.assert_array_equal(found.uns["note"]["numbers"], np.arange(3))
    assert not (tmp_path / "out.h5ad.partial").exists()
    with pytest.raises(InputError, match="overwrite its own input"):
        embed_file_function(tmp_path / "in.h5ad", tmp_path / "in.h5ad", str(checkpoint), "human")


def test_a_killed_run_continues_to_the_same_bytes(checkpoint, tmp_path, monkeypatch):
    module = import_module("genecompass.inference.embedding.streamed")
    pooling = import_module("genecompass.inference.embedding.pooling")
    monkeypatch.setattr(module, "CHUNK", 8)
    monkeypatch.setattr("genecompass.inference.cells.chunks.__kwdefaults__", {**_defaults(), "chunk": 8})
    monkeypatch.setattr(module, "_SAVE_EVERY", 1)
    some_cells(50).write_h5ad(tmp_path / "in.h5ad")
    module.embed_file(tmp_path / "in.h5ad", tmp_path / "whole.h5ad", str(checkpoint), "human", devices=["cpu"])

    calls = {"n": 0}
    encode = pooling.encode_cells

    def dies(*args, **kwargs):
        calls["n"] += 1
        if calls["n"] == 4:
            raise KeyboardInterrupt
        return encode(*args, **kwargs)

    monkeypatch.setattr(pooling, "encode_cells", dies)
    with pytest.raises(KeyboardInterrupt):
        module.embed_file(tmp_path / "in.h5ad", tmp_path / "resumed.h5ad", str(checkpoint), "human", devices=["cpu"])
    assert not (tmp_path / "resumed.h5ad").exists()
    assert (tmp_path / "resumed.h5ad.partial").exists()
    with pytest.raises(InputError, match="another pooling"):
        module.embed_file(tmp_path / "in.h5ad", tmp_path / "resumed.h5ad", str(checkpoint), "human", pooling="species")
    calls["n"] = 10
    module.embed_file(tmp_path / "in.h5ad", tmp_path / "resumed.h5ad", str(checkpoint), "human", devices=["cpu"])
    assert calls["n"] == 10 + 4  # 7 chunks, 3 of them were done
    with h5py.File(tmp_path / "whole.h5ad") as a, h5py.File(tmp_path / "resumed.h5ad") as b:
        np.testing.assert_array_equal(a["obsm/X_genecompass"][:], b["obsm/X_genecompass"][:])
        np.testing.assert_array_equal(a["varm/genecompass"][:], b["varm/genecompass"][:])


def test_two_processes_give_the_numbers_of_one(checkpoint, tmp_path):
    some_cells(CHUNK + 30).write_h5ad(tmp_path / "in.h5ad")
    options = {"devices": ["cpu"], "max_length": 16}
    for processes in (1, 2):
        output = tmp_path / f"by{processes}.h5ad"
        embed_file_function(tmp_path / "in.h5ad", output, str(checkpoint), "human", processes=processes, **options)
    with h5py.File(tmp_path / "by1.h5ad") as a, h5py.File(tmp_path / "by2.h5ad") as b:
        np.testing.assert_allclose(a["obsm/X_genecompass"][:], b["obsm/X_genecompass"][:], atol=1e-6)
        np.testing.assert_allclose(a["varm/genecompass"][:], b["varm/genecompass"][:], atol=1e-6)
    assert not (tmp_path / "by2.h5ad.partial").exists()


def _defaults():
    from genecompass.inference.cells import chunks

    return chunks.__kwdefaults__


def test_parts_end_where_chunks_end():
    parts = import_module("genecompass.inference.embedding.streamed")._parts
    cells = 5 * CHUNK + 7
    assert parts(cells, 1) == [[0, cells]]
    split = parts(cells, 3)
    assert split[0][0] == 0
    assert split[-1][1] == cells
    assert all(a[1] == b[0] and a[1] % CHUNK == 0 for a, b in itertools.pairwise(split))
    assert parts(3, 4) == [[0, 3]]


def test_checkpoints_that_are_none(tmp_path, checkpoint):
    with pytest.raises(InputError, match="no such folder"):
        load_checkpoint(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint here"):
        load_checkpoint(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no head for cell classification.*finetune cells"):
        load_checkpoint(checkpoint, "cells")
    with pytest.raises(InputError, match="unknown head"):
        load_checkpoint(checkpoint, "tails")
