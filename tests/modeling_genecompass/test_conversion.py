"""Published folders: what converts, and the one line that says why something does not."""

import json
import pickle
import shutil

import pytest
import torch
from genecompass.modeling_genecompass.conversion import convert_checkpoint
from genecompass.tokenization.manifest import check_manifest
from transformers import AutoModelForMaskedLM

from genecompass.cli import main


@pytest.fixture
def published(fixtures, tmp_path):
    """A copy of the published masked-gene folder to tamper with: ``published(config={...}, tensors={...})``."""

    def build(name="masked_lm", config=None, tensors=None, drop=()):
        folder = tmp_path / "published"
        shutil.copytree(fixtures / "reference-tiny" / name, folder)
        for path in folder.iterdir():
            path.chmod(0o644)
        settings = json.loads((folder / "config.json").read_text()) | (config or {})
        (folder / "config.json").write_text(json.dumps(settings))
        state = torch.load(folder / "pytorch_model.bin", weights_only=True) | (tensors or {})
        torch.save({k: v for k, v in state.items() if not k.startswith(tuple(drop))}, folder / "pytorch_model.bin")
        return folder

    return build


def refuses(folder, out, words, **options):
    with pytest.raises(ValueError, match=words) as caught:
        convert_checkpoint(folder, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*partial*"))


def test_every_published_tensor_is_accounted_for(fixtures, tmp_path):
    report = convert_checkpoint(fixtures / "reference-tiny" / "masked_lm", tmp_path / "out")
    names = [name for name, _ in [*report.mapped, *report.merged, *report.ignored]]
    state = torch.load(fixtures / "reference-tiny" / "masked_lm" / "pytorch_model.bin", weights_only=True)
    assert set(names) == set(state)
    assert len(names) == len(set(names))
    assert max(report.differences.values()) < 1e-5
    assert (tmp_path / "out" / "modeling_genecompass.py").exists()
    assert (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").glob("*.bin"))


@pytest.mark.parametrize(
    "dropped", [("promoter",), ("co_exp", "peca_grn"), ("promoter", "co_exp", "gene_family", "peca_grn")]
)
def test_any_subset_of_priors(published, tmp_path, dropped):
    flags = {
        "promoter": "use_promoter",
        "co_exp": "use_co_exp",
        "gene_family": "use_gene_family",
        "peca_grn": "use_peca_grn",
    }
    kept = 4 - len(dropped)
    folder = published(
        config={flags[name]: False for name in dropped},
        tensors={"bert.embeddings.concat_embeddings.cat_fc.weight": torch.randn(32, 32 * (1 + kept) + 1)},
        drop=[f"bert.embeddings.{name}_" for name in dropped],
    )
    report = convert_checkpoint(folder, tmp_path / "out")
    assert max(report.differences.values()) < 1e-5
    assert len(AutoModelForMaskedLM.from_pretrained(tmp_path / "out").config.priors) == kept


def test_what_does_not_fit_is_named(published, tmp_path):
    stem = "bert.encoder.layer.1.attention.self."
    folder = published(tensors={stem + "key.weight": torch.zeros(32, 31)})
    refuses(folder, tmp_path / "out", r"layers.1.attention.key.weight has shape \(32, 31\), expected \(32, 32\)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": ["bert.embeddings.promoter_knowledge"]}, "tensor 'bert.embeddings.promoter_knowledge' is missing"),
        ({"drop": ["bert.embeddings.homologous_index"]}, "tensor 'bert.embeddings.homologous_index' is missing"),
        ({"tensors": {"bert.extra.weight": torch.zeros(2)}}, "tensor 'bert.extra.weight' has no place"),
        ({"tensors": {"cls.predictions.decoder.weight": torch.zeros(320, 32)}}, "differs from the id embedding"),
        ({"tensors": {"emb_warmup.alpha": torch.tensor(0.5)}}, "emb_warmup.alpha is 0.5"),
        ({"config": {"vocab_size": 300}}, "says vocab_size=300"),
        ({"config": {"use_values": False}}, "use_values=false"),
        ({"config": {"use_promoter": False}}, "cat_fc.weight has 161 columns, expected 129"),
        ({"config": {"num_attention_heads": None}}, "lacks 'num_attention_heads'"),
        ({"config": {"model_type": "genecompass"}}, "already in this package's format"),
    ],
)
def test_checkpoints_that_do_not_convert(published, tmp_path, change, words):
    refuses(published(**change), tmp_path / "out", words)


