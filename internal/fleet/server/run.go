package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/loop"
)

const (
	// runParallel is on how many agents a command runs at once where nobody says:
	// each may have one CommandChunk under way.
	runParallel = 1024
	// manyHosts is from how many on hosts give signs of life half as often: these are
	// cheap, and not for nothing.
	manyHosts = 1000
	// What follows bounds what a caller may ask for.
	maxRunParallel = 10_000
	maxRunLimit    = 64 << 20
	maxRunTime     = 24 * time.Hour
	maxArgv        = 256 << 10 // bytes
	// keptText and keptHosts are how much of a run the log has, in bytes.
	keptText  = 2000
	keptHosts = 64 << 10
	// endsTogether is how far apart the ends may be that server and host set to one run.
	endsTogether = 500 * time.Millisecond
	// recordWait is how long the end of a run may take to be recorded.
	recordWait = 10 * time.Second
)

// recorder is a Brain that keeps what a person does past the mind, as loop.Loop
// does. Without one nothing is run: what is not recorded does not happen (S13).
type recorder interface {
	Record(ctx context.Context, kind, text string, data any) error
}

// Run implements wire.AdminServiceServer.
func (a *admin) Run(r *wire.RunRequest, out wire.AdminService_RunServer) error {
	return a.run(r, out, nil)
}

// run runs a command. Whether the caller may run what is asked each host's own list
// decides; here it is only refused while the fleet is frozen. signs has the caller sign
// for each host; nil: that does not.
func (a *admin) run(r *wire.RunRequest, out teller, signs *signatures) error {
	ctx := out.Context()
	o, err := runOptions(r)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	hosts, err := fanout.Select(r.GetHosts(), a.s.inventory())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if min(o.Parallel, len(hosts)) > manyHosts {
		o.Notice *= 2
	}
	names, ids := make([]string, len(hosts)), make([]string, len(hosts))
	for i, h := range hosts {
		names[i], ids[i] = h.Name, h.ID
	}
	first := &wire.RunResponse{What: &wire.RunResponse_Hosts{Hosts: &wire.RunHosts{Names: names, Hosts: ids}}}
	if len(r.GetArgv()) == 0 {
		return out.Send(first)
	}
	if err := a.s.thawed(ctx); err != nil {
		return err
	}
	t := a.s.term.Load()
	if t == nil {
		return errStarting
	}
	log, ok := t.brain.(recorder)
	if !ok {
		return status.Error(codes.FailedPrecondition, "this server cannot record what people run, so nothing is run")
	}
	act := newAct(ctx, r, names)
	if signs != nil {
		act.Run = signs.id
	}
	if err := log.Record(ctx, "run", act.begins(), act); err != nil {
		return unrecorded(err)
	}
	runner := &agentRunner{s: a.s, by: callerOf(ctx).name.ID, role: act.Role, limit: int64(o.Limit), alive: o.Notice * 2 / 5, signs: signs}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := out.Send(first)
	sum := fanout.Run(ctx, hosts, fanout.Command{Argv: r.GetArgv()}, o, runner, func(e fanout.Event) {
		if e.Kind == fanout.Ended {
			act.note(e.Result)
		}
		if broken == nil {
			broken = out.Send(eventMessage(e))
		}
		if broken != nil {
			cancel() // nobody looks any more
		}
	})
	// Also of a caller who has hung up it is recorded how it ended.
	last, done := context.WithTimeout(context.WithoutCancel(ctx), recordWait)
	defer done()
	act.Summary = &sum
	rerr := log.Record(last, "run", act.ends(), act)
	if rerr != nil {
		a.s.o.Log.Error("how a person's command ended is not recorded", "by", act.By, "error", rerr)
	}
	if broken != nil {
		return broken
	}
	data, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	return out.Send(&wire.RunResponse{What: &wire.RunResponse_Summary{Summary: data}})
}

// unrecorded tells a caller why nothing was run.
func unrecorded(err error) error {
	const what = "nothing was run, since it could not be recorded: %v"
	if errors.Is(err, loop.ErrFull) { // which says what to do
		return status.Errorf(codes.ResourceExhausted, what, err)
	}
	return status.Errorf(codes.Unavailable, what+" (try again)", err)
}

