package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

const (
	// maxQueue is how many messages may wait for an agent that does not read.
	maxQueue = 4096
	// maxWhy is how much of an agent's reason is kept, in bytes.
	maxWhy = 1000
	// maxComplaints is how many defects of one session are told to the log.
	maxComplaints = 10
)

var (
	errReplaced  = errors.New("the same agent connected again")
	errSilent    = errors.New("the agent was silent for too long")
	errSlow      = errors.New("the agent does not read what it is sent")
	errAnew      = errors.New("a change may have cut the machine off; its agent is to call anew")
	errForgotten = errors.New("the host was sent away from the fleet")
)

// session is one agent's connection.
type session struct {
	host   *host
	about  about
	label  string
	probes map[string]bool // guarded by the host's mu
	// commands says that the agent runs them.
	commands bool
	// signed says that it runs only what a person signed for it.
	signed bool
	// gossips says that it takes part in a ring when it is told one.
	gossips bool
	// permits says that the agent knows standing permits.
	permits bool
	// believes says that the agent knows the authority's words.
	believes bool
	issuer   string      // pin of the authority that issued the certificate with which it began
	told     int64       // serial of the last word that it was told; guarded by the host's mu
	clocks   wire.Clocks // guarded by the host's mu
	nonce    nonce       // guarded by the host's mu

	began   time.Time // guarded by the host's mu, as settled is
	settled bool      // the agent has told everything

	interval time.Duration // as the agent was told
	pinged   time.Time     // pulse's own

	shown loop.Tip // the head that the agent was shown last; write's own, once the session speaks

	done   <-chan struct{} // closed when it ends
	cancel context.CancelCauseFunc
	ctx    context.Context

	mu         sync.Mutex // guards what follows
	out        []*wire.SessionResponse
	stream     wire.AgentService_SessionServer // nil: nothing is sent yet
	writing    bool                            // somebody sends what is in out
	over       bool                            // nothing is sent any more
	next       uint64
	waiting    map[uint64]chan<- answer
	pings      map[uint64]time.Time
	heard      time.Time
	trip       time.Duration // the shortest round trip of late
	complaints int
	renew      time.Time // when the agent's standing permit is due
	renewing   bool
}

// answer is what an agent sent to a request, and when and by which clock.
type answer struct {
	message *wire.SessionRequest
	at      time.Time
}

func newSession(ctx context.Context, cancel context.CancelCauseFunc, h *host, hello *wire.Hello) *session {
	x := &session{
		host: h, ctx: ctx, cancel: cancel, done: ctx.Done(), label: hello.GetLabel(), commands: hello.GetCommands(), signed: hello.GetSignedCommands(), gossips: hello.GetGossips(), permits: hello.GetPermits(), believes: hello.GetAuthorities(),
		about:   about{executor: cmp.Or(hello.GetExecutor(), hello.GetIncarnation()), incarnation: hello.GetIncarnation(), bootID: hello.GetBootId(), version: hello.GetVersion()},
		probes:  map[string]bool{},
		waiting: map[uint64]chan<- answer{}, pings: map[uint64]time.Time{},
	}
	return x
}

// take takes one message in.
func (x *session) take(a answer) error {
	now := a.message.GetNowNs()
	x.host.mu.Lock()
	x.clocks.Heard(a.at, now)
	x.host.heard = a.at
	x.host.mu.Unlock()
	x.mu.Lock()
	x.heard = a.at
	x.mu.Unlock()
	switch w := a.message.GetWhat().(type) {
	case *wire.SessionRequest_Report:
		x.host.report(x, a.at, now, w.Report)
	case *wire.SessionRequest_Digest:
		return x.host.digest(x, a.at, now, w.Digest.GetSeen())
	case *wire.SessionRequest_Settled:
		x.host.settled(x)
		x.host.s.o.Log.Info("an agent has told all that it sees", "host", x.host.subject, "label", x.label)
	case *wire.SessionRequest_Outcome:
		x.deliver(w.Outcome.GetId(), a)
	case *wire.SessionRequest_LookAnswer:
		x.deliver(w.LookAnswer.GetId(), a)
	case *wire.SessionRequest_PreviewAnswer:
		x.deliver(w.PreviewAnswer.GetId(), a)
	case *wire.SessionRequest_CommandOutput:
		x.heardOf(w.CommandOutput.GetId(), a)
	case *wire.SessionRequest_CommandEnd:
		x.heardOf(w.CommandEnd.GetId(), a)
	case *wire.SessionRequest_Pong:
		x.mu.Lock()
		sent, ok := x.pings[w.Pong.GetId()]
		delete(x.pings, w.Pong.GetId())
		x.mu.Unlock()
		if ok {
			x.roundTrip(a.at, a.at.Sub(sent), w.Pong.GetNonce())
		}
	case *wire.SessionRequest_FreezeState:
		x.host.mu.Lock()
		x.host.frozen = freezeState{fleet: w.FreezeState.GetFleet(), local: w.FreezeState.GetLocal(), why: w.FreezeState.GetWhy()}
		x.host.mu.Unlock()
	case *wire.SessionRequest_LogState:
		why := w.LogState.GetRefused()
		x.host.mu.Lock()
		x.host.refuses = strings.ToValidUTF8(why[:min(len(why), maxWhy)], "")
		x.host.mu.Unlock()
		if why != "" {
			x.host.s.o.Log.Error("an agent takes no steps of this server", "host", x.host.subject, "label", x.label, "why", why)
		}
	case *wire.SessionRequest_Armed:
		x.armed(a.at, w.Armed)
	case *wire.SessionRequest_PermitState:
		x.host.keeps(a.at, w.PermitState)
	case *wire.SessionRequest_Story:
		x.host.s.sessions.Go(func() { x.story(a.at, w.Story) })
	case *wire.SessionRequest_Probes:
		x.host.mu.Lock()
		for _, name := range w.Probes.GetNames() {
			x.probes[name] = true
		}
		x.host.mu.Unlock()
	case *wire.SessionRequest_Sightings:
		x.host.s.witness(func(t *witness) { t.sightings(x, a.at, now, w.Sightings) })
	case *wire.SessionRequest_RingState:
		x.host.s.gossip(func(g *gossip) { g.said(x, w.RingState) })
	case *wire.SessionRequest_AuthorityState:
		x.followsAuthority(w.AuthorityState)
	case *wire.SessionRequest_Hello:
		return status.Error(codes.InvalidArgument, "a second Hello in one session")
	}
	return nil // what a newer agent says besides is passed over
}

