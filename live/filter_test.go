package live

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestWhere(t *testing.T) {
	const line = `{"message_id":"a.0","user":{"id":42,"name":"A\u00e9\"","ok":true,"none":null},"list":[{"x":1},"b",1e2],"":{"":"e"},"a/b":"s","m~n":"t","n":42.0}`
	for where, want := range map[string]bool{
		"/user/id=42": true, "/user/id=42.0": false, "/user/id=": false, `/user/id="42"`: false, "/n=42.0": true, "/n=42": false,
		`/user/name=Aé"`: true, "/user/ok=true": true, "/user/none=null": true, "/user/none=": false,
		"/list/0/x=1": true, "/list/1=b": true, "/list/2=1e2": true, "/list/3=1": false, "/list/01=b": false, "/list/-=b": false,
		"//=e": true, "/a~1b=s": true, "/m~0n=t": true, "/m~01=t": false, "/user={}": false, "/list=": false, "/missing/x=": false,
		"/user/id/x=42": false, "/message_id=a.0": true, "/user/id=4=2": false,
	} {
		w, err := parseWhere(where)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Filter{Where: []Where{w}}.compile()
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if got := f.matches(0, nil, func() []byte { return []byte(line) }); got != want {
			t.Errorf("%s: %v, want %v", where, got, want)
		}
	}
	all := []Where{{"/user/id", "42"}, {"/list/1", "b"}, {"/user/id", "42"}}
	for last, want := range map[string]bool{"s": true, "other": false} {
		f, _ := Filter{Where: append(all, Where{"/a~1b", last}), Contains: `"x":1`, Shards: []int{3, 1, 3}, Submission: "a"}.compile()
		if got := f.matches(3, []byte("a.0"), func() []byte { return []byte(line) }); got != want {
			t.Errorf("with all, and %s: %v", last, got)
		}
		if f.matches(2, []byte("a.0"), nil) || f.matches(3, []byte("ab.0"), nil) {
			t.Error("of another shard, or submission")
		}
	}
	if f, _ := (Filter{Contains: "}x"}).compile(); f.matches(0, nil, func() []byte { return []byte(line) }) {
		t.Error("it does not contain that")
	}
	for _, broken := range []string{"", "x", "[", `{"user":{"id":42`, `{"user":`, "nul"} {
		if f, _ := (Filter{Where: all[:1]}).compile(); f.matches(0, nil, func() []byte { return []byte(broken) }) {
			t.Errorf("%q matches", broken)
		}
	}
}

func TestQueryBounds(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, q := range map[string]Query{
		"stage": {Stage: "other"}, "payload": {Payload: "some"}, "shard": {Shards: []int{-1}}, "high shard": {Shards: []int{maxShards}},
		"shards": {Shards: make([]int, MaxQueryShards+1)}, "last": {Last: MaxLast + 1}, "negative last": {Last: -1},
		"rate": {Rate: MaxRate + 1}, "limit": {Limit: -1}, "contains": {Contains: long(MaxContains + 1)},
		"submission": {Submission: long(maxSubmission + 1)}, "where": {Where: make([]Where, MaxWhere+1)},
		"long where": {Where: []Where{{"/" + long(MaxWhereBytes), ""}}}, "no pointer": {Where: []Where{{"a", "b"}}},
		"whole": {Where: []Where{{"", "b"}}}, "escape": {Where: []Where{{"/a~2", "b"}}}, "escape at the end": {Where: []Where{{"/a~", "b"}}},
		"deep": {Where: []Where{{strings.Repeat("/a", maxTokens+1), ""}}},
	} {
		if err := check(q); !errors.Is(err, ErrQuery) || len(err.Error()) > 200 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, q := range map[string]Query{
		"nothing": {}, "all": {
			Stage: StageDead, Payload: PayloadHead, Shards: []int{0, maxShards - 1}, Last: MaxLast, Rate: MaxRate, Limit: MaxLimit,
			Contains: long(MaxContains), Submission: long(maxSubmission), Where: []Where{{strings.Repeat("/a", maxTokens), long(900)}}, After: "what",
		},
	} {
		if err := check(q); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseWhere("/a"); !errors.Is(err, ErrQuery) {
		t.Error(err)
	}
}

func TestMask(t *testing.T) {
	p, err := parsePointers([]string{"/user/email", "/card", "/list/1", "/deep", "/deep/er", "/a~1b"})
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		`{"user":{"email":"a@b","id":1},"card":[1,{"x":2}],"list":[1,2,3]}`: `{"user":{"email":"***","id":1},"card":"***","list":[1,"***",3]}`,
		`{"deep":{"er":1,"est":2},"z":1}`:                                   `{"deep":"***","z":1}`,
		`{"deep":7}`:                                                        `{"deep":"***"}`,
		`{"card": "x" , "card":null}`:                                       `{"card": "***" , "card":"***"}`,
		`{"\u0063ard":"x","a/b":1}`:                                         `{"\u0063ard":"***","a/b":"***"}`,
		`{"user":"email"}`:                                                  `{"user":"email"}`,
		`{"card":"x"`:                                                       mask,
		`card=x`:                                                            mask,
		``:                                                                  mask,
	} {
		if got := string(p.masked([]byte(line))); got != want {
			t.Errorf("%s is masked as %s, want %s", line, got, want)
		}
	}
}

// FuzzMask: nothing of what is redacted is left, and all else stays as it is.
func FuzzMask(f *testing.F) {
	f.Add(`{"card":"secret","a":[1]}`, "/card")
	f.Add(`{"a":{"b":["x",{"c":1e3}]}}`, "/a/b/1/c")
	f.Add(`{"a":{"b":1}}`, "/a/b/c")
	f.Add(`[]`, "//~0~1")
	f.Fuzz(func(t *testing.T, line, pointer string) {
		p, err := parsePointers([]string{pointer})
		if err != nil {
			return
		}
		if _, err := (Filter{Where: []Where{{pointer, line[:min(len(line), 10)]}}}).compile(); err != nil && len(pointer)+10 <= MaxWhereBytes {
			t.Error("one takes the pointer and the other does not:", err)
		}
		got := p.masked([]byte(line))
		if !json.Valid([]byte(line)) {
			return
		}
		var values []string
		if err := p.find([]byte(line), func(_, from, to int) { values = append(values, line[from:to]) }); err != nil {
			if string(got) != mask {
				t.Errorf("%s cannot be read, and %s is left", line, got)
			}
			return
		}
		if !json.Valid(got) {
			t.Errorf("%s is masked as %s", line, got)
		}
		left := 0
		_ = p.find(got, func(_, from, to int) {
			if left++; string(got[from:to]) != mask {
				t.Errorf("%s is masked as %s", line, got)
			}
		})
		if left != len(values) {
			t.Errorf("%d places in %s, %d in %s", len(values), line, left, got)
		}
		for _, v := range values {
			if !json.Valid([]byte(v)) {
				t.Errorf("%q is no value", v)
			}
		}
	})
}

// check returns why a query cannot be viewed.
func check(q Query) error {
	_, err := q.compile()
	return err
}
