// Texts longer than a file reads, in windows that overlap; see tfxformer.data.targets, whose windows these are.
import { softmax } from "./numbers.js";

export const OUTSIDE = "O"; // of words that belong to no entity

export function overlapOf(length) {
  return Math.min(Math.floor(length / 4), 128);
}

// Words in windows of `length` tokens: rows of {ids, segments, words, first, room}.
export function wordWindows(tokenizer, words, length) {
  const whole = tokenizer.words(words);
  const begins = whole.words.map((word, index) => index === 0 || whole.words[index - 1] !== word);
  const size = tokenizer.room(length, false);
  const overlap = overlapOf(length);
  const count = whole.ids.length;
  const windows = [];
  for (let start = 0; start === 0 || start < count - overlap; start += size - overlap) {
    const end = count <= size ? count : Math.min(start + size, count);
    const row = tokenizer.around(whole.ids.slice(start, end), null);
    const before = row.sources.indexOf(0);
    const spread = (values, empty) => row.sources.map((source, i) => (source < 0 ? empty : values[start + i - before]));
    const room = row.sources.map((source, i) => (source < 0 ? 0 : Math.min(i - before, end - start - 1 - (i - before))));
    windows.push({ ...row, words: spread(whole.words, -1), first: spread(begins, false), room });
    if (count <= size) break;
  }
  return windows;
}

// The number of the window and of the column where each word is read: where the shorter of its contexts is longest.
export function placesOfWords(windows, count) {
  const places = new Array(count).fill(null);
  const seen = new Array(count).fill(-1);
  windows.forEach((window, row) => {
    window.words.forEach((word, column) => {
      if (word < 0 || !window.first[column] || window.room[column] <= seen[word]) return;
      places[word] = [row, column];
      seen[word] = window.room[column];
    });
  });
  return places;
}

// A question and its context in windows: rows of {ids, segments, sources, offsets}.
export function contextWindows(tokenizer, question, context, length) {
  const asked = tokenizer.pieces(question).ids;
  const { ids, offsets } = tokenizer.withOffsets(context);
  const size = tokenizer.room(length, true) - asked.length;
  const overlap = overlapOf(length);
  if (size < ids.length && size <= overlap) {
    throw new Error(`The question has ${asked.length} tokens: of ${length} that leaves no room for the context.`);
  }
  return ranges(ids.length, size, size - overlap, tokenizer.facts.truncation_side).map(([start, end]) => {
    const row = tokenizer.around(asked, ids.slice(start, end));
    const before = row.sources.indexOf(1);
    return { ...row, offsets: row.sources.map((source, i) => (source === 1 ? offsets[start + i - before] : null)) };
  });
}

function ranges(count, size, step, side) {
  if (count <= size) return [[0, count]];
  const found = [];
  if (side === "left") {
    for (let end = count; end > 0; end -= step) {
      found.push([Math.max(0, end - size), end]);
      if (end <= size) break;
    }
    return found;
  }
  for (let start = 0; start < count; start += step) {
    found.push([start, Math.min(start + size, count)]);
    if (start + size >= count) break;
  }
  return found;
}

// The best spans of a context over its windows: {text, start, end, score, probability}, best first.
// logits: of each window, Float32Array [S, 2].
export function bestAnswers(windows, logits, context, { nBest = 1, maxAnswerLength = 30 } = {}) {
  const best = new Map();
  windows.forEach((window, row) => {
    window.offsets.forEach((first, i) => {
      if (first === null) return;
      const last = Math.min(i + maxAnswerLength, window.offsets.length);
      for (let j = i; j < last && window.offsets[j] !== null; j += 1) {
        const [start, end] = [first[0], window.offsets[j][1]];
        if (start >= end) continue;
        const score = logits[row][2 * i] + logits[row][2 * j + 1];
        const name = `${start} ${end}`;
        if (!(best.get(name)?.score >= score)) best.set(name, { start, end, score });
      }
    });
  });
  const order = (a, b) => b.score - a.score || a.start - b.start || a.end - b.end;
  const ranked = [...best.values()].sort(order).slice(0, nBest);
  const shares = softmax(ranked.map(({ score }) => score));
  return ranked.map((one, i) => ({ text: context.slice(one.start, one.end), ...one, probability: shares[i] }));
}
