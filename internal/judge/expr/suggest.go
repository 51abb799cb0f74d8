package expr

import (
	"maps"
	"slices"
	"strconv"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// didYouMean returns a hint naming the known name that is nearest to what was
// written, or, when none is near and there are few, all of them.
func didYouMean(written string, known []string) string {
	best, at := "", len(written)/3+2 // further away than this it is another word
	for _, k := range known {
		if d := distance(written, k); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	if best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	if len(known) == 0 || len(known) > 12 {
		return ""
	}
	hint := "known:"
	for _, k := range slices.Sorted(slices.Values(known)) {
		hint += " " + k
	}
	return hint
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour to get from a to b (optimal string alignment). Long names are
// far from everything, so that hostile input costs little.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 10
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
