package output

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"async-data-processor/batcher"
	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
	"async-data-processor/message"
	"async-data-processor/workerpool"
)

// What the processes of the model are set to.
const (
	modelBatch   = 5
	modelLinger  = time.Second
	modelTimeout = 2 * time.Second
	modelTick    = time.Second // between two looks whether a file is due
)

var (
	errSettle = errors.New("the connection was lost during a settle")
	errDrain  = errors.New("the drain took too long")
)

// process is a message-consumer of one shard, wired as pipeline wires it.
type process struct {
	world  *world
	client *brokertest.Client

	intake, work context.Context
	stop         context.CancelFunc
	giveUp       context.CancelCauseFunc

	dead  chan struct{} // closed by a crash
	ended chan struct{} // closed when nothing of it runs but hung writes

	// Guarded by the world's lock.
	crashed   bool
	folders   []*modelFolder
	unsettled int // deliveries
}

// launch starts a process in a slot, unless the schedule is over.
func (w *world) launch(slot int) *process {
	p := &process{world: w, client: w.memory.Open(nil), dead: make(chan struct{}), ended: make(chan struct{})}
	p.intake, p.stop = context.WithCancel(context.Background())
	p.work, p.giveUp = context.WithCancelCause(context.Background())
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return nil
	}
	w.processes[slot] = p
	go p.run()
	return p
}

// crash ends a process at once: nothing that it does has an effect any more. A
// loss of power takes all of them. The caller holds the world's lock.
func (w *world) crash(p *process, power bool, bits uint64) {
	victims := []*process{p}
	if power {
		victims = w.processes[:] // p is one of them
		w.disk.losePower(bits)
	}
	for _, p := range victims {
		if p == nil || p.crashed {
			continue
		}
		p.crashed = true
		close(p.dead)
		for _, f := range p.folders {
			_ = once(&f.unlocked, f.folder.unlock)
			_ = once(&f.closed, f.folder.close)
		}
		_ = p.client.Close() // what it holds goes back to the queue
		p.stop()
		p.giveUp(errCrashed)
	}
}

// drain asks for an orderly end, which may take as long as given.
func (p *process) drain(patience time.Duration) {
	p.stop()
	time.AfterFunc(patience, func() { p.giveUp(errDrain) })
}

func (p *process) run() {
	defer close(p.ended)
	defer p.client.Close()
	recorder, owned := newModelRecorder(p), make(chan struct{})
	var recording sync.WaitGroup
	recording.Go(func() { recorder.run(owned) })
	defer recording.Wait()
	defer close(owned)
	dir := p.dir(recorder)
	for p.intake.Err() == nil {
		shard, err := dir.Shard(p.intake, 0, nil)
		if err == nil {
			p.own(shard)
			continue
		}
		select { // as the consumer would start it again
		case <-time.After(time.Second):
		case <-p.intake.Done():
		}
	}
}

// dir is the output folder as the process has opened it.
func (p *process) dir(r Recorder) *Dir {
	d := p.world.dir
	mine := &Dir{root: d.root, path: d.path, window: d.window, roll: p.world.roll, standby: d.standby, sync: d.sync, wrap: p.wrap, now: p.world.now, legacies: map[string]*legacy{}, Recorder: r}
	mine.names.folder = parent{mine}
	return mine
}

// wrap puts the model's folder in the place of the real one, whose lock it keeps.
func (p *process) wrap(real folder) folder {
	f := p.newFolder(real)
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	p.folders = append(p.folders, f)
	return f
}

