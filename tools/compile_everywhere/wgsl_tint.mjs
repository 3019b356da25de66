// WGSL through Tint, in a device of Dawn's that executes nothing: `node wgsl_tint.mjs FOLDER-OF-WEBGPU`.
//
// It reads lines of JSON from stdin, each with `id`, `entry`, `constants`, `path` and `subgroups`, and writes one for each: `id` and
// `error`, which is empty if a pipeline can be made of it with WebGPU's default limits. A module with subgroup operations has
// `enable subgroups;` put in front of it, as a browser asks; nothing else is changed.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';

const { create } = createRequire(process.argv[2] + '/')('webgpu');

// What tpgm asks of every adapter, and f16 and subgroups besides.
const IMMEDIATE_BYTES = 64;

const gpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn offers no adapter');
const device = await adapter.requestDevice({
  requiredFeatures: ['shader-f16', 'subgroups'],
  requiredLimits: { maxImmediateSize: IMMEDIATE_BYTES },
});

const modules = new Map();

// The module and its first error, which is empty if it has none.
async function moduleOf({ path, subgroups }) {
  if (!modules.has(path)) {
    const text = readFileSync(path, 'utf8');
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code: (subgroups ? 'enable subgroups; ' : '') + text });
    const invalid = await device.popErrorScope();
    modules.set(path, { module, error: invalid?.message ?? '' });
  }
  return modules.get(path);
}

async function refusal(job) {
  const { module, error } = await moduleOf(job);
  if (error) return error;
  try {
    const compute = { module, entryPoint: job.entry, constants: job.constants };
    await device.createComputePipelineAsync({ layout: 'auto', compute });
    return '';
  } catch (caught) {
    return String(caught.message ?? caught);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  const error = (await refusal(job)).split(/\s+/).join(' ').trim();
  console.log(JSON.stringify({ id: job.id, error: error.slice(0, 400) }));
}
process.exit(0);
