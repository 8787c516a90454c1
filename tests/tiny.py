"""Tiny vocabulary, models and texts, so that tests need no samples and no time."""

from pathlib import Path

import keras
import numpy as np

import tfxformer
from tfxformer import checkpoints
from tfxformer.checkpoints.families import family_of
from tfxformer.models import HeadConfig, StackConfig, TransformerConfig
from tfxformer.text import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """good bad film plot cat dog sat on the mat who wrote it ada alan london paris lives in not very a is was and
or of engine machine code ran fast slow red blue""".split()  # noqa: SIM905
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = list(dict.fromkeys([*SPECIAL, *WORDS, *_LETTERS, *".,?!", *(f"##{letter}" for letter in _LETTERS)]))
VOCABULARY_SIZE = 110  # a few rows more than tokens, as real checkpoints have
TEXTS = ["good film", "bad plot", "a very good cat", "the bad dog sat", "good code ran fast", "bad engine is slow"] * 4
LABELS = ["positive", "negative"] * 12


def tokenizer(folder) -> Tokenizer:
    """A WordPiece tokenizer over `VOCABULARY`."""
    path = Path(folder) / "vocab.txt"
    path.write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    return Tokenizer.from_vocabulary(path)


PRESETS = {
    "ernie": "bert-base",
    "camembert": "roberta-base",
    "data2vec-text": "roberta-base",
    "nomic_bert": "nomic-bert-base",
    "deberta-v2": "deberta-v3-small",
    "deberta": "deberta-base",
    "albert": "albert-base",
    "electra": "electra-small",
    "gpt2": "gpt2",
    "gpt_neox": "pythia-70m",
    "opt": "opt-125m",
    "bloom": "bloom-560m",
    "llama": "smollm2-135m",
    "mistral": "mistral-7b",
    "qwen2": "qwen2.5-0.5b",
    "t5": "t5-small",
    "bart": "bart-base",
    "marian": "transformer-base",
}


ODD = {
    "lfm2": {"full_attn_idxs": [1]},
    "qwen3_5_text": {
        "full_attention_interval": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 6,
        "linear_value_head_dim": 5,
    },
}  # else all of its layers are of one kind


def config(family="bert", **changes):
    """A two-layer configuration of a family, 32 wide, without dropout."""
    name = PRESETS.get(family, f"{family}-base")
    known = name in tfxformer.models.PRESETS  # else what an all but empty config.json of the family says
    preset = tfxformer.models.preset(name) if known else family_of(family).read_config(ODD.get(family, {}))
    values = {}
    for kind, stack in preset.stacks.items():
        values |= {f"{kind}__{name}": value for name, value in _sizes(family, stack).items()}
    values |= {
        "family": family,
        "vocabulary_size": VOCABULARY_SIZE,
        "padding_id": preset.padding_id if preset.padding_id < VOCABULARY_SIZE else 0,
        "heads__classifier_dropout": 0.0,
        **({"embedding_size": 16} if family in ("albert", "electra", "mobilebert") else {}),
        **({"heads__logit_scale": 32**-0.5} if family == "t5" else {}),
    }
    return preset.replace(**{**values, **changes})


def _sizes(family, stack):
    sizes = {
        "num_layers": 2,
        "hidden_size": 32,
        "attention__heads": 4,
        "feed_forward__size": 128 if family == "bloom" else 48,
        "attention__width": None,
        "max_positions": 64 + stack.position_offset,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    if stack.key_value_heads < stack.heads:
        sizes["attention__key_value_heads"] = min(stack.key_value_heads, 2)
    if stack.embedding_dropout is not None:
        sizes["embedding_dropout"] = 0.0
    if family == "mobilebert":
        sizes |= {"bottleneck__size": 16, "attention__width": 4}
    if family == "xlnet":  # which has no longest text
        del sizes["max_positions"]
    if family in ("deberta", "deberta-v2"):
        sizes["attention__scale"] = (8 * 3) ** -0.5
    if stack.embedding_scale == stack.hidden_size**0.5:
        sizes["embedding_scale"] = 32**0.5
    return sizes


def backbone(family="bert", seed=0, dtype=None, gradient_checkpointing=False, **changes):
    """An encoder or decoder of `config(...)`, every variable random."""
    model = tfxformer.build(config(family, **changes), dtype=dtype, gradient_checkpointing=gradient_checkpointing)
    return perturb(model, seed)


def checkpoint(folder, words, num_layers=2, max_positions=32, dropout=0.1):
    """A BERT checkpoint folder, 32 wide, whose tokens are the special ones and whole words; returns the folder."""
    folder = Path(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in [*SPECIAL, *words]), encoding="utf-8")
    # 4 heads: with 2, libtpu takes hours over a batch that is far too large.
    rates = {"dropout": dropout, "attention_dropout": dropout}
    stack = StackConfig(num_layers, 32, 4, 64, max_positions=max_positions, **rates)
    made = TransformerConfig(
        family="bert",
        vocabulary_size=len(SPECIAL) + len(words),
        encoder=stack,
        heads=HeadConfig(pooler=True),
        token_types=2,
    )
    keras.utils.set_random_seed(0)
    checkpoints.save_pretrained(folder, tfxformer.build(made), made)
    Tokenizer.from_vocabulary(folder / "vocab.txt").save_pretrained(folder)
    return folder


def perturb(model, seed=0):
    """Gives every weight other random values, so that no term vanishes: no bias is zero, no norm the identity."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            continue
        centre = 1.0 if variable.name == "gamma" else 0.0
        variable.assign(generator.normal(centre, 0.15, variable.shape).astype("float32"))
    return model


def batch(rows=3, length=12, token_types=2, seed=0):
    """A random batch whose rows are filled to different lengths, as int32 numpy arrays."""
    generator = np.random.default_rng(seed)
    mask = np.zeros((rows, length), "int32")
    for row in range(rows):
        mask[row, : max(2, length - 3 * row)] = 1
    inputs = {
        "token_ids": (generator.integers(5, 95, (rows, length)) * mask).astype("int32"),
        "padding_mask": mask,
    }
    if token_types > 1:
        inputs["segment_ids"] = generator.integers(0, token_types, (rows, length)).astype("int32") * mask
    return inputs


def inputs_for(model, **arguments):
    """A random batch with the inputs that a model (a task or an encoder) takes."""
    described = getattr(model, "backbone", model).config
    if len(described.stacks) > 1:
        parts = {
            stack: batch(token_types=0, **{**arguments, "seed": seed}) for seed, stack in enumerate(described.stacks)
        }
        return {f"{stack}_{name}": array for stack, inputs in parts.items() for name, array in inputs.items()}
    inputs = batch(token_types=described.token_types, **arguments)
    if described.padding_id:  # RoBERTa counts positions by this id
        inputs["token_ids"] = np.where(inputs["padding_mask"] == 1, inputs["token_ids"], described.padding_id)
    return inputs


def weights(model) -> dict:
    """Every weight as numpy, by path, without the states of random generators."""
    return {v.path: v.numpy() for v in model.variables if v.name != "seed_generator_state"}
