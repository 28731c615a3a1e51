package browser

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// view is a page of the page, and what tells that it shows what is there.
type view struct{ title, path, shows string }

// viewsOf are all views, of a system with a submission in a file.
func viewsOf(submission string) []view {
	rows := func(least int) string { return fmt.Sprintf("found('main tbody tr').length >= %d", least) }
	return []view{
		{"Overview", "", "/All is well|Nothing is broken/.test(main()) && document.querySelectorAll('canvas').length === 4 && found('.flow b').some(e => Number(e.textContent) > 0)"},
		{"Shards", "shards", rows(3)},
		{"Shard 1", "shards/1", "/Owner/.test(main()) && " + rows(1)},
		{"Workers", "workers", rows(3)},
		{"Nodes", "nodes", rows(1)},
		{"Live", "live", rows(3)},
		{"Submit", "submit", "found('button', 'Send').length === 1"},
		{"Submission", "submissions/" + submission, "main().includes('The entry is in a file')"},
		{"Dead letters", "dead", "/dead letter/.test(main())"},
		{"Tasks over dead letters", "dead/tasks", "main().length > 20"},
		{"Message", "messages/" + submission + ".0", "main().includes('It is in a file') && main().includes('.ndjson')"},
		{"Commands", "commands", "main().length > 20"},
		{"Settings", "settings", "main().includes('SHARDS_COUNT')"},
	}
}

// viewsOfJobs are those of a system with an engine, a runner, and a run.
func viewsOfJobs(run string) []view {
	return []view{
		{"Jobs", "jobs", "found('main tbody tr').length === 6"},
		{"Job", "jobs/writes-much", "main().includes('seq 12000')"},
		{"Runs", "runs", "found('main tbody tr').length >= 1"},
		{"Run", "runs/" + run, "main().includes('It succeeded') && found('.log').length === 1"},
		{"Runners", "runners", "main().includes(" + quote(worker) + ")"},
	}
}

// TestViews: every view shows what is there, over both kinds of brokers, and is fit for
// all readers: narrow screens, dark ones, and programs that read aloud.
func TestViews(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		const base = "/adp"
		f := startJobs(t, "BASE_PATH="+base, "SHARDS_COUNT=3")
		f.runner(t, base)
		everyView(t, f.addr, base, true, viewsOfJobs(f.run(t, base, "writes-much"))...)
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		s := startRabbit(t)
		s.publish(t, 1, `{"timestamp":"yesterday"}`, "sent-by-hand")
		everyView(t, s.server.Addr, "", false)
	})
}

func everyView(t *testing.T, addr, base string, judged bool, more ...view) {
	at := "http://" + addr + base
	flow(t, at)
	submission := post(t, at, `{"timestamp":"2019-10-12T07:20:50.52Z","value":"one"}`)
	p := newPage(t)
	p.look(1280, "light")
	for _, v := range append(viewsOf(submission), more...) {
		p.open(at + "/#/" + v.path)
		p.until(fmt.Sprintf("(document.querySelector('h1')?.textContent ?? '').startsWith(%s)", quote(v.title)))
		p.until(v.shows)
		if alert := p.text("found('main [role=alert]').map(e => e.textContent).join()"); alert != "" {
			t.Errorf("%s: the page says %s", v.title, alert)
		}
		for _, look := range []struct {
			width  int64
			scheme string
		}{{1280, "light"}, {1280, "dark"}, {390, "dark"}, {390, "light"}} {
			p.look(look.width, look.scheme)
			if over := p.text("document.scrollingElement.scrollWidth - innerWidth"); over != "0" {
				t.Errorf("%s: at a width of %d the page is %s pixels wider", v.title, look.width, over)
			}
			if back := p.text("getComputedStyle(document.body).backgroundColor"); darkness(back) != look.scheme {
				t.Errorf("%s: in the %s scheme the background is %s", v.title, look.scheme, back)
			}
			p.save(fmt.Sprintf("%s-%s-%d-%s", filepath.Base(t.Name()), v.title, look.width, look.scheme))
			if judged && look.width == 1280 {
				p.judge(v.title + ", " + look.scheme)
			}
		}
		p.look(1280, "light")
	}
	p.alone(addr)
}

