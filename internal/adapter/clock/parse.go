package clock

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"fettle/internal/fettle"
)

// tracking is chronyc -c tracking (chronyc(1)): of its fourteen fields, those that
// are used.
type tracking struct {
	source   string // "" where none is followed
	stratum  int64
	offsetUs int64 // of the clock behind its source
	synced   bool
}

// source is one line of chronyc -c sources.
type source struct {
	address  string
	state    string
	stratum  int64
	reach    int64
	offsetUs int64
}

const (
	trackingFields = 14
	sourceFields   = 10
)

// states are chronyd's marks of a source.
func stateOf(mark string) (string, bool) {
	name, ok := map[string]string{"*": "followed", "+": "combined", "-": "spare", "x": "falseticker", "~": "variable", "?": "unusable"}[mark]
	return name, ok
}

func records(text []byte, fields int) ([][]string, error) {
	r := csv.NewReader(strings.NewReader(string(text)))
	r.FieldsPerRecord = fields
	list, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("chronyc said what is not understood: %w (is it chrony 4?)", err)
	}
	return list, nil
}

func parseTracking(text []byte) (tracking, error) {
	list, err := records(text, trackingFields)
	if err != nil {
		return tracking{}, err
	}
	if len(list) != 1 {
		return tracking{}, fmt.Errorf("chronyc tracking said %d lines, want one", len(list))
	}
	f := list[0]
	t := tracking{source: f[1], synced: f[13] != "Not synchronised" && f[0] != "00000000"}
	if t.stratum, err = strconv.ParseInt(f[2], 10, 16); err != nil {
		return tracking{}, fmt.Errorf("chronyc tracking: stratum: %w", err)
	}
	// Positive: "slow of NTP time" (chronyc's client.c).
	if t.offsetUs, err = microseconds(f[4]); err != nil {
		return tracking{}, fmt.Errorf("chronyc tracking: system time: %w", err)
	}
	if !t.synced {
		t.source, t.stratum = "", 0
	}
	return t, nil
}

func parseSources(text []byte) ([]source, error) {
	list, err := records(text, sourceFields)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, f := range list {
		s := source{address: f[2]}
		known := false
		if s.state, known = stateOf(f[1]); !known || s.address == "" {
			return nil, fmt.Errorf("chronyc sources: source %q is marked %q, which is not understood", f[2], f[1])
		}
		if _, err := fettle.ParseSubject(string(fettle.NewSubject(fettle.KindTimeSource, s.address))); err != nil {
			return nil, fmt.Errorf("chronyc sources: %w", err)
		}
		if s.stratum, err = strconv.ParseInt(f[3], 10, 16); err != nil {
			return nil, fmt.Errorf("chronyc sources: stratum of %s: %w", s.address, err)
		}
		if s.reach, err = strconv.ParseInt(f[5], 8, 16); err != nil { // octal
			return nil, fmt.Errorf("chronyc sources: reach of %s: %w", s.address, err)
		}
		// What was measured: the offset of the source, as tracking has it.
		if s.offsetUs, err = microseconds(f[7]); err != nil {
			return nil, fmt.Errorf("chronyc sources: offset of %s: %w", s.address, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// farthest bounds an offset: half the range of the time in NTP's packets, 68 years.
const farthest = 1 << 31

// microseconds reads decimal seconds, truncated, without floats.
func microseconds(text string) (int64, error) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, part, _ := strings.Cut(digits, ".")
	s, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || s > farthest {
		return 0, fmt.Errorf("%q is no number of seconds", text)
	}
	part = (part + "000000")[:6]
	us, err := strconv.ParseUint(part, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of seconds", text)
	}
	sum := int64(s)*1_000_000 + int64(us)
	if negative {
		sum = -sum
	}
	return sum, nil
}
