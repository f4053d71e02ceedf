"""Cards say what was recorded, "not recorded" where nothing was, and their programs run."""

import json
import re

import pytest
import yaml
from genecompass.model_cards.card import write_card
from genecompass.model_cards.push import point_at_hub
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import write_json
from genecompass.tokenization.manifest import check_manifest


def _front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def _program(folder):
    text = (folder / "README.md").read_text()
    return re.search(r"<!-- usage: start -->\n```python\n(.*?)```", text, re.DOTALL)[1]


@pytest.mark.parametrize("kind", ["checkpoint", "adapter", "priors", "corpus"])
def test_every_kind_gets_a_card_that_the_manifest_lists(kind, request):
    folder = request.getfixturevalue(kind)
    text = (folder / "README.md").read_text()
    assert check_manifest(folder) == []
    for heading in ("## Use", "## Intended use", "## Limits", "## Licence and provenance", "## Cite"):
        assert heading in text
    assert "genecompass verify" in text
    assert "None" not in text.replace("= None", "")
    assert "{{" not in text


def test_what_nobody_recorded_is_said_and_not_guessed(checkpoint):
    text = (checkpoint / "README.md").read_text()
    for field in ("Optimiser steps", "Learning rate", "Seed", "Corpus fingerprint", "Command", "Wall time (seconds)"):
        assert f"| {field} | not recorded |" in text
    assert "Licence of these weights: not recorded." in text
    assert "Training curve: not recorded." in text
    assert "No benchmark results are recorded" in text
    assert "| Vocabulary | 82 |" in text


def test_results_stand_beside_their_baselines_and_in_the_metadata(checkpoint, tmp_path):
    rows = [
        {"method": "majority", "metric": "macro-F1", "mean": 0.1, "std": 0.0, "seeds": 3},
        {"method": "PCA + logistic regression", "metric": "macro-F1", "mean": 0.9, "std": 0.01, "seeds": 3},
        {"method": "GeneCompass LoRA", "metric": "macro-F1", "mean": 0.8512, "std": 0.02, "seeds": 3},
    ]
    write_json(tmp_path / "annotation.json", {"task": "annotation", "dataset": "PBMC", "rows": rows})
    elsewhere = [{"method": "GeneCompass frozen", "metric": "macro-F1", "mean": 0.5, "std": 0.1, "seeds": 3}]
    write_json(tmp_path / "other.json", {"task": "annotation", "dataset": "pancreas", "rows": elsewhere})
    write_card(checkpoint, results=[tmp_path / "annotation.json", tmp_path / "other.json"], licence="cc-by-4.0")
    text = (checkpoint / "README.md").read_text()
    assert "| PCA + logistic regression | 0.900 ± 0.010 | 3 |" in text
    assert "| **GeneCompass LoRA** | 0.851 ± 0.020 | 3 |" in text
    front = _front_matter(checkpoint)
    assert front["license"] == "cc-by-4.0"
    first, second = front["model-index"][0]["results"]
    assert [metric["value"] for metric in first["metrics"]] == [0.8512]
    assert (first["dataset"]["name"], second["dataset"]["name"]) == ("PBMC", "pancreas")

    from huggingface_hub import ModelCard

    assert ModelCard.load(checkpoint / "README.md").data.eval_results[0].metric_value == 0.8512
    write_card(checkpoint)
    assert _front_matter(checkpoint)["license"] == "cc-by-4.0", "a licence once given is kept"