func (x *session) roundTrip(at time.Time, took time.Duration, fresh string) {
	x.host.mu.Lock()
	defer x.host.mu.Unlock()
	if fresh != "" {
		x.nonce = nonce{fresh, at}
	}
	x.clocks.Answered(at, took)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.trip = x.clocks.RoundTrip()
}

// push queues a message for the agent. After the session has ended it does
// nothing.
func (x *session) push(m *wire.SessionResponse) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	if len(x.out) >= maxQueue {
		x.cancel(errSlow)
		return
	}
	x.out = append(x.out, m)
	x.stir()
}

// speak lets what is queued go out, and what comes after it.
func (x *session) speak(stream wire.AgentService_SessionServer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stream = stream
	x.stir()
}

// stir sees to it that somebody sends. A goroutine that waits for something to send
// would be a tenth of what an idle agent costs: it ends when there is nothing. mu is held.
func (x *session) stir() {
	if x.stream == nil || x.writing || x.over || len(x.out) == 0 {
		return
	}
	x.writing = true
	x.host.s.sessions.Go(x.write)
}

// write sends what is queued.
func (x *session) write() {
	for {
		x.mu.Lock()
		out := x.out
		x.out = nil
		if x.over || len(out) == 0 {
			x.writing = false
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
		for _, m := range out {
			x.withHead(m)
			if err := x.stream.Send(m); err != nil {
				x.cancel(&brokenError{fmt.Errorf("send: %w", err)})
				return
			}
		}
	}
}

// close ends what is sent. The handler has not returned yet.
func (x *session) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over, x.out = true, nil
}

// end ends the session.
func (x *session) end(why error) { x.cancel(why) }

// complain tells the log of a defect, the first few times. The host's mu is held.
func (x *session) complain(text string, err error) {
	if x.complaints++; x.complaints <= maxComplaints {
		x.host.s.o.Log.Warn(text, "host", x.host.subject, "error", err)
	}
}

// frozen returns the fleet's freeze for an agent.
func (s *Server) frozen(ctx context.Context) (*wire.Freeze, error) {
	var f *guard.Freeze
	if err := s.ask(ctx, func(m *incident.Mind) { f = m.Frozen() }); err != nil {
		return nil, err
	}
	return freezeOf(f)
}

func freezeOf(f *guard.Freeze) (*wire.Freeze, error) {
	if f == nil {
		return &wire.Freeze{}, nil
	}
	data, err := wire.Pack(f)
	return &wire.Freeze{Json: data}, err
}

// held is what people hold back on a host, asked of the mind at once: the fleet's freeze,
// and maintenance there.
func (s *Server) held(ctx context.Context, host fettle.Subject) (*wire.Freeze, *wire.Maintenance, error) {
	var f *guard.Freeze
	var windows []guard.Window
	if err := s.ask(ctx, func(m *incident.Mind) { f, windows = m.Frozen(), m.Windows() }); err != nil {
		return nil, nil, err
	}
	freeze, err := freezeOf(f)
	if err != nil {
		return nil, nil, err
	}
	maintenance, err := maintenanceOf(windows, host)
	return freeze, maintenance, err
}
