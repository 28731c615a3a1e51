package browser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// TestPurgeOfWhatWasSeen: a purge shows how many letters there are, wants that number
// typed, and spares what has become a dead letter since the page looked.
func TestPurgeOfWhatWasSeen(t *testing.T) {
	s := startRabbit(t)
	at := "http://" + s.server.Addr
	for n := range 3 {
		s.publish(t, n, `{"timestamp":"yesterday"}`, fmt.Sprint("seen-", n))
	}
	p := newPage(t)
	const orAgain = " || (await new Promise(later => setTimeout(later, 300)), found('button', 'Look again')[0]?.click(), false)"
	p.open(at + "/#/dead")
	p.until("main().includes('3 dead letters')" + orAgain)
	began := p.text("new Date().toISOString()") // what is shown may be of before the last of them
	p.click("button", "Look again")
	p.until("main().includes('3 dead letters') && Date.parse(document.querySelector('.tools time')?.dateTime) >= Date.parse(" + quote(began) + ")")

	s.publish(t, 0, `{"timestamp":"tomorrow"}`, "of-later")
	other := newPage(t)
	other.open(at + "/#/dead?id=of-later")
	other.until("found('main table[aria-label=Letters] a').length === 1" + orAgain)

	p.click("main button", "Purge all …")
	p.until("document.querySelector('dialog')?.innerText.includes('3 letters')")
	const may = "String(!found('dialog button', 'Purge')[0].disabled)"
	for typed, want := range map[string]string{"4": "false", "3": "true"} {
		p.fill("Type 3 to agree", typed)
		p.until(may + " === '" + want + "'")
	}
	p.fill("Type 3 to agree", "3")
	p.press(kb.Enter)
	p.sees("3 of 3")
	p.sees("done")
	p.open(at + "/#/dead")
	p.until("main().includes('1 dead letter.')" + orAgain)
	p.open(at + "/#/dead?id=of-later")
	p.click("main table[aria-label=Letters] a", "")
	p.sees("tomorrow")
	p.alone(s.server.Addr)
}

// TestDeadLettersAreFound: the overview tells of the dead letters that wait, also of those
// from before the processes started.
func TestDeadLettersAreFound(t *testing.T) {
	s := startRabbit(t)
	at := "http://" + s.server.Addr
	s.publish(t, 0, `{"timestamp":"yesterday"}`, "waits")
	p := newPage(t)
	p.open(at + "/#/messages/waits")
	p.until("main().includes('It is a dead letter')")
	for _, n := range s.consumers {
		n.end()
		n.begin()
	}
	p.open(at + "/#/")
	p.until("/Nothing is broken|wrong/.test(main()) && main().includes('1 dead letter waits, because of')")
	if text := p.text("main()"); strings.Contains(text, "All is well") {
		t.Errorf("with a dead letter the overview says %s", text)
	}
	p.alone(s.server.Addr)
}
