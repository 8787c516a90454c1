"""Every page of encoder-decoders live against transformers: logits, both directions, older spellings, wrong files."""

import json

import numpy as np
import pytest
import seq2seq_cases as cases

import tfxformer
from tfxformer import checkpoints, models, samples, tasks
from tfxformer.checkpoints import CheckpointError

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore:.*has no tokenizer files")]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """(folder, the model of transformers) of a case, made once."""
    made = {}

    def get(name):
        if name not in made:
            model, folder = cases.reference(name), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = folder, model
        return made[name]

    return get


def load_file(path):
    from safetensors.numpy import load_file  # an extra, as transformers is

    return load_file(path)


def check(lm, model):
    inputs = cases.batch(lm.backbone.config.padding_id)
    wanted = cases.results(model, inputs)["logits"]
    np.testing.assert_allclose(np.asarray(lm(inputs)), wanted, atol=min(1e-4, 1e-5 * max(1.0, np.abs(wanted).max())))


@pytest.mark.parametrize("name", cases.CASES)
def test_equals_transformers_both_ways(name, live, tmp_path):
    import transformers

    folder, model = live(name)
    lm = tasks.Seq2SeqLM.from_pretrained(folder)
    check(lm, model)
    saved = lm.save_pretrained(tmp_path / "saved")
    ours, theirs = load_file(saved / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for tensor, wanted in theirs.items():
        np.testing.assert_array_equal(ours[tensor], wanted, err_msg=tensor)
    again = getattr(transformers, cases.CASES[name][1]).from_pretrained(saved)
    check(lm, again.eval())
    assert json.loads((saved / "config.json").read_text())["decoder_start_token_id"] == lm.decoder_start_token_id


@pytest.mark.parametrize("name", ["t5", "bart", "marian", "marian-two-vocabularies"])
def test_a_bare_model(name, live, tmp_path):
    """Without its head, and without the head's prefix in the names."""
    folder, model = live(name)
    bare = model.model if hasattr(model, "model") else None
    if bare is None:
        import transformers

        bare = transformers.T5Model.from_pretrained(folder)
    bare.save_pretrained(tmp_path)
    opened, inputs = tfxformer.from_pretrained(tmp_path), cases.batch(1 if name != "t5" else 0)
    lm = tasks.Seq2SeqLM.from_pretrained(folder)
    np.testing.assert_array_equal(opened(inputs)["sequence_output"], lm.backbone(inputs)["sequence_output"])


@pytest.mark.parametrize("name", ["t5", "t5-gated", "mt5", "umt5"])
def test_an_encoder_alone(name, live, tmp_path):
    """T5EncoderModel, of which sentence-t5 is made: opened as an encoder, and saved as one."""
    import transformers

    folder, _ = live(name)
    architecture = getattr(transformers, cases.CASES[name][0] + "EncoderModel")
    model = architecture.from_pretrained(folder).eval()
    model.save_pretrained(tmp_path / "theirs")
    encoder, inputs = tfxformer.from_pretrained(tmp_path / "theirs"), cases.batch(0)
    assert isinstance(encoder, models.Encoder)
    ours = {"token_ids": inputs["encoder_token_ids"], "padding_mask": inputs["encoder_padding_mask"]}
    source = {key: inputs[key] for key in ("encoder_token_ids", "encoder_padding_mask")}
    wanted = model(**cases.tensors(source)).last_hidden_state.detach().numpy()
    real = ours["padding_mask"] == 1
    np.testing.assert_allclose(np.asarray(encoder(ours)["sequence_output"])[real], wanted[real], atol=2e-5)
    saved = checkpoints.save_pretrained(tmp_path / "ours", encoder, encoder.config)
    again = architecture.from_pretrained(saved)
    for tensor, value in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[tensor].numpy(), value.numpy(), err_msg=tensor)
    np.testing.assert_array_equal(
        tfxformer.from_pretrained(saved)(ours)["sequence_output"], encoder(ours)["sequence_output"]
    )


