"""Held-out recovery: nothing leaks, negatives are matched, signal is found where there is some and only there."""

import json

import numpy as np
import pandas as pd
import pytest
from genecompass.dataset_scripts.prior_knowledge.gene2vec import Gene2VecSettings, Pairs
from genecompass.dataset_scripts.prior_knowledge.tables import PriorTable
from genecompass.eval.tasks.prior_splits import (
    HeldOut,
    hold_out_datasets,
    hold_out_edges,
    hold_out_family_members,
    pair_codes,
    pair_splits,
)
from genecompass.eval.tasks.priors import matched_negatives, recover, recover_evidence, summarise
from genecompass.model_cards.benchmarks import read_scores
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from genecompass.tokenization.manifest import check_manifest

from genecompass.cli import main


def modules(genes=160, size=20, inside=0.5, seed=0):
    """A graph of modules: pairs within a module with probability `inside`, few between."""
    rng = np.random.default_rng(seed)
    left, right = np.triu_indices(genes, 1)
    same = left // size == right // size
    keep = rng.random(len(left)) < np.where(same, inside, 0.01)
    return Pairs(left[keep] + 2, right[keep] + 2, np.full(keep.sum(), 3.0))


def codes(pairs):
    return set(pair_codes(np.stack([pairs.left, pairs.right], axis=1)).tolist())


def test_held_out_edges_are_not_learned_from():
    pairs = modules()
    split = hold_out_edges(pairs, fraction=0.2, seed=1)
    assert not codes(split.train) & set(pair_codes(split.positives).tolist())
    assert len(split.train) == len(pairs) - int(0.2 * len(pairs))
    genes = np.r_[split.train.left, split.train.right]
    assert np.isin(split.positives, genes).all()


def test_held_out_family_members_keep_one_relative():
    members = pd.DataFrame({"token": np.arange(2, 42), "family": np.repeat(["a", "b", "c", "d"], 10)})
    split = hold_out_family_members(members, fraction=0.2, seed=0)
    learned = np.r_[split.train.left, split.train.right]
    held_out = np.unique(split.positives[:, 0])
    assert len(held_out) == 8
    assert all((learned == gene).sum() == 1 for gene in held_out)
    assert not codes(split.train) & set(pair_codes(split.positives).tolist())
    family = (split.positives - 2) // 10
    assert (family[:, 0] == family[:, 1]).all()


def test_pair_that_another_family_gives_away_is_not_asked_for():
    members = pd.DataFrame({"token": [*range(2, 12), *range(2, 12)], "family": ["a"] * 10 + ["b"] * 10})
    split = hold_out_family_members(members, fraction=0.2, seed=0)
    assert not codes(split.train) & set(pair_codes(split.positives).tolist())


def test_held_out_data_sets():
    pairs = pd.DataFrame({"dataset": ["a", "a", "b", "b", "b"], "left": [2, 3, 2, 2, 4], "right": [3, 4, 3, 4, 9]})
    pairs["species"] = "human"
    for seed in range(4):
        split = hold_out_datasets(pairs, seed=seed)
        assert not codes(split.train) & set(pair_codes(split.positives).tolist())
    with pytest.raises(InputError, match="two or more data sets"):
        hold_out_datasets(pairs[pairs["dataset"] == "a"])
    assert {name for name, _ in pair_splits(pairs)} == {"co_expression", "co_expression, other data sets"}
    assert {name for name, _ in pair_splits(pairs[pairs["dataset"] == "a"])} == {"co_expression"}


@pytest.mark.parametrize("directed", [True, False])
def test_negatives_are_matched_and_unknown(directed):
    pairs = modules()
    known = np.stack([pairs.left, pairs.right], axis=1)
    degree = np.bincount(known.ravel(), minlength=162)
    positives, negatives = matched_negatives(known[::3], degree, known, directed=directed, window=10)
    assert len(positives) > 200
    assert not set(pair_codes(negatives).tolist()) & set(pair_codes(known).tolist())
    assert (negatives[:, 0] == positives[:, 0]).all()
    assert (negatives[:, 0] != negatives[:, 1]).all()
    difference = degree[negatives[:, 1]] - degree[positives[:, 1]]
    assert abs(difference.mean()) < 0.5
    if directed:
        assert np.isin(positives[:, 1], known[:, 1]).all()


