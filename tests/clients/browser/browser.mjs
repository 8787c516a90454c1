// node browser.mjs < {"modules": node_modules, "pages": folder, "jobs": [...]}: opens pages in headless Chromium.
// A job is {page, calls: [[function of (model, ...arguments), [arguments]], ...]} or {page, fields: {id: value}}, which
// fills the form and sends it. Prints a list of {results, foreign, errors}; foreign: addresses elsewhere that were asked.
import { createReadStream, existsSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = { ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript" };
Object.assign(TYPES, { ".json": "application/json", ".wasm": "application/wasm" });

const { modules, pages, jobs } = JSON.parse(readFileSync(0, "utf-8"));
const require = createRequire(join(modules, "x.js"));
const load = async (name) => {
  const { default: found } = await import(pathToFileURL(require.resolve(name)));
  return found.default ?? found;
};
const packed = await load("@sparticuz/chromium");
const { chromium } = await load("playwright-core");

let isolated = false; // whether pages may run threads: a job says {isolated: true}
const server = createServer((request, response) => {
  const path = join(pages, normalize(decodeURIComponent(new URL(request.url, "http://x").pathname)));
  if (!existsSync(path) || !statSync(path).isFile()) return response.writeHead(404).end();
  const headers = { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" };
  if (isolated) headers["Cross-Origin-Opener-Policy"] = "same-origin";
  if (isolated) headers["Cross-Origin-Embedder-Policy"] = "require-corp";
  response.writeHead(200, headers);
  return createReadStream(path).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

async function call(page, calls) {
  const results = [];
  for (const [source, args] of calls) {
    results.push(
      await page.evaluate(
        async ([text, values]) => {
          const plain = (value) => {
            if (ArrayBuffer.isView(value)) return Array.from(value, String);
            return Array.isArray(value) ? value.map(plain) : value;
          };
          return plain(await (0, eval)(text)(globalThis.model, ...values));
        },
        [source, args],
      ),
    );
  }
  return results;
}

async function fill(page, fields) {
  for (const [id, value] of Object.entries(fields)) {
    await page.evaluate((name) => document.getElementById(name).closest("details")?.setAttribute("open", ""), id);
    await page.fill(`#${id}`, value);
  }
  await page.click("#form button[type=submit]");
  await page.waitForSelector("[data-done]", { state: "attached" });
  return page.evaluate(() => ({
    text: document.querySelector("[data-done]").innerText,
    marks: [...document.querySelectorAll("mark")].map((mark) => mark.firstChild.textContent),
    rows: [...document.querySelectorAll("[data-value]")].map((row) => [row.dataset.name, Number(row.dataset.value)]),
    times: document.getElementById("times").innerText,
  }));
}

async function work(context, job) {
  const page = await context.newPage();
  const [foreign, errors] = [[], []];
  isolated = job.isolated === true;
  page.on("request", (request) => request.url().startsWith(origin) || /^(data|blob):/.test(request.url()) || foreign.push(request.url()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`${origin}/${job.page}/index.html`);
  await page.waitForFunction(() => globalThis.model || document.querySelector(".error"));
  const step = await page.evaluate(() => document.querySelector("#loading .error")?.innerText);
  if (step) return { results: null, foreign, errors: [...errors, step] };
  await context.setOffline(true);
  const results = job.calls ? await call(page, job.calls) : await fill(page, job.fields);
  await context.setOffline(false);
  await page.close();
  return { results, foreign, errors };
}

const args = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
const browser = await chromium.launch({ executablePath: await packed.executablePath(), args, headless: true });
const context = await browser.newContext();
context.setDefaultTimeout(300000); // on a machine that is busy with other things
const found = [];
for (const job of jobs) found.push(await work(context, job));
await browser.close();
server.close();
console.log(JSON.stringify(found));
