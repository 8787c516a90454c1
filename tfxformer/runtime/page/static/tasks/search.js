// A list of texts, and those of them that are nearest to a query.
import { cosine, ranking } from "../lib/numbers.js";
import { bars, drawn, element, field, form, textarea } from "./elements.js";

export function build(root, model) {
  const texts = textarea("texts", 8, "Texts to search, one a line");
  const query = element("input", { id: "query", placeholder: "What to look for", autocomplete: "off" });
  const vectors = new Map(); // texts that stay are read once
  const prompts = model.facts.prompts ?? {};
  const embed = (text, prompt) => model.embed(text, prompts[prompt] ? { prompt } : {});
  root.append(
    ...form([...field("Texts", texts), ...field("Query", query)], "Search", async (result) => {
      const lines = [...new Set(texts.value.split("\n").map((line) => line.trim()).filter((line) => line))];
      if (!lines.length) throw new Error("There are no texts to search: paste some, one a line.");
      if (!query.value.trim()) throw new Error("The query is empty: write what to look for.");
      const progress = element("progress", { max: lines.length, ariaLabel: "Texts read" });
      result.append(progress);
      for (const [index, line] of lines.entries()) {
        if (!vectors.has(line)) vectors.set(line, await embed(line, "document"));
        progress.value = index + 1;
        if (index % 8 === 7) await drawn();
      }
      const wanted = await embed(query.value, "query");
      const scores = lines.map((line) => cosine(wanted, vectors.get(line)));
      result.replaceChildren(bars(ranking(scores, 20).map((i) => [lines[i], scores[i], scores[i]])));
      const shown = Math.min(20, lines.length);
      result.append(element("p", { class: "hint" }, `The ${shown} nearest of ${lines.length} texts, by cosine similarity.`));
    }),
  );
}
