"""The standard table: what a plan must say, that finished parts are kept, and what of it cards and people read."""

import json
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from genecompass.eval.tasks import standard
from genecompass.eval.tasks.standard import benchmark_standard, summary_rows
from genecompass.eval.tasks.standard_plan import TASKS, read_plan
from genecompass.model_cards.benchmarks import read_scores, tables
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.gene_table import GeneTable
from safetensors.torch import load_file, save_file
from scipy import sparse

import genecompass as gc
from genecompass.cli import main

GENES = 40
NAMES = [f"ENSG{i:011d}" for i in range(GENES)]
PLAN = """
seeds: [0]
parts:
  - task: annotation
    name: two kinds
    cells: cells.h5ad
    species: human
    folds: 2
    trained_on: true
    cells_per_class: [4, all]
    methods: [majority, PCA + nearest, frozen + logistic]
  - {task: zero-shot, cells: [cells.h5ad, other.h5ad], species: human}
  - task: grn
    name: network
    cells: cells.h5ad
    species: human
    references: {made up: network.csv}
    regulators: factors.txt
    methods: [expression_level, similarity, pearson]
"""


@pytest.fixture
def place(tmp_path):
    """A checkpoint of random weights, two files of cells, a network and a plan of all."""
    from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling

    table = GeneTable.from_genes(pd.DataFrame({"gene_id": NAMES, "symbol": "", "species": "human"}))
    torch.manual_seed(0)
    config = GeneCompassConfig.tiny(
        vocab_size=table.vocab_size, max_position_embeddings=32, num_hidden_layers=1, species=["human"]
    )
    GeneCompassForMaskedGeneModeling(config).save_pretrained(tmp_path / "model")
    gc.GeneCompassProcessor.from_gene_table(table, max_length=32).save_pretrained(tmp_path / "model")
    for seed, name in enumerate(("cells", "other")):
        random = np.random.default_rng(seed)
        kind = np.arange(36) % 2
        rates = np.where((np.arange(GENES) < GENES // 2) == kind[:, None].astype(bool), 3.0, 0.4)
        obs = pd.DataFrame({"cell_type": np.array(["a", "b"])[kind]}, index=[f"{name} {i}" for i in range(36)])
        counts = sparse.csr_matrix(random.poisson(rates).astype(np.float32))
        ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=NAMES)).write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "network.csv").write_text(
        "Gene1,Gene2\n" + "".join(f"{NAMES[a]},{NAMES[b]}\n" for a in range(4) for b in range(5, 30, a + 2))
    )
    (tmp_path / "factors.txt").write_text("\n".join(NAMES[:4]) + "\n")
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def make(place, **options):
    said = []
    text = benchmark_standard(place / "plan.yaml", place / "model", place / "out", echo=said.append, **options)
    return text, said


def kept(said):
    return [line.partition(":")[0] for line in said if line.endswith(": done before, kept")]


def test_one_command_leaves_json_that_cards_read_a_table_and_text(place, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("benchmark", "standard", str(place / "plan.yaml"), "--model", str(place / "model")),
                *("--device", "cpu", "-o", str(place / "out")),
            ]
        )
    assert not stopped.value.code
    shown = capsys.readouterr().out
    text = (place / "out" / "standard.md").read_text()
    assert text in shown
    scores = read_scores([place / "out" / "standard.json"])
    assert {score.task for score in scores} == {"annotation", "zero-shot", "grn"}
    assert any(score.ours for score in scores)
    assert any(not score.ours for score in scores)
    datasets = {table["dataset"] for table in tables(scores)}
    assert {"two kinds", "two kinds, 4 labelled cells a class", "zero-shot: cells"} <= datasets
    content = json.loads((place / "out" / "standard.json").read_text())
    assert [part["name"] for part in content["parts"]] == ["two kinds", "zero-shot: cells", "network"]
    assert len(content["model_digest"]) == 16
    assert content["left_out"] == {}
    assert content["waiting"] == []
    assert [part["trained_on"] for part in content["parts"]] == [True, False, False]
    assert "| two kinds † |" in text
    assert "| zero-shot: cells |" in text
    summary = {row["dataset"]: row for row in content["summary"]}
    assert summary["two kinds"]["method"] == "GeneCompass frozen + logistic regression"
    assert summary["two kinds"]["difference"]["verdict"] in ("better", "worse", "tie")
    assert summary["zero-shot: cells"]["baseline"] == "PCA of log counts"
    table = pd.read_csv(place / "out" / "standard.csv")
    assert len(table) == len(content["rows"])
    assert str(place) not in text + json.dumps(content["rows"])


