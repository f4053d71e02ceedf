"""Networks: tables and files, methods on expression, the structural autoencoder, and what is read off a model."""

import anndata
import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.inference.checkpoint import gene_table_of
from genecompass.inference.networks.edges import (
    as_sources,
    draw_regulator,
    edges_from_matrix,
    read_network,
    write_network,
)
from genecompass.inference.networks.grn import (
    EXPRESSION_METHODS,
    MODEL_METHODS,
    expression_scores,
    infer_grn,
    log_expression,
    log_variance,
)
from genecompass.inference.networks.states import cosine_scores, similarity_scores, standardise_targets
from genecompass.inference.networks.structural_vae import StructuralVAE, StructuralVAEOptions, structural_network
from genecompass.inference.perturbation.cells import take_cells
from genecompass.inference.perturbation.factors import human_transcription_factors, is_transcription_factor
from genecompass.inference.perturbation.perturb import factor_columns
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
from scipy import sparse

SYMBOLS = ["SOX2", "PAX6", "KLF4", *[f"GENE{i}" for i in range(17)]]
QUICK = StructuralVAEOptions(epochs=6, hidden_size=8)


@pytest.fixture(scope="module")
def table():
    return GeneTable.from_genes(
        pd.DataFrame(
            {"gene_id": [f"ENSG{i:011d}" for i in range(20)], "symbol": SYMBOLS, "species": "human", "median": 1.0}
        )
    )


@pytest.fixture(scope="module")
def processor(table):
    return GeneCompassProcessor.from_gene_table(table)


@pytest.fixture(scope="module")
def model(table):
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(vocab_size=table.vocab_size, initializer_range=0.3, max_position_embeddings=32)
    return GeneCompassForMaskedGeneModeling(config).eval()


@pytest.fixture
def cells():
    counts = np.random.default_rng(0).poisson(2.0, (20, 20))
    counts[:, 0] += 1
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), var=pd.DataFrame(index=SYMBOLS))


@pytest.mark.parametrize("method", [*MODEL_METHODS, *EXPRESSION_METHODS])
def test_every_method_gives_ranked_edges(cells, model, processor, table, method):
    options = {"model": model, "processor": processor} if method in MODEL_METHODS else {"gene_table": table}
    edges = infer_grn(
        cells, regulators=["SOX2", "PAX6"], method=method, species="human", n_trees=10, vae=QUICK, progress=False,
        **options,
    )  # fmt: skip
    assert list(edges.columns) == ["regulator", "target", "weight", "sign", "evidence"]
    assert set(edges["regulator"]) == {"SOX2", "PAX6"}
    assert (edges["regulator"] != edges["target"]).all()
    assert edges["weight"].is_monotonic_decreasing
    assert (edges["weight"] >= 0).all()
    assert set(edges["sign"]) <= {-1, 0, 1}
    assert edges["evidence"].unique().tolist() == [method]
    assert len(edges) == 2 * 19
    assert cells.uns["genecompass_grn"]["parameters"]["method"] == method


def test_embedding_network_averages_by_gene(cells, model, processor):
    edges = infer_grn(
        cells, model, ["SOX2"], "similarity", species="human", targets=["GENE1", "GENE2"], processor=processor,
        standardise=False, progress=False,
    )  # fmt: skip
    sums, counts = {}, {}
    dense = cells.X.toarray()
    with torch.no_grad():
        for row in dense:
            batch = processor(row[None], genes=list(cells.var_names), species="human", return_tensors="pt")
            states = model.genecompass(**batch).last_hidden_state[0, 1:]
            for token, state in zip(batch["input_ids"][0].tolist(), states, strict=True):
                sums[token] = sums.get(token, 0) + state.double()
                counts[token] = counts.get(token, 0) + 1
    mean = {token: sums[token] / counts[token] for token in sums}
    for target in ("GENE1", "GENE2"):
        expected = torch.cosine_similarity(mean[2], mean[2 + SYMBOLS.index(target)], dim=0)
        expected = (1 + expected) / 2
        found = edges.set_index("target").loc[target, "weight"]
        assert found == pytest.approx(float(expected), abs=1e-5)


