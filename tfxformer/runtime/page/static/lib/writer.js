// Text out of ids as they come: no half characters, and nothing from a stop on.

const INCOMPLETE = "\ufffd"; // what a decoder writes for bytes that are no character, or not yet

export class Writer {
  constructor(tokenizer, prompt, stopStrings) {
    Object.assign(this, { tokenizer, ids: [], context: 0, shown: 0, stopStrings, held: "", stopped: false });
    this.decodeNext(prompt); // so that a first token keeps the space before it
  }

  // The text that one more id made certain.
  feed(id) {
    return this.upToStop(this.decodeNext([id]));
  }

  end() {
    const rest = this.upToStop(this.show(this.tokenizer.decode(this.ids)));
    const held = this.stopped ? "" : this.held;
    this.held = "";
    return rest + held;
  }

  decodeNext(ids) {
    this.ids.push(...ids);
    const text = this.tokenizer.decode(this.ids);
    if (text.endsWith(INCOMPLETE)) return this.show(text.replace(new RegExp(`${INCOMPLETE}+$`, "u"), ""));
    const piece = this.show(text);
    if (piece) {
      this.ids = this.ids.slice(this.context);
      this.context = this.ids.length;
      this.shown = this.tokenizer.decode(this.ids).length;
    }
    return piece;
  }

  show(text) {
    const piece = text.slice(this.shown);
    this.shown = Math.max(this.shown, text.length);
    return piece;
  }

  // Lets text through up to the first stop that is whole, and holds back what may become one.
  upToStop(piece) {
    if (this.stopped) return "";
    this.held += piece;
    const found = this.stopStrings
      .map((stop) => [this.held.indexOf(stop) + stop.length, this.held.indexOf(stop)])
      .filter(([, start]) => start >= 0)
      .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    this.stopped = found.length > 0;
    const certain = this.stopped ? found[0][1] : this.held.length - Math.max(0, ...this.stopStrings.map((s) => overlap(this.held, s)));
    const text = this.held.slice(0, certain);
    this.held = this.held.slice(certain);
    return text;
  }
}

function overlap(text, stop) {
  for (let count = Math.min(text.length, stop.length - 1); count > 0; count -= 1) {
    if (text.endsWith(stop.slice(0, count))) return count;
  }
  return 0;
}
