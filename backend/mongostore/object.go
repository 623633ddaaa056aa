package mongostore

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sessionfilestore/filestore"
	"github.com/sessionfilestore/filestore/internal/format"
)

// connect-mongo with stringify: false has the session as an object of MongoDB. It becomes JSON as JSON.stringify
// would make it, and JSON becomes an object as Node's driver would make it. Of an object that is there, all that is
// the same as JSON stays as it is, because MongoDB has more types than JSON.

// text returns the session that v is as a string, or an error that is filestore.ErrCorrupt.
func text(v bson.RawValue) (string, error) {
	switch v.Type {
	case bson.TypeString:
		return v.StringValue(), nil
	case bson.TypeEmbeddedDocument:
		doc, err := appendObject(nil, v, "session")
		if err != nil {
			return "", fmt.Errorf("%w: %w", filestore.ErrCorrupt, err)
		}
		return string(doc), nil
	}
	return "", fmt.Errorf("%w: it is neither a string nor an object", filestore.ErrCorrupt)
}

func rawString(s string) bson.RawValue {
	t, b, _ := bson.MarshalValue(s) // a string always has a value
	return bson.RawValue{Type: t, Value: b}
}

// appendValue appends v as JSON.
func appendValue(b []byte, v bson.RawValue) ([]byte, error) {
	switch v.Type {
	case bson.TypeNull:
		return append(b, "null"...), nil
	case bson.TypeBoolean:
		return strconv.AppendBool(b, v.Boolean()), nil
	case bson.TypeInt32:
		return strconv.AppendInt(b, int64(v.Int32()), 10), nil
	case bson.TypeInt64:
		return strconv.AppendInt(b, v.Int64(), 10), nil
	case bson.TypeDouble:
		return append(b, number(v.Double())...), nil
	case bson.TypeString:
		s := v.StringValue()
		if !utf8.ValidString(s) {
			return nil, errors.New("a string is not UTF-8")
		}
		return format.AppendString(b, s), nil
	case bson.TypeDateTime:
		return append(b, date(v.DateTime())...), nil
	case bson.TypeObjectID:
		return append(append(append(b, '"'), v.ObjectID().Hex()...), '"'), nil
	case bson.TypeEmbeddedDocument:
		return appendObject(b, v, "")
	case bson.TypeArray:
		all, err := v.Array().Values()
		b = append(b, '[')
		for i, v := range all {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValue(b, v); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), err
	}
	return nil, fmt.Errorf("a value is a %v, which JSON does not have", v.Type)
}

