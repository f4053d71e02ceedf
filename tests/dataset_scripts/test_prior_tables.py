"""Prior tables: form, gene2vec, networks, families, published pickles, attaching, inspection, bad input."""

import gzip
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.dataset_scripts.prior_knowledge import families as fam
from genecompass.dataset_scripts.prior_knowledge import inspection
from genecompass.dataset_scripts.prior_knowledge.attach import attach_priors
from genecompass.dataset_scripts.prior_knowledge.gene2vec import (
    Gene2VecSettings,
    Pairs,
    train_gene2vec,
    vectors_of_all_species,
)
from genecompass.dataset_scripts.prior_knowledge.gene_names import match_names
from genecompass.dataset_scripts.prior_knowledge.networks import NetworkSource, build_grn, read_network
from genecompass.dataset_scripts.prior_knowledge.published import read_published_prior
from genecompass.dataset_scripts.prior_knowledge.tables import (
    PriorTable,
    assemble,
    known_rows,
    read_prior,
    read_tables,
    write_priors,
)
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from safetensors import safe_open

FAST = Gene2VecSettings(width=8, epochs=3)


@pytest.fixture
def table():
    """40 human genes H0..H39, 40 mouse genes h0..h39, all but the last ten of them homologs."""
    human = [f"ENSG{i:011d}" for i in range(40)]
    genes = pd.DataFrame(
        {
            "gene_id": human + [f"ENSMUSG{i:011d}" for i in range(40)],
            "symbol": [f"HX{i}" for i in range(40)] + [f"Hx{i}" for i in range(40)],
            "species": ["human"] * 40 + ["mouse"] * 40,
            "homolog_gene_id": [None] * 40 + human[:30] + [None] * 10,
        }
    )
    return GeneTable.from_genes(genes)


def cliques(offset=2, groups=4, size=5):
    """Pairs of `groups` groups of `size` genes, each fully linked."""
    genes = offset + np.arange(groups * size).reshape(groups, size)
    first, second = np.triu_indices(size, 1)
    return Pairs(genes[:, first].ravel(), genes[:, second].ravel(), np.full(groups * len(first), 20.0))


def write_tsv(path, rows):
    text = "\n".join("\t".join(map(str, row)) for row in rows) + "\n"
    if str(path).endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


# ---- the file


def test_file_round_trip_and_same_bytes(tmp_path, table):
    rng = np.random.default_rng(0)
    priors = [
        assemble(name, np.array([5, 9]), rng.normal(size=(2, 4)), table, metadata={"sources": [{"file": "a"}]})
        for name in ("grn", "promoter")
    ]
    for name in ("a", "b"):
        write_priors(tmp_path / f"{name}.safetensors", priors)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    matrices, metadata = read_prior(tmp_path / "a.safetensors")
    assert set(matrices) == {"grn", "promoter"}
    np.testing.assert_array_equal(matrices["grn"], priors[0].matrix)
    assert metadata["grn"]["coverage"]["human"]["known"] == 2
    assert metadata["grn"]["coverage"]["mouse"]["without_knowledge"] == 40
    assert [prior.name for prior in read_tables([tmp_path / "a.safetensors"])] == ["grn", "promoter"]


def test_known_rows_have_mean_length_one_and_special_tokens_are_zero(table):
    vectors = np.array([[3.0, 0.0], [0.0, 1.0]])
    prior = assemble("grn", np.array([2, 3]), vectors, table)
    assert np.linalg.norm(prior.matrix[[2, 3]], axis=1).mean() == pytest.approx(1)
    assert prior.matrix[2, 0] / prior.matrix[3, 1] == pytest.approx(3)
    assert known_rows(prior.matrix).sum() == 2
    assert not prior.matrix[:2].any()


