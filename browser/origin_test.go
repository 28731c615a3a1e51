// Package browser opens the program in a real browser: what a page may do there, and
// what a page of another origin may not.
package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// TestPageOfTheProcess: a page of the process sees the tail, and submits an entry by a
// socket, which it then sees in the tail.
func TestPageOfTheProcess(t *testing.T) {
	page := newPage(t)
	page.open("http://" + start(t) + "/livez")
	var got struct {
		Handshake, Accepted struct{ Type, ID string }
		Events, Socket      struct {
			ID    string
			Entry struct{ Value string }
		}
	}
	page.run(&got, `
		const frame = (source, type) => new Promise((found, failed) => {
			source.onclose = e => failed(Error(type + ': closed ' + e.code));
			source.addEventListener('error', () => failed(Error(type + ': failed')));
			source.addEventListener('message', e => { const f = JSON.parse(e.data); if (f.type === type) found(f); });
			source.addEventListener(type, e => found(JSON.parse(e.data)));
		});
		const events = new EventSource('/live'), socket = new WebSocket('/live', 'adp.live.v1');
		await Promise.all([frame(events, 'hello'), frame(socket, 'hello')]);
		const intake = new WebSocket('/message', 'adp.ingest.v1');
		const handshake = await frame(intake, 'handshake');
		const seen = [frame(events, 'message'), frame(socket, 'message')], accepted = frame(intake, 'accepted');
		intake.send(JSON.stringify([{timestamp: new Date().toISOString(), value: 'of a page'}]));
		const answer = {handshake, accepted: await accepted, events: await seen[0], socket: await seen[1]};
		events.close();
		return answer;`)
	if got.Handshake.Type != "handshake" || got.Accepted.Type != "accepted" {
		t.Errorf("the socket answers %+v, then %+v", got.Handshake, got.Accepted)
	}
	if want := got.Accepted.ID + ".0"; got.Events.ID != want || got.Socket.ID != want || got.Events.Entry.Value != "of a page" {
		t.Errorf("the tail shows %+v and %+v, want the entry %s", got.Events, got.Socket, want)
	}
}

// TestPageOfAnotherOrigin may neither see nor submit, by any way; also not one that has
// its own name resolve to the address of the process.
func TestPageOfAnotherOrigin(t *testing.T) {
	addr := start(t)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>another origin</title>"))
	}))
	defer other.Close()
	_, port, _ := strings.Cut(addr, ":")
	for name, c := range map[string]struct {
		page, target string
		want         int64
	}{
		"another port":   {other.URL, addr, http.StatusForbidden},
		"another site":   {strings.Replace(other.URL, "127.0.0.1", "localhost", 1), addr, http.StatusForbidden},
		"a rebound name": {"http://" + foreign + ":" + port + "/livez", foreign + ":" + port, http.StatusMisdirectedRequest},
	} {
		t.Run(name, func(t *testing.T) {
			page := newPage(t)
			page.open(c.page)
			var got []string
			page.run(&got, fmt.Sprintf(`
				const target = %q;
				const outcome = source => new Promise(told => {
					source.onmessage = () => told('message');
					source.addEventListener('hello', () => told('message'));
					if (source instanceof EventSource) source.onerror = () => told('refused');
					source.onclose = e => told('closed ' + e.code);
				});
				return [
					await outcome(new EventSource('http://' + target + '/live')),
					await outcome(new WebSocket('ws://' + target + '/live', 'adp.live.v1')),
					await outcome(new WebSocket('ws://' + target + '/message', 'adp.ingest.v1')),
				];`, c.target))
			if want := []string{"refused", "closed 1008", "closed 1008"}; !slices.Equal(got, want) {
				t.Errorf("the page was answered %q, want %q", got, want)
			}
			// The browser would keep any answer from the page; the process must have refused.
			if got := page.status(c.target, "/live"); got != c.want {
				t.Errorf("the process answered %d, want %d", got, c.want)
			}
		})
	}
}
