"""Checkpoints load anywhere: with and without the package, in bfloat16, in shards."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from genecompass.modeling_genecompass import GeneCompassConfig, GeneCompassForMaskedGeneModeling, GeneCompassModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

# Runs where no package can be found under our name: only what lies in the checkpoint folder is at hand.
_ELSEWHERE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "genecompass":
            raise ModuleNotFoundError("hidden: " + name, name=name)

sys.meta_path.insert(0, Hidden())
import torch
import transformers
from safetensors.torch import load_file, save_file

folder = sys.argv[1]
batch = load_file(folder + "/batch.safetensors")
for auto in sys.argv[2:]:
    load = getattr(transformers, auto).from_pretrained
    model = load(folder + "/" + auto, trust_remote_code=True).eval()
    assert "transformers_modules" in type(model).__module__, type(model)
    tensors = {"state." + name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        tensors["output"] = model(**batch)[0].contiguous()
    save_file(tensors, folder + "/" + auto + ".safetensors")
    model.save_pretrained(folder + "/again/" + auto)
# every head from one masked-gene checkpoint
for auto in sys.argv[2:]:
    getattr(transformers, auto).from_pretrained(folder + "/again/AutoModelForMaskedLM", trust_remote_code=True)
assert "genecompass" not in sys.modules
"""


@pytest.fixture(scope="module")
def batch(make_cells, pad):
    return pad(make_cells([3, 9, 6]))


@pytest.mark.slow
def test_all_classes_load_where_the_package_is_not_installed(make, classes, batch, tmp_path):
    saved = {}
    for auto, cls in classes.items():
        saved[auto] = make(cls)
        saved[auto].save_pretrained(tmp_path / auto)
    save_file(batch, tmp_path / "batch.safetensors")
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "PATH": "",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-I", "-c", _ELSEWHERE, str(tmp_path), *classes]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for auto, model in saved.items():
        found = load_file(tmp_path / f"{auto}.safetensors")
        state = model.state_dict()
        assert {name for name in found if name != "output"} == {"state." + name for name in state}
        for name, tensor in state.items():
            assert torch.equal(found["state." + name], tensor), name
        torch.testing.assert_close(found["output"], model(**batch)[0], rtol=0, atol=1e-6)
        # what was saved over there carries the code and the full map as well
        code = {path.name for path in (tmp_path / "again" / auto).glob("*.py")}
        assert code == {path.name for path in (tmp_path / auto).glob("*.py")}
        maps = [
            json.loads((tmp_path / where / "config.json").read_text())["auto_map"] for where in (auto, f"again/{auto}")
        ]
        assert maps[0] == maps[1]
        assert set(maps[0]) == {"AutoConfig", *classes}


def test_all_classes_load_with_the_package_and_no_trust(make, classes, batch, tmp_path):
    for auto, cls in classes.items():
        model = make(cls)
        model.save_pretrained(tmp_path / auto)
        loaded = getattr(transformers, auto).from_pretrained(tmp_path / auto)
        assert type(loaded) is cls
        state = loaded.state_dict()
        assert state.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(state[name], tensor), name
        torch.testing.assert_close(loaded(**batch)[0], model(**batch)[0], rtol=0, atol=1e-6)


def test_every_head_loads_from_any_checkpoint(make, classes, tmp_path):
    model = make(classes["AutoModelForSequenceClassification"])
    model.save_pretrained(tmp_path)
    assert set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == {"AutoConfig", *classes}
    for auto, cls in classes.items():
        loaded = getattr(transformers, auto).from_pretrained(tmp_path)
        assert type(loaded) is cls
        for name, tensor in model.base_model.state_dict().items():
            assert torch.equal(loaded.base_model.state_dict()[name], tensor), name


def test_the_order_of_priors_survives(tmp_path):
    config = GeneCompassConfig.tiny(vocab_size=9, priors={"promoter": 3, "grn": 2, "co_expression": 4})
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert list(loaded.priors.items()) == [("promoter", 3), ("grn", 2), ("co_expression", 4)]


def test_presets_are_the_published_sizes():
    with torch.device("meta"):
        base = GeneCompassForMaskedGeneModeling(GeneCompassConfig.base())
    frozen = sum(buffer.numel() for name, buffer in base.named_buffers() if "prior_tables" in name)
    assert frozen == 4 * 50558 * 768
    trained = sum(p.numel() for name, p in base.named_parameters() if name != "decoder.weight")  # tied to the ids
    assert abs(trained - 132.6e6) < 0.5e6
    assert GeneCompassConfig.small().num_hidden_layers == 6


def test_bfloat16_round_trip(make, classes, batch, tmp_path):
    model = make(classes["AutoModelForMaskedLM"]).bfloat16()
    model.save_pretrained(tmp_path)
    loaded = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path)
    assert loaded.dtype == torch.bfloat16
    assert loaded.genecompass.embeddings.prior_tables.promoter.dtype == torch.bfloat16
    assert loaded.genecompass.embeddings.prior_rows.dtype == torch.int64
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    assert loaded(**batch).value_predictions.dtype == torch.float32
    wide = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path, dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert wide.genecompass.embeddings.prior_tables.promoter.dtype == torch.float32


def test_bfloat16_stays_close_to_float32(make, batch):
    model = make()
    exact = model(**batch).last_hidden_state
    coarse = model.bfloat16()(**batch).last_hidden_state.float()
    assert (coarse - exact).abs().mean() < 0.03


def test_sharded_save(make, classes, batch, tmp_path):
    model = make(classes["AutoModelForMaskedLM"])
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = GeneCompassForMaskedGeneModeling.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_truncated_weights_are_one_clear_line(make, tmp_path):
    make().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="weights are damaged or cut short") as caught:
        GeneCompassModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_prior_table_is_named(make, tmp_path):
    make().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["embeddings.prior_tables.co_expression"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="prior-knowledge table 'co_expression' is missing"):
        GeneCompassModel.from_pretrained(tmp_path)


def test_loading_info_is_still_given(make, tmp_path):
    make().save_pretrained(tmp_path)
    model, info = GeneCompassModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, GeneCompassModel)
    assert not info["missing_keys"]


def test_device_map(make, batch, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    placed = GeneCompassModel.from_pretrained(tmp_path, device_map="cpu")
    torch.testing.assert_close(placed(**batch).last_hidden_state, model(**batch).last_hidden_state, rtol=0, atol=1e-6)
    spread = GeneCompassModel.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert {parameter.device.type for parameter in spread.parameters()} == {"cpu"}
