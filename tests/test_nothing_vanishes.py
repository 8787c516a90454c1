"""Nothing vanishes: every public callable refuses a keyword that it does not know, before it does anything.

What has no `**kwargs` is refused by Python, from its signature alone. What has some is called here, with the keyword:
`CONSTRUCTORS` and `METHODS` say how. A public callable with `**kwargs` that is in neither fails the test.
"""

import importlib
import inspect
import json
import pkgutil

import keras
import numpy as np
import pytest
import tiny
import typer
from typer.testing import CliRunner

import tfxformer
from tfxformer import compression, layers, models, tasks, training
from tfxformer.cli.main import app
from tfxformer.text import Tokenizer

UNKNOWN = "unheard_of"
# tfmot changes tf.keras for the whole process; the commands are called one by one below.
NOT_IMPORTED = ("tfxformer.compression.pruning.tfmot_engine", "tfxformer.cli")
# `**kwargs` that nobody passes by hand.
NOT_CALLED_BY_USERS = {
    "compute_output_spec": "Keras calls it with the arguments of `call`",
}


def public_modules():
    """Every module of the package that says what is public."""
    yield tfxformer
    for found in pkgutil.walk_packages(tfxformer.__path__, "tfxformer."):
        if not found.name.startswith(NOT_IMPORTED) and not found.name.endswith("__main__"):
            module = importlib.import_module(found.name)
            if hasattr(module, "__all__"):
                yield module


def public_callables() -> dict:
    """Name -> (object, class it belongs to or None) of all public functions, classes, and their public methods."""
    found = {}
    for module in public_modules():
        for name in module.__all__:
            one = getattr(module, name)
            if not getattr(one, "__module__", "").startswith("tfxformer") or not callable(one):
                continue
            found[f"{one.__module__}.{one.__qualname__}"] = (one, None)
            if not inspect.isclass(one):
                continue
            for method in dir(one):
                owner = next((owner for owner in one.__mro__ if method in vars(owner)), one)
                function = inspect.getattr_static(one, method)
                function = getattr(function, "__func__", function)
                if (
                    not method.startswith("_")
                    and owner.__module__.startswith("tfxformer")
                    and inspect.isfunction(function)
                ):
                    found[f"{one.__module__}.{one.__qualname__}.{method}"] = (getattr(one, method), one)
    return found


