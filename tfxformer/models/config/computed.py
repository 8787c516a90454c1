"""Which values of a config's switches each model computes: any other is refused when the model is made."""

from __future__ import annotations

from functools import reduce

# Path of a switch -> the values that the model computes. What is not listed it computes in all of its values.
ENCODER = {
    "source_vocabulary_size": (None,),
    "encoder.norm.positions": (True,),
    "encoder.convolution": (None,),
    "encoder.delta_rule": (None,),
    "heads.logit_scale": (1.0,),
    "heads.logit_soft_cap": (None,),
    "heads.logits_bias": (False,),
}
DECODER = {
    "source_vocabulary_size": (None,),
    "decoder.bottleneck": (None,),
    "decoder.embedding_convolution": (None,),
    "embedding_projection_first": (False,),
    "embedding_neighbours": (False,),
    "hidden_token": (False,),
    "decoder.position_mode": ("arange",),
    "decoder.layer_groups": (None,),
    "decoder.layers_per_group": (1,),
    "token_types": (0,),
    "task_types": (0,),
    "heads.pooler": (False,),
    "heads.masked_lm_activation": (None,),
    "heads.masked_lm_transform": (True,),
    "heads.masked_lm_bias": (True,),
    "heads.masked_lm_split": (False,),
    "heads.classifier_reads_pooler": (True,),
    "heads.classifier_pooling": ("cls",),
    "heads.transform": (False,),
    "heads.transform_bias": (True,),
}
ENCODER_DECODER = {
    "encoder.bottleneck": (None,),
    "encoder.embedding_convolution": (None,),
    "decoder.bottleneck": (None,),
    "decoder.embedding_convolution": (None,),
    "embedding_projection_first": (False,),
    "embedding_neighbours": (False,),
    "hidden_token": (False,),
    "encoder.norm.positions": (True,),
    "encoder.convolution": (None,),
    "encoder.delta_rule": (None,),
    "decoder.convolution": (None,),
    "decoder.delta_rule": (None,),
    "encoder.layer_groups": (None,),
    "encoder.layers_per_group": (1,),
    "decoder.position_mode": ("arange",),
    "decoder.layer_groups": (None,),
    "decoder.layers_per_group": (1,),
    "decoder.causal": (True,),
    "embedding_projection": (None, False),
    "output_projection": (False,),
    "token_types": (0,),
    "task_types": (0,),
    "heads.pooler": (False,),
    "heads.masked_lm_transform": (True,),
    "heads.masked_lm_bias": (True,),
    "heads.masked_lm_split": (False,),
    "heads.classifier_reads_pooler": (True,),
    "heads.classifier_pooling": ("cls",),
    "heads.transform": (False,),
    "heads.transform_bias": (True,),
}
MODELS = {  # the stacks of each model, and what it computes
    "Encoder": (("encoder",), ENCODER),
    "Decoder": (("decoder",), DECODER),
    "EncoderDecoder": (("encoder", "decoder"), ENCODER_DECODER),
}


def model_of(config) -> str:
    """The model that computes a config: "Encoder", "Decoder" or "EncoderDecoder"."""
    return next(model for model, (stacks, _) in MODELS.items() if stacks == tuple(config.stacks))


def _named(stacks) -> str:
    return " and ".join({"encoder": "an encoder", "decoder": "a decoder"}[stack] for stack in stacks)


def check_switches(config, model: str) -> None:
    """Refuses a config that says what a model does not compute.

    Args:
        config: TransformerConfig.
        model: "Encoder", "Decoder" or "EncoderDecoder".

    Raises:
        ValueError: naming every such switch, its value, and those that the model computes.
    """
    stacks, computed = MODELS[model]
    if stacks != tuple(config.stacks):
        raise ValueError(
            f"This config has {_named(config.stacks)}, which the {model_of(config)} computes; the {model} is made of "
            f"{_named(stacks)}. tfxformer.build makes the model that a config describes."
        )
    refused = []
    for path, values in computed.items():
        value = reduce(getattr, path.split("."), config)
        if value not in values:
            refused.append(f"{path.replace('.', '__')}={value!r} (it computes {' or '.join(map(repr, values))})")
    if refused:
        raise ValueError(f"The {model} does not compute {', '.join(refused)}: built without, it would answer wrongly.")
