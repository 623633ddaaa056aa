'use strict';

// The benchmark's side of express-session and its stores on servers; see lines.js. Its first line opens the one
// that it names.

const http = require('http');
const session = require('express-session');
const lines = require('./lines');

let store, doc, sets = 0;

const call = (method, ...args) => lines.call(store, method, ...args);

// visits returns a number that is not the one before: MySQL does not write what is there already.
const visits = () => 10 + sets++ % 90;

const open = {
  async 'connect-redis'({ port }) {
    const { RedisStore } = require('connect-redis');
    const client = require('redis').createClient({ socket: { host: '127.0.0.1', port } });
    await client.connect();
    return new RedisStore({ client, prefix: 'node:' });
  },
  async 'connect-pg-simple'({ port, conns }) {
    const Store = require('connect-pg-simple')(session);
    const pool = new (require('pg').Pool)({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres', max: conns });
    return new Store({ pool, tableName: 'node', createTableIfMissing: true, pruneSessionInterval: false });
  },
  async 'express-mysql-session'({ port, conns }) {
    const Store = require('express-mysql-session')(session);
    const opened = new Store({
      host: '127.0.0.1', port, user: 'root', database: 'bench', connectionLimit: conns,
      clearExpired: false, schema: { tableName: 'node' },
    });
    await opened.onReady();
    return opened;
  },
};

const ops = {
  async get(id) {
    if (!await call('get', id)) throw new Error('get: not found');
  },
  set: (id) => call('set', id, { ...doc, visits: visits() }),
  touch: (id) => call('touch', id, { cookie: doc.cookie }),
};

// listen starts the server of the HTTP rows.
function listen() {
  const { cookie, ...values } = doc;
  const sessions = session({ store, secret: 'keyboard cat', resave: false, saveUninitialized: false });
  const server = http.createServer((req, res) => sessions(req, res, (err) => {
    if (req.url === '/login') Object.assign(req.session, values);
    else if (err || !req.session.userId) res.statusCode = 500;
    else if (req.url === '/write') req.session.visits = visits();
    res.setHeader('Content-Length', 2);
    res.end('ok');
  }));
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({ n: server.address().port })));
}

lines.serve(async (req) => {
  switch (req.op) {
    case 'open':
      doc = req.doc;
      store = await open[req.store](req);
      return {};
    case 'listen':
      return listen();
  }
  return lines.timed(ops[req.op], req.ids, req.workers);
});
