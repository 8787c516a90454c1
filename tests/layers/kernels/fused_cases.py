"""What fused attention computes on JAX beside the plain formula, in a process of its own.

    KERAS_BACKEND=jax python fused_cases.py WHAT...

prints a line of JSON: {what: {case: found}}. cuDNN's call runs here by XLA's implementation of the same arguments, and
the TPU's kernel is interpreted: the code around them is that of the devices.
"""

import collections
import contextlib
import json
import re
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent.parent))  # `tiny`

import jax
import jax.numpy as jnp
import keras
import numpy as np
import tiny
from jax.interpreters import partial_eval

from tfxformer import layers
from tfxformer.layers.attention.masks import MaskPattern
from tfxformer.layers.kernels import cudnn, fused_attention, splash
from tfxformer.training.memory.tpu_compiler import Compiler

ROWS, HEADS, GROUPS, WIDTH = 4, 4, 2, 8
LENGTHS = {"gpu": 12, "tpu": 130}  # the TPU's kernel takes whole blocks of 128
SOURCE = {"gpu": 7, "tpu": 140}  # of cross-attention


def padding_masks(length: int) -> dict:
    """int32 [ROWS, length] by name."""
    slots, counts = np.arange(length)[None], np.array([length, length - 3, length // 2, 1])[:, None]
    right = (slots < counts).astype("int32")
    empty, documents = right.copy(), np.minimum(1 + slots // (length // 3), 3)
    empty[3] = 0
    return {
        "whole": np.ones_like(right),
        "right": right,
        "left": right[:, ::-1].copy(),
        "packed": (documents * right).astype("int32"),
        "empty": empty,
    }


def sees(pattern: MaskPattern, mask, queries: int) -> np.ndarray:
    """What each token sees, a pair at a time: bool [ROWS, queries, T]."""
    found = np.zeros((len(mask), queries, mask.shape[1]), bool)
    for row, query, key in np.ndindex(*found.shape):
        one = mask[row, key] == mask[row, query] if pattern.causal or pattern.packed else mask[row, key] != 0
        if pattern.causal:
            one &= key <= query
        if pattern.window is not None:
            one &= query - key < pattern.window if pattern.causal else abs(query - key) <= pattern.window
        found[row, query, key] = one
    return found


class Case(NamedTuple):
    """A layer's call."""

    pattern: MaskPattern
    masks: tuple = ("whole", "right", "left", "empty")
    groups: int = HEADS
    rotary: bool = False
    cross: bool = False
    soft_cap: float | None = None


CASES = {
    "causal": Case(MaskPattern(causal=True, packed=True), ("whole", "right", "left", "empty", "packed")),
    "causal window": Case(MaskPattern(causal=True, window=5, packed=True), ("whole", "right", "left", "packed")),
    "grouped and turned": Case(MaskPattern(causal=True, packed=True), ("right", "packed"), GROUPS, rotary=True),
    "both ways": Case(MaskPattern()),
    "window both ways": Case(MaskPattern(window=3), ("whole", "right", "left")),
    "packed both ways": Case(MaskPattern(packed=True), ("right", "packed")),
    "cross": Case(MaskPattern(), ("right", "left", "empty"), GROUPS, cross=True),
    "soft cap": Case(MaskPattern(causal=True, packed=True), ("right",), soft_cap=2.0),
}
# Elsewhere padding, which nothing reads, may see other tokens than by the plain formula; and rows of padding alone do.
EXACT_AT_PADDING = ("both ways", "cross")


def layer_differences(platform: str) -> dict:
    """Largest difference of outputs and of gradients, relative to the largest, by case and mask."""
    found, length = {}, LENGTHS[platform]
    for name, case in CASES.items():
        if case.soft_cap is not None and platform == "gpu":
            continue
        keras.utils.set_random_seed(0)
        layer = layers.Attention(HEADS, WIDTH, case.groups, soft_cap=case.soft_cap)
        layer.build((None, None, 24))
        rng = np.random.default_rng(0)
        weights = [rng.standard_normal(weight.shape).astype("float32") * 0.5 for weight in layer.weights]
        x = rng.standard_normal((ROWS, length, 24)).astype("float32")
        keys = SOURCE[platform] if case.cross else length
        source = rng.standard_normal((ROWS, keys, 24)).astype("float32") if case.cross else None
        angles = rng.standard_normal((1, 1, length, WIDTH)).astype("float32")
        rotary = (np.cos(angles), np.sin(angles)) if case.rotary else None
        upstream = rng.standard_normal(x.shape).astype("float32")

        def loss(
            weights, x, source, bias, mask, counted, fused, layer=layer, case=case, turn=rotary, upstream=upstream
        ):
            said = {"padding_mask": mask, "pattern": case.pattern} if fused else {}
            arguments = {"source": source, "bias": bias, "rotary": turn, "training": True, **said}
            y = layer.stateless_call(weights, [], x, **arguments)[0] * counted[..., None]
            return jnp.sum(y * upstream), y

        run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnames="fused")
        masks = padding_masks(keys)
        for kind in case.masks:
            bias = np.where(sees(case.pattern, masks[kind], length), 0.0, -1e9).astype("float32")[:, None]
            some = np.repeat(masks[kind].any(axis=1, keepdims=True), length, axis=1)
            counted = some if name in EXACT_AT_PADDING else masks[kind] != 0
            data = (weights, x, source, bias, masks[kind], counted.astype("float32"))
            with compiled_for(None):
                plain = run(*data, fused=False)
            with compiled_for(platform):
                fused = run(*data, fused=True)
            found[f"{name} {kind}"] = difference(plain, fused)
    return found


@contextlib.contextmanager
def compiled_for(platform):
    """Fused for a platform, and an error where it is not; of None the plain formula."""
    layers.use_fused_attention("never" if platform is None else "always")
    with fused_attention.compiled_for(platform or "cpu"):
        yield
    layers.use_fused_attention("auto")


@contextlib.contextmanager
def stand_ins(what: str):
    """XLA in cuDNN's place, and the TPU's kernel interpreted, but for what is only compiled."""
    if what in COMPILED:
        from jax._src.cudnn import fused_attention_stablehlo

        fused_attention_stablehlo.check_cudnn_version = lambda: 91000  # there is none on a machine without a GPU
        yield
        return
    before = cudnn.IMPLEMENTATION, cudnn.DTYPES, splash.INTERPRET
    cudnn.IMPLEMENTATION, cudnn.DTYPES, splash.INTERPRET = "xla", ("float32",), True
    yield
    cudnn.IMPLEMENTATION, cudnn.DTYPES, splash.INTERPRET = before


def difference(one, other) -> float:
    """The largest, relative to the largest number of each kind of thing: outputs, gradients."""
    worst = 0.0
    for a, b in ((one[0][1], other[0][1]), (one[1], other[1])):
        leaves, others = jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b)
        largest = max(float(jnp.abs(leaf).max()) for leaf in leaves)
        apart = [float(jnp.abs(leaf - other).max()) for leaf, other in zip(leaves, others, strict=True)]
        assert largest > 0 and all(map(np.isfinite, apart)), apart
        worst = max(worst, *(one / largest for one in apart))
    return worst


# Whether their blocks are computed again in the backward pass, by family: grouped heads and rotary positions, an
# encoder, an encoder with a decoder.
FAMILIES = {"gpt2": False, "llama": True, "bert": False, "bart": True}


def model_differences() -> dict:
    """The same of whole models in training, for GPUs."""
    found = {}
    for family, checkpointing in FAMILIES.items():
        model = tiny.backbone(family, gradient_checkpointing=checkpointing)
        weights = [variable.value for variable in model.trainable_variables]
        plain, fused = jax.jit(gradients_of(model, None)), jax.jit(gradients_of(model, "gpu"))
        for kind in ("right", "left"):
            data = weights, inputs_of(model, 12, padding_masks(12)[kind])
            found[f"{family} {kind}"] = difference(plain(*data), fused(*data))
    return found


def inputs_of(model, length: int, mask) -> dict:
    """A batch [ROWS, length]."""
    ids = np.random.default_rng(0).integers(5, model.config.vocabulary_size, (ROWS, length)).astype("int32")
    arrays = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    return {name: arrays[name.removeprefix("encoder_").removeprefix("decoder_")] for name in model.input}


def gradients_of(model, platform):
    """(weights, inputs) -> ((loss, outputs at real tokens), gradients)."""
    others = [variable.value for variable in model.non_trainable_variables]

    def loss(weights, inputs):
        with compiled_for(platform):
            outputs = model.stateless_call(weights, others, inputs, training=True)[0]
        mask = next(x for name, x in inputs.items() if name.endswith("padding_mask"))
        x = next(x for x in jax.tree_util.tree_leaves(outputs) if len(x.shape) == 3) * (mask != 0)[..., None]
        return jnp.sum(x * jnp.cos(jnp.arange(x.size).reshape(x.shape))), x

    return jax.value_and_grad(loss, has_aux=True)


# === On several devices ===


def device_differences() -> dict:
    """A layer's outputs and gradients on meshes of eight devices, beside the plain formula on one."""
    found = {}
    for platform in ("gpu", "tpu"):
        length = LENGTHS[platform]
        layer = layers.Attention(HEADS, WIDTH, GROUPS)
        layer.build((None, None, 24))
        rng = np.random.default_rng(0)
        weights = [rng.standard_normal(weight.shape).astype("float32") * 0.5 for weight in layer.weights]
        for rows, mesh in ((2 * ROWS, (8, 1)), (2 * ROWS, (2, 2)), (2 * ROWS, (2, 4)), (ROWS - 1, (2, 2))):
            x = rng.standard_normal((rows, length, 24)).astype("float32")
            mask = np.resize(padding_masks(length)["right"], (rows, length))
            mask[1] = mask[1, ::-1]  # one row is padded on the left: devices may go different ways
            one = both_ways(layer, None)(weights, x, mask)
            distribute(mesh)
            data = jax.tree_util.tree_map(on_all_devices, (weights, x, mask))
            other = both_ways(layer, platform)(*data)
            keras.distribution.set_distribution(None)
            found[f"{platform} {rows} rows on {mesh[0]}x{mesh[1]}"] = difference(one, other)
    return found


def distribute(mesh) -> None:
    devices = keras.distribution.list_devices()[: mesh[0] * mesh[1]]
    mesh = keras.distribution.DeviceMesh(mesh, ("batch", "model"), devices)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=keras.distribution.LayoutMap(mesh), batch_dim_name="batch")
    )


