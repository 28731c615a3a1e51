package message

import "testing"

// TestSample: a sample is as it should be, and its own rules find the timestamp.
func TestSample(t *testing.T) {
	const at = "2019-10-12T07:20:50.52Z"
	for field, want := range map[string]string{
		"":                  `{"timestamp":"2019-10-12T07:20:50.52Z","value":"A","n":1.50}`,
		"/timestamp":        `{"timestamp":"2019-10-12T07:20:50.52Z","value":"A","n":1.50}`,
		"time":              `{"time":"2019-10-12T07:20:50.52Z","value":"A","n":1.50}`,
		`it's "now"`:        `{"it's \"now\"":"2019-10-12T07:20:50.52Z","value":"A","n":1.50}`,
		"/event/time":       `{"event":{"time":"2019-10-12T07:20:50.52Z"},"value":"A","n":1.50}`,
		"/a~1b/c~0d/0":      `{"a/b":{"c~d":{"0":"2019-10-12T07:20:50.52Z"}},"value":"A","n":1.50}`,
		"value":             `{"value":"2019-10-12T07:20:50.52Z","n":1.50}`,
		"/timestamp/at/all": `{"timestamp":{"at":{"all":"2019-10-12T07:20:50.52Z"}},"value":"A","n":1.50}`,
	} {
		r, err := NewRules(field, false, false)
		if err != nil {
			t.Fatal(err)
		}
		got := r.Sample(at, "value", `"A"`, "n", "1.50")
		if string(got) != want {
			t.Errorf("%q: got %s, want %s", field, got, want)
		}
		if _, err := r.instant(got, nil); err != nil && r.path != nil {
			t.Errorf("%q: %s: %v", field, got, err)
		}
	}
}
