// Text that goes on from a prompt, the target of a source, or an answer in a conversation.
import { element, field, sendByKey, textarea } from "./elements.js";

const WANTED = { source: "The text to turn into another", chat: "Your message", prompt: "How the text begins" };
const number = (id, attributes) => element("input", { id, type: "number", inputMode: "decimal", ...attributes });

export function build(root, model) {
  const controls = drawing(model);
  const prompt = textarea("prompt", 4, WANTED[model.hasSource ? "source" : model.hasChat ? "chat" : "prompt"]);
  const output = element("div", { class: "text", id: "output", ariaLive: "polite", hidden: true });
  const messages = [];
  const chatting = element("input", { id: "chatting", type: "checkbox", checked: model.hasChat });
  chatting.style.width = "auto";
  const start = element("button", { type: "submit" }, model.hasSource ? "Write" : "Generate");
  const stop = element("button", { type: "button", class: "second", disabled: true }, "Stop");
  const clear = element("button", { type: "button", class: "second", hidden: !model.hasChat }, "New conversation");
  const form = element("form", { id: "form" }, ...field(model.hasSource ? "Source" : "Prompt", prompt));
  if (model.hasChat) form.append(element("label", {}, chatting, " As a conversation, by the model's chat template"));
  else if (!model.hasSource) form.append(element("p", { class: "hint" }, "No chat template: the model continues your text."));
  form.append(...controls.shown, start, stop, clear);
  root.append(form, output);
  sendByKey(form);

  let aborter = null;
  stop.addEventListener("click", () => aborter?.abort());
  clear.addEventListener("click", () => {
    messages.length = 0;
    output.replaceChildren();
    output.hidden = true;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (aborter) return;
    aborter = new AbortController();
    [start.disabled, stop.disabled, output.hidden] = [true, false, false];
    output.removeAttribute("data-done");
    const chat = model.hasChat && chatting.checked;
    if (chat) messages.push({ role: "user", content: prompt.value });
    const place = chat ? message(output, messages, prompt) : continued(output, model.hasSource ? "" : prompt.value);
    try {
      const options = { ...controls.values(), told, signal: aborter.signal };
      for await (const piece of model.stream(chat ? messages : prompt.value, options)) place.append(piece);
      if (chat) messages.push({ role: "assistant", content: place.textContent });
    } catch (error) {
      if (chat) messages.pop();
      place.append(element("p", { class: "error" }, error.message ?? String(error)));
    } finally {
      aborter = null;
      [start.disabled, stop.disabled] = [false, true];
      output.setAttribute("data-done", "");
    }
  });
}

function continued(output, before) {
  const place = element("span", { id: "written" });
  output.replaceChildren(element("span", { class: "hint" }, before), place);
  return place;
}

function message(output, messages, prompt) {
  const place = element("span", {});
  output.append(element("div", { class: "message" }, element("b", {}, "You"), messages.at(-1).content));
  output.append(element("div", { class: "message" }, element("b", {}, "Model"), place));
  prompt.value = "";
  return place;
}

// How many tokens are written, and how they are chosen.
function drawing(model) {
  const { drawing: wanted, max_new_tokens: most, cache_length: slots } = model.settings;
  const way = element("select", { id: "way" });
  way.append(element("option", { value: "greedy" }, "The most probable"), element("option", { value: "draw" }, "By chance"));
  way.value = Object.keys(wanted).length ? "draw" : "greedy";
  const tokens = number("tokens", { min: 1, max: slots, value: Math.min(most ?? 128, slots) });
  const temperature = number("temperature", { min: 0.05, step: 0.05, value: wanted.temperature ?? 0.8 });
  const topK = number("top-k", { min: 0, value: wanted.top_k ?? 50 });
  const topP = number("top-p", { min: 0.01, max: 1, step: 0.01, value: wanted.top_p ?? 1 });
  const chances = [field("Temperature", temperature), field("Top k (0: all)", topK), field("Top p", topP)];
  const grid = element("div", { class: "grid" });
  for (const parts of [field("New tokens", tokens), field("Next token", way)]) grid.append(element("div", {}, ...parts));
  const groups = chances.map((parts) => element("div", {}, ...parts));
  grid.append(...groups);
  const show = () => groups.forEach((group) => (group.hidden = way.value === "greedy"));
  way.addEventListener("change", show);
  show();
  return {
    shown: [grid],
    values: () => ({
      maxNewTokens: Number(tokens.value) || 1,
      ...(way.value === "draw" && {
        temperature: Number(temperature.value) || 1,
        topK: Number(topK.value) || null,
        topP: Number(topP.value) < 1 ? Number(topP.value) || null : null,
        minP: wanted.min_p ?? null,
      }),
    }),
  };
}

function told({ promptTokens, promptMs, tokens, ms }) {
  const rate = ms > 0 ? `, ${((1000 * tokens) / ms).toFixed(1)} tokens a second` : "";
  document.getElementById("times").textContent =
    `Prompt of ${promptTokens} tokens read in ${promptMs.toFixed(0)} ms; ${tokens} tokens written${rate}.`;
}
