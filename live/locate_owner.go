package live

import (
	"context"
	"fmt"
	"time"

	"async-data-processor/broker"
)

// answer tells another node what this one knows of a message, nil for nothing.
func (l *Locator) answer(body []byte) []byte {
	q, err := parseWhereQuestion(body)
	l.cfg.Skips.Add(err)
	if err != nil {
		return nil
	}
	a := l.own([]byte(q.ID))
	if a.Owns == "" && !a.Sought {
		return nil
	}
	return broker.Body(a)
}

// own is what this process knows of a message.
func (l *Locator) own(id []byte) whereAnswer {
	a := whereAnswer{V: broker.BusVersion, Node: l.cfg.Node()}
	if m := l.cfg.Receipts.memory; m != nil {
		a.Sought = true
		if submission := submissionOf(string(id)); submission != "" {
			if at, shards, found := m.find(submission); found {
				a.Accepted, a.Shards = at.UnixMilli(), shards.String()
			}
		}
	}
	if l.cfg.Look == nil {
		return a
	}
	var owns bitset
	var best *Place
	places := l.cfg.Look(id)
	for i := range places {
		p := &places[i]
		if p.Shard >= maxShards {
			continue
		}
		owns.add(p.Shard)
		a.Sibling = a.Sibling || p.Sibling
		if p.Forgot {
			a.Forgot = append(a.Forgot, shardMemory{p.Shard, p.Memory.UnixMilli()})
		}
		switch {
		case p.Written && (best == nil || !best.Written), p.Received && best == nil:
			best = p
		}
	}
	a.Owns = owns.String()
	if best != nil {
		a.Place = l.placeOf(id, best)
	}
	return a
}

// placeOf is the place of a message as it is told, with its file.
func (l *Locator) placeOf(id []byte, p *Place) *wherePlace {
	if !p.Written {
		w := &wherePlace{Shard: p.Shard, State: WhereInHand, Worker: p.Worker}
		if !p.Since.IsZero() {
			w.Since = p.Since.UnixMilli()
		}
		return w
	}
	w := &wherePlace{Shard: p.Shard, State: WhereWritten, Since: p.At.UnixMilli()}
	found, err := l.find(id, p)
	switch {
	case err != nil:
		w.Why = broker.Clip(fmt.Sprintf("its file was not found: %v", err), maxReason)
	case found.File != "":
		w.File, w.Line = found.File, found.Line
		if found.Open {
			w.Why = "the file is hidden while batches are appended to it"
		}
	case found.Whole:
		w.Why = "its file was moved away or deleted since"
	default:
		w.Why = "its file is not among the newest that were begun before, as far as they were read: it was moved away or deleted, or is further back"
	}
	return w
}

// find looks for the file of a message. One search runs at a time. One that a disk holds up
// keeps its place, and nothing else.
func (l *Locator) find(id []byte, p *Place) (InFile, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), fileTimeout, fmt.Errorf("the files were read for %v", fileTimeout))
	defer cancel()
	select {
	case l.finding <- struct{}{}:
	case <-ctx.Done():
		return InFile{}, fmt.Errorf("other searches took %v", fileTimeout)
	}
	type result struct {
		found InFile
		err   error
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-l.finding }()
		found, err := l.cfg.Find(ctx, p.Shard, id, p.At)
		done <- result{found, err}
	}()
	select {
	case r := <-done:
		return r.found, r.err
	case <-time.After(fileTimeout + fileTimeout/4): // a call of the disk does not end with ctx
		return InFile{}, fmt.Errorf("the disk did not answer within %v", fileTimeout)
	}
}
