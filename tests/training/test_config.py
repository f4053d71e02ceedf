import importlib.util

import pandas as pd
import pytest
import yaml
from genecompass.tokenization import GeneTable
from genecompass.tokenization.errors import InputError
from genecompass.training.pretraining.config import PRESETS, PretrainConfig, load_config, read_preset
from genecompass.training.pretraining.model_setup import build_model


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_every_key_and_say_what_it_does(name):
    text = read_preset(name)
    assert yaml.safe_load(text).keys() == PretrainConfig().to_dict().keys()
    assert {key: set(part) for key, part in yaml.safe_load(text).items() if isinstance(part, dict)} == {
        key: set(part) for key, part in PretrainConfig().to_dict().items() if isinstance(part, dict)
    }
    assert load_config(name).model.preset == name


def test_base_has_the_published_settings():
    base = load_config("base")
    assert (base.data.max_length, base.data.cells_per_batch) == (2048, 10)
    assert (base.masking.rate, base.masking.mask_share, base.masking.random_share) == (0.15, 0.8, 0.1)
    wanted = base.optimisation
    assert (wanted.learning_rate, wanted.schedule, wanted.warmup_steps) == (5e-5, "linear", 10000)
    assert (wanted.weight_decay, wanted.precision) == (0.01, "fp16")


def test_overrides_win_over_file_and_file_over_preset(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("preset: tiny\nseed: 3\noptimisation: {learning_rate: 1e-4}\n")
    config = load_config(path, ["seed=5", "data.workers=2", "model.overrides.hidden_size=32"])
    assert (config.seed, config.data.workers, config.optimisation.learning_rate) == (5, 2, 1e-4)
    assert config.model.overrides == {"num_attention_heads": 2, "initializer_range": 0.08, "hidden_size": 32}
    assert config.data.max_length == 512


def test_yaml_round_trip(tmp_path):
    config = load_config("small", ["output=x", "data.select={tissue: [blood]}"])
    path = tmp_path / "resolved.yaml"
    path.write_text(config.to_yaml())
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimisation.learning_rat=1", "did you mean 'optimisation.learning_rate'"),
        ("optimization.learning_rate=1", "did you mean 'optimisation.learning_rate'"),
        ("learning_rate=1", "did you mean 'optimisation.learning_rate'"),
        ("maskin.task=published", "did you mean 'masking.task'"),
        ("masking.task=bert", "must be one of published, hidden_rank"),
        ("seed=1.5", "whole number"),
        ("data.workers=many", "whole number"),
        ("logging.progress_bar=1", "true or false"),
        ("data=3", "is a section"),
        ("seed.x=3", "no keys below"),
        ("seed", "key=value"),
        ("data.tokens_per_batch=10", "longest cell would fit no batch"),
        ("data.held_out=1.5", "held_out"),
        ("data.share=0", "share"),
        ("checkpoints.keep_last=0", "at least 1"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_typos_and_nonsense_are_named(override, words):
    with pytest.raises(InputError, match=words):
        load_config("tiny", [override])


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(InputError, match="no such config file"):
        load_config(tmp_path / "none.yaml")
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="key: value"):
        load_config(path)
    path.write_text("preset: huge\n")
    with pytest.raises(InputError, match="tiny, small, base"):
        load_config(path)
    path.write_text("optimisation: {lerning_rate: 1}\n")
    with pytest.raises(InputError, match=r"did you mean 'optimisation.learning_rate'"):
        load_config(path)


def test_how_long_must_be_said():
    with pytest.raises(InputError, match="how long"):
        load_config("tiny", ["optimisation.epochs=null"])


def test_attention_is_chosen_by_the_configuration():
    table = GeneTable.from_genes(pd.DataFrame({"gene_id": [f"ENSG{i}" for i in range(9)], "species": "human"}))
    assert build_model(load_config("tiny"), table).config._attn_implementation == "sdpa"
    assert build_model(load_config("tiny", ["model.attention=eager"]), table).config._attn_implementation == "eager"
    with pytest.raises(InputError, match=r"model\.attention is 'flash', must be one of auto, eager"):
        load_config("tiny", ["model.attention=flash"])
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(InputError, match=r"model\.attention=flash_attention_2 does not run here"):
            build_model(load_config("tiny", ["model.attention=flash_attention_2"]), table)
