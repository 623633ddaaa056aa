// Package hertzstore keeps the sessions of github.com/hertz-contrib/sessions, for CloudWeGo's Hertz, in files:
//
//	h.Use(sessions.New("name", hertzstore.New(files, authenticationKey)))
//
// It is [gorillastore] with the Options of hertz-contrib, and what that package promises holds. What
// differs is hertz-contrib's doing:
//
//   - A bad cookie is logged, and so is an error of the store, such as an I/O error. The request goes on with an
//     empty session, and a Save replaces the browser's cookie.
//   - The middleware sets the cookie when the handlers have returned. If a handler panics, or has sent a part of its
//     answer by then, the session is stored, but the browser gets no cookie.
//   - Options, of the Store and of a Session, replace all that was set: without a MaxAge the browser
//     drops the cookie when it ends, without a Path it counts for a part of the site. So at a logout:
//     Options{Path: "/", MaxAge: -1}, then Save. Options has no field for Partitioned.
//   - Save does nothing if the request has called no method that changes the session: what was changed in place
//     needs a Set.
//   - The Store is not told the request's context, so that its calls do not end early: [filestore.Options.LockTimeout]
//     bounds them.
//   - A Session has no method for a new id. A login needs one, so that an id which somebody planted in the
//     browser before is worth nothing: end the old session, and go on with its values.
//
// A login in full:
//
//	session.Options(sessions.Options{Path: "/", MaxAge: -1})
//	err := session.Save() // the old file is gone
//	session.Options(sessions.Options{Path: "/", MaxAge: 86400, HttpOnly: true})
//	session.Set("user", user)
//	err = session.Save() // a new id
//
// If the session was gone already, as by a logout in another request, nothing is stored, but the browser's cookie
// is removed, also one that it has got since.
package hertzstore

import (
	"github.com/hertz-contrib/sessions"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/adapter/gorillastore"
)

// New returns a store on s, which it does not close. The keys come in pairs, one to sign and one to
// encrypt the cookie. The latter may be nil or, in the last pair, left out. Until Options is
// called, which must be before the first request, they are gorillastore's. What New returns also has the
// method MaxAge of gorillastore.Store.
func New(s *filestore.Store, keyPairs ...[]byte) sessions.Store {
	return &store{gorillastore.New(s, keyPairs...)}
}

type store struct {
	*gorillastore.Store
}

func (s *store) Options(options sessions.Options) {
	s.Store.Options = options.ToGorillaOptions()
}
