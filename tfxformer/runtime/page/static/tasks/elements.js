// Parts that the tasks' forms share.

// element("p", {class: "hint"}, "a text", another): attributes are set as properties where there are such.
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key === "class" ? "class" : key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A control with its label.
export function field(label, control) {
  return [element("label", { htmlFor: control.id }, label), control];
}

export function textarea(id, rows, placeholder) {
  return element("textarea", { id, rows, placeholder, spellcheck: false });
}

// A form whose button runs `work(result)`, where errors and the time it took are shown.
export function form(children, action, work) {
  const button = element("button", { type: "submit" }, action);
  const result = element("div", { class: "result", id: "result", ariaLive: "polite" });
  const made = element("form", { id: "form" }, ...children, button);
  let running = false;
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = button.disabled = true;
    result.removeAttribute("data-done");
    result.replaceChildren();
    await drawn();
    const began = performance.now();
    try {
      await work(result);
      const times = document.getElementById("times");
      times.textContent = `Answered in ${(performance.now() - began).toFixed(1)} ms.`;
    } catch (error) {
      result.replaceChildren(element("p", { class: "error" }, error.message ?? String(error)));
    } finally {
      running = button.disabled = false;
      result.setAttribute("data-done", "");
    }
  });
  sendByKey(made);
  return [made, result];
}

// Ctrl+Enter in a field of several lines sends the form, as Enter does in one of one line.
export function sendByKey(form) {
  for (const control of form.querySelectorAll("textarea")) {
    control.title = "Ctrl+Enter sends";
    control.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }
}

// Until the browser has drawn what was changed.
export function drawn() {
  return new Promise((resolve) => {
    setTimeout(resolve, 50); // in a window that is not seen nothing is drawn
    requestAnimationFrame(() => setTimeout(resolve));
  });
}

// A list of names with numbers and bars; rows: [[name, number, width from 0 to 1], ...].
export function bars(rows, digits = 3) {
  const list = element("ol", { class: "bars" });
  for (const [name, number, width] of rows) {
    const row = element("div", { class: "row" }, element("span", {}, name));
    row.append(element("span", { class: "number" }, number.toFixed(digits)));
    const bar = element("div", {});
    bar.style.width = `${100 * Math.min(1, Math.max(0, width))}%`;
    list.append(element("li", { "data-name": name, "data-value": number }, row, element("div", { class: "bar" }, bar)));
  }
  return list;
}

// A text in which pieces are marked: [{start, end, label}], in order.
export function marked(text, pieces) {
  const shown = element("div", { class: "text" });
  let place = 0;
  for (const { start, end, label = null } of pieces) {
    shown.append(text.slice(place, start));
    shown.append(element("mark", {}, text.slice(start, end), label === null ? null : element("small", {}, label)));
    place = end;
  }
  shown.append(text.slice(place));
  return shown;
}

export function cutNote(model, row) {
  if (!row.cut) return null;
  const length = Math.min(model.sequenceLength, model.facts.max_length ?? Infinity);
  return element("p", { class: "hint" }, `The text is longer than the ${length} tokens that the model reads: the rest was cut.`);
}