def rewritten(folder, target, config=lambda read: None, tensors=lambda read: None):
    """A copy of a checkpoint whose config and tensors two functions have changed."""
    stated, held = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    config(stated)
    tensors(held)
    from safetensors.numpy import save_file

    (target / "config.json").write_text(json.dumps(stated))
    save_file(held, target / "model.safetensors")
    return target


def test_files_of_older_versions(live, tmp_path):
    """Tables repeated for each stack, a table that was never read, and no word of how logits are scaled."""
    folder, model = live("t5")

    def older_config(stated):
        del stated["scale_decoder_outputs"]
        stated |= {"n_positions": 512, "task_specific_params": {}, "output_past": True}

    def older_tensors(held):
        held["encoder.embed_tokens.weight"] = held["decoder.embed_tokens.weight"] = held["shared.weight"].copy()
        held["lm_head.weight"] = held["shared.weight"].copy()
        held["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = np.zeros((8, 4), "float32")

    check(tasks.Seq2SeqLM.from_pretrained(rewritten(folder, tmp_path, older_config, older_tensors)), model)


def test_an_mt5_is_never_scaled(live, tmp_path):
    """transformers 5 writes tie_word_embeddings=true for it: read as T5's, its logits would be too small."""
    folder, model = live("mt5")

    def tied(stated):
        stated["tie_word_embeddings"] = True

    check(tasks.Seq2SeqLM.from_pretrained(rewritten(folder, tmp_path, tied)), model)


def test_what_would_answer_wrongly_is_refused(live, tmp_path):
    folder, _ = live("pegasus")

    def trained(held):
        held["model.encoder.embed_positions.weight"][3, 2] += 0.1

    with pytest.raises(CheckpointError, match="is not what its model computes in its place"):
        tasks.Seq2SeqLM.from_pretrained(rewritten(folder, tmp_path, tensors=trained))

    def shared(stated):
        stated["share_encoder_decoder_embeddings"] = True

    folder, _ = live("marian-two-vocabularies")
    with pytest.raises(CheckpointError, match=r"'final_logits_bias' has shape \[1, 120\], the model wants \[1, 90\]"):
        tasks.Seq2SeqLM.from_pretrained(rewritten(folder, tmp_path, shared))

    def separate(stated):
        stated["share_encoder_decoder_embeddings"] = False

    with pytest.raises(CheckpointError, match=r"lacks 2 tensors of its 'marian' model: .*embed_tokens\.weight"):
        tasks.Seq2SeqLM.from_pretrained(rewritten(live("marian")[0], tmp_path, separate))
    with pytest.raises(ValueError, match="CausalLM stands on an encoder or a decoder"):
        tasks.CausalLM.from_pretrained(live("bart")[0])


@pytest.mark.samples
def test_flan_t5_small():
    """A real checkpoint, rebuilt from its package: logits of range 94, and what it answers."""
    import torch
    import transformers

    folder = samples.flan_t5_small()
    lm, model = tasks.Seq2SeqLM.from_pretrained(folder), transformers.T5ForConditionalGeneration.from_pretrained(folder)
    review = "Is the review positive or negative? A {} film."
    sources = [review.format("dull, lifeless and boring"), review.format("cheerful, moving and brilliant")]
    assert lm.generate(sources, 8) == ["negative", "positive"]
    inputs = lm.encode(sources, ["negative", "positive"])
    wanted = cases.results(model.eval(), inputs)["logits"]
    real = inputs["decoder_padding_mask"] == 1
    assert np.abs(wanted).max() > 50
    np.testing.assert_allclose(np.asarray(lm(inputs))[real], wanted[real], atol=1e-4)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(sources)["input_ids"]
    assert lm.tokenizer.ids(sources) == ids
    with torch.inference_mode():
        found = model.generate(**cases.tensors(lm.encode(sources)), max_new_tokens=8)
    assert lm.tokenizer.decode(found.tolist()) == ["negative", "positive"]