// runOptions checks what a caller asks for.
func runOptions(r *wire.RunRequest) (fanout.Options, error) {
	o := fanout.Options{Parallel: int(r.GetParallel()), StopAfter: int(r.GetStopAfter()), Limit: int(min(r.GetLimit(), maxRunLimit)),
		Silence: time.Duration(r.GetSilenceNs()), Timeout: time.Duration(r.GetTimeoutNs()), Notice: fanout.DefaultNotice}
	if o.Parallel == 0 {
		o.Parallel = runParallel
	}
	o.Parallel = min(o.Parallel, maxRunParallel)
	if o.Limit == 0 {
		o.Limit = fanout.DefaultLimit
	}
	if o.Timeout == 0 || o.Timeout > maxRunTime {
		o.Timeout = maxRunTime
	}
	if o.Parallel < 0 || o.StopAfter < 0 || o.Limit < 0 || o.Silence < 0 || o.Timeout < 0 {
		return o, errors.New("a number of hosts, bytes or nanoseconds is negative")
	}
	size := 0
	for _, arg := range r.GetArgv() {
		size += len(arg)
		if strings.ContainsRune(arg, 0) {
			return o, errors.New("an argument of a program cannot have a zero byte in it")
		}
	}
	if size > maxArgv {
		return o, fmt.Errorf("the command has more than %d bytes", maxArgv)
	}
	var err error
	o.Batch, err = fanout.ParseBatch(r.GetBatch())
	return o, err
}

// inventory is the hosts of the fleet as they can be selected: by their label, or
// their identity where two have the same.
func (s *Server) inventory() fanout.Inventory {
	inv := fanout.Inventory{What: "the fleet"}
	times := map[string]int{}
	for _, h := range s.known() {
		h.mu.Lock()
		name, version, connected := h.label, h.last.version, h.session != nil
		h.mu.Unlock()
		times[name]++
		host := fanout.Host{Name: name, ID: string(h.subject), Labels: map[string]string{"connected": "no"}}
		if connected {
			host.Labels["connected"] = "yes"
		}
		if version != "" {
			host.Labels["version"] = version
		}
		inv.Hosts = append(inv.Hosts, host)
	}
	for i, h := range inv.Hosts {
		if times[h.Name] > 1 || fanout.CheckName(h.Name) != nil {
			inv.Hosts[i].Name = h.ID
		}
	}
	return inv
}

// thawed refuses while the fleet is frozen.
func (s *Server) thawed(ctx context.Context) error {
	f, err := s.frozen(ctx)
	if err != nil || len(f.GetJson()) == 0 {
		return err
	}
	freeze, err := wire.Unpack[guard.Freeze](f.GetJson())
	if err != nil {
		return err
	}
	return status.Errorf(codes.FailedPrecondition, "the fleet is frozen by %s: %s (see `fettle thaw`)", freeze.By, freeze.Why)
}

// act is a run as the log has it.
type act struct {
	By      string          `json:"by"`
	Role    pki.Role        `json:"role"`
	Run     string          `json:"run,omitempty"` // as the person signed it, and the hosts' logs have it
	Argv    []string        `json:"argv"`          // redacted
	Count   int             `json:"count"`
	Hosts   string          `json:"hosts"`         // folded; cut off where there are too many
	Failed  string          `json:"failed"`        // the hosts that did not succeed, likewise
	Unknown string          `json:"unknown"`       // those of which it cannot be told
	Summary *fanout.Summary `json:"end,omitempty"` // not there: it begins
	failed  []string        // as Failed
	unknown []string
}

func newAct(ctx context.Context, r *wire.RunRequest, names []string) *act {
	c := callerOf(ctx)
	return &act{By: said(ctx, r.GetBy()), Role: c.name.Role, Argv: fanout.Redact(r.GetArgv()), Count: len(names), Hosts: cut(fanout.Fold(names), keptHosts)}
}

func (a *act) note(r fanout.Result) {
	switch r.Outcome {
	case fanout.Succeeded:
	case fanout.Failed, fanout.Signalled, fanout.Refused:
		a.failed = append(a.failed, r.Host)
	default:
		a.unknown = append(a.unknown, r.Host)
	}
}

func (a *act) begins() string {
	return cut(fmt.Sprintf("%s: runs %q on %d hosts: %s", a.By, a.Argv, a.Count, a.Hosts), keptText)
}

func (a *act) ends() string {
	a.Failed, a.Unknown = cut(fanout.Fold(a.failed), keptHosts), cut(fanout.Fold(a.unknown), keptHosts)
	var counts []string
	for _, o := range fanout.Outcomes() {
		if n := a.Summary.Counts[o]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, o))
		}
	}
	return cut(fmt.Sprintf("%s: ran %q on %d hosts: %s", a.By, a.Argv, a.Count, strings.Join(counts, ", ")), keptText)
}

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func eventMessage(e fanout.Event) *wire.RunResponse {
	m := &wire.RunEvent{Kind: string(e.Kind), Host: e.Host, Stream: string(e.Stream), Data: e.Data, Why: e.Why}
	if e.Kind == fanout.Ended {
		m.Result, _ = json.Marshal(e.Result) // plain data
	}
	return &wire.RunResponse{What: &wire.RunResponse_Event{Event: m}}
}

