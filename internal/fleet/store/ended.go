package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"fettle/internal/fettle"
	"fettle/internal/fleet/segment"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

const (
	// endedBatch is how many incidents are worth a file; endedMost how many go into one.
	endedBatch = 64
	endedMost  = 512
	// takenOut is how many records leave etcd at once.
	takenOut = 64
)

// ended is a line of a segment of incidents: a record as it was kept, and at what
// revision.
type ended struct {
	ID       string          `json:"id"`
	Revision int64           `json:"rev"`
	Record   json.RawMessage `json:"record"`
}

// incidents moves incidents that have ended into a file, a step further each time.
func (k *Keeper) incidents(ctx context.Context, offer segment.Ref) error {
	refs, err := k.e.refs(ctx, segment.Incidents)
	if err != nil {
		return err
	}
	if n := len(refs); n > 0 && refs[n-1].Name() != k.moved { // it may have been sealed just before a crash
		if err := k.takeOut(ctx, refs[n-1]); err != nil {
			return err
		}
	}
	switch {
	case offer.Kind == "":
		if offer, err = k.offerEnded(ctx, through(refs)+1); err != nil || offer.Kind == "" {
			return err
		}
	case offer.First != through(refs)+1:
		return k.withdraw(ctx, segment.Incidents)
	}
	sealed, err := k.seal(ctx, offer, fmt.Sprintf("%d incidents that have ended went to a file", offer.Lines()))
	if err != nil || !sealed {
		return err
	}
	return k.takeOut(ctx, offer)
}

// offerEnded makes and offers a segment of incidents, where there are enough that nobody
// needs any more.
func (k *Keeper) offerEnded(ctx context.Context, first int64) (none segment.Ref, err error) {
	if k.o.Forgettable == nil {
		return none, nil
	}
	l, now := k.e.o.Limits, k.o.Wall()
	newest, before := l.KeepIncidents, now.Add(-l.KeepIncidentsFor)
	tight := k.e.room.tight()
	if tight {
		newest, before = 0, now // the mind knows what it cannot do without
	}
	ids, err := k.o.Forgettable(ctx, newest, before)
	if err == nil && len(ids) < endedBatch && !tight && len(ids) > 0 {
		ids, err = k.o.Forgettable(ctx, newest, before.Add(-ageSlack))
	}
	if err != nil || len(ids) == 0 {
		return none, err
	}
	lines, gone, err := k.recordsOf(ctx, ids)
	if err != nil {
		return none, err
	}
	k.forget(gone)
	if len(lines) == 0 {
		return none, nil
	}
	return k.offer(ctx, segment.Incidents, first, "", "", lines)
}

