package fettle

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Permit is a standing permit: what the agent of one host may do alone while it
// reaches no server (S12). A server signs it; it ends by itself. Whatever a permit
// grants, only what gives may be done under it: see Refuses.
type Permit struct {
	Schema int       `json:"schema"`
	Serial string    `json:"serial"` // names it in journals and logs; minted once
	Fleet  string    `json:"fleet"`
	Epoch  uint64    `json:"epoch"` // of the store whose leader signed it
	Host   Subject   `json:"host"`
	From   time.Time `json:"from"` // by the signing server's wall clock
	Until  time.Time `json:"until"`
	Grants []Grant   `json:"grants"` // the first that matches a step decides
	Policy Policy    `json:"policy"` // of the fleet when it was signed: being cut off frees of nothing that it says
	// Store is the group that holds the servers' own store, which is never mended by
	// Fettle; nil: they have one of their own.
	Store *StoreGroup `json:"store,omitempty"`
}

// How long a permit and the window of a grant may be: a host that nobody has heard of
// for a week is a person's.
const (
	MaxPermitLife   = 7 * 24 * time.Hour
	MaxPermitWindow = 7 * 24 * time.Hour
)

// Grant is one thing that a permit allows. Patterns are those of path.Match with '/'
// as an ordinary character; an empty pattern matches nothing.
type Grant struct {
	Action     string        `json:"action"`          // pattern over action names
	Subject    string        `json:"subject"`         // pattern over the target's text
	Hosts      string        `json:"hosts,omitempty"` // pattern over host names and subjects; of a signed permit it has been applied
	PerSubject int           `json:"per_subject"`     // steps begun on one target within Window, whoever ordered them
	PerHost    int           `json:"per_host"`        // steps begun under this grant within Window
	Window     time.Duration `json:"window_ns"`
}

// Matches reports whether the grant is for this action on this target. A malformed
// pattern matches nothing.
func (g Grant) Matches(action string, target Subject) bool {
	return MatchText(g.Action, action) && MatchText(g.Subject, string(target))
}

// MatchText reports whether a pattern of path.Match matches a text in which '/' is
// an ordinary character. An empty or malformed pattern matches nothing.
func MatchText(pattern, text string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(text, "/", "\x00"))
	return err == nil && ok && pattern != ""
}

// Grant returns the grant that is for this action on this target, and its place
// among the grants.
func (p Permit) Grant(action string, target Subject) (Grant, int, bool) {
	i := slices.IndexFunc(p.Grants, func(g Grant) bool { return g.Matches(action, target) })
	if i < 0 {
		return Grant{}, -1, false
	}
	return p.Grants[i], i, true
}

// Refuses says why a permit does not let a step be done; "" when it does. It looks
// at what the permit and the action are, not at the clock or at what was done
// before. spec is the action's own entry in the catalogue: what the step says of
// itself is believed only where it is worse.
//
// No permit lets a step be taken back, act beyond its host, take anything, set data
// aside or let it go, be of more than low risk, be one that cannot be undone, or
// change the membership of a quorum group: starting a member only gives.
func (p Permit) Refuses(step Step, spec ActionSpec, undo bool) string {
	switch {
	case step.Host != p.Host:
		return fmt.Sprintf("it is for %s, and the step is for %s", p.Host, step.Host)
	case undo:
		return "nothing is taken back under a permit: that takes"
	case spec.Name != step.Action || spec.Scope != HostScope:
		return "the action reaches beyond its host"
	case len(spec.Takes) > 0 || len(step.Takes) > 0 || len(step.Claims) > 0:
		return fmt.Sprintf("it takes something away: %v", slices.Concat(spec.Takes, step.Takes, claimed(step)))
	case spec.Disposes != "":
		return "it lets something go: " + spec.Disposes
	case spec.Risk != LowRisk || step.Risk != "" && step.Risk != LowRisk:
		return "it is not of low risk"
	case !spec.Undo:
		return "it is forward-only: " + spec.NoUndo
	case step.ForwardOnly != "":
		return "it is forward-only: " + step.ForwardOnly
	case step.Fences != "":
		return "it takes over from another host"
	}
	for _, e := range slices.Concat(spec.Effects, step.Effects) {
		if e.Quorum != "" && e.Quorum != QuorumStart {
			return "it changes a quorum group: " + string(e.Quorum)
		}
	}
	if _, _, ok := p.Grant(step.Action, step.Target); !ok {
		return fmt.Sprintf("%s on %s is not among what it grants", step.Action, step.Target)
	}
	return ""
}

func claimed(s Step) []Taking {
	var out []Taking
	for _, c := range s.Claims {
		out = append(out, c.What)
	}
	return out
}

// Alone says of an incident that an agent went through it while it was cut off.
type Alone struct {
	Host   Subject `json:"host"`
	Chain  string  `json:"chain"`            // the log that the agent kept meanwhile
	Permit string  `json:"permit,omitempty"` // serial of the permit that it had
	Events int     `json:"events,omitempty"` // of the story that it told; those behind them are a server's
}

// Same reports whether both are about the same chain of the same host.
func (a *Alone) Same(as Alone) bool { return a != nil && a.Host == as.Host && a.Chain == as.Chain }
