package dashboard

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"
)

// maxPage is how many bytes a browser loads for the whole page, compressed.
const maxPage = 150_000

// TestPageIsSmall: the whole page, with its libraries, is what a phone loads in a second.
func TestPageIsSmall(t *testing.T) {
	size := 0
	for place, f := range newSite(files) {
		if place == "/"+description {
			continue // the page does not ask for it
		}
		if n := len(f.zipped.content); n > 0 {
			size += n
		} else {
			size += len(f.plain.content)
		}
	}
	t.Logf("%d bytes", size)
	if size > maxPage {
		t.Errorf("the page takes %d bytes, want at most %d", size, maxPage)
	}
}

// What no file of the page may hold: it would load from elsewhere, or run what it shows.
var (
	otherHost = regexp.MustCompile("(?i)(?:\\b(?:src|href|action|srcset|poster|data)\\s*=|\\burl\\s*\\(|\\bimport\\b|\\bfrom\\b|\\b(?:fetch|open|EventSource|WebSocket|Worker|Request|URL|sendBeacon)\\s*\\()\\s*[(\"'`]*\\s*(?:[a-z][a-z0-9+.-]*:)?//")
	runsText  = regexp.MustCompile(`\b(?:innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|srcdoc|document\.write|createContextualFragment|setHTMLUnsafe|DOMParser)\b|\beval\s*\(|\bnew\s+Function\b|\bset(?:Timeout|Interval)\s*\(\s*["'` + "`" + `]|javascript:`)
	inline    = regexp.MustCompile(`(?i)<script\b[^>]*>\s*[^<\s]|<style\b|\s(?:style|on[a-z]+)\s*=|\bsrcdoc\s*=`)
)

// TestPageKeepsToItself: no file of the page names another host, and none of ours makes
// a program of what it shows. The policy would stop both in a browser; then a view would
// be broken.
func TestPageKeepsToItself(t *testing.T) {
	err := fs.WalkDir(files, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		if _, known := kinds[path.Ext(name)]; !known {
			t.Errorf("%s: there is no Content-Type for it", name)
		}
		if strings.HasSuffix(name, ".LICENSE.txt") {
			return nil
		}
		find := func(what string, r *regexp.Regexp) {
			if found := r.Find(content); found != nil {
				t.Errorf("%s %s: %q", name, what, found)
			}
		}
		find("names another host", otherHost)
		if !strings.HasPrefix(name, "page/vendor/") {
			find("runs what it shows", runsText)
		}
		if path.Ext(name) == ".html" {
			find("has an inline script or style", inline)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPageGuards: the guard finds what it looks for, and nothing else.
func TestPageGuards(t *testing.T) {
	for _, tc := range []struct {
		guard *regexp.Regexp
		text  string
		found bool
	}{
		{otherHost, `<script type="module" src="https://cdn.example/x.js">`, true},
		{otherHost, `<img src=//cdn.example/x.png>`, true},
		{otherHost, `import x from 'https://cdn.example/x.js'`, true},
		{otherHost, `import("http://cdn.example/x.js")`, true},
		{otherHost, `import 'https://cdn.example/x.js'`, true},
		{otherHost, `background: url( "http://cdn.example/x.png")`, true},
		{otherHost, "fetch(`https://cdn.example`)", true},
		{otherHost, `new EventSource("//cdn.example")`, true},
		{otherHost, `/*! https://github.com/x (v1) */ import {h} from './preact.js'; fetch('api/v1/shards') // all`, false},
		{otherHost, `xmlns="http://www.w3.org/2000/svg"`, false},
		{runsText, `a.innerHTML = b`, true},
		{runsText, `eval (x)`, true},
		{runsText, `new Function('x')`, true},
		{runsText, `setTimeout('x()', 1)`, true},
		{runsText, `setTimeout(() => retrieval(x), 1); newFunction(); a.textContent = b`, false},
		{inline, `<script>x()</script>`, true},
		{inline, `<script src="a.js">x()</script>`, true},
		{inline, `<script type="module">import 'x'</script>`, true},
		{inline, `<p style="x">`, true},
		{inline, `<p onclick=x>`, true},
		{inline, `<style>`, true},
		{inline, "<script type=\"module\" src=\"page/app.js\"></script>\n<link rel=\"stylesheet\" href=\"page/style.css\"><noscript>on = off</noscript>", false},
	} {
		if found := tc.guard.MatchString(tc.text); found != tc.found {
			t.Errorf("%q: found %v, want %v", tc.text, found, tc.found)
		}
	}
}