// recordsOf reads records as they are kept; gone are those that are not in etcd. One of
// which an intent is in flight is left out.
func (k *Keeper) recordsOf(ctx context.Context, ids []string) (lines [][]byte, gone []string, err error) {
	flying := map[string]bool{}
	err = k.e.each(ctx, keyIntents, "", func(key string, value []byte) error {
		var in loop.Intent
		if err := json.Unmarshal(value, &in); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		flying[in.Dispatch.Incident] = true
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	size := int64(0)
	for _, id := range ids {
		if flying[id] {
			continue
		}
		got, err := k.e.get(ctx, keyRecords+id)
		if err != nil {
			return nil, nil, err
		}
		if len(got.Kvs) == 0 {
			gone = append(gone, id)
			continue
		}
		var r incident.Record
		if err := json.Unmarshal(got.Kvs[0].Value, &r); err != nil || !r.State.Ended() {
			continue // it is not what the mind means, and stays
		}
		line, err := json.Marshal(ended{id, got.Kvs[0].ModRevision, got.Kvs[0].Value})
		if err != nil {
			return nil, nil, err
		}
		lines, size = append(lines, line), size+int64(len(line))
		if len(lines) >= endedMost || size >= k.e.o.Limits.SegmentBytes {
			break
		}
	}
	return lines, gone, nil
}

// takeOut takes the records of a sealed segment out of etcd, as far as they are still as
// they were sealed, and has those forgotten that are in no other place.
func (k *Keeper) takeOut(ctx context.Context, r segment.Ref) error {
	list, err := k.e.endedIn(ctx, r)
	if err != nil {
		return err
	}
	var gone []string
	for part := range slices.Chunk(list, takenOut) {
		var cmps []clientv3.Cmp
		var ops []clientv3.Op
		for _, one := range part {
			got, err := k.e.get(ctx, keyRecords+one.ID, clientv3.WithKeysOnly())
			switch {
			case err != nil:
				return err
			case len(got.Kvs) == 0:
				gone = append(gone, one.ID)
			case got.Kvs[0].ModRevision == one.Revision:
				cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(keyRecords+one.ID), "=", one.Revision))
				ops = append(ops, clientv3.OpDelete(keyRecords+one.ID))
				gone = append(gone, one.ID)
			}
		}
		if len(ops) == 0 {
			continue
		}
		resp, err := k.e.led(ctx, cmps, ops...)
		if err == nil && !resp.Succeeded {
			err = errors.New("one of them changed in the same moment")
		}
		if err != nil {
			return fmt.Errorf("take incidents out of etcd that are in %s: %w", r, explain(err))
		}
		k.at("taken out")
	}
	k.moved = r.Name()
	k.forget(gone)
	return nil
}

func (k *Keeper) forget(ids []string) {
	if k.o.Forget != nil && len(ids) > 0 {
		k.o.Forget(ids)
	}
}

// endedIn reads a segment of incidents.
func (e *Etcd) endedIn(ctx context.Context, r segment.Ref) ([]ended, error) {
	lines, err := e.lines(ctx, r)
	if err != nil {
		return nil, err
	}
	list := make([]ended, 0, len(lines))
	for _, line := range lines {
		var one ended
		err := json.Unmarshal(line, &one)
		if err == nil && one.ID == "" {
			err = errors.New("it has no ID")
		}
		if err != nil {
			return nil, &segment.Bad{Ref: r, Err: fmt.Errorf("a line of it is no incident's: %w", err)}
		}
		list = append(list, one)
	}
	return list, nil
}

// Ended calls each with the incidents that are in files, the oldest file first, each once,
// as it was last. The error names a file that cannot be read.
func (e *Etcd) Ended(ctx context.Context, each func(fettle.Incident) error) error {
	refs, err := e.refs(ctx, segment.Incidents)
	if err != nil {
		return err
	}
	// Each file is read twice, so that never more than one of them is in memory.
	last := map[string]int64{} // by ID, the file that has it as it was last
	for _, r := range refs {
		list, err := e.endedIn(ctx, r)
		if err != nil {
			return err
		}
		for _, one := range list {
			last[one.ID] = r.First
		}
	}
	for _, r := range refs {
		list, err := e.endedIn(ctx, r)
		if err != nil {
			return err
		}
		for _, one := range list {
			if last[one.ID] != r.First {
				continue
			}
			i, err := one.incident()
			if err == nil {
				err = each(i)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// EndedIncident finds an incident that is in a file.
func (e *Etcd) EndedIncident(ctx context.Context, id string) (fettle.Incident, bool, error) {
	refs, err := e.refs(ctx, segment.Incidents)
	if err != nil {
		return fettle.Incident{}, false, err
	}
	for _, r := range slices.Backward(refs) {
		list, err := e.endedIn(ctx, r)
		if err != nil {
			return fettle.Incident{}, false, err
		}
		for _, one := range list {
			if one.ID == id {
				i, err := one.incident()
				return i, err == nil, err
			}
		}
	}
	return fettle.Incident{}, false, nil
}

func (o ended) incident() (fettle.Incident, error) {
	var r incident.Record
	if err := json.Unmarshal(o.Record, &r); err != nil {
		return fettle.Incident{}, fmt.Errorf("incident %s as it is kept in a file: %w", o.ID, err)
	}
	return r.Incident, nil
}
