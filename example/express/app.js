'use strict';

// The same site as main.go, in Express, on the same sessions. "go run ./example/express" starts both. Alone:
//
//   node example/express/app.js [--addr 127.0.0.1:8082] [--dir ./sessions] [--encrypt] [--store redis://…]

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const express = require('express');
const session = require('express-session');

const { values: flags } = parseArgs({
  options: {
    addr: { type: 'string', default: '127.0.0.1:8082' },
    dir: { type: 'string', default: './sessions' },
    encrypt: { type: 'boolean', default: false },
    store: { type: 'string', default: '' },
    beside: { type: 'string', default: '' }, // the address of the page that shows both, given by main.go
  },
});

// session-file-store makes files that everybody can read, and a session is a login.
process.umask(0o077);

// These must be the same on both sides: the cookie's name, the secret, and the
// names of the session's members (user, views).
const cookieName = 'connect.sid';
const maxAge = 24 * 60 * 60 * 1000;
const ttl = 60 * 60; // seconds, for sessions without a maxAge: stores.TTL on the Go side. The stores' defaults differ.
const minSecret = 8; // bytes, as the Go side wants them

// loadSecret returns $SESSION_SECRET or, if that is not set, the content of
// <dir>.secret. The first process that needs the file makes it. It makes a hard
// link, because a link appears with its whole content and never replaces another:
// the second process reads the first one's secret.
function loadSecret(dir) {
  let from = '$SESSION_SECRET';
  let secret = process.env.SESSION_SECRET;
  if (!secret) {
    from = path.resolve(dir) + '.secret';
    if (!fs.existsSync(from)) {
      const tmp = from + '.' + crypto.randomBytes(8).toString('hex');
      fs.mkdirSync(path.dirname(from), { recursive: true, mode: 0o700 });
      fs.writeFileSync(tmp, crypto.randomBytes(32).toString('base64url') + '\n', { mode: 0o600, flag: 'wx', flush: true });
      try {
        fs.linkSync(tmp, from);
      } catch (err) {
        if (err.code !== 'EEXIST') throw err;
      } finally {
        fs.unlinkSync(tmp);
      }
    }
    secret = fs.readFileSync(from, 'utf8').trim();
  }
  if (Buffer.byteLength(secret) < minSecret) throw new Error(`the secret in ${from} is shorter than ${minSecret} bytes`);
  return secret;
}

// openStore returns the store that --store names, with the key names, the table or the collection that the Go side has
// too. It loads only that one's package. One store object serves the whole application: each has connections and timers.
function openStore(secret) {
  if (!flags.store) return openFiles(secret);
  const url = new URL(flags.store);
  // own takes a parameter that is not the client's out of the URL.
  const own = (name) => {
    const value = url.searchParams.get(name) || undefined;
    url.searchParams.delete(name);
    return value;
  };
  if (flags.encrypt && url.protocol !== 'mongodb:') {
    throw new Error('--encrypt: of the npm stores only session-file-store and connect-mongo can encrypt');
  }
  switch (url.protocol) {
    case 'redis:': {
      const { RedisStore } = require('connect-redis');
      const prefix = own('prefix');
      const client = require('redis').createClient({ url: url.href });
      client.on('error', (err) => console.error('express example: Redis:', err.message)); // without it an error ends the process
      client.connect().catch(() => {}); // told above; requests wait for it
      return new RedisStore({ client, prefix, ttl });
    }
    case 'postgres:': {
      const PGStore = require('connect-pg-simple')(session);
      const tableName = own('table');
      return new PGStore({ conString: url.href, tableName, ttl, createTableIfMissing: true });
    }
    case 'mysql:': {
      const MySQLStore = require('express-mysql-session')(session);
      const tableName = own('table') || 'sessions';
      return new MySQLStore({
        host: url.hostname,
        port: Number(url.port) || 3306,
        user: decodeURIComponent(url.username),
        password: decodeURIComponent(url.password),
        database: url.pathname.slice(1),
        schema: { tableName },
        expiration: ttl * 1000, // its default is a day, in milliseconds
      });
    }
    case 'mongodb:': {
      const { default: MongoStore } = require('connect-mongo');
      const collectionName = own('collection');
      return MongoStore.create({
        mongoUrl: url.href,
        collectionName,
        ttl,
        // The Go side makes the index by which MongoDB removes what has expired.
        autoRemove: 'disabled',
        crypto: flags.encrypt ? { secret } : undefined,
      });
    }
    default:
      throw new Error('--store does not begin with redis://, postgres://, mysql:// or mongodb://');
  }
}

function openFiles(secret) {
  const FileStore = require('session-file-store')(session);
  return new FileStore({
    path: flags.dir,
    ttl,
    // The secret of the files. With it each get and each set takes some 40 ms, in
    // which this process does nothing else, and a file that it cannot decrypt kills it.
    secret: flags.encrypt ? secret : undefined,
    // By default a missing file is looked for six times, which takes a quarter of a
    // second for each stale cookie. Here no file is missing for a moment only: the Go
    // side replaces files in one step, and on this side each redirect waits for save.
    retries: 0,
    // The default prints a line for each retry and each pass of the reaper.
    logFn: () => {},
    // Only the Go side reaps: Node's reaper deletes files that it cannot parse, and
    // takes no lock, so that it can delete a session that is just being renewed.
    reapInterval: -1,
  });
}

// where says where the sessions are, for people: without the URL's user, password and parameters.
function where() {
  if (!flags.store) return flags.dir;
  const url = new URL(flags.store);
  return `${url.protocol}//${url.host}${url.pathname}`;
}

const app = express();
app.disable('x-powered-by');
app.use((req, res, next) => {
  res.set('Cache-Control', 'no-store'); // each page depends on the visitor
  res.set('Content-Security-Policy', "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; " +
    `img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors ${flags.beside || "'none'"}`);
  res.set('X-Content-Type-Options', 'nosniff');
  next();
});

