package jobs

import (
	"testing"
	"time"

	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// TestEndedMeanwhile: a run that ends while there is no engine, or no database, is what its
// runner tells when it is back, however long that was. One whose runner does not come back
// is lost.
func TestEndedMeanwhile(t *testing.T) {
	for _, what := range []string{"engine", "database"} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(rg *rig) {
				s := &hurtStore{Store: rg.store}
				e := rg.start("node", s)
				p, _ := e.connect("r1", 2, nil)
				run := e.create("hello")
				offer := p.hear(frame.Offer)
				p.take(offer)
				gone := e.create("hello")
				p.take(p.hear(frame.Offer))
				if what == "engine" {
					e.stop()
				} else {
					s.hurt(true)
					p.leave()
					time.Sleep(frame.Lease) // it is found out
				}
				rg.set("lease_until = 1")
				if s.hurt(false); what == "engine" {
					e = rg.start("node", s)
				}
				time.Sleep(frame.Beat - time.Second)
				p, _ = e.connect("r1", 2, nil, frame.Attempt{Run: run.ID, Attempt: 1})
				p.end(offer, frame.Exited, 0, frame.End)
				if got := rg.run(run.ID); got.State != store.Succeeded {
					t.Errorf("the run is %+v", got)
				}
				time.Sleep(frame.Beat)
				if got := rg.run(gone.ID); got.State != store.Dead || got.Outcome != store.Lost {
					t.Errorf("the run that no one tells of is %+v", got)
				}
				e.stop()
			})
		})
	}
}

// TestFlappingDatabase: leases end, too, when the database is never there for long.
func TestFlappingDatabase(t *testing.T) {
	inBubble(t, func(rg *rig) {
		s := &hurtStore{Store: rg.store}
		e := rg.start("node", s)
		p, _ := e.connect("r1", 1, nil)
		run := e.create("hello")
		p.take(p.hear(frame.Offer))
		p.leave()
		rg.set("lease_until = 1")
		for range 100 {
			s.hurt(true)
			time.Sleep(3 * time.Second)
			s.hurt(false)
			time.Sleep(4 * time.Second)
			if rg.run(run.ID).State == store.Dead {
				break
			}
		}
		if got := rg.run(run.ID); got.State != store.Dead {
			t.Errorf("the run is %+v", got)
		}
		e.stop()
	})
}
