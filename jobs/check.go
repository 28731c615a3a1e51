package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"async-data-processor/broker"
	"async-data-processor/jobs/frame"
	"async-data-processor/jobs/store"
)

// maxOffset bounds an offset in a log. Nobody writes a pebibyte.
const maxOffset = 1 << 50

var errFrame = errors.New("the frame is not a JSON object of the protocol")

// heard is a frame of a runner without the members that only an engine sends.
type heard struct {
	frame.Frame
	Node        ignored `json:"node"`
	Definitions ignored `json:"definitions"`
	Job         ignored `json:"job"`
	Args        ignored `json:"args"`
	File        ignored `json:"file"`
}

// ignored takes any JSON value, and keeps nothing of it.
type ignored struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*ignored) UnmarshalJSON([]byte) error { return nil }

// parseFrame reads a frame of a runner. Nothing of what it says is trusted: an error is
// what its WebSocket is closed with. It keeps what the type has, as frames may wait for
// long, and their queue counts no more than that.
func parseFrame(text []byte) (f frame.Frame, err error) {
	var h heard
	if json.Unmarshal(text, &h) != nil {
		return frame.Frame{}, errFrame
	}
	switch h.Type {
	case frame.Hello:
		f = h.Frame
	case frame.BeatFrame:
		f = frame.Frame{Type: h.Type, Seq: h.Seq, Attempts: h.Attempts}
	default:
		f = frame.Frame{
			Type: h.Type, Run: h.Run, Attempt: h.Attempt, Offset: h.Offset, Data: h.Data, Cut: h.Cut, Outcome: h.Outcome, Exit: h.Exit,
			Why: strings.Clone(clean(h.Why, frame.MaxWhy)),
		}
	}
	switch f.Type {
	case frame.Hello, frame.Drain:
	case frame.BeatFrame:
		err = checkAttempts(f.Attempts)
	case frame.Take, frame.Refuse:
		err = checkAttempt(f.Run, f.Attempt)
	case frame.Log:
		err = checkAttempt(f.Run, f.Attempt)
		if len(f.Data) > frame.MaxLogPart {
			err = fmt.Errorf("a part of a log is longer than %d KiB", frame.MaxLogPart>>10)
		}
		if f.Offset < 0 || f.Offset > maxOffset || f.Cut < 0 || f.Cut > maxOffset {
			err = errors.New("a log has an offset that cannot be")
		}
	case frame.End:
		err = checkAttempt(f.Run, f.Attempt)
		if f.Offset < 0 || f.Offset > maxOffset {
			err = errors.New("a log has an offset that cannot be")
		}
		if !f.Outcome.Known() {
			err = fmt.Errorf("an attempt cannot end as %q", shorten(string(f.Outcome)))
		}
		if f.Exit < -1<<31 || f.Exit >= 1<<31 {
			err = errors.New("an exit code has 32 bits")
		}
	default:
		err = fmt.Errorf("a runner does not send %q", shorten(f.Type))
	}
	if err != nil {
		return frame.Frame{}, err
	}
	return f, nil
}

func checkHello(f frame.Frame) error {
	switch {
	case f.Type != frame.Hello:
		return errors.New("the first frame has to be hello")
	case f.V != frame.Version:
		return fmt.Errorf("this engine speaks version %d of the protocol, and the runner %d", frame.Version, f.V)
	case f.Slots < 1 || f.Slots > frame.MaxSlots:
		return fmt.Errorf("a runner has 1 to %d slots", frame.MaxSlots)
	case len(f.Labels) > maxLabels:
		return fmt.Errorf("a runner has at most %d labels", maxLabels)
	}
	if err := checkName(f.Runner); err != nil {
		return fmt.Errorf("the runner's name: %w", err)
	}
	for _, label := range f.Labels {
		if err := checkName(label); err != nil {
			return fmt.Errorf("a label: %w", err)
		}
	}
	return checkAttempts(f.Attempts)
}

func checkAttempt(run int64, attempt int) error {
	if run < 1 || attempt < 1 || attempt >= 1<<31 {
		return errors.New("the frame names no attempt")
	}
	return nil
}

func checkAttempts(all []frame.Attempt) error {
	if len(all) > frame.MaxAttempts {
		return fmt.Errorf("a frame names at most %d attempts", frame.MaxAttempts)
	}
	seen := make(map[frame.Attempt]bool, len(all))
	for _, a := range all {
		if err := checkAttempt(a.Run, a.Attempt); err != nil {
			return err
		}
		a.Log = 0
		if seen[a] {
			return errors.New("the frame names an attempt twice")
		}
		seen[a] = true
	}
	return nil
}

func fencesOf(all []frame.Attempt) (fences []store.Fence) {
	for _, a := range all {
		fences = append(fences, store.Fence{Run: a.Run, Attempt: a.Attempt})
	}
	return fences
}

func attemptsOf(all []store.Fence) (attempts []frame.Attempt) {
	for _, f := range all {
		attempts = append(attempts, frame.Attempt{Run: f.Run, Attempt: f.Attempt})
	}
	return attempts
}

// clean is broker.Clip without control characters, which a database may refuse and a terminal obey.
func clean(text string, most int) string {
	return broker.Clip(strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case c < ' ' || c >= 0x7f && c < 0xa0:
			return -1
		}
		return c
	}, text), most)
}
