package etcd

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// page is what is read of a member's /metrics, a few of its thousand series.
// Values that the page does not have are negative.
type page struct {
	started        int64 // process_start_time_seconds in ms since 1970: tells one process from the next
	quota          int64 // bytes
	defragments    int64 // done so far
	defragInflight int64
	fsync          []bucket // of the write-ahead log, cumulative, by bound
}

// bucket counts the syncs that took at most upper; math.MaxInt64 is without bound.
type bucket struct {
	upper int64 // ms
	count int64
}

const fsyncBucket = "etcd_disk_wal_fsync_duration_seconds_bucket"

// parseMetrics reads the text format of Prometheus as far as it is needed: the
// lines of a handful of series, without timestamps. What it does not know it
// passes over; a line of a known series that it cannot read is an error.
func parseMetrics(text []byte) (page, error) {
	p := page{started: -1, quota: -1, defragments: -1, defragInflight: -1}
	single := []struct {
		name string
		to   *int64
		unit float64
	}{
		{"process_start_time_seconds", &p.started, 1000},
		{"etcd_server_quota_backend_bytes", &p.quota, 1},
		{"etcd_disk_backend_defrag_duration_seconds_count", &p.defragments, 1},
		{"etcd_disk_defrag_inflight", &p.defragInflight, 1},
	}
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		// Cheap first: nearly every line is of another series.
		if len(line) == 0 || line[0] != 'e' && line[0] != 'p' {
			continue
		}
		if bytes.HasPrefix(line, []byte(fsyncBucket)) {
			b, err := parseBucket(string(line[len(fsyncBucket):]))
			if err != nil {
				return page{}, err
			}
			p.fsync = append(p.fsync, b)
			continue
		}
		for _, s := range single {
			rest, ok := bytes.CutPrefix(line, []byte(s.name))
			if !ok || len(rest) == 0 || rest[0] != ' ' {
				continue
			}
			v, err := parseNumber(string(rest), s.unit)
			if err != nil {
				return page{}, fmt.Errorf("metric %s: %w", s.name, err)
			}
			*s.to = v
		}
	}
	slices.SortFunc(p.fsync, func(a, b bucket) int {
		switch {
		case a.upper < b.upper:
			return -1
		case a.upper > b.upper:
			return 1
		}
		return 0
	})
	return p, nil
}

// parseBucket reads `{le="0.001"} 291`.
func parseBucket(rest string) (bucket, error) {
	bad := func() (bucket, error) { return bucket{}, fmt.Errorf("metric %s: cannot read %q", fsyncBucket, rest) }
	bound, value, ok := strings.Cut(strings.TrimPrefix(rest, `{le="`), `"} `)
	if !ok || !strings.HasPrefix(rest, `{le="`) {
		return bad()
	}
	b := bucket{upper: math.MaxInt64}
	var err error
	if bound != "+Inf" {
		if b.upper, err = parseNumber(bound, 1000); err != nil {
			return bad()
		}
	}
	if b.count, err = parseNumber(value, 1); err != nil {
		return bad()
	}
	return b, nil
}

// parseNumber reads a value that cannot be negative, as an integer of a unit.
func parseNumber(text string, unit float64) (int64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	// 2^53: up to there an integer is exact.
	if err != nil || math.IsNaN(v) || v < 0 || v*unit > 1<<53 {
		return 0, fmt.Errorf("%q is no number that it can have", text)
	}
	return int64(math.Round(v * unit)), nil
}

// quantile returns the bound under which a share (per mille) of the syncs between
// two pages of one process took, and how many there were. ok is false where the
// two cannot be compared.
func quantile(before, after page, permille int64) (upper, count int64, ok bool) {
	if before.started != after.started || before.started < 0 || len(before.fsync) == 0 || len(before.fsync) != len(after.fsync) {
		return 0, 0, false
	}
	last := len(after.fsync) - 1
	count = after.fsync[last].count - before.fsync[last].count
	if count <= 0 {
		return 0, 0, false
	}
	for i, b := range after.fsync {
		if b.upper != before.fsync[i].upper {
			return 0, 0, false
		}
		if (b.count-before.fsync[i].count)*1000 >= count*permille {
			return b.upper, count, true
		}
	}
	return 0, 0, false
}
