"""Publishing against a stand-in for the Hub: what goes up, what is refused, what an outsider gets back."""

import json
import shutil

import pytest
from genecompass.model_cards.contents import is_pickle, refusals
from genecompass.model_cards.push import plan_push
from genecompass.tokenization.errors import InputError
from genecompass.tokenization.files import write_json
from genecompass.tokenization.manifest import record_files, write_manifest

OUTSIDER = """
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoProcessor
from peft import PeftModel
from datasets import load_dataset
processor = AutoProcessor.from_pretrained("someone/tiny", revision="v1", trust_remote_code=True)
model = AutoModelForMaskedLM.from_pretrained("someone/tiny", revision="v1", trust_remote_code=True).eval()
batch = processor([[7, 3, 1]], genes=["ENSG00000000001", "GENE2", "GENE3"], species="human", return_tensors="pt")
with torch.inference_mode():
    print("MODEL", type(model).__name__, model(**batch).value_predictions.shape)
base = AutoModelForSequenceClassification.from_pretrained(
    "someone/tiny", revision="v1", trust_remote_code=True, num_labels=3
)
adapted = PeftModel.from_pretrained(base, "someone/adapter", revision="v1").eval()
with torch.inference_mode():
    print("ADAPTER", [round(x, 5) for x in adapted(**batch).logits[0].tolist()])
from transformers import pipeline
embed = pipeline("cell-embedding", model="someone/tiny", revision="v1", trust_remote_code=True)
print("PIPELINE", embed([[7, 3, 1]], genes=["GENE1", "GENE2", "GENE3"], species="human").shape)
cells = load_dataset("someone/cells", "mouse", split="train", revision="v1", streaming=True)
print("CORPUS", [cell["cell_id"] for cell in cells])
"""


def test_published_folders_serve_somebody_without_the_package(hub, client, checkpoint, adapter, corpus):
    pushes = [
        ["push", str(checkpoint), "--repo", "someone/tiny", "--revision", "v1"],
        ["push", str(adapter), "--repo", "someone/adapter", "--revision", "v1", "--base", "someone/tiny@v1"],
        ["push", str(corpus), "--repo", "someone/cells", "--revision", "v1", "--dataset"],
    ]
    out = client(
        f"from genecompass.cli import app\nfor arguments in {pushes!r}:\n    app(arguments, standalone_mode=False)"
    )
    assert 'AutoModelForMaskedLM.from_pretrained("someone/tiny", revision="v1", trust_remote_code=True)' in out
    assert 'load_dataset("someone/cells", revision="v1", streaming=True)' in out
    assert all(repo["private"] for repo in hub.repos.values())
    assert set(hub.files("someone/tiny")) >= {"model.safetensors", "config.json", "genes.tsv.gz", "manifest.json"}
    assert json.loads(hub.files("someone/adapter")["adapter_config.json"])["base_model_name_or_path"] == "someone/tiny"

    out = client(OUTSIDER, package=False)
    assert "MODEL GeneCompassForMaskedGeneModeling torch.Size([1, 3" in out
    assert "PIPELINE (1, 96)" in out
    assert "CORPUS ['mouse-0', 'mouse-1', 'mouse-2', 'mouse-3', 'mouse-4', 'mouse-5']" in out
    logits = json.loads(out.split("ADAPTER ")[1].splitlines()[0])
    assert logits == pytest.approx(_logits_here(checkpoint, adapter), abs=1e-4)

    verified = client(
        """
from genecompass.model_cards import verify_source
for name in ("tiny", "adapter", "cells"):
    found = verify_source(f"someone/{name}@v1")
    print(found.ok, found.problems, found.passed)
"""
    )
    assert [line.split()[0] for line in verified.splitlines()] == ["True"] * 3, verified
    assert verified.count("known answer: outputs for the fixed input as recorded") == 2
    assert "load_dataset: streams" in verified
    offline = "from genecompass.tokenization.sources import resolve; print(resolve('someone/tiny@v1').name)"
    assert client(offline, offline=True).strip() == hub.head("someone/tiny")