// darkness is the scheme that a background is of, "rgb(1, 2, 3)".
func darkness(color string) string {
	var r, g, b int
	if _, err := fmt.Sscanf(color, "rgb(%d, %d, %d)", &r, &g, &b); err != nil {
		return err.Error()
	}
	if r+g+b < 3*128 {
		return "dark"
	}
	return "light"
}

// judge has axe-core look for what keeps people from using the view.
func (p *page) judge(name string) {
	p.Helper()
	library, err := os.ReadFile("testdata/axe/axe.min.js")
	if err != nil {
		p.Fatal(err)
	}
	var there bool
	if p.run(&there, "return typeof axe !== 'undefined'"); !there {
		if _, err := chromedp.Run(p.tab, chromedp.Evaluate[[]byte](string(library)+";1")); err != nil {
			p.Fatal(err)
		}
	}
	var found []struct {
		ID, Impact, Help string
		Nodes            []string
	}
	p.run(&found, `
		const { violations } = await axe.run(document, { resultTypes: ['violations'] });
		return violations.filter(v => v.impact === 'serious' || v.impact === 'critical')
			.map(v => ({ ID: v.id, Impact: v.impact, Help: v.help, Nodes: v.nodes.slice(0, 3).map(n => n.html.slice(0, 200)) }));`)
	for _, v := range found {
		p.Errorf("%s: %s, %s: %s at %q", name, v.Impact, v.ID, v.Help, v.Nodes)
	}
}

// TestFirstData: a reader sees data within a second of opening the page. This machine may
// be busy, so the best of three counts, and there is slack.
func TestFirstData(t *testing.T) {
	addr := start(t)
	best := patience
	for range 3 {
		p := newPage(t)
		p.open("http://" + addr + "/#/shards")
		p.until("found('main tbody tr').length === 5")
		var ms float64
		p.run(&ms, "return performance.now()") // since the page was asked for
		best = min(best, time.Duration(ms*float64(time.Millisecond)))
	}
	t.Logf("data after %v", best)
	if best > 2*time.Second {
		t.Errorf("the first data is there after %v, want a second", best)
	}
}

// TestWithoutScript: a receipt needs no script, and the page says what to do without.
func TestWithoutScript(t *testing.T) {
	addr := start(t, "BATCH_LINGER=100ms")
	at := "http://" + addr
	submission := post(t, at, `{"timestamp":"2019-10-12T07:20:50.52Z"}`)
	p := newPage(t)
	p.withoutScript()
	for begun := time.Now(); ; { // the page asks anew by itself
		p.open(at + "/submissions/" + submission)
		text := p.plain()
		if strings.Contains(text, "1 of 1 written") {
			break
		}
		if time.Since(begun) > patience {
			t.Fatalf("the receipt is %s", text)
		}
	}
	p.open(at + "/")
	if text := p.plain(); !strings.Contains(text, "needs JavaScript") {
		t.Errorf("without JavaScript the page is %q", text)
	}
	p.alone(addr)
}

// TestSignIn: a page without a token asks for one, and gets no further with a wrong one.
func TestSignIn(t *testing.T) {
	addr := start(t, "VIEW_TOKENS=bob:views", "ADMIN_TOKENS=ann:administers", "AUTH_TOKENS=submits")
	p := newPage(t)
	p.open("http://" + addr + "/#/shards")
	p.fill("Token", "wrong")
	p.click("dialog button", "Sign in")
	p.until("found('dialog [role=alert]').length === 1")
	p.fill("Token", "views")
	p.click("dialog button", "Sign in")
	p.until("found('main tbody tr').length === 5")
	p.until("found('header').some(e => e.textContent.includes('bob'))")
	var pauses bool
	if p.run(&pauses, "return found('button', 'Pause').some(e => !e.disabled)"); pauses {
		t.Error("a viewer may pause shards")
	}
	if cookies := p.text("document.cookie"); cookies != "" {
		t.Errorf("scripts can read the cookie %q", cookies)
	}
	p.reload()
	p.until("found('header').some(e => e.textContent.includes('bob'))") // asked as the page opens
	p.click("header button", "Sign out")
	p.until("found('dialog').length === 1 || found('header button', 'Sign in').length === 1")
	resp, err := http.Get("http://" + addr + "/api/v1/shards")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token the shards are answered with %s", resp.Status)
	}
	p.alone(addr)
}
