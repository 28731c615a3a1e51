package message

import "time"

// MaxNames is how many names the scanner remembers.
const MaxNames = maxNames

// Scan is what Decode does first.
func Scan(r *Rules, id string, body []byte, f Format) (Submission, bool) {
	m := new(memory)
	if !scan(m, id, body, f, r) {
		return Submission{}, false
	}
	return Submission{ID: id, Messages: m.messages, memory: m}, true
}

// Read is what Decode does when Scan fails, but for the reasons.
func Read(r *Rules, id string, body []byte, f Format) (Submission, error) {
	return r.examine(id, body, f, 1)
}

// ScanLine is what ParseLine does first with a line that has an id.
func ScanLine(line []byte) (time.Time, bool) {
	s := scanner{rules: Strict}
	ok := s.intact(line, ourLine)
	return s.instant, ok
}

// ReadLine is what ParseLine does when ScanLine fails.
var ReadLine = Strict.readLine

// ScanText is what Open does first with lines that have an id; it returns the
// result of the last one.
func ScanText(lines ...[]byte) (ok bool) {
	var s scanner
	for _, line := range lines {
		ok = s.intact(line, anyObject)
	}
	return ok
}

// ReadText is what Open does when ScanText fails.
func ReadText(line []byte) error {
	dec := borrow()
	defer dec.giveBack()
	return readOne(dec, line)
}

// Kept tells that the memory of so many bytes of lines is used again.
func Kept(lines int) bool {
	kept := false
	for range 100 { // the race detector makes a pool forget now and then
		m := &memory{lines: make([]byte, 0, lines)}
		m.giveBack()
		kept = kept || memories.Get().(*memory) == m
	}
	return kept
}