def on_all_devices(array):
    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    return jax.device_put(array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def both_ways(layer, platform):
    """(weights, x, mask) -> ((loss, outputs at real tokens), gradients) of causal attention, compiled."""
    pattern = MaskPattern(causal=True, packed=True)

    def loss(weights, x, mask):
        bias = jnp.where(pattern.visible(mask, x.shape[1], x.shape[1]), 0.0, -1e9)[:, None]
        with compiled_for(platform):
            said = {"bias": bias, "padding_mask": mask, "pattern": pattern}
            y = layer.stateless_call(weights, [], x, training=True, **said)[0] * (mask != 0)[..., None]
        return jnp.sum(y * jnp.cos(jnp.arange(y.size).reshape(y.shape))), y

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


# === What is compiled for a GPU ===

LOWERED = 104  # a length that is no other number of the model


def lowered_for_cuda() -> dict:
    """A step of GPT-2's shape in bfloat16: its calls of cuDNN, and its tensors with two dimensions of the length."""
    traced = traced_step("gpu", LOWERED)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = collections.Counter(re.findall(r"@(__cudnn\$\w+)", text))
    used, _ = partial_eval.dce_jaxpr(traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.jaxpr.outvars))
    return {"calls": calls, "squares": sorted({str(aval) for aval in squares(used)})}


