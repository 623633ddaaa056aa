'use strict';

// The Node side of the tests: answers one JSON line {id, op, args} on stdin with one JSON line {id, result} or
// {id, error} on stdout. It contains no session logic of its own; whatever is compared is what the npm packages do.

const readline = require('readline');
const express = require('express');
const session = require('express-session');

const promised = (fn) => new Promise((resolve, reject) =>
  fn((err, value) => (err ? reject(err) : resolve(value))));

// Each connects to an engine and returns what makes a store there. Every application needs a store of its own, because
// express-session leaves its options in it. None removes expired sessions by itself.
const engines = {
  async redis({ url }) {
    const { createClient } = require('redis');
    const { RedisStore } = require('connect-redis');
    const client = createClient({ url });
    client.on('error', () => {}); // of a server that ends before this process
    await client.connect();
    return () => new RedisStore({ client });
  },
  async pg({ url }) {
    const PGStore = require('connect-pg-simple')(session);
    const pool = new (require('pg').Pool)({ connectionString: url });
    pool.on('error', () => {});
    return () => new PGStore({ pool, pruneSessionInterval: false, errorLog: () => {} });
  },
  async mysql(connection) {
    const MySQLStore = require('express-mysql-session')(session);
    const pool = require('mysql2/promise').createPool(connection);
    return () => new MySQLStore({ clearExpired: false, createDatabaseTable: false }, pool);
  },
  async mongo({ url, collectionName, stringify }) {
    const { MongoClient } = require('mongodb');
    const { MongoStore } = require('connect-mongo');
    const client = await new MongoClient(url).connect();
    return () => MongoStore.create({ client, dbName: 'test', collectionName, stringify, autoRemove: 'disabled' });
  },
};

const makers = [];
const stores = []; // of each engine one, for get

// The steps that a request asks its handler to do with the session, in order. The Go server has the same.
async function step(req, [name, ...args]) {
  switch (name) {
    case 'put': req.session[args[0]] = args[1]; break;
    case 'delete': delete req.session[args[0]]; break;
    case 'count': req.session[args[0]] = (req.session[args[0]] || 0) + 1; break;
    case 'maxAge': req.session.cookie.maxAge = args[0]; break;
    case 'save': await promised((cb) => req.session.save(cb)); break;
    case 'regenerate': await promised((cb) => req.session.regenerate(cb)); break;
    case 'login':
      await promised((cb) => req.session.regenerate(cb));
      req.session.user = args[0];
      break;
    case 'destroy': await promised((cb) => req.session.destroy(cb)); break;
    case 'meanwhile': await (await fetch(args[0], { headers: { cookie: args[1] } })).text(); break;
    default: throw new Error('no step ' + name);
  }
}

// app starts a server on an engine and returns its port.
function app({ engine, options }) {
  const site = express();
  site.use(session(Object.assign({ resave: false, saveUninitialized: false }, options, { store: makers[engine]() })));
  site.get('/run', async (req, res) => {
    for (const s of JSON.parse(req.query.steps)) await step(req, s);
    res.json({ id: req.sessionID || '', session: req.session || null });
  });
  site.use((err, req, res, next) => {
    if (!res.headersSent) res.status(500).json({ error: String(err) }); // else the store failed after the response
  });
  return new Promise((resolve, reject) => {
    const server = site.listen(0, '127.0.0.1', (err) => (err ? reject(err) : resolve(server.address().port)));
    server.unref();
  });
}

const ops = {
  app,

  // open connects to an engine and returns its number.
  async open({ name, options }) {
    const make = await engines[name](options);
    stores.push(make());
    return makers.push(make) - 1;
  },
  get: ({ engine, id }) => promised((cb) => stores[engine].get(id, cb)).then((s) => s || null),
};

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const { id, op, args } = JSON.parse(line);
  let answer;
  try {
    const result = await ops[op](args);
    answer = { id, result: result === undefined ? null : result };
  } catch (err) {
    answer = { id, error: { name: err.name || '', code: String(err.code || ''), message: String(err.message || err) } };
  }
  process.stdout.write(JSON.stringify(answer) + '\n');
}).on('close', () => process.exit());
