"""Verify finds what is wrong and what is there twice; inspect counts; import reads the published form."""

import shutil

import anndata as ad
import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from genecompass.dataset_scripts.corpus.builder import BuildOptions, build
from genecompass.dataset_scripts.corpus.card import usage, usage_with_package
from genecompass.dataset_scripts.corpus.checks import verify
from genecompass.dataset_scripts.corpus.layout import schema, writer_options
from genecompass.dataset_scripts.corpus.publish import read_corpus_manifest
from genecompass.dataset_scripts.corpus.published import write_import_manifest
from genecompass.dataset_scripts.corpus.stream import open_corpus
from genecompass.dataset_scripts.corpus.summary import describe, draw, summarize
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import record_files

from genecompass.cli import main


@pytest.fixture
def copy(corpus, tmp_path):
    return shutil.copytree(corpus, tmp_path / "copy")


def test_a_sound_corpus(corpus, capsys):
    report = verify(corpus)
    assert report.sound
    assert report.cells == 3100
    assert report.duplicates.empty
    main_exits(["corpus", "verify", str(corpus)], 0)
    assert "3,100 cells checked, 0 problems" in capsys.readouterr().out


def main_exits(arguments, code):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == code


def test_a_flipped_byte_is_found_and_named(copy, capsys):
    shard = copy / "data/human/train-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    report = verify(copy)
    assert [problem.split(":")[0] for problem in report.problems] == ["data/human/train-00001.parquet"]
    main_exits(["corpus", "verify", str(copy)], 1)
    assert "data/human/train-00001.parquet" in capsys.readouterr().err


def test_missing_and_foreign_files(copy):
    (copy / "data/mouse/train-00000.parquet").unlink()
    (copy / "data/human/train-00009.parquet").write_bytes(b"stray")
    problems = verify(copy).problems
    assert any("train-00000.parquet: missing" in problem for problem in problems)
    assert any("train-00009.parquet: not listed" in problem for problem in problems)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("genes", lambda values: values[::-1], "do not ascend"),
        ("genes", lambda values: values + 10_000, "not on the axis"),
        ("counts", lambda values: values * 0, "not positive"),
        ("counts", lambda values: values + 1, "not the sum"),
        ("cell_id", lambda value: "everyone", "same dataset and cell_id"),
        ("species", lambda value: "rat", "not of species 'mouse'"),
    ],
)
def test_wrong_contents_are_named_even_under_a_right_checksum(column, change, message, copy):
    name = "data/mouse/train-00000.parquet"
    columns = tuple(read_corpus_manifest(copy)["obs_columns"])
    frame = pd.read_parquet(copy / name)
    frame[column] = frame[column].map(change)
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, schema=schema(columns), preserve_index=False)
    pq.write_table(table, copy / name, row_group_size=512, **writer_options(columns))
    record_files(copy, [name])
    assert any(message in problem for problem in verify(copy).problems)


def test_cells_twice_under_other_names_and_genes(make_cells, manifest_of, tmp_path):
    """A copy with renamed cells, fewer genes and mouse-style symbols is still the same cells."""
    cells = make_cells(200, 1, n_genes=280)
    cells.write_h5ad(tmp_path / "first.h5ad")
    again = cells[50:90, 20:].copy()
    again.obs_names = [f"renamed-{i}" for i in range(40)]
    again.var_names = again.var_names.str.capitalize()
    again.var = again.var[[]]
    again.X[0, :] = again.X[0, :]
    again.write_h5ad(tmp_path / "second.h5ad")
    rows = [{"path": f"{name}.h5ad", "species": "human"} for name in ("first", "second")]
    build(manifest_of(tmp_path / "m.tsv", rows), tmp_path / "out")
    found = verify(tmp_path / "out").duplicates
    pairs = {frozenset((a, b)) for a, b in zip(found["cell_id"], found["other_cell_id"], strict=True)}
    assert pairs == {frozenset((f"human1-{50 + i}", f"renamed-{i}")) for i in range(40)}


def test_chance_namesakes_are_no_duplicates(make_cells, manifest_of, tmp_path):
    for name, seed in (("x", 1), ("y", 2)):
        cells = make_cells(30, seed)
        cells.obs_names = [f"AAACCTG-{i}" for i in range(30)]
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    rows = [{"path": f"{name}.h5ad", "species": "human"} for name in "xy"]
    build(manifest_of(tmp_path / "m.tsv", rows), tmp_path / "out")
    assert verify(tmp_path / "out").duplicates.empty


def test_the_baron_files_share_51_cells(data, manifest_of, tmp_path):
    folder = data / "baron_pancreas"
    rows = [
        {"path": str(folder / "baron_mouse1.h5ad"), "species": "mouse", "gene_species": ""},
        {
            "path": str(folder / "baron_human_mouse_shared_genes.h5ad"),
            "species": "obs:organism",
            "gene_species": "human",
        },
    ]
    build(manifest_of(tmp_path / "m.tsv", rows), tmp_path / "out")
    report = verify(tmp_path / "out")
    assert report.sound
    assert report.duplicate_pairs() == {("baron_human_mouse_shared_genes", "baron_mouse1"): 51}
    assert report.duplicates["identical"].mean() > 0.999


