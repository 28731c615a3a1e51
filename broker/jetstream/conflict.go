package jetstream

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"async-data-processor/message"
)

// conflict names the first field of a stream that would break a promise.
// Limits of its size, placement and replicas are the operator's.
func conflict(got, want jetstream.StreamConfig, subjects []string) string {
	switch {
	case got.Retention != want.Retention:
		return fmt.Sprintf("retention is %s, want %s", got.Retention, want.Retention)
	case got.Storage != want.Storage:
		return fmt.Sprintf("storage is %s, want %s", got.Storage, want.Storage)
	case got.Discard != want.Discard:
		return fmt.Sprintf("discard is %s, want %s", got.Discard, want.Discard)
	case got.PersistMode != want.PersistMode:
		return fmt.Sprintf("persist_mode is %s, want %s", got.PersistMode, want.PersistMode)
	case got.MaxAge != 0:
		return fmt.Sprintf("max_age is %s, want none", got.MaxAge)
	case got.MaxMsgsPerSubject > 0:
		return fmt.Sprintf("max_msgs_per_subject is %d, want none", got.MaxMsgsPerSubject)
	case got.MaxMsgSize > 0 && got.MaxMsgSize < message.MaxEnvelopeBytes+headerRoom:
		return fmt.Sprintf("max_msg_size is %d, want at least %d", got.MaxMsgSize, message.MaxEnvelopeBytes+headerRoom)
	case got.NoAck:
		return "no_ack is true, want false"
	case got.Sealed:
		return "sealed is true, want false"
	case got.Mirror != nil:
		return "mirror is set, want none"
	case got.SubjectTransform != nil:
		return "subject_transform is set, want none"
	}
	for _, subject := range subjects {
		if !covered(subject, got.Subjects) {
			return fmt.Sprintf("subjects are %s, %s is missing", strings.Join(got.Subjects, " "), subject)
		}
	}
	return ""
}

func consumerConflict(got, want jetstream.ConsumerConfig) string {
	switch {
	case got.DeliverSubject != "":
		return "deliver_subject is set, want none"
	case got.FilterSubject != want.FilterSubject:
		return fmt.Sprintf("filter_subject is %q, want %s", got.FilterSubject, want.FilterSubject)
	case got.AckPolicy != want.AckPolicy:
		return fmt.Sprintf("ack_policy is %s, want %s", got.AckPolicy, want.AckPolicy)
	case got.DeliverPolicy != want.DeliverPolicy:
		return fmt.Sprintf("deliver_policy is %s, want %s", got.DeliverPolicy, want.DeliverPolicy)
	case got.AckWait < want.AckWait:
		return fmt.Sprintf("ack_wait is %s, want at least %s", got.AckWait, want.AckWait)
	case got.MaxDeliver > 0:
		return fmt.Sprintf("max_deliver is %d, want none", got.MaxDeliver)
	case got.HeadersOnly:
		return "headers_only is true, want false"
	case got.PriorityPolicy != want.PriorityPolicy || len(got.PriorityGroups) != 1 || got.PriorityGroups[0] != group:
		// Also what a server makes of it that does not know the field.
		return "priority_policy is not pinned_client with the group " + group + ", which needs nats-server 2.11"
	default:
		return ""
	}
}

// covered tells whether a subject without wildcards matches one of the patterns.
func covered(subject string, patterns []string) bool {
	tokens := strings.Split(subject, ".")
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(tokens, strings.Split(pattern, ".")) })
}

func matches(tokens, pattern []string) bool {
	for i, p := range pattern {
		if p == ">" {
			return len(tokens) > i
		}
		if i >= len(tokens) || p != "*" && p != tokens[i] {
			return false
		}
	}
	return len(tokens) == len(pattern)
}
