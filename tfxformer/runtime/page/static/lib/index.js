// A folder that `tfxformer page` wrote, opened: `const model = await open("."); await model.predict("a text")`.
import { Generator } from "./generator.js";
import { Reader } from "./reader.js";
import { download, Runtime } from "./runtime.js";
import { Tokenizer } from "./tokenizer.js";

// folder: where model.json is, from the page. told(step, bytes so far, bytes in all) is called while it loads.
// Gives a Reader, or a Generator for files that write.
export async function open(folder = ".", told = () => {}) {
  const at = (name) => new URL(`${folder}/${name}`, document.baseURI).href;
  const facts = await json(at("model.json"));
  told("tokenizer", 0, facts.bytes);
  const tokenizer = new Tokenizer(await json(at("tokenizer.json")), facts.tokenizer);
  const bytes = await download(at(facts.file), facts.bytes, (done, all) => told("model", done, all));
  told("runtime", facts.bytes, facts.bytes);
  const runtime = await Runtime.open(bytes, facts.signatures);
  if (!facts.generation) return new Reader(runtime, tokenizer, facts);
  // All is loaded now: from here on the page needs no network.
  const { Template } = facts.generation.chat ? await import("@huggingface/jinja") : {};
  return new Generator(runtime, tokenizer, facts, Template);
}

async function json(url) {
  const response = await fetch(url, { cache: "no-cache" });
  if (!response.ok) throw new Error(`${url} cannot be loaded: the server says ${response.status}.`);
  return response.json();
}
