package format

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

// encoding/json would match names in any case and rewrite numbers and lone surrogates. So it only
// judges whether a text is JSON, and the members are cut out of the text.

const space = " \t\r\n" // what JSON allows between tokens

// A Member of an object. Raw is its value as it stands in the object's text.
type Member struct{ Name, Raw string }

// Members yields the members of doc, which must be a valid JSON object.
func Members(doc string) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		skip := func(i int) int {
			for strings.IndexByte(space, doc[i]) >= 0 {
				i++
			}
			return i
		}
		i := skip(skip(0) + 1)
		for doc[i] != '}' {
			end := valueEnd(doc, i)
			name := String(doc[i:end])
			i = skip(skip(end) + 1)
			end = valueEnd(doc, i)
			if !yield(Member{name, doc[i:end]}) {
				return
			}
			if i = skip(end); doc[i] == ',' {
				i = skip(i + 1)
			}
		}
	}
}

// valueEnd returns where the value that starts at doc[i] ends.
func valueEnd(doc string, i int) int {
	depth := 0
	for ; ; i++ {
		switch doc[i] {
		case '"':
			for i++; doc[i] != '"'; i++ {
				if doc[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		default: // a number or a literal goes on until something that cannot be part of it
			if strings.IndexByte(space+",:]}", doc[i+1]) < 0 {
				continue
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
}

// String returns the JSON string raw, "" for any other value.
func String(raw string) string {
	switch {
	case raw[0] != '"':
		return ""
	case strings.IndexByte(raw, '\\') < 0 && utf8.ValidString(raw):
		return raw[1 : len(raw)-1]
	}
	var s string
	json.Unmarshal([]byte(raw), &s)
	return s
}

// True is JavaScript's rule for the JSON value raw, for flags that are not booleans.
func True(raw string) bool {
	switch raw {
	case "true":
		return true
	case "false", "null", `""`:
		return false
	}
	n, err := strconv.ParseFloat(raw, 64)
	return err != nil || n != 0
}

// AppendString appends s as a JSON string.
func AppendString(buf []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			raw, _ := encode(s) // a string always has a JSON form
			return append(buf, raw...)
		}
	}
	return append(append(append(buf, '"'), s...), '"')
}

// Encode returns the JSON of v. It fails if v holds a string that is not UTF-8: encoding/json would
// write the escape of U+FFFD, without an error.
func Encode(v any) ([]byte, error) {
	raw, err := encode(v)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(raw) || bytes.Contains(raw, []byte(`\ufffd`)) && !validText(reflect.ValueOf(v)) {
		return nil, errors.New("filestore: a string is not UTF-8, which JSON cannot hold: use []byte")
	}
	return raw, nil
}

// encode is json.Marshal without its escaping of <, > and &, which Node does not do either.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), err
}

// validText reports whether all strings that v holds are UTF-8. encoding/json has been through v,
// so there are no cycles.
func validText(v reflect.Value) bool {
	if !v.IsValid() {
		return true
	}
	switch t := v.Type(); {
	case t.Implements(reflect.TypeFor[json.Marshaler]()), reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()):
		return true // it writes the JSON itself, with the escapes that it wants
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && v.CanInterface():
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		return err != nil || utf8.Valid(text)
	}
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return validText(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !validText(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for key, elem := range v.Seq2() {
			if !validText(key) || !validText(elem) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if (f.IsExported() || f.Anonymous) && f.Tag.Get("json") != "-" && !validText(v.Field(i)) {
				return false
			}
		}
	}
	return true
}
