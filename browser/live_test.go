package browser

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
)

// TestLive: a person looks at what passes, holds it, looks at a message, and goes on. Of
// many messages only those in sight are in the document. What entries contain is text,
// and its numbers are as they were sent.
func TestLive(t *testing.T) {
	addr := start(t, "BATCH_LINGER=100ms", "BATCH_SIZE=1000")
	at := "http://" + addr
	p := newPage(t)
	p.look(1280, "light")
	p.open(at + "/#/live?rate=0&contains=special")
	p.until("main().includes('No message yet') && " + live)
	special := post(t, at, `[{"timestamp":"2019-10-12T07:20:50Z","value":"<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>",
		"note":"special","celsius":21.50,"large":12345678901234567890},{"timestamp":"2019-10-12T07:20:50Z"}]`)
	p.until("found('.tail .plain').length === 1") // the other entry does not match
	p.click(".tail .plain", "")
	p.sees("Paused")
	detail := p.text("document.querySelector('.detail').innerText")
	for _, want := range []string{special + ".0", `"celsius": 21.50`, `"large": 12345678901234567890`, "<img src=x", ".ndjson"} {
		if !strings.Contains(detail, want) {
			t.Errorf("the message is shown as %s\nwant %s in it", detail, want)
		}
	}
	if title := p.text("document.title"); !strings.HasPrefix(title, "Live") {
		t.Errorf("an entry has run a script: the title is %s", title)
	}
	p.press(kb.Escape)
	p.until("!document.querySelector('.detail')")

	p.open(at + "/#/live?rate=0&last=0")
	p.until("main().includes('No message yet') && main().includes('Follows the end') && " + live)
	entries := make([]string, 2500)
	for i := range entries {
		entries[i] = fmt.Sprintf(`{"timestamp":%q,"value":"row %d"}`, time.Unix(int64(i)*61, 0).UTC().Format(time.RFC3339), i)
	}
	post(t, at, "["+strings.Join(entries, ",")+"]")
	p.until(`/2.500 seen/.test(main())`) // all are sent, or their number is told
	if n := p.text("document.querySelectorAll('.tail tr').length <= 100"); n != "true" {
		t.Error("rows that nobody sees are in the document")
	}
	if end := p.text("(e => e.scrollHeight - e.scrollTop - e.clientHeight < 5)(document.querySelector('.tail'))"); end != "true" {
		t.Error("the list does not follow the end")
	}
	p.text("document.querySelector('.tail').scrollTop -= 2000")
	p.sees("Scrolled up: 0 more have come")
	const first = "[...document.querySelectorAll('.tail tr')].find(r => r.getBoundingClientRect().top > document.querySelector('.tail').getBoundingClientRect().top + 30).innerText"
	reads := p.text(first)
	post(t, at, "["+strings.Join(entries[:3], ",")+"]")
	p.sees("Scrolled up: 3 more have come")
	if now := p.text(first); now != reads {
		t.Errorf("what is read moved: %q became %q", reads, now)
	}
	p.click("button", "Go on")
	p.sees("Follows the end")
	p.until("found('.tail .plain').at(-1).textContent.includes('row ')")
	p.alone(addr)
}

// TestTextOfJSON: the page reads what a person writes, and shows JSON, without changing it.
func TestTextOfJSON(t *testing.T) {
	addr := start(t)
	p := newPage(t)
	p.open("http://" + addr + "/")
	const read = `const { body, entryOf, pretty } = await import('/page/json.js');`
	for text, want := range map[string]string{
		`{"a":21.50,"b":[],"c":[1,{"d":"{\","}]}`: "{\n  \"a\": 21.50,\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"{\\\",\"\n    }\n  ]\n}",
		`no JSON, {`: `no JSON, {`,
		`1e400`:      `1e400`,
	} {
		var got string
		if p.run(&got, read+"return pretty("+quote(text)+")"); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`{"type":"message","reason":"\"entry\":","entry":{"a":1.0,"replayed":true},"replayed":true}`: `{"a":1.0,"replayed":true}`,
		`{"type":"message","entry":{"a":1.0,"replayed":true}}`:                                       `{"a":1.0,"replayed":true}`,
		`{"type":"message","id":"x"}`:                                                                ``,
	} {
		var got string
		if p.run(&got, read+"return entryOf("+quote(text)+")"); got != want {
			t.Errorf("the entry of %s is %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]string{
		`[{"a":1}, {"b":[1,2]} ,3]`:     `application/json {"a":1}|{"b":[1,2]}|3 `,
		"{\"a\":\n1}":                   "application/json {\"a\":\n1} ",
		"{\"a\":1}\n\n{\"b\":}\n":       `application/x-ndjson {"a":1}|{"b":} 1`,
		`[{"a":1},`:                     `application/json {"a":1} -1`,
		`[]`:                            `application/json  `,
		``:                              `application/x-ndjson  `,
		`5`:                             `application/json 5 0`,
		"{\"a\":1}\r\n{\"b\":\"[,\"}":   "application/x-ndjson {\"a\":1}\r|{\"b\":\"[,\"} ",
		`[[1,[2]],"],[",{"a":[{},{}]}]`: `application/json [1,[2]]|"],["|{"a":[{},{}]} `,
	} {
		var got string
		p.run(&got, read+"const text = "+quote(text)+`, { type, spans, faults } = body(text);
			return type + ' ' + spans.map(([from, to]) => text.slice(from, to)).join('|') + ' ' + faults.map(f => f.index).join()`)
		if got != want {
			t.Errorf("%q is read as %q, want %q", text, got, want)
		}
	}
}

// TestSearch: the search of the header leads to the view of an id.
func TestSearch(t *testing.T) {
	addr := start(t)
	p := newPage(t)
	p.open("http://" + addr + "/#/submit")
	for text, want := range map[string]string{
		"01M8MHVWDEYAZGNK49BTJY7002":       "#/submissions/01M8MHVWDEYAZGNK49BTJY7002",
		"01m8mhvwdeyazgnk49btjy7002.1":     "#/messages/01M8MHVWDEYAZGNK49BTJY7002.1",
		"85069a6798034680fbfec85115b76a68": "#/dead/85069a6798034680fbfec85115b76a68",
		" order/17?<b> ":                   "#/messages/order%2F17%3F%3Cb%3E",
	} {
		p.fill("Find a message", text)
		p.press(kb.Enter)
		p.until("location.hash === " + quote(want) + " && document.activeElement === document.querySelector('main')") // it moves there with the view
	}
}
