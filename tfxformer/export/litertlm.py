"""The .litertlm bundle: a decoder's file and its tokenizer in one, as the LiteRT-LM runtime opens them.

Format and metadata: https://github.com/google-ai-edge/LiteRT-LM (schema, runtime/proto/llm_metadata.proto).
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from dataclasses import fields
from pathlib import Path

import tfxformer
from tfxformer.arguments import notices
from tfxformer.extras import needs
from tfxformer.files import check_writable, write_bytes
from tfxformer.runtime.format import checksum
from tfxformer.runtime.generation import decoding
from tfxformer.runtime.model_file import open_file
from tfxformer.text import Tokenizer
from tfxformer.text.generation.settings import GenerationConfig
from tfxformer.text.generation.stopping import read_stops
from tfxformer.text.generation.token_rules import TokenRules

# LiteRT-LM hands the content of a message over as a list of parts; the templates of checkpoints expect text, and would
# write that list out as JSON. In front of a template this makes text of the parts.
JOIN_PARTS = """{%- set joined = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set text = namespace(value="") -%}
{%- if message.content is string -%}
{%- set text.value = message.content -%}
{%- else -%}
{%- for part in message.content -%}
{%- set text.value = text.value ~ part.text -%}
{%- endfor -%}
{%- endif -%}
{%- set joined.messages = joined.messages + [{"role": message.role, "content": text.value}] -%}
{%- endfor -%}
{%- set messages = joined.messages -%}
"""
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # of a model without chat training


def bundle_litertlm(
    tflite: str | Path, tokenizer: Tokenizer, path: str | Path, *, chat_template: str | None = None
) -> None:
    """Writes a bundle that LiteRT-LM runs: greedy by default, a template for conversations, tokens that end a text.

    Args:
        tflite: a file written by `export_litert` from a causal language model.
        tokenizer: its tokenizer.
        path: the .litertlm file; missing folders are made.
        chat_template: jinja source; None takes the tokenizer's, or the plain text where it has none.

    Raises:
        ImportError: if litert-lm-builder is not installed. FileNotFoundError: there is no such file.
        ValueError: it is no file of a language model, or not that of this tokenizer. OSError: the bundle cannot be
            written.
    """
    builder = _builder()
    tflite, path = Path(tflite).expanduser(), Path(path).expanduser()
    metadata = _metadata(tflite, tokenizer, chat_template or tokenizer.chat_template or PLAIN_TEMPLATE)
    check_writable(path)
    output = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        described, words = Path(folder, "metadata.pb"), Path(folder, "tokenizer.json")
        described.write_bytes(metadata.SerializeToString())
        words.write_text(_plain_tokenizer(tokenizer), encoding="utf-8")
        bundle = builder.LitertLmFileBuilder()
        author = f"tfxformer {tfxformer.__version__}"
        bundle.add_system_metadata(builder.Metadata(key="Authors", value=author, dtype=builder.DType.STRING))
        digest = builder.Metadata(key="Checksum", value=checksum.PLACEHOLDER, dtype=builder.DType.STRING)
        bundle.add_system_metadata(digest)
        bundle.add_llm_metadata(str(described))
        bundle.add_hf_tokenizer(str(words))
        bundle.add_tflite_model(str(tflite), builder.TfLiteModelType.PREFILL_DECODE)
        bundle.build(output)
    content = bytearray(output.getbuffer())
    checksum.sign(content)
    write_bytes(path, bytes(content))


def _builder():
    needs("A bundle", "litert_lm_builder")
    import litert_lm_builder

    return litert_lm_builder


def _metadata(tflite: Path, tokenizer: Tokenizer, template: str):
    """What LiteRT-LM must know of a file, as its protocol buffer."""
    from litert_lm_builder.runtime.proto import llm_metadata_pb2, llm_model_type_pb2, sampler_params_pb2

    file = open_file(tflite)
    found = file.signatures
    if decoding.DECODE not in found:
        raise ValueError(f"{tflite} has no signature decode, only {', '.join(found)}: it is no language model.")
    decode = found[decoding.DECODE]
    if any(tensor.name.startswith(decoding.STATE) for tensor in decode.inputs):
        raise ValueError(
            f"{tflite} has layers that carry a state from token to token, and LiteRT-LM fills prompts up with "
            "padding, which such a state would have read: no bundle is written. LiteRTGenerator runs the .tflite file."
        )
    length, fewest = decoding.cache_slots(file.own, decode.inputs)
    if fewest < length:
        raise ValueError(
            f"{tflite} has layers that keep {fewest} slots of the cache's {length} only, and LiteRT-LM goes back "
            "in a conversation to what they no longer hold: no bundle is written. Export it with full_cache=True."
        )
    vocabulary = next(tensor for tensor in decode.outputs if tensor.name == "logits").shape[-1]
    if tokenizer.vocabulary_size > vocabulary:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocabulary_size} tokens, {tflite} logits for {vocabulary}: they do not "
            "belong together."
        )
    if tokenizer.eos_id is None:
        raise ValueError("The tokenizer has no end token; LiteRT-LM would never stop. Give it an eos_token.")
    metadata = llm_metadata_pb2.LlmMetadata()
    if begins_with_bos(tokenizer):  # the runtime puts it in front, and the tokenizer adds nothing there
        metadata.start_token.token_ids.ids.append(tokenizer.bos_id)
    settings = GenerationConfig.from_dict(file.own.get("generation_config") or {}, str(tflite))
    stops = read_stops(tokenizer, tokenizer.eos_id, file.own.get("stop_ids") or (), settings.stop_strings)
    for index in stops.ids:
        metadata.stop_tokens.add().token_ids.ids.append(index)
    for text in stops.strings:
        metadata.stop_tokens.add().token_str = text
    _say_what_is_left_out(settings)
    metadata.max_num_tokens = length
    metadata.llm_model_type.CopyFrom(llm_model_type_pb2.LlmModelType(generic_model=llm_model_type_pb2.GenericModel()))
    metadata.jinja_prompt_template = JOIN_PARTS + template
    metadata.sampler_params.type = sampler_params_pb2.SamplerParameters.TOP_P
    metadata.sampler_params.k, metadata.sampler_params.p, metadata.sampler_params.temperature = 1, 1.0, 1.0
    return metadata


def _say_what_is_left_out(settings: GenerationConfig) -> None:
    """Warns of a checkpoint's rules for the next token, which no bundle can hold."""
    plain = TokenRules()
    rules = [one.name for one in fields(plain) if getattr(settings, one.name) != getattr(plain, one.name)]
    if left := [name for name in rules if name != "eos_token_id"]:
        notices.warn(
            f"The checkpoint sets {', '.join(left)}, which LiteRT-LM has no place for: it will generate without. "
            "LiteRTGenerator applies them."
        )


def begins_with_bos(tokenizer: Tokenizer) -> bool:
    """Whether texts begin with the begin token."""
    return tokenizer.bos_id is not None and tokenizer.ids(["a"])[0][:1] == [tokenizer.bos_id]


def _plain_tokenizer(tokenizer: Tokenizer) -> str:
    """tokenizer.json without baked-in lengths."""
    parts = json.loads(tokenizer.tokenizer_json())
    return json.dumps({**parts, "truncation": None, "padding": None}, ensure_ascii=False)