// What both sides look like. It needs no session.
for (const [at, name] of [['/style.css', 'style.css'], ['/live.js', 'live.js'], ['/icon.svg', 'icon.svg'], ['/favicon.ico', 'icon.svg']]) {
  app.get(at, (req, res) => res.type(path.extname(name)).sendFile(path.join(__dirname, '..', 'live', name), { cacheControl: false }));
}

// As http.CrossOriginProtection on the Go side: no POST from other sites.
app.use((req, res, next) => {
  const from = req.get('Sec-Fetch-Site');
  const origin = req.get('Origin');
  const foreign = from ? from !== 'same-origin' && from !== 'none' : origin && !origin.endsWith('//' + req.get('Host'));
  if (foreign && req.method !== 'GET' && req.method !== 'HEAD') return res.status(403).type('text').send('cross-origin request\n');
  next();
});

const secret = loadSecret(flags.dir);

app.use(session({
  name: cookieName,
  secret,
  // An unchanged session is touched, not written: true would write this
  // process's copy over what the Go side has stored meanwhile.
  resave: false,
  // A visitor in whose session nothing was put gets no file and no cookie.
  saveUninitialized: false,
  // The defaults of package session. A session keeps the attributes of the side
  // that made it, so that both sides should have the same.
  cookie: { maxAge, httpOnly: true, sameSite: 'lax' },
  store: openStore(secret),
}));

// A page that looks by itself must not touch the session, which would never end. And as Node takes no lock, a touch could
// undo what the Go side writes at the same moment. express-session leaves alone what has no id.
app.use((req, res, next) => {
  if (req.method === 'GET' && req.get('X-Requested-With') === 'live.js') req.sessionID = undefined;
  next();
});

const escape = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const column = ({ server, user, views }, wrong) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${server}</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/style.css">
<script src="/live.js" data-page="/column" defer></script>
</head>
<body class="column">
<main>
<h1>${server}</h1>
<div class="count" id="counter" data-live>
<p class="number" id="count">${escape(views)}</p>
<form method="post" action="/count" data-stay><button id="plus">Count</button></form>
</div>
<div id="user" data-live="for ${escape(user)}">
${user ? `<p>Hello, <b id="who">${escape(user)}</b>.</p>
<form method="post" action="/logout" data-stay><button class="plain" id="logout">Log out</button></form>
` : `${wrong ? `<p class="notice bad" role="alert">Wrong username or password.</p>
` : ''}<form class="login" method="post" action="/login">
<label>Username <input id="username" name="username" autocomplete="username" autocapitalize="none" placeholder="user1" required></label>
<label>Password <input id="password" name="password" type="password" autocomplete="current-password" placeholder="mypassword" required></label>
<button>Log in</button>
</form>
`}</div>
</main>
</body>
</html>
`;

const stateOf = (s) => ({ server: 'Express', user: s.user || '', views: s.views || 0 });

app.get('/', (req, res) => res.redirect('/column'));

app.get('/column', (req, res) => {
  res.send(column(stateOf(req.session)));
});

app.post('/count', (req, res, next) => {
  req.session.views = stateOf(req.session).views + 1;
  req.session.save((err) => (err ? next(err) : res.redirect('/column'))); // why: see the login
});

app.get('/views', (req, res) => {
  res.json(stateOf(req.session));
});

const same = (a, b) => {
  const digest = (s) => crypto.createHash('sha256').update(String(s)).digest();
  return crypto.timingSafeEqual(digest(a), digest(b));
};

app.post('/login', express.urlencoded({ extended: false }), (req, res, next) => {
  const { username, password } = req.body || {};
  // In the clear, because everybody may log in here. In your program keep hashes.
  if (username !== 'user1' || !same(password, 'mypassword')) {
    return res.status(401).send(column(stateOf(req.session), true));
  }
  // regenerate makes worthless any id that somebody planted in the browser before. It empties the
  // session: what is to stay must be put in again. The members that the Go side has for its own use,
  // __authenticated and __note, must not: this is not a login of the Go side.
  const { views } = req.session;
  req.session.regenerate((err) => {
    if (err) return next(err);
    req.session.user = username;
    req.session.views = views;
    // Without save the header of a redirect leaves before express-session has stored
    // the session: a browser that follows it at once would not be logged in yet.
    req.session.save((err) => (err ? next(err) : res.redirect('/column')));
  });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((err) => {
    if (err) return next(err);
    res.clearCookie(cookieName, { path: '/' });
    res.redirect('/column');
  });
});

app.use((err, req, res, next) => {
  console.error('express example:', err);
  if (res.headersSent) return next(err);
  res.status(500).type('text').send('Internal Server Error\n');
});

const colon = flags.addr.lastIndexOf(':');
const server = app.listen(Number(flags.addr.slice(colon + 1)), flags.addr.slice(0, colon).replace(/^\[|\]$/g, ''), (err) => {
  if (err) {
    console.error('express example:', err.message);
    process.exit(1);
  }
  const { address, port, family } = server.address();
  console.log(`Express: http://${family === 'IPv6' ? `[${address}]` : address}:${port}  sessions in ${where()}`);
});

let ending = false;
function end() {
  if (ending) return;
  ending = true;
  server.close(() => process.exit()); // when what is under way is answered
  setTimeout(() => process.exit(), 5000).unref();
}
process.on('SIGTERM', end);
// Ctrl-C reaches both sides. main.go ends this one when its own requests are answered: it closes stdin, as the system does
// if main.go is killed.
process.on('SIGINT', () => flags.beside || end());
if (flags.beside) process.stdin.on('end', end).resume();
