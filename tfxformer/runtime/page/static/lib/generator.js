// Models that write: token by token with the file's cache, as LiteRTGenerator does.
import { applyRules } from "./rules.js";
import { Sampler } from "./sampling.js";
import { Writer } from "./writer.js";

const KEPT = /^(kv_cache_|cross_|source_mask)/; // what one call leaves to the next

export class Generator {
  // Template: that of @huggingface/jinja, for files with a chat template.
  constructor(runtime, tokenizer, facts, Template = null) {
    Object.assign(this, { runtime, tokenizer, facts, Template, task: facts.task });
    this.settings = facts.generation;
    this.hasSource = this.settings.source_lengths.length > 0;
  }

  get hasChat() {
    return this.settings.chat !== null;
  }

  // The text that follows a prompt, the target of a source, or the answer to messages [{role, content}].
  async generate(prompt, options = {}) {
    let text = "";
    for await (const piece of this.stream(prompt, options)) text += piece;
    return text;
  }

  // Pieces of it as they become certain. options: maxNewTokens, temperature, topK, topP, minP, seed; told, called with
  // {promptTokens, promptMs, tokens, ms} as tokens come; signal, an AbortSignal.
  async *stream(prompt, options = {}) {
    const chat = Array.isArray(prompt);
    const ids = this.checked(chat ? this.chatPrompt(prompt) : this.promptIds(prompt));
    const stopIds = [...this.settings.stop_ids, ...(chat ? this.settings.chat_stop_ids : [])];
    const written = this.hasSource ? [this.settings.start] : ids;
    const writer = new Writer(this.tokenizer, written, this.settings.stop_strings);
    for await (const token of this.tokens(ids, stopIds, options)) {
      const piece = writer.feed(token);
      if (piece) yield piece;
      if (writer.stopped) break;
    }
    const rest = writer.end();
    if (rest) yield rest;
  }

  // The ids of new tokens.
  async *tokens(ids, stopIds, { maxNewTokens = null, told = () => {}, signal = null, ...drawing } = {}) {
    const sampler = new Sampler(drawing);
    const written = this.hasSource ? [this.settings.start] : [...ids];
    const [first, end] = [written.length, this.end(written, maxNewTokens)];
    const session = new Session(this.runtime, this.settings);
    const began = performance.now();
    try {
      if (this.hasSource) await session.encode(ids);
      else await session.prefill(ids.slice(0, -1));
      const promptMs = performance.now() - began;
      while (written.length < end && !signal?.aborted) {
        let logits = await session.decode(written[written.length - 1]);
        if (this.settings.rules) logits = applyRules(logits, written, first, end, this.settings.rules);
        const token = sampler.next(logits);
        const ms = performance.now() - began - promptMs;
        told({ promptTokens: ids.length, promptMs, tokens: written.length - first + 1, ms });
        if (stopIds.includes(token)) return;
        written.push(token);
        yield token;
        await breathe();
      }
    } finally {
      session.close();
    }
  }

  promptIds(prompt) {
    if (!this.hasSource) return this.continued(prompt);
    return prompt.trim() ? this.tokenizer.ids(this.settings.source_word + prompt) : [];
  }

  checked(ids) {
    const what = this.hasSource ? "source" : "prompt";
    if (!ids.length) throw new Error(`The ${what} is empty: write a word at least.`);
    const most = this.hasSource ? Math.max(...this.settings.source_lengths) : this.settings.cache_length;
    if (ids.length > most) throw new Error(`The ${what} has ${ids.length} tokens; the file holds ${most}: shorten it.`);
    return ids;
  }

  // Without the end token that some tokenizers write after every text.
  continued(prompt) {
    const { eos_id: end, bos_id: begin } = this.tokenizer.facts;
    let ids = this.tokenizer.ids(prompt);
    if (ids.length > 1 && ids[ids.length - 1] === end) ids = ids.slice(0, -1);
    return !ids.length && begin !== null ? [begin] : ids;
  }

  chatPrompt(messages) {
    const { template, tokens } = this.settings.chat;
    const values = { tools: null, documents: null, ...tokens, messages, add_generation_prompt: true };
    return this.tokenizer.ids(new this.Template(template).render(values), false);
  }

  // The slot at which a text ends unfinished: the last token is chosen but need not be written.
  end(written, maxNewTokens) {
    const room = this.settings.cache_length - written.length + 1;
    let most = maxNewTokens ?? this.settings.max_new_tokens;
    if (most == null) most = this.settings.max_length == null ? room : this.settings.max_length - written.length;
    return written.length + Math.max(1, Math.min(room, most));
  }
}

// The state of one text: how many slots are filled, and the tensors that hold them.
class Session {
  constructor(runtime, settings) {
    Object.assign(this, { runtime, settings, position: 0, kept: new Map() });
    for (const { name } of runtime.info.decode.inputs) {
      if (KEPT.test(name)) this.kept.set(name, runtime.zeros("decode", name));
    }
  }

  async encode(ids) {
    const length = this.settings.source_lengths.find((one) => ids.length <= one);
    const fill = (values) => [...values, ...new Array(length - values.length).fill(0)];
    await this.run(`encode_${length}`, { encoder_token_ids: fill(ids), encoder_padding_mask: fill(ids.map(() => 1)) });
  }

  async prefill(ids) {
    let rest = ids;
    for (const [length, count] of chunks(rest.length, this.position, this.settings)) {
      const tokens = [...rest.slice(0, count), ...new Array(length - count).fill(0)];
      const input_pos = tokens.map((_, index) => this.position + index);
      await this.run(length === 1 ? "decode" : `prefill_${length}`, { tokens, input_pos });
      rest = rest.slice(count);
      this.position += count;
      await breathe();
    }
  }

  async decode(token) {
    const slots = this.settings.slots.find((one) => this.position < one);
    const name = slots ? `decode_${slots}` : "decode";
    const logits = await this.run(name, { tokens: [token], input_pos: [this.position] });
    this.position += 1;
    return logits;
  }

  async run(signature, arrays) {
    const { runtime, kept } = this;
    const inputs = {};
    for (const { name } of runtime.info[signature].inputs) {
      inputs[name] = kept.get(name) ?? runtime.tensor(signature, name, arrays[name]);
    }
    const outputs = await runtime.model.run(signature, inputs);
    let logits = null;
    for (const [name, tensor] of Object.entries(inputs)) if (!kept.has(name)) tensor.delete();
    for (const [name, tensor] of Object.entries(outputs)) {
      if (name === "logits") logits = (await tensor.data()).slice();
      if (!KEPT.test(name)) {
        tensor.delete();
        continue;
      }
      kept.get(name)?.delete();
      kept.set(name, tensor);
    }
    return logits;
  }

  close() {
    for (const tensor of this.kept.values()) tensor.delete();
    this.kept.clear();
  }
}

// The calls that write `count` tokens from a slot on: [tokens of the signature, those that are real]. None goes past
// the end of the cache, and of a model with a state none is padded.
export function* chunks(count, position, { prefill_lengths: lengths, cache_length: most, has_states: whole }) {
  while (count) {
    const fitting = lengths.filter((length) => position + length <= most);
    const filled = fitting.filter((length) => length <= count);
    const padded = fitting.filter((length) => !whole && count < length && length <= Math.max(2 * count, lengths[0]));
    const length = padded[0] ?? filled[filled.length - 1] ?? 1;
    const used = Math.min(length, count);
    yield [length, used];
    position += used;
    count -= used;
  }
}

// Lets the page draw, and read the keyboard, between two calls.
function breathe() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => resolve(port1.close());
    port2.postMessage(null);
  });
}
