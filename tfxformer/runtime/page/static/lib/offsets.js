// Where in a text its tokens stand: the JavaScript tokenizer says only which tokens there are.

// text, tokens: as the tokenizer wrote them, without special tokens around. [[first, end), ...] in UTF-16 units.
export function align(text, tokens, backend, facts) {
  const added = new Set(facts.added_tokens);
  const found = [];
  let place = 0;
  let group = [];
  for (const token of [...tokens, null]) {
    const literal = added.has(token) && (token !== backend.model.unk_token || text.includes(token, place));
    if (token !== null && !literal) {
      group.push(token);
      continue;
    }
    let end = token === null ? text.length : text.indexOf(token, place);
    if (end < 0) end = text.length;
    found.push(...section(text.slice(place, end), group, backend, facts).map((span) => span.map((at) => at + place)));
    group = [];
    if (token === null) break;
    place = Math.min(end + token.length, text.length);
    found.push([end, place]);
  }
  return found;
}

function section(text, tokens, backend, facts) {
  if (facts.byte_level) return ofBytes(text, tokens, backend, facts);
  const characters = normalized(text, backend.normalizer);
  return facts.kind === "WordPiece" ? ofWords(characters, tokens, backend) : ofPieces(characters, tokens, facts);
}

// The characters of a normalized text, each with the part of the text that it comes from: [character, first, end).
function normalized(text, normalizer) {
  const points = split(text, [...text]);
  if (!normalizer) return points;
  const whole = normalizer(text);
  for (const parts of [points, split(text, text.match(/\P{M}?\p{M}*/gu) ?? [])]) {
    const found = parts.flatMap(([part, first]) => placed([...normalizer(part)], split(part, [...part]), first));
    if (found.map(([one]) => one).join("") === whole) return found;
  }
  // A normalizer that reads further than a character: what becomes of each word.
  const words = split(text, text.match(/\s+|\S+/gu) ?? []);
  return words.flatMap(([word, first, end]) => [...normalizer(word)].map((one) => [one, first, end]));
}

// Characters of a part, each at the place of the one that it was: what becomes of more than there were stands at the last.
function placed(characters, points, offset) {
  return characters.map((one, index) => {
    const [, first, end] = points[Math.min(index, points.length - 1)];
    return [one, first + offset, end + offset];
  });
}

function split(text, parts) {
  let place = 0;
  return parts.filter((part) => part).map((part) => [part, place, (place += part.length)]);
}

// WordPiece: the first piece of each word, and those behind it.
function ofWords(characters, tokens, backend) {
  const text = characters.map(([one]) => one).join("");
  const words = backend.pre_tokenizer ? backend.pre_tokenizer(text) : [text];
  const prefix = backend.model.config?.continuing_subword_prefix ?? "##";
  const unknown = backend.model.unk_token;
  const found = [];
  let place = 0; // in characters
  let next = 0; // in words
  let end = 0; // of the word, in characters
  for (const token of tokens) {
    const continues = token.startsWith(prefix) && token.length > prefix.length && place < end;
    if (!continues) {
      place = end;
      while (place < characters.length && /\s/u.test(characters[place][0])) place += 1;
      end = place + [...(words[next++] ?? "")].length;
    }
    const count = token === unknown ? end - place : [...token].length - (continues ? [...prefix].length : 0);
    found.push(span(characters, place, place + count));
    place += count;
  }
  return found;
}

// SentencePiece-like: a mark stands for the space before a word, and what is unknown reaches up to the next piece.
function ofPieces(characters, tokens, facts) {
  const stream = facts.metaspace ? withMarks(characters, facts.metaspace) : characters;
  const text = stream.map(([one]) => one);
  const startsAt = (token, at) => [...token].every((one, index) => text[at + index] === one);
  const found = [];
  let place = 0;
  tokens.forEach((token, index) => {
    while (!facts.metaspace && place < text.length && /\s/u.test(text[place])) place += 1;
    let count = [...token].length;
    if (!startsAt(token, place)) {
      const next = tokens[index + 1];
      const at = next === undefined ? -1 : text.findIndex((_, from) => from > place && startsAt(next, from));
      count = (at < 0 ? text.length : at) - place;
    }
    found.push(span(stream, place, place + count));
    place += count;
  });
  return found;
}

// The characters as Metaspace hands them on: spaces are marks, and a mark that it puts first is where the first one is.
function withMarks(characters, { mark, prepends, splits_first: words }) {
  const marked = (part) => {
    const found = part.map(([one, first, end]) => [one === " " ? mark : one, first, end]);
    const alone = prepends && found.length && found[0][0] !== mark;
    return alone ? [[mark, found[0][1], found[0][2]], ...found] : found;
  };
  if (!words) return marked(characters);
  const found = [[]];
  for (const one of characters) {
    if (/\s/u.test(one[0])) found.push([]);
    else found.at(-1).push(one);
  }
  return found.flatMap(marked);
}

// Byte-level BPE: each character of a token is a byte of the text.
function ofBytes(text, tokens, backend, facts) {
  const coder = new TextEncoder();
  const bytes = normalized(text, backend.normalizer).flatMap(([one, first, end]) =>
    [...coder.encode(one)].map(() => [one, first, end]),
  );
  if (facts.prefix_space && !text.startsWith(" ") && tokens.length) bytes.unshift([" ", 0, 0]);
  let place = 0;
  return tokens.map((token) => {
    const end = place + [...token].length;
    let first = place;
    let last = end;
    if (facts.trims_offsets) {
      while (first < last && bytes[first]?.[0] === " ") first += 1;
      while (last > first && bytes[last - 1]?.[0] === " ") last -= 1;
    }
    place = end;
    return first === last ? [bytes[end - 1][2], bytes[end - 1][2]] : span(bytes, first, last);
  });
}

function span(characters, first, end) {
  if (end <= first || first >= characters.length) return [0, 0];
  return [characters[first][1], characters[Math.min(end, characters.length) - 1][2]];
}
