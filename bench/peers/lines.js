'use strict';

// What the Node sides of the benchmark share. Each answers JSON lines {op, ids, …} from stdin with JSON lines
// {ns, …} or {error}. It times itself, so the pipe is not measured.

const readline = require('readline');

// call calls a method of a session store that takes a callback.
exports.call = (store, method, ...args) => new Promise((resolve, reject) =>
  store[method](...args, (err, value) => (err ? reject(err) : resolve(value))));

// timed does op on each id, with so many calls under way at a time.
exports.timed = async (op, ids, workers = 1) => {
  const share = ids.length / workers;
  const from = process.hrtime.bigint();
  await Promise.all(Array.from({ length: workers }, async (_, i) => {
    for (const id of ids.slice(i * share, (i + 1) * share)) await op(id);
  }));
  return { ns: Number(process.hrtime.bigint() - from) };
};

// serve answers the lines.
exports.serve = async (answer) => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let res;
    try {
      res = await answer(JSON.parse(line));
    } catch (err) {
      res = { error: String(err) };
    }
    process.stdout.write(JSON.stringify(res) + '\n');
  }
};
