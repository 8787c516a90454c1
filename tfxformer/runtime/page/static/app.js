// The page: loads the model, shows how far it is, and hands it to the part that its task needs.
import { open } from "./lib/index.js";

const PARTS = {
  "text-classification": "classify",
  "token-classification": "tag",
  "text-embedding": "search",
  "question-answering": "answer",
  "masked-lm": "fill",
};
const STEPS = { tokenizer: "Loading the tokenizer", model: "Loading the model", runtime: "Preparing the model" };
const at = (name) => document.getElementById(name);

function told(step, done, all) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const count = step === "model" ? `: ${megabytes(done)} of ${megabytes(all)} MB` : "";
  at("step").textContent = `${STEPS[step]}${count}`;
  if (step === "model") at("progress").value = done / all;
  else at("progress").removeAttribute("value");
}

function describe({ title, task, bytes, quantization }) {
  document.title = title;
  at("title").textContent = title;
  at("about").textContent = [task, quantization, `${(bytes / 1e6).toFixed(1)} MB`].filter(Boolean).join(" \u00b7 ");
}

async function start() {
  const began = performance.now();
  try {
    const model = await open(".", told);
    describe(model.facts);
    const { build } = await import(`./tasks/${PARTS[model.task] ?? "write"}.js`);
    build(at("task"), model);
    at("times").textContent = `Loaded in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
    at("loading").hidden = true;
    at("task").hidden = false;
    globalThis.model = model; // for the browser's console
  } catch (error) {
    at("step").textContent = `The page cannot load its model: ${error.message ?? error}`;
    at("step").classList.add("error");
    at("progress").remove();
    throw error;
  }
}

await start();
