//go:build lab

package spine_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/lab/spine"
)

// someRecords is which records are hit where nobody says: a repair of a member takes
// twenty seconds, and the leader is killed in one for each record.
const someRecords = "6"

// momentOf is a moment of a repair, counted from its beginning: a commit of the server
// that leads, or a record in the journal of the agent that does the steps.
type momentOf struct {
	repair string // service or member
	part   string // server or agent
	n      int    // from 1 on
	record string // one that it must be a commit of, "intent:remove"; "": whatever it is of
}

func (m momentOf) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s, %s %d %s", m.repair, m.part, m.n, m.record), " ")
}

// records walks through the moments of each repair, one after the other, until there
// are no more of them. Records keep company in a commit as it happens, so another one
// may be the n-th each time: where all are wanted, those that were in none that was the
// last one are each waited for besides.
type records struct {
	every, from int
	left        []momentOf                 // the first one is next
	last        map[string]map[string]bool // repair to the records that were in a commit at which the server died
	taken       []takeover
}

// whichRecords reads FETTLE_LAB_RECORDS: "all", "N" for every N-th from one that
// changes from day to day, "N+M" for every N-th from the M-th on.
func whichRecords(t *testing.T) *records {
	text := os.Getenv("FETTLE_LAB_RECORDS")
	if text == "all" {
		text = "1"
	} else if text == "" {
		text = someRecords
	}
	first, second, given := strings.Cut(text, "+")
	every, err := strconv.Atoi(first)
	from := 0
	if err == nil && given {
		from, err = strconv.Atoi(second)
	} else if err == nil && every > 0 {
		from = int(time.Now().Unix()/(24*60*60))%every + 1
	}
	if err != nil || every < 1 || from < 1 {
		t.Fatalf("FETTLE_LAB_RECORDS is %q: say all, or every how many-th record is hit (5), and from which on (5+2)", text)
	}
	t.Logf("every %d-th record from the %d-th on: FETTLE_LAB_RECORDS=%d+%d is the same again", every, from, every, from)
	r := &records{every: every, from: from, last: map[string]map[string]bool{}}
	for _, repair := range []string{"service", "member"} {
		r.last[repair] = map[string]bool{}
		for _, part := range []string{"server", "agent"} {
			r.left = append(r.left, momentOf{repair: repair, part: part, n: from})
		}
	}
	return r
}

// hit goes on from a moment at which the server died, and at what.
func (r *records) hit(o takeover) {
	r.taken = append(r.taken, o)
	m := r.left[0]
	if m.part == "server" {
		for record := range strings.FieldsSeq(o.at) {
			r.last[m.repair][record] = true
		}
	}
	if m.record != "" {
		r.left = r.left[1:]
	} else {
		r.left[0].n += r.every
	}
	r.left = slices.DeleteFunc(r.left, func(m momentOf) bool { return m.record != "" && r.last[m.repair][m.record] })
}

// none goes on from a moment that did not come, of a repair with this story.
func (r *records) none(t *testing.T, in fettle.Incident) {
	t.Helper()
	m := r.left[0]
	r.left = r.left[1:]
	if m.part != "server" || m.record != "" || r.every > 1 {
		return
	}
	all := map[string]bool{}
	for _, e := range in.Story {
		record := strings.TrimSuffix(string(e.Kind)+":"+e.Step, ":")
		if all[record] = true; !r.last[m.repair][record] {
			r.left = append(r.left, momentOf{m.repair, m.part, 1, record})
		}
	}
	t.Logf("%s: %d different records, and as many commits as the server died at: %d", m.repair, len(all), m.n-1)
}

// Three servers. A service is started again, and a member replaced by a new one, over
// and over, and each time the server that leads is ended by SIGKILL at another record of
// it: when a commit is durable and nothing of it was sent, and when the agent's record
// is durable and the server was not told. Another leads within five seconds, the repair
// ends as it does when nobody dies, and each step is done once.
func TestLabServersEachRecord(t *testing.T) {
	r := whichRecords(t)
	killable, err := spine.Build(t.TempDir(), "labkill")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; len(r.left) > 0 && !t.Failed(); i++ {
		t.Run(fmt.Sprintf("lab%d", i), func(t *testing.T) { r.inOneLab(t, killable) })
	}
	reportTakeovers(t, r.taken)
}

// membersALab is how many members are replaced in one lab: each host's twice, before the
// ladder hands the same trouble to a person.
const membersALab = 6

// inOneLab tries as many moments as one lab is good for.
func (r *records) inOneLab(t *testing.T, killable string) {
	c := startEtcd(t, etcdOptions{servers: 3, binary: killable})
	for services, members := 0, 0; len(r.left) > 0 && members < membersALab && !t.Failed(); {
		m := r.left[0]
		h := c.Hosts()[(services+members)%3]
		var x *mending
		if m.repair == "service" {
			services++
			x = c.breakService(h, fmt.Sprintf("web-%d.service", services))
		} else {
			members++
			x = c.breakMember(h, members)
		}
		if o, in, hit := x.withoutLeader(m); hit {
			r.hit(o)
		} else {
			r.none(t, in)
		}
	}
	c.checkWhole()
	if out := c.Shell(c.Host(1), spine.Program+" audit verify"); !strings.Contains(out, "follows from the one before") {
		t.Errorf("the log: %s", out)
	}
}
