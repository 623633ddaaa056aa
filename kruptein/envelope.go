package kruptein

import (
	"bytes"
	"crypto/aes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
)

// An envelope is the content of a file, under kruptein's names. hmac, ct and aad are text in the encoding
// that encodeas names.
type envelope struct {
	hmac, ct, aad string
	iv, at        []byte // at is the tag, nil with CBC
	salt          [saltSize]byte
	enc           encoding // nil if the file does not show it
}

// marshalJSON writes the same bytes as Node's JSON.stringify.
func (e *envelope) marshalJSON() []byte {
	b := make([]byte, 0, 1024+2*len(e.ct))
	b = quote(append(b, `{"hmac":`...), e.hmac)
	b = quote(append(b, `,"ct":`...), e.ct)
	b = quoteBuffer(append(b, `,"iv":`...), e.iv)
	b = quoteBuffer(append(b, `,"salt":`...), e.salt[:])
	if e.at != nil {
		b = quote(append(b, `,"aad":`...), e.aad)
		b = quoteBuffer(append(b, `,"at":`...), e.at)
	}
	return append(b, '}')
}

// quote appends s as JSON.stringify does. encoding/json would escape U+2028 as well.
func quote[T string | []byte](b []byte, s T) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\t':
			b = append(b, `\t`...)
		case '\n':
			b = append(b, `\n`...)
		case '\f':
			b = append(b, `\f`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			if c < ' ' {
				b = append(b, `\u00`...)
				b = append(b, digits[c>>4], digits[c&15])
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}

// quoteBuffer appends raw as Node's Buffer.toJSON does.
func quoteBuffer(b, raw []byte) []byte {
	b = append(b, `{"type":"Buffer","data":[`...)
	for i, c := range raw {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(c), 10)
	}
	return append(b, `]}`...)
}

// marshalASN1 writes a DER sequence of octet strings, as text.
func (e *envelope) marshalASN1(enc encoding) ([]byte, error) {
	parts := [][]byte{[]byte(e.ct), []byte(e.hmac), e.iv, e.salt[:]}
	if e.at != nil {
		parts = append(parts, e.at, []byte(e.aad))
	}
	der, err := asn1.Marshal(parts)
	return []byte(enc.encode(der)), err
}

// parse reads either form. Like kruptein it accepts members in any order, with space between them. But
// it accepts only one spelling of each value, so that no bit of it can change unnoticed.
func parse(file []byte) (*envelope, error) {
	e := new(envelope)
	var ok bool
	if bytes.HasPrefix(bytes.TrimLeft(file, " \t\r\n"), []byte("{")) {
		ok = e.parseJSON(file)
	} else {
		ok = e.parseASN1(string(file))
	}
	// No cipher takes other sizes: spare the derivation of a key.
	gcm := len(e.iv) == gcmIV && len(e.at) == tagSize && e.aad != ""
	cbc := len(e.iv) == aes.BlockSize && e.at == nil && e.aad == ""
	if !ok || !gcm && !cbc {
		return nil, errNoEnvelope
	}
	return e, nil
}

func (e *envelope) parseJSON(file []byte) bool {
	var m map[string]json.RawMessage // for a struct, encoding/json would ignore the names' case
	if json.Unmarshal(file, &m) != nil {
		return false
	}
	ok := true
	text := func(name string) (s string) {
		ok = ok && unquote(m[name], &s)
		return s
	}
	buffer := func(name string) []byte {
		b, is := unquoteBuffer(m[name])
		ok = ok && is
		return b
	}
	e.hmac, e.ct, e.iv = text("hmac"), text("ct"), buffer("iv")
	salt := buffer("salt")
	if m["aad"] != nil || m["at"] != nil {
		e.aad, e.at = text("aad"), buffer("at")
	}
	return ok && copy(e.salt[:], salt) == len(salt) && len(salt) == saltSize
}

// unquote reads a JSON string. The hexadecimal digits in \u001f must be lower case.
func unquote(raw json.RawMessage, s *string) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] == '\\' {
			i++
			if raw[i] == 'u' && bytes.ContainsAny(raw[i+1:i+5], "ABCDEF") {
				return false
			}
		}
	}
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, s) == nil
}

// unquoteBuffer reads the output of Buffer.toJSON, its data member alone, or a string with a character
// for each byte.
func unquoteBuffer(raw json.RawMessage) ([]byte, bool) {
	if len(raw) == 0 {
		return nil, false
	}
	switch raw[0] {
	case '"':
		var s string
		if !unquote(raw, &s) {
			return nil, false
		}
		return binary{}.decode(s)
	case '{':
		var m map[string]json.RawMessage
		if json.Unmarshal(raw, &m) != nil || string(m["type"]) != `"Buffer"` {
			return nil, false
		}
		raw = m["data"]
	}
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	b := make([]byte, 0, saltSize)
	for digits := range strings.SplitSeq(string(raw[1:len(raw)-1]), ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 8)
		if err != nil || len(b) == saltSize { // no buffer is longer
			return nil, false
		}
		b = append(b, byte(n))
	}
	return b, true
}

func (e *envelope) parseASN1(file string) bool {
	for _, enc := range []encoding{hexadecimal{}, base64ed{}, binary{}} {
		der, ok := enc.decode(file)
		var parts [][]byte
		if !ok {
			continue
		}
		if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 || len(parts) != 4 && len(parts) != 6 {
			continue
		}
		e.ct, e.hmac, e.iv, e.enc = string(parts[0]), string(parts[1]), parts[2], enc
		if len(parts) == 6 {
			e.at, e.aad = parts[4], string(parts[5])
		}
		return copy(e.salt[:], parts[3]) == saltSize && len(parts[3]) == saltSize
	}
	return false
}

// An encoding turns bytes into text, under Node's name for it. decode accepts only what encode returns.
type encoding interface {
	encode([]byte) string
	decode(string) ([]byte, bool)
}

var encodings = map[string]encoding{"": binary{}, "binary": binary{}, "hex": hexadecimal{}, "base64": base64ed{}}

type (
	binary      struct{} // a character for each byte, U+0000 to U+00FF; also called latin1
	hexadecimal struct{}
	base64ed    struct{}
)

func (binary) encode(b []byte) string {
	text := make([]byte, 0, 2*len(b))
	for _, c := range b {
		if c < 0x80 {
			text = append(text, c)
		} else {
			text = append(text, 0xc0|c>>6, 0x80|c&0x3f)
		}
	}
	return string(text)
}

func (binary) decode(s string) ([]byte, bool) {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff { // invalid UTF-8 is U+FFFD
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

func (hexadecimal) encode(b []byte) string { return hex.EncodeToString(b) }

func (hexadecimal) decode(s string) ([]byte, bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && hex.EncodeToString(b) == s
}

func (base64ed) encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func (base64ed) decode(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}
