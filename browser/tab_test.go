package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	devlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds every wait. It is no expectation of speed.
const patience = 3 * time.Minute

// foreign is a name that the browser resolves to this machine, as a page can have its
// own name do (DNS rebinding).
const foreign = "rebound.example"

// chrome is the browser of all tests. TestMain ends it.
var chrome = sync.OnceValues(func() (context.Context, error) {
	program, err := exec.LookPath("chromium-headless-shell")
	if err != nil {
		return nil, fmt.Errorf("%w: scripts/apt-install chromium-headless-shell", err)
	}
	profile, err := os.MkdirTemp("", "adp-profile")
	if err != nil {
		return nil, err
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program),
		chromedp.Flag("host-resolver-rules", "MAP "+foreign+" 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience), chromedp.UserDataDir(profile))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which root cannot have
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(ctx)
	closers = append(closers, func() {
		cancel()
		stop()
		_ = os.RemoveAll(profile)
	})
	_, err = chromedp.Targets(ctx) // which starts it
	return ctx, err
})

// closers end what all tests share.
var closers []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range slices.Backward(closers) {
		f()
	}
	os.Exit(code)
}

// page is a tab of the browser, with cookies of its own.
type page struct {
	*testing.T
	tab context.Context

	mu       sync.Mutex // guards what follows
	requests map[network.RequestID]string
	statuses map[network.RequestID]int64
	errors   []string // what the browser complained of
	grown    chan struct{}
}

func newPage(t *testing.T) *page {
	t.Helper()
	all, err := chrome()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(all, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	p := &page{
		T: t, tab: ctx,
		requests: make(map[network.RequestID]string), statuses: make(map[network.RequestID]int64), grown: make(chan struct{}, 1),
	}
	if err := chromedp.Listen(ctx, p.record); err != nil {
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	return p
}

// call runs a command of the DevTools protocol in the tab.
func call[P, R any](p *page, command cdp.Command[P, R], params P) R {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.tab, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		p.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// record keeps the status of each answer that the browser gets, and what it complains of.
func (p *page) record(e any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := e.(type) {
	case *network.EventRequestWillBeSent:
		p.requests[e.RequestID] = e.Request.URL
	case *network.EventResponseReceivedExtraInfo: // also of what the page may not read
		p.statuses[e.RequestID] = e.StatusCode
	case *runtime.EventExceptionThrown:
		text := e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += " " + e.ExceptionDetails.Exception.Description
		}
		p.errors = append(p.errors, text)
	case *devlog.EventEntryAdded:
		if e.Entry.Level == devlog.EntryLevelError && e.Entry.Source != devlog.EntrySourceNetwork {
			p.errors = append(p.errors, e.Entry.Text)
		}
	}
	select {
	case p.grown <- struct{}{}:
	default:
	}
}

// status waits for the status of the answer to a request.
func (p *page) status(host, path string) int64 {
	p.Helper()
	late := time.After(patience)
	for {
		p.mu.Lock()
		for id, status := range p.statuses { // an answer may be told before its request
			if p.requests[id] == "http://"+host+path {
				p.mu.Unlock()
				return status
			}
		}
		p.mu.Unlock()
		select {
		case <-p.grown:
		case <-late:
			p.Fatalf("no answer to %s%s, only %v of %v", host, path, p.statuses, p.requests)
		}
	}
}

// alone checks that the browser asked no host but one, and that nothing failed in it.
func (p *page) alone(host string) {
	p.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.requests {
		if u, err := url.Parse(asked); err != nil || u.Scheme != "data" && u.Host != host {
			p.Errorf("the page asks %s", asked)
		}
	}
	for _, text := range p.errors {
		p.Errorf("the browser complains: %s", text)
	}
}

func (p *page) open(url string) {
	p.Helper()
	p.load(chromedp.Navigate(url))
}

// reload opens the page anew. A script that does so may lose its own answer.
func (p *page) reload() {
	p.Helper()
	p.load(chromedp.Reload())
}

func (p *page) load(how chromedp.Action[chromedp.Void]) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.tab, patience)
	defer cancel()
	if err := chromedp.Do(ctx, how); err != nil {
		p.Fatal(err)
	}
}

