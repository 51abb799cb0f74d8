package member

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// lookAround looks at members that the ring holds for dead, each by itself, until ctx
// ends and the last look has ended.
func (n *Node) lookAround(ctx context.Context) {
	var looks sync.WaitGroup
	defer looks.Wait()
	for {
		names, forgotten, next := n.table.toLook(time.Now(), n.o.Settings.Forget)
		for _, name := range forgotten {
			n.coords.forget(name)
		}
		for _, name := range names {
			looks.Go(func() { n.lookAt(ctx, name) })
		}
		pause := time.Minute
		if !next.IsZero() {
			pause = min(pause, max(time.Until(next), time.Millisecond))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-n.table.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// lookAt looks at one member, first-hand.
func (n *Node) lookAt(ctx context.Context, name string) {
	from := time.Now()
	saw := n.look(ctx, name)
	if ctx.Err() != nil {
		return
	}
	looks := n.table.looked(name, saw, from, time.Now(), func(looks int) time.Duration {
		if saw == SawNothing || saw == SawAnswer {
			return n.o.Settings.Windows.Floor
		}
		again := n.o.Settings.Again
		for i := 1; i < looks && again < n.o.Settings.AgainMax; i++ {
			again += again / 2
		}
		return jittered(min(again, n.o.Settings.AgainMax) * 2 / 3) // AgainMax at most
	})
	select {
	case n.table.wake <- struct{}{}: // when the next look is due has changed
	default:
	}
	if saw == SawAnswer && looks > 1 {
		// It is there, and the ring goes on holding it for dead: it has not heard of that,
		// or the ring was cut in two. Tell each other everything.
		if e, ok := n.table.find(name); ok {
			if _, err := n.list.Join([]string{e.Addr.String()}); err != nil {
				n.o.Log.Debug("meet a member that the ring holds for dead", "host", name, "err", err)
			}
		}
	}
}

// look asks a member until it answers or has been silent for long enough, by packet
// and by connection. SawNothing: the ring has taken it back meanwhile, or this process
// overslept so often that it knows nothing.
//
// With each question others are asked too, at random. If they do not answer either, the
// network has begun to lose what is sent, faster than that is measured elsewhere, and
// the silence proves less: the member is asked as often as that loss demands.
func (n *Node) look(ctx context.Context, name string) Saw {
	e, ok := n.table.find(name)
	if !ok {
		return SawNothing
	}
	windows, m := n.o.Settings.Windows, n.measured(name)
	l := looking{node: n, target: e, answers: make(chan struct{}, 1), others: make(chan struct{}, 2*controls*windows.AsksMax)}
	l.knocked = n.knock(&e, l.answers)
	// The first round is as long as the measured loss demands; one more follows where
	// the others' silence demands more.
	for asks := windows.Asks(m.Loss); ; {
		if saw := l.round(ctx, asks, windows.Pace(m), windows.Wait(m)); saw != SawSilence {
			return saw
		}
		m.Loss = max(m.Loss, l.loss())
		if asks = windows.Asks(m.Loss); asks <= l.asked {
			break
		}
	}
	if l.accepted {
		return SawAccept
	}
	return SawSilence
}

// controls is how many others are asked with each question: four questions make twelve
// of them. A loss of 438 per mille (a quarter each way) that nobody has measured yet stays
// unseen by all twelve in 1 of 1000 cases, and the member's four answers are lost too in
// 4 of 100 of those.
const controls = 3

// looking is one look at one member.
type looking struct {
	node    *Node
	target  entry
	answers chan struct{} // the member's
	knocked <-chan Saw    // nil once it is known what became of the connection

	accepted    bool
	asked       int
	others      chan struct{} // answers of others
	othersAsked int
}

// loss is how many of the others did not answer, per mille.
func (l *looking) loss() int {
	if l.othersAsked == 0 {
		return 0
	}
	return 1000 - 1000*len(l.others)/l.othersAsked
}

// round asks until there were that many questions, and waits for an answer to the last.
func (l *looking) round(ctx context.Context, asks int, pace, last time.Duration) Saw {
	// Steps are bounded: on a machine that oversleeps all the time nothing can be told.
	for steps := 3 * asks; l.asked < asks; {
		if steps--; steps < 0 || !l.ask() {
			return SawNothing
		}
		pause := pace
		if l.asked == asks-1 {
			pause = last
		}
		before := time.Now()
		timer := time.NewTimer(pause)
		select {
		case <-l.answers:
			timer.Stop()
			return SawAnswer
		case how := <-l.knocked:
			timer.Stop()
			if how == SawRefusal {
				return SawRefusal
			}
			// The packets may still be answered. This pause was cut short: the question
			// does not count.
			l.accepted, l.knocked = how == SawAccept, nil
			continue
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return SawNothing
		}
		if now, ok := l.node.table.find(l.target.Label.Host); !ok || now.inRing {
			return SawNothing
		}
		if time.Since(before) <= 2*pause { // else overslept: what came meanwhile may wait behind us
			l.asked++
		}
	}
	return SawSilence
}

// ask sends one question to the member, and to others.
func (l *looking) ask() bool {
	n := l.node
	put := func(to entry, answers chan<- struct{}) bool {
		number, err := n.questions.ask(to.Label.Host, time.Now(), answers)
		if err != nil {
			n.o.Log.Debug("look at a member", "host", to.Label.Host, "err", err)
			return false
		}
		n.send(outgoing{to: to.node, message: message{kind: askMessage, number: number}})
		return true
	}
	here := n.table.here()
	for i := range min(controls, len(here)) {
		j := i + rand.IntN(len(here)-i)
		here[i], here[j] = here[j], here[i]
		if put(here[i], l.others) {
			l.othersAsked++
		}
	}
	return put(l.target, l.answers)
}

// knock sends one question over a connection, and tells what became of that: the
// kernel refused it (SawRefusal), took it (SawAccept), or neither (SawNothing), which
// may take as long as Settings.Stream. The answer comes by packet and by connection.
func (n *Node) knock(e *entry, answers chan<- struct{}) <-chan Saw {
	done := make(chan Saw, 1)
	number, err := n.questions.ask(e.Label.Host, time.Now(), answers)
	if err != nil {
		done <- SawNothing
		return done
	}
	to := e.node
	data := message{kind: askMessage, stream: true, number: number, from: n.o.Self.Host}.write()
	n.knocks.Go(func() {
		switch err := n.list.SendReliable(&to, data); {
		case err == nil:
			done <- SawAccept
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			done <- SawRefusal
		default:
			done <- SawNothing
		}
	})
	return done
}
