package browser

import "testing"

// TestNoConsumer: the overview says which consumers have left, and does not count what
// they alone know.
func TestNoConsumer(t *testing.T) {
	s := startRabbit(t)
	p := newPage(t)
	p.open("http://" + s.server.Addr + "/#/")
	const written = "found('.flow li').find(e => e.innerText.includes('written')).querySelector('b').innerText"
	p.until("found('.flow li').length > 0 && " + written + " !== '–'")
	for _, n := range s.consumers {
		n.end()
	}
	p.until(`/writer-0\S* was heard last at/.test(main()) && /writer-1\S* was heard last at/.test(main())`)
	p.until(written + " === '–'")
	p.alone(s.server.Addr)
}

// TestRefuses: a server whose disk is full refuses submissions, and all views say why.
func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	n := &node{T: t, command: "standalone", Addr: "127.0.0.1:0", settings: []string{
		"DATA_OUTPUT_DIR=" + dir + "/output", "BROKER_URL=embedded://" + dir + "/broker", "OUTPUT_MIN_FREE=90000GiB",
	}}
	n.listen()
	t.Cleanup(n.end)
	p := newPage(t)
	p.open("http://" + n.Addr + "/#/")
	p.until("found('.state', 'refuses').length === 1 && main().includes('must stay free')")
	p.open("http://" + n.Addr + "/#/nodes")
	p.until("found('.state', 'refuses').length === 1")
	p.open("http://" + n.Addr + "/#/submit")
	p.click("button", "Send")
	p.until("main().includes('must stay free')")
	if n := p.text("String(main().match(/nothing was published/ig)?.length)"); n != "1" {
		t.Errorf("the page says %s times that nothing was published", n)
	}
}

// TestNonsense: an address without a view leads to the overview, and a search for what is
// no id says what an id is, without asking.
func TestNonsense(t *testing.T) {
	addr := start(t)
	at := "http://" + addr
	p := newPage(t)
	p.open(at + "/#/nonsense")
	p.until("found('h1', 'No such page').length === 1 && found('main a', 'overview').length === 1")
	const asked = "performance.getEntriesByType('resource').filter(e => e.name.includes('/api/v1/messages/')).length"
	p.open(at + "/#/messages/no%20id")
	p.sees("The search finds")
	if n := p.text(asked); n != "0" {
		t.Errorf("for what is no id the page asks %s times", n)
	}
	p.open(at + "/#/messages/unheard-of")
	p.sees("The search finds")
	p.run(new(bool), "await new Promise(later => setTimeout(later, 1500)); return true")
	if n := p.text(asked); n != "1" {
		t.Errorf("for a message that is not known the page asks %s times", n)
	}
	if n := p.text("performance.getEntriesByType('resource').filter(e => e.name.endsWith('/session')).length"); n != "0" {
		t.Errorf("without tokens the page asks %s times for a session", n)
	}
	p.alone(addr)
}

// TestNotShown: a node that shows nothing because it has no tokens for that says so.
func TestNotShown(t *testing.T) {
	p := newPage(t)
	at := "http://" + start(t, "AUTH_TOKENS=for-submissions-only")
	for _, view := range []string{"", "workers", "dead", "settings"} {
		p.open(at + "/#/" + view)
		p.sees("This node does not show it")
		p.sees("VIEW_TOKENS")
	}
}
