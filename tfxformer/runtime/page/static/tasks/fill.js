// What may stand in place of a mask.
import { bars, element, field, form, textarea } from "./elements.js";

export function build(root, model) {
  const mask = model.facts.tokenizer.mask_token;
  const text = textarea("text", 3, `A text with ${mask} in it`);
  root.append(
    ...form(field(`Text with ${mask}`, text), "Fill in", async (result) => {
      const masks = await model.fillMasks(text.value);
      if (!masks.length) throw new Error(`The text has no ${mask}: put one where a word is to be guessed.`);
      for (const rows of masks) result.append(bars(rows.map(({ token, probability }) => [token, probability, probability])));
      if (masks.length > 1) result.prepend(element("p", { class: "hint" }, "One list for each mask, in their order."));
    }),
  );
}
