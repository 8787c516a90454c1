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
    const found = parts.flatMap(([part, first, end]) => [...normalizer(part)].map((one) => [one, first, end]));
    if (found.map(([one]) => one).join("") === whole) return found;
  }
  // A normalizer that reads further than a character: what becomes of each word.
  const words = split(text, text.match(/\s+|\S+/gu) ?? []);
  return words.flatMap(([word, first, end]) => [...normalizer(word)].map((one) => [one, first, end]));
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
  const mark = "\u2581";
  const found = [];
  let place = 0;
  const skip = () => {
    while (place < characters.length && (/\s/u.test(characters[place][0]) || characters[place][0] === mark)) place += 1;
  };
  tokens.forEach((token, index) => {
    if (token.startsWith(mark) || index === 0) skip();
    const piece = [...token.replaceAll(mark, "").replace("</w>", "")];
    const fits = piece.every((one, at) => characters[place + at]?.[0] === one);
    let count = piece.length;
    if (!fits) {
      const following = [...(tokens[index + 1] ?? "").replaceAll(mark, "").replace("</w>", "")];
      const rest = characters.slice(place).map(([one]) => one);
      const at = following.length ? rest.findIndex((_, from) => from && following.every((one, i) => rest[from + i] === one)) : -1;
      count = at < 0 ? rest.length : at;
      while (count > 1 && /\s|\u2581/u.test(rest[count - 1])) count -= 1;
    }
    found.push(span(characters, place, place + count));
    place += count;
  });
  return found;
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
      while (first < last - 1 && /\s/u.test(bytes[first]?.[0] ?? "")) first += 1;
      while (last > first + 1 && /\s/u.test(bytes[last - 1]?.[0] ?? "")) last -= 1;
    }
    place = end;
    return span(bytes, first, last);
  });
}

function span(characters, first, end) {
  if (end <= first || first >= characters.length) return [0, 0];
  return [characters[first][1], characters[Math.min(end, characters.length) - 1][2]];
}