// tools are what scripts of the tests use: found are the elements of a selector that are
// shown and have a text, or a name for people who hear the page; field is the one with a
// label.
const tools = `
	const shown = e => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
	const names = e => [e.textContent, e.ariaLabel, e.placeholder, e.title, ...[...(e.labels ?? [])].map(l => l.textContent)].map(t => (t ?? '').trim());
	const found = (selector, text) => [...document.querySelectorAll(selector)].filter(e => shown(e) && (!text || names(e).includes(text)));
	const field = label => [...document.querySelectorAll('input, textarea, select')].find(e => shown(e) && names(e).some(n => n.includes(label)));
	const main = () => document.querySelector('main')?.innerText ?? '';
`

// run runs the body of an async function in the page.
func (p *page) run(into any, script string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.tab, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[[]byte]("(async () => {"+tools+script+"})()", chromedp.EvalAwaitPromise))
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		p.Fatalf("%v: %s", err, text)
	}
}

// live is true while the page is told what it shows.
const live = "document.querySelector('header [role=status]')?.innerText === 'Connected'"

// until waits until an expression of JavaScript is true, and returns how long it took.
func (p *page) until(expression string) time.Duration {
	p.Helper()
	var took float64
	p.run(&took, fmt.Sprintf(`
		const began = performance.now();
		for (;;) {
			if (%s) return performance.now() - began;
			if (performance.now() - began > %d) return -1;
			await new Promise(again => setTimeout(again, 10));
		}`, expression, patience.Milliseconds()*2/3))
	if took < 0 {
		p.Fatalf("it does not come to be that %s; the page at %s shows:\n%s", expression, p.text("location.href"), p.text("document.body.innerText"))
	}
	return time.Duration(took * float64(time.Millisecond))
}

// text is the value of an expression, which is a string.
func (p *page) text(expression string) (value string) {
	p.Helper()
	p.run(&value, "return String("+expression+")")
	return value
}

// quote is a string of JavaScript.
func quote(text string) string {
	b, _ := json.Marshal(text) // a string can be JSON
	return string(b)
}

// sees waits until the view shows a text.
func (p *page) sees(text string) time.Duration {
	p.Helper()
	return p.until("main().includes(" + quote(text) + ")")
}

// click clicks with the mouse on the first element of a selector that has the text.
func (p *page) click(selector, text string) {
	p.Helper()
	at := fmt.Sprintf("found(%s, %s).find(e => !e.disabled)", quote(selector), quote(text))
	p.until(at)
	var place struct{ X, Y float64 }
	p.run(&place, "const e = "+at+`;
		e.scrollIntoView({ block: 'center', inline: 'center', behavior: 'instant' });
		const r = e.getBoundingClientRect();
		return { X: r.x + r.width / 2, Y: r.y + r.height / 2 };`)
	if err := chromedp.Do(p.tab, chromedp.MouseClickXY(place.X, place.Y)); err != nil {
		p.Fatal(err)
	}
}

// fill types into the field with a label, in place of what is there.
func (p *page) fill(label, text string) {
	p.Helper()
	p.until("field(" + quote(label) + ")")
	var done bool
	p.run(&done, "const e = field("+quote(label)+"); e.focus(); e.select(); return true")
	call(p, input.InsertText, input.InsertTextParams{Text: text})
}

// press presses a key, as a character.
func (p *page) press(key string) {
	p.Helper()
	if err := chromedp.Do(p.tab, chromedp.KeyEvent(key)); err != nil {
		p.Fatal(err)
	}
}

// look has the tab as wide as a screen, in a colour scheme: light or dark.
func (p *page) look(width int64, scheme string) {
	p.Helper()
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}

// save keeps a picture of the tab in the folder SCREENSHOTS, if that is set.
func (p *page) save(name string) {
	p.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	picture, err := chromedp.Run(p.tab, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "/", "-")+".png"), picture, 0o666)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// withoutScript has the browser run no script of the pages that come.
func (p *page) withoutScript() {
	p.Helper()
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// plain is what a page shows, also if it may run no script.
func (p *page) plain() string {
	p.Helper()
	text, err := chromedp.Run(p.tab, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		p.Fatal(err)
	}
	return text
}