// appendObject appends the object v; name says whether it is the session or its cookie.
func appendObject(b []byte, v bson.RawValue, name string) ([]byte, error) {
	all, err := v.Document().Elements()
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(all))
	b = append(b, '{')
	comma := false
	for _, m := range all {
		key, v := m.Key(), m.Value()
		if seen[key] || !utf8.ValidString(key) {
			return nil, errors.New("a member occurs twice, or its name is not UTF-8")
		}
		seen[key] = true
		if name == "cookie" && v.Type == bson.TypeNull && slices.Contains(undefined, key) {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(format.AppendString(b, key), ':')
		if name == "session" && key == "cookie" && v.Type == bson.TypeEmbeddedDocument {
			b, err = appendObject(b, v, key)
		} else {
			b, err = appendValue(b, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// The members of a cookie, in the order of express-session. In an object those are null that are undefined in Node;
// the ones that JSON.stringify then leaves out are also in undefined.
var (
	cookie    = []string{"originalMaxAge", "partitioned", "priority", "expires", "secure", "httpOnly", "domain", "path", "sameSite"}
	undefined = []string{"partitioned", "priority", "secure", "domain", "sameSite"}
)

// number returns f as JavaScript prints it.
func number(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return "null"
	}
	raw, _ := json.Marshal(f + 0) // which makes 0 of -0; the rest encoding/json prints as JavaScript does
	return string(raw)
}

const dateLayout = `"2006-01-02T15:04:05.000Z"`

// date returns the JSON of a Date of so many milliseconds. A year of more than four digits has a sign and six.
func date(ms int64) string {
	t := time.UnixMilli(ms).UTC()
	switch y := t.Year(); {
	case ms > 8.64e15 || ms < -8.64e15: // there JavaScript's dates end
		return "null"
	case y < 0 || y > 9999:
		return fmt.Sprintf(`"%+07d`, y) + t.Format(`-01-02T15:04:05.000Z"`)
	}
	return t.Format(dateLayout)
}

// object returns the object for the JSON doc in the place of old.
func object(doc string, old bson.RawValue) (any, error) {
	if !json.Valid([]byte(doc)) {
		return nil, errors.New("the document is not JSON")
	}
	return objectOf(doc, old, "session")
}

// value returns what MongoDB has for the JSON raw in the place of old.
func value(raw string, old bson.RawValue) (any, error) {
	if was, err := appendValue(nil, old); err == nil && string(was) == raw {
		return old, nil
	}
	switch raw[0] {
	case '{':
		return objectOf(raw, old, "")
	case '[':
		var all []json.RawMessage
		if err := json.Unmarshal([]byte(raw), &all); err != nil {
			return nil, err
		}
		var was []bson.RawValue
		if old.Type == bson.TypeArray {
			was, _ = old.Array().Values()
		}
		list := make(bson.A, len(all))
		for i, raw := range all {
			var old bson.RawValue
			if i < len(was) {
				old = was[i]
			}
			var err error
			if list[i], err = value(string(raw), old); err != nil {
				return nil, err
			}
		}
		return list, nil
	case '"':
		if _, ok := format.KeyOf(raw); !ok || !utf8.ValidString(raw) {
			return nil, errors.New("a string is not Unicode, which MongoDB cannot hold")
		}
		return format.String(raw), nil
	case 't', 'f':
		return raw == "true", nil
	case 'n':
		return nil, nil
	}
	return numberOf(raw)
}

// numberOf returns the number raw as Node's driver would store it, or as 64 bits if JavaScript does not have it.
func numberOf(raw string) (any, error) {
	want, _ := format.KeyOf(raw)
	if f, err := strconv.ParseFloat(raw, 64); err == nil {
		if got, _ := format.KeyOf(number(f)); got == want {
			if n := int32(f); float64(n) == f && (n != 0 || !math.Signbit(f)) {
				return n, nil
			}
			return f, nil
		}
	}
	if n, err := strconv.ParseInt(raw, 10, 64); err == nil {
		return n, nil
	}
	return nil, errors.New("MongoDB cannot hold a number exactly")
}

// objectOf returns the object raw in the place of old; name says whether it is the session or its cookie.
func objectOf(raw string, old bson.RawValue, name string) (any, error) {
	var was bson.Raw
	if old.Type == bson.TypeEmbeddedDocument {
		was = old.Document()
		if same, err := appendObject(nil, old, name); err == nil && string(same) == raw {
			return old, nil
		}
	}
	doc := bson.D{}
	at := make(map[string]int)
	add := func(key string, v any) {
		if i, twice := at[key]; twice { // the last counts, as in Node
			doc[i].Value = v
			return
		}
		at[key] = len(doc)
		doc = append(doc, bson.E{Key: key, Value: v})
	}
	if name == "cookie" {
		for _, key := range cookie {
			add(key, nil)
		}
	}
	for m := range format.Members(raw) {
		old := was.Lookup(m.Name)
		var v any
		var err error
		switch {
		case name == "session" && m.Name == "cookie" && m.Raw[0] == '{':
			v, err = objectOf(m.Raw, old, "cookie")
		case name == "cookie" && m.Name == "expires":
			v, err = expires(m.Raw, old)
		default:
			v, err = value(m.Raw, old)
		}
		if err != nil {
			return nil, err
		}
		add(m.Name, v)
	}
	return doc, nil
}

// expires returns a cookie's end, which is a Date in Node.
func expires(raw string, old bson.RawValue) (any, error) {
	if t, err := time.Parse(dateLayout, raw); err == nil && old.Type != bson.TypeString {
		return bson.NewDateTimeFromTime(t), nil
	}
	return value(raw, old)
}