def test_attention_is_measured_against_even_attention(cells, model, processor):
    even = GeneCompassForMaskedGeneModeling(model.config).eval()
    with torch.no_grad():
        for layer in even.genecompass.layers:
            layer.attention.query.weight.zero_()
            layer.attention.query.bias.zero_()
    edges = infer_grn(cells, even, ["SOX2"], "attention", species="human", processor=processor, progress=False)
    np.testing.assert_allclose(edges["weight"], 1.0, rtol=1e-4)


def test_correlation_and_trees_know_the_planted_regulator():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5))
    X[:, 4] = -2 * X[:, 1] + 0.3 * rng.normal(size=300)
    for method in (
        "pearson",
        "spearman",
        "partial_correlation",
        "genie3",
        "extra_trees",
        "grnboost2",
        "structural_vae",
    ):
        vae = StructuralVAEOptions(epochs=120, hidden_size=16, batch_size=32)
        scores, signed = expression_scores(X, [0, 1, 2], [3, 4], method, n_trees=50, vae=vae)
        assert np.abs(scores)[:, 1].argmax() == 1, method
        if signed is not None:
            assert signed[1, 1] < 0, method
    again, _ = expression_scores(X, [0, 1, 2], [3, 4], "grnboost2", n_trees=50)
    same, _ = expression_scores(X, [0, 1, 2], [3, 4], "grnboost2", n_trees=50)
    assert np.array_equal(again, same)


def test_the_structural_autoencoder_solves_its_structural_equation():
    torch.manual_seed(0)
    model = StructuralVAE(4, hidden_size=8, latent_size=2).eval()
    X = torch.randn(3, 4)
    decoded, mean, _ = model(X)
    structure = torch.eye(4) - model.weights().T
    hidden = model.encoder(X[..., None])
    expected_mean = torch.stack([structure @ h for h in hidden])[..., :2]
    assert torch.allclose(mean, expected_mean, atol=1e-6)
    inverse = torch.linalg.inv(structure)
    expected = torch.stack([model.decoder(inverse @ m)[:, 0] for m in mean])
    assert torch.allclose(decoded, expected, atol=1e-5)
    assert torch.equal(model.weights().diagonal(), torch.zeros(4))


def test_the_structural_autoencoder_seeds_masks_and_starts():
    X = np.random.default_rng(0).normal(size=(60, 6))
    one, same = (structural_network(X, QUICK).weights for _ in range(2))
    assert np.array_equal(one, same)
    other = structural_network(X, StructuralVAEOptions(epochs=6, hidden_size=8, seed=1)).weights
    assert not np.array_equal(one, other)
    mask = np.zeros((6, 6), bool)
    mask[0] = True
    masked = structural_network(X, QUICK, mask=mask).weights
    assert (masked[1:] == 0).all()
    assert masked[0, 0] == 0
    assert (masked[0, 1:] != 0).all()
    start = np.zeros((6, 6))
    start[2, 3] = 1
    assert np.abs(structural_network(X, QUICK, initial=start).weights).argmax() == 2 * 6 + 3
    state = torch.random.get_rng_state()
    result = structural_network(X, QUICK)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(result.loss) == QUICK.epochs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X: structural_network(X[:, :1]), "two cells and two genes"),
        (lambda X: structural_network(np.where(X > 1, np.nan, X)), "not finite"),
        (lambda X: structural_network(X, mask=np.eye(4, dtype=bool)), "allows no edge"),
        (lambda X: structural_network(X, initial=np.ones((3, 3))), "starting network is"),
        (lambda X: structural_network(X, initial=np.eye(4)), "has no edge"),
        (lambda X: StructuralVAEOptions(epochs=0), "1 or more"),
    ],
)
def test_the_structural_autoencoder_says_what_is_wrong(call, message):
    X = np.random.default_rng(0).normal(size=(40, 4))
    with pytest.raises(InputError, match=message):
        call(X)


