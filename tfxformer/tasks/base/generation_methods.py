"""What a task that writes texts has besides: its checkpoint's settings, and the methods that generate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tfxformer import generation
from tfxformer.arguments.keywords import checked
from tfxformer.checkpoints.generation_settings import (
    GENERATION_FILE,
    older_generation_config,
    read_generation_config,
)
from tfxformer.files import write_json
from tfxformer.generation import Beams, Sampler
from tfxformer.generation.checkpoint_sampler import checkpoint_sampler
from tfxformer.generation.samplers import read_sampler
from tfxformer.keras_files import folder_of_first_process
from tfxformer.tasks.base import generating

DEFAULT_TEXT, DEFAULT_ANSWER = 128, 256  # new tokens, where neither caller nor checkpoint says how many


class GenerationMethods:
    """A part of a task that writes: what has `step`, `new_cache`, a tokenizer and a `generation_config`.

    Attributes:
        generation_config: `generation.GenerationConfig`; assign another one to change how the model generates.
    """

    @classmethod
    def arguments_in(cls, folder):
        settings = read_generation_config(folder)
        return {} if settings is None else {"generation_config": settings}

    @classmethod
    def arguments_from(cls, reference, arguments):
        return {"generation_config": older_generation_config(reference), **super().arguments_from(reference, arguments)}

    def save_pretrained(self, folder, **kwargs) -> Path:
        """See `Task.save_pretrained`; with generation_config.json, as it was read and has been changed since."""
        with folder_of_first_process(folder, (GENERATION_FILE,)) as new:
            super().save_pretrained(new, **kwargs)
            if settings := self.generation_config.to_dict():
                write_json(new / GENERATION_FILE, settings, indent=2)
        return Path(folder).expanduser()

    def get_config(self):
        return {**super().get_config(), "generation_config": self.generation_config.to_dict()}

    # ---- generation -------------------------------------------------------------------------------------------

    def read_prompts(self, prompts) -> tuple[list[list[int]], dict]:
        """What the decoder begins with, lists of ids, and what `generation.generate` is told besides."""
        return generating.read_prompts(self.tokenizer, prompts), {}

    def settings_of_call(self, settings):
        """How one call generates, of what its checkpoint or its caller says."""
        return settings

    def default_sampler(self) -> Sampler | Beams:
        """How the checkpoint wants tokens drawn: `generate(prompts, sampler=lm.default_sampler())`.

        By its generation_config.json, read as transformers does; greedy where it draws none by chance.

        Raises:
            ValueError: for a way to draw that there is no sampler for.
        """
        return checkpoint_sampler(self.generation_config)

    @checked(to=generation.generate)
    def generate(
        self,
        prompts,
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        sampler: Sampler | Beams | None = None,
        stop=None,
        num_return_sequences: int = 1,
        generation_config=None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        **options,
    ) -> list[str]:
        """Continues prompts: the new text only, up to an end token, a stop, or `max_new_tokens`.

        What the checkpoint says in `generation_config` counts, but for how tokens are drawn: see `default_sampler`.

        Args:
            prompts: list of texts, or of lists of ids, of any lengths.
            max_new_tokens: int; None for what the checkpoint says, else 128, as far as the context reaches.
            temperature, top_k, top_p, min_p: draw tokens by chance, the limits in this order (see `generation.TopK`,
                `TopP` and `MinP`); temperature 1 where a limit alone is given. None of them takes the most probable
                token, as temperature 0 does.
            sampler: in their place a value of `generation`: `TopP(0.9)`, `Typical(0.9)`, `Beams(4)`, ...
            stop: strings, or ids of tokens, at the first of which a text ends, without it; besides the checkpoint's.
            num_return_sequences: int, continuations of each prompt, one after the other in the result.
            generation_config: `generation.GenerationConfig` for this call in place of the model's.
            batch_size: int, prompts that are continued together, those of like lengths; None for all at once.
            verbose: 1 or "auto" for a progress bar over them.
            options: of `generation.generate`: seed, processors (a `RepetitionPenalty` counts instead of the
                checkpoint's), speculation, cache_length, jit_compile.

        Raises:
            TypeError, ValueError: for a prompt that is empty without a begin token, or does not fit into the context
                with the new tokens; for a stop that the tokenizer cannot write; for a number out of its range, and
                for one beside a sampler.
        """
        options["sampler"] = read_sampler(sampler, temperature, top_k, top_p, min_p)
        request = generating.Request(prompts, max_new_tokens, DEFAULT_TEXT, stop, generation_config, options)
        return generating.generate(self, request, num_return_sequences, batch_size, verbose)

    @checked(to=generation.stream)
    def stream(
        self,
        prompt,
        max_new_tokens: int | None = None,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        sampler: Sampler | None = None,
        stop=None,
        generation_config=None,
        **options,
    ) -> Iterator[str]:
        """Continues one prompt piece by piece; together the pieces are the text of `generate`.

        Args:
            prompt: a text, or a list of ids.
            others: as `generate` has them; `piece_length`, the tokens of a piece.

        Returns:
            an iterator of str; what is wrong with the arguments is said at once, not at the first piece.
        """
        options["sampler"] = read_sampler(sampler, temperature, top_k, top_p, min_p)
        request = generating.Request(prompt, max_new_tokens, DEFAULT_TEXT, stop, generation_config, options)
        return generating.stream(self, request)


class ChatMethods(GenerationMethods):
    """A part of `CausalLM`: `GenerationMethods`, and conversations."""

    def chat(self, messages, max_new_tokens: int | None = None, *, stop=None, **options) -> str:
        """The assistant's next message in a conversation; it ends with the tokenizer's end token too.

        Args:
            messages: list of {"role": "system", "user" or "assistant", "content": text}.
            max_new_tokens: int; None for what the checkpoint says, else 256, as far as the context reaches.
            stop: see `generate`.
            options: as `generate` has them; all others are those of `chat_prompt`.

        Raises:
            ValueError: for a tokenizer without chat template or end token; see `text.Tokenizer.apply_chat_template`.
        """
        chosen, variables = generating.split_options(options)
        numbers = [chosen.pop(name, None) for name in generating.NUMBERS]
        chosen["sampler"] = read_sampler(chosen.get("sampler"), *numbers)
        prompt = self.chat_prompt(messages, **variables)
        stops = [stop] if isinstance(stop, (str, int)) else list(stop or ())
        stops.append(self.tokenizer.eos_id)
        settings = chosen.pop("generation_config", None)
        request = generating.Request([prompt], max_new_tokens, DEFAULT_ANSWER, stops, settings, chosen)
        return generating.generate(self, request)[0]

    def chat_prompt(self, messages, **variables) -> list[int]:
        """The ids after which the assistant's next message comes.

        `stream(lm.chat_prompt(messages), stop=lm.tokenizer.eos_id)` streams it up to where `chat` ends it.

        Args:
            messages: see `chat`.
            variables: template, tools, documents, and what else the template reads, such as `enable_thinking=False`:
                see `text.Tokenizer.apply_chat_template`.
        """
        tokenizer = self._tokenizer()
        if tokenizer.eos_id is None:
            raise ValueError("The tokenizer has no end token, so no message would ever end: it is not one for chats.")
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **variables)
        return tokenizer.ids([rendered], special_tokens=False)[0]  # the template writes the special tokens
