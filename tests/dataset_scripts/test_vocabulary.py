import gzip
import pickle

import anndata
import numpy as np
import pandas as pd
import pytest
from genecompass.dataset_scripts.vocabulary import build_vocabulary, from_data, gene_medians, read_annotation
from genecompass.dataset_scripts.vocabulary.homologs import choose_homologs
from genecompass.dataset_scripts.vocabulary.medians import CountTally
from genecompass.dataset_scripts.vocabulary.show import describe
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable

from genecompass.cli import main

GTF = """#!genome-build GRCh38
1\thavana\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG00000000002.3"; gene_type "protein_coding"; gene_name "BBB";
1\thavana\ttranscript\t1\t9\t.\t+\t.\tgene_id "ENSG00000000002.3"; gene_type "protein_coding"; gene_name "BBB";
1\thavana\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG00000000001"; gene_version "2"; gene_name "AAA"; gene_biotype "lincRNA";
1\thavana\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG00000000003"; gene_biotype "miRNA";
Y\thavana\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG00000000002.3_PAR_Y"; gene_type "protein_coding"; gene_name "BBB";
1\thavana\tgene\t1\t9\t.\t+\t.\tgene_id "ENSG00000000004"; gene_type "snoRNA"; gene_name "DDD";
"""
MOUSE = """gene_id,gene_name,biotype
ENSMUSG00000000001.1,Aaa,protein_coding
ENSMUSG00000000002.4,Bbb,protein_coding
ENSMUSG00000000003.1,Bbb2,protein_coding
ENSMUSG00000000004.1,Own,protein_coding
"""
HGNC = (
    "hgnc_id\tsymbol\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    "HGNC:1\tAAA\tALT1\tOLDA\tENSG00000000001\nHGNC:2\tBNEW\tBX|BY\t\tENSG00000000002\n"
)
HOM = (
    "DB Class Key\tCommon Organism Name\tSymbol\tMouse MGI ID\tHGNC ID\n"
    "7\tmouse, laboratory\tAaa\tMGI:1\t\n7\thuman\tAAA\t\tHGNC:1\n"
    "8\tmouse, laboratory\tBbb2\tMGI:3\t\n8\tmouse, laboratory\tBbb\tMGI:2\t\n8\thuman\tBNEW\t\tHGNC:2\n"
)


