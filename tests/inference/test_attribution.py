"""Attribution: it adds up, it finds the gene that a model was made to look at, and it refuses what is not there."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference.annotation.attribution import METHODS
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from scipy import sparse
from typer.testing import CliRunner

import genecompass as gc

GENES = 30


@pytest.fixture(scope="module")
def table():
    names = [f"ENSG{i:011d}" for i in range(GENES)]
    symbols = [f"G{i}" if i else "" for i in range(GENES)]
    return GeneTable.from_genes(pd.DataFrame({"gene_id": names, "symbol": symbols, "species": "human"}))


def _save(folder, table, cls, **options):
    torch.manual_seed(0)
    config = gc.GeneCompassConfig.tiny(
        **{"vocab_size": table.vocab_size, "max_position_embeddings": 32, "initializer_range": 0.3} | options,
        species=["human"],
    )
    model = getattr(gc, cls)(config)
    model.save_pretrained(folder)
    gc.GeneCompassProcessor.from_gene_table(table, max_length=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(table, tmp_path_factory):
    labels = {"id2label": {0: "B", 1: "T"}, "label2id": {"B": 0, "T": 1}}
    return _save(tmp_path_factory.mktemp("cells"), table, "GeneCompassForSequenceClassification", **labels)


@pytest.fixture(scope="module")
def adata():
    counts = np.random.default_rng(0).poisson(1.5, (4, GENES)).astype(np.float32)
    counts[:, 0], counts[3] = 5, 0
    names = [f"ENSG{i:011d}" for i in range(GENES)]
    return ad.AnnData(
        sparse.csr_matrix(counts), obs=pd.DataFrame(index=["a", "b", "c", "empty"]), var=pd.DataFrame(index=names)
    )


@pytest.mark.parametrize("target", [None, "B", "T"])
def test_integrated_gradients_add_up(classifier, adata, target):
    found = gc.explain(adata, str(classifier), "human", "b", target=target, steps=64, device="cpu")
    assert abs(found.output - found.baseline) > 1e-2
    assert found.gap == pytest.approx(0, abs=2e-3 * max(1, abs(found.output - found.baseline)))
    assert found.target == target if target else found.target in "BT"
    # a table of all its genes, strongest first
    assert len(found.genes) == int((adata["b"].X > 0).sum())
    assert (found.genes["attribution"].abs().diff().dropna() <= 0).all()
    by_rank = found.genes.sort_values("rank")
    assert by_rank["rank"].tolist() == list(range(len(by_rank)))
    assert (by_rank["value"].diff().dropna() <= 0).all()
    assert "ENSG00000000000" in set(found.genes["gene"])  # a gene without a symbol goes by its id


def test_a_model_that_adds_up_its_genes_gets_what_each_adds(table, adata, tmp_path):
    folder = _save(tmp_path / "encoder", table, "GeneCompassModel", num_hidden_layers=0)
    found = gc.explain(adata, str(folder), "human", 1, steps=64, device="cpu")
    assert found.target == "embedding"
    model = gc.GeneCompassModel.from_pretrained(folder).eval()
    # without layers the number is a mean over genes, so each gene's share can be computed by itself
    tokens = gc.GeneCompassProcessor.from_pretrained(folder)(
        adata["b"].X.toarray(), genes=adata.var_names, species="human", return_tensors="pt"
    )
    with torch.no_grad():
        fused = model.embeddings.fuse(tokens["input_ids"], tokens["values"], tokens["species"].reshape(1, 1))
        at = lambda genes: model(inputs_embeds=genes, species=tokens["species"]).last_hidden_state[0, 1:]  # noqa: E731
        states = at(fused)
        direction = states.mean(0) / states.mean(0).norm()
        every = torch.arange(2, table.vocab_size)[None]
        average = model.embeddings.fuse(every, tokens["values"].mean().expand(every.shape), torch.zeros(1, 1).long())
        expected = ((states - at(average.mean(1, keepdim=True).expand_as(fused))) @ direction) / len(states)
    attribution = found.genes.sort_values("rank")["attribution"].to_numpy()
    np.testing.assert_allclose(attribution, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cell", None])
def test_a_cell_vector_is_explained_by_all_genes(table, adata, tmp_path, pooling):
    cell = {"cell_size": 6, "cell_axes": 4, "cell_profile": 8, "max_position_embeddings": 5}
    labels = {"id2label": {0: "B", 1: "T"}, "label2id": {"B": 0, "T": 1}, "classifier_pooling": pooling}
    cls = "GeneCompassForSequenceClassification" if pooling else "GeneCompassModel"
    folder = _save(tmp_path / "model", table, cls, **cell, **(labels if pooling else {}))
    found = gc.explain(adata, str(folder), "human", "b", steps=64, device="cpu")
    assert len(found.genes) == int((adata["b"].X > 0).sum()) > 5
    assert abs(found.output - found.baseline) > 1e-2
    assert found.gap == pytest.approx(0, abs=2e-3 * max(1, abs(found.output - found.baseline)))
    unread = found.genes.query("rank >= 5")["attribution"]
    assert (unread != 0).all()
    attention = gc.explain(adata, str(folder), "human", "b", method="attention", device="cpu").genes
    assert (attention.query("rank >= 5")["attribution"] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_number_a_gene(classifier, adata, method):
    found = gc.explain(adata, str(classifier), "human", "a", method=method, device="cpu")
    assert np.isfinite(found.genes["attribution"]).all()
    if method == "attention":
        assert 0 < found.genes["attribution"].sum() < 1  # the rest looks at the species slot itself


def test_the_command_writes_table_and_figure(classifier, adata, tmp_path):
    from genecompass.commands.explain import app

    pytest.importorskip("matplotlib")
    adata[:3].write_h5ad(tmp_path / "cells.h5ad")
    output = tmp_path / "why"
    arguments = [str(tmp_path / "cells.h5ad"), "--model", str(classifier), "--species", "human", "-o", str(output)]
    done = CliRunner().invoke(app, [*arguments, "--cell", "c"])
    assert done.exit_code == 0, done.output
    written = pd.read_csv(output / "c.tsv", sep="\t")
    assert {"gene", "gene_id", "attribution", "value", "rank"} == set(written.columns)
    assert (output / "c.png").stat().st_size > 1000
    assert (output / "c.svg").exists()


@pytest.mark.parametrize(
    ("cell", "options", "match"),
    [
        ("nobody", {}, "no cell 'nobody'"),
        (9, {}, "no row 9"),
        ("a", {"target": "monocyte"}, "no label 'monocyte'.*B, T"),
        ("a", {"method": "magic"}, "unknown method"),
        ("empty", {}, "no gene that the model knows"),
    ],
)
def test_what_cannot_be_explained_is_said(classifier, adata, cell, options, match):
    with pytest.raises(InputError, match=match):
        gc.explain(adata, str(classifier), "human", cell, device="cpu", **options)
