// node check.mjs PAGE < {"texts": [...], "conversations": [...]}: prints the ids that the page makes of each.
import { readFileSync } from "node:fs";

import { Generator } from "./lib/generator.js";
import { Tokenizer } from "./lib/tokenizer.js";

const page = process.argv[2];
const read = (name) => JSON.parse(readFileSync(`${page}/${name}`, "utf-8"));
const facts = read("model.json");
const tokenizer = new Tokenizer(read("tokenizer.json"), facts.tokenizer);
const { texts, conversations } = JSON.parse(readFileSync(0, "utf-8"));
const { Template } = conversations.length ? await import("@huggingface/jinja") : {};
const model = new Generator(null, tokenizer, { ...facts, generation: facts.generation ?? { source_lengths: [] } }, Template);
const found = texts.map((text) => tokenizer.ids(text));
for (const messages of conversations) {
  try {
    found.push(model.chatPrompt(messages));
  } catch {
    found.push(null);
  }
}
console.log(JSON.stringify(found));
