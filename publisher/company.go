package publisher

import "time"

// Clients that wait for an answer often send again soon after it. A round that leaves
// at the moment of the answers is without them: then two halves of the clients take
// turns, and each waits for the round of the other one, too. So a round waits a moment
// for those that were just answered, as PostgreSQL does with its commit_delay
// (https://www.postgresql.org/docs/current/wal-configuration.html).
const (
	// The wait is not longer than the round before took, nor than companyMax. After a
	// round that took less than companyMin there is none.
	companyMin = 100 * time.Microsecond
	companyMax = 5 * time.Millisecond
	// After a round of more bytes there is no wait: then the processor is what is scarce,
	// and it works for the next round while the disk writes this one.
	companyBytes = 512 << 10
	// One of so many is not waited for: it may be slow, or gone.
	companyGaps = 8
	// After each wait that was in vain, twice as many rounds leave at once, up to
	// maxAlone. So clients that do not come back cost the others next to nothing.
	maxAlone = 64
)

// company is what the next round waits for. The publisher's mu guards it.
type company struct {
	gathered int  // submissions that wait for the next round
	answered int  // submissions of the round under way that were answered
	full     bool // the next round has an envelope to which nothing can be added
	bytes    int  // of the round under way
	expected int  // how many submissions the next round waits for; 0 if it does not

	alone int // how many rounds will leave at once, because a wait was in vain
	vain  int // how many that were after the last wait in vain; 0 after one that was not
}

// join counts a submission. It tells whether that ends the wait for company.
func (c *company) join() (complete bool) {
	c.gathered++
	if c.expected == 0 || c.gathered < c.expected {
		return false
	}
	c.expected, c.vain = 0, 0
	return true
}

// leave is called when a round of so many bytes begins. left tells that not all has found
// room in it.
func (c *company) leave(bytes int, left bool) {
	c.gathered, c.answered, c.expected, c.bytes, c.full = 0, 0, 0, bytes, left
}

// expect returns how long the next round waits for company after one that took so
// long; 0 if it leaves at once.
func (c *company) expect(took time.Duration) time.Duration {
	expected := c.gathered + c.answered
	expected -= expected / companyGaps
	if c.full || c.gathered >= expected || expected < 2 || took < companyMin || c.bytes > companyBytes {
		return 0
	}
	if c.alone > 0 {
		c.alone--
		return 0
	}
	c.expected = expected
	return min(took, companyMax)
}

// miss ends a wait for company that was in vain; without one it does nothing.
func (c *company) miss() {
	if c.expected > 0 {
		c.expected = 0
		c.vain = min(max(2*c.vain, 1), maxAlone)
		c.alone = c.vain
	}
}