@pytest.mark.parametrize("missing", ["mean", "random"])
def test_fallback_rows(table, missing):
    prior = assemble("grn", np.array([2, 3, 42]), np.eye(3), table, missing=missing, dtype="float16")
    assert prior.matrix.dtype == np.float16
    assert not prior.matrix[:2].any()
    assert prior.matrix[4:].any(axis=1).all()
    if missing == "mean":
        np.testing.assert_allclose(prior.matrix[10], [0.5, 0.5, 0], atol=1e-3)
    else:
        assert np.linalg.norm(prior.matrix[10].astype(float)) == pytest.approx(1, abs=1e-2)
    assert prior.metadata["coverage"]["human"]["known"] == 2


@pytest.mark.parametrize("content", [b"", b"not a table", b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_damaged_file(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors"):
        read_prior(tmp_path / "x.safetensors")


def test_wrong_files(tmp_path, table):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="not of prior tables"):
        read_prior(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no such prior table"):
        read_prior(tmp_path / "none.safetensors")
    prior = assemble("grn", np.array([2]), np.ones((1, 2)), table)
    with pytest.raises(InputError, match="safetensors"):
        write_priors(tmp_path / "x.npz", [prior])
    with pytest.raises(InputError, match="two tables"):
        write_priors(tmp_path / "y.safetensors", [prior, prior])
    with pytest.raises(InputError, match="NaN"):
        assemble("grn", np.array([2]), np.full((1, 2), np.nan), table)
    assert not (tmp_path / "y.safetensors").exists()


# ---- gene2vec


def test_gene2vec_is_reproducible_and_order_free():
    pairs = cliques()
    order = np.random.default_rng(1).permutation(len(pairs))
    tokens, vectors = train_gene2vec(pairs, FAST)
    again = train_gene2vec(pairs.select(order), FAST)
    np.testing.assert_array_equal(tokens, again[0])
    assert vectors.tobytes() == again[1].tobytes()
    other = train_gene2vec(pairs, Gene2VecSettings(width=8, epochs=3, seed=1))[1]
    assert not np.array_equal(vectors, other)


@pytest.mark.parametrize("sentences", ["pairs", "walks"])
@pytest.mark.parametrize("vectors", ["input", "sum"])
def test_gene2vec_brings_partners_together(sentences, vectors):
    settings = Gene2VecSettings(width=16, epochs=40, sentences=sentences, vectors=vectors, walks_per_gene=20)
    tokens, learned = train_gene2vec(cliques(), settings)
    cosine = np.corrcoef(learned)
    group = (tokens - 2) // 5
    same = group[:, None] == group[None]
    np.fill_diagonal(cosine, np.nan)
    assert np.nanmean(cosine[same]) > np.nanmean(cosine[~same]) + 0.3


def test_signs_part_what_one_factor_switches_on_and_off():
    left = np.repeat([2, 3], 12)
    right = 4 + np.tile(np.arange(12), 2)
    sign = np.where(right < 10, 1, -1)
    pairs = Pairs(left, right, np.full(24, 20.0), sign)
    settings = Gene2VecSettings(width=8, epochs=40, vectors="input")

    def gap(pairs):
        tokens, vectors = train_gene2vec(pairs, settings)
        cosine = np.corrcoef(vectors[tokens >= 4])
        return cosine[:6, :6].mean() - cosine[:6, 6:].mean()

    assert gap(pairs) > gap(Pairs(left, right, pairs.weight)) + 0.2


def test_alignment_turns_spaces_but_keeps_angles(table):
    human, mouse = cliques(2, 6, 5), cliques(42, 6, 5)
    settings = Gene2VecSettings(width=16, epochs=40)
    tokens, apart, _ = vectors_of_all_species({"human": human, "mouse": mouse}, table, settings, align=False)
    _, turned, record = vectors_of_all_species({"human": human, "mouse": mouse}, table, settings)
    is_mouse = tokens >= 42
    np.testing.assert_array_equal(apart[~is_mouse], turned[~is_mouse])
    np.testing.assert_allclose(apart[is_mouse] @ apart[is_mouse].T, turned[is_mouse] @ turned[is_mouse].T, atol=1e-4)
    how = record["mouse"]["alignment"]
    assert how["homologs"] == 30
    assert how["held_out_homolog_cosine"] > how["shuffled_homolog_cosine"] + 0.2


@pytest.mark.parametrize("change", [{"width": 0}, {"epochs": 0}, {"sentences": "words"}, {"vectors": "output"}])
def test_gene2vec_refuses_bad_settings(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Gene2VecSettings(**change)


# ---- names


def test_names(table):
    match = match_names(["HX1", "ENSG00000000002.3", "nothing", "HX1"], table, "human")
    assert match.tokens.tolist() == [3, 4, -1, 3]
    assert match.report["matched"] == 2
    assert match.report["unknown_examples"] == ["nothing"]


def test_names_in_capitals():
    genes = pd.DataFrame({"gene_id": ["M1", "M2"], "symbol": ["Sox2", "Myc"], "species": "mouse"})
    mouse = GeneTable.from_genes(genes)
    assert match_names(["SOX2", "Myc"], mouse, "mouse", ignore_case=True).tokens.tolist() == [2, 3]
    assert match_names(["SOX2", "Myc"], mouse, "mouse").tokens.tolist() == [-1, 3]


def test_names_of_another_species_are_refused(table):
    with pytest.raises(InputError, match="give the file as mouse"):
        match_names(["Hx1", "Hx2", "Hx3"], table, "human", where="net.tsv")
    with pytest.raises(InputError, match="none of 2 names"):
        match_names(["A", "B"], table, "human")
    with pytest.raises(InputError, match="unknown species"):
        match_names(["A"], table, "rat")


# ---- networks


def test_network_formats(tmp_path, table):
    dorothea = write_tsv(
        tmp_path / "d.tsv.gz", [["tf", "confidence", "target", "mor"], ["HX0", "A", "HX1", 1], ["HX0", "E", "HX2", -1]]
    )
    edges, report = read_network(NetworkSource(dorothea, "human", confidence="AB"), table)
    assert edges[["tf", "target", "sign"]].to_numpy().tolist() == [[2, 3, 1]]
    assert report["edges"] == 2
    trrust = write_tsv(
        tmp_path / "t.tsv",
        [["HX0", "HX1", "Repression", "1"], ["HX0", "HX2", "Unknown", "2"], ["HX0", "HX3", "Activation", "3"]],
    )
    edges, _ = read_network(NetworkSource(trrust, "human"), table)
    assert edges["sign"].tolist() == [-1, 0, 1]
    peca = write_tsv(tmp_path / "p.txt", [["TF", "TG", "Score", "FDR"], ["HX0", "HX1", 3, 0], ["HX0", "HX2", 1, 0]])
    edges, _ = read_network(NetworkSource(peca, "human"), table)
    assert edges["weight"].tolist() == [1.5, 0.5]
    own = write_tsv(tmp_path / "o.tsv", [["a", "b", "w"], ["HX0", "HX1", 3]])
    columns = {"tf": "a", "target": "b", "weight": "w"}
    assert len(read_network(NetworkSource(own, "human", columns=columns), table)[0]) == 1


def test_edges_of_several_networks_weigh_more(tmp_path, table):
    from genecompass.dataset_scripts.prior_knowledge.networks import read_edges

    one = write_tsv(tmp_path / "1.tsv", [["tf", "target"], ["HX0", "HX1"], ["HX0", "HX2"], ["HX0", "HX2"]])
    two = write_tsv(tmp_path / "2.tsv", [["tf", "target"], ["HX0", "HX1"]])
    edges, records = read_edges([NetworkSource(one, "human"), NetworkSource(two, "human")], table)
    assert edges["human"][["target", "weight"]].to_numpy().tolist() == [[3, 2], [4, 1]]
    assert [record["file"] for record in records] == ["1.tsv", "2.tsv"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["from", "to"], ["HX0", "HX1"]], "cannot tell factor and target among the columns from, to"),
        ([["tf", "target"], ["A", "B"]], "none of 2 names"),
        ([["tf", "target"], ["Hx1", "Hx2"]], "give the file as mouse"),
        ([["tf", "target"], ["HX1", "nothing"]], "no edge between two human genes"),
        ([["tf", "target", "weight"], ["HX1", "HX2", "high"]], "not a number"),
        ([["tf", "target"]], "none of 0 names"),
    ],
)
def test_bad_networks(tmp_path, table, rows, message):
    with pytest.raises(InputError, match=message):
        read_network(NetworkSource(write_tsv(tmp_path / "n.tsv", rows), "human"), table)


def test_network_without_wanted_confidence(tmp_path, table):
    path = write_tsv(tmp_path / "n.tsv", [["tf", "target"], ["HX1", "HX2"]])
    with pytest.raises(InputError, match="no confidence column"):
        read_network(NetworkSource(path, "human", confidence="A"), table)
    with pytest.raises(InputError, match="no such network"):
        read_network(NetworkSource(tmp_path / "none.tsv", "human"), table)


def test_grn_keeps_every_species_its_own_rows(tmp_path, table):
    rows = [["tf", "target"], *[[f"HX{i}", f"HX{j}"] for i in range(3) for j in range(3, 20)]]
    human = write_tsv(tmp_path / "h.tsv", rows)
    mouse = write_tsv(tmp_path / "m.tsv", [[cell.replace("HX", "Hx") for cell in row] for row in rows])
    prior = build_grn([NetworkSource(human, "human"), NetworkSource(mouse, "mouse")], table, settings=FAST)
    assert known_rows(prior.matrix).nonzero()[0].tolist() == [*range(2, 22), *range(42, 62)]
    assert not np.allclose(prior.matrix[2:22], prior.matrix[42:62])
    assert prior.metadata["sources"][0]["sha256"]
    assert "/" not in prior.metadata["sources"][0]["file"]


# ---- families


def hgnc(path, groups):
    rows = [["symbol", "ensembl_gene_id", "gene_group"]]
    rows += [[f"HX{i}", f"ENSG{i:011d}", group] for i, group in enumerate(groups)]
    return write_tsv(path, rows)


def test_families_of_hgnc_and_of_homologs(tmp_path, table):
    path = hgnc(tmp_path / "hgnc.txt", ["a|b", "a", "b", "b", "lonely", ""])
    members, _, summary = fam.all_families([fam.FamilySource(path, "human")], table)
    assert members["human"].to_numpy().tolist() == [[2, "a"], [3, "a"], [2, "b"], [4, "b"], [5, "b"]]
    assert members["mouse"]["token"].tolist() == [42, 43, 42, 44, 45]
    assert summary["mouse"]["origin"] == "homologs of human"


def test_large_families_are_weighted_down():
    def reads_per_gene(size):
        members = pd.DataFrame({"token": np.arange(size), "family": "a"})
        pairs = fam.family_pairs(members, relatives_per_gene=10)
        return 2 * pairs.weight.sum() / size

    assert reads_per_gene(3) == pytest.approx(10)
    assert reads_per_gene(200) == pytest.approx(10)


def test_own_family_table_and_bad_ones(tmp_path, table):
    own = write_tsv(tmp_path / "own.tsv", [["gene", "family"], ["Hx1", "x"], ["Hx2", "x"]])
    prior = fam.build_gene_family([fam.FamilySource(own, "mouse")], table, settings=FAST)
    assert prior.metadata["coverage"]["human"]["known"] == 2
    with pytest.raises(InputError, match="no gene belongs to a family"):
        fam.read_families(fam.FamilySource(hgnc(tmp_path / "empty.txt", ["", ""]), "human"), table)
    with pytest.raises(InputError, match="needs the columns gene and family"):
        bad = write_tsv(tmp_path / "bad.tsv", [["a", "b"], ["Hx1", "x"]])
        fam.read_families(fam.FamilySource(bad, "mouse"), table)
    with pytest.raises(InputError, match="has 2 or more genes"):
        fam.all_families([fam.FamilySource(hgnc(tmp_path / "one.txt", ["a", "b"]), "human")], table)


# ---- published pickles


def test_published_pickle(tmp_path, table):
    vectors = {f"ENSG{i:011d}": np.full(4, i, dtype=np.float32) for i in range(5)} | {"ENSG09999999999": np.ones(4)}
    (tmp_path / "p.pickle").write_bytes(pickle.dumps(vectors))
    prior = read_published_prior(tmp_path / "p.pickle", "promoter", table)
    np.testing.assert_array_equal(prior.matrix[4], np.full(4, 2))
    assert prior.metadata["coverage"]["human"]["known"] == 5
    (tmp_path / "q.pickle").write_bytes(pickle.dumps({"ENSG00000000001": [1.0, 2.0], "ENSG00000000002": [1.0]}))
    with pytest.raises(InputError, match="not one table"):
        read_published_prior(tmp_path / "q.pickle", "promoter", table)
    (tmp_path / "r.pickle").write_bytes(pickle.dumps({"nothing": [1.0, 2.0]}))
    with pytest.raises(InputError, match="none of its 1 keys"):
        read_published_prior(tmp_path / "r.pickle", "promoter", table)


class _Evil:
    def __reduce__(self):
        import os

        return os.getcwd, ()


def test_published_pickle_with_code_is_refused(tmp_path, table):
    (tmp_path / "p.pickle").write_bytes(pickle.dumps({"ENSG00000000001": _Evil()}))
    with pytest.raises(InputError, match="getcwd"):
        read_published_prior(tmp_path / "p.pickle", "promoter", table)


# ---- attaching


def save_checkpoint(folder, table, priors):
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size, hidden_size=16, intermediate_size=16, num_attention_heads=2, priors=priors
    )
    model = GeneCompassForMaskedGeneModeling(config).eval()
    model.save_pretrained(folder)
    table.write(folder / "genes.tsv.gz")
    return model


