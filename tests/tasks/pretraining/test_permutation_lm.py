"""PermutationLM against the two streams written out position by position, and against what nobody may see."""

import batteries
import numpy as np
import pytest
import tiny

from tfxformer import tasks

pytestmark = pytest.mark.usefixtures("plain_kernels")

MASK_ID = 4
POSITIONS = np.array([[5, 2, 9, -1], [3, 7, -1, -1], [1, 4, 2, 0]], "int32")


def make(tokenizer=None, **arguments):
    return tiny.perturb(tasks.PermutationLM(tiny.backbone(), mask_id=MASK_ID, tokenizer=tokenizer, **arguments))


def norm(x, weights, name):
    centred = x - x.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-12) * weights[f"{name}/gamma"] + weights[f"{name}/beta"]


def softmax(x):
    exponents = np.exp(x - x.max())
    return exponents / exponents.sum()


def dense(x, weights, name):
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def gelu(x):
    from math import erf

    return np.array([value * 0.5 * (1 + erf(value / np.sqrt(2))) for value in x])


def block(index, query, seen, weights, heads=4):
    """One position's way through a block, from the contents that it sees: loops, where the package has matrices."""
    name = f"encoder_block_{index}"
    width = len(query) // heads
    contexts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q = dense(query, weights, f"{name}/self_attention/query")[part]
        keys = [dense(one, weights, f"{name}/self_attention/key")[part] for one in seen]
        values = [dense(one, weights, f"{name}/self_attention/value")[part] for one in seen]
        shares = softmax(np.array([q @ key for key in keys]) / np.sqrt(width))
        contexts.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    attended = dense(np.concatenate(contexts), weights, f"{name}/self_attention/output")
    x = norm(query + attended, weights, f"{name}/attention_norm")
    inner = gelu(dense(x, weights, f"{name}/feed_forward/expand"))
    return norm(x + dense(inner, weights, f"{name}/feed_forward/output"), weights, f"{name}/feed_forward_norm")


def by_hand(model, token_ids, length, segments, order):
    """Equations (1) and (2) of the paper for one row: the logits of the positions of `order`, in their order."""
    weights = {path: value.astype("float64") for path, value in tiny.weights(model).items()}

    def embedding(token, position):
        x = weights["token_embedding/embeddings"][token] + weights["position_embedding/embeddings"][position]
        return norm(x + weights["segment_embedding/embeddings"][segments[position]], weights, "embedding_norm")

    rank = {position: order.index(position) + 1 if position in order else 0 for position in range(length)}
    contents = {position: embedding(token_ids[position], position) for position in range(length)}
    queries = {position: embedding(MASK_ID, position) for position in order}
    for index in range(2):
        before = dict(contents)
        for position in order:
            seen = [before[other] for other in range(length) if rank[other] < rank[position]]
            queries[position] = block(index, queries[position], seen, weights)
        for position in range(length):
            seen = [before[other] for other in range(length) if rank[other] <= rank[position]]
            contents[position] = block(index, before[position], seen, weights)
    logits = []
    for position in order:
        x = gelu(dense(queries[position], weights, "masked_lm_transform/dense"))
        x = norm(x, weights, "masked_lm_transform/norm")
        logits.append(weights["token_embedding/embeddings"] @ x + weights["masked_lm_bias/bias"])
    return np.array(logits)


def test_logits_are_those_of_the_paper():
    model = make()
    inputs = tiny.batch()
    positions = POSITIONS.copy()
    positions[2] = [1, 4, 2, 0]
    logits = np.asarray(model({**inputs, "masked_positions": positions}))
    for row in range(3):
        length = int(inputs["padding_mask"][row].sum())
        order = [int(position) for position in positions[row] if position >= 0]
        wanted = by_hand(model, inputs["token_ids"][row], length, inputs["segment_ids"][row], order)
        assert np.abs(logits[row, : len(order)] - wanted).max() < 1e-5


def test_no_position_sees_its_token_nor_a_later_one():
    model = make()
    inputs = {**tiny.batch(), "masked_positions": POSITIONS}
    before = np.asarray(model(inputs))
    changed = inputs["token_ids"].copy()
    changed[0, 2] = 77  # second in the order of the first row
    after = np.asarray(model({**inputs, "token_ids": changed}))
    np.testing.assert_array_equal(after[0, :2], before[0, :2])
    assert np.abs(after[0, 2] - before[0, 2]).max() > 1e-3
    np.testing.assert_array_equal(after[1:], before[1:])


def test_equal_ranks_do_not_see_each_other():
    model = make()
    inputs = tiny.batch()
    together = {**inputs, "masked_positions": POSITIONS, "masked_ranks": np.ones_like(POSITIONS)}
    logits = np.asarray(model(together))
    alone = np.asarray(
        model({**together, "masked_positions": POSITIONS[:, :1], "masked_ranks": POSITIONS[:, :1] * 0 + 1})
    )
    assert np.abs(logits[0, 0] - alone[0, 0]).max() > 1e-4  # alone, it sees the tokens that are hidden together
    changed = inputs["token_ids"].copy()
    changed[0, [5, 2, 9]] = 50
    np.testing.assert_allclose(
        np.asarray(model({**together, "token_ids": changed}))[0, :3], logits[0, :3], rtol=0, atol=1e-6
    )


def test_batches_show_the_text_and_draw_an_order(tiny_tokenizer):
    model = make(tiny_tokenizer, masking_rate=0.7, masking="tokens")
    batches = model._hiding(tiny.TEXTS, 24, fitting=True)
    inputs, labels, weights = batches[0]
    encoded = model.encode(tiny.TEXTS)["token_ids"]
    assert sorted(map(tuple, inputs["token_ids"])) == sorted(map(tuple, encoded))
    descending = 0
    for ids, positions, wanted, counts in zip(
        inputs["token_ids"], inputs["masked_positions"], labels, weights, strict=True
    ):
        real = positions >= 0
        assert (counts == real).all() and (ids[positions[real]] == wanted[real]).all()
        assert not np.isin(wanted[real], list(tiny_tokenizer.special_ids)).any()
        descending += (np.diff(positions[real]) < 0).any()
    assert descending


def test_battery_with_texts(tiny_tokenizer, tmp_path):
    def same(actual, wanted):
        assert actual == wanted

    texts = [text + " [MASK]" for text in tiny.TEXTS]
    batteries.check_task(make(tiny_tokenizer), texts, None, tmp_path, same=same)


def test_remembers_and_learns_with_checkpointing_and_pre_norm(tiny_tokenizer, traced):
    switches = {"encoder__norm__placement": "pre", "encoder__dropout": 0.1, "encoder__num_layers": 1}
    backbone = tiny.backbone("bert", gradient_checkpointing=True, **switches)
    model = tasks.PermutationLM(backbone, masking_rate=0.3, tokenizer=tiny_tokenizer)
    model.compile(learning_rate=1e-2)
    losses = model.fit(tiny.TEXTS, epochs=6, batch_size=8, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_needs_a_mask():
    model = tiny.perturb(tasks.PermutationLM(tiny.backbone()))
    with pytest.raises(ValueError, match="mask_id"):
        model({**tiny.batch(), "masked_positions": POSITIONS})
