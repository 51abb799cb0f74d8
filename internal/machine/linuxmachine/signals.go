package linuxmachine

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

// subscription is one running Watch: the signals that it has not handled yet.
type subscription struct {
	mu    sync.Mutex
	queue []*dbus.Signal
	wake  chan struct{} // holds one token while queue is not empty
}

func newSubscription() *subscription { return &subscription{wake: make(chan struct{}, 1)} }

func (s *subscription) push(sig *dbus.Signal) {
	s.mu.Lock()
	s.queue = append(s.queue, sig)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) take() []*dbus.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queue
	s.queue = nil
	return q
}

// DeliverSignal is called by godbus for each signal, in order, on the goroutine
// that reads the connection: a signal is handed on with nothing in between, and
// what follows an answer is handled after it.
func (l *link) DeliverSignal(iface, member string, sig *dbus.Signal) {
	switch iface {
	case managerIface:
		if member == "JobRemoved" {
			l.jobRemoved(sig)
		}
	case propertyIface:
		if member != "PropertiesChanged" || !strings.HasPrefix(string(sig.Path), unitPrefix) {
			return
		}
	default:
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.watches {
		s.push(sig)
	}
}

func (l *link) jobRemoved(sig *dbus.Signal) {
	var id uint32
	var path dbus.ObjectPath
	var unit, result string
	if dbus.Store(sig.Body, &id, &path, &unit, &result) != nil {
		return // not the signal of systemd that we know
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ch := range l.waiting[path] {
		ch <- result
	}
	delete(l.waiting, path)
	if l.expecting > 0 {
		l.ended[path] = result
	}
}

// job queues a job by method, and returns a channel that gets its result.
func (l *link) job(ctx context.Context, method, unit string) (<-chan string, dbus.ObjectPath, error) {
	if err := l.subscribe(ctx); err != nil {
		return nil, "", err
	}
	l.mu.Lock()
	l.expecting++
	l.mu.Unlock()
	var path dbus.ObjectPath
	err := l.call(ctx, systemdPath, managerIface+"."+method, unit, "replace").Store(&path)

	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan string, 1)
	if err == nil {
		if result, over := l.ended[path]; over {
			ch <- result
		} else { // systemd may merge two of ours into one job
			l.waiting[path] = append(l.waiting[path], ch)
		}
	}
	if l.expecting--; l.expecting == 0 {
		clear(l.ended)
	}
	return ch, path, explain(err)
}

// subscribe asks for the manager's signals, once for each connection. On the
// private socket they come unasked.
func (l *link) subscribe(ctx context.Context) error {
	l.mu.Lock()
	done := l.subscribed || l.private
	l.mu.Unlock()
	if done {
		return nil
	}
	if err := l.match(ctx, "AddMatch", managerRule); err != nil {
		return err
	}
	if err := l.call(ctx, systemdPath, managerIface+".Subscribe").Err; err != nil {
		return fmt.Errorf("subscribe to systemd: %w", explain(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribed = true
	return nil
}

const managerRule = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',interface='org.freedesktop.systemd1.Manager'"

// match adds or removes a rule at the message bus.
func (l *link) match(ctx context.Context, method, rule string) error {
	if l.private {
		return nil
	}
	if err := l.conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus."+method, 0, rule).Err; err != nil {
		return fmt.Errorf("%s at the message bus: %w", method, explain(err))
	}
	return nil
}

// propertyRules are what a Watch of these units needs: one rule for each when it
// names a few, else one for all units.
func propertyRules(paths []dbus.ObjectPath) []string {
	const rule = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
	const few = 32 // the bus compares each message with each rule
	if len(paths) == 0 || len(paths) > few {
		return []string{rule + "path_namespace='/org/freedesktop/systemd1/unit'"}
	}
	var out []string
	for _, p := range paths {
		out = append(out, rule+"path='"+string(p)+"'")
	}
	return out
}