def outputs(model):
    ids = torch.tensor([[5, 9, 44, 30], [12, 13, 60, 2]])
    with torch.inference_mode():
        return model(ids, torch.rand(2, 4, generator=torch.manual_seed(1)), species=torch.tensor([0, 1])).logits


def some_prior(table, name, width, seed):
    rng = np.random.default_rng(seed)
    tokens = np.arange(2, table.vocab_size)
    return assemble(name, tokens, rng.normal(size=(len(tokens), width)), table)


def test_attach_replaces_contents(tmp_path, table):
    save_checkpoint(tmp_path / "a", table, {"grn": 4})
    prior = some_prior(table, "grn", 4, 0)
    write_priors(tmp_path / "grn.safetensors", [prior])
    attach_priors(tmp_path / "a", [tmp_path / "grn.safetensors"], tmp_path / "b")
    with safe_open(next((tmp_path / "b").glob("*.safetensors")), framework="numpy") as weights:
        stored = next(weights.get_tensor(key) for key in weights.keys() if key.endswith("prior_tables.grn"))  # noqa: SIM118
        rows = next(weights.get_tensor(key) for key in weights.keys() if key.endswith("prior_rows"))  # noqa: SIM118
    np.testing.assert_array_equal(stored, prior.matrix)
    np.testing.assert_array_equal(rows, np.stack([table.prior_rows("human"), table.prior_rows("mouse")]))
    assert (tmp_path / "b" / "priors.json").is_file()
    assert (tmp_path / "b" / "genes.tsv.gz").is_file()