def test_summary(corpus, inputs, tmp_path, capsys):
    summary = summarize(corpus, top=5)
    cells = summary.cells.set_index(["species", "column", "value"])["cells"]
    assert cells["human", "dataset", "a"] == 1500
    source = ad.read_h5ad(inputs / "b.h5ad")
    assert cells["mouse", "tissue", "liver"] == (source.obs["tissue"] == "liver").sum()
    lengths = summary.lengths[summary.lengths["species"] == "mouse"]
    expressed = np.diff(source.X.indptr)
    for low, high, number in zip(lengths["from"], lengths["to"], lengths["cells"], strict=True):
        assert number == ((expressed >= low) & (expressed <= high)).sum()
    totals = np.asarray(source.X.sum(axis=0)).ravel()
    best = source.var_names[np.argsort(-totals, kind="stable")[:5]]
    top = summary.genes[summary.genes["species"] == "mouse"]
    assert sorted(top["counts"], reverse=True) == sorted(totals, reverse=True)[:5]
    assert set(top["symbol"]) == set(best)
    assert "1,500" in describe(summary)
    main_exits(["corpus", "inspect", str(corpus), "-o", str(tmp_path / "report")], 0)
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        *("cells.tsv", "corpus.png", "corpus.svg", "genes.tsv", "lengths.tsv"),
    ]
    draw(summary, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_the_card_says_where_cells_are_from_and_its_examples_run(corpus, table, tmp_path, monkeypatch):
    content = read_corpus_manifest(corpus)
    card = (corpus / "README.md").read_text()
    for expected in ("study a", "CC0", "3,100 cells of human and mouse", "| human | 2,200 | 3 |", "Preset: `none`"):
        assert expected in card
    assert usage(content) in card
    assert usage_with_package(content) in card
    assert len(usage(content).splitlines()) == 3
    table.write(tmp_path / "genes.tsv.gz")
    scope: dict = {}
    exec(usage(content, str(corpus)), scope)
    assert len(scope["cell"]["genes"]) == len(scope["cell"]["counts"]) > 0
    exec(usage_with_package(content, str(corpus), str(tmp_path / "genes.tsv.gz")), scope)
    assert {"input_ids", "values", "species", "cell_id", "dataset"} == set(scope["cell"])


def published_folder(path, frame):
    features = datasets.Features(
        {
            "input_ids": datasets.Sequence(datasets.Value("int32")),
            "values": datasets.Sequence(datasets.Value("float32")),
            "length": datasets.Sequence(datasets.Value("int16")),
            "species": datasets.Sequence(datasets.Value("int16")),
        }
    )
    columns = {
        "input_ids": [np.asarray(row, np.int32) for row in frame["input_ids"]],
        "values": [np.asarray(row, np.float32) for row in frame["values"]],
        "length": [[int(np.ravel(row)[0])] for row in frame["length"]],
        "species": [[int(np.ravel(row)[0])] for row in frame["species"]],
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(path))
    return path


def test_published_folders_come_back_as_counts(fixtures, tmp_path):
    tokens = fixtures / "reference-tokens"
    table = GeneTable.read(tokens / "genes.tsv.gz")
    both = pd.concat([pd.read_parquet(tokens / f"{name}.expected.parquet") for name in ("human", "mouse")])
    folder = published_folder(tmp_path / "arrow", both)
    main_exits(
        ["corpus", "import", str(folder), "-o", str(tmp_path / "out"), "--gene-table", str(tokens / "genes.tsv.gz")],
        0,
    )
    content = read_corpus_manifest(tmp_path / "out")
    assert {name: entry["cells"] for name, entry in content["species"].items()} == {"human": 120, "mouse": 80}
    rows = {row["cell_id"]: row for row in open_corpus(tmp_path / "out", table, select={"species": "human"})}
    human = ad.read_h5ad(tokens / "human.h5ad")
    for number in range(0, 120, 7):
        expected = both.iloc[number]
        length = int(np.ravel(expected["length"])[0])
        row = rows[f"cell-{number}"]
        np.testing.assert_allclose(row["values"], expected["values"][:length], atol=1e-6)
        assert sorted(row["input_ids"]) == sorted(expected["input_ids"][:length])
    shards = [pd.read_parquet(p) for p in (tmp_path / "out/data/human").glob("*.parquet")]
    cells = pd.concat(shards).set_index("cell_id")
    known = human[:, human.var["ensembl_id"].isin(set(table.frame["gene_id"]))]
    short = [n for n in range(120) if int(np.ravel(both.iloc[n]["length"])[0]) < 2048]
    assert short
    for number in short[::11]:
        assert cells.loc[f"cell-{number}", "n_counts"] == sp.csr_matrix(known.X)[number].sum()


def test_published_folders_with_the_wrong_table(fixtures, tmp_path):
    tokens = fixtures / "reference-tokens"
    table = GeneTable.read(tokens / "genes.tsv.gz")
    folder = published_folder(tmp_path / "arrow", pd.read_parquet(tokens / "human.expected.parquet").head(5))
    GeneTable(table.frame.assign(median=table.frame["median"] * 1.37)).write(tmp_path / "wrong.tsv.gz")
    write_import_manifest([folder], tmp_path / "wrong.tsv.gz", tmp_path / "m.tsv")
    with pytest.raises(InputError, match="do not give whole counts"):
        build(tmp_path / "m.tsv", tmp_path / "out", options=BuildOptions(gene_table=str(tmp_path / "wrong.tsv.gz")))
    with pytest.raises(InputError, match=r"dataset_info\.json is missing"):
        write_import_manifest([tmp_path], tmp_path / "wrong.tsv.gz", tmp_path / "m.tsv")
