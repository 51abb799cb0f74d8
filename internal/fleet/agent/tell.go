package agent

import (
	"errors"
	"io"
	"slices"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
)

// push queues an answer.
func (x *session) push(make func(now time.Time) *wire.SessionRequest) {
	x.mu.Lock()
	x.answers = append(x.answers, make)
	x.mu.Unlock()
	signal(x.wake)
}

// pushLooked queues the answer to a look. It is sent when what this agent judged of
// what was seen has been: who asked would else decide on facts without the
// conditions that are raised by them.
func (x *session) pushLooked(make func(now time.Time) *wire.SessionRequest) {
	x.mu.Lock()
	x.looked = append(x.looked, make)
	x.mu.Unlock()
	signal(x.wake)
}

// write sends what waits, at once, until the session ends.
func (x *session) write() {
	for {
		select {
		case <-x.wake:
		case <-x.a.picture.wake:
		case <-x.ctx.Done():
			return
		}
		if err := x.flush(); err != nil {
			if !errors.Is(err, io.EOF) { // else Recv knows why
				x.cancel(err)
			}
			return
		}
	}
}

// flush sends everything that waits.
func (x *session) flush() error {
	x.mu.Lock()
	answers, looked := x.answers, x.looked // looked before what waits is taken: that has then all that they saw
	x.answers, x.looked = nil, nil
	x.mu.Unlock()
	if err := x.answer(answers); err != nil {
		return err
	}
	if probes := x.a.crew.probes(); !slices.Equal(probes, x.probes) {
		x.probes = probes
		if err := x.send(&wire.SessionRequest{What: &wire.SessionRequest_Probes{Probes: &wire.Probes{Names: probes}}}); err != nil {
			return err
		}
	}
	settled := x.a.crew.settled.Load() // before what waits is taken: that has then all that was seen
	waits := x.a.picture.pending()
	if err := x.report(waits.observations, waits.conditions); err != nil {
		return err
	}
	if err := x.digest(waits.alive); err != nil {
		return err
	}
	if settled && !x.settled {
		x.settled = true
		if err := x.send(&wire.SessionRequest{What: &wire.SessionRequest_Settled{Settled: &wire.Settled{}}}); err != nil {
			return err
		}
	}
	return x.answer(looked)
}

// answer sends answers, each made at its time.
func (x *session) answer(list []func(now time.Time) *wire.SessionRequest) error {
	for _, make := range list {
		now := x.a.o.Machine.Clock.Now()
		m := make(now)
		m.NowNs = now.UnixNano()
		if err := x.stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// send sends a message that has no ages in it.
func (x *session) send(m *wire.SessionRequest) error {
	m.NowNs = x.a.o.Machine.Clock.Now().UnixNano()
	return x.stream.Send(m)
}

// report sends observations and conditions, in as many messages as it takes.
func (x *session) report(observations []fettle.Observation, conditions []fettle.Condition) error {
	now := x.a.o.Machine.Clock.Now()
	r := &wire.Report{}
	size := 0
	send := func() error {
		if len(r.Observations)+len(r.Conditions) == 0 {
			return nil
		}
		m := &wire.SessionRequest{NowNs: now.UnixNano(), What: &wire.SessionRequest_Report{Report: r}}
		r, size = &wire.Report{}, 0
		err := x.stream.Send(m)
		now = x.a.o.Machine.Clock.Now()
		return err
	}
	for _, o := range observations {
		w := packed(o, now)
		r.Observations = append(r.Observations, w)
		if size += len(w.GetJson()); size >= wire.Chunk {
			if err := send(); err != nil {
				return err
			}
		}
	}
	for _, c := range conditions {
		data, err := wire.Pack(c)
		if err != nil {
			x.a.o.Log.Error("a condition cannot be told", "condition", c.String(), "error", err)
			continue
		}
		r.Conditions = append(r.Conditions, data)
		if size += len(data); size >= wire.Chunk {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// packed puts an observation into a message that is sent now. One that is too
// large to be told becomes one that says so.
func packed(o fettle.Observation, now time.Time) *wire.Observation {
	age := ageOf(o, now)
	o.Asked = time.Time{}
	data, err := wire.Pack(o)
	if err != nil {
		o = fettle.Observation{Subject: o.Subject, Host: o.Host, Probe: o.Probe, Took: o.Took, Reason: fettle.Failed, Detail: err.Error()}
		data, _ = wire.Pack(o) // small, and plain text
	}
	return &wire.Observation{Json: data, AgeNs: age}
}

// ageOf is exact, so that the same observation sent twice is placed at the same
// time: Sub would use monotonic readings where both have them.
func ageOf(o fettle.Observation, now time.Time) int64 {
	return max(0, now.UnixNano()-o.Asked.UnixNano())
}

// maxSeen is how many confirmations one message may have.
const maxSeen = 4096

// digest sends what was confirmed.
func (x *session) digest(alive []fettle.Observation) error {
	for len(alive) > 0 {
		n := min(len(alive), maxSeen)
		now := x.a.o.Machine.Clock.Now()
		d := &wire.Digest{}
		for _, o := range alive[:n] {
			d.Seen = append(d.Seen, &wire.Seen{Subject: string(o.Subject), Probe: o.Probe, AgeNs: ageOf(o, now), TookNs: int64(o.Took)})
		}
		alive = alive[n:]
		if err := x.stream.Send(&wire.SessionRequest{NowNs: now.UnixNano(), What: &wire.SessionRequest_Digest{Digest: d}}); err != nil {
			return err
		}
	}
	return nil
}
