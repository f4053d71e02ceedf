"""The README's Python runs as printed, on what the demo leaves behind."""

import re
from pathlib import Path

import pytest

from genecompass.cli import VERBS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_snippets_run_in_order(demo, monkeypatch):
    assert len(SNIPPETS) >= 4
    monkeypatch.chdir(demo["folder"].parent)
    names: dict[str, object] = {}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    assert names["cells"].shape[0] == 8
    assert "X_genecompass" in names["adata"].obsm
    assert names["labelled"].obs["genecompass_cell_type"].notna().all()
    assert (names["effects"].summary["n_cells"] > 0).any()


def test_every_verb_is_mentioned():
    assert not [verb for verb in VERBS if verb not in README]