def test_attach_four_new_tables_changes_nothing_until_trained_and_folds(tmp_path, table):
    model = save_checkpoint(tmp_path / "a", table, {})
    names = ("grn", "promoter", "gene_family", "co_expression")
    priors = [some_prior(table, name, width, width) for width, name in enumerate(names, start=3)]
    attach_priors(tmp_path / "a", priors, tmp_path / "b")
    grown = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path / "b").eval()
    assert list(grown.config.priors) == ["promoter", "co_expression", "gene_family", "grn"]
    torch.testing.assert_close(outputs(grown), outputs(model), atol=1e-5, rtol=1e-5)

    grown.train()
    ids = torch.tensor([[5, 9, 44, 30]])
    loss = grown(ids, torch.rand(1, 4), labels=ids, labels_values=torch.rand(1, 4)).loss
    loss.backward()
    fusion = next(weight for name, weight in grown.named_parameters() if name.endswith("fusion_genes.weight"))
    assert fusion.grad[:, 16:].abs().max() > 0
    torch.optim.SGD(grown.parameters(), 0.1).step()
    grown.eval()
    before = outputs(grown)
    grown.fold_prior_knowledge()
    torch.testing.assert_close(outputs(grown), before, atol=1e-5, rtol=1e-5)
    grown.save_pretrained(tmp_path / "c")
    again = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path / "c").eval()
    torch.testing.assert_close(outputs(again), before, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="folded"):
        table.write(tmp_path / "c" / "genes.tsv.gz")
        attach_priors(tmp_path / "c", priors[:1], tmp_path / "d")


