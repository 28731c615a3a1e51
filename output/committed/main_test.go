package committed

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ulid = "01JD8Y6G5V3X9Q2R7T4B1C0D5E"

// submission returns the ULID of a number, the same for the same.
func submission(n int) string { return fmt.Sprintf("01JD8Y6G5V%016d", n) }

// id is the id of a submission's message.
func id(submitted, index int) []byte {
	return fmt.Appendf(nil, "%s.%d", submission(submitted), index)
}

// keys returns the keys of ids.
func keys(ids ...string) []Key {
	all := make([]Key, len(ids))
	for i, id := range ids {
		all[i] = KeyOf([]byte(id))
	}
	return all
}

// fresh returns which ids are the claim's to write.
func fresh(c *Claim, ids ...string) (mine []string) {
	for i, id := range ids {
		if c.IsFresh(i) {
			mine = append(mine, id)
		}
	}
	return mine
}
