// The next token: the most probable one, or one drawn by chance; limits as tfxformer.text.generation.sampling has them.
import { argmax, softmax } from "./numbers.js";

export class Sampler {
  // temperature, topK, topP, minP: null for none; without any, or with temperature 0, the most probable token.
  constructor({ temperature = null, topK = null, topP = null, minP = null, seed = null } = {}) {
    const limited = topK !== null || topP !== null || minP !== null;
    this.greedy = temperature === 0 || (temperature === null && !limited);
    Object.assign(this, { temperature: temperature ?? 1, topK, topP, minP });
    this.random = seed === null ? Math.random : generator(seed);
  }

  next(logits) {
    if (this.greedy) return argmax(logits);
    let kept = Array.from(logits, (value, id) => [value / this.temperature, id]).filter(([value]) => value > -Infinity);
    kept.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    if (this.topK) kept = withTies(kept, Math.min(this.topK, kept.length));
    if (this.topP !== null && this.topP < 1) kept = withTies(kept, countTo(kept, this.topP));
    if (this.minP) kept = kept.filter(([value]) => value >= kept[0][0] + Math.log(this.minP));
    const shares = softmax(kept.map(([value]) => value));
    let rest = this.random();
    const chosen = shares.findIndex((share) => (rest -= share) < 0);
    return kept[chosen < 0 ? kept.length - 1 : chosen][1];
  }
}

// The fewest best whose probabilities sum to `share`.
function countTo(kept, share) {
  const shares = softmax(kept.map(([value]) => value));
  let sum = 0;
  const last = shares.findIndex((one) => (sum += one) >= share);
  return last < 0 ? kept.length : last + 1;
}

function withTies(kept, count) {
  return kept.filter(([value], index) => index < count || value === kept[count - 1][0]);
}

// Numbers from 0 to 1 by a seed (mulberry32).
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
