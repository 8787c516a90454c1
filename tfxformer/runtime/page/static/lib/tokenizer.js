// Texts to ids as tfxformer's Tokenizer writes them: special tokens, cuts and padding are those of Python.
import { Tokenizer as Backend } from "@huggingface/tokenizers";

import { align } from "./offsets.js";

const CHINESE = /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

export class Tokenizer {
  // content: tokenizer.json; facts: what Python says of it (see facts.py)
  constructor(content, facts) {
    this.facts = facts;
    this.content = content;
    const config = { clean_up_tokenization_spaces: facts.cleans_spaces };
    this.backend = new Backend(adapted(content), config);
    this.wordBackend = facts.glues_words ? new Backend(adapted(content, true), config) : this.backend;
    for (const backend of new Set([this.backend, this.wordBackend])) adjust(backend, facts);
    this.special = new Set(facts.special_ids);
  }

  // The ids of a text alone, and the tokens that they are: no special tokens around it, none cut.
  pieces(text, backend = this.backend) {
    if (text === "") return { ids: [], tokens: [] };
    const { ids, tokens } = backend.encode(text, { add_special_tokens: false });
    const known = ids.map((id, index) => [id ?? this.facts.unknown_id, tokens[index]]).filter(([id]) => id != null);
    return { ids: known.map(([id]) => id), tokens: known.map(([, token]) => token) };
  }

  ids(text, specialTokens = true) {
    const { ids } = this.pieces(text);
    return specialTokens ? this.around(ids, null).ids : ids;
  }

  // Ids of words one after another, and of which word each is.
  words(words) {
    const found = { ids: [], words: [] };
    words.forEach((word, index) => {
      for (const id of this.pieces(word, this.wordBackend).ids) {
        found.ids.push(id);
        found.words.push(index);
      }
    });
    return found;
  }

  // Ids and their places in the text: offsets[i] is [first, end), in UTF-16 units.
  withOffsets(text) {
    const { ids, tokens } = this.pieces(text);
    return { ids, offsets: align(text, tokens, this.backend, this.facts) };
  }

  room(length, paired) {
    const template = paired ? this.facts.pair : this.facts.single;
    return length - template.filter((part) => typeof part !== "string").length;
  }

  // A text, or two, as ids of at most `length`, special ones included.
  encode(text, pair, length) {
    let first = this.pieces(text).ids;
    let second = pair == null ? null : this.pieces(pair).ids;
    const room = this.room(length, second !== null);
    const counted = first.length + (second?.length ?? 0);
    if (second === null) first = this.cut(first, room);
    else [first, second] = this.cutLonger(first, second, room);
    return { ...this.around(first, second), cut: counted > first.length + (second?.length ?? 0) };
  }

  cut(ids, room) {
    if (ids.length <= room) return ids;
    return this.facts.truncation_side === "left" ? ids.slice(ids.length - room) : ids.slice(0, room);
  }

  // Of two texts that have no room together, the longer one loses tokens.
  cutLonger(first, second, room) {
    if (first.length + second.length <= room) return [first, second];
    const swapped = first.length > second.length;
    let [short, long] = [first.length, second.length].sort((a, b) => a - b);
    long = short > room ? short : Math.max(short, room - short);
    if (short + long > room) {
      short = Math.floor(room / 2);
      long = short + (room % 2);
    }
    return swapped ? [this.cut(first, long), this.cut(second, short)] : [this.cut(first, short), this.cut(second, long)];
  }

  // The special tokens around one text or two: ids, segments, and where each comes from (0, 1, or -1 for special ones).
  around(first, second) {
    const found = { ids: [], segments: [], sources: [] };
    const segments = this.facts.segments;
    for (const part of second === null ? this.facts.single : this.facts.pair) {
      const source = part === "A" ? 0 : part === "B" ? 1 : -1;
      const ids = source === 0 ? first : source === 1 ? second : [part[0]];
      const segment = source < 0 ? part[1] : second === null ? segments.single : segments.pair[source];
      for (const id of ids) {
        found.ids.push(id);
        found.segments.push(segment);
        found.sources.push(source);
      }
    }
    return found;
  }

  decode(ids) {
    if (!ids.length) return "";
    return this.backend.decode(ids, { skip_special_tokens: true });
  }

  token(id) {
    return this.backend.id_to_token(id);
  }
}

// Where BERT's normalizer in JavaScript differs: it lowercases words, whose last sigma becomes another letter, and sees
// no Chinese characters beyond the first 65,536.
function adjust(backend, facts) {
  const { normalizer } = backend;
  if (!normalizer || !(facts.lowercases_letters || facts.spaces_characters)) return;
  backend.normalizer = (text) => {
    const spaced = facts.spaces_characters ? text.replace(CHINESE, " $& ") : text;
    return normalizer(facts.lowercases_letters ? spaced.replaceAll("Σ", "σ") : spaced);
  };
}

// A tokenizer.json whose steps are read as Python reads them: digits are those of all scripts, and ½ and Ⅷ too. With
// `words`, byte-level BPE gives each word its space, as a list of words needs.
function adapted(content, words = false) {
  const cuts = content.pre_tokenizer;
  if (!cuts) return content;
  const step = (one) => {
    const pattern = { Regex: one.individual_digits ? "\\p{N}" : "\\p{N}+" };
    if (one.type === "Digits") return { type: "Split", pattern, behavior: "Isolated", invert: false };
    return one.type === "ByteLevel" && words ? { ...one, add_prefix_space: true } : one;
  };
  const pre_tokenizer = cuts.pretokenizers ? { ...cuts, pretokenizers: cuts.pretokenizers.map(step) } : step(cuts);
  return { ...content, pre_tokenizer };
}

// Rows of a batch: padded to a length, as the inputs of a signature.
export function padded(row, length, paddingId) {
  const fill = (values, empty) => [...values, ...new Array(length - values.length).fill(empty)];
  return {
    token_ids: fill(row.ids, paddingId),
    padding_mask: fill(row.ids.map(() => 1), 0),
    segment_ids: fill(row.segments, 0),
  };
}
