"""EuroBERT (Boizard et al., 2025, arXiv:2503.05500): a Llama whose tokens see all others, to embed and to tag texts."""

from dataclasses import replace

from tfxformer.checkpoints.families.decoders.llama import llama
from tfxformer.checkpoints.families.decoders.shared import heads_rule, padding_rule
from tfxformer.checkpoints.family import Head
from tfxformer.checkpoints.rope import rope_rule

FAMILY = replace(
    llama.FAMILY,
    name="eurobert",
    architecture="EuroBertModel",
    keys=llama.sizes(128256, 12, 768, 12, 3072, 8192, epsilon=1e-5),
    fixed={**llama.FIXED, "decoder.attention.causal": False},
    rules=(heads_rule(None, None, 12, 768), rope_rule(8192), padding_rule(pad=128001, eos=128001)),
    heads={"token-classification": Head("EuroBertForTokenClassification", {"token_classifier/output": "classifier"})},
    other_heads=("lm_head", "dense", "classifier"),
)
