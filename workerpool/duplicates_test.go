package workerpool_test

import (
	"testing"

	"async-data-processor/event"
	"async-data-processor/message"
)

// TestDuplicates: what is in a file already is acknowledged and told, and the
// history counts only what was written.
func TestDuplicates(t *testing.T) {
	for name, tt := range map[string]struct{ messages, known, batches int }{
		"none":         {5, 0, 1},
		"some":         {5, 2, 1},
		"all":          {5, 5, 0},
		"none of many": {40, 0, 8},
		"all of many":  {40, 40, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &output{known: func(*message.Batch) int { return tt.known }}, func(r *rig) {
				b := r.hand(tt.messages)
				r.happened(b, "wrote", "ack")
				e := told[event.BatchWritten](r)[0]
				if e.Messages != tt.messages-tt.known || e.Duplicates != tt.known || e.Batches != tt.batches || (e.File == "") != (tt.messages == tt.known) {
					r.t.Errorf("told %+v, want %d batches and %d duplicates", e, tt.batches, tt.known)
				}
				w := r.worker(e.Worker.ID)
				if w.Duplicates != int64(tt.known) || w.Messages != int64(e.Messages) || w.Batches != int64(tt.batches) || w.LastFile != e.File {
					r.t.Errorf("worker %+v, want %d duplicates", w, tt.known)
				}
				r.drain()
			})
		})
	}
}