def _logits_here(checkpoint, adapter):
    """What the package itself computes from the local folders."""
    import torch
    from genecompass.modeling_genecompass import GeneCompassForSequenceClassification
    from genecompass.tokenization.processing_genecompass import GeneCompassProcessor
    from peft import PeftModel

    base = GeneCompassForSequenceClassification.from_pretrained(checkpoint, num_labels=3)
    model = PeftModel.from_pretrained(base, adapter).eval()
    genes = ["ENSG00000000001", "GENE2", "GENE3"]
    processor = GeneCompassProcessor.from_pretrained(checkpoint)
    with torch.inference_mode():
        return model(**processor([[7, 3, 1]], genes=genes, species="human", return_tensors="pt")).logits[0].tolist()


def test_dry_run_lists_everything_and_sends_nothing(hub, command, checkpoint):
    (checkpoint / "optimizer.pt").write_bytes(b"state")
    before = {path: path.read_bytes() for path in checkpoint.iterdir()}
    result = command("push", checkpoint, "--repo", "someone/tiny", "--dry-run", token=None)
    assert result.returncode == 0, result.stderr
    for path in checkpoint.iterdir():
        assert path.name in result.stdout
    assert f"{(checkpoint / 'model.safetensors').stat().st_size:,} bytes  model.safetensors" in result.stdout
    assert "stays here (training state): optimizer.pt" in result.stdout
    assert hub.requests == []
    assert before == {path: path.read_bytes() for path in checkpoint.iterdir()}


def test_pinned_revisions_stay_and_a_tag_moves_only_when_told(hub, client, command, checkpoint):
    assert command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v1").returncode == 0
    first = hub.head("someone/tiny", revision="v1")
    (checkpoint / "notes.txt").write_text("second version")
    (checkpoint / "special_tokens_map.json").unlink(missing_ok=True)
    record_files(checkpoint, ["notes.txt"])
    refused = command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v1")
    assert refused.returncode == 2
    assert "tag v1 exists already" in refused.stderr
    assert command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v2").returncode == 0
    assert hub.head("someone/tiny", revision="v1") == first
    pull = """
from genecompass.tokenization.sources import resolve
for tag in ("v1", "v2"):
    print((resolve(f"someone/tiny@{tag}") / "notes.txt").exists())
"""
    assert client(pull).split() == ["False", "True"]
    assert command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v1", "--move-tag").returncode == 0
    assert client(pull).split() == ["True", "True"]


def test_files_of_the_previous_push_go_but_those_of_others_stay(hub, command, checkpoint):
    (checkpoint / "notes.txt").write_text("first version")
    record_files(checkpoint, ["notes.txt"])
    assert command("push", checkpoint, "--repo", "someone/tiny").returncode == 0
    files = hub.files("someone/tiny")
    assert "notes.txt" in files
    files["banner.png"] = b"uploaded by hand"
    (checkpoint / "notes.txt").unlink()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"].pop("notes.txt")
    write_json(checkpoint / "manifest.json", manifest)
    assert command("push", checkpoint, "--repo", "someone/tiny").returncode == 0
    assert "notes.txt" not in hub.files("someone/tiny")
    assert "banner.png" in hub.files("someone/tiny")


def test_an_interrupted_push_is_resumed(hub, command, checkpoint):
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "other.safetensors")
    content = bytearray((checkpoint / "other.safetensors").read_bytes())
    content[-1] ^= 1
    (checkpoint / "other.safetensors").write_bytes(content)
    record_files(checkpoint, ["other.safetensors"])
    hub.fail_after_uploads = 1
    cut = command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v1")
    assert cut.returncode == 2
    assert "network lost" in cut.stderr
    assert "push again to resume" in cut.stderr
    assert cut.stderr.splitlines()[-1].startswith("genecompass: error: someone/tiny: network lost")
    assert hub.uploads == 1
    assert "manifest.json" not in hub.files("someone/tiny")
    assert "v1" not in hub.repos["model", "someone/tiny"]["refs"]

    hub.fail_after_uploads = None
    assert command("push", checkpoint, "--repo", "someone/tiny", "--revision", "v1").returncode == 0
    assert hub.uploads == len(hub.large), "no large file was sent twice"
    assert command("verify", "someone/tiny@v1").returncode in (0, 1)
    assert set(hub.files("someone/tiny")) >= {"model.safetensors", "other.safetensors", "manifest.json"}


@pytest.mark.parametrize(
    ("repo", "tag", "message"),
    [
        ("tiny", None, "not a repository name"),
        ("a/b/c", None, "not a repository name"),
        ("someone/ti--ny", None, "not a name that the Hub allows"),
        ("someone/tiny", "a b", "cannot be a tag"),
        ("someone/tiny", "main", "is the branch"),
    ],
)
def test_wrong_names_are_one_clear_line(checkpoint, repo, tag, message):
    with pytest.raises(InputError, match=message):
        plan_push(checkpoint, repo, tag=tag)


