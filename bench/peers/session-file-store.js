'use strict';

// session-file-store's side of the benchmark; see lines.js.

const { EventEmitter } = require('events');
const FileStore = require('session-file-store')({ Store: EventEmitter });
const helpers = require('session-file-store/lib/session-file-helpers');
const lines = require('./lines');

let store, doc;

const call = (method, ...args) => lines.call(store, method, ...args);

// found is get for an id that may be missing; without retries that is an error at once.
const found = (id) => call('get', id).then((sess) => !!sess, (err) => {
  if (err.code === 'ENOENT') return false;
  throw err;
});

async function get(id, want) {
  if (await found(id) !== want) throw new Error('get: found is ' + !want);
}

const ops = {
  get: (id) => get(id, true),
  missing: (id) => get(id, false),
  set: (id) => call('set', id, { ...doc }),
  touch: (id) => call('touch', id, { cookie: doc.cookie }),
  async update(id) {
    const sess = await call('get', id);
    sess.visits = 17;
    await call('set', id, sess);
  },
  destroy: (id) => call('destroy', id),
};

// mixed does 90/9/1 of get, set and destroy with so many calls under way at a time.
async function mixed({ ids, workers, ms }) {
  let n = 0, longest = 0;
  const end = performance.now() + ms;
  await Promise.all(Array.from({ length: workers }, async () => {
    for (let from = performance.now(); from < end;) {
      const id = ids[Math.floor(Math.random() * ids.length)];
      const dice = Math.random() * 100;
      await (dice < 90 ? found(id) : dice < 99 ? ops.set(id) : ops.destroy(id));
      const now = performance.now();
      longest = Math.max(longest, now - from);
      from = now;
      n++;
    }
  }));
  return { n, longest: Math.round(longest * 1e6) };
}

async function answer(req) {
  switch (req.op) {
    case 'open':
      store = new FileStore({ path: req.dir, ttl: 86400, retries: 0, reapInterval: -1, logFn() {}, secret: req.secret });
      doc = req.doc;
      return {};
    case 'mixed':
      return mixed(req);
    case 'reap': {
      const from = process.hrtime.bigint();
      await new Promise((resolve, reject) => helpers.reap(store.options, (err) => (err ? reject(err[0] || err) : resolve())));
      return { ns: Number(process.hrtime.bigint() - from) };
    }
  }
  return lines.timed(ops[req.op], req.ids);
}

lines.serve(answer);