def test_edges_keep_threshold_top_k_and_leave_out_what_was_not_measured():
    scores = [[0.0, 0.5, -0.9, np.nan], [0.2, 0.0, 0.1, 0.3]]
    options = {"evidence": "pearson", "signed": True}
    edges = edges_from_matrix(scores, ["A", "B"], ["A", "B", "C", "D"], **options)
    assert edges.iloc[0].tolist() == ["A", "C", 0.9, -1, "pearson"]
    assert len(edges) == 5
    assert len(edges_from_matrix(scores, ["A", "B"], ["A", "B", "C", "D"], threshold=0.3, **options)) == 3
    top = edges_from_matrix(scores, ["A", "B"], ["A", "B", "C", "D"], top_k=1, **options)
    assert top[["regulator", "target"]].to_numpy().tolist() == [["A", "C"], ["B", "D"]]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".graphml", ".gexf"])
def test_networks_are_written_and_read(tmp_path, ending):
    edges = edges_from_matrix([[0.5, -0.25]], ["A"], ["B", "NA"], evidence="spearman", signed=True)
    path = tmp_path / f"network{ending}"
    write_network(edges, path)
    if ending in (".graphml", ".gexf"):
        graph = networkx.read_graphml(path) if ending == ".graphml" else networkx.read_gexf(path)
        assert graph.edges["A", "B"]["weight"] == 0.5
        assert graph.edges["A", "NA"]["sign"] == -1
        assert graph.edges["A", "B"]["evidence"] == "spearman"
        assert graph.nodes["A"]["regulator"] is True
    else:
        pd.testing.assert_frame_equal(read_network(path), edges, check_dtype=False)


def test_a_regulator_is_drawn(tmp_path):
    edges = edges_from_matrix(np.eye(2, 4) + 0.1, ["A", "B"], ["C", "D", "B", "E"], evidence="pearson", signed=True)
    draw_regulator(edges, "A", tmp_path / "A.png")
    draw_regulator(edges, "A", tmp_path / "A.svg", top_k=2)
    assert (tmp_path / "A.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "A.svg").read_text()
    with pytest.raises(InputError, match="no edge"):
        draw_regulator(edges, "Z", tmp_path / "Z.png")
    assert not (tmp_path / "Z.png").exists()


def test_unknown_formats_and_files(tmp_path):
    edges = edges_from_matrix([[1.0]], ["A"], ["B"], evidence="random", signed=False)
    with pytest.raises(InputError, match="graphml"):
        write_network(edges, tmp_path / "network.xlsx")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no such file"):
        read_network(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="needs the columns"):
        read_network(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "unknown method"),
        ({"regulators": ["NANOG"]}, "none of the 1 regulators is expressed"),
        ({"regulators": "none.txt"}, "no such file"),
        ({"targets": ["NOSUCH"]}, "unknown"),
        ({"top_k": 0}, "top_k"),
        ({"threshold": -1}, "threshold"),
        ({"max_cells": 500}, "500 cells asked for"),
    ],
)
def test_bad_input_is_one_clear_line(cells, model, processor, options, message):
    options = {"model": model, "regulators": ["SOX2"], "method": "similarity", "progress": False, **options}
    with pytest.raises(InputError, match=message):
        infer_grn(cells, species="human", processor=processor, **options)


def test_a_gene_table_in_place_of_a_model_serves_expression_alone(cells, processor):
    table = gene_table_of(processor)
    with pytest.raises(InputError, match="needs a model"):
        infer_grn(cells, None, ["SOX2"], "similarity", species="human", gene_table=table)
    edges = infer_grn(cells, None, ["SOX2"], "pearson", species="human", gene_table=table, progress=False)
    assert len(edges)


