package etcd

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

// alarm is one alarm that stands.
type alarm struct {
	member uint64 // 0: etcd does not say whose
	what   string // NOSPACE, CORRUPT
}

// alarmText is an alarm among the errors of Status. 3.4 writes a blank at its
// end, 3.7 two in its middle; the identity is decimal, and left out where it is 0,
// as in 3.4 for a member whose content differs.
var alarmText = regexp.MustCompile(`^(?:memberID:([0-9]{1,20})\s+)?alarm:([A-Z]+)\s*$`)

// alarmsIn sorts the errors of a Status answer into alarms and others.
func alarmsIn(errors []string) (alarms []alarm, others []string) {
	for _, e := range errors {
		if m := alarmText.FindStringSubmatch(e); m != nil {
			if id, err := strconv.ParseUint(cmp.Or(m[1], "0"), 10, 64); err == nil {
				alarms = append(alarms, alarm{id, m[2]})
				continue
			}
		}
		if strings.TrimSpace(e) != "" {
			others = append(others, e)
		}
	}
	return alarms, others
}