def test_missing_and_wrong_tokens_and_other_owners_are_one_clear_line(hub, client, checkpoint):
    out = client(
        f"""
import os
from genecompass.model_cards import plan_push, push_folder
for token, repo in ((None, "someone/tiny"), ("hf_wrong", "someone/tiny"), ("hf_fake", "stranger/tiny")):
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    try:
        push_folder(plan_push({str(checkpoint)!r}, repo))
    except ValueError as error:
        print(error)
"""
    )
    missing, wrong, stranger = out.splitlines()
    assert missing.startswith("no access token; log in with")
    assert "the access token is not valid" in wrong
    assert "stranger is not yours; you are someone and may push to someone, lab" in stranger
    assert hub.repos == {}


def test_visibility_of_an_existing_repository_is_not_changed_behind_its_owner(hub, command, checkpoint):
    assert command("push", checkpoint, "--repo", "lab/tiny", "--public").returncode == 0
    assert not hub.repos["model", "lab/tiny"]["private"]
    refused = command("push", checkpoint, "--repo", "lab/tiny", "--private")
    assert refused.returncode == 2
    assert "exists already and is public" in refused.stderr
    assert command("push", checkpoint, "--repo", "lab/tiny").returncode == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("extra.pkl", b"x", "extra.pkl: a pickle"),
        ("state.dat", b"\x80\x04\x95\x01", "state.dat: a pickle"),
        ("empty.json", b"", "empty.json: empty (0 bytes)"),
        ("notes.txt", b"made in /home/ann/genes", "notes.txt: names a path of this machine (/home/ann/genes)"),
        ("run.json", b'{"corpus": "/odd/place/corpus"}', "run.json: names a path of this machine (/odd/place/corpus)"),
        ("win.txt", rb"C:\Users\ann\genes", "win.txt: names a path of this machine"),
        ("login.txt", b"hf_" + b"a" * 34, "login.txt: holds what looks like an access token"),
        ("key.txt", b"-----BEGIN RSA PRIVATE KEY-----", "key.txt: holds what looks like an access token"),
        (".env", b"A=1", ".env: looks like a file of secrets"),
    ],
)
def test_what_must_not_go_up_is_refused_by_name(checkpoint, name, content, message):
    (checkpoint / name).write_bytes(content)
    record_files(checkpoint, [name])
    with pytest.raises(InputError) as refused:
        plan_push(checkpoint, "someone/tiny")
    assert message in str(refused.value)


def test_web_addresses_and_plain_words_are_not_paths(checkpoint):
    text = "see https://example.org/home/ann/genes and data/mouse/train-00000.parquet or and/or/tmp"
    (checkpoint / "notes.txt").write_text(text)
    record_files(checkpoint, ["notes.txt"])
    assert refusals(checkpoint) == []


def test_folders_that_are_not_finished_are_refused(checkpoint, adapter, corpus, tmp_path):
    (checkpoint / "added.txt").write_text("x")
    with pytest.raises(InputError, match=r"added\.txt: not listed"):
        plan_push(checkpoint, "someone/tiny")
    (checkpoint / "added.txt").unlink()
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: missing.*no weights here"):
        plan_push(checkpoint, "someone/tiny")
    with pytest.raises(InputError, match=r"adapter_config\.json: names a path of this machine"):
        plan_push(adapter, "someone/adapter")
    with pytest.raises(InputError, match="belongs into a dataset repository"):
        plan_push(corpus, "someone/cells", dataset=False)
    with pytest.raises(InputError, match="no such folder"):
        plan_push(tmp_path / "absent", "someone/tiny")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "genes.tsv").write_text("gene_id")
    with pytest.raises(InputError, match=r"no manifest\.json here"):
        plan_push(tmp_path / "bare", "someone/tiny")
    write_manifest(tmp_path / "bare", "priors")
    with pytest.raises(InputError, match=r"no weights here.*README\.md: missing"):
        plan_push(tmp_path / "bare", "someone/tiny")


def test_a_torch_file_is_a_pickle_whatever_its_name(tmp_path):
    import torch

    torch.save({"a": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert is_pickle(tmp_path / "weights.safetensors")
