package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"async-data-processor/broker/conn"
	"async-data-processor/event"
)

// AMQP tells nothing of policies. The management API does, if the broker has it
// (rabbitmq.com/docs/management).

// maxPolicies bounds an answer of the management API, some 300 bytes a queue.
const maxPolicies = 8 << 20

// management is where the management API is.
type management struct {
	queues         string // the URL of the queues of the virtual host
	name           string // the API's, without the password
	user, password string
	client         *http.Client
}

// parseManagement checks the URL of a management API. Its errors hold no password.
func parseManagement(raw, vhost string, timeout time.Duration) (*management, error) {
	const form = "want http://user:password@host:15672 (or https://), with reserved characters percent-encoded"
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("it does not parse, " + form)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User == nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New(form)
	}
	m := &management{user: u.User.Username(), client: &http.Client{
		Timeout: timeout,
		// It would be sent the password.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableKeepAlives: true},
	}}
	m.password, _ = u.User.Password()
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), ""
	u.User = url.User(m.user)
	m.name = u.String()
	u.User = nil
	m.queues = u.String() + "/api/queues/" + url.PathEscape(vhost) + "?columns=name,policy,operator_policy,effective_policy_definition"
	return m, nil
}

// CheckManagement tells whether a management API may have the URL. Its error never
// holds the URL.
func CheckManagement(raw string) error {
	if raw == "" {
		return nil
	}
	_, err := parseManagement(raw, "", 0)
	return err
}

// RedactManagement returns the URL of a management API without the password, and
// nothing of one that does not parse.
func RedactManagement(raw string) string {
	if raw == "" {
		return ""
	}
	m, err := parseManagement(raw, "", 0)
	if err != nil {
		return "(a URL that does not parse)"
	}
	return m.name
}

// queuePolicy is what the management API tells of a queue.
type queuePolicy struct {
	Name     string `json:"name"`
	Policy   string `json:"policy"`
	Operator string `json:"operator_policy"`
	// It is a list instead if it is empty.
	Effective json.RawMessage `json:"effective_policy_definition"`
}

// ask returns what holds for each queue of the virtual host.
func (m *management) ask(ctx context.Context) (found []queuePolicy, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.queues, nil)
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(m.user, m.password)
	response, err := m.client.Do(request)
	if err != nil {
		return nil, err // which holds the URL, without a password
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", m.name, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPolicies+1))
	if err == nil && len(body) > maxPolicies {
		err = fmt.Errorf("more than %d MiB", maxPolicies>>20)
	}
	if err == nil {
		err = json.Unmarshal(body, &found)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: reading the queues: %w", m.name, err)
	}
	return found, nil
}

// conflict names what of a policy would throw messages of our queues away; it is
// empty for one that does not, and for the queues of others.
func (q queuePolicy) conflict() string {
	dead := q.Name == deadQueue
	if !dead && shardOfQueue(q.Name) < 0 {
		return ""
	}
	var holds map[string]any
	if json.Unmarshal(q.Effective, &holds) != nil {
		return "" // an empty list
	}
	fields := []string{"expires", "message-ttl"}
	if dead { // it has no argument that says what becomes of those, nor dead letters of its own
		fields = append(fields, "delivery-limit")
		if holds["overflow"] != "reject-publish" {
			fields = append(fields, "max-length", "max-length-bytes")
		}
	}
	for _, field := range fields {
		if value, ok := holds[field]; ok {
			return fmt.Sprintf("%s is %v", field, value)
		}
	}
	return ""
}

// checkPolicies returns why the broker may not be used. An API that does not answer
// is no reason.
func (s *session) checkPolicies() error {
	m := s.broker.management
	if m == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(s.broker.conns.Context())
	defer cancel()
	found, err := m.ask(ctx)
	if err != nil {
		s.broker.conns.Send(event.PoliciesUnknown{Err: err})
		return nil
	}
	for _, q := range found {
		if why := q.conflict(); why != "" {
			return conn.Refused(fmt.Errorf("a policy throws messages of the queue %s away: %s (policy %q, operator policy %q); "+
				"leave the queues async-data-processor.* out of it", q.Name, why, q.Policy, q.Operator))
		}
	}
	return nil
}

// watchPolicies looks for policies that change, until the session ends.
func (s *session) watchPolicies() {
	if s.broker.management == nil {
		return
	}
	look := time.NewTicker(s.broker.timing.look)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if err := s.checkPolicies(); err != nil {
				s.giveUp(err)
			}
		case <-s.Gone():
			return
		}
	}
}