def test_finished_parts_are_kept_and_what_changed_is_run_again(place):
    first, said = make(place)
    assert kept(said) == []
    again, said = make(place)
    assert kept(said) == ["two kinds", "zero-shot", "network"]
    assert again == first
    # another file of cells: the one part that reads it
    cells = ad.read_h5ad(place / "other.h5ad")
    cells[:30].copy().write_h5ad(place / "other.h5ad")
    _, said = make(place)
    assert kept(said) == ["two kinds", "network"]
    # moved, it is the same file
    shutil.move(place / "network.csv", place / "sub_network.csv")
    shutil.move(place / "factors.txt", place / "moved.txt")
    (place / "deep").mkdir()
    shutil.move(place / "sub_network.csv", place / "deep" / "network.csv")
    shutil.move(place / "moved.txt", place / "deep" / "factors.txt")
    plan = PLAN.replace("network.csv", "deep/network.csv").replace("factors.txt", "deep/factors.txt")
    (place / "plan.yaml").write_text(plan)
    _, said = make(place)
    assert kept(said) == ["two kinds", "zero-shot", "network"]
    # another setting
    (place / "plan.yaml").write_text(plan.replace("folds: 2", "folds: 3"))
    _, said = make(place)
    assert kept(said) == ["zero-shot", "network"]
    # other weights: everything
    weights = load_file(place / "model" / "model.safetensors")
    name = next(name for name in weights if name.endswith("dense.weight") or name.endswith("query.weight"))
    save_file({**weights, name: weights[name] + 0.1}, place / "model" / "model.safetensors", metadata={"format": "pt"})
    (place / "model" / "manifest.json").unlink(missing_ok=True)
    _, said = make(place)
    assert kept(said) == []


def test_a_run_that_stops_goes_on_where_it_was(place, monkeypatch):
    run = standard.run_part

    def stops(part, *arguments, **options):
        if part.task == "zero-shot":
            raise KeyboardInterrupt
        return run(part, *arguments, **options)

    monkeypatch.setattr(standard, "run_part", stops)
    with pytest.raises(KeyboardInterrupt):
        make(place)
    monkeypatch.setattr(standard, "run_part", run)
    _, said = make(place, only=["zero-shot: cells"])
    assert kept(said) == ["two kinds"]
    content = json.loads((place / "out" / "standard.json").read_text())
    assert [part["name"] for part in content["parts"]] == ["two kinds", "zero-shot: cells"]
    assert content["waiting"] == ["network"]
    assert "Not run yet: network" in (place / "out" / "standard.md").read_text()
    _, said = make(place)
    assert kept(said) == ["two kinds", "zero-shot"]


def test_a_part_that_cannot_be_run_is_named_and_the_others_are_written(place):
    (place / "plan.yaml").write_text(PLAN.replace("{task: zero-shot,", "{task: zero-shot, label: kind,"))
    with pytest.raises(InputError, match=r"1 of 3 parts could not be run; the first, 'zero-shot: cells': .*kind"):
        make(place)
    content = json.loads((place / "out" / "standard.json").read_text())
    assert [part["name"] for part in content["parts"]] == ["two kinds", "network"]
    assert "kind" in content["left_out"]["zero-shot: cells"]
    assert "Left out: zero-shot: cells" in (place / "out" / "standard.md").read_text()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("parts: []", "no parts"),
        ("[1, 2]", "no parts"),
        ("parts: [", "not readable as YAML"),
        ("{parts: [{task: guess, cells: cells.h5ad}]}", "unknown task 'guess'; there are: annotation,"),
        ("{parts: [{task: zero-shot, species: human}]}", r"part 1 \(zero-shot\): `cells:` is missing"),
        ("{parts: [{task: zero-shot, cells: cells.h5ad}]}", "`species:` is missing"),
        (
            "{parts: [{task: zero-shot, cells: cells.h5ad, species: human, labels: x}]}",
            "unknown key 'labels'; there are: batch",
        ),
        ("{parts: [{task: zero-shot, cells: absent.h5ad, species: human}]}", "cells: no such file .*absent.h5ad"),
        (
            "{parts: [{task: grn, cells: cells.h5ad, species: human, references: {a: absent.csv}}]}",
            "references: no such file .*absent.csv",
        ),
        ("{parts: [{task: zero-shot, cells: cells.h5ad, species: human, seeds: 3}]}", "list of whole numbers"),
        ("{seed: [1], parts: [{task: zero-shot, cells: cells.h5ad, species: human}]}", "unknown key 'seed'"),
        (
            "{parts: [{task: zero-shot, cells: cells.h5ad, species: human, reading: {layer: x}}]}",
            "it takes: allow_fractional",
        ),
        ("{parts: [{task: zero-shot, cells: cells.h5ad, species: human, trained_on: 1}]}", "write true or false"),
        ("parts: [&a {task: zero-shot, cells: cells.h5ad, species: human}, *a]", "two parts are called"),
    ],
)
def test_a_bad_plan_is_refused_before_any_work(place, plan, words):
    (place / "plan.yaml").write_text(plan)
    with pytest.raises(InputError, match=words):
        make(place)
    assert not (place / "out").exists()