def test_attach_keeps_other_tables(tmp_path, table):
    model = save_checkpoint(tmp_path / "a", table, {"grn": 4, "gene_family": 3})
    attach_priors(tmp_path / "a", [some_prior(table, "grn", 4, 0)], tmp_path / "b")
    attach_priors(tmp_path / "b", [some_prior(table, "promoter", 6, 1)], tmp_path / "c")
    first = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path / "b").eval()
    second = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path / "c").eval()
    torch.testing.assert_close(outputs(first), outputs(second), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(outputs(first), outputs(model), atol=1e-4)


def test_attach_refuses(tmp_path, table):
    save_checkpoint(tmp_path / "a", table, {})
    frame = table.frame.iloc[:-1]
    smaller = assemble("grn", np.array([2]), np.ones((1, 3)), GeneTable(frame))
    with pytest.raises(InputError, match="rows"):
        attach_priors(tmp_path / "a", [smaller], tmp_path / "b")
    other = table.frame.copy()
    other.loc[5, "gene_id"] = "ENSG00000099999"
    with pytest.raises(InputError, match="other gene ids"):
        attach_priors(
            tmp_path / "a", [assemble("grn", np.array([2]), np.ones((1, 3)), GeneTable(other))], tmp_path / "b"
        )
    assert not (tmp_path / "b").exists()
    with pytest.raises(InputError, match="already exists"):
        attach_priors(tmp_path / "a", [smaller], tmp_path / "a")


# ---- inspection


def test_nearest_genes_and_homologs(table):
    rng = np.random.default_rng(0)
    matrix = np.zeros((table.vocab_size, 6), dtype=np.float32)
    matrix[2:42] = rng.normal(size=(40, 6))
    matrix[42:72] = matrix[2:32] + 0.05 * rng.normal(size=(30, 6))
    matrix[4] = matrix[3] * 2
    prior = PriorTable("grn", matrix, {})
    near = inspection.nearest_genes(prior, table, "HX1", "human", count=3)
    assert near["symbol"].iloc[0] == "HX2"
    assert near["cosine"].iloc[0] == pytest.approx(1)
    across = inspection.nearest_genes(prior, table, "HX9", "human", count=1, among="mouse")
    assert across["symbol"].tolist() == ["Hx9"]
    with pytest.raises(InputError, match="no knowledge"):
        inspection.nearest_genes(prior, table, "Hx39", "mouse")
    row = inspection.homolog_cosines(prior, table).iloc[0]
    assert row["species"] == "mouse"
    assert row["pairs"] == 30
    assert row["homologs"] > 0.95 > row["random"] + 0.5


def test_map(tmp_path, table):
    prior = some_prior(table, "grn", 6, 0)
    labels = pd.Series("a", index=range(2, 20))
    drawn = inspection.draw_map(prior, table, labels, tmp_path / "map.png", species="human", method="pca")
    assert (tmp_path / "map.png").stat().st_size > 1000
    assert len(drawn) == 40
    assert (drawn["label"] == "a").sum() == 18
    with pytest.raises(InputError, match="nothing to draw"):
        few = assemble("grn", np.array([2]), np.ones((1, 3)), table)
        inspection.draw_map(few, table, labels, tmp_path / "x.png", species="human", method="pca")