def takes_any(function) -> bool:
    """Whether it has `**kwargs`; classes of C code without a signature are errors, made of a message."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return False
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


PUBLIC = public_callables()
WITH_KEYWORDS = [name for name, (one, _) in PUBLIC.items() if takes_any(one)]
WITHOUT = [name for name in PUBLIC if name not in WITH_KEYWORDS]


# ---- how what takes `**kwargs` is called ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    return tiny.backbone("bert", token_types=2)


@pytest.fixture(scope="module")
def decoder():
    return tiny.backbone("gpt2")


def chat_tokenizer(folder):
    """One with an end token and a chat template, which reads the messages alone."""
    parts = json.loads(tiny.tokenizer(folder).to_json())
    parts["config"] |= {"eos_token": "[SEP]", "chat_template": "{{ messages[0]['content'] }}"}
    return Tokenizer.from_json(json.dumps(parts))


@pytest.fixture(scope="module")
def world(encoder, decoder, tmp_path_factory):
    """What constructors and methods are called with, by name."""
    tokenizer = chat_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    classifier = tasks.TextClassifier(encoder, ["negative", "positive"], tokenizer=tokenizer)
    other = tasks.TextClassifier(encoder, ["negative", "positive"], tokenizer=tokenizer, name="other")
    inputs = keras.Input((3,), name="inputs")
    functional = {"inputs": inputs, "outputs": keras.layers.Dense(2)(inputs)}
    return {
        "encoder": encoder,
        "decoder": decoder,
        "tokenizer": tokenizer,
        "classifier": classifier,
        "tasks": {"one": classifier, "two": other},
        "functional": functional,
        "folder": tmp_path_factory.mktemp("folder"),
        "student": compression.student_from(classifier, keep=1),
    }


ATTENTION = {"num_heads": 2, "head_size": 4}
# Class, or function -> its arguments, of what `world` has.
CONSTRUCTORS = {
    tfxformer.models.build: lambda world: (("bert-tiny",), {}),
    importlib.import_module("tfxformer.models.build").make_backbone: lambda world: ((tiny.config(),), {}),
    models.Encoder: lambda world: ((tiny.config(),), {}),
    models.Decoder: lambda world: ((tiny.config("gpt2"),), {}),
    models.EncoderDecoder: lambda world: ((tiny.config("t5"),), {}),
    layers.Attention: lambda world: ((), ATTENTION),
    layers.CausalConvolution: lambda world: ((3,), {}),
    layers.Mixer: lambda world: ((), {}),
    layers.GatedDeltaRule: lambda world: ((2, 4, 6, 5), {}),
    layers.ShortConvolution: lambda world: ((), {}),
    layers.ConstantSegmentEmbedding: lambda world: ((), {}),
    layers.EmbeddingConvolution: lambda world: ((3,), {}),
    layers.TransformerBlock: lambda world: ((ATTENTION, {"size": 4}), {}),
    layers.Dense: lambda world: ((3,), {}),
    layers.Dropout: lambda world: ((0.1,), {}),
    layers.FeedForward: lambda world: ((4,), {}),
    layers.LayerNormalization: lambda world: ((), {}),
    layers.RMSNormalization: lambda world: ((), {}),
    layers.PositionEmbedding: lambda world: ((8, 4), {}),
    layers.PositionScores: lambda world: ((2,), {}),
    layers.TokenEmbedding: lambda world: ((8, 4), {}),
    layers.RotaryPositions: lambda world: ((layers.Rotary(), 4), {}),
    training.DistributedModel: lambda world: ((), world["functional"]),
    training.ScheduledModel: lambda world: ((), world["functional"]),
    training.AdamW: lambda world: ((1e-3,), {}),
    training.Adafactor: lambda world: ((1e-3,), {}),
    training.Lamb: lambda world: ((1e-3,), {}),
    training.Lion: lambda world: ((1e-3,), {}),
    training.SGD: lambda world: ((1e-3,), {}),
    training.TensorBoard: lambda world: ((world["folder"],), {}),
    training.optimizer: lambda world: (("adamw", 1e-3), {}),
    training.schedule: lambda world: (("linear", 1e-3, 10), {}),
    compression.Distiller: lambda world: ((world["student"], world["classifier"]), {}),
    tasks.Task: lambda world: ((world["encoder"], {}), {}),
    tasks.TextClassifier: lambda world: ((world["encoder"], ["a", "b"]), {}),
    tasks.TokenClassifier: lambda world: ((world["encoder"], ["a", "b"]), {}),
    tasks.QuestionAnswering: lambda world: ((world["encoder"],), {}),
    tasks.TextEmbedder: lambda world: ((world["encoder"],), {}),
    tasks.ContrastiveEmbedder: lambda world: ((world["encoder"],), {}),
    tasks.MaskedLM: lambda world: ((world["encoder"],), {}),
    tasks.PermutationLM: lambda world: ((world["encoder"],), {}),
    tasks.ReplacedTokenDetection: lambda world: ((world["encoder"], None), {}),
    tasks.BertPretraining: lambda world: ((world["encoder"],), {}),
    tasks.CausalLM: lambda world: ((world["decoder"], world["tokenizer"]), {}),
    tasks.Seq2SeqLM: lambda world: ((tiny.backbone("t5"), world["tokenizer"]), {}),
    tasks.DenoisingLM: lambda world: ((tiny.backbone("t5"),), {}),
    tasks.MultiTask: lambda world: ((world["tasks"],), {}),
}
MESSAGES = [{"role": "user", "content": "good"}]
BATCH = {"token_ids": np.zeros((1, 4), "int32")}
# Method -> its arguments; refused before they are read.
METHODS = {
    "answer": ("who?", "ada"),
    "apply_chat_template": (MESSAGES,),
    "chat": (MESSAGES,),
    "chat_prompt": (MESSAGES,),
    "compile": (),
    "entities": (["ada"],),
    "evaluate": (["good film"], ["positive"]),
    "evaluate_entities": ([["good"]], [["a"]]),
    "fit": (["good film"], ["positive"]),
    "from_pretrained": ("no-folder",),
    "generate": (["good"],),
    "generate_ids": ([5],),
    "logits": (BATCH,),
    "predict": (["good film"],),
    "rank": ("good", ["a film"]),
    "read_given": (BATCH,),
    "replace": (),
    "save": ("no-folder/model.keras",),
    "save_pretrained": ("no-folder",),
    "save_weights": ("no-folder/model.weights.h5",),
    "stream": ("good",),
    "zero_shot": (["good film"], ["sport"]),
}


@pytest.fixture(scope="module")
def instances(world):
    """Class -> one of it, made when it is first asked for."""
    made = {models.TransformerConfig: tiny.config(), type(world["tokenizer"]): world["tokenizer"]}

    def instance(cls):
        if cls not in made:
            positional, named = CONSTRUCTORS[cls](world)
            made[cls] = cls(*positional, **named)
        return made[cls]

    return instance


# ---- the tests --------------------------------------------------------------------------------------------------


def test_what_has_no_kwargs_is_refused_by_its_signature():
    assert len(WITHOUT) > 100
    for name in WITHOUT:
        one, _ = PUBLIC[name]
        try:
            signature = inspect.signature(one)
        except ValueError:  # an error: a message, no keywords
            with pytest.raises(TypeError):
                one(**{UNKNOWN: None})
            continue
        with pytest.raises(TypeError, match=UNKNOWN):
            signature.bind_partial(**{UNKNOWN: None})


@pytest.mark.parametrize("name", WITH_KEYWORDS)
def test_what_has_kwargs_refuses_an_unknown_one_by_name(name, world, instances, request):
    function, cls = PUBLIC[name]
    if name.rpartition(".")[2] in NOT_CALLED_BY_USERS:
        return
    if cls is None:
        assert function in CONSTRUCTORS, f"{name} takes **kwargs: say in CONSTRUCTORS how it is called"
        positional, named = CONSTRUCTORS[function](world)
    else:
        method = name.rpartition(".")[2]
        assert method in METHODS, f"{name} takes **kwargs: say in METHODS how it is called"
        positional, named = METHODS[method], {}
        if cls.__module__.startswith("tfxformer.runtime"):
            function = getattr(request.getfixturevalue("files")[cls.__name__], method)
        elif not inspect.ismethod(function):  # a classmethod is bound already
            made = instances(cls if cls is not tasks.Task else tasks.TextClassifier)
            function = getattr(made, method)
    for value in (1, None):  # what is given is said, None too
        with pytest.raises(TypeError, match=UNKNOWN):
            function(*positional, **named, **{UNKNOWN: value})


@pytest.fixture(scope="module")
def files(world):
    """Runtimes without a file: what they refuse, they refuse before they read anything of one."""
    from tfxformer.export import LiteRTGenerator, LiteRTModel

    model, generator = LiteRTModel.__new__(LiteRTModel), LiteRTGenerator.__new__(LiteRTGenerator)
    model.__dict__.update(task="text-classification", tokenizer=object(), path="model.tflite")
    generator.__dict__.update(tokenizer=world["tokenizer"], path="model.tflite")
    return {"LiteRTModel": model, "LiteRTGenerator": generator}


def test_the_options_of_a_file_are_those_of_its_task(files):
    model = files["LiteRTModel"]
    others = {
        "text-classification": "top_k",
        "token-classification": "n_best",
        "question-answering": "top_k",
        "masked-lm": "overlap",
        "text-embedding": "top_k",
    }
    for task, option in others.items():
        model.task = task
        with pytest.raises(TypeError, match=f"LiteRTModel.predict for {task} takes no '{option}'"):
            model.predict(["good"], **{option: 1})
    model.task = "question-answering"
    with pytest.raises(TypeError, match=r"'n_best_size' \(did you mean n_best\?\)"):
        model.predict([("a", "b")], n_best_size=2)


class Mine(tasks.TextClassifier):
    """As users write subclasses."""

    def __init__(self, *args, **kwargs):
        kwargs.pop("own", None)
        super().__init__(*args, **kwargs)


class MyDense(layers.Dense):
    """The same of a layer."""

    def __init__(self, units, **kwargs):
        kwargs.pop("own", None)
        super().__init__(units, **kwargs)


def test_a_subclass_of_a_users_takes_what_it_likes_and_hands_on_what_is_known(encoder):
    assert Mine(encoder, ["a", "b"], own=3, sequence_length=8).sequence_length == 8
    assert MyDense(3, own=3, name="mine").name == "mine"
    with pytest.raises(TypeError, match=f"Mine takes no '{UNKNOWN}'"):
        Mine(encoder, ["a", "b"], **{UNKNOWN: 1})
    with pytest.raises((TypeError, ValueError), match=UNKNOWN):  # Keras' own for a layer
        MyDense(3, **{UNKNOWN: 1})


def commands():
    click = typer.main.get_command(app)
    return sorted(click.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_refuses_an_unknown_option(command):
    result = CliRunner().invoke(app, [command, f"--{UNKNOWN}", "1"])
    assert result.exit_code == 2 and f"--{UNKNOWN}" in result.output