def test_scores_of_states():
    scores = cosine_scores([[1.0, 0.0], [1.0, 1.0], [np.nan, np.nan]], [0], [1, 2])
    assert scores[0, 0] == pytest.approx(0.5**0.5)
    assert np.isnan(scores[0, 1])
    shift = np.array([[1.0, 5.0], [9.0, 5.0], [1.0, np.nan]])
    out = standardise_targets(shift)
    assert out[1, 0] > 0
    assert out[0, 0] == 0
    assert (out[:2, 1] == 0).all()
    assert np.isnan(out[2, 1])


def test_factors_come_from_the_curated_list():
    for name in ("PDX1", "Pax6", "SOX2", "Neurog3", "ZNF143", "STAT3", "Isl1", "RFX6", "HOXA9", "NKX2-2", "BMAL1"):
        assert is_transcription_factor(name), name
    for name in ("INS", "CD3E", "GAPDH", "Actb", "PAXIP1", "ZFP36L2", "ZFP36", "AATF", "ABL1"):
        assert not is_transcription_factor(name), name
    assert 1639 <= len(human_transcription_factors()) < 1660


def test_mouse_factors_are_found_by_their_human_homolog():
    human = pd.DataFrame(
        {"gene_id": ["ENSG1", "ENSG2"], "symbol": ["TP53", "ZFP36L2"], "species": "human", "median": 1.0}
    )
    mouse = human.assign(
        gene_id=["M1", "M2"], symbol=["Trp53", "Zfp36l2"], species="mouse", homolog_gene_id=["ENSG1", "ENSG2"]
    )
    table = GeneTable.from_genes(pd.concat([human, mouse], ignore_index=True))
    cells = anndata.AnnData(
        sparse.csr_matrix(np.ones((4, 2), np.float32)), var=pd.DataFrame(index=["Trp53", "Zfp36l2"])
    )
    assert factor_columns(take_cells(cells, table, species="mouse")).tolist() == [0]


def test_variances_of_sparse_counts_are_those_of_dense_ones(cells, table):
    taken = take_cells(cells, table, species="human")
    columns = np.array([0, 3, 7, 19])
    np.testing.assert_allclose(log_variance(taken, columns), log_expression(taken, columns).var(axis=0), rtol=1e-10)


def test_similarity_is_standardised_for_each_target_and_keeps_the_order_of_the_unlike():
    X = np.random.default_rng(0).normal(size=(30, 8)) + 3.0
    regulators, targets = list(range(10)), list(range(5, 30))
    scores = similarity_scores(X, regulators, targets)
    plain = cosine_scores(X, regulators, targets, centre=True)
    assert ((scores > 0) & (scores < 1) | np.isclose(scores, 1)).all()
    for column in range(len(targets)):
        np.testing.assert_array_equal(np.argsort(scores[:, column]), np.argsort(plain[:, column]))
    # every target has regulators above and below its own mean, however near to all it is
    assert ((scores[:, 5:] > 0.5).any(0) & (scores[:, 5:] < 0.5).any(0)).all()


def test_networks_for_decoupler_and_in_varp(cells, model, processor):
    edges = infer_grn(
        cells, model, ["SOX2", "PAX6"], "similarity", species="human", processor=processor, progress=False
    )
    assert set(edges.attrs["correlation"]) == {"n", "shared", "chance", "spearman"}
    stored = cells.varp["genecompass_grn"]
    names = list(cells.var_names)
    for edge in edges.head(5).itertuples():
        assert stored[names.index(edge.regulator), names.index(edge.target)] == pytest.approx(edge.weight)
    signed = infer_grn(cells, None, ["SOX2"], "pearson", species="human", gene_table=gene_table_of(processor))
    sources = as_sources(signed)
    assert list(sources.columns) == ["source", "target", "weight"]
    assert ((sources["weight"] < 0) == (signed["sign"] < 0)).all()