def test_pretraining_shows_yardsticks_curves_and_what_the_masking_leaks(checkpoint):
    figures = {"cross_entropy": 3.0, "top1": 0.2, "slots": 100}
    better = {"cross_entropy": 2.5, "top1": 0.3, "slots": 100}
    record = {
        "config": {"seed": 7, "masking": {"task": "published", "rate": 0.15}, "optimisation": {"learning_rate": 1e-3}},
        "corpus_fingerprint": "abc123",
        "steps": 40,
        "planned_steps": 50,
        "evaluation": {
            "model": {"id": {"all": figures}, "value": {}},
            "yardsticks": {"id": {"bracket": {"all": better}}, "value": {}},
        },
        "history": [{"step": step, "loss": 5.0 - step / 20, "id_loss": 6.0} for step in range(10, 50, 10)],
    }
    write_json(checkpoint / "pretraining.json", record)
    (checkpoint / "manifest.json").unlink()
    write_card(checkpoint)
    text = (checkpoint / "README.md").read_text()
    assert "| Optimiser steps | 40 of 50 planned |" in text
    assert "| Seed | 7 |" in text
    assert "| Corpus fingerprint | abc123 |" in text
    assert "| **this model** | 3.000 | 0.200 |" in text
    assert "| bracket | 2.500 | 0.300 |" in text
    assert "which leaks" in text
    assert "| 40 | 3 | 6 |" in text
    if "figures/training.png" in text:
        assert (checkpoint / "figures" / "training.png").stat().st_size > 1000
    assert check_manifest(checkpoint) == []


def test_the_programs_of_the_cards_run(checkpoint, adapter, priors, corpus, client, tmp_path):
    from genecompass.tokenization.manifest import record_files

    settings = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", settings | {"base_model_name_or_path": "tiny"})
    record_files(adapter, ["adapter_config.json"])
    write_card(adapter)
    for folder, shown in ((checkpoint, "96"), (adapter, "tensor"), (priors, "gene_family"), (corpus, "human 10")):
        program = _program(folder)
        assert f'"{folder.name}"' in program
        done = client(program, package=False, offline=True, check=False)
        # a stream that is left early may abort the interpreter at its very end, after everything was printed
        assert done.returncode == 0 or "terminate called without an active exception" in done.stderr, done.stderr
        assert shown in done.stdout, program + done.stdout


def test_a_card_keeps_the_configurations_of_a_corpus(corpus):
    front = _front_matter(corpus)
    assert [config["config_name"] for config in front["configs"]] == ["all", "human", "mouse"]
    text = (corpus / "README.md").read_text()
    assert "6 human cells" in text
    assert "| Cells, mouse | 6 |" in text


def test_pushing_changes_only_the_program(checkpoint):
    before = (checkpoint / "README.md").read_text()
    point_at_hub(checkpoint, "someone/tiny", tag="v1")
    after = (checkpoint / "README.md").read_text()
    assert 'from_pretrained("someone/tiny", revision="v1"' in after
    assert before.split("<!-- usage: end -->")[1] == after.split("<!-- usage: end -->")[1]
    assert check_manifest(checkpoint) == []


def test_bad_input(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither checkpoint"):
        write_card(tmp_path / "empty")
    (tmp_path / "bad.json").write_text("{")
    before = (checkpoint / "README.md").read_bytes()
    with pytest.raises(InputError, match="not readable as JSON"):
        write_card(checkpoint, results=[tmp_path / "bad.json"])
    with pytest.raises(InputError, match="cannot be read"):
        write_card(checkpoint, results=[tmp_path / "absent.json"])
    write_json(tmp_path / "none.json", {"rows": [{"speed": 3}]})
    with pytest.raises(InputError, match="no scores found"):
        write_card(checkpoint, results=[tmp_path / "none.json"])
    with pytest.raises(InputError, match="not a PNG or SVG"):
        write_card(checkpoint, figures=[tmp_path / "none.json"])
    assert (checkpoint / "README.md").read_bytes() == before


def test_what_data_say_stays_text():
    from genecompass.dataset_scripts.corpus.card import _sources
    from genecompass.model_cards.facts import text_of

    hostile = "x | <img src=y> [go](http://z) `code`\n# heading"
    for shown in (
        text_of([hostile]),
        text_of({hostile: 1}),
        _sources(
            {
                "sources": [
                    {
                        **dict.fromkeys(("dataset", "licence", "citation", "file", "sha256"), hostile),
                        "species": {"human": 3},
                        "gene_species": "",
                        "kept": 3,
                    }
                ]
            }
        ).replace(f"`{hostile[:12]}`", ""),
    ):
        assert "<img" not in shown
        assert not re.search(r"(?<!\\)\]\(http", shown)
        assert "\n# heading" not in shown
        assert "x | &lt;" not in shown.replace("\\|", "")
