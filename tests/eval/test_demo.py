"""The whole path on real cells: what it leaves behind, that no test cell taught anything, and the README on top."""

import re
import shlex
from pathlib import Path

import anndata as ad
import numpy as np
import pyarrow.parquet as pq
import pytest
from genecompass.eval.demo.cells import blood_cells
from genecompass.eval.demo.options import DemoOptions
from genecompass.eval.demo.report import summary
from genecompass.eval.demo.walk import run_demo
from genecompass.tokenization.errors import InputError
from transformers import AutoModelForMaskedLM

from genecompass.cli import VERBS, main

pytestmark = pytest.mark.slow

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo with very little training: its folder and what it found."""
    pytest.importorskip("scanpy", reason="the demo's cells ship inside scanpy (extra: plots)")
    said = []
    folder = tmp_path_factory.mktemp("demo") / "demo_output"
    options = DemoOptions(str(folder), steps=8, epochs=1, max_cells=260, max_length=96, null_genes=19)
    result = run_demo(options, said.append)
    return {"folder": folder, "result": result, "options": options, "said": said}


def test_blood_cells_are_whole_counts():
    cells = blood_cells()
    assert cells.shape == (700, 765)
    assert np.array_equal(cells.X.data, np.rint(cells.X.data))
    assert cells.X.data.min() == 1
    assert cells.obs["cell_type"].nunique() == 10


def test_leaves_a_checkpoint_an_adapter_cells_and_a_report(demo):
    folder = demo["folder"]
    model = AutoModelForMaskedLM.from_pretrained(folder / "checkpoint", trust_remote_code=True)
    assert list(model.config.priors) == ["co_expression"]
    assert (folder / "adapter" / "adapter_model.safetensors").stat().st_size < 5e6
    cells = ad.read_h5ad(folder / "cells.h5ad")
    assert cells.obsm["X_genecompass"].shape == (cells.n_obs, model.config.cell_width)
    assert np.isfinite(cells.obsm["X_umap"]).all()
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert demo["result"].marker in page
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}


def test_only_test_cells_are_labelled_and_only_training_cells_are_in_the_corpus(demo):
    obs = demo["result"].cells.obs
    tested = obs["split"] == "test"
    assert obs.loc[tested, "genecompass_cell_type_best"].notna().all()
    assert obs.loc[~tested, "genecompass_cell_type_best"].isna().all()
    taught = pq.read_table(demo["folder"] / "corpus" / "data" / "human", columns=["cell_id"])["cell_id"].to_pylist()
    assert sorted(name.split(":")[-1] for name in taught) == sorted(obs.index[~tested])


def test_baselines_stand_beside_the_model(demo):
    text = summary(demo["result"], demo["options"])
    for method in ("majority", "PCA + logistic regression", "GeneCompass, LoRA"):
        assert method in text
    gap = demo["result"].difference
    assert gap.low <= gap.high
    assert ("a tie with" in text) == (gap.low <= 0 <= gap.high)
    scores = demo["result"].scores
    assert scores["macro_f1"].between(0, 1).all()
    assert (scores["low"] <= scores["macro_f1"]).all()
    assert (scores["macro_f1"] <= scores["high"]).all()


def test_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="not empty"):
        run_demo(DemoOptions(str(tmp_path)), print)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_names_the_columns_when_the_label_is_not_there(tmp_path):
    cells = blood_cells()[:20]
    cells.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(InputError, match=r"no column 'celltype'.*cell_type"):
        run_demo(DemoOptions(str(tmp_path / "out"), data=str(tmp_path / "cells.h5ad"), label="celltype"), print)


def test_the_readme_runs_as_printed(demo, monkeypatch):
    assert len(SNIPPETS) >= 4
    monkeypatch.chdir(demo["folder"].parent)
    names: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["cells"].shape[0] == 8
    assert "X_genecompass" in names["adata"].obsm
    assert names["labelled"].obs["genecompass_cell_type"].notna().all()
    assert (names["effects"].summary["n_cells"] > 0).any()


def test_the_readme_mentions_every_verb():
    assert not [verb for verb in VERBS if verb not in README]


def _examples():
    """Examples of the help that need no more than what the demo leaves."""
    from typer.main import get_command

    from genecompass.cli import app

    def walk(command, path):
        if hasattr(command, "list_commands"):
            context = command.make_context(" ".join(path), ["--help"], resilient_parsing=True)
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name), (*path, name))
        else:
            for example in (command.epilog or "").removeprefix("Example: ").split("; "):
                yield shlex.split(example[example.index("genecompass") :])[1:]

    wanting = {
        *("app", "torchrun", "dosage.csv", "dosage_sensitive_tfs.csv", "trrust_human.tsv", "baron_both.h5ad"),
        *("cells.h5ad", "zebrafish.gtf.gz"),
    }
    for words in walk(get_command(app), ()):
        rest = [word for word in words if "demo_output" in word]
        if rest and not wanting & set(words) and "STRING=STRING-network.csv" not in words and ".cli" not in words:
            yield words


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join(words[:2])) for words in _examples()])
def test_examples_of_the_help_run(demo, words, monkeypatch, tmp_path):
    (tmp_path / "demo_output").symlink_to(demo["folder"])
    monkeypatch.chdir(tmp_path)
    cell = demo["result"].cells.obs_names[0]
    with pytest.raises(SystemExit) as stopped:
        main([cell if word == "AAAGCCTGGCTAAC-1" else word for word in words])
    assert not stopped.value.code
