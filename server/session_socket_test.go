package server

import "testing"

// TestSessionSocket: a page of our origin opens a WebSocket with its cookie, and no other
// page does.
func TestSessionSocket(t *testing.T) {
	rg := start(t, secured)
	login := rg.do("POST", "/session", nil, "Authorization", "Bearer submits")
	cookies := login.Cookies()
	if login.StatusCode != 200 || len(cookies) != 1 {
		t.Fatalf("login: %d %s", login.StatusCode, login.body)
	}
	cookie := cookies[0].Name + "=" + cookies[0].Value
	own, other := "http://"+rg.addr, "http://127.0.0.1:1"
	c := rg.mustDial("/message", []string{ingestProtocol}, "Cookie", cookie, "Origin", own)
	if got := next(t, c); len(got) == 0 {
		t.Error("there is no handshake")
	}
	_ = c.CloseNow()
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol}, "Origin", own), closeToken, "unauthorized")
	wantClose(t, rg.mustDial("/message", []string{ingestProtocol}, "Cookie", cookie+"x", "Origin", own), closeToken, "unauthorized")
	if c, _, err := rg.dial("/message", []string{ingestProtocol}, "Cookie", cookie, "Origin", other); err == nil {
		if _, _, err := c.Read(t.Context()); err == nil {
			t.Error("a page of another origin opened a WebSocket with the cookie")
		}
	}
}
