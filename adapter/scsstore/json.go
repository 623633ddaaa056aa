package scsstore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// JSONCodec is an scs.Codec whose sessions can be read in their files:
//
//	sessions.Codec = scsstore.JSONCodec{}
//
// It holds what scs has methods for: string, bool, int, int32, int64, float64, []byte and time.Time, and
// also nil, []any and map[string]any of these, and gives each back as the type that it was. Encode
// refuses anything else. What JSON cannot tell apart is written as an object such as
// {"$type":"int64","value":5}; a number with a point or an exponent is a float64, one without an int.
// Sessions that scs.GobCodec has encoded are errors to it, and the other way round: changing the codec
// ends sessions.
type JSONCodec struct{}

const typeMember = "$type"

// typed is the form of what JSON has no form for.
type typed struct {
	Type  string `json:"$type"`
	Value any    `json:"value"`
}

// Encode returns a JSON object with the members deadline and values.
func (JSONCodec) Encode(deadline time.Time, values map[string]interface{}) ([]byte, error) {
	members, err := wrapMap(values)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err = enc.Encode(struct {
		Deadline time.Time      `json:"deadline"`
		Values   map[string]any `json:"values"`
	}{deadline, members})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func wrapMap(values map[string]any) (map[string]any, error) {
	m := make(map[string]any, len(values))
	for name, v := range values {
		w, err := wrap(v)
		if err != nil {
			return nil, fmt.Errorf("%w, in %q", err, name)
		}
		if !utf8.ValidString(name) {
			return nil, errors.New("scsstore: JSONCodec cannot hold a name that is not UTF-8")
		}
		m[name] = w
	}
	return m, nil
}

// wrap returns what encoding/json shall write for v.
func wrap(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return typed{"string", base64.StdEncoding.EncodeToString([]byte(v))}, nil
		}
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return typed{"float64", strconv.FormatFloat(v, 'g', -1, 64)}, nil
		}
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return json.RawMessage(text), nil
	case int32:
		return typed{"int32", v}, nil
	case int64:
		return typed{"int64", v}, nil
	case []byte:
		return typed{"bytes", base64.StdEncoding.EncodeToString(v)}, nil
	case time.Time:
		if _, offset := v.Zone(); offset%60 != 0 {
			v = v.UTC() // as RFC 3339 has no seconds there
		}
		text := v.Format(time.RFC3339Nano)
		if again, err := time.Parse(time.RFC3339Nano, text); err != nil || !again.Equal(v) {
			return nil, errors.New("scsstore: JSONCodec cannot hold this time")
		}
		return typed{"time", text}, nil
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = wrap(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	case map[string]any:
		m, err := wrapMap(v)
		if _, ok := v[typeMember]; ok {
			return typed{"map", m}, err
		}
		return m, err
	}
	return nil, fmt.Errorf("scsstore: JSONCodec cannot hold a %T", v)
}

// Decode reads what Encode wrote.
func (JSONCodec) Decode(b []byte) (time.Time, map[string]interface{}, error) {
	var doc struct {
		Deadline time.Time      `json:"deadline"`
		Values   map[string]any `json:"values"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		return time.Time{}, nil, errors.New("scsstore: the session is not of JSONCodec")
	}
	values, err := unwrapMap(doc.Values)
	if err != nil {
		return time.Time{}, nil, errors.New("scsstore: the session has a value that JSONCodec did not write") // whose text the cause shows
	}
	return doc.Deadline, values, nil
}

func unwrapMap(m map[string]any) (map[string]any, error) {
	values := make(map[string]any, len(m))
	for name, v := range m {
		var err error
		if values[name], err = unwrap(v); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func unwrap(v any) (any, error) {
	switch v := v.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return v.Float64()
		}
		return strconv.Atoi(v.String())
	case []any:
		for i := range v {
			var err error
			if v[i], err = unwrap(v[i]); err != nil {
				return nil, err
			}
		}
		return v, nil
	case map[string]any:
		if _, ok := v[typeMember]; ok {
			return unwrapTyped(v)
		}
		return unwrapMap(v)
	}
	return v, nil
}

func unwrapTyped(m map[string]any) (any, error) {
	text, isText := m["value"].(string)
	number, _ := m["value"].(json.Number)
	switch t := m[typeMember]; {
	case t == "int32":
		n, err := strconv.ParseInt(number.String(), 10, 32)
		return int32(n), err
	case t == "int64":
		return strconv.ParseInt(number.String(), 10, 64)
	case t == "float64" && isText:
		return strconv.ParseFloat(text, 64)
	case t == "bytes" && isText:
		return base64.StdEncoding.DecodeString(text)
	case t == "string" && isText:
		b, err := base64.StdEncoding.DecodeString(text)
		return string(b), err
	case t == "time" && isText:
		return time.Parse(time.RFC3339Nano, text)
	case t == "map":
		if inner, ok := m["value"].(map[string]any); ok {
			return unwrapMap(inner)
		}
	}
	return nil, errors.New("unknown type")
}
