"""Keras finds our classes when it opens a file: `import tfxformer` alone is enough, and stays cheap.

A `.keras` file names its classes ("tfxformer>TextClassifier"), and Keras looks the names up among those registered so
far; for other packages than its own it imports nothing. The real classes register themselves when their modules are
imported, which costs seconds. Until then a stand-in of the same name imports them when Keras makes the first object.
"""

from __future__ import annotations

import contextlib
import importlib
import sys

PACKAGE = "tfxformer"
# Every name that the package registers; a test compares them with the registry.
CLASSES = (
    "Adafactor", "AdamW", "AlibiScores", "Attention", "BertPretraining", "BottleneckBlock", "CausalConvolution",
    "CausalLM", "ClassificationHead", "ConstantSegmentEmbedding", "ContrastiveEmbedder", "Decoder", "DenoisingLM",
    "Dense", "DistanceEmbeddings", "DistanceSinusoids", "DistributedModel", "Dropout", "EmbeddingConvolution",
    "Encoder", "EncoderDecoder", "EntityHead", "FeedForward", "FirstDimensions", "GatedDeltaRule", "GraphForm",
    "HiddenToken", "Lamb", "LayerNormalization", "Lion", "LogitsBias", "LogitsLoss", "LogitsMetric", "MaskBias",
    "MaskPattern", "MaskedLM", "MaskedLMTransform", "MultiTask", "PermutationLM", "Perplexity", "Pooling",
    "PositionEmbedding", "QuestionAnswering", "RMSNormalization", "RelativeScores", "RelativeTerms",
    "ReplacedTokenAccuracy", "ReplacedTokenDetection", "ReplacedTokenHead", "ReplacedTokenLoss", "RotaryPositions",
    "SGD", "ScaleAndShift", "Scaled", "Seq2SeqLM", "ShortConvolution", "SmoothedCrossEntropy", "SpanLoss",
    "TextClassifier", "TextEmbedder", "TokenClassifier", "TokenEmbedding", "TransformerBlock", "UnitLength",
    "WarmupCosine", "WarmupInverseSqrt", "WarmupLinear", "WarmupPolynomial", "WarmupStableDecay",
)  # fmt: skip
# Names of earlier versions -> what reads their files.
RENAMED = {"DecoderBlock": "TransformerBlock", "EncoderBlock": "TransformerBlock", "Numerics": "GraphForm"}
FUNCTIONS = ("span_accuracy",)


def announce() -> None:
    """Registers the stand-ins with Keras: now where it is imported, else once it is."""
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, _KerasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    saving = sys.modules["keras"].saving
    for names, stand_in in (((*CLASSES, *RENAMED), _class), (FUNCTIONS, _function)):
        for name in names:
            if f"{PACKAGE}>{name}" not in saving.get_custom_objects():
                saving.register_keras_serializable(PACKAGE, name)(stand_in(name))


def _real(name: str):
    """What is registered under a name once the modules that register are imported."""
    name = RENAMED.get(name, name)
    for module in ("training", "tasks"):  # tasks import layers and models
        importlib.import_module(f"{PACKAGE}.{module}")
    # From the registry itself: a custom object scope may still hold the stand-in.
    return sys.modules["keras"].saving.get_custom_objects()[f"{PACKAGE}>{name}"]


def _class(name: str) -> type:
    def from_config(config, custom_objects=None):
        return _real(name).from_config(config)

    def get_config(self):  # Keras registers only classes that have one
        raise NotImplementedError(f"This is a stand-in of {PACKAGE}'s {name}, of which no object is made.")

    return type(name, (), {"from_config": staticmethod(from_config), "get_config": get_config})


def _function(name: str):
    def function(*args, **kwargs):
        return _real(name)(*args, **kwargs)

    function.__name__ = name
    return function


class _KerasFinder:
    """Lets the stand-ins be registered as soon as somebody has imported Keras; finds nothing itself."""

    def find_spec(self, name, path=None, target=None):
        """The other finders' spec of Keras, whose loader tells us when it is done; None for all other modules."""
        if name != "keras":
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or not hasattr(spec.loader, "exec_module"):
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            with contextlib.suppress(ValueError):  # another thread may have been first
                sys.meta_path.remove(self)
            _register()

        spec.loader.exec_module = exec_module
        return spec
