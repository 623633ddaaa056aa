package format

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// When a member of a document equals a value that somebody seeks. Each value has a key, and equal values have
// equal keys, so that they can be hashed. The key of a string is "s" and the string. That of a number is "n" and
// its canonical form: a sign, digits without zeros in front or at the end, "e" and a power of ten.

// Keys returns the keys of what value stands for: a string, and a number if it is the JSON of one.
func Keys(value string) (keys []string) {
	if utf8.ValidString(value) {
		keys = append(keys, "s"+value)
	}
	if value != "" && startsNumber(value[0]) && '0' <= value[len(value)-1] && value[len(value)-1] <= '9' && json.Valid([]byte(value)) {
		keys = append(keys, "n"+canonical(value))
	}
	return keys
}

// ValidMember reports whether member can name one: neither it nor a part between dots is empty.
func ValidMember(member string) bool { return !slices.Contains(strings.Split(member, "."), "") }

// Key returns the key of the application's member with this name, in which a dot goes into objects. ok is false if
// there is none, or if it is not a string or a number. A string that is not Unicode has no key.
func (d *Document) Key(member string) (key string, ok bool) {
	head, rest, deep := strings.Cut(member, ".")
	for name, at := range d.members() {
		if name == head {
			return KeyOf(within(d.values[at[0]:at[1]], rest, deep))
		}
	}
	return "", false
}

// MemberOf returns the JSON of the member with this name, in which a dot goes into objects; "" if there is none, or if
// it is not JSON.
func MemberOf(values map[string]json.RawMessage, member string) string {
	head, _, _ := strings.Cut(member, ".")
	if !json.Valid(values[head]) {
		return ""
	}
	return MemberOfValid(values, member)
}

// MemberOfValid is MemberOf for values that are JSON, as those of a session are that was read and not changed.
func MemberOfValid(values map[string]json.RawMessage, member string) string {
	head, rest, deep := strings.Cut(member, ".")
	return within(strings.Trim(string(values[head]), space), rest, deep)
}

// within returns the member of the object raw that rest leads to, if deep, or raw.
func within(raw, rest string, deep bool) string {
	for deep && raw != "" {
		if raw[0] != '{' {
			return ""
		}
		object, head := raw, ""
		raw = ""
		head, rest, deep = strings.Cut(rest, ".")
		for m := range Members(object) {
			if m.Name == head {
				raw = m.Raw // of members that occur twice the last counts
			}
		}
	}
	return raw
}

// KeyOf returns the key of the JSON value raw; "" is no value.
func KeyOf(raw string) (key string, ok bool) {
	switch {
	case raw == "":
		return "", false
	case raw[0] == '"':
		s := String(raw)
		return "s" + s, !strings.Contains(s, "\ufffd") || unicode(raw)
	case startsNumber(raw[0]):
		return "n" + canonical(raw), true
	}
	return "", false
}

func startsNumber(c byte) bool { return c == '-' || '0' <= c && c <= '9' }

// unicode reports whether the JSON string raw is UTF-8 and its surrogates are in pairs. For others String has
// U+FFFD, which is a different string.
func unicode(raw string) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if i++; raw[i] != 'u' {
			continue
		}
		high := surrogate(raw[i-1:])
		if i += 4; high == 0 {
			continue
		}
		if high != 1 || surrogate(raw[i+1:]) != 2 {
			return false
		}
		i += 6
	}
	return utf8.ValidString(raw)
}

// surrogate returns 1 or 2 if raw begins with the escape of the first or the second of a pair.
func surrogate(raw string) int {
	if len(raw) < 6 || raw[:2] != `\u` {
		return 0
	}
	n, err := strconv.ParseUint(raw[2:6], 16, 16)
	switch {
	case err != nil || n < 0xd800 || n > 0xdfff:
		return 0
	case n < 0xdc00:
		return 1
	}
	return 2
}

// canonical returns the canonical form of a JSON number. It takes time and memory in proportion to the length of
// the text, whatever the exponent.
func canonical(number string) string {
	rest, negative := strings.CutPrefix(number, "-")
	exponent := "0"
	if i := strings.IndexAny(rest, "eE"); i >= 0 {
		rest, exponent = rest[:i], rest[i+1:]
	}
	whole, fraction, _ := strings.Cut(rest, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	shift := -len(fraction) + len(digits)
	digits = strings.TrimRight(digits, "0")
	shift -= len(digits)
	if digits == "" {
		return "0" // also -0, and 0e9
	}
	if negative {
		digits = "-" + digits
	}
	return digits + "e" + plus(exponent, int64(shift))
}

// plus returns the sum of a decimal integer of any length and of n, which is less than 1e17, as a decimal integer.
func plus(integer string, n int64) string {
	const low = 18 // digits that fit, with n, into 64 bits
	digits, negative := strings.CutPrefix(strings.TrimPrefix(integer, "+"), "-")
	digits = strings.TrimLeft(digits, "0")
	if len(digits) <= low {
		i, _ := strconv.ParseInt("0"+digits, 10, 64)
		if negative {
			i = -i
		}
		return strconv.FormatInt(i+n, 10)
	}
	if negative {
		n = -n
	}
	const base = 1e18
	head := []byte(digits[:len(digits)-low])
	tail, _ := strconv.ParseInt(digits[len(digits)-low:], 10, 64)
	tail += n
	switch {
	case tail >= base:
		tail -= base
		i := len(head) - 1
		for ; i >= 0 && head[i] == '9'; i-- {
			head[i] = '0'
		}
		if i >= 0 {
			head[i]++
		} else {
			head = append([]byte("1"), head...)
		}
	case tail < 0: // head is at least 1
		tail += base
		i := len(head) - 1
		for ; head[i] == '0'; i-- {
			head[i] = '9'
		}
		head[i]--
	}
	sum := strings.TrimLeft(string(head)+fmt.Sprintf("%0*d", low, tail), "0")
	if negative {
		return "-" + sum
	}
	return sum
}
