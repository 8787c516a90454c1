// Words of a text, and the entities that labels make of them; see tfxformer.data.targets.words.
import { OUTSIDE } from "./windows.js";

const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"; // Python's
const UNSPACED = "\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\u{20000}-\\u{3134f}";
const WORD = new RegExp(`[${UNSPACED}]|(?:(?![${UNSPACED}])[\\p{L}\\p{N}_])+|[^\\p{L}\\p{N}_${SPACE}]`, "gu");

// [{text, start, end}] in UTF-16 units: runs of letters and digits, every other sign by itself.
export function wordsOf(text) {
  return [...text.matchAll(WORD)].map(({ 0: word, index }) => ({ text: word, start: index, end: index + word.length }));
}

export function splitAtSpaces(text) {
  return text.split(new RegExp(`[${SPACE}]+`, "u")).filter((word) => word);
}

// Entities of labels (BIO, IOB, IOBES, BILOU, or plain names): [[type, first word, word after the last], ...].
export function spansOf(labels) {
  const found = [];
  let start = 0;
  let before = OUTSIDE;
  [...tags(labels), OUTSIDE].forEach((tag, index) => {
    const inside = before !== OUTSIDE;
    const goesOn = inside && !"ESLU".includes(before[0]) && !"BSUO".includes(tag[0]) && tag.slice(2) === before.slice(2);
    if (inside && !goesOn) found.push([before.slice(2) || "_", start, index]);
    if (!goesOn) start = index;
    before = tag;
  });
  return found;
}

function tags(labels) {
  if (labels.every((label) => label === OUTSIDE || /^[BIESLU]-/.test(label))) return labels;
  return labels.map((label, i) => {
    if (label === OUTSIDE) return label;
    return `${label === (labels[i - 1] ?? OUTSIDE) ? "I" : "B"}-${label}`;
  });
}
