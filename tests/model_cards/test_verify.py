"""Verification names the file at fault: flipped bytes, missing files, swapped tokenizers, other weights."""

import gzip
import json
import shutil

import pytest
from genecompass.model_cards import CardCallback, verify_source
from genecompass.tokenization.manifest import MANIFEST, record_files, write_manifest


@pytest.mark.parametrize("kind", ["checkpoint", "adapter", "priors", "corpus"])
def test_what_was_just_saved_is_verified(kind, request):
    found = verify_source(request.getfixturevalue(kind))
    assert found.problems == []
    assert found.kind == kind
    assert len(found.passed) >= 2
    assert found.skipped == []


@pytest.mark.parametrize(
    "name", ["model.safetensors", "genes.tsv.gz", "tokenizer.json", "modeling_genecompass.py", "README.md"]
)
def test_a_flipped_byte_is_found_and_its_file_named(checkpoint, name):
    content = bytearray((checkpoint / name).read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / name).write_bytes(content)
    found = verify_source(checkpoint)
    assert [problem.split(":")[0] for problem in found.problems] == [name]


def test_a_missing_file_and_a_pickle_are_named(checkpoint):
    (checkpoint / "config.json").unlink()
    (checkpoint / "weights.pkl").write_bytes(b"\x80\x04.")
    assert verify_source(checkpoint).problems == [
        "config.json: missing",
        "weights.pkl: not listed in manifest.json",
        "weights.pkl: a pickle",
    ]


def test_a_swapped_tokenizer_is_found_even_if_the_manifest_was_made_to_agree(checkpoint):
    path = checkpoint / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    first, second = "ENSG00000000001", "ENSG00000000002"
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(content))
    assert verify_source(checkpoint).problems[0].startswith("tokenizer.json: ")
    record_files(checkpoint, ["tokenizer.json"])
    (problem,) = verify_source(checkpoint).problems
    assert "genes.tsv.gz" in problem
    assert "do not number the same genes" in problem


def test_a_swapped_gene_table_is_found_even_if_the_manifest_was_made_to_agree(checkpoint):
    path = checkpoint / "genes.tsv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    text = text.replace("ENSG00000000001", "swap").replace("ENSG00000000002", "ENSG00000000001")
    path.write_bytes(gzip.compress(text.replace("swap", "ENSG00000000002").encode()))
    record_files(checkpoint, ["genes.tsv.gz"])
    problems = verify_source(checkpoint).problems
    assert any("genes.tsv.gz" in problem for problem in problems)


@pytest.mark.parametrize("kind", ["checkpoint", "adapter"])
def test_other_weights_are_found_even_if_the_manifest_was_made_to_agree(kind, request):
    from safetensors.torch import load_file, save_file

    folder = request.getfixturevalue(kind)
    name = {"checkpoint": "model.safetensors", "adapter": "adapter_model.safetensors"}[kind]
    tensors = load_file(folder / name)
    key = next(key for key in tensors if "query" in key or "classifier" in key)
    tensors[key] = tensors[key] + 0.5
    save_file(tensors, folder / name, metadata={"format": "pt"})
    record_files(folder, [name])
    problems = verify_source(folder).problems
    assert any("differ from those recorded" in problem for problem in problems)


def test_damaged_weights_and_shards_are_named_when_the_manifest_agrees(checkpoint, corpus):
    content = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(content[: len(content) // 2])
    record_files(checkpoint, ["model.safetensors"])
    (problem,) = verify_source(checkpoint).problems
    assert problem.startswith("model.safetensors: does not load")

    shard = corpus / "data" / "human" / "train-00000.parquet"
    shutil.copy(corpus / "genes" / "human.parquet", shard)
    record_files(corpus, ["data/human/train-00000.parquet"])
    problems = verify_source(corpus).problems
    assert "data/human/train-00000.parquet: lacks column 'counts'" in problems
    assert "manifest.json: says 12 cells, the shards hold 46" in problems


def test_an_adapter_without_its_base_says_what_was_not_checked(adapter, checkpoint):
    config = adapter / "adapter_config.json"
    settings = json.loads(config.read_text()) | {"base_model_name_or_path": "someone/nowhere"}
    config.write_text(json.dumps(settings))
    record_files(adapter, ["adapter_config.json"])
    found = verify_source(adapter)
    assert found.ok
    assert "base checkpoint someone/nowhere is not at hand" in found.skipped[0]
    assert verify_source(adapter, base=checkpoint).skipped == []


def test_no_code_of_the_folder_runs(checkpoint, tmp_path):
    path = checkpoint / "modeling_genecompass.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + path.read_text())
    record_files(checkpoint, [path.name])
    assert verify_source(checkpoint).ok
    assert not (tmp_path / "ran").exists()


def test_the_command_prints_findings_and_fails(checkpoint):
    from typer.testing import CliRunner

    from genecompass.cli import app

    good = CliRunner().invoke(app, ["verify", str(checkpoint)])
    assert good.exit_code == 0
    assert "verified" in good.stdout
    (checkpoint / "tokenizer.json").unlink()
    bad = CliRunner().invoke(app, ["verify", str(checkpoint), "--json"])
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["problems"] == ["tokenizer.json: missing"]


def test_the_trainer_leaves_a_card_at_every_save(checkpoint, tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    saved = tmp_path / "run" / "checkpoint-7"
    saved.parent.mkdir()
    shutil.copytree(checkpoint, saved)
    for name in (MANIFEST, "README.md"):
        (saved / name).unlink()
    (saved / "trainer_state.json").write_text('{"global_step": 7, "log_history": [{"step": 5, "loss": 2.0}]}')
    (saved.parent / "run.json").write_text('{"config": {"seed": 3}, "corpus_fingerprint": "f00"}')
    state = TrainerState(global_step=7)
    arguments = TrainingArguments(output_dir=str(saved.parent), use_cpu=True, report_to=[])
    CardCallback(derived_from="someone/cells@v1").on_save(arguments, state, TrainerControl())
    card = (saved / "README.md").read_text()
    assert "| Optimiser steps | 7 |" in card
    assert "| Seed | 3 |" in card
    assert "| Derived from | someone/cells at v1 |" in card
    assert verify_source(saved).problems == []


def test_a_card_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    from transformers import TrainerControl, TrainerState, TrainingArguments

    (tmp_path / "checkpoint-1").mkdir()
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    CardCallback().on_save(arguments, TrainerState(global_step=1), TrainerControl())
    assert "no card written" in caplog.text


def test_a_folder_without_recorded_outputs_says_so(checkpoint):
    (checkpoint / MANIFEST).unlink()
    write_manifest(checkpoint, "checkpoint", known_answer=False)
    found = verify_source(checkpoint)
    assert found.ok
    assert found.skipped == ["known answer: no outputs were recorded when it was saved"]