def test_the_self_check_stops_a_wrong_conversion(published, tmp_path):
    # another activation than the published one: the tensors fit, the numbers do not
    refuses(published(config={"hidden_act": "relu"}), tmp_path / "out", "differ from the published computation by")


def test_folders_that_are_no_checkpoint(tmp_path, published):
    refuses(tmp_path / "nowhere", tmp_path / "out", "no config.json here")
    folder = published()
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:5000])
    refuses(folder, tmp_path / "out", "cannot be read as plain tensors")
    (folder / "pytorch_model.bin").unlink()
    refuses(folder, tmp_path / "out", "no pytorch_model.bin here")


class Dangerous:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_weights_that_would_run_code_are_refused(published, tmp_path, capsys):
    folder = published()
    torch.save({"bert.x": Dangerous()}, folder / "pytorch_model.bin")
    refuses(folder, tmp_path / "out", "cannot be read as plain tensors")
    assert "never run" not in capsys.readouterr().out


@pytest.fixture
def dictionaries(tmp_path):
    """The dictionaries that go with the published tiny model: human 10..99 have mouse homologs 170..259."""
    genes = {"<pad>": 0, "<mask>": 1}
    genes |= {f"ENSG{i:011d}": i for i in range(2, 161)} | {f"ENSMUSG{i:011d}": i for i in range(161, 320)}
    homologs = {i + 160: i for i in range(10, 100)}
    medians = {gene: 1.0 + token for gene, token in genes.items() if token > 1}
    for name, content in {"tokens": genes, "homologs": homologs, "medians": medians}.items():
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(content))
    return {name: tmp_path / f"{name}.pickle" for name in ("tokens", "homologs", "medians")}


def test_dictionaries_become_a_processor(fixtures, tmp_path, dictionaries):
    from genecompass.tokenization import GeneTable

    out = tmp_path / "out"
    folder = fixtures / "reference-tiny" / "masked_lm"
    report = convert_checkpoint(
        folder, out, dictionaries["tokens"], dictionaries["homologs"], medians=[dictionaries["medians"]]
    )
    assert report.processor == "320 tokens, medians of 318 genes"
    table = GeneTable.read(out)
    assert table.species == ("human", "mouse")
    assert table.frame["homolog_token"][175] == 15
    assert table.medians[175] == 176.0
    rows = AutoModelForMaskedLM.from_pretrained(out).genecompass.embeddings.prior_rows
    assert torch.equal(rows[1], torch.from_numpy(table.prior_rows("mouse")))


def test_dictionaries_that_do_not_fit(fixtures, tmp_path, dictionaries):
    folder, out = fixtures / "reference-tiny" / "masked_lm", tmp_path / "out"
    refuses(folder, out, "need tokens", homologs=dictionaries["homologs"])
    short = {"<pad>": 0, "<mask>": 1, "ENSG00000000002": 2}
    dictionaries["tokens"].write_bytes(pickle.dumps(short))
    refuses(folder, out, "3 tokens, but the checkpoint was trained with 320", tokens=dictionaries["tokens"])
    dictionaries["tokens"].write_bytes(pickle.dumps(["<pad>"]))
    refuses(folder, out, "found list", tokens=dictionaries["tokens"])
    dictionaries["tokens"].write_bytes(pickle.dumps({"<pad>": Dangerous()}))
    refuses(folder, out, "print", tokens=dictionaries["tokens"])


def test_the_verb(fixtures, tmp_path, capsys):
    folder = fixtures / "reference-tiny" / "sequence_classification"
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as done:
        main(["convert", str(folder), "-o", str(out)])
    assert done.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "merged   bert.embeddings.homologous_index" in printed
    assert "check    logits" in printed
    assert "# out" in (out / "README.md").read_text()
    assert check_manifest(out) == []
    with pytest.raises(SystemExit) as done:
        main(["convert", str(folder), "-o", str(out)])
    assert done.value.code == 2
    assert "is there already" in capsys.readouterr().err
