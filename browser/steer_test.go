package browser

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPauseByClick: a person pauses a shard on the page of one node. The page of another
// node shows it within a second, with the reason. There it is resumed.
func TestPauseByClick(t *testing.T) {
	s := startRabbit(t)
	one, other := newPage(t), newPage(t)
	one.open("http://" + s.server.Addr + "/#/shards/1")
	other.open("http://" + s.consumers[0].Addr + "/#/shards")
	const state = "found('main tbody tr').find(r => r.querySelector('th')?.innerText.trim() === '1')?.innerText ?? ''"
	other.until("(" + state + ").includes('running')")

	one.click("main button", "Pause")
	one.fill("Reason", "the disk is changed")
	one.click("dialog button", "Pause")
	one.until("main().includes('Done:')") // what the owner has told
	took := other.until("(" + state + ").includes('paused')")
	t.Logf("the other page shows the pause %v after the first one", took)
	if took > 2*time.Second {
		t.Errorf("the other page shows the pause after %v, want a second", took)
	}
	other.until("(" + state + ").includes('the disk is changed')")
	one.sees("the disk is changed")
	other.open("http://" + s.consumers[0].Addr + "/#/")
	other.sees("the disk is changed")
	other.save("overview-paused")

	waits := post(t, "http://"+s.server.Addr, entriesOf(30))
	one.open("http://" + s.server.Addr + "/#/submissions/" + waits)
	one.sees("the disk is changed") // why it waits
	one.save("receipt-waits")

	other.open("http://" + s.consumers[0].Addr + "/#/shards/1")
	other.click("main button", "Resume")
	other.click("dialog button", "Resume")
	one.sees("All 30 entries are in files")
	one.alone(s.server.Addr)
	other.alone(s.consumers[0].Addr)
}

// entriesOf are entries of all shards.
func entriesOf(n int) string {
	entries := make([]string, n)
	for i := range entries {
		at := time.Date(2026, 1, 2, 3, 4, i, 0, time.UTC)
		entries[i] = `{"timestamp":"` + at.Format(time.RFC3339) + `","value":"of a page"}`
	}
	return "[" + strings.Join(entries, ",") + "]"
}

// TestMend: a person mends a message of another program, which cannot be written. It is
// written under its id then.
func TestMend(t *testing.T) {
	s := startRabbit(t)
	s.publish(t, 2, `{"timestamp":"yesterday","value":"mend me"}`, "by-hand-1")
	p := newPage(t)
	p.look(1280, "light")
	p.open("http://" + s.server.Addr + "/#/messages/by-hand-1")
	p.until("main().includes('It is a dead letter')")
	p.open("http://" + s.server.Addr + "/#/dead")
	p.until("found('main table a').length === 1")
	p.click("main table a", "")
	p.until("found('main table a').length === 1 && found('main th').some(e => e.innerText.includes('Published by'))")
	p.click("main table a", "")
	p.sees("yesterday")
	p.save("letter")
	p.click("button", "Edit and replay")
	p.fill("Body", `{"timestamp":"still wrong","value":"mended"}`)
	p.click("button", "Replay as edited")
	p.until("found('main textarea[aria-invalid=true]').length === 1") // it is looked at first
	p.save("letter-refused")
	p.fill("Body", `{"timestamp":"2019-10-12T07:20:50.52Z","value":"mended"}`)
	p.click("button", "Replay as edited")
	p.sees("Replayed")
	if line := s.line(t, "mended"); !strings.Contains(line, `"message_id":"by-hand-1"`) {
		t.Errorf("the line is %s", line)
	}
	p.open("http://" + s.server.Addr + "/#/messages/by-hand-1")
	p.sees("It is in a file")
	p.open("http://" + s.server.Addr + "/#/dead")
	p.sees("There are no dead letters")
	p.alone(s.server.Addr)
}

// TestSubmit: a person writes entries, and follows them until they are in files.
func TestSubmit(t *testing.T) {
	addr := start(t, "BATCH_LINGER=100ms")
	p := newPage(t)
	p.open("http://" + addr + "/#/submit")
	p.fill("Entries", `[{"timestamp":"2019-13-12T07:20:50Z"},{"value":"x"}]`)
	p.click("button", "Send")
	p.until("main().includes('timestamp') && found('#faults').length === 1")
	p.fill("Entries", entriesOf(12))
	p.click("button", "Send")
	p.sees("All 12 entries are in files")
	p.alone(addr)
}

// TestKeyboard: a person without a mouse gets past the navigation, and into a dialog and
// out of it.
func TestKeyboard(t *testing.T) {
	addr := start(t)
	p := newPage(t)
	p.open("http://" + addr + "/#/shards/1")
	p.until("found('main button', 'Pause').length === 1")
	p.press("\t")
	p.until("document.activeElement.textContent === 'Skip to the content' && shown(document.activeElement)")
	p.press("\r")
	p.until("document.activeElement === document.querySelector('main')")
	p.press("\t")
	p.until("document.activeElement.textContent === 'Pause'")
	p.press("\r")
	p.until("document.querySelector('dialog')?.contains(document.activeElement)")
	p.press("\x1b")
	p.until("!document.querySelector('dialog') && document.activeElement.textContent === 'Pause'")
	p.alone(addr)
}

// TestStreamCut: a page whose node is gone says since when, and is grey. It goes on by
// itself when the node is back. The same holds if the node only does not answer.
func TestStreamCut(t *testing.T) {
	n := standalone(t)
	p := newPage(t)
	p.open("http://" + n.Addr + "/#/shards")
	const lost = "document.body.classList.contains('lost') && /No connection since \\d/.test(document.querySelector('header').innerText)"
	rows := "found('main tbody tr').length === 5"
	p.until(live + " && " + rows)

	n.end()
	p.until(lost + " && " + rows) // what was known stays there to be read
	if filter := p.text("getComputedStyle(document.querySelector('main')).filter"); !strings.Contains(filter, "grayscale") {
		t.Errorf("the page is not grey: %s", filter)
	}
	p.save("lost")
	n.begin()
	p.until(live + " && !document.body.classList.contains('lost') && " + rows)

	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	took := p.until(lost)
	if err := n.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("a silent node is noticed after %v", took)
	p.until(live + " && !document.body.classList.contains('lost')")
	p.alone(n.Addr)
}
