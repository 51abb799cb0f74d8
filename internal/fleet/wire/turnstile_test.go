package wire

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTurns: one at a time, those under way before those that come, in the order in
// which they came; and nobody waits for ever.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurnstile()
		s.most = 1
		if !s.enter(false) || !s.Waiting() {
			t.Fatal("the first one does not get its turn")
		}
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		come := func(name string, again bool) {
			wg.Go(func() {
				in := s.enter(again)
				mu.Lock()
				order = append(order, map[bool]string{true: name, false: name + " not"}[in])
				mu.Unlock()
				if in {
					s.leave()
				}
			})
			synctest.Wait()
		}
		come("new", false)
		come("newer", false)
		come("under way", true)
		s.leave()
		wg.Wait()
		if want := []string{"under way", "new", "newer"}; !slices.Equal(order, want) {
			t.Errorf("they got their turns as %q, not %q", order, want)
		}
		order = nil
		if !s.enter(true) {
			t.Fatal("nobody is there, and it waits")
		}
		began := time.Now()
		come("late", false)
		wg.Wait()
		if want := []string{"late not"}; !slices.Equal(order, want) || time.Since(began) != turnWait {
			t.Errorf("%q after %s, not %q after %s", order, time.Since(began), want, turnWait)
		}
		s.leave()
		for range 3 {
			s.over()
		}
		if s.Waiting() {
			t.Error("somebody waits, though all have left")
		}
		if come("after it", false); order[len(order)-1] != "after it" {
			t.Error("who did not wait until its turn keeps others out")
		}
		wg.Wait()
	})
}

// TestUnderWay: no more handshakes are begun than can be ended soon.
func TestUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurnstile()
		for range underWay {
			if !s.enter(false) {
				t.Fatal("one of those that may be under way does not get its turn")
			}
			s.leave() // it waits for the other side
		}
		in := make(chan bool)
		go func() { in <- s.enter(false) }()
		synctest.Wait()
		select {
		case <-in:
			t.Fatal("one more is begun than may be under way")
		default:
		}
		if !s.enter(true) {
			t.Fatal("one that is under way does not get its turn")
		}
		s.over()
		s.leave()
		if !<-in {
			t.Error("none is begun when one has ended")
		}
	})
}

// endless is a listener to which somebody always comes.
type endless struct{ closed chan struct{} }

func (e *endless) Accept() (net.Conn, error) {
	select {
	case <-e.closed:
		return nil, net.ErrClosed
	default:
		_, theirs := net.Pipe()
		return theirs, nil
	}
}

func (e *endless) Close() error   { close(e.closed); return nil }
func (e *endless) Addr() net.Addr { return &net.TCPAddr{} }

// TestCrowd: when as many wait as may, the others stay where the kernel keeps them,
// until one is let in; a closed listener says so at once.
func TestCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurnstile()
		l := s.Listener(&endless{closed: make(chan struct{})})
		for range crowd {
			if _, err := l.Accept(); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan error, 2)
		take := func() {
			_, err := l.Accept()
			got <- err
		}
		go take()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("one more is taken than may wait")
		}
		s.came()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		go take()
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("one more is taken than was let in")
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed listener says %v", err)
		}
	})
}

// TestCrowded: one that waits is no crowd, and none that listens is counted.
func TestCrowded(t *testing.T) {
	s := NewTurnstile()
	s.listeners, s.coming = 2, 2
	for n := range many {
		if s.Crowded() {
			t.Fatalf("%d are a crowd", n)
		}
		if !s.takes() {
			t.Fatal("no more are taken")
		}
	}
	if !s.Crowded() {
		t.Fatalf("%d are no crowd", many)
	}
	s.came()
	if s.Crowded() {
		t.Fatal("one less is a crowd still")
	}
}
