"""Runs a .litertlm bundle in LiteRT-LM; for an environment of its own.

Usage: python litertlm_text.py model.litertlm job.json
job.json: {"prompts": [text, ...], "messages": [text, ...], "tokens": int}
Prints JSON: {"texts": the greedy continuation of each prompt, "answers": that of each message in the bundle's chat
template, "ids": the tokens of each prompt}.
"""

import json
import sys
import tempfile
from pathlib import Path

import litert_lm

GREEDY = litert_lm.SamplerConfig(top_k=1, top_p=1.0, temperature=1.0)


def continuation(engine, prompt, tokens):
    session = engine.create_session(apply_prompt_template=False, max_output_tokens=tokens, sampler_config=GREEDY)
    try:
        session.run_prefill([prompt])
        return session.run_decode().texts[0]
    finally:
        session.close()


def answer(engine, message, tokens):
    with engine.create_conversation(max_output_tokens=tokens, sampler_config=GREEDY) as conversation:
        reply = conversation.send_message(message)
    return "".join(part["text"] for part in reply["content"])


def run(bundle, job):
    with tempfile.TemporaryDirectory() as cache:
        engine = litert_lm.Engine(bundle, backend=litert_lm.Backend.CPU(thread_count=2), cache_dir=cache)
        return {
            "ids": [engine.tokenize(prompt) for prompt in job["prompts"]],
            "texts": [continuation(engine, prompt, job["tokens"]) for prompt in job["prompts"]],
            "answers": [answer(engine, message, job["tokens"]) for message in job["messages"]],
        }


if __name__ == "__main__":
    litert_lm.set_min_log_severity(litert_lm.LogSeverity.ERROR)
    print(json.dumps(run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
