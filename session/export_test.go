package session

import "encoding/json"

// UniteFlash is for the fuzzer.
func UniteFlash(base, mine, now json.RawMessage) json.RawMessage {
	return uniteFlash(base, mine, now, map[string]bool{"b": true})
}
