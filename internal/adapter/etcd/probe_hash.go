package etcd

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"fettle/internal/fettle"
)

// hashLooker is the probe etcd.hash.
type hashLooker struct{ *cluster }

// Spec implements fettle.Probe.
func (hashLooker) Spec() fettle.ProbeSpec { return specOf(hashProbe) }

// Observe implements fettle.Probe. A hash says something only beside the others
// at the same revision, so a look at one member returns all that were compared.
func (p hashLooker) Observe(ctx context.Context, subjects ...fettle.Subject) []fettle.Observation {
	if len(subjects) > 0 {
		if slices.ContainsFunc(subjects, func(s fettle.Subject) bool { return s.Kind() == KindMember && s.Root() == p.system }) {
			return p.compare(ctx)
		}
		return nil
	}
	if !p.turnToHash(p.poll(ctx)) {
		return nil
	}
	return p.compare(ctx)
}

const (
	// othersEvery: a machine whose member does not lead compares at every tenth
	// turn, so that a leader's machine without an agent leaves no gap.
	othersEvery = 10
	// restFactor: after a comparison that took this long, a hundred times as long
	// is spent otherwise.
	restFactor = 100
)

// turnToHash decides whether this machine compares now, unasked.
func (c *cluster) turnToHash(r *round) bool {
	leads := slices.ContainsFunc(c.locals(), func(in *instance) bool {
		v, ok := r.of(in.member)
		return ok && v.id != 0 && v.id == r.leader
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	turn := c.hashTurns
	c.hashTurns++
	rested := c.lastHash.IsZero() || c.m.Clock.Now().Sub(c.lastHash) >= restFactor*c.hashCost
	return rested && (leads || turn%othersEvery == 0)
}

// hashed is what one member answered.
type hashed struct {
	view view
	resp *pb.HashKVResponse
	err  error
}

// compare hashes all voters at one revision.
func (c *cluster) compare(ctx context.Context) []fettle.Observation {
	started := c.m.Clock.Now()
	r := c.look(ctx)
	var members []*hashed
	var revision int64
	for _, v := range r.views {
		if !v.listed || v.status == nil || v.learner {
			continue
		}
		members = append(members, &hashed{view: v})
		if rev := v.status.Header.GetRevision(); revision == 0 || rev < revision {
			revision = rev
		}
	}
	// A revision that everyone has can be compacted away meanwhile: then a newer
	// one is taken, once.
	if again := c.hashAll(ctx, members, revision); again > revision {
		revision = again
		c.hashAll(ctx, members, revision)
	}
	took := c.m.Clock.Now().Sub(started)
	c.mu.Lock()
	c.lastHash, c.hashCost = c.m.Clock.Now(), took
	c.mu.Unlock()
	var out []fettle.Observation
	for _, v := range r.views {
		if !v.listed {
			continue
		}
		o := fettle.Observation{
			Subject: v.subject, Host: c.m.Identity.Host, Probe: hashProbe, Asked: r.started, Took: took,
			Edges: []fettle.Edge{{From: v.subject, Rel: fettle.PartOf, To: c.subject}},
		}
		i := slices.IndexFunc(members, func(h *hashed) bool { return h.view.id == v.id })
		switch {
		case v.learner:
			o.Reason, o.Detail = fettle.NotSupported, "a learner answers no hash"
		case i < 0 && sortError(v.err) == denied:
			o.Reason, o.Detail = fettle.PermissionDenied, v.err.Error()+": "+deniedHint
		case i < 0:
			o.Reason, o.Detail = fettle.Unreachable, "it does not answer"
		case members[i].resp == nil:
			o.Reason, o.Detail = hashReason(members[i].err), members[i].err.Error()
			if o.Reason == fettle.PermissionDenied {
				o.Detail += ": " + deniedHint
			}
		default:
			o.Facts = hashFacts(members, members[i], revision)
		}
		out = append(out, o)
	}
	return out
}

func hashReason(err error) fettle.Reason {
	switch sortError(err) {
	case denied:
		return fettle.PermissionDenied
	case learnerSaysNo:
		return fettle.NotSupported
	case noOutcome, notSent, ended:
		return fettle.Unreachable
	default:
		return fettle.Failed
	}
}

func hashFacts(members []*hashed, own *hashed, revision int64) fettle.Facts {
	var compared, same, largest int64
	sizes := map[uint32]int64{}
	for _, h := range members {
		if h.resp == nil || h.resp.CompactRevision != own.resp.CompactRevision {
			continue
		}
		compared++
		sizes[h.resp.Hash]++
		largest = max(largest, sizes[h.resp.Hash])
	}
	same = sizes[own.resp.Hash]
	return fettle.Facts{
		"hash": int64(own.resp.Hash), "hash_revision": revision, "compact_revision": own.resp.CompactRevision,
		"compared": compared, "same": same, "largest": largest,
	}
}

const (
	hashTries = 8
	hashPause = 25 * time.Millisecond // a follower applies what it lacks within some milliseconds
)

// hashAll asks all members at once, and those again whose compact revision is
// behind the newest, which is so for some milliseconds after a compaction. It
// returns a newer revision to ask for when this one has been compacted.
func (c *cluster) hashAll(ctx context.Context, members []*hashed, revision int64) (again int64) {
	ask := slices.Clone(members)
	for try := range hashTries {
		var group sync.WaitGroup
		for _, h := range ask {
			group.Go(func() { h.resp, h.err = c.hashOne(ctx, h.view.clientURL, revision) })
		}
		group.Wait()
		newest := int64(-1)
		for _, h := range members {
			if h.resp != nil {
				newest = max(newest, h.resp.CompactRevision)
			}
			if sortError(h.err) == compacted {
				again = max(again, revision+1)
			}
		}
		ask = slices.DeleteFunc(ask, func(h *hashed) bool {
			if h.resp != nil {
				return h.resp.CompactRevision == newest
			}
			return sortError(h.err) != future
		})
		if len(ask) == 0 || again > 0 || try == hashTries-1 || !c.pause(ctx, hashPause) {
			break
		}
	}
	if again == 0 {
		return 0
	}
	for _, v := range c.look(ctx).views {
		if v.status != nil && v.listed && !v.learner {
			again = max(again, v.status.Header.GetRevision())
		}
	}
	return again
}

func (c *cluster) hashOne(ctx context.Context, clientURL string, revision int64) (*pb.HashKVResponse, error) {
	e, err := c.dial.to(clientURL)
	if err != nil {
		return nil, err
	}
	return e.maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
}

// pause waits, and reports false when ctx ended before.
func (c *cluster) pause(ctx context.Context, d time.Duration) bool {
	over, stop := c.m.Clock.After(d)
	defer stop()
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}
