// Numbers of a model's outputs.

export function softmax(values) {
  const highest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const exponents = Array.from(values, (value) => Math.exp(value - highest));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((value) => value / sum);
}

export function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i += 1) if (values[i] > values[best]) best = i;
  return best;
}

// Indices of the highest values, best first; of equal ones the first.
export function ranking(values, count = values.length) {
  return Array.from(values, (_, index) => index)
    .sort((a, b) => values[b] - values[a] || a - b)
    .slice(0, count);
}

export function cosine(a, b) {
  let [product, first, second] = [0, 0, 0];
  for (let i = 0; i < a.length; i += 1) {
    product += a[i] * b[i];
    first += a[i] * a[i];
    second += b[i] * b[i];
  }
  return product / Math.max(Math.sqrt(first * second), 1e-12);
}
