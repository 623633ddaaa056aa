'use strict';

// The Node side of the tests: answers one JSON line {id, op, args} on stdin with
// one JSON line {id, result} or {id, error} on stdout. It contains no session
// logic of its own; whatever is compared is what the npm packages do.

const fs = require('fs');
const path = require('path');
const readline = require('readline');
const express = require('express');
const session = require('express-session');
const FileStore = require('session-file-store')(session);
const helpers = require('session-file-store/lib/session-file-helpers');

// express-session signs with its own, older copy.
const signature = require(require.resolve('cookie-signature', {
  paths: [path.dirname(require.resolve('express-session'))],
}));

const stores = [];
const apps = [];

const promised = (fn) => new Promise((resolve, reject) =>
  fn((err, value) => (err ? reject(Array.isArray(err) ? err[0] : err) : resolve(value))));

// newStore sets what the tests must not wait for or read on stdout.
function newStore(Class, options) {
  return new Class(Object.assign({ logFn: () => {}, reapInterval: -1, retries: 0 }, options));
}

// recording makes a store that notes the calls of its methods.
function recording(Class) {
  return class extends Class {
    constructor(options) {
      super(options);
      this.calls = [];
    }
    get(sid, cb) { this.calls.push('get'); super.get(sid, cb); }
    set(sid, sess, cb) { this.calls.push('set'); super.set(sid, sess, cb); }
    touch(sid, sess, cb) { this.calls.push('touch'); super.touch(sid, sess, cb); }
    destroy(sid, cb) { this.calls.push('destroy'); super.destroy(sid, cb); }
  };
}

// FileStore is an old-style class: its methods are found all the same.
const RecordingMemoryStore = recording(session.MemoryStore);
const RecordingFileStore = recording(FileStore);

// The steps that a request asks its handler to do with the session, in order.
// The tests' Go server has the same.
async function step(req, res, [name, ...args]) {
  switch (name) {
    case 'put': req.session[args[0]] = args[1]; break;
    case 'delete': delete req.session[args[0]]; break;
    case 'count': req.session[args[0]] = (req.session[args[0]] || 0) + 1; break;
    case 'save': await promised((cb) => req.session.save(cb)); break;
    case 'reload': await promised((cb) => req.session.reload(cb)); break;
    case 'regenerate': await promised((cb) => req.session.regenerate(cb)); break;
    case 'destroy': await promised((cb) => req.session.destroy(cb)); break;
    case 'null': req.session = null; break;
    case 'maxAge': req.session.cookie.maxAge = args[0]; break;
    case 'expires': req.session.cookie.expires = args[0]; break;
    case 'fail': throw new Error('asked to');
    default: throw new Error('no step ' + name);
  }
}

function app(args) {
  const Store = args.memory ? RecordingMemoryStore : RecordingFileStore;
  const store = args.store === undefined ? newStore(Store, args.options) : stores[args.store];
  const options = Object.assign({ resave: false, saveUninitialized: false }, args.session, { store });
  if (args.ids) {
    const ids = args.ids.slice();
    options.genid = () => ids.shift();
  }
  if (options.cookie && typeof options.cookie.expires === 'string') {
    options.cookie = Object.assign({}, options.cookie, { expires: new Date(options.cookie.expires) });
  }
  if (args.secretHex) options.secret = Buffer.from(args.secretHex, 'hex');
  const site = express();
  site.set('trust proxy', Boolean(args.trustProxy));
  site.use(session(options));
  site.get(['/run', '/app/run'], async (req, res) => {
    for (const s of JSON.parse(req.query.steps || '[]')) await step(req, res, s);
    if (req.query.to) return res.redirect(req.query.to);
    res.json({ server: 'node', id: req.sessionID || '', session: req.session || null });
  });
  site.use((err, req, res, next) => {
    if (res.headersSent) return; // a store that failed after the response
    res.status(500).json({ error: String(err) });
  });
  return new Promise((resolve, reject) => {
    const server = site.listen(0, '127.0.0.1', (err) => {
      if (err) return reject(err);
      server.unref();
      apps.push({ server, store });
      resolve({ app: apps.length - 1, port: server.address().port });
    });
  });
}

// at runs fn by a clock that stands.
async function at(now, fn) {
  const RealDate = Date;
  global.Date = class extends RealDate {
    constructor(...args) { super(...(args.length ? args : [now])); }
    static now() { return now; }
  };
  try {
    return await fn();
  } finally {
    global.Date = RealDate;
  }
}

