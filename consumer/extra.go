package consumer

import (
	"context"
	"time"

	"async-data-processor/backoff"
	"async-data-processor/broker"
	"async-data-processor/event"
)

const (
	// lookInterval is how often queues and files beyond the number of shards are
	// looked for: a server with a larger number may start at any time. RabbitMQ
	// logs an error for each look.
	lookInterval = time.Minute
	// lookRetry is the pause after the first look that failed; it doubles.
	lookRetry = time.Second
)

// lookForQueues finds shards beyond the number of shards until ctx ends. They are
// consumed like the others, but being ready does not wait for them.
func (s *Set) lookForQueues(ctx context.Context) {
	retry := backoff.Backoff{Min: lookRetry, Max: lookInterval}
	for first := true; ; {
		pause := lookInterval
		found, err := s.cfg.Queues.Backlogs(ctx, s.cfg.Shards)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.cfg.Events.Send(event.LookFailed{What: "queues", Err: err})
			pause = retry.Next()
		default:
			s.found(found, first)
			first = false
			retry.Reset()
		}
		if !backoff.Sleep(ctx, pause) {
			return
		}
	}
}

// found adds the shards that were not known before, and tells of those that are
// empty now.
func (s *Set) found(backlogs []broker.Backlog, first bool) {
	for _, e := range s.update(backlogs, first) {
		s.cfg.Events.Send(e)
	}
	s.wake()
}

// update does that, and returns what is to be told.
func (s *Set) update(backlogs []broker.Backlog, first bool) (news []event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := make(map[int]int, len(backlogs))
	for _, b := range backlogs {
		waiting[b.Shard] = b.Envelopes
		if _, known := s.extra[b.Shard]; !known {
			s.extra[b.Shard] = false
			news = append(news, event.ExtraShardFound{Shard: b.Shard, Envelopes: b.Envelopes, AtStart: first})
		}
	}
	for n, drained := range s.extra {
		sh := s.running[n]
		if !drained && sh != nil && sh.consumes.Load() && sh.unsettled.Load() == 0 && waiting[n] == 0 {
			s.extra[n] = true
			news = append(news, event.ExtraShardDrained{Shard: n})
		}
	}
	return news
}

// lookForFiles finds the open files that crashed owners have left in the folders
// of shards beyond the number of shards, until ctx ends. The broker has forgotten
// what is in them, so there may be no queue to tell of them. They are not consumed
// either, because RabbitMQ would declare their queue again.
func (s *Set) lookForFiles(ctx context.Context) {
	for {
		found, err := s.cfg.Dir.Unpublished(s.cfg.Shards)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.cfg.Events.Send(event.LookFailed{What: "files", Err: err})
		}
		s.mu.Lock()
		for _, n := range found {
			if s.running[n] == nil {
				s.left[n] = true
			}
		}
		s.wake()
		s.mu.Unlock()
		if !backoff.Sleep(ctx, lookInterval) {
			return
		}
	}
}
