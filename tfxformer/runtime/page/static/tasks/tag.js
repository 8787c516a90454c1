// Entities in a text, marked.
import { element, field, form, marked, textarea } from "./elements.js";

export function build(root, model) {
  const text = textarea("text", 5, "Write or paste a text; long ones are read in windows");
  root.append(
    ...form(field("Text", text), "Find entities", async (result) => {
      const found = await model.entities(text.value);
      result.append(marked(text.value, found));
      const rows = found.map(({ text: piece, label, score }) =>
        element("li", { "data-label": label }, `${piece}: ${label}, ${score.toFixed(3)}`),
      );
      result.append(rows.length ? element("ul", {}, ...rows) : element("p", { class: "hint" }, "No entity."));
    }),
  );
}
