package runner

import (
	"errors"
	"testing"

	"async-data-processor/jobs/frame"
)

// TestOffersAreBounded: an engine that offers and does not read does not fill the memory.
func TestOffersAreBounded(t *testing.T) {
	r, err := New(Config{URL: "http://localhost", Name: "test", Slots: 1})
	if err != nil {
		t.Fatal(err)
	}
	l := &link{r: r, wake: make(chan struct{}, 1)}
	for run := range int64(10 * maxAnswers) {
		if err = l.offer(frame.Frame{Type: frame.Offer, Run: run + 1, Attempt: 1, Job: "job"}); err != nil {
			break
		}
	}
	if !errors.Is(err, errDeaf) || len(l.queue) > maxAnswers {
		t.Errorf("%d answers wait: %v", len(l.queue), err)
	}
}
