// Models that read: labels, tags, answers, vectors and masked words of texts, as LiteRTModel.predict gives them.
import { spansOf, splitAtSpaces, wordsOf } from "./entities.js";
import { argmax, ranking, softmax } from "./numbers.js";
import { padded } from "./tokenizer.js";
import { bestAnswers, contextWindows, OUTSIDE, placesOfWords, wordWindows } from "./windows.js";

export class Reader {
  constructor(runtime, tokenizer, facts) {
    Object.assign(this, { runtime, tokenizer, facts, task: facts.task, labels: facts.labels });
    this.lengths = facts.lengths; // [[S, signature], ...], ascending
    this.sequenceLength = facts.lengths[facts.lengths.length - 1][0];
  }

  // What the task makes of one text (or two): see the method of each task.
  predict(text, second = null, options = {}) {
    const methods = {
      "text-classification": () => this.classify(text, second),
      "text-embedding": () => this.embed(text, options),
      "token-classification": () => this.tag(text),
      "question-answering": () => this.answer(text, second, options),
      "masked-lm": () => this.fillMasks(text, options),
    };
    return methods[this.task]();
  }

  // Float32Array of probabilities in the order of the labels; of a regression the scores.
  async classify(text, second = null) {
    const output = this.facts.problem_type === "regression" ? "logits" : "probabilities";
    return (await this.run(this.encode(text, second)))[output];
  }

  // A vector. prompt: its name, for files that have prompts.
  async embed(text, { prompt = this.facts.default_prompt_name } = {}) {
    const front = (prompt && this.facts.prompts?.[prompt]) || "";
    const row = this.encode(front + text);
    if (this.facts.include_prompt === false) {
      const ids = front ? this.tokenizer.ids(front) : [];
      const count = ids.length - (ids.length && this.tokenizer.special.has(ids[ids.length - 1]) ? 1 : 0);
      row.pooled = row.ids.map((_, index) => (front && index < count ? 0 : 1));
    }
    return (await this.run(row)).embedding;
  }

  // A label for each word of a list, or of a text split at spaces.
  async tag(words) {
    const list = typeof words === "string" ? splitAtSpaces(words) : words;
    return (await this.wordScores(list)).map((scores) => (scores === null ? this.outside : this.labels[argmax(scores)]));
  }

  // [{text, label, score, start, end}] of a text, in UTF-16 units.
  async entities(text) {
    const words = wordsOf(text);
    const scores = (await this.wordScores(words.map((word) => word.text))).map((one) => one && softmax(one));
    const labels = scores.map((one) => (one === null ? OUTSIDE : this.labels[argmax(one)]));
    return spansOf(labels).map(([label, first, end]) => {
      const best = scores.slice(first, end).filter((one) => one !== null).map((one) => Math.max(...one));
      const [start, stop] = [words[first].start, words[end - 1].end];
      const score = best.reduce((a, b) => a + b, 0) / best.length;
      return { text: text.slice(start, stop), label, score, start, end: stop };
    });
  }

  get outside() {
    return this.labels.includes(OUTSIDE) ? OUTSIDE : null;
  }

  // The logits of each word's first piece; null for a word without a piece.
  async wordScores(words) {
    if (!words.length) return [];
    const windows = wordWindows(this.tokenizer, words, this.sequenceLength);
    const logits = [];
    for (const window of windows) logits.push((await this.run(window)).logits);
    const count = this.labels.length;
    return placesOfWords(windows, words.length).map(
      (place) => place && Array.from(logits[place[0]].slice(place[1] * count, (place[1] + 1) * count)),
    );
  }

  // [{text, start, end, score, probability}], best first, in UTF-16 units. options: nBest, maxAnswerLength.
  async answer(question, context, options = {}) {
    const windows = contextWindows(this.tokenizer, question, context, this.sequenceLength);
    const logits = [];
    for (const window of windows) logits.push((await this.run(window)).logits);
    return bestAnswers(windows, logits, context, options);
  }

  // For each mask [{token, id, probability}], best first.
  async fillMasks(text, { topK = 5 } = {}) {
    const row = this.encode(text);
    const { logits } = await this.run(row);
    const width = logits.length / this.lengthOf(row)[0];
    const masks = row.ids.map((id, index) => (id === this.tokenizer.facts.mask_id ? index : -1)).filter((at) => at >= 0);
    return masks.map((mask) => {
      const values = logits.slice(mask * width, mask * width + Math.min(width, this.tokenizer.facts.vocabulary_size));
      const shares = softmax(values);
      const decoded = (id) => this.tokenizer.backend.decode([id], { skip_special_tokens: false }).trim();
      return ranking(values, topK).map((id) => ({ token: decoded(id), id, probability: shares[id] }));
    });
  }

  // Ids, cut to what the file reads: {ids, segments, cut}.
  encode(text, second = null) {
    return this.tokenizer.encode(text, second, Math.min(this.sequenceLength, this.facts.max_length ?? Infinity));
  }

  lengthOf(row) {
    return this.lengths.find(([length]) => length >= row.ids.length);
  }

  // The outputs of the smallest signature that holds a row.
  run(row) {
    const [length, signature] = this.lengthOf(row);
    const arrays = padded(row, length, this.tokenizer.facts.padding_id ?? 0);
    arrays.pooled_mask = row.pooled ? [...row.pooled, ...new Array(length - row.pooled.length).fill(0)] : arrays.padding_mask;
    return this.runtime.run(signature, arrays);
  }
}