func (p *process) own(shard *Shard) {
	var (
		envelopes = make(chan *message.Delivery)
		opened    = make(chan batcher.Opened)
		batches   = make(chan *message.Batch, 1)
	)
	pool := workerpool.New(workerpool.Config{
		Min: 3, Max: 4, Timeout: modelTimeout, Writer: &modelWriter{shard, p.world},
	}, batches)
	f := shard.dir.folder.(*modelFolder)
	f.written.Store(true)
	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(envelopes)
		// It fails if the process has crashed, and then that is the end of it.
		_ = p.client.Consume(p.intake, 0, 5*modelBatch, envelopes)
	})
	stages.Go(func() {
		defer close(opened)
		for d := range envelopes {
			d := p.watched(d)
			messages, dead, err := message.Strict.Open(d.Envelope)
			if err != nil || len(dead) > 0 {
				p.world.breach("an envelope cannot be opened: %v, %v", err, dead)
				continue
			}
			d.Expect(len(messages))
			opened <- batcher.Opened{Delivery: d, Messages: messages}
		}
	})
	stages.Go(func() {
		batcher.Run(batcher.Config{Size: modelBatch, Together: p.world.together, Linger: modelLinger}, opened, batches)
	})
	done := make(chan struct{})
	stages.Go(func() {
		defer close(done)
		pool.Run(p.work)
	})
	stages.Go(func() { p.tick(shard, done) })
	stages.Wait()
	// An undo that fails is said in the error; the next owner finds the file.
	f.written.Store(false)
	close(f.closing)
	_ = shard.Close()
	p.checkSettled()
}

// tick rolls the shard's files until done.
func (p *process) tick(shard *Shard, done <-chan struct{}) {
	for {
		select {
		case <-time.After(modelTick):
			func() {
				defer func() { _ = recover() }() // as its caller would
				_ = shard.Roll(p.work)           // it is tried again
			}()
		case <-done:
			return
		}
	}
}

// checkSettled checks that no delivery is unsettled at an orderly end.
func (p *process) checkSettled() {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	if p.unsettled > 0 && !p.crashed {
		p.world.disk.breach("%d deliveries are unsettled behind a drain", p.unsettled)
	}
}

// watched is the delivery with a checker between its consumer and the broker.
func (p *process) watched(d *message.Delivery) *message.Delivery {
	p.world.mu.Lock()
	p.unsettled++
	p.world.mu.Unlock()
	return message.NewDelivery(d.Envelope, d.Redelivered, func(o message.Outcome) error {
		v, alive := p.world.settles(p, d, o)
		if !alive {
			return broker.ErrStale
		}
		if v == fail { // it does not arrive
			p.world.memory.Break()
			return errSettle
		}
		err := d.Settle(o)
		if errors.Is(err, message.ErrSettled) {
			p.world.breach("envelope %s was settled twice", d.ID)
		}
		if v == happened {
			p.world.memory.Break()
			return errSettle
		}
		return err
	})
}

// settles checks a settle, which is up to a process that lives, and tells what
// becomes of it.
func (w *world) settles(p *process, d *message.Delivery, o message.Outcome) (v verdict, alive bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.crashed {
		return pass, false
	}
	p.unsettled--
	if o.Kind == message.Ack || len(o.Dead) > 0 {
		kept := w.disk.kept()
		for line := range bytes.Lines(d.Body) {
			line = bytes.TrimSuffix(line, []byte("\n"))
			dead := slices.ContainsFunc(o.Dead, func(m message.Dead) bool { return bytes.Equal(m.Line, line) })
			if id := (message.Message{Line: line}).ID(); !kept[id] && !dead {
				w.disk.breach("envelope %s is settled with %v, but %s is not durable", d.ID, o.Kind, id)
			}
		}
	}
	if len(w.settleFaults) > 0 {
		v = w.settleFaults[0]
		w.settleFaults = w.settleFaults[1:]
	}
	return v, true
}

// modelWriter is a shard whose promises about the files it names are checked.
type modelWriter struct {
	shard *Shard
	world *world
}

func (m *modelWriter) Write(ctx context.Context, worker string, b *message.Batch) (string, []message.Message, error) {
	file, written, err := m.shard.Write(ctx, worker, b)
	if err != nil {
		return file, written, err
	}
	w := m.world
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.disk.kept()
	for _, m := range b.Messages {
		if !kept[m.ID()] {
			w.disk.breach("Write returned %s, but %s is not durable", file, m.ID())
		}
	}
	if len(written) > 0 {
		name := strings.TrimPrefix(file, "shard-0/")
		if !w.disk.has(w.disk.durable, name) {
			w.disk.breach("Write returned %s, but it is not durable", name)
		}
		w.disk.returned = append(w.disk.returned, name)
	}
	return file, written, err
}

func (w *world) breach(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disk.breach(format, args...)
}
