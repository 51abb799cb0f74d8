package fettle

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Kind says what sort of thing a subject is: "host", "unit", "filesystem",
// "etcd", "etcd-member". Kinds are lower case letters, digits and '-'.
type Kind string

// Kinds that more than one room must know. Every other kind belongs to the
// adapter that names it.
const (
	KindHost       Kind = "host"       // host:ID, the ID minted once when the machine was enrolled
	KindUnit       Kind = "unit"       // unit:HOST/NAME, a service manager's unit
	KindFilesystem Kind = "filesystem" // filesystem:HOST/MOUNTPOINT
	// KindServer is a server of the fleet: fettle-server:ID.
	KindServer Kind = "fettle-server"
)

// Kinds of what many hosts share, and what can take all of them at once. A host is
// In a rack and the rack In a zone; a host, or a unit on it, Uses the others. A job
// RunsOn its hosts. Who gives these subjects is named at each.
const (
	KindRack       Kind = "rack"        // rack:ZONE/NAME, or rack:NAME without a zone: the topology file
	KindZone       Kind = "zone"        // zone:NAME: the topology file
	KindSwitch     Kind = "switch"      // switch:NAME: the topology file
	KindPower      Kind = "power"       // power:NAME, a feed: the topology file
	KindTimeSource Kind = "time-source" // time-source:ADDRESS: who reads the time daemon
	KindAuthority  Kind = "authority"   // authority:FINGERPRINT, of certificates: who reads them
	KindJob        Kind = "job"         // job:SYSTEM/ID, one run over many hosts: who reads the scheduler
)

// Subject is the identity of a thing that can be ill, as text:
//
//	kind:segment/segment…
//
// Segments are path-escaped (url.PathEscape), so a mount point or a URL can be
// one. The first segment is the identity of the host or system that the thing
// belongs to; it is minted once and is not a name: renaming a host changes none
// of its subjects, re-imaging it makes new ones. The zero Subject names nothing
// and matches nothing.
type Subject string

// NewSubject makes a subject of a kind and at least one segment, escaping each.
func NewSubject(kind Kind, segments ...string) Subject {
	var b strings.Builder
	b.WriteString(string(kind))
	for i, s := range segments {
		if i == 0 {
			b.WriteByte(':')
		} else {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(s))
	}
	return Subject(b.String())
}

// ParseSubject checks that text is a well-formed subject in its one canonical
// spelling: a kind, a colon, and non-empty segments escaped as NewSubject does.
func ParseSubject(text string) (Subject, error) {
	kind, rest, ok := strings.Cut(text, ":")
	if !ok || kind == "" || rest == "" {
		return "", fmt.Errorf("subject %q: want kind:segment/segment…, for example unit:h1/etcd.service", text)
	}
	for _, r := range kind {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return "", fmt.Errorf("subject %q: kind %q may have only a-z, 0-9 and '-'", text, kind)
		}
	}
	parts := strings.Split(rest, "/")
	for i, p := range parts {
		raw, err := url.PathUnescape(p)
		if err != nil || raw == "" {
			return "", fmt.Errorf("subject %q: segment %q is empty or badly escaped", text, p)
		}
		parts[i] = raw
	}
	if s := NewSubject(Kind(kind), parts...); string(s) != text {
		return "", fmt.Errorf("subject %q: not in canonical form, want %q", text, s)
	}
	return Subject(text), nil
}

// Kind returns what sort of thing s is; "" of the zero subject.
func (s Subject) Kind() Kind {
	k, _, _ := strings.Cut(string(s), ":")
	return Kind(k)
}

// Segments returns the unescaped segments of s.
func (s Subject) Segments() []string {
	_, rest, ok := strings.Cut(string(s), ":")
	if !ok {
		return nil
	}
	parts := strings.Split(rest, "/")
	for i, p := range parts {
		if raw, err := url.PathUnescape(p); err == nil {
			parts[i] = raw
		}
	}
	return parts
}

// Root returns the first segment: the identity of the host or system that s
// belongs to.
func (s Subject) Root() string {
	segs := s.Segments()
	if len(segs) == 0 {
		return ""
	}
	return segs[0]
}

// Name returns the last segment, what a person would call the thing where its
// root is clear from the context.
func (s Subject) Name() string {
	segs := s.Segments()
	if len(segs) == 0 {
		return ""
	}
	return segs[len(segs)-1]
}

// HostSubject is the subject of the host with this identity.
func HostSubject(id string) Subject { return NewSubject(KindHost, id) }

// Relation names an edge of the subject graph, read from left to right:
// "unit runs-on host".
type Relation string

// The relations. RunsOn and PartOf are structure, Uses is a dependency (a unit
// uses a filesystem, a member uses a unit), In places a subject in a failure
// domain (rack, zone, power feed).
const (
	RunsOn Relation = "runs-on"
	PartOf Relation = "part-of"
	Uses   Relation = "uses"
	In     Relation = "in"
)

// Edge is one seen relation between two subjects.
type Edge struct {
	From Subject  `json:"from"`
	Rel  Relation `json:"rel"`
	To   Subject  `json:"to"`
}

// Hop is one step along a Path.
type Hop struct {
	Rel  Relation
	Back bool // true: against the arrow, from To to From
}

// Path is a walk over the graph from one subject to related ones, as text: hops
// separated by blanks, each a direction and a relation. ">" follows the arrow,
// "<" goes against it, "self" stays.
//
//	>part-of            the whole that I am a part of
//	<uses               all that use me
//	<runs-on >part-of   the wholes that the things running on me belong to
type Path string

// Self is the path that stays where it is.
const Self Path = "self"

// Hops parses the path.
func (p Path) Hops() ([]Hop, error) {
	if p == Self {
		return nil, nil
	}
	words := strings.Fields(string(p))
	if len(words) == 0 {
		return nil, fmt.Errorf("path %q: empty; write %q to stay on the subject", p, Self)
	}
	hops := make([]Hop, 0, len(words))
	for _, w := range words {
		h := Hop{Rel: Relation(w[1:]), Back: w[0] == '<'}
		if w[0] != '<' && w[0] != '>' {
			return nil, fmt.Errorf("path %q: hop %q must begin with > or <", p, w)
		}
		if !slices.Contains([]Relation{RunsOn, PartOf, Uses, In}, h.Rel) {
			return nil, fmt.Errorf("path %q: unknown relation %q; known: runs-on, part-of, uses, in", p, h.Rel)
		}
		hops = append(hops, h)
	}
	return hops, nil
}

// Reverse returns the path that leads back. A malformed path is returned as it
// is.
func (p Path) Reverse() Path {
	words := strings.Fields(string(p))
	if p == Self || len(words) == 0 {
		return p
	}
	slices.Reverse(words)
	for i, w := range words {
		switch w[0] {
		case '<':
			words[i] = ">" + w[1:]
		case '>':
			words[i] = "<" + w[1:]
		}
	}
	return Path(strings.Join(words, " "))
}
