package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"async-data-processor/pipeline"
)

// view is what a process says of its system; as JSON a contract with scripts.
type view struct {
	Overview pipeline.Overview    `json:"overview"`
	Nodes    []pipeline.NodeView  `json:"nodes"`
	Shards   []pipeline.ShardView `json:"shards"`

	at time.Time // when it was asked, on this machine's clock
}

const (
	unknown = "?"
	none    = "-"
	// clearScreen moves to the top left and clears what follows (ECMA-48, CUP and ED).
	clearScreen = "\x1b[H\x1b[J"
)

// print prints a table of each kind; rates are since the view before.
func (v *view) print(out io.Writer, before *view, onScreen bool) error {
	var text bytes.Buffer
	v.printHead(&text)
	v.printNodes(&text)
	v.printShards(&text, before)
	shown := trimLines(text.Bytes())
	if onScreen {
		shown = append([]byte(clearScreen), shown...)
	} else {
		shown = append(shown, '\n')
	}
	_, err := out.Write(shown)
	return err
}

func (v *view) printHead(text *bytes.Buffer) {
	o := v.Overview
	fmt.Fprintf(text, "%s: %s. %s: %s. Asked %s at %s.\n", counted(len(v.Nodes), "node"), states(o.Nodes),
		counted(len(v.Shards), "shard"), states(o.Shards), plain(o.Node), o.AsOf.Local().Format(time.TimeOnly))
	queued := unknown
	if o.Queued != nil {
		queued = humanize.Comma(int64(*o.Queued))
	}
	fmt.Fprintf(text, "Envelopes: %s queued, %s in hand. Entries since each start: %s written, %s again, %s dead. %s.\n",
		queued, humanize.Comma(int64(o.InHand)), humanize.Comma(o.Written), humanize.Comma(o.Duplicates), humanize.Comma(o.Dead), counted(o.Workers, "worker"))
	if o.Intake[pipeline.IntakePaused] > 0 {
		fmt.Fprintf(text, "Intake of the servers: %s.\n", states(o.Intake))
		for _, n := range v.Nodes {
			if p := n.IntakePause; p != nil {
				printPause(text, plain(n.Node), p)
			}
		}
	}
	if !o.Complete {
		text.WriteString("A node does not answer, or the bus is away: what others have is not in these sums.\n")
	}
}

func (v *view) printNodes(text *bytes.Buffer) {
	t := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nNODE\tSTATE\tROLES\tADDRESS\tSHARDS\tWRITTEN\tDISK FREE\tNOT READY")
	owned := make(map[string]int)
	for _, sh := range v.Shards {
		owned[sh.Owner]++
	}
	for _, n := range v.Nodes {
		shards, written, free := unknown, unknown, none
		if n.Totals != nil {
			shards, written = strconv.Itoa(owned[n.Node]), humanize.Comma(n.Totals.Written)
		}
		if n.Disk != nil {
			free = humanize.IBytes(uint64(max(n.Disk.Free, 0)))
		}
		var failing []string
		for _, c := range n.Checks {
			if !c.OK {
				failing = append(failing, plain(c.Name)+": "+plain(c.Why))
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(n.Node), n.State, plain(strings.Join(n.Info.Roles, "+")), plain(n.Info.Address),
			shards, written, free, strings.Join(failing, "; "))
	}
	_ = t.Flush() // into memory
}

func (v *view) printShards(text *bytes.Buffer, before *view) {
	t := tabwriter.NewWriter(text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nSHARD\tQUEUED\tIN HAND\tHELD\tOLDEST\tWORKERS\tWRITTEN\tWRITTEN/S\t  STATE\t  OWNER")
	for _, sh := range v.Shards {
		queued, inHand, held, oldest, workers, written, rate := unknown, unknown, unknown, unknown, unknown, unknown, none
		if sh.Queued != nil {
			queued = humanize.Comma(int64(*sh.Queued))
		}
		switch p := sh.Part; {
		case p != nil:
			inHand, held, written = humanize.Comma(int64(p.InHand)), strconv.Itoa(p.Held), humanize.Comma(p.Written)
			workers = fmt.Sprintf("%d of %d-%d", p.Workers, p.WorkersMin, p.WorkersMax)
			rate = v.rate(&sh, before)
			if p.OldestAge != nil {
				oldest = age(*p.OldestAge)
			}
		case sh.Owner == "":
			inHand, held, oldest, workers, written = none, none, none, none, none
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t  %s\t  %s\n", sh.Shard, queued, inHand, held, oldest, workers, written, rate, plain(string(sh.State)), orNone(sh.Owner))
	}
	_ = t.Flush() // into memory
	for _, sh := range v.Shards {
		if sh.Part != nil && sh.Part.Pause != nil {
			printPause(text, "shard "+strconv.Itoa(sh.Shard), sh.Part.Pause)
		}
	}
}

// printPause prints a line with what is known of a pause.
func printPause(text *bytes.Buffer, what string, p *pipeline.Pause) {
	fmt.Fprintf(text, "  %s: paused since %s", what, p.Since.Local().Format(time.DateTime))
	if !p.Until.IsZero() {
		fmt.Fprintf(text, " until %s", p.Until.Local().Format(time.DateTime))
	}
	if p.By != "" {
		fmt.Fprintf(text, " by %s", plain(p.By))
	}
	if p.Why != "" {
		fmt.Fprintf(text, ": %s", plain(p.Why))
	}
	text.WriteByte('\n')
}

// age is how long the oldest entry waits; none if there is no such entry.
func age(seconds float64) string {
	if seconds == 0 {
		return none
	}
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// rate is how many entries a second the shard's owner has written since the view before.
func (v *view) rate(sh *pipeline.ShardView, before *view) string {
	i := slices.IndexFunc(before.Shards, func(o pipeline.ShardView) bool { return o.Shard == sh.Shard })
	took := v.at.Sub(before.at).Seconds()
	if i < 0 || before.Shards[i].Part == nil || before.Shards[i].Owner != sh.Owner || took <= 0 {
		return none
	}
	return humanize.CommafWithDigits(max(0, float64(sh.Part.Written-before.Shards[i].Part.Written)/took), 0)
}

// states lists how many are in each state.
func states(counts map[string]int) string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d %s", counts[state], plain(state)))
	}
	return strings.Join(parts, ", ")
}

func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%s %s", humanize.Comma(int64(n)), noun)
}
