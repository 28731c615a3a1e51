package live

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"async-data-processor/message"
	"async-data-processor/problem"
)

// tailParameters are those of a query.
var tailParameters = []string{"stage", "shard", "submission", "contains", "where", "last", "rate", "limit", "payload", "last_event_id"}

// tailQuery is what a request wants to see. ErrQuery is in the error's chain.
func tailQuery(r *http.Request) (Query, error) {
	values, err := problem.Values(r, "where", tailParameters...)
	if err != nil {
		return Query{}, fmt.Errorf("%w: %w", ErrQuery, err)
	}
	q := Query{Rate: DefaultRate, After: r.Header.Get("Last-Event-ID")}
	for name, given := range values {
		if err := q.set(name, given); err != nil {
			return Query{}, err
		}
	}
	return q, nil
}

// set sets what a parameter says.
func (q *Query) set(name string, given []string) error {
	text := given[0]
	switch name {
	case "stage":
		q.Stage = Stage(text)
	case "payload":
		q.Payload = Payload(text)
	case "contains":
		q.Contains = text
	case "last_event_id": // a page cannot set headers of a WebSocket
		q.After = text
	case "submission":
		if _, ok := message.CountOf(text); !ok || strings.Contains(text, ".") {
			return fmt.Errorf("%w: submission is %.40q, want the id of one", ErrQuery, text)
		}
		q.Submission = text
	case "shard":
		for number := range strings.SplitSeq(text, ",") {
			n, err := digits(name, number)
			if err != nil {
				return err
			}
			if len(q.Shards) == MaxQueryShards {
				return fmt.Errorf("%w: shard has more than %d numbers", ErrQuery, MaxQueryShards)
			}
			q.Shards = append(q.Shards, n)
		}
	case "where":
		for _, text := range given {
			w, err := parseWhere(text)
			if err != nil {
				return err
			}
			q.Where = append(q.Where, w)
		}
	default:
		n, err := digits(name, text)
		if err != nil {
			return err
		}
		*map[string]*int{"last": &q.Last, "rate": &q.Rate, "limit": &q.Limit}[name] = n
	}
	return nil
}

// digits reads a number in decimal digits.
func digits(name, text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is %.40q, want a number", ErrQuery, name, text)
	}
	return int(n), nil
}
