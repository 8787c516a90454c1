// Answers to a question from a text, the best one marked.
import { bars, element, field, form, marked, textarea } from "./elements.js";

export function build(root, model) {
  const question = element("input", { id: "question", placeholder: "What do you want to know?", autocomplete: "off" });
  const context = textarea("context", 8, "The text that has the answer; long ones are read in windows");
  root.append(
    ...form([...field("Text", context), ...field("Question", question)], "Answer", async (result) => {
      const found = await model.answer(question.value, context.value, { nBest: 3 });
      if (!found.length) {
        result.append(element("p", { class: "hint" }, "The text has no words to answer with."));
        return;
      }
      result.append(marked(context.value, found.slice(0, 1)));
      result.append(bars(found.map(({ text, probability }) => [text, probability, probability])));
      result.append(element("p", { class: "hint" }, "Probabilities are shares among the answers shown."));
    }),
  );
}
