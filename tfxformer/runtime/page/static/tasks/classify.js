// Labels of a text, or of two, with their probabilities.
import { ranking } from "../lib/numbers.js";
import { bars, cutNote, element, field, form, textarea } from "./elements.js";

export function build(root, model) {
  const text = textarea("text", 4, "Write or paste a text");
  const second = textarea("second", 3, "Only for models that read two texts");
  const pair = element("details", {}, element("summary", {}, "A second text"), ...field("Second text", second));
  root.append(
    ...form([...field("Text", text), pair], "Classify", async (result) => {
      const other = second.value === "" ? null : second.value;
      const values = await model.predict(text.value, other);
      const labels = model.labels ?? Array.from(values, (_, index) => String(index));
      const scored = model.facts.problem_type === "regression";
      const order = scored ? labels.map((_, index) => index) : ranking(values);
      const note = cutNote(model, model.encode(text.value, other));
      result.append(bars(order.map((i) => [labels[i], values[i], values[i]])), note ?? "");
      if (model.facts.problem_type === "multi_label_classification") {
        const chosen = labels.filter((_, index) => values[index] > 0.5).join(", ") || "none";
        result.prepend(element("p", {}, `Labels above 0.5: ${chosen}`));
      }
    }),
  );
}