// agentRunner runs commands through the agents. It is a fanout.Runner.
type agentRunner struct {
	s     *Server
	by    string
	role  pki.Role
	limit int64
	alive time.Duration
	signs *signatures // nil: the caller signs nothing
}

// Run implements fanout.Runner. The command is put to the host's session once; a
// session that ends is not waited for to come back.
func (r *agentRunner) Run(ctx context.Context, h fanout.Host, c fanout.Command, s *fanout.Sink) (fanout.Status, error) {
	x, err := r.s.contact(fettle.Subject(h.ID))
	if err != nil {
		return fanout.Status{}, fanout.Unreach("is the host on, and does its agent run?", "no contact with its agent")
	}
	if !x.commands {
		return fanout.Status{}, fanout.Refuse("upgrade it", "its agent is of version %.40q, which runs no commands", x.about.version)
	}
	if ctx.Err() != nil {
		return fanout.Status{}, context.Cause(ctx)
	}
	s.Alive()
	command, err := r.words(ctx, h, x, c)
	if err != nil {
		return fanout.Status{}, err
	}
	command.WithinNs, command.Limit, command.AliveNs = int64(r.s.left(ctx)), r.limit+1, int64(r.alive)
	s.Begun()
	var id uint64
	answers, stop := x.request(func(n uint64) *wire.SessionResponse {
		id = n
		command.Id = n
		return &wire.SessionResponse{What: &wire.SessionResponse_Command{Command: command}}
	})
	defer stop()
	left := r.limit + 1
	for {
		select {
		case a := <-answers:
			if end := a.message.GetCommandEnd(); end != nil {
				if end.GetError() != "" && r.s.left(ctx) < endsTogether {
					<-ctx.Done() // the host ended it for the same reason, a moment before we do
					return fanout.Status{}, context.Cause(ctx)
				}
				return commandEnded(end)
			}
			m := a.message.GetCommandOutput()
			if len(m.GetData()) == 0 {
				s.Alive()
				continue
			}
			stream := fanout.Stdout
			if m.GetStderr() {
				stream = fanout.Stderr
			}
			if left -= int64(len(m.GetData())); left < 0 {
				return fanout.Status{}, &fanout.Failure{Outcome: fanout.Lost, Err: errors.New("its agent sends more output than it was asked for (a defect of the agent)")}
			}
			s.Output(stream, m.GetData())
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_CommandMore{CommandMore: &wire.CommandMore{Id: id}}})
		case <-x.done:
			return fanout.Status{}, &fanout.Failure{Outcome: fanout.Lost, Err: fmt.Errorf("the connection to its agent ended (%w)", context.Cause(x.ctx)),
				Hint: "the command may have run, or was ended with the connection: look before you repeat it"}
		case <-ctx.Done():
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_CommandCancel{CommandCancel: &wire.CommandCancel{Id: id}}})
			return fanout.Status{}, context.Cause(ctx)
		}
	}
}

// commandEnded is what an agent says of the end of a command.
func commandEnded(end *wire.CommandEnd) (fanout.Status, error) {
	switch {
	case end.GetRefused() != "":
		return fanout.Status{}, fanout.Refuse(cut(end.GetHint(), maxWhy), "%s", cut(end.GetRefused(), maxWhy))
	case end.GetError() != "":
		return fanout.Status{}, &fanout.Failure{Outcome: fanout.Lost, Err: errors.New(cut(end.GetError(), maxWhy)), Hint: cut(end.GetHint(), maxWhy)}
	}
	return fanout.Status{Exit: int(end.GetExit()), Signal: cut(end.GetSignal(), 20)}, nil
}

// heardOf hands a message about a command to who waits for it. A sign of life is
// left out where others wait to be read: it is we who are slow.
func (x *session) heardOf(id uint64, a answer) {
	if m := a.message.GetCommandOutput(); m != nil && len(m.GetData()) == 0 {
		x.mu.Lock()
		crowded := len(x.waiting[id]) > 2
		x.mu.Unlock()
		if crowded {
			return
		}
	}
	x.deliver(id, a)
}