const ops = {
  versions: () => ({
    express: require('express/package.json').version,
    'express-session': require('express-session/package.json').version,
    'session-file-store': require('session-file-store/package.json').version,
  }),

  // open makes a FileStore and returns its number.
  open(options) {
    // A read that lasts as long as the test wants: decoder is called between
    // FileStore's reading and its writing.
    if (options.pause) {
      const { reading, go } = options.pause;
      options = Object.assign({}, options, {
        decoder(text) {
          fs.writeFileSync(reading, '');
          while (!fs.existsSync(go)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
          return JSON.parse(text);
        },
      });
    }
    return stores.push(newStore(FileStore, options)) - 1;
  },
  get: ({ store, sid }) => promised((cb) => stores[store].get(sid, cb)).then((s) => s || null),
  set: ({ store, sid, session }) => promised((cb) => stores[store].set(sid, session, cb)),
  touch: ({ store, sid, session }) => promised((cb) => stores[store].touch(sid, session, cb)),
  destroy: ({ store, sid }) => promised((cb) => stores[store].destroy(sid, cb)).then(() => null),
  length: ({ store }) => promised((cb) => stores[store].length(cb)),
  list: ({ store }) => promised((cb) => stores[store].list(cb)),
  clear: ({ store }) => promised((cb) => stores[store].clear(cb)).then(() => null),
  expired: ({ store, sid }) => promised((cb) => stores[store].expired(sid, cb)),
  // reap answers when all is done only with reapMaxConcurrent 1: the callback
  // comes with the end of the last file, not of all.
  reap: ({ store }) => promised((cb) => helpers.reap(stores[store].options, cb)).then(() => null),

  exit: () => process.exit(),
  chdir: (dir) => process.chdir(dir),
  umask: (mask) => process.umask(mask),

  // verdicts judges files by get and by isExpired, all at the instant now.
  verdicts: ({ dir, now, cases }) => at(now, () => Promise.all(cases.map(async ({ sid, ttl }) => {
    const store = newStore(FileStore, { path: dir, ttl });
    const got = await promised((cb) => store.get(sid, cb));
    const doc = JSON.parse(fs.readFileSync(path.join(dir, sid + '.json'), 'utf8'));
    return { get: Boolean(got), rule: !helpers.isExpired(doc, store.options) };
  }))),

  // write and read go on for ms milliseconds beside whoever else does.
  async write({ store, sid, ms, fill }) {
    const end = Date.now() + ms;
    let n = 0;
    for (; Date.now() < end; n++) {
      const by = 'node' + n;
      const doc = { cookie: { originalMaxAge: null, expires: null, httpOnly: true, path: '/' }, by, fill: by.repeat(fill), end: by };
      await promised((cb) => stores[store].set(sid, doc, cb));
    }
    return n;
  },
  async read({ store, sid, ms, fill }) {
    const end = Date.now() + ms;
    const seen = { node: 0, go: 0, errors: [] };
    while (Date.now() < end) {
      try {
        const doc = await promised((cb) => stores[store].get(sid, cb));
        if (!doc) throw new Error('not found');
        if (doc.end !== doc.by || doc.fill !== doc.by.repeat(fill)) throw new Error('torn');
        seen[doc.by.startsWith('node') ? 'node' : 'go']++;
      } catch (err) {
        if (seen.errors.length < 10) seen.errors.push(String(err));
      }
      await new Promise(setImmediate);
    }
    return seen;
  },

  sign: ({ value, secret, secretHex }) => signature.sign(value, secretHex ? Buffer.from(secretHex, 'hex') : secret),
  unsign: ({ signed, secret, secretHex }) => signature.unsign(signed, secretHex ? Buffer.from(secretHex, 'hex') : secret),
  // cookie is the value as it goes over the wire.
  cookie: ({ value, secret, secretHex }) =>
    encodeURIComponent('s:' + signature.sign(value, secretHex ? Buffer.from(secretHex, 'hex') : secret)),

  // app starts a server and returns its number and port; calls returns the
  // calls of its store since the last time.
  app,
  calls: (n) => apps[n].store.calls.splice(0),
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, args } = JSON.parse(line);
  let answer;
  try {
    const result = await ops[op](args);
    answer = { id, result: result === undefined ? null : result };
  } catch (err) {
    answer = { id, error: { name: err.name || '', code: err.code || '', message: String(err.message || err) } };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}).on('close', () => process.exit());
