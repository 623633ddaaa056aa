package irisstore

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/kataras/iris/v12/sessions"
)

// A file has a JSON object of the values. What a Transcoder makes of a value is there as it is if that is JSON, and
// else in an object with the one member bytesMember, in base64.
const bytesMember = "$bytes"

type wrapped struct {
	Bytes []byte `json:"$bytes"`
}

func wrap(value any) (json.RawMessage, error) {
	b, err := sessions.DefaultTranscoder.Marshal(value)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	if json.Compact(&compact, b) != nil || bytes.HasPrefix(compact.Bytes(), []byte(`{"`+bytesMember+`"`)) {
		return json.Marshal(wrapped{b})
	}
	return compact.Bytes(), nil
}

func unwrap(b any, outPtr any) error {
	raw := b.(json.RawMessage)
	if bytes.HasPrefix(raw, []byte(`{"`+bytesMember+`"`)) {
		var w wrapped
		if err := json.Unmarshal(raw, &w); err != nil {
			return errors.New("a value is not base64") // the cause may show some of it
		}
		raw = w.Bytes
	}
	return sessions.DefaultTranscoder.Unmarshal(raw, outPtr)
}

func encode(values map[string]any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(values)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func decode(doc []byte) (map[string]any, error) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(doc, &raw) != nil || raw == nil {
		return nil, errors.New("data is not a JSON object") // the cause may show some of it
	}
	values := make(map[string]any, len(raw))
	for key, v := range raw {
		values[key] = v
	}
	return values, nil
}
