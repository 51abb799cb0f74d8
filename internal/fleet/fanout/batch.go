package fanout

import (
	"fmt"
	"strconv"
	"strings"
)

// Batch is how many hosts at a time: a number, or a share of the selected hosts.
// The zero Batch is all of them.
type Batch struct {
	number  int
	percent int
}

// ParseBatch reads "5" or "10%". "" is the zero Batch.
func ParseBatch(s string) (Batch, error) {
	if s == "" {
		return Batch{}, nil
	}
	digits, share := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n < 1 || digits[0] == '+':
		return Batch{}, fmt.Errorf("%q is no batch: write a number of hosts, 5, or a share of them, 10%%", s)
	case share && n > 100:
		return Batch{}, fmt.Errorf("a batch of %s is more than all hosts: write 1%% to 100%%", s)
	case share:
		return Batch{percent: n}, nil
	}
	return Batch{number: n}, nil
}

// Of is how many of all hosts a batch is: a share is rounded up, and at least 1.
func (b Batch) Of(hosts int) int {
	n := hosts
	switch {
	case b.number > 0:
		n = b.number
	case b.percent > 0: // hosts are few enough for the product
		n = (hosts*b.percent + 99) / 100
	}
	return max(1, min(n, hosts))
}

// String writes it as ParseBatch reads it.
func (b Batch) String() string {
	switch {
	case b.number > 0:
		return strconv.Itoa(b.number)
	case b.percent > 0:
		return strconv.Itoa(b.percent) + "%"
	}
	return ""
}
