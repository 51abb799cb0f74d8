package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/segment"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/incident"
)

// filed is a history with files, whose room a test sets.
type filed struct {
	*store.Memory
	mu      sync.Mutex
	usage   store.Usage
	ended   []fettle.Incident
	segment segment.Ref
	data    []byte
}

func (f *filed) set(u store.Usage) {
	f.mu.Lock()
	f.usage = u
	f.mu.Unlock()
}

func (f *filed) Usage() (store.Usage, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.usage, true
}

func (f *filed) Ended(_ context.Context, each func(fettle.Incident) error) error {
	var err error
	for _, i := range f.ended {
		err = errors.Join(err, each(i))
	}
	return err
}

func (f *filed) EndedIncident(_ context.Context, id string) (fettle.Incident, bool, error) {
	for _, i := range f.ended {
		if i.ID == id {
			return i, true, nil
		}
	}
	return fettle.Incident{}, false, nil
}

func (f *filed) Segment(r segment.Ref) ([]byte, error) {
	if r != f.segment {
		return nil, &segment.Bad{Ref: r, Err: fs.ErrNotExist}
	}
	return f.data, nil
}

func newFiled(t *testing.T) (*fleet, *filed) {
	t.Helper()
	h := &filed{usage: store.Usage{InUse: 5 << 20, File: 6 << 20, Quota: 2 << 30, Reserve: 1 << 28, InStore: 7, InFiles: 4096, Segments: 1, Backup: time.Unix(99, 0)}}
	h.ended = []fettle.Incident{{Schema: 1, ID: "old", State: fettle.Resolved, Why: "it is over", Ended: time.Unix(9, 0)}}
	var err error
	if h.segment, h.data, err = segment.Make(segment.Log, 1, "", "h", [][]byte{bytes.Repeat([]byte("x"), 2*wire.Chunk), []byte("y")}); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t, func(o *server.Options) {
		h.Memory = store.NewMemory(o.CA.Fleet())
		o.History = h
	})
	return f, h
}

// TestStoreStatus: how large the store is stands in the status; that it fills up, is full,
// or lacks a file is a condition of the server's, which clears.
func TestStoreStatus(t *testing.T) {
	f, h := newFiled(t)
	got, err := f.admin(pki.RoleViewer).Status(t.Context(), &wire.StatusRequest{})
	if s := got.GetStore(); err != nil || s.GetInUse() != 5<<20 || s.GetQuota() != 2<<30 || s.GetEntriesInFiles() != 4096 || s.GetBackupUnix() != 99 || s.GetOldestUnix() != 0 {
		t.Errorf("%v, %v", s, err)
	}
	later := time.Now() // the mind's time, in which delays pass
	for code, u := range map[fettle.Code]store.Usage{
		"fettle.store_filling":  {State: store.Filling, Why: "much"},
		"fettle.store_full":     {State: store.Full, Why: "all"},
		"fettle.log_incomplete": {Lacks: []string{"server s lacks segment x"}},
	} {
		mark := f.brain.mark()
		h.set(u)
		o := f.brain.await(t, mark, "the store's room", func(o fettle.Observation) bool {
			return o.Probe == server.RoomProbe && (o.Facts["filling"] == (u.State == store.Filling) && o.Facts["full"] == (u.State == store.Full) && o.Facts["lacks"] == (len(u.Lacks) > 0))
		})
		if o.Subject != f.server.Subject() {
			t.Errorf("%+v", o)
		}
		key := fettle.ConditionKey{Code: code, Subject: f.server.Subject()}
		for range 2 {
			later = later.Add(time.Minute)
			f.take(t, incident.Input{At: later, Observations: []fettle.Observation{again(o, later)}})
		}
		if c := f.condition(t, key); !c.Raised() {
			t.Errorf("%s: %+v", code, c)
		}
		o.Facts["filling"], o.Facts["full"], o.Facts["lacks"] = false, false, false
		later = later.Add(time.Minute)
		f.take(t, incident.Input{At: later, Observations: []fettle.Observation{again(o, later)}})
		if c := f.condition(t, key); c.State != fettle.No {
			t.Errorf("%s does not clear: %+v", code, c)
		}
	}
}

func again(o fettle.Observation, at time.Time) fettle.Observation {
	o.Asked = at
	return o
}

func (f *fleet) take(t *testing.T, in incident.Input) {
	t.Helper()
	if err := f.brain.Ask(t.Context(), func(m *incident.Mind) { m.Take(in) }); err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) condition(t *testing.T, key fettle.ConditionKey) (c fettle.Condition) {
	t.Helper()
	if err := f.brain.Ask(t.Context(), func(m *incident.Mind) { c, _ = m.View().Condition(key) }); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestIncidentInAFile: it is listed and explained as any other; it cannot be answered.
func TestIncidentInAFile(t *testing.T) {
	f, _ := newFiled(t)
	viewer := f.admin(pki.RoleViewer)
	got, err := viewer.Incident(t.Context(), &wire.IncidentRequest{Id: "old"})
	if i, uerr := wire.Unpack[fettle.Incident](got.GetJson()); err != nil || uerr != nil || i.Why != "it is over" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := viewer.Incident(t.Context(), &wire.IncidentRequest{Id: "never"}); status.Code(err) != codes.NotFound {
		t.Errorf("one that never was: %v", err)
	}
	for ended, want := range map[bool]int{true: 1, false: 0} {
		stream, err := viewer.Incidents(t.Context(), &wire.IncidentsRequest{Ended: ended})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err = stream.Recv(); err == nil; _, err = stream.Recv() {
			n++
		}
		if n != want || !errors.Is(err, io.EOF) {
			t.Errorf("ended %v: %d, %v", ended, n, err)
		}
	}
	answer, err := wire.Pack(incident.Answer{Incident: "old", Say: incident.SayUndo})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin(pki.RoleAdmin).Answer(t.Context(), &wire.AnswerRequest{Json: answer}); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "went to a file") {
		t.Errorf("an answer: %v", err)
	}
}

// TestFetchSegment: a server gets a file from another over mutual TLS, in parts, and is
// told where there is none.
func TestFetchSegment(t *testing.T) {
	f, h := newFiled(t)
	if err := f.options.Register.Found(t.Context(), f.server.Subject().Name(), "self", time.Now()); err != nil {
		t.Fatal(err)
	}
	got, err := f.server.FetchSegment(t.Context(), f.address, h.segment)
	if err != nil || !bytes.Equal(got, h.data) {
		t.Errorf("%d of %d bytes, %v", len(got), len(h.data), err)
	}
	other := h.segment
	other.First++
	if _, err := f.server.FetchSegment(t.Context(), f.address, other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that it does not hold: %v", err)
	}
	h.data = append(h.data, "more"...)
	if _, err := f.server.FetchSegment(t.Context(), f.address, h.segment); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("one that is too long: %v", err)
	}
}
