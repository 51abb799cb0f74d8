package fettle

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// Reason says why an observation could not be made.
type Reason string

// The reasons. Unreachable is the only one that says something about the
// subject: it was asked and did not answer. All others say something about the
// observer.
const (
	Unreachable      Reason = "unreachable"       // asked in time, no answer or connection refused
	TimedOut         Reason = "timed out"         // the probe itself was cut off at its deadline
	PermissionDenied Reason = "permission denied" // the observer may not look
	NotSupported     Reason = "not supported"     // this machine or version cannot be asked
	Failed           Reason = "failed"            // anything else; Detail says what
)

// ReasonOf says why a look at something of the observer's own machine could not be made.
func ReasonOf(err error) Reason {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return PermissionDenied
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return TimedOut
	case errors.Is(err, ErrNotSupported):
		return NotSupported
	}
	return Failed
}

// Observation is one answer about one subject, by one observer, asked for at
// one time: the subject's facts as one probe sees them. The latest observation
// of the same subject, observer and probe replaces the one before, edges
// included. Probes do not judge: an observation holds what was read.
type Observation struct {
	Subject  Subject       `json:"subject"`
	Host     Subject       `json:"host"`             // the host whose agent looked
	Probe    string        `json:"probe"`            // "etcd.member"; with Host, the observer
	Asked    time.Time     `json:"asked"`            // when it was asked for (or told), not when it was answered
	Took     time.Duration `json:"took_ns"`          // from asking to answer
	Reason   Reason        `json:"reason,omitempty"` // not empty: nothing is known, and why
	Detail   string        `json:"detail,omitempty"` // free text, redacted at its source
	Gone     bool          `json:"gone,omitempty"`   // the subject no longer exists, as far as this observer can see
	Facts    Facts         `json:"facts,omitempty"`
	Edges    []Edge        `json:"edges,omitempty"`
	Quorum   *QuorumGroup  `json:"quorum,omitempty"`
	Replicas *ReplicaSet   `json:"replicas,omitempty"`
}

// Known reports whether the observation was made.
func (o Observation) Known() bool { return o.Reason == "" }

// Observer identifies who looked: a host and a probe. Two observations of one
// subject by different observers are independent evidence only when their hosts
// differ.
type Observer struct {
	Host  Subject `json:"host"`
	Probe string  `json:"probe"`
}

// Observer returns who made the observation.
func (o Observation) Observer() Observer { return Observer{Host: o.Host, Probe: o.Probe} }

// QuorumGroup is the typed fact of a system that decides by majority, as one
// observer sees it. Guards read it without knowing which system it is.
type QuorumGroup struct {
	// ID is the name that the group gave itself when it was made, and tells its clients;
	// "": this observer does not know it. Subjects are named by configuration, which may
	// give two groups one name, or one group two.
	ID      string         `json:"id,omitempty"`
	Members []QuorumMember `json:"members"` // sorted by Subject
}

// QuorumMember is one member of a quorum group.
type QuorumMember struct {
	Subject Subject `json:"subject"`
	ID      string  `json:"id"`      // the identity under which it votes; changes when it is replaced
	Voter   bool    `json:"voter"`   // false: a learner, which does not count
	Serving Tri     `json:"serving"` // answers and follows the leader
	Leader  bool    `json:"leader,omitempty"`
	LogLost Tri     `json:"log_lost,omitzero"` // its log is gone or damaged: under ID it must never vote again
	// Disputed: Serving is what most observers say, and another says that it serves. Set
	// where their words are put together, and by none of them.
	Disputed bool `json:"disputed,omitempty"`
}

// Voters is the number of voting members, serving or not.
func (g QuorumGroup) Voters() int {
	n := 0
	for _, m := range g.Members {
		if m.Voter {
			n++
		}
	}
	return n
}

// Majority is the least number of serving voters that can decide; 0 of an empty
// group.
func (g QuorumGroup) Majority() int {
	v := g.Voters()
	if v == 0 {
		return 0
	}
	return v/2 + 1
}

// ServingVotes counts the voters known to be serving. Unknown counts as not
// serving: for votes, down is the worst case.
func (g QuorumGroup) ServingVotes() int {
	n := 0
	for _, m := range g.Members {
		if m.Voter && m.Serving == Yes {
			n++
		}
	}
	return n
}

// Member returns the member of this subject.
func (g QuorumGroup) Member(s Subject) (QuorumMember, bool) {
	for _, m := range g.Members {
		if m.Subject == s {
			return m, true
		}
	}
	return QuorumMember{}, false
}

// Clone returns a copy that shares nothing with g.
func (g QuorumGroup) Clone() QuorumGroup {
	return QuorumGroup{ID: g.ID, Members: append([]QuorumMember(nil), g.Members...)}
}

// ReplicaSet is the typed fact of data kept in copies, as one observer sees it.
type ReplicaSet struct {
	Copies  int `json:"copies"`  // that exist
	InSync  int `json:"in_sync"` // known to be complete and current
	Minimum int `json:"minimum"` // below which writes stop or data is at risk
}
