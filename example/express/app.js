'use strict';

// The same site as main.go, in Express, on the same directory of sessions:
//
//   node example/express/app.js [--addr 127.0.0.1:3000] [--dir ./sessions] [--encrypt]

const crypto = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const express = require('express');
const session = require('express-session');
const FileStore = require('session-file-store')(session);

const { values: flags } = parseArgs({
  options: {
    addr: { type: 'string', default: '127.0.0.1:3000' },
    dir: { type: 'string', default: './sessions' },
    encrypt: { type: 'boolean', default: false },
  },
});

// session-file-store makes files for all to read, and a session is a login.
process.umask(0o077);

// What must be the same on both sides: the cookie's name, the secret, and the
// names of the session's members (user, views).
const cookieName = 'connect.sid';
const maxAge = 24 * 60 * 60 * 1000;
const minSecret = 8; // bytes, as the Go side wants them

// loadSecret returns $SESSION_SECRET, else the contents of <dir>.secret, which
// the first process to need it makes. A link appears with its contents, and
// never in place of another: whoever comes second reads the first one's secret.
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

const app = express();
app.disable('x-powered-by');
app.use((req, res, next) => {
  res.set('Cache-Control', 'no-store'); // each page depends on who asks
  next();
});

// What http.CrossOriginProtection does on the Go side: no POST from other sites.
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
  // No file, and no cookie, for visitors who have nothing to be remembered.
  saveUninitialized: false,
  // As package session does without being told. A session keeps the attributes
  // of the side that made it, so both should want the same.
  cookie: { maxAge, httpOnly: true, sameSite: 'lax' },
  store: new FileStore({
    path: flags.dir,
    ttl: 60 * 60, // for sessions without a maxAge; the Go side's default
    // Of the files. Each get and each set then takes some 40 ms, in which this
    // process does nothing else, and a file that it cannot decrypt kills it.
    secret: flags.encrypt ? secret : undefined,
    // A missing file is looked for six times otherwise, a quarter of a second
    // long: for each stale cookie. The Go side replaces files in one step, and
    // here each redirect waits for save, so nothing is missing for a moment only.
    retries: 0,
    // It would print a line for each retry and each pass of the reaper.
    logFn: () => {},
    // Only the Go side reaps: this reaper deletes what it cannot parse, and
    // takes no lock against a session that is being renewed.
    reapInterval: -1,
  }),
}));

const escape = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

const page = ({ server, user, views }) => `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>${server}</title>
<h1>This is ${server}</h1>
<p>Views: ${views}</p>
${user ? `<p>Hello, ${escape(user)}.</p>
<form method="post" action="/logout"><button>Log out</button></form>
` : `<form method="post" action="/login">
<input name="username" placeholder="user1" required>
<input name="password" placeholder="mypassword" type="password" required>
<button>Log in</button>
</form>
`}</html>
`;

const stateOf = (s) => ({ server: 'Node', user: s.user || '', views: s.views || 0 });

app.get('/', (req, res) => {
  req.session.views = stateOf(req.session).views + 1;
  res.send(page(stateOf(req.session)));
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
  // In the clear because all the world is to log in here: keep hashes instead.
  if (username !== 'user1' || !same(password, 'mypassword')) {
    return res.status(401).type('text').send('Wrong username or password.\n');
  }
  // An id that somebody planted in the browser before is worth nothing after.
  req.session.regenerate((err) => {
    if (err) return next(err);
    req.session.user = username;
    // The header of a redirect leaves before express-session has stored the
    // session; a browser that follows it at once would not be logged in yet.
    req.session.save((err) => (err ? next(err) : res.redirect('/')));
  });
});

app.post('/logout', (req, res, next) => {
  req.session.destroy((err) => {
    if (err) return next(err);
    res.clearCookie(cookieName, { path: '/' });
    res.redirect('/');
  });
});

app.use((err, req, res, next) => {
  console.error('express example:', err);
  if (res.headersSent) return next(err);
  res.status(500).type('text').send('Internal Server Error\n');
});

const colon = flags.addr.lastIndexOf(':');
const server = app.listen(Number(flags.addr.slice(colon + 1)), flags.addr.slice(0, colon).replace(/^\[|\]$/g, ''), (err) => {
  if (err) throw err;
  const { address, port, family } = server.address();
  console.log(`Node: http://${family === 'IPv6' ? `[${address}]` : address}:${port}  sessions in ${flags.dir}`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => server.close(() => process.exit()));
}
