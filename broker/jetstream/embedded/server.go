package embedded

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"async-data-processor/durable"
)

const (
	// startTimeout is given to a server that has to read its blocks again,
	// which a crash makes it do, at some hundred megabytes a second.
	startTimeout = 2 * time.Minute
	// stopTimeout bounds the end of a server whose disk does not answer.
	stopTimeout = 10 * time.Second
	// settleTimeout is for some thousand acknowledgements, each with its fsync.
	settleTimeout = 3 * time.Second
	// healthTries is how often a server is asked for its health before its not
	// being up is believed.
	healthTries = 100
	// memoryLimit is what streams in memory may use. There are none of ours.
	memoryLimit = 1 << 20
	// maxPayload is the server's default, in which the largest envelope fits twice.
	maxPayload = 1 << 20
)

// instance is one run of the embedded server.
type instance struct {
	*server.Server
	log   *serverLog
	limit int64 // bytes that the streams may hold
}

// startServer starts a server on the store and waits until it has recovered
// what is there. After an error nothing runs.
func startServer(s *store, cfg Config) (*instance, error) {
	opts, err := serverOptions(s, cfg)
	if err != nil {
		return nil, err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	i := &instance{Server: srv, log: &serverLog{}, limit: opts.JetStreamMaxStore}
	srv.SetLogger(i.log, false, false)
	srv.Start()
	ready := srv.ReadyForConnections(startTimeout)
	err = i.log.failed()
	if err == nil && !ready {
		err = fmt.Errorf("not ready after %v", startTimeout)
	}
	if err == nil {
		err = i.recovered()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start embedded server on %s: %w", s.dir, err), i.stop())
	}
	return i, nil
}

func serverOptions(s *store, cfg Config) (*server.Options, error) {
	limit, err := storeLimit(s, cfg.MinFree)
	if err != nil {
		return nil, err
	}
	opts := &server.Options{
		// The name is part of what a store remembers, so it stays the same.
		ServerName:             "async-data-processor",
		DontListen:             true,
		NoSigs:                 true, // signals are the program's
		NoLog:                  true,
		JetStream:              true,
		StoreDir:               s.dir, // without it: the folder for temporary files
		SyncAlways:             true,  // else an acknowledged message waits two minutes for its fsync
		JetStreamMaxMemory:     memoryLimit,
		JetStreamMaxStore:      limit,
		DisableJetStreamBanner: true,
		MaxPayload:             maxPayload,
	}
	if cfg.Listen == "" {
		return opts, nil
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err == nil {
		opts.Port, err = strconv.Atoi(port)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded listener %q: want host:port: %w", cfg.Listen, err)
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT // the server's 0 is its default port
	}
	opts.DontListen, opts.Host, opts.Authorization = false, host, cfg.Token
	return opts, tryListen(cfg.Listen)
}

// storeLimit is what the streams may hold: what they do, and the free space but
// for half of what has to be kept free. That is where publishers of other
// processes are refused, who do not ask admit.
func storeLimit(s *store, minFree int64) (int64, error) {
	free, err := durable.Free(s.dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.dir, err)
	}
	return max(s.bytesUsed()+free-minFree/2, 1), nil // 0 would be a default
}

// tryListen finds out early, and with the system's error, whether an address
// can be listened on; the server would only log it.
func tryListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("embedded listener: %w", err)
	}
	return l.Close()
}

// recovered fails unless every stream in the store is there, whole.
func (i *instance) recovered() error {
	if health := i.unhealthy(); health != nil {
		return health
	}
	streams, err := i.streams()
	if err != nil {
		return err
	}
	for _, stream := range streams {
		if lost := stream.State.Lost; lost != nil {
			return fmt.Errorf("%w: the stream %s lost %d messages", ErrStoreDamaged, stream.Name, len(lost.Msgs))
		}
	}
	return nil
}

// unhealthy returns why the server cannot store, or nil. A write error of a
// stream stays until a restart, with or without space.
func (i *instance) unhealthy() error {
	if !i.JetStreamEnabled() {
		return errors.New("the embedded server gave up its store" + i.log.last())
	}
	// The server gives itself a millisecond to see whether it is up, and on a
	// busy machine may miss that; then it does not look at its streams.
	var found server.HealthzError
	for range healthTries {
		errs := i.Healthz(&server.HealthzOptions{Details: true}).Errors
		if len(errs) == 0 {
			return nil
		}
		if found = errs[0]; found.Type != server.HealthzErrorConn {
			break
		}
	}
	return errors.New(found.Error + i.log.last())
}

// streams lists the streams; none is no error.
func (i *instance) streams() ([]server.StreamDetail, error) {
	info, err := i.Jsz(&server.JSzOptions{Streams: true})
	if err != nil {
		return nil, fmt.Errorf("list the embedded server's streams: %w", err)
	}
	if len(info.AccountDetails) == 0 {
		return nil, nil
	}
	return info.AccountDetails[0].Streams, nil
}

// settle waits until the server has worked off what its clients have sent, but
// not longer than settleTimeout: when it stops it drops acknowledgements that
// it has read and not yet stored, and their messages would come again. What
// waits may be between two of its queues, so it has to find them empty twice.
func (i *instance) settle() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(settleTimeout)
	defer limit.Stop()
	for empty := 0; empty < 2; {
		if len(*i.Ipqueuesz(&server.IpqueueszOptions{})) == 0 {
			empty++
		} else {
			empty = 0
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return
		}
	}
}

// errStuck: a server did not stop, so nothing else may use its store.
var errStuck = fmt.Errorf("the embedded server did not stop within %v, its store stays locked until this process ends", stopTimeout)

// stop stops the server and waits for it, but not longer than stopTimeout.
func (i *instance) stop() error {
	stopped := make(chan struct{})
	go func() {
		i.Shutdown()
		i.WaitForShutdown()
		close(stopped)
	}()
	limit := time.NewTimer(stopTimeout)
	defer limit.Stop()
	select {
	case <-stopped:
		return nil
	case <-limit.C:
		return errStuck
	}
}

// serverLog takes what the server logs. Nothing is decided by the text; what
// counts is that there was an error, a reason to ask for the server's health.
type serverLog struct {
	erred atomic.Bool

	mu    sync.Mutex // guards what follows
	text  string     // of the last warning or error
	fatal error
}

// Noticef implements server.Logger, as do the others.
func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = fmt.Sprintf(format, args...)
}

func (l *serverLog) Errorf(format string, args ...any) {
	l.Warnf(format, args...)
	l.erred.Store(true)
}

// Fatalf is the server's end where it is a program; here it goes on without
// what it was about to do.
func (l *serverLog) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = fmt.Errorf(format, args...)
	}
}

func (l *serverLog) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

// last is the last warning or error as the end of a sentence.
func (l *serverLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == "" {
		return ""
	}
	return " (" + l.text + ")"
}
