package server

import (
	"strings"
	"testing"

	"async-data-processor/message"
)

// TestKeysOfATokenAreItsOwn: the same key and body of two clients are two
// submissions, and those of one client are one, whichever of its tokens it sends.
func TestKeysOfATokenAreItsOwn(t *testing.T) {
	rg := start(t, Config{Tokens: []string{"a:one", "b:two", "a:three", "four", "five"}})
	id := func(token string) string {
		t.Helper()
		return want201(t, rg.post(entry, "Idempotency-Key", "k", "Authorization", "Bearer "+token), 1)
	}
	seen := map[string]string{message.WithCount(message.KeyedID("k", []byte(entry)), 1): "no token"}
	for _, token := range []string{"one", "two", "four", "five"} {
		if other, ok := seen[id(token)]; ok {
			t.Errorf("%q has the id of %s", token, other)
		}
		seen[id(token)] = token // and so the same again
	}
	if id("three") != id("one") {
		t.Error("two tokens of one client have two ids")
	}
	for _, bad := range []string{"a:one", "a", ":one", "b:one"} {
		wantProblem(t, rg.post(entry, "Idempotency-Key", "k", "Authorization", "Bearer "+bad), unauthorized)
	}

	open := start(t, Config{})
	if got := want201(t, open.post(entry, "Idempotency-Key", "k", "Authorization", "Bearer one"), 1); seen[got] != "no token" {
		t.Errorf("without tokens the id is %s, want that of the key alone", got)
	}
}

// TestScopesForever pins the scopes, as a client may retry after an upgrade. Never
// change what it wants.
func TestScopesForever(t *testing.T) {
	got := hashTokens([]string{"sensors:x", "x"})
	if got[0].scope != "sensors" || got[1].scope != ":2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" {
		t.Errorf("got the scopes %q and %q", got[0].scope, got[1].scope)
	}
}

func TestParseToken(t *testing.T) {
	long := strings.Repeat("n", 64)
	for text, want := range map[string][2]string{
		"secret": {"", "secret"}, "a:secret": {"a", "secret"}, "A.b_c-9:x:y": {"A.b_c-9", "x:y"}, long + ":s": {long, "s"},
	} {
		if name, token, err := ParseToken(text); name != want[0] || token != want[1] || err != nil {
			t.Errorf("%q: got %q, %q, %v", text, name, token, err)
		}
	}
	for _, text := range []string{"", ":", ":secret", "a:", "a b:secret", "ä:secret", "n" + long + ":secret"} {
		_, token, err := ParseToken(text)
		if err == nil || token != "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %q, %v", text, token, err)
		}
		// It lets no client in, and does not open the server.
		rejects := hashTokens([]string{text})
		for _, bearer := range []string{"secret", text} {
			if i := rejects.match(bearer); i >= 0 {
				t.Errorf("%q lets %q in", text, bearer)
			}
		}
	}
}
