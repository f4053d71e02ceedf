"""The builder: nothing of the sources is lost, bad inputs stop nobody else, growth touches nothing old."""

import os
from collections import Counter
from pathlib import Path

import anndata as ad
import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import yaml
from genecompass.dataset_scripts.corpus.builder import BuildOptions, build
from genecompass.dataset_scripts.corpus.catalogue import Corpus
from genecompass.dataset_scripts.corpus.engines import engine
from genecompass.dataset_scripts.corpus.gene_axis import axis_keys, axis_positions, extend_axis, source_genes
from genecompass.dataset_scripts.corpus.layout import shards_for
from genecompass.dataset_scripts.corpus.publish import read_corpus_manifest
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.manifest import check_manifest


def all_cells(folder: Path, species: str) -> pd.DataFrame:
    shards = sorted((folder / "data" / species).glob("*.parquet"))
    return pd.concat([pd.read_parquet(shard) for shard in shards], ignore_index=True)


def decode(
    folder: Path, species: str, source: ad.AnnData, dataset: str, gene_species: str | None = None
) -> sp.csr_matrix:
    """The source's count matrix, put together again from the corpus alone."""
    cells = all_cells(folder, species)
    cells = cells[cells["dataset"] == dataset].set_index("cell_id")
    axis = pd.read_parquet(folder / "genes" / f"{species}.parquet")
    column_of = np.full(len(axis), -1)
    genes = source_genes(source.var, gene_species=gene_species or species)
    column_of[axis_positions(axis_keys(axis), genes)] = np.arange(source.n_vars)
    rows, columns, counts = [], [], []
    for number, name in enumerate(source.obs_names):
        if name not in cells.index:
            continue
        genes = cells.loc[name, "genes"]
        assert (np.diff(genes) > 0).all()
        rows.append(np.full(len(genes), number))
        columns.append(column_of[genes])
        counts.append(cells.loc[name, "counts"])
        assert np.isclose(cells.loc[name, "n_counts"], counts[-1].sum(), rtol=1e-6)
    entries = (np.concatenate(counts), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_matrix(entries, shape=source.shape)


def test_counts_come_back_exactly(corpus, inputs):
    for name, species in (("a", "human"), ("b", "mouse"), ("c", "human")):
        source = ad.read_h5ad(inputs / f"{name}.h5ad")
        assert (decode(corpus, species, source, name) != source.X).nnz == 0
        cells = all_cells(corpus, species)
        mine = cells[cells["dataset"] == name].set_index("cell_id")
        assert (mine["cell_type"] == source.obs.loc[mine.index, "cell_type"].astype(str)).all()
        assert set(mine.index) == set(source.obs_names)


REAL = {
    "baron_pancreas/baron_human_mouse_shared_genes": "obs:organism",  # mouse cells in human orthologs
    "baron_pancreas/baron_mouse1": "mouse",
    "pbmc_human/pbmc_facs_sorted_test_10x": "human",
    "sc_mixology/sc_celseq2": "human",
    "more_cells/human_pollen_11types": "human",  # full-length reads, counts up to 329,062
    "more_cells/human_ipsc_tung": "human",
    "more_cells/mouse_embryo_deng": "mouse",
    "more_cells/mouse_stomach_intestine_mca": "mouse",
    "mouse_pancreas_e15/mouse_pancreas_e15_spliced_739": "mouse",
}
SAMPLED_CELLS = 40


def named(labels, counts) -> dict[str, int]:
    found = dict(zip(labels, (int(count) for count in counts), strict=True))
    assert len(found) == len(labels)
    return found


def test_real_cells_decode_to_the_counts_of_their_sources(data, manifest_of, tmp_path):
    """Built by us; read with `datasets` and pyarrow alone, gene by gene and count by count."""
    rows = [
        {"path": str(data / f"{name}.h5ad"), "species": species, "gene_species": "human" if ":" in species else ""}
        for name, species in REAL.items()
    ]
    build(manifest_of(tmp_path / "m.tsv", rows), tmp_path / "out")
    streamed, sizes = {}, Counter()
    for species in ("human", "mouse"):
        axis = pq.read_table(tmp_path / "out" / "genes" / f"{species}.parquet").to_pylist()
        labels = np.array([gene["gene_id"] or gene["symbol"] for gene in axis], dtype=object)
        cells = datasets.load_dataset(str(tmp_path / "out"), species, split="train", streaming=True)
        for cell in cells.with_format("numpy"):
            name = (str(cell["dataset"]), str(cell["cell_id"]))
            assert name not in streamed
            streamed[name] = species, labels[cell["genes"]], cell["counts"]
            sizes[name[0]] += 1
    for path in REAL:
        source = ad.read_h5ad(data / f"{path}.h5ad")
        ids = source.var["ensembl_id"].astype(str)
        known = ids.str.fullmatch(r"ENS(MUS)?G\d{11}") & ~ids.duplicated()
        labels = ids.where(known, pd.Series(source.var_names, index=ids.index)).to_numpy(dtype=object)
        dataset = path.split("/")[1]
        assert sizes[dataset] == source.n_obs
        for number in np.random.default_rng(0).choice(source.n_obs, min(SAMPLED_CELLS, source.n_obs), replace=False):
            species, genes, found = streamed[dataset, source.obs_names[number]]
            counts = np.ravel(source.X[number].toarray())
            assert species == source.obs["organism"].iloc[number]
            assert named(genes, found) == named(labels[counts > 0], counts[counts > 0])


def test_stock_datasets_reads_it(corpus):
    mouse = datasets.load_dataset(str(corpus), "mouse", split="train", streaming=True)
    rows = list(mouse)
    assert len(rows) == 900
    assert {row["species"] for row in rows} == {"mouse"}
    assert mouse.features["genes"] == datasets.List(datasets.Value("int32"))
    assert sum(1 for _ in datasets.load_dataset(str(corpus), "all", split="train", streaming=True)) == 3100
    default = datasets.load_dataset(str(corpus), split="train", streaming=True)
    assert sum(1 for _ in default) == 3100


def test_shards_mix_the_inputs(corpus):
    for shard in (corpus / "data" / "human").glob("*.parquet"):
        datasets_seen = pq.read_table(shard, columns=["dataset"])["dataset"].to_pandas()
        share = (datasets_seen == "a").mean()
        assert 0.55 < share < 0.8, "1,500 of 2,200 human cells come from a"
        assert datasets_seen.head(100).nunique() == 2


def test_layout_and_manifest(corpus):
    content = read_corpus_manifest(corpus)
    assert content["kind"] == "corpus"
    assert {name: entry["cells"] for name, entry in content["species"].items()} == {"human": 2200, "mouse": 900}
    assert sorted(content["shards"]) == [
        *(f"data/human/train-{i:05d}.parquet" for i in range(3)),
        "data/mouse/train-00000.parquet",
    ]
    assert check_manifest(corpus) == []
    assert not list(corpus.glob(".*"))
    encodings = pq.ParquetFile(corpus / "data/human/train-00000.parquet").metadata.row_group(0)
    by_path = {encodings.column(i).path_in_schema: encodings.column(i) for i in range(encodings.num_columns)}
    assert "DELTA_BINARY_PACKED" in by_path["genes.list.element"].encodings
    assert by_path["genes.list.element"].compression == "ZSTD"
    card = yaml.safe_load((corpus / "README.md").read_text().split("---")[1])
    assert [config["config_name"] for config in card["configs"]] == ["all", "human", "mouse"]


def test_same_inputs_same_bytes_and_rerun_changes_nothing(inputs, corpus, tree, tmp_path):
    build(inputs / "inputs.tsv", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(corpus)
    report = build(inputs / "inputs.tsv", tmp_path / "again")
    assert report.added == 0
    assert tree(tmp_path / "again") == tree(corpus)


@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
def test_engines_write_the_same_bytes(name, inputs, corpus, tree, tmp_path):
    if name != "loky":
        pytest.importorskip({"dask": "distributed"}.get(name, name))
    build(inputs / "inputs.tsv", tmp_path / "out", engine_name=name, jobs=2)
    assert tree(tmp_path / "out") == tree(corpus)
    with engine(name, jobs=2) as run:
        assert os.getpid() not in run(lambda _: os.getpid(), range(3), "asking"), "other processes do the work"


def test_append_touches_no_old_shard(inputs, make_cells, manifest_of, tree, tmp_path):
    rows = pd.read_csv(inputs / "inputs.tsv", sep="\t").assign(path=lambda d: [str(inputs / p) for p in d["path"]])
    first = manifest_of(tmp_path / "first.tsv", rows.iloc[:2].to_dict("records"))
    everything = manifest_of(tmp_path / "all.tsv", rows.to_dict("records"))
    build(first, tmp_path / "out")
    before = tree(tmp_path / "out")
    old_axis = pd.read_parquet(tmp_path / "out/genes/human.parquet")
    report = build(everything, tmp_path / "out")
    assert report.added == 700
    assert report.cells == {"human": 2200, "mouse": 900}
    after = tree(tmp_path / "out")
    assert all(after[name] == content for name, content in before.items() if name.startswith("data/"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out/genes/human.parquet").iloc[: len(old_axis)], old_axis)
    source = ad.read_h5ad(inputs / "c.h5ad")
    assert (decode(tmp_path / "out", "human", source, "c") != source.X).nnz == 0
    assert check_manifest(tmp_path / "out") == []

    build(everything, tmp_path / "out", reshuffle=True)
    build(everything, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_appending_needs_known_columns_and_reshuffle_needs_all_inputs(inputs, manifest_of, corpus, tmp_path, tree):
    before = tree(corpus)
    more = manifest_of(tmp_path / "more.tsv", [{"path": str(inputs / "a.h5ad"), "dataset": "z", "species": "human",
                                                "obs_columns": "organism"}])  # fmt: skip
    with pytest.raises(InputError, match=r"no column 'organism'.*--reshuffle"):
        build(more, corpus)
    with pytest.raises(InputError, match="lacks dataset 'a'"):
        build(more, corpus, reshuffle=True)
    assert tree(corpus) == before


def test_bad_inputs_are_reported_and_stop_nobody(inputs, make_cells, manifest_of, tmp_path):
    logged = make_cells(50, 9)
    logged.X = logged.X.astype(np.float32).log1p()
    logged.write_h5ad(tmp_path / "logged.h5ad")
    (tmp_path / "garbage.h5ad").write_bytes(b"not hdf5")
    cut = (inputs / "c.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(cut[: len(cut) // 2])
    good = {"path": str(inputs / "a.h5ad"), "species": "human"}
    rows = [good] + [{"path": f"{n}.h5ad", "species": "human"} for n in ("logged", "garbage", "cut", "absent")]
    report = build(manifest_of(tmp_path / "m.tsv", rows), tmp_path / "out")
    assert report.cells == {"human": 1500}
    assert sorted(report.failed) == ["absent", "cut", "garbage", "logged"]
    assert "log" in report.failed["logged"]
    assert all("\n" not in reason for reason in report.failed.values())
    assert check_manifest(tmp_path / "out") == []
    with pytest.raises(InputError, match="none of the inputs"):
        build(manifest_of(tmp_path / "bad.tsv", rows[1:]), tmp_path / "none")
    assert not list((tmp_path / "none").iterdir())


def test_mended_inputs_are_appended_on_a_rerun(inputs, make_cells, manifest_of, tmp_path):
    rows = [{"path": str(inputs / "a.h5ad"), "species": "human"}, {"path": "late.h5ad", "species": "mouse"}]
    manifest = manifest_of(tmp_path / "m.tsv", rows)
    assert "late" in build(manifest, tmp_path / "out").failed
    make_cells(60, 5, species="mouse").write_h5ad(tmp_path / "late.h5ad")
    report = build(manifest, tmp_path / "out")
    assert report.failed == {}
    assert report.cells == {"human": 1500, "mouse": 60}


def test_an_unfinished_build_of_something_else_is_not_mixed_in(inputs, tmp_path):
    (tmp_path / "out/.building").mkdir(parents=True)
    (tmp_path / "out/.building/plan.json").write_text('{"asked": {"other": 1}}')
    with pytest.raises(InputError, match="unfinished build with other inputs"):
        build(inputs / "inputs.tsv", tmp_path / "out")


def test_mixed_species_and_orthologs(make_cells, manifest_of, tmp_path):
    both = ad.concat([make_cells(80, 1), make_cells(70, 1, prefix="m")])
    both.var = make_cells(1, 1).var
    both.obs["organism"] = ["human"] * 80 + ["mouse"] * 70
    both.write_h5ad(tmp_path / "both.h5ad")
    row = {"path": "both.h5ad", "species": "obs:organism", "gene_species": "human"}
    row["obs_columns"] = "cell_type, organ=tissue, donor='one, two'"
    build(manifest_of(tmp_path / "m.tsv", [row]), tmp_path / "out")
    assert (
        decode(tmp_path / "out", "human", both, "both") + decode(tmp_path / "out", "mouse", both, "both", "human")
        != both.X
    ).nnz == 0
    axis = pd.read_parquet(tmp_path / "out/genes/mouse.parquet")
    assert set(axis["gene_species"]) == {"human"}
    cells = all_cells(tmp_path / "out", "mouse")
    assert set(cells["donor"]) == {"one, two"}
    assert set(cells["organ"]) == {"liver", "lung"}


def test_quality_control_by_sample(make_cells, table, manifest_of, tmp_path):
    cells = make_cells(120, 4)
    poor = cells.X.tolil()
    poor[:5] = 0
    poor[5:8] = 0
    poor[5:8, :3] = 1
    cells.X = poor.tocsr()
    cells.obs["sample"] = np.repeat(["s1", "s2"], 60)
    cells.write_h5ad(tmp_path / "x.h5ad")
    table.write(tmp_path / "genes.parquet")
    manifest = manifest_of(tmp_path / "m.tsv", [{"path": "x.h5ad", "species": "human", "sample": "obs:sample"}])
    options = BuildOptions(quality="published_code", gene_table=str(tmp_path / "genes.parquet"))
    report = build(manifest, tmp_path / "out", options=options)
    entry = read_corpus_manifest(tmp_path / "out")["sources"][0]
    assert entry["removed"]["empty"] == 5
    assert entry["removed"]["min_coding_genes"] == 3
    assert report.removed == sum(entry["removed"].values()) == 120 - entry["kept"]
    kept = all_cells(tmp_path / "out", "human")
    assert len(kept) == entry["kept"]
    assert not set(kept["cell_id"]) & set(cells.obs_names[:8])
    with pytest.raises(InputError, match="needs a gene table"):
        build(manifest, tmp_path / "without", options=BuildOptions(quality="paper"))


def test_fractional_counts_need_a_corpus_of_their_own(make_cells, manifest_of, tmp_path):
    cells = make_cells(40, 6)
    cells.X = cells.X.astype(np.float32) * np.float32(1.37)
    cells.write_h5ad(tmp_path / "f.h5ad")
    manifest = manifest_of(tmp_path / "m.tsv", [{"path": "f.h5ad", "species": "human"}])
    with pytest.raises(InputError, match="--count-type float32"):
        build(manifest, tmp_path / "int")
    build(manifest, tmp_path / "float", options=BuildOptions(count_type="float32"))
    assert (decode(tmp_path / "float", "human", cells, "f") != cells.X).nnz == 0


def test_repeated_names_and_genes_are_kept_apart(manifest_of, tmp_path):
    var = pd.DataFrame({"ensembl_id": ["ENSG00000000001", "ENSG00000000001.2", "", ""]}, index=["A", "A-old", "x", "x"])
    cells = ad.AnnData(sp.csr_matrix(np.arange(1, 13).reshape(3, 4)), var=var)
    cells.obs_names = ["same", "same", "other"]
    cells.write_h5ad(tmp_path / "r.h5ad")
    build(manifest_of(tmp_path / "m.tsv", [{"path": "r.h5ad", "species": "human"}]), tmp_path / "out")
    got = all_cells(tmp_path / "out", "human").set_index("cell_id").sort_index()
    assert list(got.index) == ["other", "same", "same-1"]
    assert sorted(got.loc["other", "counts"]) == [9, 10, 11, 12]
    assert len(pd.read_parquet(tmp_path / "out/genes/human.parquet")) == 4


def test_gene_axis_is_append_only_and_frequent_genes_come_first():
    def genes(*names):
        return pd.DataFrame({"gene_id": "", "symbol": list(names), "gene_species": "human"})

    axis = extend_axis(None, [genes("a", "b"), genes("c", "b")], [np.array([5, 1]), np.array([3, 7])])
    assert axis["symbol"].tolist() == ["b", "a", "c"]
    grown = extend_axis(axis, [genes("z", "c")], [np.array([100, 1])])
    assert grown["symbol"].tolist() == ["b", "a", "c", "z"]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("path\tspecies\tcolour", "a.h5ad\thuman\tred", "unknown column 'colour'"),
        ("path", "a.h5ad", "column 'species' is missing"),
        ("path\tspecies", "a.h5ad\t", "no 'species'"),
        ("path\tspecies\tobs_columns", "a.h5ad\thuman\tgenes", "'genes' cannot be a corpus column"),
        ("path\tspecies", "a.h5ad\thuman\na.h5ad\tmouse", "dataset 'a' appears twice"),
    ],
)
def test_bad_manifests_in_one_line(header, row, message, tmp_path):
    (tmp_path / "m.tsv").write_text(f"{header}\n{row}\n")
    with pytest.raises(InputError, match=message):
        build(tmp_path / "m.tsv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_million_cells_go_to_at_least_128_shards():
    assert shards_for(1_000_000) >= 128
    assert shards_for(0) == 0


def test_two_builders_do_not_meet(inputs, tmp_path):
    from genecompass.dataset_scripts.corpus.ledger import sole_builder

    with sole_builder(tmp_path / "out"), pytest.raises(InputError, match="another process"):
        build(inputs / "inputs.tsv", tmp_path / "out")


def test_opening_what_is_no_corpus(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Corpus(tmp_path / "nothing")
    with pytest.raises(InputError, match="no corpus"):
        Corpus(tmp_path)
