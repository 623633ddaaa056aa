package session

import "encoding/json"

// ForgetLost makes the next change without a session the first of the process.
func ForgetLost() { told.Store(false) }

// UniteFlash lets the fuzzer call uniteFlash.
func UniteFlash(base, mine, now json.RawMessage) json.RawMessage {
	return uniteFlash(base, mine, now, map[string]bool{"b": true})
}
