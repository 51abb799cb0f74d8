package nfq

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Queue is the receiving end of one NFQUEUE number.
type Queue struct {
	number uint16
	file   *os.File
}

// Open binds the queue in the network namespace of the calling thread. It stays bound there, wherever the queue is
// used, until Close. A number that somebody listens on already is an error.
func Open(number uint16) (*Queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nfq: netlink socket: %w", err)
	}
	q := &Queue{number: number, file: os.NewFile(uintptr(fd), "netlink")}
	if err := q.bind(fd); err != nil {
		q.file.Close()
		return nil, fmt.Errorf("nfq: bind queue %d: %w", number, err)
	}
	return q, nil
}

func (q *Queue) bind(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Room for bursts. Beyond it the kernel lets packets pass at once, by the queue's fail-open flag, instead of telling us.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	if err := q.file.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for _, r := range bind(q.number) {
		if _, err := q.file.Write(r); err != nil {
			return err
		}
		n, err := q.file.Read(buf)
		if err != nil {
			return err
		}
		events, err := parse(buf[:n])
		if err != nil {
			return err
		}
		for _, e := range events {
			// A packet that is first seen here, before its listener runs, goes on at once.
			if e.isPacket {
				if _, err := q.file.Write(acceptance(q.number, e.packet)); err != nil {
					return err
				}
			} else if e.err != nil {
				return e.err
			}
		}
	}
	return q.file.SetReadDeadline(time.Time{})
}

// Run holds every packet for as long as delay says, which is called once for each, in their order, and not by two
// goroutines at once. Packets of equal times go on in their order. It returns when ctx ends, after letting go of all that
// it holds, or with the error that keeps it from going on.
func (q *Queue) Run(ctx context.Context, delay func() time.Duration) error {
	packets := make(chan []uint32)
	failed := make(chan error, 1)
	life, cancel := context.WithCancel(ctx)
	go func() { failed <- q.read(life, packets) }()
	// A file that is closed, the only reason to fail, ends the reader as well.
	stop := context.AfterFunc(life, func() { _ = q.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var held hold
	var err error
	timer := time.NewTimer(0)
	defer timer.Stop()
loop:
	for {
		select {
		case ids := <-packets:
			now := time.Now()
			for _, id := range ids {
				held.add(id, now.Add(delay()))
			}
		case <-timer.C:
		case err = <-failed:
			failed <- err
			break loop
		case <-ctx.Done():
			break loop
		}
		now := time.Now()
		for len(held.waiting) > 0 && !held.waiting[0].due.After(now) {
			if _, err = q.file.Write(acceptance(q.number, held.next())); err != nil {
				break loop
			}
		}
		if len(held.waiting) > 0 {
			timer.Reset(time.Until(held.waiting[0].due))
		}
	}
	cancel()
	for len(held.waiting) > 0 {
		_, werr := q.file.Write(acceptance(q.number, held.next()))
		err = errors.Join(err, werr)
	}
	if rerr := <-failed; err == nil && ctx.Err() == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("nfq: queue %d: %w", q.number, err)
	}
	return nil
}

func (q *Queue) read(ctx context.Context, packets chan<- []uint32) error {
	buf := make([]byte, 1<<16)
	for {
		n, err := q.file.Read(buf)
		if err != nil {
			return err
		}
		events, err := parse(buf[:n])
		if err != nil {
			return err
		}
		var ids []uint32
		for _, e := range events {
			if e.isPacket {
				ids = append(ids, e.packet)
			}
		}
		select {
		case packets <- ids:
		case <-ctx.Done():
			err := ctx.Err()
			for _, id := range ids { // nobody else knows of them
				_, werr := q.file.Write(acceptance(q.number, id))
				err = errors.Join(err, werr)
			}
			return err
		}
	}
}

// Close unbinds the queue. The kernel drops what is still in it; Run leaves nothing there.
func (q *Queue) Close() error { return q.file.Close() }

// hold is the packets that wait, the next one first.
type hold struct {
	waiting waiting
	count   uint64
}

type packet struct {
	id    uint32
	due   time.Time
	order uint64 // of arrival
}

func (h *hold) add(id uint32, due time.Time) {
	h.count++
	heap.Push(&h.waiting, packet{id: id, due: due, order: h.count})
}

func (h *hold) next() uint32 { return heap.Pop(&h.waiting).(packet).id }

type waiting []packet

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	if c := w[i].due.Compare(w[j].due); c != 0 {
		return c < 0
	}
	return w[i].order < w[j].order
}
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)   { *w = append(*w, x.(packet)) }
func (w *waiting) Pop() any {
	old := *w
	last := old[len(old)-1]
	*w = old[:len(old)-1]
	return last
}
