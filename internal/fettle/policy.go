package fettle

import "time"

// Level says how far Fettle may go by itself. The zero value observes.
type Level int8

// The levels, each including what is below it.
const (
	Observe   Level = iota // report conditions and causes
	Shadow                 // plan, and record what would have been done
	Suggest                // show the plan to a person
	Approve                // do it once a person has approved the plan
	Automatic              // do it
)

var levelNames = []string{"observe", "shadow", "suggest", "approve", "automatic"}

// String returns the level's name.
func (l Level) String() string {
	if l < 0 || int(l) >= len(levelNames) {
		return levelNames[Observe]
	}
	return levelNames[l]
}

// MarshalText writes String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what String writes. Anything else becomes Observe: the
// level that cannot harm.
func (l *Level) UnmarshalText(text []byte) error {
	*l = Observe
	for i, n := range levelNames {
		if n == string(text) {
			*l = Level(i)
		}
	}
	return nil
}

// Policy is what the owners of the fleet permit. The zero Policy permits what
// DefaultLevel says and has the default budgets.
type Policy struct {
	Rules   []PolicyRule // the last one that matches decides
	Budgets []Budget
	Rate    Rate
	// Disposable lists the classes of things that may be let go without being
	// kept (S5). Nil is DefaultDisposable; an empty list permits nothing.
	Disposable []string
	// Permits is what agents may do alone while they reach no server (S12). Nil is
	// the default, what starts services that failed; an empty list permits nothing.
	Permits []Grant
	// PermitLife is how long a permit holds from when it was signed; 0: a day.
	PermitLife time.Duration
	Hash       string // of the text that it was read from
}

// PolicyRule gives a level to what it matches. Patterns are those of path.Match;
// an empty pattern matches nothing, "*" everything (S3: an empty selector
// matches nothing).
type PolicyRule struct {
	Runbook string // pattern over runbook names
	Rung    string // pattern over rung names
	Subject string // pattern over the target's text; '/' is an ordinary character
	Level   Level
}

// Budget limits how much of a pool may be ill or claimed at once. All numbers
// hold together; a step on what is already lost spends only the rate.
type Budget struct {
	Kind        Kind // of the members: host, unit, etcd-member
	Pool        Path // from a member to its pool: ">in" a failure domain, ">part-of" a whole
	MaxNumber   int  // at most so many ill or claimed…
	MaxPermille int  // …and at most this share of the pool…
	Floor       int  // …but at least so many may be touched, however small the pool
	MinStay     int  // never fewer than this stay whole; the floor does not override it
}

// Rate limits how often a subject, and the fleet, is acted upon.
type Rate struct {
	PerSubject int           // plans begun on one subject within Window before a person is called; 0: 3
	PerFleet   int           // plans begun anywhere within Window; 0: 20
	Window     time.Duration // 0: one hour
}

// DefaultDisposable is what is known to be disposable by its kind: packages can
// be fetched again, journal entries past the journal's own limit and logs that
// were already rotated are past their declared life.
var DefaultDisposable = []string{"package-cache", "journal-past-limit", "rotated-logs"}