def squares(jaxpr):
    """Types with two dimensions of `LOWERED`, without those of the way that is taken where a mask is needed."""
    for equation in jaxpr.eqns:
        inner = equation.params.values()
        if equation.primitive.name == "cond":
            inner = equation.params["branches"][1:]  # see `cudnn.attend`
        for one in jax.tree_util.tree_leaves(list(inner), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield from squares(getattr(one, "jaxpr", one))
        for variable in equation.outvars:
            if getattr(variable.aval, "shape", ()).count(LOWERED) > 1:
                yield variable.aval


def traced_step(platform, length: int, **sizes):
    """A train step of a model like GPT-2, as JAX traces it."""
    model = tiny.backbone("gpt2", dtype="mixed_bfloat16", decoder__max_positions=length, **sizes)
    head = keras.Model(model.input, keras.layers.Dense(7)(model.output["sequence_output"]))
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch = inputs_of(model, length, np.ones((ROWS, length), "int32")), np.ones((ROWS, length), "int32")
    head._symbolic_build(data_batch=batch)
    head.optimizer.build(head.trainable_variables)
    groups = head.trainable_variables, head.non_trainable_variables, head.optimizer.variables, head.metrics_variables
    state = tuple([variable.value for variable in group] for group in groups)
    with compiled_for(platform):
        return jax.jit(lambda state, batch: head.train_step(state, batch)).trace(state, batch)


def compiled_for_tpu() -> dict:
    """Bytes beside the arguments of a step of 1,024 tokens on a v5e, and its calls of the kernel."""
    found = {}
    with Compiler("v5e:1x1") as compiler:
        for name, platform in (("plain", None), ("fused", "tpu")):
            traced = traced_step(platform, 1024, decoder__hidden_size=256, decoder__feed_forward__size=512)
            module = str(traced.lower(lowering_platforms=("tpu",)).compiler_ir("stablehlo"))
            found[name] = compiler.compile(module.encode()).temporary_bytes
            found[f"{name} calls"] = module.count("splash_mha")
    return found


# === What is said ===


def lines_said() -> dict:
    """The warnings of calls in training that a kernel cannot do, by a word of each; each is called twice."""
    found = {}
    causal, x = MaskPattern(causal=True, packed=True), np.ones((ROWS, 12, 24), "float32")
    bias, scores = np.zeros((1, 1, 12, 12), "float32"), np.zeros((1, 2, 12, 12), "float32")
    for word, platform, arguments, said in (
        ("attention_dropout", "gpu", {"dropout": 0.1}, {}),
        ("float32", "gpu", {}, {}),
        ("soft cap", "gpu", {"soft_cap": 2.0, "dtype": "mixed_bfloat16"}, {}),
        ("learned", "gpu", {"dtype": "mixed_bfloat16"}, {"scores": scores}),
        ("more than padding", "gpu", {"dtype": "mixed_bfloat16"}, {"pattern": None}),
        ("head dim", "gpu", {"head_size": 12, "dtype": "mixed_bfloat16"}, {}),
    ):
        layer = layers.Attention(2, **{"head_size": 8, **arguments})
        with fused_attention.compiled_for(platform), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                layer(x, bias=bias, training=True, **{"pattern": causal, **said})
        found[word] = [str(one.message) for one in caught]
    return found


COMPILED = ("cuda", "compiled", "said")
WHATS = {
    "gpu": lambda: layer_differences("gpu"),
    "tpu": lambda: layer_differences("tpu"),
    "models": model_differences,
    "devices": device_differences,
    "cuda": lowered_for_cuda,
    "compiled": compiled_for_tpu,
    "said": lines_said,
}

if __name__ == "__main__":
    results = {}
    for what in sys.argv[1:]:
        with stand_ins(what):
            results[what] = WHATS[what]()
    print(json.dumps(results))