@pytest.fixture
def files(tmp_path):
    with gzip.open(tmp_path / "human.gtf.gz", "wt") as file:
        file.write(GTF)
    for name, text in (("mouse.csv", MOUSE), ("hgnc.txt", HGNC), ("HOM.rpt", HOM)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def built(files):
    return build_vocabulary(
        {"human": files / "human.gtf.gz", "mouse": files / "mouse.csv"},
        homologs=[files / "HOM.rpt"],
        names=[files / "hgnc.txt"],
    )


def test_gtf_of_both_publishers(files):
    genes = read_annotation(files / "human.gtf.gz")
    assert genes["gene_id"].tolist() == ["ENSG00000000002", "ENSG00000000001", "ENSG00000000003", "ENSG00000000004"]
    assert genes["biotype"].tolist() == ["protein_coding", "lncRNA", "miRNA", "snoRNA"]
    assert genes["symbol"].tolist() == ["BBB", "AAA", "", "DDD"]


def test_build(built):
    frame = built.frame.set_index("gene_id")
    assert built.species == ("human", "mouse")
    assert built.frame["gene_id"][2:].tolist() == [
        "ENSG00000000001", "ENSG00000000002", "ENSG00000000003",
        "ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003", "ENSMUSG00000000004",
    ]  # fmt: skip
    assert frame["homolog_token"]["ENSMUSG00000000001"] == 2
    # one-to-many: the annotation calls the human gene BBB, and so the mouse gene of that name takes its token
    assert frame["homolog_token"]["ENSMUSG00000000002"] == 3
    assert frame["homolog_token"]["ENSMUSG00000000003"] == -1
    assert built.index.look_up(["OLDA", "ALT1", "BX", "BNEW", "BBB"], "human")[0].tolist() == [2, 2, 3, 3, 3]


def test_one_species_and_other_biotypes(files):
    table = build_vocabulary({"human": files / "human.gtf.gz"}, biotypes=["snoRNA"])
    assert table.frame["gene_id"][2:].tolist() == ["ENSG00000000004"]


def test_homologs_are_chosen_in_the_stated_order():
    genes = pd.DataFrame(
        {
            "gene_id": ["H1", "H2", "M1", "M2", "M3", "R1"],
            "symbol": ["A", "B", "x", "a", "b", "A"],
            "species": ["human"] * 2 + ["mouse"] * 3 + ["rat"],
        }
    )
    pairs = pd.DataFrame([("H1", "M1"), ("H1", "M2"), ("H2", "M1"), ("H1", "R1")], columns=["leading", "other"])
    assert choose_homologs(pairs, genes).to_dict() == {"M2": "H1", "M1": "H2", "R1": "H1"}
    many = pd.DataFrame([("H2", "M1"), ("H1", "M3"), ("H1", "M1")], columns=["leading", "other"])
    assert choose_homologs(many.sample(frac=1, random_state=0), genes).to_dict() == {"M1": "H1"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.gtf", None, "no such annotation file"),
        ("empty.gtf", "#\n", "holds no Ensembl gene ids"),
        ("bad.csv", "a,b\n1,2\n", "no column gene_id or ensembl_id"),
    ],
)
def test_bad_annotation(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        build_vocabulary({"human": tmp_path / name})


def test_bad_homologs_and_names(files):
    (files / "x.tsv").write_text("a\tb\n1\t2\n")
    annotation = {"human": files / "human.gtf.gz", "mouse": files / "mouse.csv"}
    with pytest.raises(InputError, match="expected two columns of Ensembl gene ids"):
        build_vocabulary(annotation, homologs=[files / "x.tsv"])
    with pytest.raises(InputError, match="neither HGNC's complete set"):
        build_vocabulary(annotation, names=[files / "x.tsv"])
    with pytest.raises(InputError, match="no annotation given"):
        build_vocabulary({})


def test_from_data():
    human = anndata.AnnData(np.ones((1, 3)), var=pd.DataFrame({"gene_ids": ["ENSG00000000001", "", "ENSG00000000002"]},
                                                              index=["AAA", "noid", "BBB"]))  # fmt: skip
    more = anndata.AnnData(np.ones((1, 2)), var=pd.DataFrame(index=["AAA", "CCC"]))
    mouse = anndata.AnnData(np.ones((1, 2)), var=pd.DataFrame(index=["Aaa", "CCC"]))
    table = from_data([human, more, mouse], ["human", "human", "mouse"])
    ids = ["human:CCC", "ENSG00000000001", "ENSG00000000002", "noid", "Aaa", "mouse:CCC"]
    assert table.frame["gene_id"][2:].tolist() == ids
    assert table.index.look_up(["CCC"], "mouse")[0].tolist() == [7]
    with pytest.raises(InputError, match="2 data sets and 1 species"):
        from_data([human, more], ["human"])


class TestMedians:
    @pytest.fixture
    def cells(self):
        rng = np.random.default_rng(0)
        dense = rng.poisson(0.7, (200, 5)).astype(float)
        dense[:, 4] = rng.integers(0, 500, 200)
        dense[:, 3] = 0
        names = [f"ENSG{i:011d}" for i in range(5)]
        table = GeneTable.from_genes(pd.DataFrame({"gene_id": names, "symbol": names, "species": "human"}))
        return anndata.AnnData(dense, var=pd.DataFrame(index=names)), table

    def test_exact(self, cells, monkeypatch):
        monkeypatch.setattr("genecompass.dataset_scripts.vocabulary.medians._PENDING", 20)
        adata, table = cells
        found = gene_medians([(adata[:90], "human"), (adata[90:], "human")], table)
        expected = [np.median(column[column > 0]) if column.any() else np.nan for column in adata.X.T]
        np.testing.assert_array_equal(found[2:], expected)

    def test_fractions_and_shared_columns(self, cells):
        adata, table = cells
        adata.X = adata.X / 3
        twice = anndata.concat([adata, adata], axis=1)
        twice.var_names = list(adata.var_names) * 2
        found = gene_medians([(twice, "human")], table, allow_fractional=True)
        expected = [np.median(column[column > 0]) if column.any() else np.nan for column in adata.X.T * 2]
        np.testing.assert_allclose(found[2:], expected, rtol=1e-6)

    def test_resumes(self, cells, tmp_path):
        adata, table = cells
        adata[:90].write_h5ad(tmp_path / "a.h5ad")
        adata[90:].write_h5ad(tmp_path / "b.h5ad")
        both = [(tmp_path / "a.h5ad", "human"), (tmp_path / "b.h5ad", "human")]
        gene_medians(both[:1], table, state=tmp_path / "state.npz")
        resumed = gene_medians(both, table, state=tmp_path / "state.npz")
        np.testing.assert_array_equal(resumed, gene_medians(both, table))
        again = gene_medians(both, table, state=tmp_path / "state.npz")
        np.testing.assert_array_equal(resumed, again)
        (tmp_path / "state.npz").write_bytes(b"junk")
        with pytest.raises((InputError, ValueError), match=r"state\.npz|pickle"):
            gene_medians(both, table, state=tmp_path / "state.npz")

    def test_another_table_is_refused(self, tmp_path):
        CountTally(5).save(tmp_path / "s.npz", [])
        with pytest.raises(InputError, match="made with another gene table"):
            CountTally.load(tmp_path / "s.npz", 6)


def test_show(built):
    assert describe(built, "AAA", species="mouse")[0].startswith(
        "AAA (human): in mouse Aaa, ENSMUSG00000000001, token 5"
    )
    assert "previously OLDA" in describe(built, "OLDA")[0]
    with pytest.raises(InputError, match="'zzz': no gene is called so"):
        describe(built, "zzz")


class TestCommandLine:
    def _run(self, *arguments):
        with pytest.raises(SystemExit) as ended:
            main(["vocabulary", *map(str, arguments)])
        return ended.value.code

    def test_build_show_medians(self, files, capsys):
        out = files / "genes.parquet"
        annotation = [f"human={files / 'human.gtf.gz'}", f"mouse={files / 'mouse.csv'}"]
        assert (
            self._run("build", *annotation, "--homologs", files / "HOM.rpt", "--names", files / "hgnc.txt", "-o", out)
            == 0
        )
        assert "mouse: 4 genes (4 protein_coding), 2 on a homolog's token" in capsys.readouterr().out
        assert self._run("show", out, "AAA") == 0
        assert "ENSG00000000001" in capsys.readouterr().out
        names = [f"ENSG{i:011d}" for i in (1, 2)]
        anndata.AnnData(np.array([[1.0, 0], [5, 2]]), var=pd.DataFrame(index=names)).write_h5ad(files / "d.h5ad")
        assert self._run("medians", f"human={files / 'd.h5ad'}", "--table", out, "-o", files / "with.tsv.gz") == 0
        assert GeneTable.read(files / "with.tsv.gz").medians[2:4].tolist() == [3, 2]
        assert self._run("from-data", files / "d.h5ad", "--species", "human", "-o", files / "fd.parquet") == 0
        assert GeneTable.read(files / "fd.parquet").vocab_size == 4

    def test_import(self, tmp_path):
        (tmp_path / "t.pickle").write_bytes(pickle.dumps({"<pad>": 0, "<mask>": 1, "ENSG00000000001": 2}))
        assert self._run("import", tmp_path / "t.pickle", "-o", tmp_path / "g.tsv.gz") == 0
        assert GeneTable.read(tmp_path / "g.tsv.gz").vocab_size == 3

    def test_bad_input_is_one_line(self, files, capsys):
        for arguments in (
            ("build", files / "human.gtf.gz", "-o", files / "x.parquet"),
            ("build", f"human={files / 'human.gtf.gz'}", "-o", files / "x.docx"),
            ("show", files / "nowhere.parquet", "INS"),
            ("import", files / "mouse.csv", "-o", files / "x.parquet"),
        ):
            assert self._run(*arguments) == 2
            lines = capsys.readouterr().err.strip().splitlines()
            assert len(lines) == 1
            assert lines[0].startswith("genecompass: error: ")
        assert not (files / "x.parquet").exists()


def test_real_annotation(data):
    folder = data / "gene_annotation"
    table = build_vocabulary(
        {
            "human": folder / "human_gencode_gene_biotypes.csv.gz",
            "mouse": folder / "mouse_gencode_gene_biotypes.csv.gz",
        },
        homologs=[folder / "human_mouse_one2one_orthologs.tsv.gz"],
        names=[folder / "hgnc_complete_set.txt.gz"],
    )
    assert table.vocab_size > 100_000
    taken = table.frame["homolog_token"][table.frame["homolog_token"] >= 0]
    assert len(taken) > 17_000
    assert not taken.duplicated().any()
    lines = describe(table, "INS", species="mouse")
    assert any("Ins2" in line for line in lines)
    assert table.index.symbols[table.index.look_up(["MARCH1"], "human")[0][0]] == "MARCHF1"
