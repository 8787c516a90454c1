// What a checkpoint says of the tokens that may come next; see tfxformer.text.generation.token_rules.

// logits: Float32Array of the next token; written: ids so far; first, end: slots of the first new token and of the end.
export function applyRules(logits, written, first, end, rules) {
  const found = Float32Array.from(logits);
  const ban = (ids) => ids.forEach((id) => id < found.length && (found[id] = -Infinity));
  const ends = rules.eos_token_id ?? [];
  const fresh = written.length - first;
  for (const [ids, bias] of rules.sequence_bias ?? []) if (followed(written, ids)) found[ids.at(-1)] += bias;
  penalize(found, written, rules.repetition_penalty ?? 1);
  ban(repeating(written, rules.no_repeat_ngram_size ?? 0));
  for (const ids of rules.bad_words_ids ?? []) {
    if (!(ids.length === 1 && ends.includes(ids[0])) && followed(written, ids)) ban([ids.at(-1)]);
  }
  if (written.length < (rules.min_length ?? 0) || fresh < (rules.min_new_tokens ?? 0)) ban(ends);
  if (rules.forced_bos_token_id != null && written.length === 1) only(found, [rules.forced_bos_token_id]);
  if (rules.forced_eos_token_id?.length && written.length === end - 1) only(found, rules.forced_eos_token_id);
  if (rules.exponential_decay_length_penalty) lengthen(found, ends, fresh, rules.exponential_decay_length_penalty);
  ban(rules.suppress_tokens ?? []);
  const beginning = first > 1 ? 0 : Number(rules.forced_bos_token_id != null);
  if (fresh === beginning) ban(rules.begin_suppress_tokens ?? []);
  return found;
}

function followed(written, ids) {
  const before = ids.slice(0, -1);
  return before.length <= written.length && before.every((id, i) => written[written.length - before.length + i] === id);
}

function penalize(found, written, penalty) {
  if (penalty === 1) return;
  const by = Math.fround(penalty);
  for (const id of new Set(written)) found[id] = found[id] < 0 ? found[id] * by : found[id] / by;
}

function repeating(written, size) {
  const banned = [];
  for (let start = 0; size && start + size <= written.length; start += 1) {
    if (followed(written, written.slice(start, start + size))) banned.push(written[start + size - 1]);
  }
  return banned;
}

function only(found, ids) {
  found.fill(-Infinity);
  for (const id of ids) found[id] = 0;
}

function lengthen(found, ends, fresh, [start, factor]) {
  const growth = factor ** Math.max(fresh - start, 0) - 1;
  for (const id of ends) if (found[id] > -Infinity) found[id] += Math.abs(found[id]) * growth;
}
