"""Configs and `.keras` files of versions 0.4.0 and 0.5.0 open and compute what they did.

`tests/fixtures/earlier_versions` was written by these versions: configs with the outputs that their models have for
weights drawn by their paths, and tiny files with their outputs on the batch in `answers.npz`.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import tfxformer
from tfxformer.models import TransformerConfig, preset

FOLDER = Path(__file__).parent.parent / "fixtures" / "earlier_versions"
CONFIGS = json.loads((FOLDER / "0.4.0" / "configs.json").read_text())
VARIANTS = [name for name in CONFIGS if name not in tfxformer.models.PRESETS]


def answers(version):
    found = dict(np.load(FOLDER / version / "answers.npz"))
    return {name: found.pop(name) for name in ("token_ids", "padding_mask")}, found


def output_of(model, batch):
    outputs = model({name: batch[name] for name in model.input})
    return np.asarray(outputs["sequence_output"] if isinstance(outputs, dict) else outputs)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name in tfxformer.models.PRESETS])
def test_configs_of_presets(name):
    assert TransformerConfig.from_dict(CONFIGS[name]) == preset(name)


@pytest.mark.parametrize("name", VARIANTS)
def test_configs_compute_what_they_did(name):
    batch, wanted = answers("0.4.0")
    config = TransformerConfig.from_dict(CONFIGS[name])
    assert TransformerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    model = tfxformer.build(CONFIGS[name])
    for variable in model.variables:
        if variable.name != "seed_generator_state":
            generator = np.random.default_rng(list(variable.path.encode()))
            variable.assign(generator.normal(0.3, 0.3, variable.shape))
    found = output_of(model, {**batch, "segment_ids": batch["padding_mask"]})
    real = batch["padding_mask"] == 1
    np.testing.assert_allclose(found[real], wanted[f"variant {name}"][real], atol=2e-5)


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.4.0", "encoder"),
        ("0.4.0", "decoder"),
        ("0.4.0", "classifier"),
        ("0.5.0", "continued_encoder"),  # a user's model on the graph of a backbone
        ("0.5.0", "continued_decoder"),
    ],
)
def test_keras_files(version, name, tmp_path):
    batch, wanted = answers(version)
    model = keras.saving.load_model(FOLDER / version / f"{name}.keras")
    np.testing.assert_allclose(output_of(model, batch), wanted[name], atol=1e-5)
    model.save(tmp_path / "again.keras")  # under today's names
    again = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(output_of(again, batch), output_of(model, batch))
    if version == "0.4.0":  # weights alone, into a model made anew
        model.save_weights(tmp_path / "model.weights.h5")
        again.load_weights(tmp_path / "model.weights.h5")


def test_an_older_switch_that_there_never_was():
    values = {**CONFIGS["pre"], "encoder": {**CONFIGS["pre"]["encoder"], "num_hidden_layers": 2}}
    with pytest.raises(ValueError, match=r"StackConfig has no num_hidden_layers .*did you mean num_layers"):
        TransformerConfig.from_dict(values)
