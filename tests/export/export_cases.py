"""Tiny models and texts that the export tests share."""

import numpy as np

import tfxformer

WORDS = """
good bad film the a meeting is at on room would not recommend this to any least of all who paid for it
prices rose by in july office said after increase she asked where nobody answered so walked along river
small team from north surprised everyone again season and its coach had never led side first match that
secret was neither money nor luck but patience young players very long list corrections what
""".split()  # noqa: SIM905
TEXTS = [
    "good film",
    "What a BAD film, the meeting is at 10:30.",
    "she asked where the small team from the north walked, and nobody answered so it was a long match",
    "prices rose by 3.5% in july, the office said after the increase; nobody paid for the players",
]
VOCABULARY_SIZE = 400


def vocabulary():
    """A WordPiece vocabulary of 400 tokens: words, characters, pieces."""
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [f"##{character}" for character in characters if character.isalnum()]
    tokens = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *pieces, *WORDS]))
    return tokens + [f"[unused{index}]" for index in range(VOCABULARY_SIZE - len(tokens))]


def perturb(model, seed=0, kernels=0.1):
    """Random values in every variable, so that no bias stays zero and no norm the identity."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) == 0 or "seed" in weight.path:
            continue
        center = 1.0 if weight.path.endswith("gamma") else 0.0
        spread = kernels if weight.path.endswith("kernel") else 0.1
        weight.assign(generator.normal(center, spread, weight.shape))
    return model


def backbone(preset="minilm-l6", **changes):
    """A two-layer encoder of 64 positions."""
    sizes = {
        "vocabulary_size": VOCABULARY_SIZE,
        "encoder__num_layers": 2,
        "encoder__hidden_size": 64,
        "encoder__attention__heads": 4,
        "encoder__feed_forward__size": 128,
        "encoder__max_positions": 64,
    }
    return tfxformer.build(preset, **{**sizes, **changes})


def keras_probabilities(task, texts, sequence_length):
    """What Keras says of raw texts, by numpy's own softmax."""
    encoding = task.tokenizer.encode(texts, sequence_length=sequence_length)
    logits = np.asarray(task({tensor.name: getattr(encoding, tensor.name) for tensor in task.inputs}))
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)
