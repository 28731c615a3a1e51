package message_test

import (
	"strings"
	"testing"

	"async-data-processor/message"
)

func TestParseFrame(t *testing.T) {
	long := strings.Repeat("r", message.MaxRefBytes)
	for text, want := range map[string]message.Frame{
		`[1]`:                              {Entries: []byte("[1]")},
		" \t\r\n [broken":                  {Entries: []byte(" \t\r\n [broken")}, // Decode says why not
		`{"ref":"17","entries":[{"a":1}]}`: {Ref: "17", Entries: []byte(`[{"a":1}]`)},
		` { "entries" : [ 1, 2 ] , "key" : "a\"b\u0043" , "ref" : "-" } `: {Ref: "-", Key: `a"bC`, Entries: []byte(`[ 1, 2 ]`)},
		`{"ref":"` + long + `","entries":[]}`:                             {Ref: long, Entries: []byte("[]")},
		`{"ref":"1","entries":[{"a":1,"a":"` + "\xff" + `"}]}`:            {Ref: "1", Entries: []byte(`[{"a":1,"a":"` + "\xff" + `"}]`)},
	} {
		got, err := message.ParseFrame([]byte(text))
		if err != nil || got.Ref != want.Ref || got.Key != want.Key || string(got.Entries) != string(want.Entries) {
			t.Errorf("%s: got %+v %q and %v, want %+v", text, got, got.Entries, err, want)
		}
	}
	for text, want := range map[string]string{
		``:                                        "neither an array nor an object",
		`nope`:                                    "neither an array nor an object",
		"\xef\xbb\xbf[]":                          "neither an array nor an object",
		`"[]"`:                                    "neither an array nor an object",
		`{`:                                       "not JSON",
		`{"ref":"1","entries":[}`:                 "not JSON",
		`{"ref":"1","entries":[]`:                 "not JSON",
		`{"ref":"1","entries":[]}}`:               "not JSON",
		`{"ref":"1","entries":[]}[]`:              "not JSON",
		`{"ref":"1",}`:                            "not JSON",
		`{"ref":"1","entries":[],"x":1}`:          "members",
		`{"\u0072ef":"1","entries":[]}`:           "members",
		`{"ref":"1","ref":"1","entries":[]}`:      "members",
		`{"ref":"1","entries":[],"entries":[]}`:   "members",
		`{"ref":"1"}`:                             "array",
		`{"ref":"1","entries":{"a":1}}`:           "array",
		`{"ref":"1","entries":null}`:              "array",
		`{"entries":[]}`:                          "ref must",
		`{"ref":17,"entries":[]}`:                 "ref must",
		`{"ref":"","entries":[]}`:                 "ref must",
		`{"ref":"a b","entries":[]}`:              "ref must",
		`{"ref":"a\u0062","entries":[]}`:          "ref must",
		`{"ref":"é","entries":[]}`:                "ref must",
		`{"ref":"` + long + `r","entries":[]}`:    "ref must",
		`{"ref":"1","key":"","entries":[]}`:       "key must",
		`{"ref":"1","key":null,"entries":[]}`:     "key must",
		`{"ref":"1","key":"a\nb","entries":[]}`:   "key must",
		`{"ref":"1","key":"` + long + long + `"}`: "key must",
		strings.Repeat("{\"ref\":", 100_000):      "not JSON", // deep
	} {
		if got, err := message.ParseFrame([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || got.Entries != nil {
			t.Errorf("%.60s: got %+v and %v, want %q", text, got, err, want)
		}
	}
}

func TestIsJSON(t *testing.T) {
	for text, want := range map[string]bool{
		`[]`: true, ` {"a":1,"a":"` + "\xff" + `"} `: true, ``: false, `[`: false, `[1,]`: false, `[] []`: false, "\xef\xbb\xbf[]": false,
		strings.Repeat("[", 1<<20): false,
	} {
		if got := message.IsJSON([]byte(text)); got != want {
			t.Errorf("%.60q: got %v, want %v", text, got, want)
		}
	}
}

// FuzzParseFrame: what it takes has the parts it says, in the text.
func FuzzParseFrame(f *testing.F) {
	f.Add([]byte(`{"ref":"17","key":"k","entries":[{"a":1}]}`))
	f.Add([]byte(` [1]`))
	f.Add([]byte(`{"ref":"1","entries":[[]]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := message.ParseFrame(text)
		if err != nil {
			return
		}
		if !strings.Contains(string(text), string(got.Entries)) || len(got.Ref) > message.MaxRefBytes || len(got.Key) > message.MaxKeyBytes {
			t.Errorf("got %+v", got)
		}
		if got.Ref != "" && !message.IsJSON(text) {
			t.Error("took what is not JSON")
		}
	})
}
