"""One page per reference family; `FAMILIES` is the list of them."""

from __future__ import annotations

from collections.abc import Mapping

from tfxformer.checkpoints.families.decoders.gpt import (
    bloom,
    falcon,
    gpt2,
    gpt_bigcode,
    gpt_neo,
    gpt_neox,
    gptj,
    opt,
    phi,
    stablelm,
    starcoder2,
)
from tfxformer.checkpoints.families.decoders.hybrid import lfm2, qwen3_5
from tfxformer.checkpoints.families.decoders.llama import (
    gemma,
    gemma3,
    granite,
    llama,
    neighbours,
    olmo,
    phi3,
    qwen,
    seed_oss,
    smollm,
)
from tfxformer.checkpoints.families.encoder_decoders import bart, t5
from tfxformer.checkpoints.families.encoders.bert import albert, bert, distilbert, electra, mobilebert, roberta
from tfxformer.checkpoints.families.encoders.relative import deberta, deberta_v1, mpnet, xlnet
from tfxformer.checkpoints.families.encoders.rotary import eurobert, gte, modernbert, nomic_bert
from tfxformer.checkpoints.families.nested import Nested
from tfxformer.checkpoints.family import Family
from tfxformer.checkpoints.files.errors import CheckpointError

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        bert.FAMILY,
        roberta.FAMILY,
        roberta.XLM_FAMILY,
        roberta.CAMEMBERT,
        roberta.DATA2VEC,
        bert.ERNIE,
        distilbert.FAMILY,
        albert.FAMILY,
        electra.FAMILY,
        mobilebert.FAMILY,
        mpnet.FAMILY,
        modernbert.FAMILY,
        deberta.FAMILY,
        deberta_v1.FAMILY,
        xlnet.FAMILY,
        nomic_bert.FAMILY,
        gte.FAMILY,
        gte.NEW,
        eurobert.FAMILY,
        gpt2.FAMILY,
        gpt_neox.FAMILY,
        opt.FAMILY,
        bloom.FAMILY,
        phi.FAMILY,
        gpt_neo.FAMILY,
        falcon.FAMILY,
        starcoder2.FAMILY,
        gptj.FAMILY,
        gptj.CODEGEN,
        gpt_bigcode.FAMILY,
        stablelm.FAMILY,
        llama.FAMILY,
        llama.MISTRAL,
        qwen.FAMILY,
        qwen.QWEN3,
        gemma.FAMILY,
        gemma.GEMMA2,
        gemma3.FAMILY,
        smollm.FAMILY,
        phi3.FAMILY,
        olmo.OLMO,
        olmo.OLMO2,
        olmo.OLMO3,
        olmo.EXAONE4,
        granite.FAMILY,
        seed_oss.FAMILY,
        lfm2.FAMILY,
        qwen3_5.FAMILY,
        neighbours.HELIUM,
        neighbours.ERNIE,
        neighbours.GLM4,
        neighbours.COHERE2,
        t5.FAMILY,
        t5.MT5,
        t5.UMT5,
        bart.FAMILY,
        bart.PLBART,
        bart.MBART,
        bart.PEGASUS,
        bart.MARIAN,
        bart.M2M_100,
        bart.BLENDERBOT,
        bart.BLENDERBOT_SMALL,
    )
}
NESTED: dict[str, Nested] = {nested.name: nested for nested in (gemma3.WITH_IMAGES, qwen3_5.WITH_IMAGES)}


def text_part(reference: Mapping, tensors: Mapping) -> tuple[Mapping, Mapping]:
    """config.json and tensors of the text model in a checkpoint: itself, or what stands inside of a larger one."""
    nested = NESTED.get(reference.get("model_type")) if isinstance(reference.get("model_type"), str) else None
    return (reference, tensors) if nested is None else (nested.config(reference), nested.tensors(tensors))


def family_of(model_type) -> Family:
    """The page of a config.json's `model_type`.

    Raises:
        CheckpointError: for an unknown one.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            f"config.json says model_type={model_type!r}; tfxformer reads {', '.join([*FAMILIES, *NESTED])}. "
            "A new family is one page in tfxformer/checkpoints/families."
        )
    return FAMILIES[model_type]