def test_an_unknown_part_and_an_adapter_are_refused(place):
    with pytest.raises(InputError, match="no part is called 'blood'; there are: two kinds;"):
        make(place, only=["blood"])
    (place / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="name its base model"):
        make(place)


def test_genes_deletions_and_responses_are_parts_too(place):
    (place / "labels.csv").write_text("gene,label\n" + "".join(f"{n},{'ab'[i % 2]}\n" for i, n in enumerate(NAMES)))
    (place / "targets.csv").write_text("tf,target\n" + "".join(f"{NAMES[0]},{name}\n" for name in NAMES[5:25]))
    effects = np.random.default_rng(0).normal(size=(16, GENES)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": NAMES[:16]}, index=NAMES[:16])
    ad.AnnData(effects, obs=obs, var=pd.DataFrame(index=NAMES)).write_h5ad(place / "effects.h5ad")
    (place / "plan.yaml").write_text(
        """
seeds: [0]
parts:
  - {task: gene-classification, cells: cells.h5ad, labels: labels.csv, species: human, folds: 2, folds_by: gene}
  - {task: perturbation, cells: cells.h5ad, targets: targets.csv, species: human, n_null: 3}
  - {task: response-genes, cells: effects.h5ad, species: human}
"""
    )
    text, _ = make(place)
    summary = json.loads((place / "out" / "standard.json").read_text())["summary"]
    assert {row["task"] for row in summary} == {"gene-classification", "perturbation", "response-genes"}
    assert "GeneCompass frozen gene embedding + logistic regression" in text
    assert "LoRA" not in text


def test_json_is_a_plan_too(place):
    (place / "plan.json").write_text(
        json.dumps({"parts": [{"task": "zero-shot", "cells": "cells.h5ad", "species": "human"}]})
    )
    assert read_plan(place / "plan.json")[0].seeds == (0, 1, 2)


def test_the_row_in_the_summary_is_named_beforehand_and_not_the_best():
    row = {"dataset": "x", "metric": "macro_f1", "std": 0.0, "seeds": 1}
    rows = [
        {**row, "method": "GeneCompass frozen + logistic regression", "mean": 0.5, "ours": True},
        {**row, "method": "GeneCompass LoRA", "mean": 0.9, "ours": True},
        {**row, "method": "GeneCompass untrained, head only", "mean": 0.8, "ours": False},
        {**row, "method": "PCA + nearest neighbours", "mean": 0.6, "ours": False},
        {**row, "method": "ridge on genecompass input shuffled", "mean": 0.7, "ours": False},
    ]
    found = summary_rows([{"name": "x", "task": "annotation", "rows": rows, "differences": {}}])
    assert [(one["value"], one["baseline"]) for one in found] == [(0.5, "PCA + nearest neighbours")]
    assert found[0]["difference"] is None


def test_what_could_not_be_scored_is_neither_best_nor_ours():
    row = {"dataset": "x", "metric": "macro_f1", "std": 0.0, "seeds": 1}
    ours = {**row, "method": "GeneCompass frozen + logistic regression", "mean": 0.5, "ours": True}
    others = [{**row, "method": name, "mean": mean, "ours": False} for name, mean in (("a", float("nan")), ("b", 0.4))]
    assert (
        summary_rows([{"name": "x", "task": "annotation", "rows": [ours, *others], "differences": {}}])[0]["baseline"]
        == "b"
    )
    unscored = {**ours, "mean": float("nan")}
    assert summary_rows([{"name": "x", "task": "annotation", "rows": [unscored, *others], "differences": {}}]) == []


def test_every_task_has_a_runner_a_row_and_a_measure():
    from genecompass.eval.tasks import standard_parts

    assert set(TASKS) == set(standard_parts.OURS) == set(standard_parts.MEASURE) == set(standard_parts._RUNNERS)


def test_the_page_names_every_task_and_key_and_shows_a_plan_that_is_one(tmp_path, data):
    root = Path(__file__).parent.parent.parent
    page = (root / "docs" / "standard.md").read_text(encoding="utf-8")
    for name, task in TASKS.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert [key for key in {*task.required, *task.optional} - {"cells", "species"} if f"`{key}`" not in line] == []
    plan = (root / "benchmarks" / "standard.yaml").read_text(encoding="utf-8").replace("data/", f"{data}/")
    (tmp_path / "plan.yaml").write_text(plan)
    assert {part.task for part in read_plan(tmp_path / "plan.yaml")} == set(TASKS)
