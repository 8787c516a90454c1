// Runs the signatures of a .tflite file by LiteRT.js: arrays in, arrays out.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const WASM = new URL("../vendor/@litertjs/core/wasm/", import.meta.url).href;

let loaded = null; // LiteRT.js is there once for all files

export class Runtime {
  // model: a compiled file; info: {signature: {inputs: [{name, dtype, shape}], outputs: [...]}}
  constructor(model, info) {
    this.model = model;
    this.info = info;
  }

  static async open(bytes, info) {
    loaded ??= loadLiteRt(WASM, { threads: globalThis.crossOriginIsolated === true });
    await loaded;
    return new Runtime(await loadAndCompile(bytes, { accelerator: "wasm" }), info);
  }

  tensor(signature, name, values) {
    const { dtype, shape } = this.info[signature].inputs.find((one) => one.name === name);
    const Kind = dtype === "float32" ? Float32Array : Int32Array;
    return new Tensor(Kind.from(values), shape);
  }

  // Tensors that are zero, for what a first call reads of none before it.
  zeros(signature, name) {
    const { shape } = this.info[signature].inputs.find((one) => one.name === name);
    return new Tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  }

  // {input name: numbers} -> {output name: Float32Array}
  async run(signature, arrays) {
    const inputs = {};
    for (const { name } of this.info[signature].inputs) inputs[name] = this.tensor(signature, name, arrays[name]);
    const outputs = await this.model.run(signature, inputs);
    const found = {};
    for (const [name, tensor] of Object.entries(outputs)) found[name] = (await tensor.data()).slice();
    for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) tensor.delete();
    return found;
  }
}

// The bytes of a file, told as they come: told(bytes so far, bytes in all).
export async function download(url, size, told = () => {}) {
  const response = await fetch(url, { cache: "no-cache" }); // asks whether the copy it keeps is still right
  if (!response.ok) throw new Error(`${url} cannot be loaded: the server says ${response.status}.`);
  const bytes = new Uint8Array(size);
  const reader = response.body.getReader();
  let place = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (place + part.value.length > size) break;
    bytes.set(part.value, place);
    place += part.value.length;
    told(place, size);
  }
  if (place !== size) throw new Error(`${url} has not the ${size} bytes that it was written with: write the page again.`);
  return bytes;
}
