"""What the tests of structured pruning share: models, tasks, and the masked big model, written down here anew."""

import functools

import keras
import numpy as np
import tiny

from tfxformer import tasks

ENCODERS = ("bert", "roberta", "distilbert", "albert", "electra", "deberta", "xlnet")
DECODERS = ("gpt2", "gpt_neox", "opt", "llama", "mistral", "qwen2")


def model(family="bert", **changes):
    """A bare model of a family, three layers deep unless its layers share their weights."""
    kind = "encoder" if family in ENCODERS else "decoder"
    return tiny.backbone(family, **({} if family == "albert" else {f"{kind}__num_layers": 3}), **changes)


@functools.cache
def shared(family="bert"):
    """`model(family)`, made once for all tests that leave it as it is."""
    return model(family)


def masked_outputs(model, *masks):
    """The `outputs` of a model while the rows of `mask_rows` are zeros; it is left as it was."""
    before = model.get_weights()
    try:
        for mask in masks:
            mask_rows(model, *mask)
        return outputs(model)
    finally:
        model.set_weights(before)


def mask_rows(model, half, kept, count):
    """Sets the output rows of all but some parts of each block to zero.

    Args:
        half: "self_attention" or "feed_forward".
        kept: for each block the parts that stay.
        count: int, parts of a block.
    """
    for variable in model.variables:
        place, _, rest = variable.path.partition("/")
        if rest != f"{half}/output/kernel":
            continue
        rows = variable.numpy().reshape(count, -1, variable.shape[-1])
        removed = [part for part in range(count) if part not in kept[int(place.rpartition("_")[2])]]
        rows[removed] = 0.0
        variable.assign(rows.reshape(variable.shape))


def best(importance, keep):
    """The places of the `keep` largest of each row, by sorting pairs."""
    return [{i for _, i in sorted(((-score, i) for i, score in enumerate(row)))[:keep]} for row in importance]


def outputs(model, seed=0):
    """The outputs of a random batch at real tokens, flat."""
    inputs = tiny.inputs_for(model, seed=seed)
    mask = inputs["padding_mask"] == 1
    found = keras.tree.flatten(keras.tree.map_structure(np.asarray, model(inputs)))
    return np.concatenate([(x[mask] if x.shape[:2] == mask.shape else x).ravel() for x in found])


def made_task(name, tokenizer):
    """(a task on a random model of two layers, what its `evaluate` takes)."""
    words = [text.split() for text in tiny.TEXTS]
    tags = words, [["long" if len(word) > 3 else "short" for word in row] for row in words]
    pairs = list(zip(tiny.TEXTS, reversed(tiny.TEXTS), strict=True))
    data = {
        "TextClassifier": (tiny.TEXTS, tiny.LABELS),
        "TokenClassifier": tags,
        "TextEmbedder": (pairs, np.linspace(-1, 1, len(pairs))),
        "MultiTask": {"topics": (tiny.TEXTS, tiny.LABELS), "tags": tags},
    }
    task, backbone = getattr(tasks, name), tiny.backbone("llama" if name == "CausalLM" else "bert")
    labels = {"TextClassifier": ["negative", "positive"], "TokenClassifier": ["short", "long"]}
    if name == "MultiTask":
        made = task(
            {
                "topics": tasks.TextClassifier(backbone, labels["TextClassifier"], tokenizer=tokenizer),
                "tags": tasks.TokenClassifier(backbone, labels["TokenClassifier"], tokenizer=tokenizer),
            }
        )
    else:
        made = task(backbone, **({"labels": labels[name]} if name in labels else {}), tokenizer=tokenizer)
    return tiny.perturb(made), data.get(name, tiny.TEXTS)
