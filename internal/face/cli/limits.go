package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fettle/internal/fleet/store"
)

// limitFlags are how much the store keeps.
type limitFlags struct {
	quota     bytesFlag
	incidents int
	keep      time.Duration
}

func (f *limitFlags) flags(c *cobra.Command) {
	c.Flags().Var(&f.quota, "store-quota", fmt.Sprintf("how large the store may grow, the same on all servers; what is old goes to files before (default %s; in an existing etcd the fleet's own keys, %s)",
		store.Bytes(store.DefaultQuota), store.Bytes(store.DefaultExistingQuota)))
	c.Flags().IntVar(&f.incidents, "keep-incidents", 1000, "so many incidents that have ended stay in the store; of the others, those that are old go to files")
	c.Flags().DurationVar(&f.keep, "keep-for", 30*24*time.Hour, "what is older goes to files: entries of the log, and incidents that have ended")
}

func (f *limitFlags) limits() (store.Limits, error) {
	if f.incidents < 1 || f.keep <= 0 {
		return store.Limits{}, exit(ExitUsage, "--keep-incidents %d, --keep-for %s: both must be more than nothing", f.incidents, f.keep)
	}
	return store.Limits{Quota: int64(f.quota), KeepIncidents: f.incidents, KeepFor: f.keep, KeepIncidentsFor: f.keep}, nil
}

// bytesFlag is a number of bytes, with a unit.
type bytesFlag int64

const (
	// leastQuota has room for the largest change that is kept at once, and its reserve.
	leastQuota = 64 << 20
	// mostQuota is what etcd is made for.
	mostQuota = 8 << 30
)

// String implements pflag.Value. Nothing said is the default of the kind of store.
func (b *bytesFlag) String() string {
	if *b == 0 {
		return ""
	}
	return store.Bytes(int64(*b))
}

// Type implements pflag.Value.
func (b *bytesFlag) Type() string { return "size" }

// Set implements pflag.Value.
func (b *bytesFlag) Set(text string) error {
	n, err := parseBytes(text)
	if err == nil && (n < leastQuota || n > mostQuota) {
		err = fmt.Errorf("%q: between %s and %s", text, store.Bytes(leastQuota), store.Bytes(mostQuota))
	}
	if err != nil {
		return err
	}
	*b = bytesFlag(n)
	return nil
}

// parseBytes reads a number of bytes with its unit: MiB or GiB.
func parseBytes(text string) (int64, error) {
	for unit, shift := range map[string]int{"MiB": 20, "GiB": 30} { // any order: a text ends with one of them
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 32)
		if err != nil || n < 1 {
			break
		}
		return n << shift, nil
	}
	return 0, fmt.Errorf("%q is no size: want a number with MiB or GiB, as in 512MiB", text)
}