def test_recovers_modules_and_not_noise():
    settings = Gene2VecSettings(width=16, epochs=30)
    scores = recover(hold_out_edges(modules(), seed=0), 162, settings=settings, resamples=30).set_index("scorer")
    assert scores.loc["table: cosine", "auroc_low"] > 0.6
    assert 0.35 < scores.loc["random table: cosine", "auroc"] < 0.65
    assert 0.4 < scores.loc["degree", "auroc"] < 0.6
    noise = hold_out_edges(modules(inside=0.08, size=160), seed=0)
    scores = recover(noise, 162, settings=settings, resamples=30).set_index("scorer")
    assert scores.loc["table: cosine", "auroc"] < 0.65


def test_evidence_of_another_source():
    pairs = modules()
    matrix = np.zeros((162, 8), dtype=np.float32)
    rng = np.random.default_rng(0)
    matrix[2:] = np.eye(8)[np.arange(160) // 20] + 0.3 * rng.normal(size=(160, 8))
    scores = recover_evidence(PriorTable("grn", matrix, {}), pairs, resamples=50).set_index("scorer")
    assert scores.loc["table: cosine", "auroc_low"] > 0.7
    assert scores.loc["random table: cosine", "auroc"] < 0.65
    matrix[20:] = 0
    with pytest.raises(InputError, match="have vectors"):
        few = pairs.select(np.arange(5))
        recover_evidence(PriorTable("grn", matrix, {}), few)


def test_too_few_pairs():
    pairs = modules(genes=6, size=3)
    with pytest.raises(InputError, match="held-out pairs to ask for"):
        recover(hold_out_edges(pairs), 10)
    empty = HeldOut(pairs, np.zeros((0, 2), dtype=np.int64), np.zeros((0, 2), dtype=np.int64))
    with pytest.raises(InputError, match="only 0 held-out pairs"):
        recover(empty, 10)


def test_summary_takes_the_widest_interval():
    rows = [
        {"prior": "grn", "species": "human", "seed": seed, "scorer": "table", "positives": 10}
        | {
            f"{m}{end}": value + seed / 10
            for m in ("auroc", "auprc")
            for end, value in (("", 0.5), ("_low", 0.4), ("_high", 0.6))
        }
        for seed in (0, 1)
    ]
    row = summarise(pd.DataFrame(rows)).iloc[0]
    assert row["auroc"] == pytest.approx(0.55)
    assert (row["auroc_low"], row["auroc_high"]) == pytest.approx((0.4, 0.7))


def test_command_line(tmp_path, capsys):
    pairs = modules()
    table = GeneTable.from_genes(
        pd.DataFrame(
            {"gene_id": [f"G{i}" for i in range(160)], "symbol": [f"S{i}" for i in range(160)], "species": "human"}
        )
    )
    table.write(tmp_path / "genes.parquet")
    edges = pd.DataFrame({"tf": pairs.left - 2, "target": pairs.right - 2}).map(lambda n: f"S{n}")
    edges.to_csv(tmp_path / "net.tsv", sep="\t", index=False)
    members = pd.DataFrame({"gene": [f"S{i}" for i in range(160)], "family": [i // 20 for i in range(160)]})
    members.to_csv(tmp_path / "fam.tsv", sep="\t", index=False)
    common = ["--genes", str(tmp_path / "genes.parquet")]
    with pytest.raises(SystemExit) as done:
        main(["priors", "build", "all", *common, "--network", f"human={tmp_path}/net.tsv",
              "--families", f"human={tmp_path}/fam.tsv", "--width", "8", "--epochs", "3",
              "-o", str(tmp_path / "p.safetensors")])  # fmt: skip
    assert not done.value.code
    assert "no card" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["priors", "inspect", str(tmp_path / "p.safetensors"), *common, "--gene", "human=S3"])
    assert not done.value.code
    assert "S3 (human):" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["benchmark", "priors", *common, "--network", f"human={tmp_path}/net.tsv",
              "--families", f"human={tmp_path}/fam.tsv", "--table", str(tmp_path / "p.safetensors"),
              "--evidence", f"human={tmp_path}/net.tsv", "--width", "8", "--epochs", "3",
              "--seeds", "0,1", "--resamples", "10",
              "-o", str(tmp_path / "out.json")])  # fmt: skip
    assert not done.value.code
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["dataset"] for row in rows} == {"grn", "gene_family", "grn on net", "gene_family on net"}
    assert all(row["seeds"] == 2 for row in rows)
    scores = read_scores([tmp_path / "out.json"])
    assert {score.method for score in scores if score.ours} == {"table: cosine", "table: cosine with partners"}


def test_tables_and_checkpoints_carry_a_card(tmp_path):
    genes = pd.DataFrame({"gene_id": [f"G{i}" for i in range(60)], "symbol": [f"S{i}" for i in range(60)]})
    table = GeneTable.from_genes(genes.assign(species="human"))
    table.write(tmp_path / "genes.parquet")
    members = pd.DataFrame({"gene": genes["symbol"], "family": np.arange(60) // 6})
    members.to_csv(tmp_path / "fam.tsv", sep="\t", index=False)
    edges = pd.DataFrame({"tf": "S0", "target": genes["symbol"][1:]})
    edges.to_csv(tmp_path / "net.tsv", sep="\t", index=False)
    config = GeneCompassConfig.tiny(vocab_size=len(table), hidden_size=16, priors={}, species=["human"])
    GeneCompassForMaskedGeneModeling(config).save_pretrained(tmp_path / "start")
    table.write(tmp_path / "start" / "genes.tsv.gz")

    common = ["--genes", f"{tmp_path}/genes.parquet", "--width", "4", "--epochs", "2", "-o"]
    folder, grown = tmp_path / "tables", tmp_path / "grown"
    for arguments in (
        [
            "build",
            "gene_family",
            "--families",
            f"human={tmp_path}/fam.tsv",
            *common,
            f"{folder}/gene_family.safetensors",
        ],
        ["build", "grn", "--network", f"human={tmp_path}/net.tsv", *common, f"{folder}/grn.safetensors"],
        ["attach", f"{folder}/grn.safetensors", "--model", f"{tmp_path}/start", "-o", str(grown)],
    ):
        with pytest.raises(SystemExit) as done:
            main(["priors", *arguments])
        assert not done.value.code
    for documented in (folder, grown):
        assert check_manifest(documented) == []
    card = (folder / "README.md").read_text()
    assert "gene2vec over pairs within families" in card
    assert "human: 60 of 60 genes" in card
    assert "| net.tsv (sha256 " in card
    assert "| Prior knowledge (width) | grn: 4 |" in (grown / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["priors", "build", "grn", "--network", "net.tsv", "-o", "x.safetensors"], "write SPECIES=FILE"),
        (["priors", "build", "grn", "--network", "human=none.tsv", "-o", "x.safetensors"], "no such network file"),
        (["priors", "build", "gene_family", "--families", "human=none", "-o", "x.npz"], "end the name in .safetensors"),
        (["priors", "build", "co_expression", "-o", "x.safetensors"], "give --corpus FOLDER or --cells"),
        (["priors", "build", "promoter", "--genome", "human=a.fa", "-o", "x.safetensors"], "SPECIES=FASTA,GTF"),
        (["priors", "build", "all", "-o", "x.safetensors"], "nothing to build from"),
        (["benchmark", "priors"], "nothing to benchmark"),
    ],
)
def test_bad_command_lines(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    genes = pd.DataFrame({"gene_id": ["G1"], "symbol": ["S1"], "species": ["human"]})
    GeneTable.from_genes(genes).write("genes.parquet")
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--genes", "genes.parquet"])
    assert done.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("x.*"))
