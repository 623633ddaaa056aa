package session

import "encoding/json"

// UniteFlash lets the fuzzer call uniteFlash.
func UniteFlash(base, mine, now json.RawMessage) json.RawMessage {
	return uniteFlash(base, mine, now, map[string]bool{"b": true})
}
